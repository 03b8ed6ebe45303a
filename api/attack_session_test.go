// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// What two people have agreed on under a name, one alone does not make stand for
// another thing: not at a lower level, not after it was retired, and not in a
// second row of the same builder.id.
func TestOnePersonAndAnAgreedBuilder(t *testing.T) {
	f, one, two := newPeople(t, "employee")
	ada := one.client(map[string]any{"sub": "ada", "staff": true, "employee": "1"})
	grace := two.client(map[string]any{"sub": "grace", "staff": true, "employee": "2"})
	const ref = "acme/ci/.github/workflows/build.yml@refs/heads/main"
	id := f.auth.issuers[f.idp.URL].ServerURL + "/" + ref
	condition := `claims.repository_id == "75" && claims.job_workflow_ref == "` + ref + `"`
	p, err := ada.PutBuilder(t.Context(), "release", client.BuilderRequest{Issuer: f.idp.URL, ID: id, Condition: condition, Level: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := grace.ApproveBuilder(t.Context(), "release", client.Approval{Revision: p.Revision}); err != nil {
		t.Fatal(err)
	}
	takeOver := client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_id == "666"`, Level: 1, Mode: attest.ModeControlPlane, BuildType: attest.GitHubWorkflowType}
	if b, err := ada.PutBuilder(t.Context(), "release", takeOver); err != nil || b.State != attest.BuilderProposed {
		t.Errorf("another thing at a lower level: %+v, %v; want it proposed", b, err)
	}
	second := client.BuilderRequest{Issuer: f.idp.URL, ID: id, Condition: `claims.repository_id == "666" && claims.job_workflow_ref == "` + ref + `"`, Level: 2}
	if b, err := ada.PutBuilder(t.Context(), "mine", second); status(err) != http.StatusConflict {
		t.Errorf("a second row with its id: %+v, %v; want a conflict", b, err)
	}
	second.Mode, second.BuildType = attest.ModeControlPlane, attest.GitHubWorkflowType
	if b, err := ada.PutBuilder(t.Context(), "mine", second); status(err) != http.StatusBadRequest {
		t.Errorf("a control plane with its id: %+v, %v; want it invalid", b, err)
	}
	if _, err := ada.RetireBuilder(t.Context(), "release"); err != nil {
		t.Fatal(err)
	}
	again, err := ada.PutBuilder(t.Context(), "release", takeOver)
	if err != nil || again.State != attest.BuilderProposed {
		t.Errorf("after it was retired: %+v, %v; want it proposed", again, err)
	}
	if b, err := ada.ApproveBuilder(t.Context(), "release", client.Approval{Revision: again.Revision}); status(err) != http.StatusForbidden {
		t.Errorf("approved by herself: %+v, %v", b, err)
	}
	if b, err := grace.ApproveBuilder(t.Context(), "release", client.Approval{Revision: again.Revision}); err != nil || b.State != attest.BuilderActive {
		t.Errorf("approved by another: %+v, %v", b, err)
	}
	if b, err := ada.PutBuilder(t.Context(), "release", client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_id == "7"`, Level: 1}); err != nil || b.State != attest.BuilderProposed {
		t.Errorf("the next change of what two agreed on: %+v, %v; want it proposed", b, err)
	}
}

// Rows that name what can be registered again are no builders of level 2, and
// people are no control plane.
func TestBuildersByNames(t *testing.T) {
	f := newFixture(t)
	admin := f.client(admin)
	for condition, ok := range map[string]bool{
		`claims.repository == "acme/app"`:                                                  false,
		`claims.repository_owner == "acme" && claims.environment == "production"`:          false,
		`claims.repository_id == "74" || claims.repository == "acme/app"`:                  false,
		`claims.repository == "acme/app" && claims.repository_owner_id == "65"`:            true,
		`claims.job_workflow_ref == "acme/ci/.github/workflows/build.yml@refs/heads/main"`: true,
	} {
		_, err := admin.PutBuilder(t.Context(), "named", client.BuilderRequest{Issuer: f.idp.URL, Condition: condition, Level: 2})
		if (err == nil) != ok || !ok && status(err) != http.StatusBadRequest {
			t.Errorf("%s at level 2: %v", condition, err)
		}
	}
	if _, err := admin.PutBuilder(t.Context(), "people", client.BuilderRequest{
		Issuer: f.idp.URL + "/people", Condition: `claims.sub == "ada"`, Level: 1, Mode: attest.ModeControlPlane, BuildType: "https://tekton.dev/chains/v2/slsa",
	}); status(err) != http.StatusBadRequest || !strings.Contains(err.Error(), "people") {
		t.Errorf("a person as a control plane: %v", err)
	}
}

