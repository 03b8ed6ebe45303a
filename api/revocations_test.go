// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"provost/api/client"
	"provost/attest"
)

// A revocation says what it touches before and when it is recorded, and a dry
// run records nothing.
func TestRevoke(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	made, err := f.client(nil).AttestProvenance(ctx, oneDigest, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.client(nil).AttestSBOM(ctx, client.Artifact{Digest: artifact}, cycloneDX, ""); err != nil {
		t.Fatal(err)
	}
	if d, err := f.client(gate).Decide(ctx, client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod"}); err != nil || d.Verdict != attest.VerdictPass {
		t.Fatalf("%v, %v", d, err)
	}
	f.memory.mu.Lock()
	f.memory.attestations[0].KeyVersion = 3
	f.memory.mu.Unlock()

	for _, ask := range []func() (client.Revocation, error){
		func() (client.Revocation, error) {
			return f.client(admin).Revoke(ctx, attest.PowerProvenance, client.RevocationRequest{Version: 3, DryRun: true})
		},
		func() (client.Revocation, error) {
			return f.client(gate).Impact(ctx, attest.PowerProvenance, 3, time.Time{}, time.Time{})
		},
	} {
		r, err := ask()
		if err != nil || r.ID != "" || len(f.keys.revoked) != 0 {
			t.Fatalf("%+v, %v, recorded %v", r, err, f.keys.revoked)
		}
		im := r.Impact
		if len(im.Attestations) != 1 || im.Attestations[0].ID != made.ID || im.Attestations[0].Bundle != nil ||
			len(im.Artifacts) != 1 || im.Artifacts[0].Digest["sha256"] != artifact.Hex() ||
			len(im.Environments) != 1 || im.Environments[0].Environment != "prod" || im.Total[attest.ProvenanceType] != 1 || im.Truncated {
			t.Errorf("impact: %+v", im)
		}
	}

	from := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	r, err := f.client(admin).Revoke(ctx, attest.PowerProvenance, client.RevocationRequest{Version: 3, From: from, Reason: "leaked"})
	if err != nil || r.ID == "" || len(f.keys.revoked) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := f.keys.revoked[0]; got.Signer != attest.PowerProvenance || got.Version != 3 || !got.From.Equal(from) || got.Reason != "leaked" || got.By == " " {
		t.Errorf("recorded %+v", got)
	}
}

// A revocation that is recorded is answered as such, also when the signer then
// cannot go on; one that is not, never.
func TestRevokeThatFails(t *testing.T) {
	f := newFixture(t)
	f.keys.fail = recordedError{}
	r, err := f.client(admin).Revoke(t.Context(), attest.PowerProvenance, client.RevocationRequest{Version: 3})
	if err != nil || r.ID == "" || r.Warning == "" {
		t.Errorf("recorded, but: %+v, %v", r, err)
	}
	f.keys.fail = attest.ErrUnavailable
	if r, err := f.client(admin).Revoke(t.Context(), attest.PowerProvenance, client.RevocationRequest{Version: 3}); !errors.Is(err, attest.ErrUnavailable) || r.ID != "" {
		t.Errorf("not recorded: %+v, %v", r, err)
	}
	f.memory.mu.Lock()
	f.memory.fail = attest.ErrUnavailable
	f.memory.mu.Unlock()
	f.keys.fail = nil
	before := len(f.keys.revoked)
	if _, err := f.client(admin).Revoke(t.Context(), attest.PowerProvenance, client.RevocationRequest{Version: 3}); !errors.Is(err, attest.ErrUnavailable) || len(f.keys.revoked) != before {
		t.Errorf("what it touches cannot be told, and yet: %v, %d recorded", err, len(f.keys.revoked))
	}
}

func TestRevokeRefuses(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		name, path, body string
		claims           map[string]any
		status           int
	}{
		{"without the grant", "/v1/keys/provenance/revocations", `{"version":3}`, gate, 403},
		{"a signer that does not exist", "/v1/keys/root/revocations", `{"version":3}`, admin, 404},
		{"a version that never signed", "/v1/keys/provenance/revocations", `{"version":9}`, admin, 404},
		{"to before from", "/v1/keys/provenance/revocations", `{"version":3,"from":"2026-01-02T00:00:00Z","to":"2026-01-01T00:00:00Z"}`, admin, 400},
		{"a time that is none", "/v1/keys/provenance/revocations", `{"version":3,"from":"yesterday"}`, admin, 400},
		{"a member too many", "/v1/keys/provenance/revocations", `{"version":3,"force":true}`, admin, 400},
		{"no body", "/v1/keys/provenance/revocations", ``, admin, 400},
		{"a long reason", "/v1/keys/provenance/revocations", `{"version":3,"reason":"` + strings.Repeat("x", 2000) + `"}`, admin, 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, _ := f.post(tt.path, tt.body, "Authorization", "Bearer "+f.token(tt.claims))
			if status != tt.status || len(f.keys.revoked) != 0 {
				t.Errorf("status %d, want %d; recorded %d", status, tt.status, len(f.keys.revoked))
			}
		})
	}
}

// A single attestation is taken back by a statement that the gate obeys.
func TestRevokeAttestation(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	made, err := f.client(nil).AttestProvenance(ctx, oneDigest, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.client(nil).AttestSBOM(ctx, client.Artifact{Digest: artifact}, cycloneDX, ""); err != nil {
		t.Fatal(err)
	}
	decide := func() attest.Verdict {
		d, err := f.client(gate).Decide(ctx, client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod"})
		if err != nil {
			t.Fatal(err)
		}
		return d.Verdict
	}
	if got := decide(); got != attest.VerdictPass {
		t.Fatalf("before: %s", got)
	}
	if _, err := f.client(gate).RevokeAttestation(ctx, made.ID, ""); status(err) != 403 {
		t.Errorf("by a gate: %v", err)
	}
	if _, err := f.client(admin).RevokeAttestation(ctx, "nothing", ""); status(err) != 404 {
		t.Errorf("of nothing: %v", err)
	}
	said, err := f.client(admin).RevokeAttestation(ctx, made.ID, "built on a stolen runner")
	if err != nil || said.Signer != attest.PowerVerdict || !attest.IsRevocation(said.PredicateType) {
		t.Fatalf("%+v, %v", said, err)
	}
	if got := decide(); got != attest.VerdictDeny {
		t.Errorf("after: %s", got)
	}
}

func TestTimestampIsForThoseWithTheGrant(t *testing.T) {
	f := newFixture(t)
	post := func(token, body, media string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/v1/timestamp", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", media)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(got)
	}
	const query = "application/timestamp-query"
	if resp, got := post(f.token(admin), "query", query); resp.StatusCode != 200 || got != "response" || resp.Header.Get("Content-Type") != "application/timestamp-reply" {
		t.Errorf("%d %q %v", resp.StatusCode, got, resp.Header)
	}
	for _, tt := range []struct {
		name, token, body, media string
		status                   int
	}{
		{"nobody", "", "query", query, 401},
		{"a gate", f.token(gate), "query", query, 403},
		{"a build", f.token(nil), "query", query, 403},
		{"what is no query", f.token(admin), "x", query, 400},
		{"another media type", f.token(admin), "query", "application/json", 415},
		{"a large query", f.token(admin), strings.Repeat("x", 5000), query, 413},
	} {
		if resp, got := post(tt.token, tt.body, tt.media); resp.StatusCode != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, resp.StatusCode, got, tt.status)
		}
	}
}
