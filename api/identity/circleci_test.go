// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// circleciSample has the claims of a job for a push to main, as CircleCI spells
// them.
func circleciSample(t testing.TB) sample {
	return sample{circleci{}, CircleCI, map[string]any{
		"iss": "https://oidc.circleci.com/org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e", "aud": service, "iat": 1790000000, "exp": 1790003600,
		"sub":                                      "org/c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e/project/3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c/user/5e6f7a8b-9c0d-4e1f-a2b3-c4d5e6f7a8b9",
		"oidc.circleci.com/org-id":                 "c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e",
		"oidc.circleci.com/project-id":             "3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c",
		"oidc.circleci.com/pipeline-id":            "9f8e7d6c-5b4a-4c3d-8e2f-1a0b9c8d7e6f",
		"oidc.circleci.com/pipeline-definition-id": "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
		"oidc.circleci.com/workflow-id":            "2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e",
		"oidc.circleci.com/job-id":                 "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9",
		"oidc.circleci.com/context-ids":            []string{"7b6a5c4d-3e2f-4a1b-8c9d-0e1f2a3b4c5d"},
		"oidc.circleci.com/ssh-rerun":              false,
		"oidc.circleci.com/vcs-origin":             "github.com/acme/app",
		"oidc.circleci.com/vcs-ref":                "refs/heads/main",
	}, row(t, circleci{}, "", `claims["oidc.circleci.com/project-id"] == "3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c"`)}
}

