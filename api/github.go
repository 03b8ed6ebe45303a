// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"provost/attest"
)

// githubEvents are those whose workflow and source are what the ref names
// (actions.github.io/buildtypes/workflow/v1: with any other event the build
// type must not be used). A pull request would run code that nobody accepted.
var githubEvents = []string{"create", "release", "push", "workflow_dispatch"}

// Shapes of claims. Refs follow git-check-ref-format; beyond it they exclude
// nothing, so '@', '#' and '/' stand where git allows them.
var (
	githubRepository = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}$`)
	githubRef        = regexp.MustCompile(`^refs/(heads|tags)/[^ ~^:?*\[\\]{1,500}$`)
	githubCommit     = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	githubNumber     = regexp.MustCompile(`^[1-9][0-9]{0,19}$`)
	// A workflow is a file that stands directly in this directory, so a
	// workflow's path has no '/' where its ref begins.
	githubWorkflow = regexp.MustCompile(`^\.github/workflows/[^/]{1,250}\.ya?ml$`)
	githubValue    = regexp.MustCompile(`^.{1,255}$`)
	githubJob      = regexp.MustCompile(`^.{1,999}$`) // repository, path and ref
)

// githubBuild is the build that the verified claims of a GitHub Actions token
// speak of (docs.github.com: OpenID Connect reference; the build type is
// [attest.GitHubWorkflowType]). Every field of it comes from a claim, and the
// claims must agree with each other; sub is never read, as its format is
// anybody's choice. What is missing, malformed or contradictory is an
// [attest.ErrDenied]: the token is good, but speaks for no build that could be
// attested.
func githubBuild(c claims, server string, rule Rule) (*attest.Build, error) {
	g := githubClaims{claims: c}
	event := g.match("event_name", githubValue)
	if g.err == nil && !slices.Contains(githubEvents, event) { // first: other events have other refs, too
		return nil, notABuild("event_name is %q: builds of %s are attested", event, strings.Join(githubEvents, ", "))
	}
	var (
		repository  = g.match("repository", githubRepository)
		ref         = g.match("ref", githubRef)
		sha         = g.match("sha", githubCommit)
		runner      = g.match("runner_environment", githubValue)
		runID       = g.match("run_id", githubNumber)
		attempt     = g.match("run_attempt", githubNumber)
		workflowRef = g.match("workflow_ref", githubJob)
		jobRef      = g.match("job_workflow_ref", githubJob)
		internal    = map[string]any{
			"event_name":          event,
			"repository_id":       g.match("repository_id", githubNumber),
			"repository_owner_id": g.match("repository_owner_id", githubNumber),
			"runner_environment":  runner,
		}
	)
	for _, name := range []string{"actor_id", "check_run_id", "environment", "repository_owner", "repository_visibility"} {
		if value := string(c[name]); value != "" && value != "null" && value != `""` {
			internal[name] = g.match(name, githubValue)
		}
	}
	switch {
	case g.err != nil:
		return nil, g.err
	case !githubIsRepository(repository):
		return nil, notABuild("repository: not one that GitHub accepts")
	case !githubPlainRef(ref):
		return nil, notABuild("ref: not one that git accepts")
	case runner != "github-hosted" && runner != "self-hosted":
		return nil, notABuild("runner_environment is %q: want github-hosted or self-hosted", runner)
	case runner == "self-hosted" && rule.Claims["runner_environment"] != runner:
		return nil, notABuild("the runner is self-hosted, and the builder's rule does not pin runner_environment to that")
	}
	path, err := githubPath(workflowRef, repository, ref)
	if err != nil {
		return nil, err
	}
	// The workflow is of the commit that is built, or the build type could not
	// say which it was.
	if at, _ := c.text("workflow_sha"); c["workflow_sha"] != nil && at != sha {
		return nil, notABuild("workflow_sha: want sha")
	}

	source := server + "/" + repository
	build := &attest.Build{
		BuilderID: builderID(rule, server, jobRef),
		BuildType: attest.GitHubWorkflowType,
		ExternalParameters: map[string]any{
			"workflow": map[string]any{"ref": ref, "repository": source, "path": path},
		},
		InternalParameters: map[string]any{"github": internal},
		Dependencies:       []attest.Resource{gitCommit(source, ref, sha)},
		InvocationID:       source + "/actions/runs/" + runID + "/attempts/" + attempt,
	}
	if jobRef == workflowRef && c["job_workflow_sha"] == nil {
		return build, nil
	}
	jobSHA := g.match("job_workflow_sha", githubCommit)
	if g.err != nil {
		return nil, g.err
	}
	reusable, err := githubReusable(server, jobRef, jobSHA)
	if err != nil {
		return nil, err
	}
	if reusable.URI != build.Dependencies[0].URI {
		build.Dependencies = append(build.Dependencies, reusable)
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
		byCommit := githubCommit.MatchString(ref)
		if !githubIsRepository(repository) || !byCommit && !githubPlainRef(ref) {
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

// githubPlainRef reports whether a ref is a full one that git would accept
// (git-check-ref-format): no part of it can be taken for a path or a revision.
func githubPlainRef(ref string) bool {
	if !githubRef.MatchString(ref) || strings.Contains(ref, "..") || strings.Contains(ref, "@{") ||
		strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".") {
		return false
	}
	for _, part := range strings.Split(ref, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

func githubIsRepository(s string) bool {
	return githubRepository.MatchString(s) && !strings.HasSuffix(s, "/.") && !strings.HasSuffix(s, "/..")
}

func gitCommit(repository, ref, sha string) attest.Resource {
	return attest.Resource{URI: "git+" + repository + "@" + ref, Digest: map[string]string{"gitCommit": sha}}
}

// githubClaims reads claims and keeps the first thing that is wrong with them.
// Their values end on terminals and in logs, so all must be printable.
type githubClaims struct {
	claims
	err error
}

func (g *githubClaims) match(name string, shape *regexp.Regexp) string {
	value, ok := g.text(name)
	printable := !strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) })
	if g.err == nil && !(ok && printable && shape.MatchString(value)) {
		g.err = notABuild("claim %s is missing or malformed", name)
	}
	return value
}

func notABuild(format string, args ...any) error {
	return fmt.Errorf("%w: the token speaks for no build that can be attested: "+format, append([]any{attest.ErrDenied}, args...)...)
}
