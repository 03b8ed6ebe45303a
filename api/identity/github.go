// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// githubEvents are those whose workflow and source are what the ref names
// (actions.github.io/buildtypes/workflow/v1: with any other event the build
// type must not be used). A pull request would run code that nobody accepted.
var githubEvents = []string{"create", "release", "push", "workflow_dispatch"}

// Shapes of claims.
var (
	githubRepository = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}$`)
	// A workflow is a file that stands directly in this directory, so a
	// workflow's path has no '/' where its ref begins.
	githubWorkflow = regexp.MustCompile(`^\.github/workflows/[^/]{1,250}\.ya?ml$`)
	// The issuers: github.com, with or without an enterprise's own name; a
	// GitHub Enterprise Server; a company's ghe.com.
	githubIssuers = regexp.MustCompile(`^https://(token\.actions\.githubusercontent\.com(/[A-Za-z0-9-]{1,100})?|token\.actions\.[a-z0-9-]{1,63}\.ghe\.com|[^/]+/_services/token)$`)
)

// github is GitHub Actions: github.com, ghe.com and GitHub Enterprise Server
// (docs.github.com: OpenID Connect reference; the build type is
// [attest.GitHubWorkflowType]).
type github struct{}

func (github) Rules() Rules {
	return Rules{
		MaxLevel: 3,
		MaxAge:   10 * time.Minute, Workload: true,
		Immutable: []string{"repository_id", "repository_owner_id"},
		Owners:    []string{"repository", "repository_owner", "job_workflow_ref"},
		BuildType: attest.GitHubWorkflowType,
		Fields:    githubFields,
	}
}

func (github) CheckIssuer(u *url.URL) error {
	if u.Scheme == "http" || githubIssuers.MatchString(u.String()) {
		return nil
	}
	return errors.New("want https://token.actions.githubusercontent.com (perhaps with /<enterprise>), https://token.actions.<name>.ghe.com or https://<host>/_services/token")
}

// GitHubServer is where the repositories of an issuer's GitHub are. One on this
// machine stands in for github.com.
func GitHubServer(issuer *url.URL) string {
	host := issuer.Host
	if name, ok := strings.CutPrefix(host, "token.actions."); ok && strings.HasSuffix(name, ".ghe.com") {
		return "https://" + name
	}
	if issuer.Scheme == "http" || host == "token.actions.githubusercontent.com" {
		return "https://github.com"
	}
	return "https://" + host
}

// Tenant is the repository, by the ids that a new one of the same name would
// not have.
func (github) Tenant(c Claims) (string, error) {
	r := reader{Claims: c}
	owner, repository := r.match("repository_owner_id", shapeNumber), r.match("repository_id", shapeNumber)
	return owner + "/" + repository, r.err
}

// Build has every field from a claim, and the claims must agree with each
// other. A self-hosted runner is accepted only by a builder whose condition
// pins runner_environment to that, since one id stands for one kind of
// isolation.
func (github) Build(c Claims, reg Registered) (*attest.Build, error) {
	g := reader{Claims: c}
	event := g.oneOf("event_name", githubEvents...) // first: other events have other refs, too
	if g.err != nil {
		return nil, g.err
	}
	var (
		repository  = g.match("repository", githubRepository)
		ref         = g.match("ref", shapeRef)
		sha         = g.match("sha", shapeCommit)
		runner      = g.match("runner_environment", shapeValue)
		runID       = g.match("run_id", shapeNumber)
		attempt     = g.match("run_attempt", shapeNumber)
		workflowRef = g.match("workflow_ref", shapeLong)
		jobRef      = g.match("job_workflow_ref", shapeLong)
		internal    = map[string]any{
			"event_name":          event,
			"repository_id":       g.match("repository_id", shapeNumber),
			"repository_owner_id": g.match("repository_owner_id", shapeNumber),
			"runner_environment":  runner,
		}
	)
	for _, name := range []string{"actor_id", "check_run_id", "environment", "repository_owner", "repository_visibility"} {
		if g.Has(name) {
			internal[name] = g.match(name, shapeValue)
		}
	}
	switch {
	case g.err != nil:
		return nil, g.err
	case !githubIsRepository(repository):
		return nil, notABuild("repository: not one that GitHub accepts")
	case !plainRef(ref):
		return nil, notABuild("ref: not one that git accepts")
	}
	if err := checkRunner(runner, "github-hosted", reg.Pins); err != nil {
		return nil, err
	}
	path, err := githubPath(workflowRef, repository, ref)
	if err != nil {
		return nil, err
	}
	// The workflow is of the commit that is built, or the build type could not
	// say which it was.
	if at, _ := c.Text("workflow_sha"); c["workflow_sha"] != nil && at != sha {
		return nil, notABuild("workflow_sha: want sha")
	}

	server := reg.ServerURL
	source := server + "/" + repository
	build := &attest.Build{
		BuildType: attest.GitHubWorkflowType,
		ExternalParameters: map[string]any{
			"workflow": map[string]any{"ref": ref, "repository": source, "path": path},
		},
		InternalParameters: map[string]any{"github": internal},
		Dependencies:       []attest.Resource{gitCommit(source, ref, sha)},
		InvocationID:       source + "/actions/runs/" + runID + "/attempts/" + attempt,
		Origins:            originsOf("/buildDefinition/internalParameters/github", internal),
	}
	maps.Copy(build.Origins, attest.Origins{
		"/buildDefinition/externalParameters/workflow/ref":         attest.FromToken("ref"),
		"/buildDefinition/externalParameters/workflow/repository":  attest.FromToken("repository"),
		"/buildDefinition/externalParameters/workflow/path":        attest.FromToken("workflow_ref", "repository", "ref"),
		"/buildDefinition/resolvedDependencies/0/uri":              attest.FromToken("repository", "ref"),
		"/buildDefinition/resolvedDependencies/0/digest/gitCommit": attest.FromToken("sha"),
		"/runDetails/metadata/invocationId":                        attest.FromToken("repository", "run_id", "run_attempt"),
	})
	if event == "workflow_dispatch" {
		build.Level, build.LevelReason = 2, "the inputs of the run are in no token, and GitHub's API does not say them: event_name is "+event
	}
	if jobRef == workflowRef && c["job_workflow_sha"] == nil {
		return build, nil
	}
	jobSHA := g.match("job_workflow_sha", shapeCommit)
	if g.err != nil {
		return nil, g.err
	}
	reusable, err := githubReusable(server, jobRef, jobSHA)
	if err != nil {
		return nil, err
	}
	if reusable.URI != build.Dependencies[0].URI {
		build.Dependencies = append(build.Dependencies, reusable)
		build.Origins["/buildDefinition/resolvedDependencies/1/uri"] = attest.FromToken("job_workflow_ref")
		build.Origins["/buildDefinition/resolvedDependencies/1/digest/gitCommit"] = attest.FromToken("job_workflow_sha")
	} else if jobSHA != sha {
		// One source at two commits: a reader could believe either.
		return nil, notABuild("job_workflow_sha: want sha, as both are of %s", ref)
	}
	return build, nil
}