func TestCircleCIBuild(t *testing.T) {
	claim := func(names ...string) attest.Origin {
		for i := range names {
			names[i] = "oidc.circleci.com/" + names[i]
		}
		return attest.FromToken(names...)
	}
	want := &attest.Build{
		BuilderID: service + "/builders/acme/level/1",
		BuildType: service + "/buildtypes/circleci-job/v1",
		ExternalParameters: map[string]any{
			"source":   map[string]any{"repository": "https://github.com/acme/app", "ref": "refs/heads/main"},
			"pipeline": map[string]any{"definition": "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"},
		},
		InternalParameters: map[string]any{"circleci": map[string]any{
			"context-ids": []any{"7b6a5c4d-3e2f-4a1b-8c9d-0e1f2a3b4c5d"}, "org-id": "c9035eb6-6eb2-4c85-8a81-d9ed6a1d1d1e",
			"pipeline-id": "9f8e7d6c-5b4a-4c3d-8e2f-1a0b9c8d7e6f", "project-id": "3a2f5b1c-7d4e-4f6a-9b8c-0d1e2f3a4b5c", "ssh-rerun": "false",
		}},
		InvocationID: "https://app.circleci.com/workflow/2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e/job/1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9",
		Level:        1, LevelReason: "the token names no commit",
		Origins: attest.Origins{
			"/buildDefinition/buildType":                               attest.FromRegistry(),
			"/buildDefinition/externalParameters/pipeline/definition":  claim("pipeline-definition-id"),
			"/buildDefinition/externalParameters/source/ref":           claim("vcs-ref"),
			"/buildDefinition/externalParameters/source/repository":    claim("vcs-origin"),
			"/buildDefinition/internalParameters/circleci/context-ids": claim("context-ids"),
			"/buildDefinition/internalParameters/circleci/org-id":      claim("org-id"),
			"/buildDefinition/internalParameters/circleci/pipeline-id": claim("pipeline-id"),
			"/buildDefinition/internalParameters/circleci/project-id":  claim("project-id"),
			"/buildDefinition/internalParameters/circleci/ssh-rerun":   claim("ssh-rerun"),
			"/runDetails/builder/id":                                   attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                        claim("job-id", "workflow-id"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	if diff := cmp.Diff(want, circleciSample(t).mustBuild(t, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestCircleCIRefused(t *testing.T) {
	s := circleciSample(t)
	var required []string
	for _, name := range []string{"org-id", "project-id", "workflow-id", "job-id", "ssh-rerun", "vcs-origin", "vcs-ref"} {
		required = append(required, circleciClaim+name)
	}
	s.requires(t, required...)
	s.refuses(t, []refusal{
		{"oidc.circleci.com/ssh-rerun", true, "ssh-rerun is true"},
		{"oidc.circleci.com/ssh-rerun", "true", "ssh-rerun is true"},
		{"oidc.circleci.com/ssh-rerun", "False", "ssh-rerun"},
		{"oidc.circleci.com/ssh-rerun", 0, "ssh-rerun"},
		{"oidc.circleci.com/vcs-origin", nil, "custom webhooks"},
		{"oidc.circleci.com/vcs-ref", nil, "custom webhooks"},
		{"oidc.circleci.com/vcs-origin", "https://github.com/acme/app", "vcs-origin"},
		{"oidc.circleci.com/vcs-origin", "git@github.com:acme/app", "vcs-origin"},
		{"oidc.circleci.com/vcs-origin", "github.com", "vcs-origin"},
		{"oidc.circleci.com/vcs-origin", "github.com/acme/app/", "vcs-origin"},
		{"oidc.circleci.com/vcs-origin", "github.com/acme/../evil", "vcs-origin"},
		{"oidc.circleci.com/vcs-origin", "GitHub.com/acme/app", "vcs-origin"},
		{"oidc.circleci.com/vcs-origin", "github.com/acme/app@refs/heads/x", "vcs-origin"},
		{"oidc.circleci.com/vcs-ref", "refs/pull/7/head", "vcs-ref"},
		{"oidc.circleci.com/vcs-ref", "main", "vcs-ref"},
		{"oidc.circleci.com/vcs-ref", "refs/heads/a..b", "vcs-ref"},
		{"oidc.circleci.com/job-id", "x", "job-id"},
		{"oidc.circleci.com/pipeline-definition-id", "x", "pipeline-definition-id"},
		{"oidc.circleci.com/context-ids", "7b6a5c4d-3e2f-4a1b-8c9d-0e1f2a3b4c5d", "context-ids"},
		{"oidc.circleci.com/context-ids", []any{7}, "context-ids"},
		{"oidc.circleci.com/context-ids", []string{"prod"}, "context-ids"},
		{"oidc.circleci.com/context-ids", slices.Repeat([]string{"7b6a5c4d-3e2f-4a1b-8c9d-0e1f2a3b4c5d"}, 65), "context-ids"},
		{"oidc.circleci.com/org-id", "99999999-9999-4999-8999-999999999999", "org-id is not the organization of the issuer"},
	})
}

// An organization's own issuer speaks for no other organization; the one for
// all does for each.
func TestCircleCIIssuers(t *testing.T) {
	s := circleciSample(t)
	other := map[string]any{"oidc.circleci.com/org-id": "99999999-9999-4999-8999-999999999999"}
	if got, err := s.tenant(t, other); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("another's organization: %s, %v", got, err)
	}
	other["iss"] = "https://oidc.circleci.com"
	if got, err := s.tenant(t, other); err != nil || !strings.HasPrefix(got, "99999999-") {
		t.Errorf("the issuer for all: %s, %v", got, err)
	}
}

func TestCircleCIForks(t *testing.T) {
	s := circleciSample(t)
	fork := map[string]any{"oidc.circleci.com/vcs-origin": "github.com/mallory/app"}
	if got := s.mustBuild(t, fork); leaves("", got.ExternalParameters)["source.repository"] != "https://github.com/mallory/app" {
		t.Errorf("a fork, where the builder is of no repository: %v", got.ExternalParameters)
	}
	s.row.Builder.Repository = "https://github.com/acme/app"
	s.mustBuild(t, nil)
	for _, origin := range []string{"github.com/mallory/app", "github.com/acme/app2", "github.com/Acme/app", "gitlab.com/acme/app"} {
		fork["oidc.circleci.com/vcs-origin"] = origin
		if got, err := s.build(t, fork); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), origin) {
			t.Errorf("%s: %+v, %v", origin, got, err)
		}
	}
}

func TestCircleCIOptional(t *testing.T) {
	s := circleciSample(t)
	got := s.mustBuild(t, map[string]any{
		"oidc.circleci.com/pipeline-definition-id": nil, "oidc.circleci.com/pipeline-id": nil, "oidc.circleci.com/context-ids": []string{}, "oidc.circleci.com/vcs-ref": "refs/tags/v1@x",
	})
	if diff := cmp.Diff(map[string]string{"source.repository": "https://github.com/acme/app", "source.ref": "refs/tags/v1@x"}, leaves("", got.ExternalParameters)); diff != "" {
		t.Error(diff)
	}
	internal := got.InternalParameters["circleci"].(map[string]any)
	if diff := cmp.Diff([]any{}, internal["context-ids"]); diff != "" || len(internal) != 4 {
		t.Errorf("%s%v", diff, internal)
	}
	if got.Dependencies != nil {
		t.Errorf("a commit from nowhere: %v", got.Dependencies)
	}
}
