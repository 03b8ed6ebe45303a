// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"

	"provost/attest"
)

// A Field is a field of the provenance that a provider's tokens give, and where
// it comes from. All fields of a provider stand beside its code; a test holds
// that Build says exactly these.
type Field struct {
	// Pointer is where it stands in the predicate (RFC 6901). A name in <>
	// stands for any.
	Pointer string
	Origin  attest.Origin
	// When says when the field is there, or comes from there; "" for always.
	When string
}

// Where the fields of every provider are.
const (
	externalParameters = "/buildDefinition/externalParameters/"
	internalParameters = "/buildDefinition/internalParameters/"
	sourceURI          = "/buildDefinition/resolvedDependencies/0/uri"
	sourceCommit       = "/buildDefinition/resolvedDependencies/0/digest/gitCommit"
	invocationID       = "/runDetails/metadata/invocationId"
)

// registered are the fields that the registry says of every build.
var registered = []Field{
	{"/buildDefinition/buildType", attest.FromRegistry(), ""},
	{"/runDetails/builder/id", attest.FromRegistry(), ""},
}

// supplied are what a job may say of its own build, and nobody checks.
var supplied = []Field{
	{"/buildDefinition/resolvedDependencies/<n>", attest.Origin{From: attest.SourceTenant}, "for each dependency that the job names, marked tenantSupplied"},
}

// FieldsOf are all fields of the provenance of a provider's builds: those of the
// registry, of the token in the provider's order, and of the tenant. m is the
// mapping of a generic issuer; with none its claims are called <mapping.NAME>
// after what the configuration calls them. It returns nil for providers whose
// tokens speak for no build.
func FieldsOf(p Provider, m *Mapping) []Field {
	own := p.Rules().Fields
	if _, ok := p.(generic); ok {
		own = m.fields()
	}
	if len(own) == 0 {
		return nil
	}
	return slices.Concat(registered, own, supplied)
}

// askedAPI is what only the API says, in an answer whose members have these
// names.
func askedAPI(members ...string) Field {
	return Field{internalParameters + "api", attest.Origin{From: attest.SourceAPI, Names: members}, "where the issuer has a cross_check"}
}

// kept are internal parameters of a platform that are claims under their own
// names, without the prefix.
func kept(platform, prefix, when string, names ...string) (all []Field) {
	for _, name := range names {
		all = append(all, Field{internalParameters + platform + "/" + pointerEscaper.Replace(name), attest.FromToken(prefix + name), when})
	}
	return all
}

// whereSaid is when a claim that a token need not have becomes a field.
const whereSaid = "where the token says it"
