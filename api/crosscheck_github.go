// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"provost/api/identity"
)

// checkedGitHubHeader sets what GitHub's REST API wants (docs.github.com: REST
// API, Getting started).
func checkedGitHubHeader(h http.Header, secret string) {
	h.Set("Accept", "application/vnd.github+json")
	h.Set("X-GitHub-Api-Version", "2022-11-28")
	h.Set("User-Agent", "provost")
	h.Set("Authorization", "Bearer "+secret)
}

// A checkedGitHubRun is the answer to "Get a workflow run attempt".
type checkedGitHubRun struct {
	ID         int64               `json:"id"`
	RunNumber  int64               `json:"run_number"`
	RunAttempt int64               `json:"run_attempt"`
	HeadSHA    string              `json:"head_sha"`
	HeadBranch string              `json:"head_branch"` // of a tag, its name
	Event      string              `json:"event"`
	Path       string              `json:"path"` // of the workflow, perhaps with '@' and a ref
	Status     string              `json:"status"`
	Conclusion string              `json:"conclusion"` // null until it is completed
	StartedAt  string              `json:"run_started_at"`
	Repository checkedGitHubSource `json:"repository"`
	Actor      checkedGitHubUser   `json:"actor"`
	Trigger    checkedGitHubUser   `json:"triggering_actor"` // of a re-run, who asked for that
	Referenced []struct {
		Path string `json:"path"` // owner/repository/path@ref
		SHA  string `json:"sha"`
		Ref  string `json:"ref"` // in full; not for one named by its commit
	} `json:"referenced_workflows"`
}

type checkedGitHubSource struct {
	ID       int64             `json:"id"`
	FullName string            `json:"full_name"`
	Owner    checkedGitHubUser `json:"owner"`
}

type checkedGitHubUser struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
}

// checkGitHub asks for the attempt of the run that the token names, and whether
// its commit is on the ref. The API addresses repositories by name, so the id in
// the answer is what says whether it is still the same one.
func checkGitHub(ctx context.Context, r *checkedRun) error {
	if !r.needs("repository", "repository_id", "repository_owner_id", "run_id", "run_attempt", "sha", "ref", "event_name", "workflow_ref", "job_workflow_ref") {
		return nil
	}
	owner, name, _ := strings.Cut(r.claim("repository"), "/")
	repo := []string{"repos", owner, name}
	var run checkedGitHubRun
	err := r.get(ctx, &run, checkedQuestion{"the run", slices.Concat(repo, []string{"actions", "runs", r.claim("run_id"), "attempts", r.claim("run_attempt")}), "exclude_pull_requests=true"})
	if err == errCheckedMissing {
		// Whoever may not see a repository is told the same as of a run that is
		// not there.
		var source checkedGitHubSource
		if err := r.get(ctx, &source, checkedQuestion{"the repository", repo, ""}); err != nil {
			return err
		}
		r.sameID("repository_id", source.ID)
		r.contradict("there is no such run")
		return nil
	}
	if err != nil {
		return err
	}
	r.sameID("run_id", run.ID)
	r.sameID("run_attempt", run.RunAttempt)
	r.sameID("run_number", run.RunNumber)
	r.sameID("repository_id", run.Repository.ID)
	r.sameID("repository_owner_id", run.Repository.Owner.ID)
	r.same("repository", run.Repository.FullName)
	r.same("repository_owner", run.Repository.Owner.Login)
	r.same("sha", run.HeadSHA)
	r.same("event_name", run.Event)
	r.sameID("actor_id", run.Actor.ID)
	r.same("actor", run.Actor.Login)
	r.githubWorkflows(run)

	r.learn("status", run.Status)
	r.learn("conclusion", run.Conclusion)
	r.learnTime("run_started_at", run.StartedAt)
	if run.Trigger.ID > 0 {
		r.Facts["triggering_actor_id"] = strconv.FormatInt(run.Trigger.ID, 10)
	}
	switch {
	case !checkedWord(run.Status):
		r.problem(identity.LevelUnconfirmed, "the API does not say how the run fares")
	case run.Status == "completed" && run.Conclusion != "success": // failure, cancelled, timed_out …
		r.problem(identity.LevelRefuted, "the API says that the run has not succeeded")
	}
	if run.Event == "workflow_dispatch" {
		r.problem(identity.LevelUnconfirmed, "the API does not say the run's inputs")
	}
	if r.denied != nil {
		return nil
	}
	return r.githubRef(ctx, repo, run.HeadBranch)
}

