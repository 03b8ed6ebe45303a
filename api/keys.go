// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

func (s *Server) listKeys(ctx context.Context, _ attest.Caller, _ struct{}) (reply, error) {
	keys, err := s.keys.Keys(ctx)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: keysWire(keys)}, nil
}

func (s *Server) rotate(ctx context.Context, caller attest.Caller, signer attest.Power) (reply, error) {
	if err := everywhere(caller, attest.GrantRotate); err != nil {
		return reply{}, err
	}
	v, err := s.keys.Rotate(ctx, signer)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusCreated, body: client.Rotation{Signer: signer, KeyVersion: client.KeyVersion(v)}}, nil
}

func decodeSigner(c echo.Context) (attest.Power, error) {
	if _, err := none(c); err != nil {
		return "", err
	}
	name, err := param(c, "signer")
	if err != nil {
		return "", err
	}
	return attest.ParsePower(name)
}

func keysWire(keys []attest.Key) client.Keys {
	out := client.Keys{Keys: []client.Key{}}
	for _, k := range keys {
		w := client.Key{Signer: k.Signer, Identity: k.Identity, Versions: []client.KeyVersion{}}
		for _, v := range k.Versions {
			w.Versions = append(w.Versions, client.KeyVersion(v))
		}
		out.Keys = append(out.Keys, w)
	}
	return out
}

// trustedRoot is public: it proves nothing to those who fetch it from whom
// they want to check, and keeps nothing from anybody.
func (s *Server) trustedRoot(c echo.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	root, err := s.keys.TrustedRoot()
	if err != nil {
		return err
	}
	h := c.Response().Header()
	tag := `"` + attest.SHA256(root).Hex() + `"`
	h.Set("ETag", tag)
	h.Set("Cache-Control", "public, max-age=300")
	for _, known := range strings.Split(c.Request().Header.Get("If-None-Match"), ",") {
		if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == tag || known == "*" {
			return c.NoContent(http.StatusNotModified)
		}
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, root)
}
