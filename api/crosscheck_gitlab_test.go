// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/api/identity"
)

// The answers to "Retrieve a project", "Get a single job" and "Get a single
// pipeline" (docs.gitlab.com); some members that are for people are left out.
const (
	checkedGitLabProjectAnswer = `{
  "id": 21, "description": null, "name": "App", "name_with_namespace": "Acme / App", "path": "app",
  "path_with_namespace": "acme/app", "created_at": "2013-09-30T13:46:02Z", "default_branch": "main", "visibility": "private",
  "namespace": {"id": 3, "name": "Acme", "path": "acme", "kind": "group", "full_path": "acme", "parent_id": null}
}`
	checkedGitLabJobAnswer = `{
  "commit": {"author_email": "admin@example.com", "author_name": "Administrator", "created_at": "2015-12-24T16:51:14.000+01:00",
    "id": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "message": "Test the CI integration.", "short_id": "aaaaaaaa", "title": "Test the CI integration."},
  "coverage": null, "archived": false, "allow_failure": false, "created_at": "2015-12-24T15:51:21.880Z", "started_at": "2015-12-24T17:54:30.733Z",
  "finished_at": null, "erased_at": null, "duration": 0.465, "queued_duration": 0.010, "artifacts_expire_at": null, "tag_list": ["docker runner"],
  "id": 8, "name": "build",
  "pipeline": {"id": 287, "project_id": 21, "ref": "main", "sha": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "status": "running"},
  "ref": "main", "artifacts": [],
  "runner": {"id": 32, "description": "", "ip_address": null, "active": true, "paused": false, "is_shared": true, "runner_type": "instance_type", "online": true, "status": "online"},
  "stage": "build", "status": "running", "tag": false, "web_url": "https://gitlab.example/acme/app/-/jobs/8",
  "project": {"ci_job_token_scope_enabled": false},
  "user": {"id": 12, "name": "Octo", "username": "octo", "state": "active", "bio": null, "public_email": ""}
}`
	checkedGitLabPipelineAnswer = `{
  "id": 287, "iid": 144, "project_id": 21, "name": "Build pipeline", "sha": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ref": "main",
  "status": "running", "source": "push", "created_at": "2022-09-21T01:05:07.200Z", "updated_at": "2022-09-21T01:05:50.185Z",
  "before_sha": "8a24fb3c5877a6d0b611ca41fc86edc174593e2b", "tag": false, "yaml_errors": null,
  "user": {"id": 12, "username": "octo", "name": "Octo", "state": "active"},
  "started_at": "2022-09-21T01:05:14.197Z", "finished_at": null, "committed_at": null, "duration": 34, "queued_duration": 6, "coverage": null,
  "detailed_status": {"icon": "status_running", "text": "running", "label": "running", "group": "running", "has_details": false}
}`
)

const (
	checkedAPIv4    = "/api/v4/projects/21"
	checkedJob      = "/jobs/8"
	checkedPipeline = "/pipelines/287"
	checkedVarsURL  = "/pipelines/287/variables?per_page=100"
	checkedBranch   = "/repository/branches/main"
)

// checkedGitLabClaims are those of the job above, as GitLab spells them.
func checkedGitLabClaims() map[string]any {
	return map[string]any{
		"namespace_id": "3", "namespace_path": "acme", "project_id": "21", "project_path": "acme/app", "job_project_id": "21",
		"user_id": "12", "user_login": "octo", "user_email": "o@example.com", "pipeline_id": "287", "pipeline_source": "push", "job_id": "8",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true", "sha": strings.Repeat("a", 40),
		"runner_id": 32, "runner_environment": "gitlab-hosted",
	}
}

// checkedAt is the answer about a branch or a tag (docs.gitlab.com: Branches
// API, Tags API).
func checkedAt(name, sha string) map[string]any {
	return map[string]any{"name": name, "merged": false, "protected": true, "commit": map[string]any{"id": sha, "short_id": sha[:8], "parent_ids": []any{}, "title": "x"}}
}

