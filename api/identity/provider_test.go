// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

func TestProviders(t *testing.T) {
	for name, want := range map[string]time.Duration{
		GitHub: 10 * time.Minute, Buildkite: 10 * time.Minute, CircleCI: 10 * time.Minute, Kubernetes: 10 * time.Minute, SPIFFE: 10 * time.Minute,
		GitLab: 2 * time.Hour, OIDC: 168 * time.Hour,
	} {
		p, ok := Lookup(name)
		if !ok {
			t.Errorf("%s is not known", name)
			continue
		}
		r := p.Rules()
		if r.MaxAge != want || r.Workload != (name != OIDC) {
			t.Errorf("%s: age %s, workload %t; want %s", name, r.MaxAge, r.Workload, want)
		}
		if r.Workload && len(r.Immutable) == 0 {
			t.Errorf("%s: no claim names a tenant for good", name)
		}
		if slices.Contains(append(r.Immutable, r.Owners...), "sub") != (name == SPIFFE) {
			t.Errorf("%s: sub says whose a token is", name)
		}
		if _, ours := attest.FindBuildType(r.BuildType); ours == (name == GitHub) {
			t.Errorf("%s: build type %q", name, r.BuildType)
		}
		if !slices.Contains(Names(), name) {
			t.Errorf("%s is not among the names", name)
		}
	}
	if _, ok := Lookup("hudson"); ok || len(Names()) != 8 || !slices.IsSorted(Names()) {
		t.Errorf("names %v", Names())
	}
}

func TestCheckIssuer(t *testing.T) {
	for name, urls := range map[string][]string{
		GitHub:     {"https://token.actions.githubusercontent.com", "https://token.actions.githubusercontent.com/acme", "https://token.actions.acme.ghe.com", "https://ghes.example/_services/token"},
		GitLab:     {"https://gitlab.com", "https://gitlab.example.com:8443", "https://example.com/gitlab"},
		Buildkite:  {"https://agent.buildkite.com"},
		CircleCI:   {"https://oidc.circleci.com", "https://oidc.circleci.com/org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e"},
		Kubernetes: {"https://kubernetes.default.svc", "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E", "https://eastus.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000000/11111111-1111-1111-1111-111111111111/"},
		SPIFFE:     {"spiffe://example.org"},
		OIDC:       {"https://accounts.example.com", "https://accounts.example.com/"},
	} {
		p, _ := Lookup(name)
		if name != SPIFFE {
			urls = append(urls, "http://127.0.0.1:8080/dev/issuer/"+name)
		}
		for _, u := range urls {
			if err := p.CheckIssuer(parse(t, u)); err != nil {
				t.Errorf("%s: %s: %v", name, u, err)
			}
		}
	}
	for name, urls := range map[string][]string{
		GitHub:    {"https://token.actions.githubusercontent.com/", "https://token.actions.githubusercontent.com.evil.example", "https://Token.actions.githubusercontent.com", "https://evil.example/x/_services/token", "https://token.actions.a.b.ghe.com"},
		GitLab:    {"https://gitlab.com/", "https://GitLab.com", "https://example.com/gitlab/"},
		Buildkite: {"https://agent.buildkite.com/", "https://Agent.buildkite.com", "https://agent.buildkite.com.evil.example", "https://agent.bui1dkite.com", "https://buildkite.com", "https://agent.buildkite.com/v3", "https://agent.buildkite.com:443"},
		CircleCI: {"https://oidc.circleci.com/", "https://oidc.circleci.com/org/", "https://oidc.circleci.com/org/acme", "https://oidc.circleci.com/org/C9035EB6-6EB2-4C85-8A81-D9ED6A1D1D1E",
			"https://oidc.circleci.com/org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e/", "https://oidc.circleci.com.evil.example", "https://oidc-circleci.com", "https://oidc.circleci.com/org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e/x"},
		Kubernetes: {"https://Kubernetes.default.svc"},
		SPIFFE:     {"https://OIDC-discovery.example.org"},
	} {
		p, _ := Lookup(name)
		for _, u := range urls {
			if err := p.CheckIssuer(parse(t, u)); err == nil {
				t.Errorf("%s: %s is accepted", name, u)
			}
		}
	}
}

