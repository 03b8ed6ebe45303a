// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

// A BuildType is one of our own: what the external parameters of its
// provenance are, and what else it says. Every one is served as a page.
type BuildType struct {
	Name  string // of its URI, such as gitlab-job
	Title string
	// Parameters are all external parameters there are, by their path with
	// dots, such as source.ref.
	Parameters []Parameter
	// Internal says what the internal parameters are.
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
var BuildTypes = []BuildType{}

// FindBuildType returns our own build type of that name.
func FindBuildType(name string) (BuildType, bool) {
	for _, t := range BuildTypes {
		if t.Name == name {
			return t, true
		}
	}
	return BuildType{}, false
}
