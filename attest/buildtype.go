// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

// A BuildType is one of our own: what the external parameters of its
// provenance are, and what else it says. Every one is served as a page.
type BuildType struct {
	Name  string // of its URI, such as gitlab-job
	Title string
	// Parameters are all external parameters there are, by their path with
	// dots, such as source.ref. No name in a path has a dot of its own.
	Parameters []Parameter
	// Internal are all internal parameters there are, by their path: the
	// platform, a dot and a name, which may have dots. A name in <> stands for
	// any.
	Internal []Parameter
	// Invocation says what the invocationId is.
	Invocation string
	// Dependencies says what the resolved dependencies are.
	Dependencies string
	// Levels says what level such provenance can reach, and why.
	Levels string
}

// A Parameter is one parameter of a build type.
type Parameter struct {
	Path    string
	From    Source
	Meaning string // with the claim it comes from
}

// BuildTypeURI is the URI of our own build type of that name, version 1.
func BuildTypeURI(service, name string) string { return service + "/buildtypes/" + name + "/v1" }

// The names of our own build types.
const (
	GitLabJob    = "gitlab-job"
	BuildkiteJob = "buildkite-job"
	CircleCIJob  = "circleci-job"
	WorkloadJob  = "workload"
	OIDCJob      = "oidc-job"
)

// BuildTypes are all of our own.
var BuildTypes = []BuildType{gitlabJob, buildkiteJob, circleciJob, workload, oidcJob}

// FindBuildType returns our own build type of that name.
func FindBuildType(name string) (BuildType, bool) {
	for _, t := range BuildTypes {
		if t.Name == name {
			return t, true
		}
	}
	return BuildType{}, false
}

// The paths of the external parameters that say what was built.
const (
	ParameterRepository = "source.repository" // URL
	ParameterRef        = "source.ref"        // such as refs/heads/main
)

var gitlabJob = BuildType{
	Name:  GitLabJob,
	Title: "A job of GitLab CI/CD",
	Parameters: []Parameter{
		{ParameterRepository, SourceToken, "URL of the project: the instance and project_path."},
		{ParameterRef, SourceToken, "The branch or tag: ref_path, with which ref and ref_type must agree."},
		{"job.configuration", SourceToken, "Path of the pipeline's definition in the project: out of ci_config_ref_uri. Absent when the definition is not in the project."},
	},
	Internal: []Parameter{
		{"gitlab.environment", SourceToken, "environment, where the job has one."},
		{"gitlab.environment_protected", SourceToken, "environment_protected, where the job has an environment."},
		{"gitlab.job_config.sha", SourceToken, "job_config.sha: commit of the policy that put the job there."},
		{"gitlab.job_config.url", SourceToken, "job_config.url: the policy that put the job there."},
		{"gitlab.job_source", SourceToken, "job_source, from GitLab 18.9 on."},
		{"gitlab.namespace_id", SourceToken, "namespace_id."},
		{"gitlab.pipeline_id", SourceToken, "pipeline_id."},
		{"gitlab.pipeline_source", SourceToken, "pipeline_source: what started the pipeline."},
		{"gitlab.project_id", SourceToken, "project_id."},
		{"gitlab.project_visibility", SourceToken, "project_visibility."},
		{"gitlab.ref_protected", SourceToken, "ref_protected."},
		{"gitlab.runner_environment", SourceToken, "runner_environment: gitlab-hosted or self-hosted."},
		{"gitlab.runner_id", SourceToken, "runner_id."},
		{"gitlab.user_id", SourceToken, "user_id of who started the job."},
	},
	Invocation:   "URL of the job: the instance, project_path and job_id.",
	Dependencies: "The source at its commit, sha. Whatever else is there the tenant named, and it is marked so.",
	Levels: "Level 2 for a job whose definition is in the project. Level 3 takes two people who answer for the runner's isolation, and a cross-check with GitLab's API. " +
		"Level 2 at most when ci_config_ref_uri is null or a policy put the job there, as the definition is elsewhere, and when anything but a push started the pipeline, as its inputs are in no token. " +
		"Level 1 in a child pipeline, which does not say whether its parent was a merge request's. " +
		"Variables that came with a push are in no token either. Pipelines of merge requests are refused.",
}

