// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"provost/api/identity"
)

// checkedGitLabHeader sets what GitLab's REST API wants (docs.gitlab.com: REST
// API authentication).
func checkedGitLabHeader(h http.Header, secret string) {
	h.Set("Accept", "application/json")
	h.Set("User-Agent", "provost")
	h.Set("PRIVATE-TOKEN", secret)
}

// A checkedGitLabProject is the answer to "Retrieve a project".
type checkedGitLabProject struct {
	ID        int64  `json:"id"`
	Path      string `json:"path_with_namespace"`
	Namespace struct {
		ID   int64  `json:"id"`
		Path string `json:"full_path"`
	} `json:"namespace"`
}

// A checkedGitLabJob is the answer to "Get a single job".
type checkedGitLabJob struct {
	ID        int64           `json:"id"`
	Status    string          `json:"status"`
	Ref       string          `json:"ref"`
	Tag       *bool           `json:"tag"`
	StartedAt string          `json:"started_at"`
	Commit    checkedGitLabID `json:"commit"`
	Pipeline  struct {
		ID        int64 `json:"id"`
		ProjectID int64 `json:"project_id"`
	} `json:"pipeline"`
	User struct {
		ID    int64  `json:"id"`
		Login string `json:"username"`
	} `json:"user"`
	Runner struct {
		ID int64 `json:"id"`
	} `json:"runner"` // null for some
}

type checkedGitLabID struct {
	ID string `json:"id"`
}

// A checkedGitLabPipeline is the answer to "Get a single pipeline".
type checkedGitLabPipeline struct {
	ID        int64  `json:"id"`
	ProjectID int64  `json:"project_id"`
	SHA       string `json:"sha"`
	Ref       string `json:"ref"`
	Status    string `json:"status"`
	Source    string `json:"source"`
}

// checkedEnded are the states of jobs and pipelines that say that what they
// made is not to be trusted.
var checkedEnded = []string{"failed", "canceled", "canceling", "skipped"}

// checkGitLab asks for the project, the job and the pipeline that the token
// names, by their ids, and whether the commit is on the ref.
func checkGitLab(ctx context.Context, r *checkedRun) error {
	if !r.needs("project_id", "job_id", "pipeline_id", "pipeline_source", "sha", "ref", "ref_type", "ref_path", "user_id") {
		return nil
	}
	project := []string{"projects", r.claim("project_id")}
	if strings.Trim(project[1], "0123456789") != "" { // closed: a project also goes by its path, which others can take over
		r.contradict("its project_id is none")
		return nil
	}
	var of checkedGitLabProject
	if err := r.get(ctx, &of, checkedQuestion{"the project", project, ""}); err != nil {
		return err
	}
	r.sameID("project_id", of.ID)
	r.same("project_path", of.Path)
	r.sameID("namespace_id", of.Namespace.ID)
	r.same("namespace_path", of.Namespace.Path)

	var job checkedGitLabJob
	switch err := r.get(ctx, &job, checkedQuestion{"the job", slices.Concat(project, []string{"jobs", r.claim("job_id")}), ""}); {
	case err == errCheckedMissing: // the project was shown, so its jobs would be
		r.contradict("there is no such job")
		return nil
	case err != nil:
		return err
	}
	r.gitlabJob(job)

	var pipeline checkedGitLabPipeline
	switch err := r.get(ctx, &pipeline, checkedQuestion{"the pipeline", slices.Concat(project, []string{"pipelines", r.claim("pipeline_id")}), ""}); {
	case err == errCheckedMissing:
		r.contradict("there is no such pipeline")
		return nil
	case err != nil:
		return err
	}
	r.sameID("pipeline_id", pipeline.ID)
	r.sameID("project_id", pipeline.ProjectID)
	r.same("sha", pipeline.SHA)
	r.same("ref", pipeline.Ref)
	r.same("pipeline_source", pipeline.Source)
	r.learn("pipeline_status", pipeline.Status)
	if slices.Contains(checkedEnded, pipeline.Status) {
		r.problem(identity.LevelRefuted, "the API says that the pipeline has not succeeded")
	}
	if r.denied != nil {
		return nil
	}
	r.fault(r.gitlabInputs(ctx, project, pipeline.Source))
	return r.gitlabRef(ctx, project)
}