// Whoever can write the database makes no session: the token in it is verified
// again, with all that it says of artifacts, and as old as it was.
func TestSessionsThatNobodyExchanged(t *testing.T) {
	f := newFixture(t)
	now := f.idp.now().UTC()
	stranger := newIDP(t)
	good := func() attest.Session {
		return attest.Session{Issuer: f.idp.URL, Proof: []byte(f.idp.token(nil)), At: now, Expires: now.Add(attest.SessionLifetime), Statements: 9}
	}
	set := attest.SubjectSet([]attest.Digest{artifact})
	for name, c := range map[string]struct {
		change func(*attest.Session)
		ok     bool
	}{
		"as it was":                    {func(*attest.Session) {}, true},
		"of claims that nobody signed": {func(s *attest.Session) { s.Proof = []byte(`{"repository_id":"74"}`) }, false},
		"of a token with another payload": {func(s *attest.Session) {
			parts := strings.Split(string(s.Proof), ".")
			other := strings.Split(f.idp.token(map[string]any{"repository_id": "1"}), ".")
			s.Proof = []byte(parts[0] + "." + other[1] + "." + parts[2])
		}, false},
		"of another issuer":        {func(s *attest.Session) { s.Proof = []byte(stranger.token(nil)) }, false},
		"that says another issuer": {func(s *attest.Session) { s.Issuer = "https://other.example" }, false},
		"of a token that was too old": {func(s *attest.Session) {
			s.Proof = []byte(f.idp.token(map[string]any{"iat": now.Add(-20 * time.Minute).Unix()}))
		}, false},
		"that goes on for an hour": {func(s *attest.Session) { s.Expires = now.Add(time.Hour) }, false},
		"that was bound": {func(s *attest.Session) {
			s.Proof = []byte(f.idp.token(map[string]any{"aud": audience + "/?d=" + set.Hex()}))
		}, false},
		"that was bound to this": {func(s *attest.Session) {
			s.Proof, s.Subjects = []byte(f.idp.token(map[string]any{"aud": audience + "/?d=" + set.Hex()})), []attest.Digest{artifact}
		}, true},
		"that was bound to others": {func(s *attest.Session) {
			s.Proof, s.Subjects = []byte(f.idp.token(map[string]any{"aud": audience + "/?d=" + set.Hex()})), []attest.Digest{attest.SHA256([]byte("x"))}
		}, false},
		"that was bound to nothing": {func(s *attest.Session) { s.Subjects = []attest.Digest{artifact} }, false},
	} {
		s := good()
		c.change(&s)
		secret := sessionPrefix + strings.ReplaceAll(name, " ", "-")
		s.ID = attest.SHA256([]byte(secret))
		s.Token = attest.SHA256([]byte("token" + name))
		if err := f.sessions.OpenSession(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		caller, err := f.auth.Authenticate(t.Context(), secret)
		if (err == nil) != c.ok || !c.ok && (len(caller.Tenants) != 0 || caller.Build != nil) {
			t.Errorf("a session %s: %+v, %v", name, caller, err)
		}
	}
}

// An audience that is bound binds all of a statement, and the set of nothing
// lets nothing be signed.
func TestBoundAudienceLeavesNothingOpen(t *testing.T) {
	f := newFixture(t)
	c := &client.Client{URL: f.url}
	one := []client.Subject{{Digest: map[string]string{"sha256": artifact.Hex()}}}
	bound := func(set attest.Digest) string {
		return f.idp.token(map[string]any{"aud": audience + "/?d=" + set.Hex()})
	}
	s, err := c.OpenSession(t.Context(), bound(attest.SubjectSet([]attest.Digest{artifact})), client.SessionRequest{Subjects: one})
	if err != nil {
		t.Fatal(err)
	}
	more := []client.Subject{{Digest: map[string]string{"sha256": artifact.Hex(), "sha512": strings.Repeat("ab", 64)}}}
	if _, err := f.secretClient(s.Token).AttestProvenance(t.Context(), client.ProvenanceRequest{Subjects: more}, ""); status(err) != http.StatusForbidden {
		t.Errorf("a digest that the set says nothing of: %v", err)
	}
	if _, err := c.OpenSession(t.Context(), bound(attest.SubjectSet([]attest.Digest{artifact})), client.SessionRequest{Subjects: more}); status(err) != http.StatusBadRequest {
		t.Errorf("a set with sha512: %v", err)
	}
	if s, err := c.OpenSession(t.Context(), bound(attest.SubjectSet(nil)), client.SessionRequest{}); status(err) != http.StatusForbidden {
		t.Errorf("a token that is bound to nothing: %+v, %v", s, err)
	}
}

// A copy of a token has nobody asked, and what the API contradicts once is not
// let in by its silence.
func TestSpentTokensAskNobody(t *testing.T) {
	p := newIDP(t)
	row := builderRow(p.URL, "acme", `claims.repository_id == "74"`)
	row.CrossCheck = true
	api := newCIAPI(t, "", map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, nil), checkedHead: checkedObject("refs/heads/main", "commit", commitA)})
	sessions := &latecomer{sessionsInMemory: &sessionsInMemory{}}
	a, err := NewAuthenticator(
		[]Issuer{{URL: p.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, Provider: identity.GitHub, CrossCheck: &CrossCheck{URL: api.URL, TokenFile: "token"}}},
		[]Rule{{Issuer: p.URL, Claims: map[string]string{"repository_id": "74"}, Roles: []attest.Role{attest.RoleSigner}}},
		AuthOptions{Now: p.now, Service: service, Registry: &rows{all: []attest.Builder{row}}, Sessions: sessions, Secret: func(string) (string, error) { return checkedSecret, nil }})
	if err != nil {
		t.Fatal(err)
	}
	token := p.token(nil)
	if _, _, _, err := a.Exchange(t.Context(), exchange{token: token}); err != nil {
		t.Fatal(err)
	}
	asked := len(api.asked)
	for range 5 {
		if _, _, _, err := a.Exchange(t.Context(), exchange{token: token}); !errors.Is(err, errTokenSpent) {
			t.Errorf("a spent token: %v", err)
		}
	}
	if len(api.asked) != asked {
		t.Errorf("the API was asked %d times about a spent token", len(api.asked)-asked)
	}

	refuted := p.token(nil)
	api.set(shape(t, checkedGitHubAnswer, map[string]any{"head_sha": commitB}))
	if _, _, _, err := a.Exchange(t.Context(), exchange{token: refuted}); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("the API says another commit: %v", err)
	}
	api.set(429)
	if secret, _, _, err := a.Exchange(t.Context(), exchange{token: refuted}); !errors.Is(err, errTokenSpent) || secret != "" {
		t.Errorf("the same token once the API is silent: %q, %v", secret, err)
	}

	// One of two requests with a token that are under way at once finds the API
	// silent, and opens a session; the other is told of a contradiction then.
	raced := p.token(nil)
	secret, _, _, err := a.Exchange(t.Context(), exchange{token: raced})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	sessions.unaware = true
	api.set(shape(t, checkedGitHubAnswer, map[string]any{"head_sha": commitB}))
	if _, _, _, err := a.Exchange(t.Context(), exchange{token: raced}); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("the API says another commit: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), secret); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("the session that silence let in: %v", err)
	}
}

