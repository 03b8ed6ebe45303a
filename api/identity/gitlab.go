// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// gitlabSources start a pipeline that is of the ref that the token names, at a
// commit of it. A merge request's is not: its project is the one it comes
// from, its ref the source branch, and its commit may be a merge of both.
var gitlabSources = []string{"push", "schedule", "web", "api", "trigger", "pipeline", gitlabChild}

// gitlabChild starts a child pipeline. A child of a merge request's pipeline
// is of the merge request, too, and has no claim that says so.
const gitlabChild = "parent_pipeline"

// gitlabConfiguration is the path of a pipeline's definition.
var gitlabConfiguration = regexp.MustCompile(`^[^/ ][^ ]{0,499}$`)

// gitlab is GitLab CI/CD, gitlab.com or an instance of one's own
// (docs.gitlab.com/ci/secrets/id_token_authentication).
type gitlab struct{}

// Rules: GitLab makes a job's token when the job starts, so one that is used at
// the job's end is as old as the job.
func (gitlab) Rules() Rules {
	return Rules{
		MaxLevel: 3, Unchecked: 2,
		MaxAge: 2 * time.Hour, Workload: true,
		Immutable: []string{"project_id", "namespace_id", "job_project_id", "job_namespace_id"},
		Owners:    []string{"project_path", "namespace_path", "job_project_path", "job_namespace_path"},
		BuildType: attest.GitLabJob,
		Fields:    gitlabFields,
	}
}

// CheckIssuer accepts the URL of any instance, as the instance itself writes it.
func (gitlab) CheckIssuer(u *url.URL) error {
	if u.Scheme == "http" || u.Host == strings.ToLower(u.Host) && !strings.HasSuffix(u.String(), "/") {
		return nil
	}
	return errors.New("want the instance's URL, such as https://gitlab.com, in lower case and without a slash at the end")
}

// Tenant is the project, by the ids that a new one of the same name would not
// have.
func (gitlab) Tenant(c Claims) (string, error) {
	r := reader{Claims: c}
	namespace, project := r.match("namespace_id", shapeNumber), r.match("project_id", shapeNumber)
	if r.err == nil {
		r.err = gitlabOneProject(c)
	}
	return namespace + "/" + project, r.err
}

// gitlabOneProject refuses a job of one project that speaks for another: in a
// fork's merge request project_id is the fork's, and job_project_id that of the
// project whose runners and variables the job has. Instances before 18.4 have
// the former alone.
func gitlabOneProject(c Claims) error {
	for _, name := range []string{"project_id", "namespace_id", "project_path", "namespace_path"} {
		of, _ := c.Text(name)
		if in, _ := c.Text("job_" + name); c.Has("job_"+name) && in != of {
			return notABuild("job_%s is not %s: the job is of a fork's merge request", name, name)
		}
	}
	return nil
}

