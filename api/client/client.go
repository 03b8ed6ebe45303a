// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package client asks a Provost service over HTTP. It holds the JSON that
// service and client share, so that the two cannot drift apart.
//
// It promises that a call, and so a token, goes to the configured host alone,
// over TLS unless that host is this machine; that no answer is read without a bound; and that
// only a decoded answer of the expected status is a success.
package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"provost/attest"
)

// A Client asks one service. It must not be copied. Its fields are not changed after the first call;
// it is safe for concurrent use.
type Client struct {
	// URL is the service's base, such as https://provost.example.
	URL string
	// Token returns the bearer token of the next request. It is called once
	// per attempt, because tokens are short-lived. nil is enough for
	// [Client.TrustedRoot] and [Client.Ready].
	Token func(context.Context) (string, error)
	// Certified says that HTTP has a client certificate, which is asked with
	// instead of a token: none is fetched or sent.
	Certified bool
	// HTTP makes the connections; nil for a client with a timeout of two
	// minutes. Its redirect policy is not used: redirects are refused.
	HTTP *http.Client
	// Sessions keeps what workload tokens were exchanged for; nil for as long
	// as the client lives. A service that asks for a session gets the token
	// exchanged, once, and the session from then on.
	Sessions Sessions
	// Version of the program that asks, for the User-Agent; "" for "devel".
	Version string

	remembered memorySessions
}

// AttestProvenance asks for SLSA provenance of the build that the token speaks
// for. A retry of the same key gets the first answer; "" makes a new key.
func (c *Client) AttestProvenance(ctx context.Context, req ProvenanceRequest, idempotencyKey string) (Attestation, error) {
	body, err := encode(req)
	if err != nil {
		return Attestation{}, err
	}
	return c.sign(ctx, call{path: "/v1/attestations/provenance", contentType: "application/json", body: body, idempotencyKey: idempotencyKey})
}

// AttestSBOM asks for an attestation that document, CycloneDX or SPDX JSON, is
// the bill of materials of artifact. Name is a label. The key is as in
// [Client.AttestProvenance].
func (c *Client) AttestSBOM(ctx context.Context, artifact Artifact, document []byte, idempotencyKey string) (Attestation, error) {
	query := url.Values{"digest": {artifact.Digest.String()}}
	if artifact.Name != "" {
		query.Set("name", artifact.Name)
	}
	return c.sign(ctx, call{path: "/v1/attestations/sbom", query: query, contentType: "application/json", body: document, idempotencyKey: idempotencyKey})
}

// AttestStatement asks for a statement that the caller wrote, of a predicate
// type that its builder is registered for, to be signed. The key is as in
// [Client.AttestProvenance].
func (c *Client) AttestStatement(ctx context.Context, statement []byte, idempotencyKey string) (Attestation, error) {
	return c.sign(ctx, call{path: "/v1/attestations", contentType: "application/json", body: statement, idempotencyKey: idempotencyKey})
}

func (c *Client) sign(ctx context.Context, k call) (a Attestation, err error) {
	if k.idempotencyKey == "" {
		k.idempotencyKey = attest.NewID()
	}
	k.method, k.want, k.retry = http.MethodPost, http.StatusCreated, true
	err = c.do(ctx, k, &a)
	return a, err
}

// Attestation returns one attestation.
func (c *Client) Attestation(ctx context.Context, id string) (a Attestation, err error) {
	err = c.do(ctx, get("/v1/attestations/"+url.PathEscape(id), nil), &a)
	return a, err
}

// Attestations returns the page after a cursor ("" for the first) of the
// attestations about an artifact, of one predicate type or ("") all.
func (c *Client) Attestations(ctx context.Context, artifact attest.Digest, predicateType, after string, limit int) (p Page, err error) {
	query := url.Values{}
	if predicateType != "" {
		query.Set("predicateType", predicateType)
	}
	if after != "" {
		query.Set("after", after)
	}
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	err = c.do(ctx, get("/v1/artifacts/"+artifact.String()+"/attestations", query), &p)
	return p, err
}

// Intents returns the oldest open intents: what may have been signed and was
// never released.
func (c *Client) Intents(ctx context.Context) (i Intents, err error) {
	err = c.do(ctx, get("/v1/intents", nil), &i)
	return i, err
}

