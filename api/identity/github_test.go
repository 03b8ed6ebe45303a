// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// githubClaims are those of a run that pushed to main, as GitHub spells them,
// with changes; nil takes one away.
func githubClaims(t *testing.T, changes map[string]any) Claims {
	t.Helper()
	return claimsOf(t, map[string]any{
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
	}, changes)
}

func githubBuild(t *testing.T, c Claims, server string) (*attest.Build, error) {
	t.Helper()
	return Register(github{}, c, row(t, github{}, server, `claims.repository_id == "74"`))
}

func TestGitHubBuild(t *testing.T) {
	got, err := githubBuild(t, githubClaims(t, map[string]any{"environment": "production", "check_run_id": "99"}), "https://github.com")
	if err != nil {
		t.Fatal(err)
	}
	claim := func(names ...string) attest.Origin { return attest.FromToken(names...) }
	want := &attest.Build{
		BuilderID: service + "/builders/acme",
		BuildType: attest.GitHubWorkflowType,
		ExternalParameters: map[string]any{"workflow": map[string]any{
			"ref": "refs/heads/main", "repository": "https://github.com/acme/app", "path": ".github/workflows/build.yml",
		}},
		InternalParameters: map[string]any{"github": map[string]any{
			"event_name": "push", "repository_id": "74", "repository_owner_id": "65", "runner_environment": "github-hosted",
			"repository_owner": "acme", "repository_visibility": "private", "actor_id": "12", "environment": "production", "check_run_id": "99",
		}},
		Dependencies: []attest.Resource{{URI: "git+https://github.com/acme/app@refs/heads/main", Digest: map[string]string{"gitCommit": commitA}}},
		InvocationID: "https://github.com/acme/app/actions/runs/1234567890/attempts/2",
		Level:        3,
		Origins: attest.Origins{
			"/buildDefinition/buildType":                                       attest.FromRegistry(),
			"/buildDefinition/externalParameters/workflow/path":                claim("ref", "repository", "workflow_ref"),
			"/buildDefinition/externalParameters/workflow/ref":                 claim("ref"),
			"/buildDefinition/externalParameters/workflow/repository":          claim("repository"),
			"/buildDefinition/internalParameters/github/actor_id":              claim("actor_id"),
			"/buildDefinition/internalParameters/github/check_run_id":          claim("check_run_id"),
			"/buildDefinition/internalParameters/github/environment":           claim("environment"),
			"/buildDefinition/internalParameters/github/event_name":            claim("event_name"),
			"/buildDefinition/internalParameters/github/repository_id":         claim("repository_id"),
			"/buildDefinition/internalParameters/github/repository_owner":      claim("repository_owner"),
			"/buildDefinition/internalParameters/github/repository_owner_id":   claim("repository_owner_id"),
			"/buildDefinition/internalParameters/github/repository_visibility": claim("repository_visibility"),
			"/buildDefinition/internalParameters/github/runner_environment":    claim("runner_environment"),
			"/buildDefinition/resolvedDependencies/0/digest/gitCommit":         claim("sha"),
			"/buildDefinition/resolvedDependencies/0/uri":                      claim("ref", "repository"),
			"/runDetails/builder/id":                                           attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                                claim("repository", "run_attempt", "run_id"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestGitHubReusableWorkflow(t *testing.T) {
	pinned := row(t, github{}, "https://ghe.example", `claims.job_workflow_ref == "acme/shared/.github/workflows/b@b.yml@refs/tags/v1@x"`)
	pinned.Builder.ID = "https://ghe.example/acme/shared/.github/workflows/b@b.yml@refs/tags/v1@x"
	got, err := Register(github{}, githubClaims(t, map[string]any{
		"job_workflow_ref": "acme/shared/.github/workflows/b@b.yml@refs/tags/v1@x", "job_workflow_sha": commitB,
	}), pinned)
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://ghe.example/acme/shared/.github/workflows/b@b.yml@refs/tags/v1@x"; got.BuilderID != want {
		t.Errorf("builder %s; want %s", got.BuilderID, want)
	}
	want := []attest.Resource{
		{URI: "git+https://ghe.example/acme/app@refs/heads/main", Digest: map[string]string{"gitCommit": commitA}},
		{URI: "git+https://ghe.example/acme/shared@refs/tags/v1@x", Digest: map[string]string{"gitCommit": commitB}},
	}
	if diff := cmp.Diff(want, got.Dependencies); diff != "" {
		t.Error(diff)
	}
	for name, c := range map[string]struct {
		changes map[string]any
		want    string // the last dependency; "" for a refusal
	}{
		"by commit":                 {map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/b.yml@" + commitB, "job_workflow_sha": commitB}, "git+https://github.com/acme/shared@" + commitB},
		"by another commit":         {map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/b.yml@" + commitA, "job_workflow_sha": commitB}, ""},
		"without its commit":        {map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/b.yml@refs/heads/x", "job_workflow_sha": nil}, ""},
		"of this commit":            {map[string]any{"job_workflow_ref": "acme/app/.github/workflows/b.yml@refs/heads/main"}, "git+https://github.com/acme/app@refs/heads/main"},
		"here, at another commit":   {map[string]any{"job_workflow_ref": "acme/app/.github/workflows/b.yml@refs/heads/main", "job_workflow_sha": commitB}, ""},
		"itself, at another commit": {map[string]any{"job_workflow_sha": commitB}, ""},
		"by a short name":           {map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/b.yml@v1"}, ""},
		"from another directory":    {map[string]any{"job_workflow_ref": "acme/shared/workflows/b.yml@refs/heads/x"}, ""},
		"without a ref":             {map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/b.yml"}, ""},
		"of no repository":          {map[string]any{"job_workflow_ref": "acme/.github/workflows/b.yml@refs/heads/x"}, ""},
		"of a repository called ..": {map[string]any{"job_workflow_ref": "acme/../.github/workflows/b.yml@refs/heads/x"}, ""},
	} {
		got, err := githubBuild(t, githubClaims(t, c.changes), "https://github.com")
		if c.want == "" {
			if !errors.Is(err, attest.ErrDenied) {
				t.Errorf("%s: %+v, %v; want it denied", name, got, err)
			}
		} else if err != nil || got.Dependencies[len(got.Dependencies)-1].URI != c.want {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, c.want)
		}
	}
}

// Path and ref may have every character that begins the other.
func TestGitHubWorkflowRefs(t *testing.T) {
	for _, c := range []struct{ ref, workflowRef, path string }{
		{"refs/heads/main", "acme/app/.github/workflows/b.yml@refs/heads/main", ".github/workflows/b.yml"},
		{"refs/tags/v1.0@rc", "acme/app/.github/workflows/b.yaml@refs/tags/v1.0@rc", ".github/workflows/b.yaml"},
		{"refs/heads/x", "acme/app/.github/workflows/a@b@c.yml@refs/heads/x", ".github/workflows/a@b@c.yml"},
		{"refs/heads/a@refs/heads/main", "acme/app/.github/workflows/b.yml@refs/heads/a@refs/heads/main", ".github/workflows/b.yml"},
		{"refs/heads/x.yml@refs/heads/main", "acme/app/.github/workflows/b.yml@refs/heads/x.yml@refs/heads/main", ".github/workflows/b.yml"},
		{"refs/heads/ünïcode-✓", "acme/app/.github/workflows/b.yml@refs/heads/ünïcode-✓", ".github/workflows/b.yml"},
		{"refs/heads/a#b%20&c=d", "acme/app/.github/workflows/b.yml@refs/heads/a#b%20&c=d", ".github/workflows/b.yml"},

		{"refs/heads/main", "acme/app/.github/workflows/b.yml@refs/heads/a@refs/heads/main", ""}, // reads as a path with a ref in it
		{"refs/heads/main", "acme/app/.github/workflows/b.yml@refs/heads/other", ""},
		{"refs/heads/main", "acme/app/.github/workflows/b.yml@refs/heads/main ", ""},
		{"refs/heads/main", "acme/other/.github/workflows/b.yml@refs/heads/main", ""},
		{"refs/heads/main", "acme/app2/.github/workflows/b.yml@refs/heads/main", ""},
		{"refs/heads/main", "ACME/app/.github/workflows/b.yml@refs/heads/main", ""},
		{"refs/heads/main", "acme/app/.github/workflows/../../x/b.yml@refs/heads/main", ""},
		{"refs/heads/main", "acme/app/.github/workflows/sub/b.yml@refs/heads/main", ""},
		{"refs/heads/main", "acme/app/.github/workflows/.yml@refs/heads/main", ""},
		{"refs/heads/main", "acme/app/.github/workflows/b.sh@refs/heads/main", ""},
		{"refs/heads/main", "acme/app/dynamic/x@refs/heads/main", ""},
		{"refs/heads/main", "acme/app/.github/workflows/b.yml", ""},
		{"refs/heads/main", "", ""},
		{"main", "acme/app/.github/workflows/b.yml@main", ""},
		{"refs/pull/1/merge", "acme/app/.github/workflows/b.yml@refs/pull/1/merge", ""},
		{"refs/heads/", "acme/app/.github/workflows/b.yml@refs/heads/", ""},
		{"refs/heads/a..b", "acme/app/.github/workflows/b.yml@refs/heads/a..b", ""},
		{"refs/heads/a b", "acme/app/.github/workflows/b.yml@refs/heads/a b", ""},
		{"refs/heads/a\nb", "acme/app/.github/workflows/b.yml@refs/heads/a\nb", ""},
		{"refs/heads/a\u202eb", "acme/app/.github/workflows/b.yml@refs/heads/a\u202eb", ""},
		{"refs/heads/a@{1}", "acme/app/.github/workflows/b.yml@refs/heads/a@{1}", ""},
		{"refs/heads/a//b", "acme/app/.github/workflows/b.yml@refs/heads/a//b", ""},
		{"refs/heads/.a", "acme/app/.github/workflows/b.yml@refs/heads/.a", ""},
		{"refs/heads/a.lock", "acme/app/.github/workflows/b.yml@refs/heads/a.lock", ""},
	} {
		got, err := githubBuild(t, githubClaims(t, map[string]any{"ref": c.ref, "workflow_ref": c.workflowRef, "job_workflow_ref": c.workflowRef}), "https://github.com")
		if c.path == "" {
			if !errors.Is(err, attest.ErrDenied) {
				t.Errorf("%q at %q: %+v, %v; want it denied", c.workflowRef, c.ref, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q at %q: %v", c.workflowRef, c.ref, err)
			continue
		}
		if path := got.ExternalParameters["workflow"].(map[string]any)["path"]; path != c.path {
			t.Errorf("%q at %q: path %q; want %q", c.workflowRef, c.ref, path, c.path)
		}
	}
}

func TestGitHubClaimsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		value any
		says  string
	}{
		{"event_name", "pull_request", "pull_request"},
		{"event_name", "pull_request_target", "pull_request_target"},
		{"event_name", "issue_comment", "issue_comment"},
		{"event_name", "workflow_run", "workflow_run"},
		{"event_name", "schedule", "schedule"},
		{"event_name", "Push", "Push"},
		{"event_name", nil, "event_name"},
		{"repository", nil, "repository"},
		{"repository", "acme", "repository"},
		{"repository", "acme/app/x", "repository"},
		{"repository", "acme/..", "repository"},
		{"repository", []string{"acme/app"}, "repository"},
		{"ref", nil, "ref"},
		{"sha", nil, "sha"},
		{"sha", "HEAD", "sha"},
		{"sha", strings.Repeat("A", 40), "sha"},
		{"sha", strings.Repeat("a", 39), "sha"},
		{"sha", strings.Repeat("a", 41), "sha"},
		{"workflow_ref", nil, "workflow_ref"},
		{"workflow_sha", commitB, "workflow_sha"},
		{"workflow_sha", 1, "workflow_sha"},
		{"job_workflow_ref", nil, "job_workflow_ref"},
		{"job_workflow_sha", "x", "job_workflow_sha"},
		{"repository_id", nil, "repository_id"},
		{"repository_id", "x", "repository_id"},
		{"repository_id", "-1", "repository_id"},
		{"repository_id", "0x1", "repository_id"},
		{"repository_id", 1.5, "repository_id"},
		{"repository_owner_id", nil, "repository_owner_id"},
		{"run_id", nil, "run_id"},
		{"run_id", "1/2", "run_id"},
		{"run_attempt", nil, "run_attempt"},
		{"run_attempt", "0", "run_attempt"},
		{"runner_environment", nil, "runner_environment"},
		{"runner_environment", "mine", "runner_environment"},
		{"runner_environment", "self-hosted", "self-hosted"},
		{"environment", "a\x1b[2Jb", "environment"},
		{"environment", map[string]any{}, "environment"},
		{"actor_id", strings.Repeat("1", 300), "actor_id"},
	} {
		got, err := githubBuild(t, githubClaims(t, map[string]any{c.name: c.value}), "https://github.com")
		if !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), c.says) || got != nil {
			t.Errorf("%s %v: %+v, %v; want it denied, saying %s", c.name, c.value, got, err, c.says)
		}
	}
	// One builder.id is one kind of isolation.
	self := githubClaims(t, map[string]any{"runner_environment": "self-hosted"})
	for _, either := range []string{`claims.repository_id == "74"`, `claims.repository_id == "74" && claims.runner_environment in ["github-hosted", "self-hosted"]`} {
		if got, err := Register(github{}, self, row(t, github{}, "https://github.com", either)); !errors.Is(err, attest.ErrDenied) {
			t.Errorf("self-hosted, where the condition is %s: %+v, %v", either, got, err)
		}
	}
	got, err := Register(github{}, self, row(t, github{}, "https://github.com", `claims.repository_id == "74" && claims.runner_environment == "self-hosted"`))
	if err != nil || got.InternalParameters["github"].(map[string]any)["runner_environment"] != "self-hosted" {
		t.Errorf("self-hosted, where the rule says so: %+v, %v", got, err)
	}
	for _, absent := range []any{nil, ""} {
		got, err := githubBuild(t, githubClaims(t, map[string]any{"environment": absent, "repository_id": 74}), "https://github.com")
		if err != nil {
			t.Errorf("environment %v: %v", absent, err)
		} else if _, ok := got.InternalParameters["github"].(map[string]any)["environment"]; ok {
			t.Errorf("environment %v is in the provenance", absent)
		}
	}
}

// FuzzGitHubBuild holds that what is accepted says exactly what was claimed.
func FuzzGitHubBuild(f *testing.F) {
	seed := func(ref, workflowRef, jobRef, jobSHA, repository, event string) {
		f.Add(ref, workflowRef, jobRef, jobSHA, repository, event)
	}
	const workflow = "acme/app/.github/workflows/b.yml@refs/heads/main"
	seed("refs/heads/main", workflow, workflow, commitA, "acme/app", "push")
	seed("refs/heads/a@b", "acme/app/.github/workflows/b@c.yml@refs/heads/a@b", workflow, commitB, "acme/app", "release")
	seed("refs/tags/v1", "acme/app/.github/workflows/b.yml@refs/tags/v1", "x/y/.github/workflows/b.yml@"+commitB, commitB, "acme/app", "create")
	seed("refs/heads/m", "acme/app/.github/workflows/b.yml@refs/heads/x@refs/heads/m", "@", "", "acme/app", "workflow_dispatch")
	f.Fuzz(func(t *testing.T, ref, workflowRef, jobRef, jobSHA, repository, event string) {
		raw, err := json.Marshal(map[string]any{
			"ref": ref, "workflow_ref": workflowRef, "job_workflow_ref": jobRef, "job_workflow_sha": jobSHA, "repository": repository, "event_name": event,
			"sha": commitA, "repository_id": "1", "repository_owner_id": "2", "runner_environment": "github-hosted", "run_id": "3", "run_attempt": "4",
		})
		if err != nil {
			t.Skip()
		}
		c, err := ParseClaims(raw)
		if err != nil {
			t.Skip()
		}
		b, err := githubBuild(t, c, "https://github.com")
		if err != nil {
			if b != nil || !errors.Is(err, attest.ErrDenied) {
				t.Fatalf("refused with %+v, %v", b, err)
			}
			return
		}
		w := b.ExternalParameters["workflow"].(map[string]any)
		path := w["path"].(string)
		if repository+"/"+path+"@"+ref != workflowRef || w["ref"] != ref || w["repository"] != "https://github.com/"+repository {
			t.Errorf("%q at %q became %v", workflowRef, ref, w)
		}
		if strings.Count(path, "/") != 2 || strings.Contains(path, "..") && !strings.HasPrefix(path, ".github/workflows/") {
			t.Errorf("path %q", path)
		}
		if b.Dependencies[0].URI != "git+https://github.com/"+repository+"@"+ref || b.Dependencies[0].Digest["gitCommit"] != commitA {
			t.Errorf("source %+v", b.Dependencies[0])
		}
		if event == "pull_request" || len(b.Dependencies) > 2 {
			t.Errorf("build %+v of %s", b, event)
		}
		for _, d := range b.Dependencies[1:] {
			if d.URI == b.Dependencies[0].URI || d.Digest["gitCommit"] != jobSHA {
				t.Errorf("dependency %+v", d)
			}
		}
	})
}

// The inputs of a run that somebody started are in no token, so what is claimed
// for it is not all that it depends on.
func TestGitHubDispatch(t *testing.T) {
	r := row(t, github{}, "https://github.com", `claims.repository_id == "74"`)
	r.Builder.Level = 3
	for event, level := range map[string]int{"push": 3, "release": 3, "create": 3, "workflow_dispatch": 2} {
		got, err := Register(github{}, githubClaims(t, map[string]any{"event_name": event}), r)
		if err != nil || got.Level != level || (got.LevelReason == "") != (level == 3) || got.BuilderID != r.Builder.BuilderID(service, level) {
			t.Errorf("%s: %+v, %v; want level %d", event, got, err, level)
		}
	}
}
