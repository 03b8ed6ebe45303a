// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"provost/api/identity"
	"provost/attest"
)

var update = flag.Bool("update", false, "write the examples of the build types' pages anew")

var supplied = regexp.MustCompile(`/resolvedDependencies/\d+$`)

// What provenance of every provider names resolves: the builder.id to a page of
// that level whose origin table has the origin of every field, the build type to
// one with all its parameters.
func TestWhatProvenanceNamesResolves(t *testing.T) {
	f := newFixture(t)
	for _, job := range ciJobs() {
		t.Run(job.provider, func(t *testing.T) {
			p := newIDP(t)
			provider, _ := identity.Lookup(job.provider)
			url := p.URL
			if job.provider == identity.SPIFFE {
				url = "spiffe://example.org"
			}
			accepted := Issuer{URL: url, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 10 * time.Minute, Provider: job.provider}
			row := builderRow(url, "acme", job.condition)
			row.BuildType = provider.Rules().BuildTypeURI(service)
			job.change(&accepted, &row)
			if job.provider == identity.SPIFFE {
				accepted.BundleFile = bundleFile(t, p)
			}
			registry := registryOf(row)
			a, err := NewAuthenticator([]Issuer{accepted}, []Rule{{Issuer: url, When: job.condition, Roles: []attest.Role{attest.RoleSigner}}},
				AuthOptions{Now: p.now, Service: service, Registry: registry})
			if err != nil {
				t.Fatal(err)
			}
			server := f.serve(a, registry)
			now := p.now().Unix()
			claims := map[string]any{"iss": p.URL, "sub": "anything", "aud": audience, "iat": now, "nbf": now, "exp": now + 300}
			if job.provider == identity.SPIFFE {
				claims["jti"] = "77"
			}
			maps.Copy(claims, job.claims)
			payload, err := json.Marshal(claims)
			if err != nil {
				t.Fatal(err)
			}
			caller, err := jobCaller(t.Context(), a, p.sign("ES256", "ec", payload))
			if err != nil {
				t.Fatal(err)
			}
			predicate := f.predicate(t, caller)
			build, err := attest.ParseProvenance(predicate)
			if err != nil {
				t.Fatal(err)
			}

			page := pageOf[builderPage](t, server, build.BuilderID)
			if page.BuilderID != build.BuilderID || page.Level != build.Level || page.BuildType != build.BuildType || page.OwnLevel != row.Level || page.Issuer != url || page.Condition != job.condition {
				t.Errorf("the page of %s at level %d is %+v", build.BuilderID, build.Level, page)
			}
			for pointer, o := range build.Origins {
				if !slices.ContainsFunc(page.Origins, func(e originEntry) bool {
					here := e.Field == pointer || e.From == attest.SourceTenant && e.Field == supplied.ReplaceAllString(pointer, "/resolvedDependencies/<n>")
					return here && e.From == o.From && slices.Equal(e.Names, o.Names)
				}) {
					t.Errorf("the page does not say that %s is from %s", pointer, o)
				}
			}
			for _, name := range regexp.MustCompile(`"(provost_\w+)"`).FindAllStringSubmatch(string(predicate), -1) {
				if !slices.ContainsFunc(page.Extensions, func(term attest.Term) bool { return term.Name == name[1] && term.Meaning != "" }) {
					t.Errorf("the page does not say what %s is", name[1])
				}
			}
			if job.provider == identity.GitHub {
				if build.BuildType != attest.GitHubWorkflowType {
					t.Errorf("build type %s", build.BuildType)
				}
				return
			}
			kind := pageOf[buildTypePage](t, server, build.BuildType)
			for group, members := range build.ExternalParameters {
				for name := range members.(map[string]any) {
					if !slices.ContainsFunc(kind.Parameters, func(e parameterEntry) bool { return e.Path == group+"."+name }) {
						t.Errorf("the page of %s has no parameter %s.%s", build.BuildType, group, name)
					}
				}
			}
			if job.provider != identity.SPIFFE { // Kubernetes is the example of their build type
				compareExample(t, kind, strings.ReplaceAll(string(predicate), p.URL, "https://ci.example"))
			}
		})
	}
}