// Decide asks for a decision. It is not retried: with an error there is none,
// and the returned verdict is ERROR.
func (c *Client) Decide(ctx context.Context, q Question) (Decision, error) {
	body, err := encode(q)
	if err != nil {
		return Decision{}, err
	}
	return c.decision(ctx, call{method: http.MethodPost, path: "/v1/decisions", contentType: "application/json", body: body, want: http.StatusOK})
}

// Decision returns a recorded decision.
func (c *Client) Decision(ctx context.Context, id string) (Decision, error) {
	return c.decision(ctx, get("/v1/decisions/"+url.PathEscape(id), nil))
}

// decision returns the zero decision, an ERROR, with any error: decoding may
// have got as far as the verdict.
func (c *Client) decision(ctx context.Context, k call) (Decision, error) {
	var d Decision
	if err := c.do(ctx, k, &d); err != nil {
		return Decision{}, err
	}
	if string(d.VSA) == "null" {
		d.VSA = nil
	}
	return d, nil
}

// Keys returns the signers and their versions.
func (c *Client) Keys(ctx context.Context) (k Keys, err error) {
	err = c.do(ctx, get("/v1/keys", nil), &k)
	return k, err
}

// Rotate makes a new version of a signer's key. It is not retried: two calls
// make two versions.
func (c *Client) Rotate(ctx context.Context, signer attest.Power) (r Rotation, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/keys/" + url.PathEscape(string(signer)) + "/rotate", want: http.StatusCreated}, &r)
	return r, err
}

// Revoke takes back what a version of a signer's key signed in an interval, or
// says what that would touch.
func (c *Client) Revoke(ctx context.Context, signer attest.Power, r RevocationRequest) (done Revocation, err error) {
	body, err := encode(r)
	if err != nil {
		return done, err
	}
	want := http.StatusCreated
	if r.DryRun {
		want = http.StatusOK
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/keys/" + url.PathEscape(string(signer)) + "/revocations",
		contentType: "application/json", body: body, want: want}, &done)
	return done, err
}

// RevokeAttestation takes back a single attestation, by a statement that our
// verifier and gate obey. The answer is that statement.
func (c *Client) RevokeAttestation(ctx context.Context, id, reason string) (a Attestation, err error) {
	body, err := encode(AttestationRevocation{Reason: reason})
	if err != nil {
		return a, err
	}
	return c.sign(ctx, call{path: "/v1/attestations/" + url.PathEscape(id) + "/revocation", contentType: "application/json", body: body})
}

// Impact returns what a compromise of a version of a signer's key in an
// interval touches. It records nothing.
func (c *Client) Impact(ctx context.Context, signer attest.Power, version int, from, to time.Time) (r Revocation, err error) {
	query := url.Values{"version": {strconv.Itoa(version)}}
	if !from.IsZero() {
		query.Set("from", from.UTC().Format(time.RFC3339))
	}
	if !to.IsZero() {
		query.Set("to", to.UTC().Format(time.RFC3339))
	}
	err = c.do(ctx, get("/v1/keys/"+url.PathEscape(string(signer))+"/impact", query), &r)
	return r, err
}

// Audit returns the page after a cursor ("" for the first) of the audit log.
func (c *Client) Audit(ctx context.Context, after string, limit int) (p AuditPage, err error) {
	query := url.Values{}
	if after != "" {
		query.Set("after", after)
	}
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	err = c.do(ctx, get("/v1/audit", query), &p)
	return p, err
}

// TrustedRoot returns the service's trusted_root.json. It is public, and
// fetching it is not verifying it: whoever answers could have made it.
func (c *Client) TrustedRoot(ctx context.Context) ([]byte, error) {
	k := get("/v1/trust/trusted_root.json", nil)
	k.public = true
	_, raw, err := c.send(ctx, k)
	if err != nil {
		return nil, err
	}
	if err := attest.CheckJSON(raw); err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return raw, nil
}

// Ready returns what the service says of its own state. A service that is not
// ready answers 503, which is not an error here.
func (c *Client) Ready(ctx context.Context) (r Readiness, err error) {
	k := get("/readyz", nil)
	k.public, k.alsoWant = true, http.StatusServiceUnavailable
	err = c.do(ctx, k, &r)
	return r, err
}

func get(path string, query url.Values) call {
	return call{method: http.MethodGet, path: path, query: query, want: http.StatusOK}
}
