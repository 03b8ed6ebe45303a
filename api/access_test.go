// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"provost/api/identity"
	"provost/attest"
)

func TestTablesThatAreRefused(t *testing.T) {
	const ghes = "https://ghes.example/_services/token"
	issuer := func(change func(*Issuer)) []Issuer {
		i := Issuer{URL: ghes, Audience: audience, Algorithms: []string{"RS256"}, MaxAge: time.Minute, Provider: identity.GitHub}
		change(&i)
		return []Issuer{i}
	}
	rule := func(change func(*Rule)) []Rule {
		r := Rule{Issuer: ghes, Claims: map[string]string{"repository": "acme/app"}, Grants: []attest.Grant{attest.GrantRead}}
		change(&r)
		return []Rule{r}
	}
	good := issuer(func(*Issuer) {})
	if _, err := NewAuthenticator(good, rule(func(*Rule) {}), AuthOptions{}); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	people := issuer(func(i *Issuer) { i.Provider = identity.OIDC })
	for _, u := range []string{"http://127.0.0.1:8080", "http://[::1]/", "http://localhost/oidc", "https://ci.example/with/path/"} {
		if _, err := NewAuthenticator(issuer(func(i *Issuer) { i.URL, i.Provider = u, identity.OIDC }), nil, AuthOptions{}); err != nil {
			t.Errorf("issuer %s: %v", u, err)
		}
	}
	for _, name := range []string{"repository", "repository_id", "repository_owner", "repository_owner_id", "job_workflow_ref"} {
		if _, err := NewAuthenticator(good, rule(func(r *Rule) { r.Claims = map[string]string{name: "x"} }), AuthOptions{}); err != nil {
			t.Errorf("a rule that pins %s: %v", name, err)
		}
	}
	for provider, age := range map[string]time.Duration{identity.GitHub: 10 * time.Minute, identity.OIDC: 168 * time.Hour} {
		if _, err := NewAuthenticator(issuer(func(i *Issuer) { i.Provider, i.MaxAge = provider, age }), nil, AuthOptions{}); err != nil {
			t.Errorf("max_age %s for %s: %v", age, provider, err)
		}
	}
	for _, c := range []struct {
		name    string
		issuers []Issuer
		rules   []Rule
		says    string
	}{
		{"an issuer over http", issuer(func(i *Issuer) { i.URL = "http://ci.example" }), nil, "https"},
		{"an issuer that looks like this machine", issuer(func(i *Issuer) { i.URL = "http://127.0.0.1.evil.example" }), nil, "https"},
		{"an issuer without a host", issuer(func(i *Issuer) { i.URL = "https://" }), nil, "host"},
		{"an issuer with a query", issuer(func(i *Issuer) { i.URL = "https://ci.example?x" }), nil, "path at most"},
		{"an issuer with a password", issuer(func(i *Issuer) { i.URL = "https://a:b@ci.example" }), nil, "path at most"},
		{"an issuer twice", append(issuer(func(*Issuer) {}), good...), nil, "twice"},
		{"no audience", issuer(func(i *Issuer) { i.Audience = "" }), nil, "audience"},
		{"no algorithm", issuer(func(i *Issuer) { i.Algorithms = nil }), nil, "algorithms"},
		{"HMAC", issuer(func(i *Issuer) { i.Algorithms = []string{"RS256", "HS256"} }), nil, "HS256"},
		{"no signature", issuer(func(i *Issuer) { i.Algorithms = []string{"none"} }), nil, "none"},
		{"no limit to the age", issuer(func(i *Issuer) { i.MaxAge = 0 }), nil, "max_age"},
		{"a negative age", issuer(func(i *Issuer) { i.MaxAge = -1 }), nil, "max_age"},
		{"runs of more than ten minutes ago", issuer(func(i *Issuer) { i.MaxAge = 10*time.Minute + 1 }), nil, "10m0s at most"},
		{"people of more than a week ago", issuer(func(i *Issuer) { i.Provider, i.MaxAge = identity.OIDC, 168*time.Hour+1 }), nil, "168h0m0s at most"},
		{"an unknown provider", issuer(func(i *Issuer) { i.Provider = "gitea" }), nil, "provider"},
		{"runs of GitLab of more than two hours ago", issuer(func(i *Issuer) { i.Provider, i.URL, i.MaxAge = identity.GitLab, "https://gitlab.com", 2*time.Hour+1 }), nil, "2h0m0s at most"},
		{"a Buildkite that is not", issuer(func(i *Issuer) { i.Provider, i.URL = identity.Buildkite, "https://agent.bui1dkite.com" }), nil, "want https://agent.buildkite.com"},
		{"a mapping of no tenant", issuer(func(i *Issuer) { i.Provider, i.Mapping = identity.OIDC, &identity.Mapping{Invocation: "run"} }), nil, "tenant"},
		{"a mapping of a provider that has its own", issuer(func(i *Issuer) { i.Mapping = &identity.Mapping{Tenant: []string{"a"}, Invocation: "run"} }), nil, "mapping go with provider oidc"},
		{"a server for no GitHub", issuer(func(i *Issuer) { i.Provider, i.ServerURL = identity.OIDC, "https://x.example" }), nil, "server_url"},
		{"a server with a slash", issuer(func(i *Issuer) { i.ServerURL = "https://x.example/" }), nil, "server_url"},
		{"a server over http", issuer(func(i *Issuer) { i.ServerURL = "http://x.example" }), nil, "server_url"},

		{"a rule for a stranger", good, rule(func(r *Rule) { r.Issuer += "/" }), "not configured"},
		{"a rule that matches all", good, rule(func(r *Rule) { r.Claims = nil }), "every token"},
		{"a rule that gives nothing", good, rule(func(r *Rule) { r.Grants = nil }), "nothing"},
		{"a rule that anybody's main branch matches", good, rule(func(r *Rule) { r.Claims = map[string]string{"ref": "refs/heads/main"} }), "pin at least one of repository_id,"},
		{"a rule that anybody's runner matches", good, rule(func(r *Rule) {
			r.Claims = map[string]string{"runner_environment": "self-hosted", "sub": "repo:acme/app:ref:refs/heads/main"}
		}), "pin at least one of repository_id,"},
		{"a rule that one of two ors does not pin", good, rule(func(r *Rule) {
			r.Claims, r.When = nil, `claims.repository_id == "74" || claims.environment == "x"`
		}), "pin at least one of repository_id,"},
		{"a named tenant for whoever has the name", good, rule(func(r *Rule) { r.Tenant = "acme" }), "registered again by others: pin at least one of repository_id, repository_owner_id"},
		{"every tenant for whoever has the name", good, rule(func(r *Rule) { r.Tenant = AllTenants }), "registered again by others"},
		{"a tenant that looks like one of ids", good, rule(func(r *Rule) { r.Tenant, r.Claims["repository_id"] = "ci.example/65/74", "74" }), "tenant"},
		{"people in no tenant", people, rule(func(*Rule) {}), "tenant is empty"},
		{"people by no claim at all", people, rule(func(r *Rule) { r.Claims, r.When, r.Tenant = nil, "has(claims.sub)", AllTenants }), "names nobody"},
		{"an expression that is none", good, rule(func(r *Rule) { r.When = "claims.ref ==" }), "condition"},
		{"an expression that escapes", good, rule(func(r *Rule) { r.When = `claims.ref == "x") || (claims.ref == "y"` }), "condition"},
		{"a prefix", good, rule(func(r *Rule) { r.When = `claims.ref.startsWith("refs/heads/")` }), "condition"},
		{"a pattern", good, rule(func(r *Rule) { r.When = `claims.ref.matches("refs/.*")` }), "condition"},
		{"an order", good, rule(func(r *Rule) { r.When = `claims.ref >= "refs/heads/"` }), "condition"},
		{"an unknown role", good, rule(func(r *Rule) { r.Roles = []attest.Role{"root"} }), "root"},
		{"an unknown grant", good, rule(func(r *Rule) { r.Grants = []attest.Grant{"root"} }), "root"},
		{"a claim without a value", good, rule(func(r *Rule) { r.Claims = map[string]string{"repository": ""} }), "repository"},
		{"a claim without a name", good, rule(func(r *Rule) { r.Claims = map[string]string{"": "x"} }), "claim"},
	} {
		_, err := NewAuthenticator(c.issuers, c.rules, AuthOptions{})
		if !errors.Is(err, attest.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want it invalid, saying %q", c.name, err, c.says)
		}
	}
}

