// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// gitlabSample has the claims of a job for a push to main, as GitLab 18.9
// spells them. A policy has put it there, so that everything is.
func gitlabSample(t testing.TB) sample {
	return sample{gitlab{}, GitLab, map[string]any{
		"iss": "https://gitlab.example", "sub": "project_path:acme/tools/app:ref_type:branch:ref:main", "aud": service,
		"iat": 1681395193, "nbf": 1681395188, "exp": 1681398793, "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
		"namespace_id": "72", "namespace_path": "acme/tools", "project_id": "20", "project_path": "acme/tools/app",
		"job_namespace_id": "72", "job_namespace_path": "acme/tools", "job_project_id": "20", "job_project_path": "acme/tools/app",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "developer",
		"user_identities": []any{map[string]any{"provider": "github", "extern_uid": "2435223452345"}},
		"pipeline_id":     "574", "pipeline_source": "push", "job_id": "302",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
		"groups_direct": []string{"acme"}, "environment": "production", "environment_protected": "true",
		"deployment_tier": "production", "environment_action": "start",
		"job_source": "pipeline_execution_policy",
		"job_config": map[string]any{"url": "https://gitlab.example/acme/policies/-/blob/" + commitB + "/policy.yml", "sha": commitB},
		"runner_id":  1, "runner_environment": "gitlab-hosted", "sha": commitA, "project_visibility": "private",
		"ci_config_ref_uri": "gitlab.example/acme/tools/app//.gitlab-ci.yml@refs/heads/main", "ci_config_sha": commitA,
	}, row(t, gitlab{}, "https://gitlab.example", `claims.project_id == "20"`)}
}

// gitlabPush has no policy's claims.
func gitlabPush(t testing.TB) sample {
	s := gitlabSample(t)
	s.claims["job_source"] = "push"
	delete(s.claims, "job_config")
	return s
}