var buildkiteJob = BuildType{
	Name:  BuildkiteJob,
	Title: "A job of Buildkite",
	Parameters: []Parameter{
		{ParameterRepository, SourceRegistry, "URL of the repository, from the builder's row, which pins the one pipeline that builds it: no claim names a repository."},
		{ParameterRef, SourceToken, "refs/tags/ and build_tag, or refs/heads/ and build_branch."},
		{"job.step", SourceToken, "step_key. Absent for a step without a key."},
	},
	Internal: []Parameter{
		{"buildkite.agent_id", SourceToken, "agent_id."},
		{"buildkite.build_id", SourceToken, "build_id, where it was asked for."},
		{"buildkite.build_source", SourceToken, "build_source: what started the build."},
		{"buildkite.cluster_id", SourceToken, "cluster_id, where it was asked for."},
		{"buildkite.organization_id", SourceToken, "organization_id."},
		{"buildkite.pipeline_id", SourceToken, "pipeline_id."},
		{"buildkite.queue_id", SourceToken, "queue_id, where it was asked for."},
		{"buildkite.runner_environment", SourceToken, "runner_environment: buildkite-hosted or self-hosted."},
	},
	Invocation:   "URL of the job: organization_slug, pipeline_slug, build_number and job_id.",
	Dependencies: "The source at its commit, build_commit. Whatever else is there the tenant named, and it is marked so.",
	Levels: "Level 2 at most, for builds that a webhook started. " +
		"Level 1 for all others, as their branch and commit are the word of whoever started them. " +
		"A token does not say whether a build is of a pull request: whoever registers a pipeline above level 1 answers for it that it builds none from forks, or prefixes their branches.",
}

var circleciJob = BuildType{
	Name:  CircleCIJob,
	Title: "A job of CircleCI",
	Parameters: []Parameter{
		{ParameterRepository, SourceToken, "URL of the repository: https:// and oidc.circleci.com/vcs-origin."},
		{ParameterRef, SourceToken, "The branch or tag: oidc.circleci.com/vcs-ref."},
		{"pipeline.definition", SourceToken, "oidc.circleci.com/pipeline-definition-id. Absent in older tokens."},
	},
	Internal: []Parameter{
		{"circleci.context-ids", SourceToken, "oidc.circleci.com/context-ids: the contexts whose secrets the job had."},
		{"circleci.org-id", SourceToken, "oidc.circleci.com/org-id."},
		{"circleci.pipeline-id", SourceToken, "oidc.circleci.com/pipeline-id. Absent in older tokens."},
		{"circleci.project-id", SourceToken, "oidc.circleci.com/project-id."},
		{"circleci.ssh-rerun", SourceToken, "oidc.circleci.com/ssh-rerun, which is false: others are refused."},
	},
	Invocation:   "URL of the job: oidc.circleci.com/workflow-id and oidc.circleci.com/job-id.",
	Dependencies: "None but what the tenant named, and it is marked so: no claim names a commit.",
	Levels:       "Level 1: the token names no commit, so what was built is not known beyond its branch or tag. Jobs that are run again with SSH, and pipelines of custom webhooks, are refused.",
}

var workload = BuildType{
	Name:  WorkloadJob,
	Title: "A workload of Kubernetes or with a SPIFFE ID",
	Parameters: []Parameter{
		{ParameterRepository, SourceRegistry, "URL of the repository, where the builder's row names one."},
		{"workload.namespace", SourceToken, "kubernetes.io.namespace. Kubernetes alone."},
		{"workload.serviceAccount", SourceToken, "kubernetes.io.serviceaccount.name. Kubernetes alone."},
		{"workload.spiffeId", SourceToken, "sub, the SPIFFE ID. SPIFFE alone."},
	},
	Internal: []Parameter{
		{"kubernetes.node.name", SourceToken, "kubernetes.io.node.name, from Kubernetes 1.30 on."},
		{"kubernetes.node.uid", SourceToken, "kubernetes.io.node.uid, from Kubernetes 1.30 on."},
		{"kubernetes.pod.name", SourceToken, "kubernetes.io.pod.name."},
		{"kubernetes.pod.uid", SourceToken, "kubernetes.io.pod.uid."},
		{"kubernetes.serviceaccount.uid", SourceToken, "kubernetes.io.serviceaccount.uid."},
	},
	Invocation:   "Kubernetes: the issuer, namespace and pod uid, and the token's jti where it has one. SPIFFE: the SPIFFE ID, and the token's jti or else its iat.",
	Dependencies: "None but what the tenant named, and it is marked so: the token says nothing of a source.",
	Levels:       "Level 1: the token says who runs, and nothing of what is built. A control plane with such an identity submits its own provenance instead.",
}

var oidcJob = BuildType{
	Name:  OIDCJob,
	Title: "A job of another OpenID Connect issuer",
	Parameters: []Parameter{
		{ParameterRepository, SourceToken, "URL of the repository: the claim that the configuration maps. Where it maps none, the builder's row says it."},
		{ParameterRef, SourceToken, "The branch or tag: the claim that the configuration maps. Absent where it maps none."},
	},
	Internal: []Parameter{
		{"oidc.<claim>", SourceToken, "The claims that the configuration keeps, under their own names."},
	},
	Invocation:   "The claim that the configuration maps.",
	Dependencies: "The source at its commit, where the configuration maps a claim to it. Whatever else is there the tenant named, and it is marked so.",
	Levels:       "As the builder's row says, where repository, ref and commit are claims. Level 1 where the tokens name no ref or no commit.",
}