func parse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The pages of our build types, which also say which parameters are known, say
// exactly what builds have: nothing that is not there, nothing unsaid.
func TestBuildTypesSayWhatBuildsHave(t *testing.T) {
	type fields map[string]attest.Source
	externals, internals := map[string]fields{}, map[string]fields{}
	note := func(b *attest.Build) {
		name := strings.TrimSuffix(strings.TrimPrefix(b.BuildType, service+"/buildtypes/"), "/v1")
		if externals[name] == nil {
			externals[name], internals[name] = fields{}, fields{}
		}
		for path := range leaves("", b.ExternalParameters) {
			externals[name][path] = originOf(b, "/buildDefinition/externalParameters", path)
		}
		for platform, all := range b.InternalParameters {
			for parameter := range all.(map[string]any) {
				path := platform + "." + parameter
				if name == attest.OIDCJob {
					path = "oidc.<claim>"
				}
				internals[name][path] = b.Origins["/buildDefinition/internalParameters/"+platform+"/"+pointerEscaper.Replace(parameter)].From
			}
		}
	}
	for _, s := range samples(t) {
		note(s.mustBuild(t, nil))
	}
	for _, bt := range attest.BuildTypes {
		said := fields{}
		for _, p := range bt.Parameters {
			said[p.Path] = p.From
			if p.Meaning == "" || strings.Count(p.Path, ".") != 1 {
				t.Errorf("%s: parameter %+v", bt.Name, p)
			}
		}
		if diff := cmp.Diff(said, externals[bt.Name]); diff != "" {
			t.Errorf("%s: external parameters (-page +builds):\n%s", bt.Name, diff)
		}
		said = fields{}
		for _, p := range bt.Internal {
			said[p.Path] = p.From
			if p.Meaning == "" {
				t.Errorf("%s: parameter %+v", bt.Name, p)
			}
		}
		if diff := cmp.Diff(said, internals[bt.Name]); diff != "" {
			t.Errorf("%s: internal parameters (-page +builds):\n%s", bt.Name, diff)
		}
		if bt.Title == "" || bt.Invocation == "" || bt.Dependencies == "" || bt.Levels == "" {
			t.Errorf("%s: the page is not complete", bt.Name)
		}
		if got, ok := attest.FindBuildType(bt.Name); !ok || got.Title != bt.Title {
			t.Errorf("%s is not found", bt.Name)
		}
	}
	if len(externals) != len(attest.BuildTypes) {
		t.Errorf("builds of %d types; there are %d", len(externals), len(attest.BuildTypes))
	}
}

// leaves are the paths of all texts, with dots.
func leaves(path string, v map[string]any) map[string]string {
	all := map[string]string{}
	for name, value := range v {
		switch value := value.(type) {
		case map[string]any:
			maps.Copy(all, leaves(path+name+".", value))
		case string:
			all[path+name] = value
		}
	}
	return all
}

func originOf(b *attest.Build, below, path string) attest.Source {
	return b.Origins[below+"/"+strings.ReplaceAll(path, ".", "/")].From
}

// Each claim that an origin names is in the token.
func TestOriginsNameClaims(t *testing.T) {
	for _, s := range samples(t) {
		claims := claimsOf(t, s.claims, nil)
		b := s.mustBuild(t, nil)
		if len(b.Origins) < 5 {
			t.Errorf("%s: %d origins", s.name, len(b.Origins))
		}
		for pointer, o := range b.Origins {
			if o.From == attest.SourceToken && len(o.Names) == 0 || !slices.IsSorted(o.Names) {
				t.Errorf("%s: %s is from %v", s.name, pointer, o)
			}
			for _, name := range o.Names {
				if !claims.Has(name) {
					t.Errorf("%s: %s is from the claim %s, which there is not", s.name, pointer, name)
				}
			}
		}
		if b.Origins["/runDetails/builder/id"].From != attest.SourceRegistry {
			t.Errorf("%s: builder.id from %v", s.name, b.Origins["/runDetails/builder/id"])
		}
	}
}

