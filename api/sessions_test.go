// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/api/client"
	"provost/attest"
)

func TestExchange(t *testing.T) {
	f := newFixture(t)
	token := f.idp.token(nil)
	if _, err := f.auth.Authenticate(t.Context(), token); !errors.Is(err, errSessionRequired) {
		t.Errorf("a job's token, as it is: %v; want a session to be required", err)
	}
	c := &client.Client{URL: f.url}
	s, err := c.OpenSession(t.Context(), token, client.SessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.Token, sessionPrefix) || s.Statements != attest.SessionStatements || s.BuilderID != builder || s.Level != 2 ||
		s.Tenant != strings.TrimPrefix(f.idp.URL, "http://")+"#65/74" || s.ExpiresAt.Sub(f.idp.now()) > attest.SessionLifetime {
		t.Errorf("%+v", s)
	}
	caller, err := f.auth.Authenticate(t.Context(), s.Token)
	if err != nil || caller.Build == nil || caller.Session != attest.SHA256([]byte(s.Token)).Hex() {
		t.Fatalf("in the session: %+v, %v", caller, err)
	}
	if _, err := c.OpenSession(t.Context(), token, client.SessionRequest{}); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "used already") {
		t.Errorf("the token again: %v", err)
	}
	if logs := f.logs.String(); strings.Contains(logs, s.Token) || strings.Contains(logs, token) {
		t.Error("a secret is in the log")
	}
	for name, secret := range map[string]string{
		"invented": sessionPrefix + "x", "cut": s.Token[:len(s.Token)-1], "longer": s.Token + "x", "long": sessionPrefix + strings.Repeat("x", 5000), "its hash": sessionPrefix + caller.Session,
	} {
		if _, err := f.auth.Authenticate(t.Context(), secret); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("a secret that is %s: %v", name, err)
		}
	}

	// It ends when it ends, and not before.
	f.idp.advance(attest.SessionLifetime - time.Second)
	if _, err := f.auth.Authenticate(t.Context(), s.Token); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	f.idp.advance(2 * time.Second)
	if _, err := f.auth.Authenticate(t.Context(), s.Token); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("after its end: %v", err)
	}
}

// A token is told by its jti; one without, by what was signed, however its
// signature is written.
func TestTokensAreSpentOnce(t *testing.T) {
	f := newFixture(t)
	open := func(token, key string) (string, error) {
		secret, _, _, err := f.auth.Exchange(t.Context(), exchange{token: token, key: key})
		return secret, err
	}
	again := map[string]string{}
	for name, jti := range map[string]any{"with a jti": "one", "without": nil, "with an empty one": ""} {
		token := f.idp.token(map[string]any{"jti": jti, "actor": name})
		key := strings.Repeat("k", 22) + strings.ReplaceAll(name, " ", "-")
		first, err := open(token, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if retry, err := open(token, key); err != nil || retry != first {
			t.Errorf("%s: a retry: %q, %v; want the same session", name, retry, err)
		}
		for thief, key := range map[string]string{"without a key": "", "with a key of its own": strings.Repeat("x", 30)} {
			if stolen, err := open(token, key); !errors.Is(err, client.ErrUnauthenticated) || stolen != "" {
				t.Errorf("%s, %s: %q, %v", name, thief, stolen, err)
			}
		}
		again[name] = token
	}
	// The same jti signed anew is the same token; without one it is another.
	if _, err := open(f.idp.token(map[string]any{"jti": "one", "actor": "x"}), ""); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("another token of the same jti: %v", err)
	}
	// ECDSA signatures differ each time; the claims are the same.
	claims := f.idp.claims()
	delete(claims, "jti")
	payload, _ := json.Marshal(claims)
	one, two := f.idp.sign("ES256", "ec", payload), f.idp.sign("ES256", "ec", payload)
	if one == two {
		t.Fatal("two signatures are equal")
	}
	if _, err := open(one, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := open(two, ""); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("the same claims with another signature: %v", err)
	}
	if _, err := open(f.idp.token(nil), "short"); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("a short key: %v", err)
	}
}