// The page of a control plane has the origins of what it submits.
func TestWhatAControlPlaneSubmitsResolves(t *testing.T) {
	f := newFixture(t)
	row := builderRow("spiffe://example.org", "chains", `claims.sub == "spiffe://example.org/chains"`)
	row.Mode, row.BuildType = attest.ModeControlPlane, "https://tekton.dev/chains/v2/slsa"
	server := f.serve(f.auth, registryOf(row))
	predicate := f.signed(t, attest.Caller{
		Issuer: row.Issuer, Subject: "spiffe://example.org/chains", Grants: []attest.Grant{attest.GrantProvenance},
		Control: &attest.Control{
			Registration: attest.Registration{Name: row.Name, PredicateTypes: row.PredicateTypes},
			BuilderID:    row.BuilderID(service, row.Level), BuildType: row.BuildType, Level: row.Level,
		},
	}, attest.Submitted{Service: service, Type: attest.ProvenanceType, Predicate: []byte(
		`{"buildDefinition":{"buildType":"https://tekton.dev/chains/v2/slsa","externalParameters":{}},"runDetails":{"builder":{"id":"` + service + `/builders/chains"}}}`)})
	build, err := attest.ParseProvenance(predicate)
	if err != nil {
		t.Fatal(err)
	}
	page := pageOf[builderPage](t, server, build.BuilderID)
	said := attest.Origins{}
	for _, e := range page.Origins {
		said[e.Field] = attest.Origin{From: e.From}
	}
	if !maps.EqualFunc(said, build.Origins, func(a, b attest.Origin) bool { return a.String() == b.String() }) {
		t.Errorf("the page says %v; the provenance %v", said, build.Origins)
	}
	if page.Level != build.Level || page.BuildType != build.BuildType || page.Mode != attest.ModeControlPlane || len(page.Lower) != 0 {
		t.Errorf("%+v", page)
	}
}

// predicate is that of provenance which is signed for a caller, with a
// dependency that the caller names.
func (f *fixture) predicate(t *testing.T, caller attest.Caller) []byte {
	t.Helper()
	return f.signed(t, caller, attest.Provenance{Dependencies: []attest.Resource{
		{URI: "pkg:npm/left-pad@1.3.0", Digest: map[string]string{"sha256": strings.Repeat("c", 64)}},
	}})
}

// signed is the predicate of what is signed for a caller.
func (f *fixture) signed(t *testing.T, caller attest.Caller, predicate attest.Predicate) []byte {
	t.Helper()
	signed, err := f.issuer.Issue(t.Context(), caller, attest.Request{
		Subjects: []attest.Subject{{Name: "app", SHA256: attest.SHA256([]byte(t.Name()))}}, Predicate: predicate,
	})
	if err != nil {
		t.Fatal(err)
	}
	payload, _, err := attest.OpenUnverified(signed.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	var statement struct {
		Predicate json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &statement); err != nil {
		t.Fatal(err)
	}
	return statement.Predicate
}

// compareExample holds that the page's example is a predicate that was signed.
func compareExample(t *testing.T, page buildTypePage, signed string) {
	t.Helper()
	want := jsontext.Value(signed)
	if err := want.Indent(jsontext.WithIndent("  ")); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("pages/"+page.Name+".json", append(want, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got := page.Example
	if err := got.Indent(jsontext.WithIndent("  ")); err != nil || string(got) != string(want) {
		t.Errorf("the example of %s is not what is signed, run go test ./api -run TestWhatProvenanceNamesResolves -update: %v\n%s\nbut\n%s", page.Name, err, got, want)
	}
}

// What only a CI's API says has the members that the pages name.
func TestPagesNameWhatAPIsSay(t *testing.T) {
	for provider, api := range map[string]*ciAPI{
		identity.GitHub: newCIAPI(t, "", map[string]any{
			checkedRunURL: shape(t, checkedGitHubAnswer, map[string]any{"status": "completed", "conclusion": "success"}), checkedHead: checkedObject("refs/heads/main", "commit", commitA),
		}),
		identity.GitLab: newCIAPI(t, checkedAPIv4, map[string]any{
			"": shape(t, checkedGitLabProjectAnswer, nil), checkedJob: shape(t, checkedGitLabJobAnswer, nil), checkedPipeline: shape(t, checkedGitLabPipelineAnswer, nil),
			checkedVarsURL: []any{map[string]any{"key": "A", "value": "x", "variable_type": "env_var"}}, checkedBranch: checkedAt("main", commitA),
		}),
	} {
		url, claims := api.URL, githubClaimsOf()
		if provider == identity.GitLab {
			url, claims = url+"/api/v4", checkedGitLabClaims()
		}
		got, err := checkedIssuer(t, provider, url, AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, claims, nil))
		if err != nil {
			t.Fatal(err)
		}
		p, _ := identity.Lookup(provider)
		for _, field := range identity.FieldsOf(p, nil) {
			if said := slices.Sorted(maps.Keys(got.Facts)); field.Origin.From == attest.SourceAPI && !slices.Equal(field.Origin.Names, said) {
				t.Errorf("the page of %s names %v; the API says %v", provider, field.Origin.Names, said)
			}
		}
	}
}
