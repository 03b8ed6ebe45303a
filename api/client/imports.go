// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"provost/attest"
)

// An Import is a bundle that others signed, as it was when it was verified
// against their trusted root.
type Import struct {
	ID            string          `json:"id"`
	Root          string          `json:"root"` // name of the foreign root
	PredicateType string          `json:"predicateType"`
	Subjects      []Subject       `json:"subjects"` // each by its sha256, its sha512 or both
	Identity      ForeignIdentity `json:"identity"` // who signed
	SignedAt      time.Time       `json:"signedAt"` // trusted time, UTC
	ImportedAt    time.Time       `json:"importedAt"`
	Digest        attest.Digest   `json:"digest"` // SHA-256 of the bundle
	// Bundle is the bundle, byte for byte as it was signed; left out where it
	// was just sent.
	Bundle jsontext.Value `json:"bundle,omitzero"`
}

// A ForeignIdentity is who signed, as the certificate says.
type ForeignIdentity struct {
	Issuer string `json:"issuer"`
	SAN    string `json:"san"`
}

// Imports is a part of a list, in the order of storing. Next continues it; ""
// when this was the end.
type Imports struct {
	Imports []Import `json:"imports"`
	Next    string   `json:"next,omitempty"`
}

// AddImport has a bundle verified against a foreign root of the service, and
// kept. The same bundle again gets the first answer.
func (c *Client) AddImport(ctx context.Context, root string, bundle []byte) (i Import, err error) {
	err = c.do(ctx, call{
		method: http.MethodPost, path: "/v1/imports", query: url.Values{"root": {root}}, contentType: "application/json",
		body: bundle, want: http.StatusCreated, retry: true,
	}, &i)
	return i, err
}

// Import returns one imported bundle.
func (c *Client) Import(ctx context.Context, id string) (i Import, err error) {
	err = c.do(ctx, get("/v1/imports/"+url.PathEscape(id), nil), &i)
	return i, err
}

// Imports returns the page after a cursor ("" for the first) of the imported
// bundles about an artifact. Nothing of it is verified again.
func (c *Client) Imports(ctx context.Context, artifact attest.Digest, after string, limit int) (p Imports, err error) {
	query := url.Values{}
	if after != "" {
		query.Set("after", after)
	}
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	err = c.do(ctx, get("/v1/artifacts/"+artifact.String()+"/imports", query), &p)
	return p, err
}