func TestLowestCapCounts(t *testing.T) {
	for _, levels := range [][]int{{1, 2}, {2, 1}, {2, 1, 2}} {
		d := newDraft(service, attest.OIDCJob)
		for _, l := range levels {
			d.atMost(l, map[int]string{1: "one", 2: "two"}[l])
		}
		if d.Level != 1 || d.LevelReason != "one" {
			t.Errorf("%v: level %d because %s", levels, d.Level, d.LevelReason)
		}
	}
}

// sub may say anything, where it is not the SPIFFE ID.
func TestSubIsNotRead(t *testing.T) {
	for _, s := range samples(t) {
		if s.name == SPIFFE {
			continue
		}
		want, before := s.mustBuild(t, nil), must(s.tenant(t, nil))
		for _, sub := range []any{nil, "", "repo:evil/app:ref:refs/heads/main", "project_path:evil/app:ref_type:branch:ref:main", 7, []string{"x"}} {
			got := s.mustBuild(t, map[string]any{"sub": sub})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: sub %v changes the build:\n%s", s.name, sub, diff)
			}
			if after := must(s.tenant(t, map[string]any{"sub": sub})); after != before {
				t.Errorf("%s: sub %v makes the tenant %s; want %s", s.name, sub, after, before)
			}
		}
	}
}

func must(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

// The same is said again when things are renamed; what is made again under an
// old name is another's.
func TestTenants(t *testing.T) {
	const other = "99999999-9999-4999-8999-999999999999"
	for _, c := range []struct {
		of       sample
		want     string
		renamed  map[string]any
		new      []string // claims of which each makes another tenant
		value    string
		required []string
	}{
		{gitlabSample(t), "72/20", map[string]any{"project_path": "other/name", "namespace_path": "other", "job_project_path": "other/name", "job_namespace_path": "other"},
			nil, "", []string{"project_id", "namespace_id"}},
		{buildkiteSample(t), "f892efa9-103e-4d28-97a1-3b8616a0994d/0184990a-4782-42b5-afc1-16715b10b1a0", map[string]any{"organization_slug": "other", "pipeline_slug": "name"},
			[]string{"organization_id", "pipeline_id"}, other, []string{"organization_id", "pipeline_id"}},
		{circleciSample(t), "c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e/3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c", map[string]any{"oidc.circleci.com/vcs-origin": "github.com/other/name"},
			[]string{"oidc.circleci.com/project-id"}, other, []string{"oidc.circleci.com/org-id", "oidc.circleci.com/project-id"}},
		{kubernetesSample(t), "ci/a087d5a0-e1dd-43ec-93ac-f13d89cd13af", map[string]any{"kubernetes.io.pod.name": "other", "kubernetes.io.pod.uid": other},
			[]string{"kubernetes.io.serviceaccount.uid"}, other, []string{"kubernetes.io.namespace", "kubernetes.io.serviceaccount.uid", "kubernetes.io.pod.uid"}},
		{spiffeSample(t), "ci/build", map[string]any{"iat": 2}, nil, "", []string{"sub"}},
		{genericSample(t), "acme%2Finc/7", map[string]any{"repo": "https://git.example/other/name"}, []string{"team"}, "other", []string{"org", "team"}},
	} {
		if got, err := c.of.tenant(t, nil); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %s", c.of.name, got, err, c.want)
		}
		if got, err := c.of.tenant(t, c.renamed); err != nil || got != c.want {
			t.Errorf("%s, renamed: %q, %v; want %s", c.of.name, got, err, c.want)
		}
		for _, claim := range c.new {
			if got, err := c.of.tenant(t, map[string]any{claim: c.value}); err != nil || got == c.want {
				t.Errorf("%s, %s of another: %q, %v; want another", c.of.name, claim, got, err)
			}
		}
		for _, claim := range c.required {
			for _, value := range []any{nil, "", null, []string{"x"}, "a\nb", "a\x1bb"} {
				if got, err := c.of.tenant(t, map[string]any{claim: value}); !errors.Is(err, attest.ErrDenied) {
					t.Errorf("%s, %s %v: %q, %v; want it denied", c.of.name, claim, value, got, err)
				}
			}
		}
	}
}
