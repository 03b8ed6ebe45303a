// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/attest"
)

// An idp is an OpenID Connect issuer on this machine, with a clock that tests
// can set for it and for those who believe it.
type idp struct {
	*httptest.Server
	t testing.TB

	mu        sync.Mutex
	keys      []jose.JSONWebKey // private
	offset    time.Duration
	discovery http.HandlerFunc // nil for the right answer
	jwks      http.HandlerFunc // nil for the right answer
	asked     int              // for keys
}

// rsaKey is made once: it takes a while.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newIDP(t testing.TB) *idp {
	t.Helper()
	p := &idp{t: t}
	p.keys = []jose.JSONWebKey{
		{Key: newKey(t), KeyID: "ec", Algorithm: "ES256", Use: "sig"},
		{Key: rsaKey(), KeyID: "rsa", Use: "sig"}, // without alg, as some issuers have it
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		other := p.discovery
		p.mu.Unlock()
		if other != nil {
			other(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/jwks"})
	})
	mux.HandleFunc("/people/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL + "/people", "jwks_uri": p.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked++
		other, keys := p.jwks, jose.JSONWebKeySet{}
		for _, k := range p.keys {
			keys.Keys = append(keys.Keys, k.Public())
		}
		p.mu.Unlock()
		if other != nil {
			other(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(keys)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *idp) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Add(p.offset)
}

func (p *idp) advance(d time.Duration) { p.set(func(p *idp) { p.offset += d }) }

func (p *idp) set(change func(*idp)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *idp) timesAsked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// claims are those of a GitHub Actions run that pushed to main.
func (p *idp) claims() map[string]any {
	now := p.now().Unix()
	c := map[string]any{
		"iss": p.URL, "sub": "repo:acme/app:ref:refs/heads/main", "aud": audience,
		"iat": now, "nbf": now - 5, "exp": now + 300, "jti": rand.Text(),
	}
	maps.Copy(c, githubClaimsOf())
	return c
}

// githubClaimsOf are a run's own claims, as GitHub spells them.
func githubClaimsOf() map[string]any {
	return map[string]any{
		"repository": "acme/app", "ref": "refs/heads/main", "ref_type": "branch", "sha": strings.Repeat("a", 40),
		"workflow_ref":       "acme/app/.github/workflows/build.yml@refs/heads/main",
		"workflow_sha":       strings.Repeat("a", 40),
		"job_workflow_ref":   "acme/app/.github/workflows/build.yml@refs/heads/main",
		"job_workflow_sha":   strings.Repeat("a", 40),
		"event_name":         "push",
		"repository_id":      "74",
		"repository_owner":   "acme",
		"actor":              "octocat",
		"actor_id":           "12",
		"base_ref":           "",
		"runner_environment": "github-hosted", "repository_owner_id": "65", "repository_visibility": "private",
		"run_id": "1234567890", "run_number": "10", "run_attempt": "2",
	}
}

// person are the claims of one who logged in, at the issuer of people.
func (p *idp) person(name string) map[string]any {
	return map[string]any{"iss": p.URL + "/people", "sub": name, "repository": nil}
}

// token is a token of the run's claims with changes; nil takes a claim away.
func (p *idp) token(changes map[string]any) string { return p.tokenBy("ES256", "ec", changes) }

func (p *idp) tokenBy(alg, kid string, changes map[string]any) string {
	p.t.Helper()
	c := p.claims()
	for name, value := range changes {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	payload, err := json.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.sign(alg, kid, payload)
}

// sign makes a token of any payload with one of the issuer's keys.
func (p *idp) sign(alg, kid string, payload []byte) string {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.keys {
		if k.KeyID == kid {
			return signWith(p.t, alg, jose.JSONWebKey{Key: k.Key, KeyID: kid}, payload)
		}
	}
	p.t.Fatalf("no key %q", kid)
	return ""
}

func signWith(t testing.TB, alg string, key any, payload []byte) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if _, secret := key.([]byte); secret {
		options = options.WithHeader("kid", "rsa")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// forge replaces a token's header and keeps the rest.
func forge(token, header string) string {
	_, rest, _ := strings.Cut(token, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

// rows is a builder registry in memory.
type rows struct {
	mu       sync.Mutex
	all      []attest.Builder
	history  []attest.Builder
	revision int64
	fail     error
}

func (r *rows) set(change func(*rows)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *rows) Builders(context.Context) ([]attest.Builder, int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return nil, 0, r.fail
	}
	return slices.Clone(r.all), r.revision, nil
}

func (r *rows) AppendBuilder(_ context.Context, b attest.Builder, revision int64) (attest.Builder, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision != r.revision {
		return attest.Builder{}, fmt.Errorf("%w: revision", attest.ErrConflict)
	}
	if r.fail != nil {
		return attest.Builder{}, r.fail
	}
	r.revision++
	b.Revision = r.revision
	r.history = append(r.history, b)
	r.all = slices.DeleteFunc(r.all, func(o attest.Builder) bool {
		return o.Name == b.Name && (b.State != attest.BuilderProposed || o.State == attest.BuilderProposed)
	})
	r.all = append(r.all, b)
	return b, nil
}

func (r *rows) BuilderHistory(_ context.Context, name string) (found []attest.Builder, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.history {
		if b.Name == name {
			found = append(found, b)
		}
	}
	return found, r.fail
}

// builderRow is a builder of GitHub at level 2.
func builderRow(issuer, name, condition string) attest.Builder {
	return attest.Builder{
		Name: name, Issuer: issuer, Condition: condition, BuildType: attest.GitHubWorkflowType, Level: 2,
		PredicateTypes: attest.UsualPredicateTypes(), Signer: attest.PowerProvenance, Mode: attest.ModeToken, State: attest.BuilderActive,
	}
}

// jobCaller is the caller of a job's token, as it would be in its session.
func jobCaller(ctx context.Context, a *Authenticator, token string) (attest.Caller, error) {
	ad, err := a.admit(ctx, token)
	return ad.caller, err
}

// sessionsInMemory keeps sessions as a store does.
type sessionsInMemory struct {
	mu    sync.Mutex
	spent map[attest.Digest]attest.Digest
	all   map[attest.Digest]attest.Session
	fail  error
	audit *memory // where records of sessions go; nil for nowhere
}

func (m *sessionsInMemory) OpenSession(ctx context.Context, s attest.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.spent == nil {
		m.spent, m.all = map[attest.Digest]attest.Digest{}, map[attest.Digest]attest.Session{}
	}
	before, again := m.spent[s.Token]
	if again && before != s.ID {
		return fmt.Errorf("%w: the token was used already", attest.ErrConflict)
	}
	if s.Audit != nil && m.audit != nil {
		if _, err := m.audit.AppendAudit(ctx, *s.Audit); err != nil {
			return err
		}
	}
	if s.Audit = nil; !again {
		m.spent[s.Token], m.all[s.ID] = s.ID, s
	}
	return nil
}

func (m *sessionsInMemory) TokenSpent(_ context.Context, token attest.Digest) (attest.Digest, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	session, spent := m.spent[token]
	return session, spent, m.fail
}

func (m *sessionsInMemory) SpendToken(_ context.Context, token attest.Digest, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spent == nil {
		m.spent, m.all = map[attest.Digest]attest.Digest{}, map[attest.Digest]attest.Session{}
	}
	if session, ok := m.spent[token]; ok {
		delete(m.all, session)
	} else {
		m.spent[token] = attest.Digest{}
	}
	return m.fail
}

func (m *sessionsInMemory) Session(_ context.Context, id attest.Digest) (attest.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return attest.Session{}, m.fail
	}
	s, ok := m.all[id]
	if !ok {
		return attest.Session{}, fmt.Errorf("%w: session", attest.ErrNotFound)
	}
	return s, nil
}