func TestGitLabBuild(t *testing.T) {
	claim := attest.FromToken
	want := &attest.Build{
		BuilderID: service + "/builders/acme",
		BuildType: service + "/buildtypes/gitlab-job/v1",
		ExternalParameters: map[string]any{
			"source": map[string]any{"repository": "https://gitlab.example/acme/tools/app", "ref": "refs/heads/main"},
			"job":    map[string]any{"configuration": ".gitlab-ci.yml"},
		},
		InternalParameters: map[string]any{"gitlab": map[string]any{
			"environment": "production", "environment_protected": "true", "job_source": "push", "namespace_id": "72", "pipeline_id": "574",
			"pipeline_source": "push", "project_id": "20", "project_visibility": "private", "ref_protected": "true",
			"runner_environment": "gitlab-hosted", "runner_id": "1", "user_id": "1",
		}},
		Dependencies: []attest.Resource{{URI: "git+https://gitlab.example/acme/tools/app@refs/heads/main", Digest: map[string]string{"gitCommit": commitA}}},
		InvocationID: "https://gitlab.example/acme/tools/app/-/jobs/302",
		Level:        3,
		Origins: attest.Origins{
			"/buildDefinition/buildType":                                       attest.FromRegistry(),
			"/buildDefinition/externalParameters/job/configuration":            claim("ci_config_ref_uri", "project_path", "ref_path"),
			"/buildDefinition/externalParameters/source/ref":                   claim("ref_path"),
			"/buildDefinition/externalParameters/source/repository":            claim("project_path"),
			"/buildDefinition/internalParameters/gitlab/environment":           claim("environment"),
			"/buildDefinition/internalParameters/gitlab/environment_protected": claim("environment_protected"),
			"/buildDefinition/internalParameters/gitlab/job_source":            claim("job_source"),
			"/buildDefinition/internalParameters/gitlab/namespace_id":          claim("namespace_id"),
			"/buildDefinition/internalParameters/gitlab/pipeline_id":           claim("pipeline_id"),
			"/buildDefinition/internalParameters/gitlab/pipeline_source":       claim("pipeline_source"),
			"/buildDefinition/internalParameters/gitlab/project_id":            claim("project_id"),
			"/buildDefinition/internalParameters/gitlab/project_visibility":    claim("project_visibility"),
			"/buildDefinition/internalParameters/gitlab/ref_protected":         claim("ref_protected"),
			"/buildDefinition/internalParameters/gitlab/runner_environment":    claim("runner_environment"),
			"/buildDefinition/internalParameters/gitlab/runner_id":             claim("runner_id"),
			"/buildDefinition/internalParameters/gitlab/user_id":               claim("user_id"),
			"/buildDefinition/resolvedDependencies/0/digest/gitCommit":         claim("sha"),
			"/buildDefinition/resolvedDependencies/0/uri":                      claim("project_path", "ref_path"),
			"/runDetails/builder/id":                                           attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                                claim("job_id", "project_path"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	if diff := cmp.Diff(want, gitlabPush(t).mustBuild(t, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestGitLabRefused(t *testing.T) {
	s := gitlabPush(t)
	s.requires(t, "pipeline_source", "project_path", "project_id", "namespace_id", "ref_path", "ref", "ref_type", "sha", "runner_environment", "job_id")
	s.refuses(t, []refusal{
		{"pipeline_source", "merge_request_event", "merge_request_event"},
		{"pipeline_source", "external_pull_request_event", "external_pull_request_event"},
		{"pipeline_source", "ondemand_dast_scan", "ondemand_dast_scan"},
		{"pipeline_source", "webide", "webide"},
		{"pipeline_source", "Push", "Push"},
		{"job_project_id", "21", "job_project_id is not project_id"},
		{"job_project_id", 21, "job_project_id is not project_id"},
		{"job_project_id", map[string]any{}, "job_project_id is not project_id"},
		{"job_namespace_id", "73", "job_namespace_id"},
		{"job_project_path", "evil/app", "job_project_path"},
		{"job_namespace_path", "evil", "job_namespace_path"},
		{"project_id", "21", "job_project_id is not project_id"},
		{"project_path", "evil/app", "job_project_path"},
		{"namespace_path", "acme", "job_namespace_path"},
		{"ref_path", "refs/heads/other", "ref_path is not what ref and ref_type say"},
		{"ref_path", "refs/merge-requests/1/head", "ref_path"},
		{"ref_path", "refs/heads/a..b", "ref_path"},
		{"ref_path", "main", "ref_path"},
		{"ref", "other", "ref_path is not what ref and ref_type say"},
		{"ref_type", "tag", "ref_path is not what ref and ref_type say"},
		{"ref_type", "commit", "ref_type"},
		{"sha", "HEAD", "sha"},
		{"sha", commitB, "ci_config_sha"},
		{"runner_environment", "mine", "mine"},
		{"runner_environment", "self-hosted", "self-hosted"},
		{"runner_environment", "github-hosted", "github-hosted"},
		{"job_id", "0", "job_id"},
		{"job_id", "302/../303", "job_id"},
		{"ci_config_sha", commitB, "ci_config_sha"},
		{"ci_config_sha", null, "ci_config_sha"},
		{"ci_config_sha", "", "ci_config_sha"},
		{"ci_config_ref_uri", null, "ci_config_ref_uri"},
		{"ci_config_ref_uri", "gitlab.example/acme/tools/app//.gitlab-ci.yml@refs/heads/other", "ci_config_ref_uri"},
		{"ci_config_ref_uri", "gitlab.example/acme/tools/app//.gitlab-ci.yml", "ci_config_ref_uri"},
		{"ci_config_ref_uri", "gitlab.example/acme/tools/app2//.gitlab-ci.yml@refs/heads/main", "ci_config_ref_uri"},
		{"ci_config_ref_uri", "gitlab.example/evil/app//.gitlab-ci.yml@refs/heads/main", "ci_config_ref_uri"},
		{"ci_config_ref_uri", "evil.example/acme/tools/app//.gitlab-ci.yml@refs/heads/main", "ci_config_ref_uri"},
		{"ci_config_ref_uri", "gitlab.example/acme/tools/app//@refs/heads/main", "ci_config_ref_uri"},
		{"ci_config_ref_uri", "gitlab.example/acme/tools/app///etc/ci.yml@refs/heads/main", "ci_config_ref_uri"},
		{"environment", "a\x1b[2Jb", "environment"},
	})
	for name, path := range map[string]string{
		"one name": "app", "an empty name": "acme//app", "a slash at the end": "acme/app/", "one up": "acme/../app", "here": "acme/./app",
		"an @": "acme/app@refs", "a space": "acme/a b", "a query": "acme/app?x", "a hyphen first": "acme/-app",
	} {
		got, err := s.build(t, map[string]any{"project_path": path, "job_project_path": path, "namespace_path": nil, "job_namespace_path": nil, "ci_config_ref_uri": nil, "ci_config_sha": nil})
		if !errors.Is(err, attest.ErrDenied) || got != nil {
			t.Errorf("a project path with %s: %+v, %v", name, got, err)
		}
	}
	for _, ref := range []string{"a..b", "a b", "a.lock", "a@{1}", "a//b", "a:b", "/a", "a\u202eb"} {
		got, err := s.build(t, map[string]any{"ref": ref, "ref_path": "refs/heads/" + ref, "ci_config_ref_uri": "gitlab.example/acme/tools/app//x.yml@refs/heads/" + ref})
		if !errors.Is(err, attest.ErrDenied) || got != nil {
			t.Errorf("the ref %q: %+v, %v", ref, got, err)
		}
	}
	if got, err := s.build(t, map[string]any{"namespace_path": "ac", "job_namespace_path": "ac"}); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("a project that is not in its namespace: %+v, %v", got, err)
	}
}

// The token of a fork's merge request is nobody's, whatever started its
// pipeline: project_id is the fork's, and the job has the project's runners.
func TestGitLabFork(t *testing.T) {
	s := gitlabPush(t)
	fork := map[string]any{"project_id": "666", "project_path": "evil/app", "namespace_id": "665", "namespace_path": "evil"}
	for _, source := range []string{"merge_request_event", "parent_pipeline", "push"} {
		fork["pipeline_source"] = source
		if got, err := s.build(t, fork); !errors.Is(err, attest.ErrDenied) || got != nil {
			t.Errorf("%s: %+v, %v", source, got, err)
		}
		if got, err := s.tenant(t, fork); !errors.Is(err, attest.ErrDenied) {
			t.Errorf("%s: tenant %s, %v", source, got, err)
		}
	}
}

func TestGitLabRecreated(t *testing.T) {
	s := gitlabPush(t)
	got, err := s.tenant(t, map[string]any{"project_id": "21", "job_project_id": "21"})
	if err != nil || got != "72/21" {
		t.Errorf("%s, %v; want another tenant than 72/20", got, err)
	}
	// Before 18.4 a token had none of the job's claims.
	old := map[string]any{"job_project_id": nil, "job_project_path": nil, "job_namespace_id": nil, "job_namespace_path": nil}
	if got, err := s.tenant(t, old); err != nil || got != "72/20" {
		t.Errorf("without the job's project: %s, %v", got, err)
	}
	s.mustBuild(t, old)
	for _, name := range []string{"project_id", "namespace_id"} {
		for _, id := range []any{nil, "", "0", "-1", "20/../21", 1.5} {
			old["project_id"], old["namespace_id"] = "20", "72"
			old[name] = id
			if got, err := s.build(t, old); !errors.Is(err, attest.ErrDenied) || got != nil {
				t.Errorf("%s %v: %+v, %v", name, id, got, err)
			}
		}
	}
}

func TestGitLabLevels(t *testing.T) {
	s := gitlabPush(t)
	none := map[string]any{"ci_config_ref_uri": null, "ci_config_sha": null}
	s.capped(t, 2, none, "ci_config_ref_uri is null")
	s.capped(t, 2, map[string]any{"ci_config_ref_uri": nil, "ci_config_sha": nil}, "ci_config_ref_uri is null")
	s.capped(t, 2, map[string]any{"job_config": map[string]any{"url": "https://gitlab.example/p", "sha": commitB}}, "job_config")
	s.capped(t, 1, map[string]any{"pipeline_source": "parent_pipeline"}, "parent_pipeline")
	s.capped(t, 1, map[string]any{"pipeline_source": "parent_pipeline", "ci_config_ref_uri": null, "ci_config_sha": null}, "parent_pipeline")
	if _, ok := s.mustBuild(t, none).ExternalParameters["job"]; ok {
		t.Error("a definition that is elsewhere is in the provenance")
	}
	if got := s.mustBuild(t, nil); got.Level != 3 {
		t.Errorf("a push: level %d", got.Level)
	}
	for _, source := range []string{"schedule", "web", "api", "trigger", "pipeline"} { // somebody may have given variables
		s.row.Builder.Level = 3
		s.capped(t, 2, map[string]any{"pipeline_source": source}, "pipeline_source is "+source)
	}
	s.row.Builder.Level = 3

	self := map[string]any{"runner_environment": "self-hosted"}
	s.row = row(t, gitlab{}, "https://gitlab.example", `claims.project_id == "20" && claims.runner_environment in ["gitlab-hosted", "self-hosted"]`)
	if got, err := s.build(t, self); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("either runner: %+v, %v", got, err)
	}
	s.row = row(t, gitlab{}, "https://gitlab.example", `claims.project_id == "20" && claims.runner_environment == "self-hosted"`)
	if got := s.mustBuild(t, self); got.InternalParameters["gitlab"].(map[string]any)["runner_environment"] != "self-hosted" {
		t.Errorf("self-hosted: %+v", got)
	}
}

// Path and ref may have every character that begins the other.
func TestGitLabConfiguration(t *testing.T) {
	s := gitlabPush(t)
	for _, c := range []struct{ kind, ref, path string }{
		{"heads", "main", ".gitlab-ci.yml"},
		{"heads", "main", "ci/a@b.yml"},
		{"heads", "a@refs/heads/main", ".gitlab-ci.yml"},
		{"heads", "main", "x//y@refs/heads/a.yml"},
		{"tags", "v1.0@rc", "ci@refs/tags/v1.yml"},
		{"heads", "ünïcode-✓", "ci/ü.yml"},
	} {
		kind := map[string]string{"heads": "branch", "tags": "tag"}[c.kind]
		ref := "refs/" + c.kind + "/" + c.ref
		got := s.mustBuild(t, map[string]any{"ref": c.ref, "ref_type": kind, "ref_path": ref, "ci_config_ref_uri": "gitlab.example/acme/tools/app//" + c.path + "@" + ref})
		want := map[string]string{"source.repository": "https://gitlab.example/acme/tools/app", "source.ref": ref, "job.configuration": c.path}
		if diff := cmp.Diff(want, leaves("", got.ExternalParameters)); diff != "" {
			t.Error(diff)
		}
		if want := "git+https://gitlab.example/acme/tools/app@" + ref; got.Dependencies[0].URI != want {
			t.Errorf("source %s; want %s", got.Dependencies[0].URI, want)
		}
	}
	// An instance below a path, and on a port.
	s.row.ServerURL = "https://example.com:8443/gitlab"
	got := s.mustBuild(t, map[string]any{"ci_config_ref_uri": "example.com:8443/gitlab/acme/tools/app//.gitlab-ci.yml@refs/heads/main"})
	if got.InvocationID != "https://example.com:8443/gitlab/acme/tools/app/-/jobs/302" {
		t.Errorf("invocation %s", got.InvocationID)
	}
}

// FuzzGitLabBuild holds that what is accepted says exactly what was claimed.
func FuzzGitLabBuild(f *testing.F) {
	f.Add("acme/app", "main", "branch", "refs/heads/main", "gitlab.example/acme/app//.gitlab-ci.yml@refs/heads/main", "push")
	f.Add("a/b/c", "v1@x", "tag", "refs/tags/v1@x", "gitlab.example/a/b/c//x@y.yml@refs/tags/v1@x", "web")
	f.Add("a/b", "a@refs/heads/m", "branch", "refs/heads/a@refs/heads/m", "gitlab.example/a/b//c@refs/heads/a@refs/heads/m", "parent_pipeline")
	f.Add("a/../b", "", "", "refs/heads/", "//@", "merge_request_event")
	reg := row(f, gitlab{}, "https://gitlab.example", `claims.project_id == "20"`)
	f.Fuzz(func(t *testing.T, project, ref, refType, refPath, uri, source string) {
		raw, err := json.Marshal(map[string]any{
			"project_path": project, "ref": ref, "ref_type": refType, "ref_path": refPath, "ci_config_ref_uri": uri, "pipeline_source": source,
			"ci_config_sha": commitA, "sha": commitA, "project_id": "20", "namespace_id": "72", "job_id": "1", "runner_environment": "gitlab-hosted",
		})
		if err != nil {
			t.Skip()
		}
		c, err := ParseClaims(raw)
		if err != nil {
			t.Skip()
		}
		b, err := Register(gitlab{}, c, reg)
		if err != nil {
			if b != nil || !errors.Is(err, attest.ErrDenied) {
				t.Fatalf("refused with %+v, %v", b, err)
			}
			return
		}
		said := leaves("", b.ExternalParameters)
		if "gitlab.example/"+project+"//"+said["job.configuration"]+"@"+refPath != uri || said["job.configuration"] == "" {
			t.Errorf("%q became %v", uri, said)
		}
		if said["source.repository"] != "https://gitlab.example/"+project || said["source.ref"] != refPath || b.Dependencies[0].URI != "git+"+said["source.repository"]+"@"+refPath {
			t.Errorf("%q at %q became %v, %v", project, refPath, said, b.Dependencies)
		}
		if refPath != "refs/heads/"+ref && refPath != "refs/tags/"+ref || source == "merge_request_event" {
			t.Errorf("%q, %q of %s is accepted", refPath, ref, source)
		}
		if source == "parent_pipeline" && b.Level != 1 {
			t.Errorf("%s at level %d", source, b.Level)
		}
	})
}