// No session is given that is not stored, and no right that nobody gave.
func TestExchangeFailsClosed(t *testing.T) {
	f := newFixture(t)
	f.sessions.fail = fmt.Errorf("%w: database", attest.ErrUnavailable)
	if secret, _, _, err := f.auth.Exchange(t.Context(), exchange{token: f.idp.token(nil)}); !errors.Is(err, attest.ErrUnavailable) || secret != "" {
		t.Errorf("without a store: %q, %v", secret, err)
	}
	f.sessions.fail = nil
	for name, c := range map[string]struct {
		claims map[string]any
		kind   error
	}{
		"of a stranger":                      {map[string]any{"repository": "evil/app", "repository_owner_id": "6"}, attest.ErrDenied},
		"of a pull request":                  {map[string]any{"event_name": "pull_request"}, attest.ErrDenied},
		"without its ids":                    {map[string]any{"repository_id": nil}, attest.ErrDenied},
		"for somebody else":                  {map[string]any{"aud": "https://other.example"}, client.ErrUnauthenticated},
		"ten minutes and a bit old":          {map[string]any{"iat": f.idp.now().Add(-11 * time.Minute).Unix()}, client.ErrUnauthenticated},
		"by a clock ten minutes ahead":       {map[string]any{"iat": f.idp.now().Add(10 * time.Minute).Unix()}, client.ErrUnauthenticated},
		"of another tenant by its old name":  {map[string]any{"repository_owner_id": "6", "repository_id": "7", "repository": "Acme/app"}, attest.ErrDenied},
		"that binds its audience to nothing": {map[string]any{"aud": audience + "/?d="}, client.ErrUnauthenticated},
		"that binds it in capitals":          {map[string]any{"aud": audience + "/?d=" + strings.Repeat("A", 64)}, client.ErrUnauthenticated},
		"that binds it to what is not named": {map[string]any{"aud": audience + "/?d=" + strings.Repeat("a", 64)}, attest.ErrDenied},
		"whose audience is a look-alike":     {map[string]any{"aud": audience + ".evil.example"}, client.ErrUnauthenticated},
	} {
		if secret, _, _, err := f.auth.Exchange(t.Context(), exchange{token: f.idp.token(c.claims)}); !errors.Is(err, c.kind) || secret != "" {
			t.Errorf("a token %s: %q, %v; want %v", name, secret, err, c.kind)
		}
	}
	if len(f.sessions.all) != 0 {
		t.Errorf("%d sessions are stored", len(f.sessions.all))
	}
}

// A token that is bound to its artifacts signs for no others.
func TestBoundAudience(t *testing.T) {
	f := newFixture(t)
	mine, other := attest.SHA256([]byte("mine")), attest.SHA256([]byte("other"))
	set := attest.SubjectSet([]attest.Digest{mine, artifact})
	if set != attest.SubjectSet([]attest.Digest{artifact, mine, artifact}) || set == attest.SubjectSet([]attest.Digest{mine}) {
		t.Error("a set is one whatever the order, and no other")
	}
	subject := func(ds ...attest.Digest) (all []client.Subject) {
		for _, d := range ds {
			all = append(all, client.Subject{Digest: map[string]string{"sha256": d.Hex()}})
		}
		return all
	}
	token := f.idp.token(map[string]any{"aud": audience + "/?d=" + set.Hex()})
	c := &client.Client{URL: f.url}
	if _, err := c.OpenSession(t.Context(), token, client.SessionRequest{Subjects: subject(mine, artifact, other)}); status(err) != 403 {
		t.Errorf("more than it is bound to: %v", err)
	}
	if _, err := c.OpenSession(t.Context(), f.idp.token(nil), client.SessionRequest{Subjects: subject(mine)}); status(err) != 400 {
		t.Errorf("artifacts for a token that is bound to none: %v", err)
	}
	s, err := c.OpenSession(t.Context(), token, client.SessionRequest{Subjects: subject(artifact, mine)})
	if err != nil {
		t.Fatal(err)
	}
	in := func(ctx *client.Client, ds ...attest.Digest) error {
		_, err := ctx.AttestProvenance(t.Context(), client.ProvenanceRequest{Subjects: subject(ds...)}, "")
		return err
	}
	bound := f.secretClient(s.Token)
	if err := in(bound, artifact, mine); err != nil {
		t.Errorf("its artifacts: %v", err)
	}
	for _, ds := range [][]attest.Digest{{other}, {mine, other}} {
		if err := in(bound, ds...); status(err) != 403 || !strings.Contains(err.Error(), "bound to other artifacts") {
			t.Errorf("another artifact: %v", err)
		}
	}
	if _, err := bound.AttestSBOM(t.Context(), client.Artifact{Digest: other}, []byte(cycloneDX), ""); status(err) != 403 {
		t.Errorf("an SBOM of another artifact: %v", err)
	}
}