// githubPath is the path of a workflow, out of the repository, '@' and ref
// that it must stand between. Path and ref may both have an '@', so nothing is
// split at one.
func githubPath(workflowRef, repository, ref string) (string, error) {
	path, inRepository := strings.CutPrefix(workflowRef, repository+"/")
	path, atRef := strings.CutSuffix(path, "@"+ref)
	if !inRepository || !atRef || !githubWorkflow.MatchString(path) {
		return "", notABuild("workflow_ref: want <repository>/.github/workflows/<file>@<ref>, with repository and ref as claimed")
	}
	return path, nil
}

// githubReusable is the source of a reusable workflow. Neither its repository
// nor its ref are claimed apart, so every '@' is tried; more than one reading
// is as bad as none.
func githubReusable(server, jobRef, sha string) (attest.Resource, error) {
	var found []attest.Resource
	for at, r := range jobRef {
		if r != '@' {
			continue
		}
		left, ref := jobRef[:at], jobRef[at+1:]
		parts := strings.SplitN(left, "/", 3)
		if len(parts) != 3 || !githubWorkflow.MatchString(parts[2]) {
			continue
		}
		repository := parts[0] + "/" + parts[1]
		byCommit := shapeCommit.MatchString(ref)
		if !githubIsRepository(repository) || !byCommit && !plainRef(ref) {
			continue
		}
		if byCommit && ref != sha {
			return attest.Resource{}, notABuild("job_workflow_ref and job_workflow_sha name two commits")
		}
		found = append(found, gitCommit(server+"/"+repository, ref, sha))
	}
	if len(found) != 1 {
		return attest.Resource{}, notABuild("job_workflow_ref: want <owner>/<repository>/.github/workflows/<file>@<ref>, readable in one way")
	}
	return found[0], nil
}

func githubIsRepository(s string) bool {
	return githubRepository.MatchString(s) && !strings.HasSuffix(s, "/.") && !strings.HasSuffix(s, "/..")
}

func gitCommit(repository, ref, sha string) attest.Resource {
	return attest.Resource{URI: "git+" + repository + "@" + ref, Digest: map[string]string{"gitCommit": sha}}
}

var githubFields = slices.Concat([]Field{
	{externalParameters + "workflow/ref", attest.FromToken("ref"), ""},
	{externalParameters + "workflow/repository", attest.FromToken("repository"), ""},
	{externalParameters + "workflow/path", attest.FromToken("workflow_ref", "repository", "ref"), ""},
},
	kept("github", "", "", "event_name", "repository_id", "repository_owner_id", "runner_environment"),
	kept("github", "", whereSaid, "actor_id", "check_run_id", "environment", "repository_owner", "repository_visibility"),
	[]Field{
		askedAPI("conclusion", "run_started_at", "status", "triggering_actor_id"),
		{sourceURI, attest.FromToken("repository", "ref"), ""},
		{sourceCommit, attest.FromToken("sha"), ""},
		{"/buildDefinition/resolvedDependencies/1/uri", attest.FromToken("job_workflow_ref"), "for a reusable workflow"},
		{"/buildDefinition/resolvedDependencies/1/digest/gitCommit", attest.FromToken("job_workflow_sha"), "for a reusable workflow"},
		{invocationID, attest.FromToken("repository", "run_id", "run_attempt"), ""},
	})