func TestCrossCheckOfGitLab(t *testing.T) {
	api := newCIAPI(t, checkedAPIv4, map[string]any{
		"": shape(t, checkedGitLabProjectAnswer, nil), checkedJob: shape(t, checkedGitLabJobAnswer, nil),
		checkedPipeline: shape(t, checkedGitLabPipelineAnswer, nil), checkedVarsURL: []any{}, checkedBranch: checkedAt("main", commitA),
	})
	got, err := checkedIssuer(t, identity.GitLab, api.URL+"/api/v4", AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, checkedGitLabClaims(), nil))
	checkedWant{level: 3}.hold(t, "a push", got, err)
	if t.Failed() {
		return
	}
	want := []string{
		"job_id", "job_project_id", "namespace_id", "namespace_path", "pipeline_id", "pipeline_source", "project_id", "project_path",
		"ref", "ref_path", "ref_type", "runner_id", "sha", "user_id", "user_login",
	}
	if diff := cmp.Diff(want, got.Confirmed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"status": "running", "pipeline_status": "running", "started_at": "2015-12-24T17:54:30Z"}, got.Facts); diff != "" {
		t.Error(diff)
	}
}

func TestCrossChecksOfGitLab(t *testing.T) {
	merge := func(head string) string {
		return "/repository/merge_base?" + url.Values{"refs[]": {head, commitA}}.Encode()
	}
	type m = map[string]any
	onTag := m{"ref": "v1", "ref_type": "tag", "ref_path": "refs/tags/v1"}
	tagJob, tagPipeline := m{"ref": "v1", "tag": true}, m{"ref": "v1", "tag": true}
	variable := func(key string) m { return m{"key": key, "variable_type": "env_var", "value": "hunter2"} }
	many := make([]any, 40)
	for n := range many {
		many[n] = variable("V" + strings.Repeat("X", n))
	}
	for name, c := range map[string]struct {
		project, job, pipeline, claims m // changes
		answers                        m // instead
		want                           checkedWant
	}{
		"succeeded":          {job: m{"status": "success"}, pipeline: m{"status": "success"}, want: checkedWant{level: 3}},
		"a runner not shown": {job: m{"runner": nil}, want: checkedWant{level: 3}},

		"the job failed":            {job: m{"status": "failed"}, want: checkedWant{problem: "the job has not succeeded", level: 1}},
		"the job was cancelled":     {job: m{"status": "canceled"}, want: checkedWant{problem: "the job has not succeeded", level: 1}},
		"the job has not begun":     {job: m{"status": "pending"}, want: checkedWant{problem: "that the job runs", level: 2}},
		"the job has no status":     {job: m{"status": nil}, want: checkedWant{problem: "that the job runs", level: 2}},
		"the pipeline failed":       {pipeline: m{"status": "failed"}, want: checkedWant{problem: "the pipeline has not succeeded", level: 1}},
		"without user":              {job: m{"user": nil}, want: checkedWant{problem: "does not say user_id", level: 2}},
		"without tag":               {job: m{"tag": nil}, want: checkedWant{problem: "does not say ref_type", level: 2}},
		"without source":            {pipeline: m{"source": nil}, want: checkedWant{problem: "does not say pipeline_source", level: 2}},
		"started by hand":           {pipeline: m{"source": "web"}, claims: m{"pipeline_source": "web"}, want: checkedWant{problem: "does not say the pipeline's inputs", level: 2}},
		"on a schedule":             {pipeline: m{"source": "schedule"}, claims: m{"pipeline_source": "schedule"}, want: checkedWant{problem: "does not say the pipeline's inputs", level: 2}},
		"with variables":            {answers: m{checkedVarsURL: []any{variable("foo"), variable("DEPLOY_TO")}}, want: checkedWant{problem: "the pipeline has variables", level: 2}},
		"with many variables":       {answers: m{checkedVarsURL: many}, want: checkedWant{problem: "the pipeline has variables", level: 2}},
		"with odd variables":        {answers: m{checkedVarsURL: []any{variable("a\x1b[2J")}}, want: checkedWant{problem: "variables is not understood", level: 2}},
		"variables are not shown":   {answers: m{checkedVarsURL: 403}, want: checkedWant{problem: "does not show the pipeline's variables", level: 2}},
		"variables are not there":   {answers: m{checkedVarsURL: 404}, want: checkedWant{problem: "does not show the pipeline's variables", level: 2}},
		"both unknown":              {answers: m{checkedVarsURL: 500, checkedBranch: 500}, want: checkedWant{problem: "the API fails; the API fails", level: 2}},
		"unknown, and not on it":    {answers: m{checkedVarsURL: 500, checkedBranch: 404}, want: checkedWant{problem: "the API fails; the API says that the ref is not there", level: 1}},
		"the project is not shown":  {answers: m{"": 404}, want: checkedWant{problem: "does not show the run", level: 2}},
		"the job cannot be told":    {answers: m{checkedJob: 500}, want: checkedWant{problem: "fails", level: 2}},
		"the pipeline cannot":       {answers: m{checkedPipeline: 429}, want: checkedWant{problem: "rate limit", level: 2}},
		"the branch cannot be told": {answers: m{checkedBranch: 403}, want: checkedWant{problem: "does not show the branch", level: 2}},

		"no such job":            {answers: m{checkedJob: 404}, want: checkedWant{denied: "there is no such job"}},
		"no such pipeline":       {answers: m{checkedPipeline: 404}, want: checkedWant{denied: "there is no such pipeline"}},
		"another project":        {project: m{"id": 22}, want: checkedWant{denied: "another project_id"}},
		"a project that moved":   {project: m{"path_with_namespace": "acme/app2"}, want: checkedWant{denied: "another project_path"}},
		"a group made anew":      {project: m{"namespace.id": 4}, want: checkedWant{denied: "another namespace_id"}},
		"another job":            {job: m{"id": 9}, want: checkedWant{denied: "another job_id"}},
		"a job of another":       {job: m{"pipeline.project_id": 22}, want: checkedWant{denied: "another project_id"}},
		"another pipeline":       {job: m{"pipeline.id": 288}, want: checkedWant{denied: "another pipeline_id"}},
		"another commit":         {job: m{"commit.id": commitB}, want: checkedWant{denied: "another sha"}},
		"a pipeline of another":  {pipeline: m{"sha": commitB}, want: checkedWant{denied: "another sha"}},
		"another branch":         {job: m{"ref": "dev"}, want: checkedWant{denied: "another ref"}},
		"another source":         {pipeline: m{"source": "merge_request_event"}, want: checkedWant{denied: "another pipeline_source"}},
		"another user":           {job: m{"user.id": 13}, want: checkedWant{denied: "another user_id"}},
		"another runner":         {job: m{"runner.id": 33}, want: checkedWant{denied: "another runner_id"}},
		"a tag of that name":     {job: m{"tag": true}, want: checkedWant{denied: "another ref_type"}},
		"a fork's merge request": {claims: m{"job_project_id": "22"}, want: checkedWant{denied: "another job_project_id"}},

		"earlier on the branch":    {answers: m{checkedBranch: checkedAt("main", commitC), merge(commitC): m{"id": commitA}}, want: checkedWant{level: 3}},
		"beside the branch":        {answers: m{checkedBranch: checkedAt("main", commitC), merge(commitC): m{"id": commitB}}, want: checkedWant{problem: "not on the branch", level: 1}},
		"of no common history":     {answers: m{checkedBranch: checkedAt("main", commitC)}, want: checkedWant{problem: "not on the branch", level: 1}},
		"of no commit there":       {answers: m{checkedBranch: checkedAt("main", commitC), merge(commitC): 400}, want: checkedWant{problem: "not on the branch", level: 1}},
		"no comparison":            {answers: m{checkedBranch: checkedAt("main", commitC), merge(commitC): 500}, want: checkedWant{problem: "fails", level: 2}},
		"a branch of another name": {answers: m{checkedBranch: checkedAt("Main", commitA)}, want: checkedWant{problem: "about the branch is not understood", level: 2}},
		"a tag":                    {job: tagJob, pipeline: tagPipeline, claims: onTag, answers: m{"/repository/tags/v1": checkedAt("v1", commitA)}, want: checkedWant{level: 3}},
		"a tag that moved":         {job: tagJob, pipeline: tagPipeline, claims: onTag, answers: m{"/repository/tags/v1": checkedAt("v1", commitB)}, want: checkedWant{problem: "the tag is at another commit", level: 1}},
		"a tag that is gone":       {job: tagJob, pipeline: tagPipeline, claims: onTag, answers: m{"/repository/branches/v1": checkedAt("v1", commitA)}, want: checkedWant{problem: "the ref is not there", level: 1}},

		"a project by its path": {claims: m{"project_id": "acme/app"}, want: checkedWant{denied: "project_id is none"}},
		"no job":                {claims: m{"job_id": nil}, want: checkedWant{denied: "job_id is missing"}},
		"two refs":              {claims: m{"ref_path": "refs/heads/dev"}, want: checkedWant{denied: "on no branch or tag"}},
		"a merge request":       {claims: m{"ref_path": "refs/merge-requests/1/head"}, want: checkedWant{denied: "on no branch or tag"}},
	} {
		answers := m{
			"": shape(t, checkedGitLabProjectAnswer, c.project), checkedJob: shape(t, checkedGitLabJobAnswer, c.job),
			checkedPipeline: shape(t, checkedGitLabPipelineAnswer, c.pipeline), checkedVarsURL: []any{}, checkedBranch: checkedAt("main", commitA),
		}
		for path, answer := range c.answers {
			answers[path] = answer
		}
		api := newCIAPI(t, checkedAPIv4, answers)
		got, err := checkedIssuer(t, identity.GitLab, api.URL+"/api/v4", AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, checkedGitLabClaims(), c.claims))
		c.want.hold(t, name, got, err)
		if got == nil {
			if strings.Contains(c.want.denied, "is none") && len(api.asked) > 0 {
				t.Errorf("%s: asked %q", name, api.asked)
			}
			continue
		}
		if got.Level < 3 && strings.Contains(got.Problem, "the branch") && slices.Contains(got.Confirmed, "ref_path") {
			t.Errorf("%s: the ref is confirmed, and %s", name, got.Problem)
		}
		if words := got.Facts["variables"] + got.Problem; strings.Contains(words, "hunter2") || len(words) > 4096 {
			t.Errorf("%s: says %s", name, words)
		}
		if name == "with variables" && got.Facts["variables"] != "DEPLOY_TO, foo" {
			t.Errorf("variables %q", got.Facts["variables"])
		}
	}
}

