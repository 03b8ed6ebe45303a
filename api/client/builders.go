// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"
	"net/url"

	"provost/attest"
)

// Builders is the builder registry: of every name the row that holds, and the
// proposal that waits, if there is one.
type Builders struct {
	Revision int64            `json:"revision"`
	Builders []attest.Builder `json:"builders"`
}

// BuilderHistory is every row that there ever was of a name, oldest first.
type BuilderHistory struct {
	Rows []attest.Builder `json:"rows"`
}

// A BuilderRequest is what a builder is to be. Members that are left out have
// the defaults of package attest's Builder: mode token, signer provenance, and
// SLSA provenance and SBOMs as predicate types.
type BuilderRequest struct {
	ID             string       `json:"id,omitempty"`
	Issuer         string       `json:"issuer"`
	Condition      string       `json:"condition"`
	BuildType      string       `json:"buildType,omitempty"` // default: the one that the issuer's tokens give
	Level          int          `json:"level"`
	PredicateTypes []string     `json:"predicateTypes,omitempty"`
	Signer         attest.Power `json:"signer,omitempty"`
	Mode           attest.Mode  `json:"mode,omitempty"`
	Repository     string       `json:"repository,omitempty"`
	CrossCheck     bool         `json:"crossCheck,omitempty"`
	Description    string       `json:"description,omitempty"`
	// Revision is that of the registry which the request was made of; 0 for
	// whatever it is. If it has changed meanwhile that is an ErrConflict.
	Revision int64 `json:"revision,omitempty"`
}

// An Approval names what is approved: the proposal of that revision, and no
// later one.
type Approval struct {
	Revision int64 `json:"revision"`
}

// Builders returns the registry.
func (c *Client) Builders(ctx context.Context) (b Builders, err error) {
	err = c.do(ctx, get("/v1/builders", nil), &b)
	return b, err
}

// BuilderHistory returns the rows of one builder.
func (c *Client) BuilderHistory(ctx context.Context, name string) (h BuilderHistory, err error) {
	err = c.do(ctx, get("/v1/builders/"+url.PathEscape(name), nil), &h)
	return h, err
}

// PutBuilder registers a builder, or changes it. What claims level 3 comes back
// as a proposal, which another person has to approve.
func (c *Client) PutBuilder(ctx context.Context, name string, r BuilderRequest) (b attest.Builder, err error) {
	body, err := encode(r)
	if err != nil {
		return b, err
	}
	err = c.do(ctx, call{method: http.MethodPut, path: "/v1/builders/" + url.PathEscape(name), contentType: "application/json", body: body, want: http.StatusOK}, &b)
	return b, err
}

// ApproveBuilder approves the proposal of that revision.
func (c *Client) ApproveBuilder(ctx context.Context, name string, a Approval) (b attest.Builder, err error) {
	body, err := encode(a)
	if err != nil {
		return b, err
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/builders/" + url.PathEscape(name) + "/approval", contentType: "application/json", body: body, want: http.StatusOK}, &b)
	return b, err
}

// RetireBuilder takes a builder, and a proposal of its name, out of the
// registry. Its page stays.
func (c *Client) RetireBuilder(ctx context.Context, name string) (b attest.Builder, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/builders/" + url.PathEscape(name), want: http.StatusOK}, &b)
	return b, err
}
