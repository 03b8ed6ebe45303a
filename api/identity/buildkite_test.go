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

const buildkiteCondition = `claims.pipeline_id == "0184990a-4782-42b5-afc1-16715b10b1a0"`

// buildkiteSample has the claims of a job that a webhook started, as Buildkite
// spells them when asked for every id.
func buildkiteSample(t testing.TB) sample {
	s := sample{buildkite{}, Buildkite, map[string]any{
		"iss": "https://agent.buildkite.com", "aud": service, "iat": 1669014898, "nbf": 1669014898, "exp": 1669015198,
		"sub":               "organization:acme-inc:pipeline:super-duper-app:ref:refs/heads/main:commit:" + commitA + ":step:build",
		"jti":               "0194b014-8517-7cef-b232-76a827315f08",
		"organization_slug": "acme-inc", "pipeline_slug": "super-duper-app", "build_number": 5,
		"build_branch": "main", "build_tag": nil, "build_commit": commitA, "step_key": "build",
		"job_id": "0184990a-477b-4fa8-9968-496074483cee", "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff",
		"build_source": "webhook", "runner_environment": "buildkite-hosted",
		"organization_id": "f892efa9-103e-4d28-97a1-3b8616a0994d", "pipeline_id": "0184990a-4782-42b5-afc1-16715b10b1a0",
		"build_id": "019583d7-3737-4e38-af67-f7cc356bd580", "cluster_id": "0191f956-042f-7ec4-aa62-8e5eeae396d0", "queue_id": "0191f956-62da-7515-b79b-bdecb519aa32",
	}, row(t, buildkite{}, "", buildkiteCondition)}
	s.row.Builder.Repository = "https://github.com/acme/app"
	return s
}