// gitlabJob holds the job against the token.
func (r *checkedRun) gitlabJob(job checkedGitLabJob) {
	r.sameID("job_id", job.ID)
	r.sameID("pipeline_id", job.Pipeline.ID)
	r.sameID("project_id", job.Pipeline.ProjectID)
	r.sameID("job_project_id", job.Pipeline.ProjectID)
	r.same("sha", job.Commit.ID)
	r.same("ref", job.Ref)
	r.sameID("user_id", job.User.ID)
	r.same("user_login", job.User.Login)
	if job.Runner.ID > 0 { // the answer may leave it out
		r.sameID("runner_id", job.Runner.ID)
	}
	kind := ""
	if job.Tag != nil {
		kind = checkedRefType(*job.Tag)
	}
	r.same("ref_type", kind)
	r.learn("status", job.Status)
	r.learnTime("started_at", job.StartedAt)
	switch {
	case slices.Contains(checkedEnded, job.Status):
		r.problem(identity.LevelRefuted, "the API says that the job has not succeeded")
	case job.Status != "running" && job.Status != "success": // it has not begun, or is no word of GitLab's
		r.problem(identity.LevelUnconfirmed, "the API does not say that the job runs")
	}
}

// checkedVariable is the shape of a variable's name.
var checkedVariable = regexp.MustCompile(`^[A-Za-z0-9_]{1,255}$`)

// checkedVariables is how many names of variables are kept.
const checkedVariables = 32

// gitlabInputs asks for what a person or a program added when the pipeline was
// started. Names of variables are kept, values never: some are secrets, and a
// hash of a short one tells it. So with any the external parameters are not
// complete.
//
// Nothing says the inputs of a pipeline (spec:inputs), nor the variables of its
// schedule. What a push started has none, but where the configuration declares
// inputs: git push -o ci.input=….
func (r *checkedRun) gitlabInputs(ctx context.Context, project []string, source string) error {
	if source != "push" {
		r.problem(identity.LevelUnconfirmed, "the API does not say the pipeline's inputs")
	}
	var variables []struct {
		Key string `json:"key"`
	}
	err := r.get(ctx, &variables, checkedQuestion{"the pipeline's variables", slices.Concat(project, []string{"pipelines", r.claim("pipeline_id"), "variables"}), "per_page=100"})
	switch {
	case err == errCheckedMissing:
		return checkedFault("the API does not show the pipeline's variables to the service's token")
	case err != nil:
		return err
	case len(variables) == 0:
		return nil
	}
	var names []string
	for _, v := range variables {
		if !checkedVariable.MatchString(v.Key) {
			return checkedUnclear("the pipeline's variables")
		}
		names = append(names, v.Key)
	}
	slices.Sort(names)
	if len(names) > checkedVariables {
		names = append(names[:checkedVariables], "…")
	}
	r.Facts["variables"] = strings.Join(names, ", ")
	r.problem(identity.LevelUnconfirmed, "the pipeline has variables, which are not among its parameters")
	return nil
}

// gitlabRef asks whether the commit is on the ref: on a branch it must be the
// newest or one before that, a tag must point to it.
func (r *checkedRun) gitlabRef(ctx context.Context, project []string) error {
	sha := r.claim("sha")
	name, tag, ok := checkedRef(r.claim("ref_path"))
	if !ok || name != r.claim("ref") || checkedRefType(tag) != r.claim("ref_type") || !checkedCommit(sha) { // closed
		r.contradict("its commit is on no branch or tag")
		return nil
	}
	places, what := "branches", "the branch"
	if tag {
		places, what = "tags", "the tag"
	}
	var at struct {
		Name   string          `json:"name"`
		Commit checkedGitLabID `json:"commit"` // of an annotated tag, too
	}
	switch err := r.get(ctx, &at, checkedQuestion{what, slices.Concat(project, []string{"repository", places, name}), ""}); {
	case err == errCheckedMissing:
		r.problem(identity.LevelRefuted, "the API says that the ref is not there")
		return nil
	case err != nil:
		return err
	case at.Name != name || !checkedCommit(at.Commit.ID):
		return checkedUnclear(what)
	}
	switch {
	case at.Commit.ID == sha:
		r.confirm("ref_path")
		return nil
	case tag:
		r.problem(identity.LevelRefuted, "the API says that the tag is at another commit")
		return nil
	}
	var base checkedGitLabID
	query := url.Values{"refs[]": {at.Commit.ID, sha}}.Encode()
	switch err := r.get(ctx, &base, checkedQuestion{"the branch", slices.Concat(project, []string{"repository", "merge_base"}), query}); {
	// 404: they have no common ancestor; 400: the repository has no such commit.
	case err == errCheckedMissing || err == errCheckedRefused || err == nil && base.ID != sha:
		r.problem(identity.LevelRefuted, "the API says that the commit is not on the branch")
	case err != nil:
		return err
	default:
		r.confirm("ref_path")
	}
	return nil
}
