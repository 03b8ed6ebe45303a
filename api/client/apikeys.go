// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"provost/attest"
)

// An APIKeyRequest is what an API key is to be. It has one of ExpiresAt and
// ExpiresIn.
type APIKeyRequest struct {
	Name   string         `json:"name"`
	Grants []attest.Grant `json:"grants"`
	// Tenant is where it holds them, "*" for every tenant; "" for the only one
	// in which the caller may make keys.
	Tenant    string    `json:"tenant,omitempty"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	ExpiresIn int64     `json:"expiresIn,omitzero"` // seconds
}

// An APIKey is what is told of one.
type APIKey struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	State     string         `json:"state"` // attest.APIKeyActive, APIKeyRevoked, APIKeyExpired or APIKeyFuture
	Grants    []attest.Grant `json:"grants"`
	Tenant    string         `json:"tenant"` // "*" for every one
	Owner     attest.Person  `json:"owner"`
	CreatedAt time.Time      `json:"createdAt"`
	ExpiresAt time.Time      `json:"expiresAt"`
	RevokedAt time.Time      `json:"revokedAt,omitzero"`
	RevokedBy attest.Person  `json:"revokedBy,omitzero"`
}

// A CreatedAPIKey is a new key. Secret is its bearer token, which nobody is
// told again.
type CreatedAPIKey struct {
	APIKey
	Secret string `json:"secret"`
}

// APIKeys is a page of keys, in the order in which they were made.
type APIKeys struct {
	APIKeys []APIKey `json:"apiKeys"`
	Next    string   `json:"next,omitempty"` // continues it; "" when this was the end
}

// CreateAPIKey makes a key. It is not retried: two calls make two keys.
func (c *Client) CreateAPIKey(ctx context.Context, r APIKeyRequest) (k CreatedAPIKey, err error) {
	body, err := encode(r)
	if err != nil {
		return k, err
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/apikeys", contentType: "application/json", body: body, want: http.StatusCreated}, &k)
	return k, err
}

// APIKeys returns the page after a cursor ("" for the first) of the keys of
// those tenants in which the caller may make some.
func (c *Client) APIKeys(ctx context.Context, after string, limit int) (k APIKeys, err error) {
	query := url.Values{}
	if after != "" {
		query.Set("after", after)
	}
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	err = c.do(ctx, get("/v1/apikeys", query), &k)
	return k, err
}

// RevokeAPIKey takes back the key of an ID. Its secret is never sent: see
// [attest.IsAPIKeyID].
func (c *Client) RevokeAPIKey(ctx context.Context, id string) (k APIKey, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: "/v1/apikeys/" + url.PathEscape(id), want: http.StatusOK}, &k)
	return k, err
}
