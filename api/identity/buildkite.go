// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// buildkiteWebhook is the one build_source whose branch and commit are what
// the code host said. A person (ui), a program (api), a step of another pipeline
// (trigger_job) and a schedule say them as they like.
const buildkiteWebhook = "webhook"

var buildkiteSources = []string{buildkiteWebhook, "schedule", "trigger_job", "api", "ui"}

// buildkiteAsk is what has the ids in the token.
const buildkiteAsk = "buildkite-agent oidc request-token --claim organization_id --claim pipeline_id"

var buildkiteSlug = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,254}$`)

// buildkite is Buildkite (buildkite.com/docs/agent/cli/reference/oidc).
type buildkite struct{}

func (buildkite) Rules() Rules {
	return Rules{
		MaxLevel: 2,
		MaxAge:   10 * time.Minute, Workload: true,
		Immutable:    []string{"organization_id", "pipeline_id"},
		Owners:       []string{"organization_slug"},
		BuildType:    attest.BuildkiteJob,
		Fields:       buildkiteFields,
		NoRepository: "pipeline_id",
	}
}

func (buildkite) CheckIssuer(u *url.URL) error { return hostedOnly(u, "https://agent.buildkite.com") }

// Tenant is the pipeline, by ids that are in the token only when they were
// asked for. Slugs can be given to others.
func (buildkite) Tenant(c Claims) (string, error) {
	if !c.Has("organization_id") || !c.Has("pipeline_id") {
		return "", notABuild("organization_id and pipeline_id are missing: ask for the token with %s", buildkiteAsk)
	}
	r := reader{Claims: c}
	organization, pipeline := r.match("organization_id", shapeUUID), r.match("pipeline_id", shapeUUID)
	return organization + "/" + pipeline, r.err
}

// Build takes the repository from the builder's row, and only when the row's
// condition pins the one pipeline that builds it: it would be said of other
// pipelines otherwise.
func (b buildkite) Build(c Claims, reg Registered) (*attest.Build, error) {
	if _, err := b.Tenant(c); err != nil {
		return nil, err
	}
	if reg.Builder.Repository == "" || len(reg.Pins["pipeline_id"]) != 1 {
		return nil, notABuild("no claim names a repository: the builder must have one, and a condition that pins the one pipeline_id that builds it")
	}
	r := reader{Claims: c}
	var (
		started      = r.oneOf("build_source", buildkiteSources...)
		organization = r.match("organization_slug", buildkiteSlug)
		pipeline     = r.match("pipeline_slug", buildkiteSlug)
		number       = r.match("build_number", shapeNumber)
		commit       = r.match("build_commit", shapeValue)
		runner       = r.match("runner_environment", shapeValue)
		job          = r.match("job_id", shapeUUID)
		branch       = r.match("build_branch", shapeLong)
	)
	r.match("agent_id", shapeUUID)
	ref, refClaim := "refs/heads/"+branch, "build_branch"
	if r.Has("build_tag") {
		ref, refClaim = "refs/tags/"+r.match("build_tag", shapeLong), "build_tag"
	}
	switch {
	case r.err != nil:
		return nil, r.err
	case strings.EqualFold(commit, "HEAD"):
		return nil, notABuild("build_commit is HEAD: whoever started the build named no commit")
	case !shapeCommit.MatchString(commit):
		return nil, notABuild("claim build_commit is missing or malformed")
	case !plainRef(ref): // branches of forks are owner:branch
		return nil, notABuild("%s: not one that git accepts", refClaim)
	}
	if err := checkRunner(runner, "buildkite-hosted", reg.Pins); err != nil {
		return nil, err
	}

	d := newDraft(reg.Service, attest.BuildkiteJob)
	d.external(attest.ParameterRepository, reg.Builder.Repository, attest.FromRegistry())
	d.external(attest.ParameterRef, ref, attest.FromToken(refClaim))
	if r.Has("step_key") {
		d.external("job.step", r.match("step_key", shapeValue), attest.FromToken("step_key"))
	}
	// The repository in the uri is the registry's word, the ref the token's.
	d.source(reg.Builder.Repository, ref, commit, attest.Origin{From: attest.SourceRegistry, Names: []string{refClaim}}, attest.FromToken("build_commit"))
	server := cmp.Or(reg.ServerURL, "https://buildkite.com")
	d.invocation(server+"/"+organization+"/"+pipeline+"/builds/"+number+"#"+job, "organization_slug", "pipeline_slug", "build_number", "job_id")
	d.keep(&r, "buildkite", "", "agent_id", "build_id", "build_source", "cluster_id", "organization_id", "pipeline_id", "queue_id", "runner_environment")
	if started != buildkiteWebhook {
		d.atMost(1, "branch and commit are the word of whoever started the build: build_source is "+started)
	}
	if r.err != nil {
		return nil, r.err
	}
	return d.Build, nil
}

var buildkiteFields = slices.Concat([]Field{
	{externalParameters + "source/repository", attest.FromRegistry(), ""},
	{externalParameters + "source/ref", attest.FromToken("build_branch"), ""},
	{externalParameters + "source/ref", attest.FromToken("build_tag"), "of a tag"},
	{externalParameters + "job/step", attest.FromToken("step_key"), whereSaid},
},
	kept("buildkite", "", "", "agent_id", "build_source", "organization_id", "pipeline_id", "runner_environment"),
	kept("buildkite", "", whereSaid, "build_id", "cluster_id", "queue_id"),
	[]Field{
		{sourceURI, attest.Origin{From: attest.SourceRegistry, Names: []string{"build_branch"}}, ""},
		{sourceURI, attest.Origin{From: attest.SourceRegistry, Names: []string{"build_tag"}}, "of a tag"},
		{sourceCommit, attest.FromToken("build_commit"), ""},
		{invocationID, attest.FromToken("organization_slug", "pipeline_slug", "build_number", "job_id"), ""},
	})