func TestRules(t *testing.T) {
	p := newIDP(t)
	rule := func(grant attest.Grant, claims ...string) Rule {
		r := Rule{Issuer: p.URL, Claims: map[string]string{}, Grants: []attest.Grant{grant}}
		for i := 0; i < len(claims); i += 2 {
			r.Claims[claims[i]] = claims[i+1]
		}
		return r
	}
	double, pinned := builderRow(p.URL, "acme2", `claims.repository == "acme/app" && claims.environment == "double"`),
		builderRow(p.URL, "pinned", `claims.job_workflow_ref == "acme/pinned/.github/workflows/b.yml@refs/heads/main"`)
	pinned.ID = "https://github.com/acme/pinned/.github/workflows/b.yml@refs/heads/main"
	a, err := NewAuthenticator(
		[]Issuer{
			{URL: p.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, Provider: identity.GitHub},
			{URL: "https://other.example", Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, Provider: identity.OIDC},
		},
		[]Rule{
			rule(attest.GrantProvenance, "repository", "acme/app"),
			rule(attest.GrantSBOM, "repository", "acme/app", "ref", "refs/heads/main"),
			rule(attest.GrantSBOM, "repository", "acme/app", "run_attempt", "2"),
			rule(attest.GrantRead, "repository_owner", "acme", "level", "7"),
			rule(attest.GrantDecide, "repository_owner_id", "65", "staff", "true"),
			rule(attest.GrantRotate, "repository_id", "74", "groups", "admins"),
			{Issuer: "https://other.example", Claims: map[string]string{"repository": "acme/app"}, Tenant: AllTenants, Grants: []attest.Grant{attest.GrantRotate}},
			rule(attest.GrantProvenance, "job_workflow_ref", "acme/pinned/.github/workflows/b.yml@refs/heads/main"),
		}, AuthOptions{Now: p.now, Service: service, Registry: &rows{all: []attest.Builder{builderRow(p.URL, "acme", `claims.repository == "acme/app"`), double, pinned}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		claims map[string]any
		grants []attest.Grant
		build  string
	}{
		{"grants of several rules add up", nil, []attest.Grant{attest.GrantProvenance, attest.GrantSBOM}, builder},
		{"all claims of a rule must match", map[string]any{"ref": "refs/heads/x", "workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/x",
			"job_workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/x", "run_attempt": "3"}, []attest.Grant{attest.GrantProvenance}, builder},
		{"another case is another value", map[string]any{"repository": "Acme/app"}, nil, ""},
		{"a longer value is another value", map[string]any{"repository": "acme/app2"}, nil, ""},
		{"a number compares by its text", map[string]any{"repository": "x", "level": 7}, []attest.Grant{attest.GrantRead}, ""},
		{"and so does a boolean", map[string]any{"repository": "x", "staff": true}, []attest.Grant{attest.GrantDecide}, ""},
		{"but no number that is equal", map[string]any{"repository": "x", "level": 7.5}, nil, ""},
		{"an array matches nothing", map[string]any{"repository": "x", "groups": []string{"admins"}}, nil, ""},
		{"an object matches nothing", map[string]any{"repository": "x", "groups": map[string]any{"admins": true}}, nil, ""},
		{"an absent claim matches nothing", map[string]any{"repository": nil}, nil, ""},
		{"a pinned workflow names its builder", map[string]any{"repository": "acme/b", "workflow_ref": "acme/b/.github/workflows/w.yml@refs/heads/main",
			"job_workflow_ref": "acme/pinned/.github/workflows/b.yml@refs/heads/main"}, []attest.Grant{attest.GrantProvenance},
			"https://github.com/acme/pinned/.github/workflows/b.yml@refs/heads/main"},
	} {
		got, err := jobCaller(t.Context(), a, p.token(c.claims))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.grants, got.Tenants[got.Tenant]); diff != "" || len(got.Grants) != 0 || len(got.Tenants) > 1 {
			t.Errorf("%s: %s%v", c.name, diff, got)
		}
		if (got.Build != nil) != (c.build != "") || got.Build != nil && got.Build.BuilderID != c.build {
			t.Errorf("%s: build %+v; want %q", c.name, got.Build, c.build)
		}
	}
	for name, claims := range map[string]map[string]any{
		"ambiguous":    {"environment": "double"},
		"pull_request": {"event_name": "pull_request"},
	} {
		got, err := jobCaller(t.Context(), a, p.token(claims))
		if !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), name) || len(got.Grants) != 0 {
			t.Errorf("%s: %+v, %v; want it denied altogether", name, got, err)
		}
	}
}

