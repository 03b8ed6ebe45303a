// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// A ciJob is a job of a provider: its token's own claims, and the builder and
// rule that it matches.
type ciJob struct {
	provider  string
	claims    map[string]any
	condition string
	change    func(*Issuer, *attest.Builder)
	tenant    string // after the issuer's host
	level     int
	// stranger are claims that make it another's job, recreated those of a
	// thing that has been made again under the same name.
	stranger, recreated map[string]any
}

func ciJobs() []ciJob {
	commit := strings.Repeat("a", 40)
	const one, two = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	const other = "99999999-9999-4999-8999-999999999999"
	none := func(*Issuer, *attest.Builder) {}
	return []ciJob{
		{identity.GitHub, githubClaimsOf(), `claims.repository_owner_id == "65"`, none, "65/74", 2,
			map[string]any{"event_name": "pull_request"}, map[string]any{"repository_id": "75"}},
		{identity.GitLab, map[string]any{
			"namespace_id": "72", "namespace_path": "acme", "project_id": "20", "project_path": "acme/app", "job_project_id": "20", "job_namespace_id": "72",
			"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
			"runner_id": 1, "runner_environment": "gitlab-hosted", "sha": commit, "user_id": "1", "project_visibility": "private", "job_source": "push",
			"ci_config_ref_uri": "gitlab.example/acme/app//.gitlab-ci.yml@refs/heads/main", "ci_config_sha": commit,
		}, `claims.namespace_id == "72"`, func(i *Issuer, _ *attest.Builder) { i.ServerURL = "https://gitlab.example" }, "72/20", 2,
			map[string]any{"project_id": "666"}, map[string]any{"project_id": "21", "job_project_id": "21"}},
		{identity.Buildkite, map[string]any{
			"organization_slug": "acme", "pipeline_slug": "app", "build_number": 5, "build_branch": "main", "build_tag": nil, "build_commit": commit, "step_key": "build",
			"job_id": one, "agent_id": two, "build_source": "webhook", "runner_environment": "buildkite-hosted", "organization_id": one, "pipeline_id": two,
		}, `claims.pipeline_id == "` + two + `"`, func(_ *Issuer, b *attest.Builder) { b.Repository = "https://github.com/acme/app" }, one + "/" + two, 2,
			map[string]any{"build_commit": "HEAD"}, map[string]any{"organization_id": other}},
		{identity.CircleCI, map[string]any{
			"oidc.circleci.com/org-id": one, "oidc.circleci.com/project-id": two, "oidc.circleci.com/workflow-id": one, "oidc.circleci.com/job-id": two,
			"oidc.circleci.com/pipeline-id": one, "oidc.circleci.com/pipeline-definition-id": two, "oidc.circleci.com/context-ids": []string{one, two},
			"oidc.circleci.com/ssh-rerun": false, "oidc.circleci.com/vcs-origin": "github.com/acme/app", "oidc.circleci.com/vcs-ref": "refs/heads/main",
		}, `claims["oidc.circleci.com/org-id"] == "` + one + `"`, none, one + "/" + two, 1,
			map[string]any{"oidc.circleci.com/ssh-rerun": true}, map[string]any{"oidc.circleci.com/project-id": other}},
		{identity.Kubernetes, map[string]any{"kubernetes.io": map[string]any{
			"namespace": "ci", "node": map[string]any{"name": "worker-1", "uid": one}, "pod": map[string]any{"name": "build-x7k2p", "uid": two},
			"serviceaccount": map[string]any{"name": "builder", "uid": one}, "warnafter": 1717674962,
		}}, `claims["kubernetes.io.namespace"] == "ci"`, none, "ci/" + one, 1,
			map[string]any{"kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": map[string]any{"name": "builder", "uid": one}}},
			map[string]any{"kubernetes.io": map[string]any{"namespace": "ci", "pod": map[string]any{"name": "build-x7k2p", "uid": two}, "serviceaccount": map[string]any{"name": "builder", "uid": other}}}},
		{identity.SPIFFE, map[string]any{"sub": "spiffe://example.org/ci/build"}, `claims.sub == "spiffe://example.org/ci/build"`, none, "ci/build", 1,
			map[string]any{"sub": "spiffe://example.org"}, map[string]any{"sub": "spiffe://example.org/ci/other"}},
		{identity.OIDC, map[string]any{"org": "acme", "repo": "https://git.example/acme/app", "ref": "refs/heads/main", "rev": commit, "run": "https://ci.example/1", "pool": "a"},
			`claims.org == "acme"`, func(i *Issuer, _ *attest.Builder) {
				i.Mapping = &identity.Mapping{Tenant: []string{"org"}, Repository: "repo", Ref: "ref", Commit: "rev", Invocation: "run", Internal: []string{"pool"}}
			}, "acme", 2, map[string]any{"rev": "HEAD"}, map[string]any{"org": "acme2"}},
	}
}