// githubWorkflows holds the run's workflow, and the reusable one that the job is
// of, against the token's.
func (r *checkedRun) githubWorkflows(run checkedGitHubRun) {
	ref, workflow, job := r.claim("ref"), r.claim("workflow_ref"), r.claim("job_workflow_ref")
	path, inRepository := strings.CutPrefix(workflow, r.claim("repository")+"/")
	path, atRef := strings.CutSuffix(path, "@"+ref)
	short, _, _ := checkedRef(ref)
	switch {
	case run.Path == "":
		r.problem(identity.LevelUnconfirmed, "the API does not say workflow_ref")
	case !inRepository || !atRef || run.Path != path && run.Path != path+"@"+ref && run.Path != path+"@"+short:
		r.contradict("another workflow_ref")
		return
	default:
		r.confirm("workflow_ref")
	}
	if sha := r.claim("workflow_sha"); sha != "" && sha == run.HeadSHA {
		r.confirm("workflow_sha")
	}
	if job == workflow {
		if run.Path != "" {
			r.confirm("job_workflow_ref")
		}
		if sha := r.claim("job_workflow_sha"); sha != "" && sha == run.HeadSHA {
			r.confirm("job_workflow_sha")
		}
		return
	}
	for _, w := range run.Referenced {
		full := w.Path
		if short, _, ok := checkedRef(w.Ref); ok {
			if path, ok := strings.CutSuffix(w.Path, "@"+short); ok {
				full = path + "@" + w.Ref
			}
		}
		if w.SHA != "" && w.SHA == r.claim("job_workflow_sha") && (w.Path == job || full == job) {
			r.confirm("job_workflow_ref", "job_workflow_sha")
			return
		}
	}
	r.problem(identity.LevelUnconfirmed, "the API does not list the reusable workflow")
}

// A checkedGitObject is what a ref or a tag points to.
type checkedGitObject struct {
	Ref    string `json:"ref"`
	Object struct {
		Type string `json:"type"`
		SHA  string `json:"sha"`
	} `json:"object"`
}

// checkedTags is how many tags of tags are followed.
const checkedTags = 4

// githubRef asks whether the commit is on the ref: on a branch it must be the
// newest or one before that, a tag must point to it. The ref is asked for in
// full, since a short name can be that of a branch and of a tag.
func (r *checkedRun) githubRef(ctx context.Context, repo []string, headBranch string) error {
	ref, sha := r.claim("ref"), r.claim("sha")
	name, tag, ok := checkedRef(ref)
	if !ok || !checkedCommit(sha) { // closed
		r.contradict("its commit is on no branch or tag")
		return nil
	}
	switch headBranch {
	case name:
	case "":
		r.problem(identity.LevelUnconfirmed, "the API does not say ref")
		return nil
	default:
		r.contradict("another ref")
		return nil
	}
	at, err := r.githubCommit(ctx, repo, ref)
	switch {
	case err == errCheckedMissing:
		r.problem(identity.LevelRefuted, "the API says that the ref is not there")
		return nil
	case err != nil:
		return err
	case at == sha:
		r.githubConfirmRef(tag)
		return nil
	case tag:
		r.problem(identity.LevelRefuted, "the API says that the tag is at another commit")
		return nil
	}
	// "When using paging, the list of changed files is only returned with page
	// 1": the second page has what is asked for, and is small.
	var compared struct {
		Status string `json:"status"`
	}
	err = r.get(ctx, &compared, checkedQuestion{"the branch", slices.Concat(repo, []string{"compare", at + "..." + sha}), "per_page=1&page=2"})
	switch {
	case err == errCheckedMissing || err == nil && (compared.Status == "ahead" || compared.Status == "diverged"):
		r.problem(identity.LevelRefuted, "the API says that the commit is not on the branch")
	case err != nil:
		return err
	case compared.Status == "behind" || compared.Status == "identical":
		r.githubConfirmRef(tag)
	default:
		return checkedUnclear("the branch")
	}
	return nil
}

func (r *checkedRun) githubConfirmRef(tag bool) {
	r.confirm("ref")
	r.same("ref_type", checkedRefType(tag))
}

// githubCommit is the commit that a full ref is at.
func (r *checkedRun) githubCommit(ctx context.Context, repo []string, ref string) (string, error) {
	var at checkedGitObject
	if err := r.get(ctx, &at, checkedQuestion{"the ref", slices.Concat(repo, []string{"git", "ref"}, strings.Split(ref, "/")[1:]), ""}); err != nil {
		return "", err
	}
	if at.Ref != ref { // a ref that begins like it was the answer once
		return "", checkedUnclear("the ref")
	}
	for n := 0; at.Object.Type == "tag" && checkedCommit(at.Object.SHA) && n < checkedTags; n++ {
		var next checkedGitObject
		if err := r.get(ctx, &next, checkedQuestion{"the tag", slices.Concat(repo, []string{"git", "tags", at.Object.SHA}), ""}); err != nil {
			return "", checkedFault("the API does not say the tag's commit")
		}
		at = next
	}
	if at.Object.Type != "commit" || !checkedCommit(at.Object.SHA) {
		return "", checkedUnclear("the ref")
	}
	return at.Object.SHA, nil
}