func TestBuildkiteBuild(t *testing.T) {
	claim := attest.FromToken
	want := &attest.Build{
		BuilderID: service + "/builders/acme",
		BuildType: service + "/buildtypes/buildkite-job/v1",
		ExternalParameters: map[string]any{
			"source": map[string]any{"repository": "https://github.com/acme/app", "ref": "refs/heads/main"},
			"job":    map[string]any{"step": "build"},
		},
		InternalParameters: map[string]any{"buildkite": map[string]any{
			"agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff", "build_id": "019583d7-3737-4e38-af67-f7cc356bd580", "build_source": "webhook",
			"cluster_id": "0191f956-042f-7ec4-aa62-8e5eeae396d0", "organization_id": "f892efa9-103e-4d28-97a1-3b8616a0994d",
			"pipeline_id": "0184990a-4782-42b5-afc1-16715b10b1a0", "queue_id": "0191f956-62da-7515-b79b-bdecb519aa32", "runner_environment": "buildkite-hosted",
		}},
		Dependencies: []attest.Resource{{URI: "git+https://github.com/acme/app@refs/heads/main", Digest: map[string]string{"gitCommit": commitA}}},
		InvocationID: "https://buildkite.com/acme-inc/super-duper-app/builds/5#0184990a-477b-4fa8-9968-496074483cee",
		Level:        3,
		Origins: attest.Origins{
			"/buildDefinition/buildType":                                       attest.FromRegistry(),
			"/buildDefinition/externalParameters/job/step":                     claim("step_key"),
			"/buildDefinition/externalParameters/source/ref":                   claim("build_branch"),
			"/buildDefinition/externalParameters/source/repository":            attest.FromRegistry(),
			"/buildDefinition/internalParameters/buildkite/agent_id":           claim("agent_id"),
			"/buildDefinition/internalParameters/buildkite/build_id":           claim("build_id"),
			"/buildDefinition/internalParameters/buildkite/build_source":       claim("build_source"),
			"/buildDefinition/internalParameters/buildkite/cluster_id":         claim("cluster_id"),
			"/buildDefinition/internalParameters/buildkite/organization_id":    claim("organization_id"),
			"/buildDefinition/internalParameters/buildkite/pipeline_id":        claim("pipeline_id"),
			"/buildDefinition/internalParameters/buildkite/queue_id":           claim("queue_id"),
			"/buildDefinition/internalParameters/buildkite/runner_environment": claim("runner_environment"),
			"/buildDefinition/resolvedDependencies/0/digest/gitCommit":         claim("build_commit"),
			"/buildDefinition/resolvedDependencies/0/uri":                      {From: attest.SourceRegistry, Names: []string{"build_branch"}},
			"/runDetails/builder/id":                                           attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                                claim("build_number", "job_id", "organization_slug", "pipeline_slug"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	if diff := cmp.Diff(want, buildkiteSample(t).mustBuild(t, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestBuildkiteRefused(t *testing.T) {
	s := buildkiteSample(t)
	s.requires(t, "organization_id", "pipeline_id", "organization_slug", "pipeline_slug", "build_number", "build_branch", "build_commit", "build_source", "runner_environment", "job_id", "agent_id")
	s.refuses(t, []refusal{
		{"organization_id", nil, buildkiteAsk},
		{"pipeline_id", nil, buildkiteAsk},
		{"pipeline_id", "super-duper-app", "pipeline_id"},
		{"build_commit", "HEAD", "HEAD"},
		{"build_commit", "head", "HEAD"},
		{"build_commit", "main", "build_commit"},
		{"build_commit", commitA[:12], "build_commit"},
		{"build_commit", strings.ToUpper(commitA), "build_commit"},
		{"build_branch", "mallory:main", "build_branch"}, // a fork's
		{"build_branch", "a..b", "build_branch"},
		{"build_branch", "main ", "build_branch"},
		{"build_branch", "refs/heads/../x", "build_branch"},
		{"build_tag", "v1..2", "build_tag"},
		{"build_tag", []string{"v1"}, "build_tag"},
		{"build_source", "pull_request", "pull_request"},
		{"build_source", "Webhook", "Webhook"},
		{"runner_environment", "mine", "mine"},
		{"runner_environment", "self-hosted", "self-hosted"},
		{"organization_slug", "acme/inc", "organization_slug"},
		{"pipeline_slug", "../evil", "pipeline_slug"},
		{"build_number", "5#x", "build_number"},
		{"build_number", 0, "build_number"},
		{"job_id", "x", "job_id"},
		{"step_key", "a\nb", "step_key"},
		{"step_key", map[string]any{}, "step_key"},
	})
}

// No claim names a repository, so it is said of the one pipeline that the
// condition pins, and of no other.
func TestBuildkiteRepository(t *testing.T) {
	s := buildkiteSample(t)
	s.row.Builder.Repository = ""
	if got, err := s.build(t, nil); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), "repository") {
		t.Errorf("a builder without a repository: %+v, %v", got, err)
	}
	for _, condition := range []string{
		`claims.organization_id == "f892efa9-103e-4d28-97a1-3b8616a0994d"`,
		`claims.organization_slug == "acme-inc" && claims.pipeline_slug == "super-duper-app"`,
		`claims.pipeline_id in ["0184990a-4782-42b5-afc1-16715b10b1a0", "99999999-9999-4999-8999-999999999999"]`,
		buildkiteCondition + ` || claims.organization_slug == "acme-inc"`,
	} {
		s.row = row(t, buildkite{}, "", condition)
		s.row.Builder.Repository = "https://github.com/acme/app"
		if got, err := s.build(t, nil); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), "pipeline_id") {
			t.Errorf("where the condition is %s: %+v, %v", condition, got, err)
		}
	}
}

func TestBuildkiteRefs(t *testing.T) {
	s := buildkiteSample(t)
	for _, c := range []struct {
		changes map[string]any
		ref     string
		claim   string
	}{
		{map[string]any{"build_branch": "feature/a@b"}, "refs/heads/feature/a@b", "build_branch"},
		{map[string]any{"build_branch": "v1@x", "build_tag": "v1@x"}, "refs/tags/v1@x", "build_tag"},
		{map[string]any{"build_branch": "main", "build_tag": ""}, "refs/heads/main", "build_branch"},
		{map[string]any{"build_branch": "main", "build_tag": null}, "refs/heads/main", "build_branch"},
		{map[string]any{"build_branch": "refs/tags/v1"}, "refs/heads/refs/tags/v1", "build_branch"}, // a branch, however it is called
	} {
		got := s.mustBuild(t, c.changes)
		if ref := leaves("", got.ExternalParameters)["source.ref"]; ref != c.ref || got.Dependencies[0].URI != "git+https://github.com/acme/app@"+c.ref {
			t.Errorf("%v: %s, %v; want %s", c.changes, ref, got.Dependencies, c.ref)
		}
		if diff := cmp.Diff(attest.FromToken(c.claim), got.Origins["/buildDefinition/externalParameters/source/ref"]); diff != "" {
			t.Errorf("%v: %s", c.changes, diff)
		}
	}
	if _, ok := s.mustBuild(t, map[string]any{"step_key": null}).ExternalParameters["job"]; ok {
		t.Error("a step without a key has one in the provenance")
	}
}

func TestBuildkiteLevels(t *testing.T) {
	s := buildkiteSample(t)
	for _, source := range []string{"api", "ui", "trigger_job", "schedule"} {
		s.capped(t, 1, map[string]any{"build_source": source}, "build_source is "+source)
	}
	self := map[string]any{"runner_environment": "self-hosted"}
	s.row = row(t, buildkite{}, "", buildkiteCondition+` && claims.runner_environment == "self-hosted"`)
	s.row.Builder.Repository = "https://github.com/acme/app"
	s.mustBuild(t, self)
}
