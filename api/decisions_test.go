// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

func TestVerdictsThatAreNo(t *testing.T) {
	f := newFixture(t)
	question := client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod"}
	d, err := f.client(gate).Decide(t.Context(), question)
	if err != nil || d.Verdict != attest.VerdictNoEvidence || len(d.VSA) == 0 || len(d.Reasons) == 0 {
		t.Errorf("of an unknown artifact: %+v, %v; want a signed NO_EVIDENCE", d, err)
	}
	if _, err := f.client(nil).Decide(t.Context(), question); status(err) != 403 || !errors.Is(err, attest.ErrDenied) || err.(*client.Problem).Grant != attest.GrantDecide {
		t.Errorf("without the grant: %v; want 403 naming it", err)
	}
	// No verdict that cannot be gathered, signed and recorded.
	for name, breakIt := range map[string]func(*fixture){
		"the store is away":  func(f *fixture) { f.memory.fail = attest.ErrUnavailable },
		"the signer is away": func(f *fixture) { f.ca.failSign = attest.ErrUnavailable },
		"the store is full":  func(f *fixture) { f.memory.fail = errors.New("/var/lib/x: no space") },
		"the key was swapped": func(f *fixture) {
			f.ca.breakSignature = true
		},
		"there is no trust root": func(f *fixture) { f.ca.trustedRootError = errors.New("no file /etc/x") },
	} {
		f := newFixture(t)
		breakIt(f)
		d, err := f.client(gate).Decide(t.Context(), question)
		if err == nil || d.Verdict != attest.VerdictError || status(err) < 500 || strings.Contains(err.Error(), "/") {
			t.Errorf("%s: %+v, %v; want a 5xx without detail", name, d, err)
		}
		if n := f.count(t, "provost_decisions_total", "verdict", "ERROR"); n != 1 {
			t.Errorf("%s: %v decisions of ERROR counted; want 1", name, n)
		}
	}
}

