// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
	"strings"

	"provost/attest"
)

// A draft is a build of one of our own build types in the making. Nothing gets
// into it without its origin.
type draft struct{ *attest.Build }

func newDraft(service, buildType string) draft {
	return draft{&attest.Build{
		BuildType:          attest.BuildTypeURI(service, buildType),
		ExternalParameters: map[string]any{},
		Origins:            attest.Origins{},
	}}
}

// external sets the external parameter at a path of two names.
func (d draft) external(path, value string, from attest.Origin) {
	group, name, _ := strings.Cut(path, ".")
	put(d.ExternalParameters, group, name, value)
	d.Origins["/buildDefinition/externalParameters/"+group+"/"+name] = from
}

// internal sets an internal parameter of a platform.
func (d draft) internal(platform, name string, value any, from attest.Origin) {
	if d.InternalParameters == nil {
		d.InternalParameters = map[string]any{}
	}
	put(d.InternalParameters, platform, name, value)
	d.Origins["/buildDefinition/internalParameters/"+platform+"/"+pointerEscaper.Replace(name)] = from
}

// keep sets those claims that say something as internal parameters of a
// platform. Their names are those of the claims without the prefix.
func (d draft) keep(r *reader, platform, prefix string, names ...string) {
	for _, name := range names {
		if claim := prefix + name; r.Has(claim) {
			d.internal(platform, name, r.match(claim, shapeLong), attest.FromToken(claim))
		}
	}
}

// source adds the source at its commit, with the origins of its uri and of its
// digest.
func (d draft) source(repository, ref, commit string, uri, digest attest.Origin) {
	d.Dependencies = append(d.Dependencies, gitCommit(repository, ref, commit))
	d.Origins["/buildDefinition/resolvedDependencies/0/uri"] = uri
	d.Origins["/buildDefinition/resolvedDependencies/0/digest/gitCommit"] = digest
}

func (d draft) invocation(id string, claims ...string) {
	d.InvocationID = id
	d.Origins["/runDetails/metadata/invocationId"] = attest.FromToken(claims...)
}

// atMost caps the level that is claimed. Of several caps the lowest counts.
func (d draft) atMost(level int, reason string) {
	if d.Level == 0 || level < d.Level {
		d.Level, d.LevelReason = level, reason
	}
}

func put(parameters map[string]any, group, name string, value any) {
	members, _ := parameters[group].(map[string]any)
	if members == nil {
		members = map[string]any{}
		parameters[group] = members
	}
	members[name] = value
}

// pointerEscaper makes a name one token of a JSON pointer (RFC 6901).
var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// checkRunner refuses a runner that is neither the platform's nor self-hosted,
// and a self-hosted one unless the builder's condition pins runner_environment
// to that: one builder.id stands for one kind of isolation.
func checkRunner(runner, hosted string, pins Pins) error {
	const own = "self-hosted"
	switch {
	case runner != hosted && runner != own:
		return notABuild("runner_environment is %q: want %s or %s", runner, hosted, own)
	case runner == own && !slices.Equal(pins["runner_environment"], []string{own}):
		return notABuild("the runner is self-hosted, and the builder's condition does not pin runner_environment to that")
	}
	return nil
}
