// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"provost/attest"
)

// The tokens that a [Login] is about.
const (
	LoginIDToken     = "id_token"
	LoginAccessToken = "access_token"
)

// A Login says how people log in: as which client of which issuer. Nothing in
// it is secret.
type Login struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"clientId"`
	Scopes   []string `json:"scopes"`
	// Token is which token the service is sent: [LoginIDToken] or
	// [LoginAccessToken].
	Token string `json:"token"`
	// MaxAge is for how many seconds after it was issued a token is accepted,
	// however long it lives.
	MaxAge int64 `json:"maxAge"`
}

// A Whoami is what the service knows of the caller.
type Whoami struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
	Tenant  string `json:"tenant,omitempty"` // of a job
	// Grants are what the caller may do in every tenant, Tenants in single
	// ones.
	Grants  []attest.Grant            `json:"grants"`
	Tenants map[string][]attest.Grant `json:"tenants"`
	Person  bool                      `json:"person"`            // one who can be told from every other
	Builder string                    `json:"builder,omitempty"` // the builder.id of the build that the token speaks for
}

// Login returns how people log in. It is public, and an [attest.ErrNotFound]
// where they do not.
func (c *Client) Login(ctx context.Context) (l Login, err error) {
	k := get("/v1/login", nil)
	k.public = true
	err = c.do(ctx, k, &l)
	return l, err
}

// Whoami returns who the service takes the token's bearer for. It needs no
// grant.
func (c *Client) Whoami(ctx context.Context) (w Whoami, err error) {
	err = c.do(ctx, get("/v1/whoami", nil), &w)
	return w, err
}