// Ten thousand jobs at once: each gets its session, each token one.
func TestManySessions(t *testing.T) {
	jobs := 10_000
	if testing.Short() {
		jobs = 500
	}
	f := newFixture(t)
	tokens := make([]string, jobs)
	for i := range tokens {
		tokens[i] = f.idp.token(map[string]any{"run_id": fmt.Sprint(1000 + i)})
	}
	var wait sync.WaitGroup
	work := make(chan string)
	var mu sync.Mutex
	secrets := map[string]bool{}
	for range 64 {
		wait.Go(func() {
			for token := range work {
				secret, _, _, err := f.auth.Exchange(t.Context(), exchange{token: token})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := f.auth.Authenticate(t.Context(), secret); err != nil {
					t.Error(err)
				}
				mu.Lock()
				secrets[secret] = true
				mu.Unlock()
			}
		})
	}
	for _, token := range tokens {
		work <- token
	}
	close(work)
	wait.Wait()
	if len(secrets) != jobs {
		t.Errorf("%d sessions for %d jobs", len(secrets), jobs)
	}
	for secret := range secrets { // those that memory has let go are still there
		if _, err := f.auth.Authenticate(t.Context(), secret); err != nil {
			t.Error(err)
		}
	}
}

// An open session ends when its issuer's keys are read again without the one
// that signed its token; one whose key is there goes on.
func TestSessionsEndWithTheirKey(t *testing.T) {
	f := newFixture(t)
	secret := f.token(nil)
	f.idp.advance(keysFresh + time.Second)
	if _, err := f.auth.Authenticate(t.Context(), secret); err != nil {
		t.Errorf("keys that were read again: %v", err)
	}
	f = newFixture(t)
	secret = f.token(nil)
	f.idp.set(func(p *idp) {
		p.keys = slices.DeleteFunc(p.keys, func(k jose.JSONWebKey) bool { return k.KeyID == "ec" })
	})
	f.idp.advance(keysFresh + time.Second)
	if caller, err := f.auth.Authenticate(t.Context(), secret); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("its key was withdrawn: %+v, %v", caller, err)
	}
}

// What an open session may do is decided anew when the registry changes.
func TestSessionsFollowTheRegistry(t *testing.T) {
	f := newFixture(t)
	secret := f.token(nil)
	if caller, err := f.auth.Authenticate(t.Context(), secret); err != nil || caller.Build == nil {
		t.Fatalf("%+v, %v", caller, err)
	}
	f.rows.set(func(r *rows) { r.all[0].State, r.revision = attest.BuilderRetired, 1 })
	f.idp.advance(registryFresh + time.Second)
	if caller, err := f.auth.Authenticate(t.Context(), secret); err != nil || caller.Build != nil {
		t.Errorf("after its builder was retired: %+v, %v", caller, err)
	}
	f.rows.set(func(r *rows) { r.fail = fmt.Errorf("%w: database", attest.ErrUnavailable) })
	f.idp.advance(registryFresh + time.Second)
	if _, err := f.auth.Authenticate(t.Context(), secret); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("without the registry: %v", err)
	}
}

func TestSessionRequestsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		authorization, body string
		want                int
	}{
		"no token":             {"", "", 401},
		"nonsense":             {"Bearer nonsense", "", 401},
		"a session's secret":   {"Bearer " + f.token(nil), "", 401},
		"a member too many":    {"Bearer " + f.idp.token(nil), `{"builder":"x"}`, 400},
		"no JSON":              {"Bearer " + f.idp.token(nil), `{`, 400},
		"a subject of nothing": {"Bearer " + f.idp.token(nil), `{"subjects":[{}]}`, 400},
		"a large body":         {"Bearer " + f.idp.token(nil), strings.Repeat(" ", maxSessionJSON+1), 413},
	} {
		req, _ := http.NewRequest(http.MethodPost, f.url+"/v1/sessions", bytes.NewReader([]byte(c.body)))
		if c.authorization != "" {
			req.Header.Set("Authorization", c.authorization)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d; want %d", name, resp.StatusCode, c.want)
		}
	}
}