func TestANonceIsInTheSignedVerdict(t *testing.T) {
	d, err := newFixture(t).client(gate).Decide(t.Context(), client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod", Nonce: "~one!"})
	if err != nil {
		t.Fatal(err)
	}
	var bundle struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(d.VSA, &bundle); err != nil {
		t.Fatal(err)
	}
	if want := `"` + verify.VSANonce(service) + `":"~one!"`; !strings.Contains(string(bundle.Envelope.Payload), want) {
		t.Errorf("payload %s; want %s", bundle.Envelope.Payload, want)
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	digest := artifact.String()
	for _, c := range []struct {
		name, body string
		want       int
	}{
		{"an empty body", ``, 400},
		{"nothing asked", `{}`, 400},
		{"no environment", `{"artifact":{"digest":"` + digest + `"}}`, 400},
		{"an unknown environment", `{"artifact":{"digest":"` + digest + `"},"environment":"moon"}`, 404},
		{"an environment in capitals", `{"artifact":{"digest":"` + digest + `"},"environment":"PROD"}`, 400},
		{"an environment with a path", `{"artifact":{"digest":"` + digest + `"},"environment":"../prod"}`, 400},
		{"an artifact by name alone", `{"artifact":{"name":"app"},"environment":"prod"}`, 400},
		{"an artifact by a tag", `{"artifact":{"digest":"app:latest"},"environment":"prod"}`, 400},
		{"an artifact by upper-case hex", `{"artifact":{"digest":"sha256:` + strings.ToUpper(artifact.Hex()) + `"},"environment":"prod"}`, 400},
		{"an artifact by sha512", `{"artifact":{"digest":"sha512:` + strings.Repeat("a", 128) + `"},"environment":"prod"}`, 400},
		{"a long name", `{"artifact":{"digest":"` + digest + `","name":"` + strings.Repeat("a", 1025) + `"},"environment":"prod"}`, 413},
		{"a long nonce", `{"artifact":{"digest":"` + digest + `"},"environment":"prod","nonce":"` + strings.Repeat("a", 65) + `"}`, 400},
		{"a nonce with a space", `{"artifact":{"digest":"` + digest + `"},"environment":"prod","nonce":"a b"}`, 400},
		{"a verdict of the caller's own", `{"artifact":{"digest":"` + digest + `"},"environment":"prod","verdict":"PASS"}`, 400},
		{"a member twice", `{"artifact":{"digest":"` + digest + `"},"environment":"prod","environment":"dev"}`, 400},
		{"a large body", `{"environment":"` + strings.Repeat("a", maxQuestionJSON) + `"}`, 413},
	} {
		if got, p := f.post("/v1/decisions", c.body); got != c.want {
			t.Errorf("%s: %d %q; want %d", c.name, got, p.Detail, c.want)
		}
	}
	if len(f.memory.decisions) != 0 {
		t.Errorf("%d decisions of refused questions", len(f.memory.decisions))
	}
	if n := f.count(t, "provost_decisions_total", "", ""); n != 0 {
		t.Errorf("%v of them counted as decisions", n)
	}
}

func TestADecisionOfErrorHasNoVSA(t *testing.T) {
	f := newFixture(t)
	f.memory.decisions["x"] = attest.Decision{ID: "x", Artifact: artifact, Environment: "prod", Reasons: []attest.Reason{{Rule: "policy", Severity: "deny", Message: "<&>"}}}
	d, err := f.client(gate).Decision(t.Context(), "x")
	if err != nil || d.Verdict != attest.VerdictError || d.VSA != nil || d.Reasons[0].Message != "<&>" {
		t.Errorf("%+v, %v; want ERROR without a VSA", d, err)
	}
}

func TestKeysOverHTTP(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	got, err := f.client(gate).Keys(ctx)
	if err != nil || len(got.Keys) != 1 || len(got.Keys[0].Versions) != 2 || got.Keys[0].Versions[1].State != attest.KeyActive || got.Keys[0].Versions[0].NotAfter.Unix() != 2000 {
		t.Errorf("%+v, %v", got, err)
	}
	r, err := f.client(admin).Rotate(ctx, attest.PowerVerdict)
	if err != nil || r.Signer != attest.PowerVerdict || r.Version != 2 || r.State != attest.KeyActive {
		t.Errorf("rotated: %+v, %v", r, err)
	}
	for name, c := range map[string]struct {
		call func() error
		want int
	}{
		"without the grant": {func() error { _, err := f.client(gate).Rotate(ctx, attest.PowerVerdict); return err }, 403},
		"an unknown signer": {func() error { _, err := f.client(admin).Rotate(ctx, "root"); return err }, 404},
		"with a path in it": {func() error { _, err := f.client(admin).Rotate(ctx, "../verdict"); return err }, 404},
	} {
		if err := c.call(); status(err) != c.want {
			t.Errorf("%s: %v; want %d", name, err, c.want)
		}
	}
	if got, _ := f.post("/v1/keys/verdict/rotate", `{"version":9}`); got != 413 {
		t.Errorf("with a body: %d; want 413", got)
	}
	if len(f.keys.rotated) != 1 {
		t.Errorf("rotated %v", f.keys.rotated)
	}
	f.keys.fail = fmt.Errorf("vault at 10.0.0.1: %w", attest.ErrUnavailable)
	if _, err := f.client(admin).Rotate(ctx, attest.PowerVerdict); status(err) != 503 || strings.Contains(err.Error(), "10.0.0.1") {
		t.Errorf("without the backend: %v; want 503 without detail", err)
	}
}

func TestTrustedRoot(t *testing.T) {
	f := newFixture(t)
	raw, err := (&client.Client{URL: f.url}).TrustedRoot(t.Context())
	want, _ := f.ca.trustedRoot()
	if err != nil || string(raw) != string(want) {
		t.Fatalf("%s, %v", raw, err)
	}
	get := func(known string) *http.Response {
		req, _ := http.NewRequest(http.MethodGet, f.url+"/v1/trust/trusted_root.json", nil)
		req.Header.Set("If-None-Match", known)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	resp := get("")
	tag := resp.Header.Get("ETag")
	if resp.StatusCode != 200 || tag == "" || !strings.HasPrefix(resp.Header.Get("Cache-Control"), "public") {
		t.Errorf("%d, ETag %q, Cache-Control %q", resp.StatusCode, tag, resp.Header.Get("Cache-Control"))
	}
	for known, want := range map[string]int{tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, `"other"`: 200} {
		if resp := get(known); resp.StatusCode != want {
			t.Errorf("If-None-Match %s: %d; want %d", known, resp.StatusCode, want)
		}
	}
	f.ca.trustedRootError = errors.New("no file /etc/x")
	if _, err := (&client.Client{URL: f.url}).TrustedRoot(t.Context()); status(err) != 500 || strings.Contains(err.Error(), "/etc") {
		t.Errorf("without a root: %v; want 500 without detail", err)
	}
}