// latecomer is a store that can be asked too early whether a token was spent.
type latecomer struct {
	*sessionsInMemory
	unaware bool
}

func (l *latecomer) TokenSpent(ctx context.Context, token attest.Digest) (attest.Digest, bool, error) {
	if l.unaware {
		return attest.Digest{}, false, nil
	}
	return l.sessionsInMemory.TokenSpent(ctx, token)
}

// set changes what the API says of the run.
func (a *ciAPI) set(answer any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[checkedRunURL] = answer
}

// Two issuers never have one tenant.
func TestTenantsOfTwoIssuers(t *testing.T) {
	of := func(url, provider string, mapping *identity.Mapping, claims identity.Claims) string {
		p, _ := identity.Lookup(provider)
		name, err := (&issuer{Issuer: Issuer{URL: url, Provider: provider, Mapping: mapping}, provider: p}).tenant(claims)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	seen := map[string]bool{}
	for _, name := range []string{
		of("https://gitlab.example.org", identity.GitLab, nil, identity.Claims{"namespace_id": []byte(`"72"`), "project_id": []byte(`"20"`)}),
		of("spiffe://gitlab.example.org", identity.SPIFFE, nil, identity.Claims{"sub": []byte(`"spiffe://gitlab.example.org/72/20"`)}),
		of("https://idp.example/realms/a", identity.OIDC, &identity.Mapping{Tenant: []string{"x", "y"}}, identity.Claims{"x": []byte(`"b"`), "y": []byte(`"c"`)}),
		of("https://idp.example/realms/a/b", identity.OIDC, &identity.Mapping{Tenant: []string{"y"}}, identity.Claims{"y": []byte(`"c"`)}),
	} {
		if seen[name] {
			t.Errorf("%s is the tenant of two", name)
		}
		seen[name] = true
	}
}

// A stranger's body is not read before the token is, and a refusal of whoami is
// recorded as any other.
func TestStrangersAreToldFirst(t *testing.T) {
	f := newFixture(t)
	before := len(f.records())
	if status, _ := f.post("/v1/sessions", "{", "Authorization", "Bearer x", "Content-Type", "application/json"); status != http.StatusUnauthorized {
		t.Errorf("a malformed body of a stranger: %d; want 401", status)
	}
	if status, _ := f.ask(http.MethodGet, "/v1/whoami", nil, "Authorization", "Bearer x"); status != http.StatusUnauthorized {
		t.Errorf("who is x: %d", status)
	}
	if n := len(f.records()) - before; n != 2 {
		t.Errorf("%d refusals are recorded; want 2", n)
	}
}