func (gitlab) Build(c Claims, reg Registered) (*attest.Build, error) {
	r := reader{Claims: c}
	started := r.oneOf("pipeline_source", gitlabSources...) // first: others have other projects and refs, too
	if r.err == nil {
		r.err = gitlabOneProject(c)
	}
	if r.err != nil {
		return nil, r.err
	}
	var (
		project = r.match("project_path", shapeLong)
		ref     = r.match("ref_path", shapeRef)
		sha     = r.match("sha", shapeCommit)
		runner  = r.match("runner_environment", shapeValue)
		job     = r.match("job_id", shapeNumber)
	)
	r.match("project_id", shapeNumber)
	r.match("namespace_id", shapeNumber)
	if r.err == nil {
		r.err = gitlabAgree(&r, project, ref)
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := checkRunner(runner, "gitlab-hosted", reg.Pins); err != nil {
		return nil, err
	}
	configuration, err := gitlabConfigurationPath(&r, reg.ServerURL, project, ref, sha)
	if err != nil {
		return nil, err
	}

	repository := reg.ServerURL + "/" + project
	d := newDraft(reg.Service, attest.GitLabJob)
	d.external(attest.ParameterRepository, repository, attest.FromToken("project_path"))
	d.external(attest.ParameterRef, ref, attest.FromToken("ref_path"))
	d.source(repository, ref, sha, attest.FromToken("project_path", "ref_path"), attest.FromToken("sha"))
	d.invocation(repository+"/-/jobs/"+job, "project_path", "job_id")
	d.keep(&r, "gitlab", "", "environment", "environment_protected", "job_config.sha", "job_config.url", "job_source", "namespace_id",
		"pipeline_id", "pipeline_source", "project_id", "project_visibility", "ref_protected", "runner_environment", "runner_id", "user_id")
	if r.err != nil {
		return nil, r.err
	}
	if configuration == "" {
		d.atMost(2, "the pipeline's definition is not in the project: ci_config_ref_uri is null")
	} else {
		d.external("job.configuration", configuration, attest.FromToken("ci_config_ref_uri", "project_path", "ref_path"))
	}
	if r.Has("job_config") {
		d.atMost(2, "a policy put the job into the pipeline: job_config is not null")
	}
	if started != "push" {
		d.atMost(2, "the inputs and variables of a pipeline that no push started are in no token: pipeline_source is "+started)
	}
	if started == gitlabChild {
		d.atMost(1, "a child pipeline does not say whether its parent was a merge request's: pipeline_source is "+gitlabChild)
	}
	return d.Build, nil
}

// gitlabAgree refuses claims about project and ref that do not agree.
func gitlabAgree(r *reader, project, ref string) error {
	kind := r.oneOf("ref_type", "branch", "tag")
	name := r.match("ref", shapeLong)
	want := map[string]string{"branch": "refs/heads/", "tag": "refs/tags/"}[kind] + name
	namespace, _ := r.Text("namespace_path")
	switch {
	case r.err != nil:
		return r.err
	case !plainPath(project, 2):
		return notABuild("project_path: not one that GitLab accepts")
	case r.Has("namespace_path") && !strings.HasPrefix(project, namespace+"/"):
		return notABuild("project_path is not in namespace_path")
	case !plainRef(ref):
		return notABuild("ref_path: not one that git accepts")
	case ref != want:
		return notABuild("ref_path is not what ref and ref_type say")
	}
	return nil
}

// gitlabConfigurationPath is the path of the pipeline's definition, out of what
// it must stand between: HOST/PROJECT//PATH@REF. Path and ref may both have an
// '@', so nothing is split at one. It is "" when the definition is elsewhere.
func gitlabConfigurationPath(r *reader, server, project, ref, sha string) (string, error) {
	uri, commit := r.Claims["ci_config_ref_uri"], r.Claims["ci_config_sha"]
	if absent := func(v []byte) bool { return v == nil || string(v) == "null" }; absent(uri) && absent(commit) {
		return "", nil
	}
	whole, at := r.match("ci_config_ref_uri", shapeLong), r.match("ci_config_sha", shapeCommit)
	_, host, _ := strings.Cut(server, "://")
	path, inProject := strings.CutPrefix(whole, host+"/"+project+"//")
	path, atRef := strings.CutSuffix(path, "@"+ref)
	switch {
	case r.err != nil:
		return "", r.err
	case at != sha: // it is of the commit that is built, or which it was could not be said
		return "", notABuild("ci_config_sha: want sha")
	case !inProject || !atRef || !gitlabConfiguration.MatchString(path):
		return "", notABuild("ci_config_ref_uri: want <host>/<project_path>//<path>@<ref_path>, with project_path and ref_path as claimed")
	}
	return path, nil
}

var gitlabFields = slices.Concat([]Field{
	{externalParameters + "source/repository", attest.FromToken("project_path"), ""},
	{externalParameters + "source/ref", attest.FromToken("ref_path"), ""},
	{externalParameters + "job/configuration", attest.FromToken("ci_config_ref_uri", "project_path", "ref_path"), "where the pipeline's definition is in the project"},
},
	kept("gitlab", "", "", "namespace_id", "pipeline_source", "project_id", "runner_environment"),
	kept("gitlab", "", whereSaid, "environment", "environment_protected", "job_config.sha", "job_config.url", "job_source",
		"pipeline_id", "project_visibility", "ref_protected", "runner_id", "user_id"),
	[]Field{
		askedAPI("pipeline_status", "started_at", "status", "variables"),
		{sourceURI, attest.FromToken("project_path", "ref_path"), ""},
		{sourceCommit, attest.FromToken("sha"), ""},
		{invocationID, attest.FromToken("project_path", "job_id"), ""},
	})