// The tables stand in the service's YAML.
func TestTablesInYAML(t *testing.T) {
	const text = `
issuers:
  - url: https://token.actions.githubusercontent.com
    audience: https://provost.example
    algorithms: [RS256]
    max_age: 10m
    provider: github
    server_url: https://github.com
rules:
  - issuer: https://token.actions.githubusercontent.com
    claims: {repository_id: "74"}
    when: claims.environment in ["production", "staging"]
    tenant: acme
    roles: [signer, gate]
    grants: ["attest:provenance", "attest:sbom"]
`
	var got struct {
		Issuers []Issuer `yaml:"issuers"`
		Rules   []Rule   `yaml:"rules"`
	}
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if _, err := NewAuthenticator(got.Issuers, got.Rules, AuthOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.Issuers[0].MaxAge != 10*time.Minute || got.Rules[0].Roles[1] != attest.RoleGate || got.Rules[0].Grants[1] != attest.GrantSBOM {
		t.Errorf("%+v", got)
	}
}

// Two GitHubs have repositories of the same names: one is never attested as the
// other, whatever is left out.
func TestServersOfGitHubs(t *testing.T) {
	for url, want := range map[string]string{
		"https://token.actions.githubusercontent.com":      "https://github.com",
		"https://token.actions.githubusercontent.com/acme": "https://github.com",
		"https://token.actions.acme.ghe.com":               "https://acme.ghe.com",
		"https://ghes.example:8443/_services/token":        "https://ghes.example:8443",
		"http://127.0.0.1:8080/dev/issuer/github":          "https://github.com",
	} {
		i := Issuer{URL: url, Audience: audience, Algorithms: []string{"RS256"}, MaxAge: time.Minute, Provider: identity.GitHub}
		if _, err := i.validate(); err != nil || i.ServerURL != want {
			t.Errorf("%s: %s, %v; want %s", url, i.ServerURL, err, want)
		}
		i.ServerURL = "https://github.com"
		if _, err := i.validate(); (err == nil) != (want == "https://github.com") {
			t.Errorf("%s with github.com's repositories: %v", url, err)
		}
	}
}

// Where two people are needed, one human must not be two: those who may propose
// or approve are told apart in one way.
func TestPersonsAreToldApartInOneWay(t *testing.T) {
	people := func(url, claim string) Issuer {
		return Issuer{URL: url, Audience: audience, Algorithms: []string{"RS256"}, MaxAge: time.Minute, Provider: identity.OIDC, PersonClaim: claim}
	}
	const one, two = "https://one.example", "https://two.example"
	rule := func(url string, role attest.Role) Rule {
		return Rule{Issuer: url, Claims: map[string]string{"team": "x"}, Tenant: AllTenants, Roles: []attest.Role{role}}
	}
	for name, c := range map[string]struct {
		claims [2]string
		roles  [2]attest.Role
		ok     bool
	}{
		"both by a claim":                {[2]string{"employee", "number"}, [2]attest.Role{attest.RoleAdministrator, attest.RoleApprover}, true},
		"neither":                        {[2]string{}, [2]attest.Role{attest.RoleAdministrator, attest.RoleApprover}, true},
		"one of them":                    {[2]string{"employee", ""}, [2]attest.Role{attest.RoleAdministrator, attest.RoleApprover}, false},
		"one of them, who decides alone": {[2]string{"employee", ""}, [2]attest.Role{attest.RoleApprover, attest.RoleReader}, true},
	} {
		_, err := NewAuthenticator([]Issuer{people(one, c.claims[0]), people(two, c.claims[1])}, []Rule{rule(one, c.roles[0]), rule(two, c.roles[1])}, AuthOptions{})
		if (err == nil) != c.ok || !c.ok && !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