// A branch is one part of the path, whatever is in it.
func TestCrossCheckEscapesGitLabRefs(t *testing.T) {
	for branch, path := range map[string]string{
		"feature/x":   "feature%2Fx",
		"a#b":         "a%23b",
		"a%2fb":       "a%252fb",
		"a@b":         "a@b",
		"a?b=c":       "a%3Fb=c",
		"a/../../b":   "a%2F..%2F..%2Fb",
		"a/b/commits": "a%2Fb%2Fcommits",
		"..":          "",
		".":           "",
	} {
		change := map[string]any{"ref": branch}
		answers := map[string]any{
			"": shape(t, checkedGitLabProjectAnswer, nil), checkedJob: shape(t, checkedGitLabJobAnswer, change),
			checkedPipeline: shape(t, checkedGitLabPipelineAnswer, change), checkedVarsURL: []any{},
		}
		want := checkedWant{problem: "cannot be asked for the branch", level: 2}
		if path != "" {
			want = checkedWant{level: 3}
			answers["/repository/branches/"+path] = checkedAt(branch, commitA)
		}
		api := newCIAPI(t, checkedAPIv4, answers)
		got, err := checkedIssuer(t, identity.GitLab, api.URL+"/api/v4", AuthOptions{}).crossCheck(t.Context(),
			checkedClaims(t, checkedGitLabClaims(), map[string]any{"ref": branch, "ref_path": "refs/heads/" + branch}))
		want.hold(t, branch, got, err)
	}
}
