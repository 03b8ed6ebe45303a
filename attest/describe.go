// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

// GitHubWorkflow describes provenance of GitHub's build type as our own are
// described. It is not among [BuildTypes]: its parameters are GitHub's, and so
// is its page.
var GitHubWorkflow = BuildType{
	Title:        "A job of GitHub Actions",
	Invocation:   "URL of the run's attempt: repository, run_id and run_attempt.",
	Dependencies: "The source at its commit, sha; and a reusable workflow at its commit, job_workflow_sha. Actions and whatever else the job fetched are not there, but for what the tenant named, and it is marked so.",
	Levels: "Level 2 for a job that push, create, release or workflow_dispatch started on a GitHub-hosted runner, or on a self-hosted one where the builder's condition pins runner_environment to that. " +
		"Level 3 takes two people who answer for the runner's isolation, and for a workflow whose result its inputs, caches and earlier jobs cannot change unseen. " +
		"Level 2 at most for workflow_dispatch, whose inputs neither the token nor GitHub's API says. Inputs and variables are in no token. Other events, pull requests among them, are refused.",
}

// DescribeBuildType returns what is known of a build type: one of our own or
// GitHub's.
func DescribeBuildType(service, uri string) (BuildType, bool) {
	if uri == GitHubWorkflowType {
		return GitHubWorkflow, true
	}
	for _, t := range BuildTypes {
		if uri == BuildTypeURI(service, t.Name) {
			return t, true
		}
	}
	return BuildType{}, false
}

// DescribeLevel says what a SLSA build level, 1 to 3, claims here; "" for
// another.
func DescribeLevel(level int) string {
	return map[int]string{
		1: "There is provenance, and the service signed it. What was built, or from what, is not known well enough from the build platform for more.",
		2: "Authentic: no field but those that are marked as the tenant's is the word of the build, and it is signed with a key that no build can reach.",
		3: "As level 2, and two people answer for it that the platform isolates each build from all others, and from whoever started it but for its parameters.",
	}[level]
}

// A Term is a word of ours and what it means.
type Term struct {
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

// Extensions are all fields of ours in provenance, each with its meaning. They
// stand in runDetails.metadata.
var Extensions = []Term{
	{extensionOrigins, "Where each field of this predicate comes from, by JSON pointer: from is token, api, registry, control or tenant; names are the claims it was made of; verifiedBy is api for a field that the CI's own API confirmed. An entry holds for everything below it that has none of its own."},
	{extensionLevel, "The SLSA build level that this provenance claims."},
	{extensionLevelReason, "Why that is lower than the builder's own level. Only there when it is."},
}
