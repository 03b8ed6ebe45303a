// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// genericSample has the claims of an issuer of one's own, all of them mapped.
func genericSample(t testing.TB) sample {
	s := sample{generic{}, OIDC, map[string]any{
		"iss": "https://ci.example", "sub": "job:1", "aud": service, "iat": 1717671355, "exp": 1717671655,
		"org": "acme/inc", "team": 7, "repo": "https://git.example/acme/app", "ref": "refs/heads/main", "rev": commitA,
		"run": "https://ci.example/runs/1", "runner": map[string]any{"pool": "hosted", "a/b~c": "x"}, "attempt": 2,
	}, row(t, generic{}, "", `claims.org == "acme/inc"`)}
	s.row.Mapping = &Mapping{
		Tenant: []string{"org", "team"}, Repository: "repo", Ref: "ref", Commit: "rev", Invocation: "run",
		Internal: []string{"runner.pool", "attempt", "none", "runner.a/b~c"},
	}
	return s
}

func TestGenericBuild(t *testing.T) {
	claim := attest.FromToken
	want := &attest.Build{
		BuilderID: service + "/builders/acme",
		BuildType: service + "/buildtypes/oidc-job/v1",
		ExternalParameters: map[string]any{
			"source": map[string]any{"repository": "https://git.example/acme/app", "ref": "refs/heads/main"},
		},
		InternalParameters: map[string]any{"oidc": map[string]any{"runner.pool": "hosted", "attempt": "2", "runner.a/b~c": "x"}},
		Dependencies:       []attest.Resource{{URI: "git+https://git.example/acme/app@refs/heads/main", Digest: map[string]string{"gitCommit": commitA}}},
		InvocationID:       "https://ci.example/runs/1",
		Level:              3,
		Origins: attest.Origins{
			"/buildDefinition/buildType":                               attest.FromRegistry(),
			"/buildDefinition/externalParameters/source/ref":           claim("ref"),
			"/buildDefinition/externalParameters/source/repository":    claim("repo"),
			"/buildDefinition/internalParameters/oidc/attempt":         claim("attempt"),
			"/buildDefinition/internalParameters/oidc/runner.a~1b~0c":  claim("runner.a/b~c"),
			"/buildDefinition/internalParameters/oidc/runner.pool":     claim("runner.pool"),
			"/buildDefinition/resolvedDependencies/0/digest/gitCommit": claim("rev"),
			"/buildDefinition/resolvedDependencies/0/uri":              claim("ref", "repo"),
			"/runDetails/builder/id":                                   attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                        claim("run"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	if diff := cmp.Diff(want, genericSample(t).mustBuild(t, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestGenericRefused(t *testing.T) {
	s := genericSample(t)
	s.requires(t, "repo", "ref", "rev", "run")
	s.refuses(t, []refusal{
		{"repo", "http://git.example/acme/app", "repo"},
		{"repo", "git.example/acme/app", "repo"},
		{"repo", "https://git.example/acme/app/", "repo"},
		{"repo", "https://git.example/acme/../evil", "repo"},
		{"repo", "https://token@git.example/acme/app", "repo"},
		{"repo", "https://git.example/acme/app@refs/heads/x", "repo"},
		{"repo", "https://git.example/acme/app?x", "repo"},
		{"ref", "main", "ref"},
		{"ref", "refs/pull/1/merge", "ref"},
		{"ref", "refs/heads/a..b", "ref"},
		{"rev", "HEAD", "rev"},
		{"rev", commitA[:39], "rev"},
		{"run", "1", "run"},
		{"run", "https://user:secret@ci.example/1", "run"},
		{"run", "https://ci.example/a b", "run"},
		{"attempt", []string{"x"}, "attempt"},
	})
	s.row.Builder.Repository = "https://git.example/acme/other"
	if got, err := s.build(t, nil); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), "acme/other") {
		t.Errorf("a builder of another repository: %+v, %v", got, err)
	}
	s.row.Mapping = nil
	if got, err := s.build(t, nil); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), "of people") {
		t.Errorf("without a mapping: %+v, %v", got, err)
	}
	if got, err := s.Tenant(claimsOf(t, s.claims, nil)); err != nil || got != "" {
		t.Errorf("without a mapping: tenant %q, %v; want nobody's", got, err)
	}
}

func TestGenericLevels(t *testing.T) {
	s := genericSample(t)
	s.row.Mapping.Commit = ""
	s.capped(t, 1, nil, "no commit")
	s.row.Mapping.Ref = ""
	s.capped(t, 1, nil, "no commit")
	s.row.Mapping.Repository = ""
	if got, err := s.build(t, nil); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), "no claim names a repository") {
		t.Errorf("no repository at all: %+v, %v", got, err)
	}

	s = genericSample(t)
	s.row.Mapping.Repository, s.row.Builder.Repository = "", "https://git.example/acme/registered"
	got := s.mustBuild(t, nil)
	if leaves("", got.ExternalParameters)["source.repository"] != s.row.Builder.Repository || got.Level != 3 {
		t.Errorf("%v at level %d", got.ExternalParameters, got.Level)
	}
	for pointer, want := range map[string]attest.Origin{
		"/buildDefinition/externalParameters/source/repository": attest.FromRegistry(),
		"/buildDefinition/resolvedDependencies/0/uri":           {From: attest.SourceRegistry, Names: []string{"ref"}},
	} {
		if diff := cmp.Diff(want, got.Origins[pointer]); diff != "" {
			t.Errorf("%s: %s", pointer, diff)
		}
	}
	s.row.Mapping.Internal = nil
	if got := s.mustBuild(t, nil); got.InternalParameters != nil {
		t.Errorf("nothing is kept, and there is %v", got.InternalParameters)
	}
}

func TestMappingsThatAreRefused(t *testing.T) {
	good := func() *Mapping { return &Mapping{Tenant: []string{"org"}, Invocation: "run"} }
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Mapping){
		"no tenant":                func(m *Mapping) { m.Tenant = nil },
		"a tenant of no claim":     func(m *Mapping) { m.Tenant = []string{"org", ""} },
		"a tenant of many claims":  func(m *Mapping) { m.Tenant = strings.Split(strings.Repeat("a,", 65)+"a", ",") },
		"no invocation":            func(m *Mapping) { m.Invocation = "" },
		"a commit of no ref":       func(m *Mapping) { m.Commit = "rev" },
		"a kept claim of no name":  func(m *Mapping) { m.Internal = []string{""} },
		"more kept than are shown": func(m *Mapping) { m.Internal = strings.Split(strings.Repeat("a,", 65)+"a", ",") },
	} {
		m := good()
		change(m)
		if err := m.Validate(); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v; want it invalid", name, err)
		}
	}
}