// A job of each provider, of which an issuer on this machine has signed a token,
// has provenance signed: every field of it has an origin. The tenant is that of
// immutable ids.
func TestJobsOfEveryProvider(t *testing.T) {
	f := newFixture(t)
	issuer := &attest.Issuer{Signers: map[attest.Power]attest.Signer{}, Timestamper: f.ca, Ledger: f.memory, Now: time.Now}
	for _, p := range attest.Powers {
		issuer.Signers[p] = f.ca.signer(p)
	}
	jobs := ciJobs()
	if len(jobs) != len(identity.Names())-1 { // no job has a client certificate
		t.Errorf("%d providers are tried; there are %d", len(jobs), len(identity.Names()))
	}
	for _, job := range jobs {
		t.Run(job.provider, func(t *testing.T) {
			p := newIDP(t)
			provider, _ := identity.Lookup(job.provider)
			url := p.URL
			if job.provider == identity.SPIFFE {
				url = "spiffe://example.org"
			}
			accepted := Issuer{URL: url, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 10 * time.Minute, Provider: job.provider}
			builder := builderRow(url, "acme", job.condition)
			builder.BuildType, builder.Level = provider.Rules().BuildTypeURI(service), min(builder.Level, provider.Rules().MaxLevel)
			job.change(&accepted, &builder)
			if job.provider == identity.SPIFFE {
				accepted.BundleFile = bundleFile(t, p)
			}
			a, err := NewAuthenticator([]Issuer{accepted}, []Rule{{Issuer: url, When: job.condition, Roles: []attest.Role{attest.RoleSigner}}},
				AuthOptions{Now: p.now, Service: service, Registry: &rows{all: []attest.Builder{builder}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.CheckBuilder(builder); err != nil {
				t.Fatal(err)
			}
			authenticate := func(changes map[string]any) (attest.Caller, error) {
				now := p.now().Unix()
				claims := map[string]any{"iss": p.URL, "sub": "anything", "aud": audience, "iat": now, "nbf": now, "exp": now + 300}
				maps.Copy(claims, job.claims)
				maps.Copy(claims, changes)
				payload, err := json.Marshal(claims)
				if err != nil {
					t.Fatal(err)
				}
				return jobCaller(t.Context(), a, p.sign("ES256", "ec", payload))
			}

			caller, err := authenticate(nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.TrimPrefix(url, "http://") + "#" + job.tenant; caller.Tenant != want || len(caller.Tenants[want]) == 0 {
				t.Errorf("tenant %s with %v; want %s", caller.Tenant, caller.Tenants, want)
			}
			bundle, err := issuer.Issue(t.Context(), caller, attest.Request{
				Subjects: []attest.Subject{{Name: "app", SHA256: attest.SHA256([]byte(job.provider))}}, Predicate: attest.Provenance{},
			})
			if err != nil {
				t.Fatal(err)
			}
			payload, _, err := attest.OpenUnverified(bundle.Bundle)
			if err != nil {
				t.Fatal(err)
			}
			var statement struct {
				Predicate json.RawMessage `json:"predicate"`
			}
			if err := json.Unmarshal(payload, &statement); err != nil {
				t.Fatal(err)
			}
			build, err := attest.ParseProvenance(statement.Predicate)
			if err != nil {
				t.Fatal(err)
			}
			id := service + "/builders/acme"
			if job.level < builder.Level {
				id += "/level/1"
			}
			if build.Level != job.level || build.BuilderID != id || build.BuildType != builder.BuildType || len(build.Origins) < 4 {
				t.Errorf("%+v; want level %d of %s", build, job.level, id)
			}

			if got, err := authenticate(job.stranger); !errors.Is(err, attest.ErrDenied) && !errors.Is(err, client.ErrUnauthenticated) || len(got.Tenants) != 0 || got.Build != nil {
				t.Errorf("%v: %+v, %v; want it denied altogether", job.stranger, got, err)
			}
			if got, err := authenticate(job.recreated); err != nil || got.Tenant == caller.Tenant {
				t.Errorf("%v: tenant %s, %v; want another", job.recreated, got.Tenant, err)
			}
		})
	}
}

// A builder is registered only if its issuer's tokens can speak for it.
func TestCheckBuilderOfProviders(t *testing.T) {
	issuers := map[string]Issuer{}
	var all []Issuer
	for name, change := range map[string]func(*Issuer){
		identity.GitLab:    func(*Issuer) {},
		identity.Buildkite: func(*Issuer) {},
		identity.OIDC: func(i *Issuer) {
			i.Mapping = &identity.Mapping{Tenant: []string{"org"}, Invocation: "run"}
		},
		"people": func(i *Issuer) { i.Provider = identity.OIDC },
	} {
		i := Issuer{URL: "http://127.0.0.1/" + name, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, Provider: name}
		change(&i)
		issuers[name], all = i, append(all, i)
	}
	a, err := NewAuthenticator(all, nil, AuthOptions{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	const gitlab, buildkite, oidc = service + "/buildtypes/gitlab-job/v1", service + "/buildtypes/buildkite-job/v1", service + "/buildtypes/oidc-job/v1"
	for _, c := range []struct {
		name, provider, condition, buildType, repository string
		says                                             string // "" when it is well
	}{
		{"GitLab", identity.GitLab, `claims.project_id == "20"`, gitlab, "", ""},
		{"GitLab, with a runner", identity.GitLab, `claims.project_id == "20" && claims.runner_environment == "self-hosted"`, gitlab, "", ""},
		{"GitLab of any project", identity.GitLab, `claims.runner_environment == "gitlab-hosted"`, gitlab, "", "pin at least one of project_id"},
		{"GitLab, one of two ors", identity.GitLab, `claims.project_id == "20" || claims.ref == "main"`, gitlab, "", "pin at least one of"},
		{"GitLab as GitHub", identity.GitLab, `claims.project_id == "20"`, attest.GitHubWorkflowType, "", "want " + gitlab},
		{"GitLab of another service", identity.GitLab, `claims.project_id == "20"`, "https://evil.example/buildtypes/gitlab-job/v1", "", "want " + gitlab},
		{"Buildkite", identity.Buildkite, `claims.pipeline_id == "p"`, buildkite, "https://github.com/acme/app", ""},
		{"Buildkite of no repository", identity.Buildkite, `claims.pipeline_id == "p"`, buildkite, "", "repository"},
		{"Buildkite of any pipeline", identity.Buildkite, `claims.organization_id == "o"`, buildkite, "https://github.com/acme/app", "pins one pipeline_id"},
		{"Buildkite of two pipelines", identity.Buildkite, `claims.pipeline_id in ["p", "q"]`, buildkite, "https://github.com/acme/app", "pins one pipeline_id"},
		{"Buildkite by a slug that anybody can have", identity.Buildkite, `claims.pipeline_slug == "app"`, buildkite, "https://github.com/acme/app", "pin at least one of"},
		{"a mapped issuer", identity.OIDC, `claims.org == "acme"`, oidc, "", ""},
		{"a mapped issuer, anybody's", identity.OIDC, `claims.run == "1"`, oidc, "", "pin at least one of org"},
		{"people", "people", `claims.sub == "alice"`, oidc, "", "its tokens speak for no build"},
	} {
		b := builderRow(issuers[c.provider].URL, "acme", c.condition)
		b.BuildType, b.Repository = c.buildType, c.repository
		err := a.CheckBuilder(b)
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, attest.ErrInvalid) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v; want %q", c.name, err, c.says)
		}
	}
}

// bundleFile is a trust domain's bundle with the issuer's keys.
func bundleFile(t *testing.T, p *idp) string {
	t.Helper()
	var bundle jose.JSONWebKeySet
	for _, k := range p.keys {
		public := k.Public()
		public.Use = "jwt-svid"
		bundle.Keys = append(bundle.Keys, public)
	}
	raw, err := json.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
