// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// ProvenanceType is the predicateType of SLSA provenance 1.0 to 1.2, which
// share one URI.
const ProvenanceType = "https://slsa.dev/provenance/v1"

// GitHubWorkflowType is the buildType of GitHub Actions workflows. Its external
// parameters are workflow.{ref,repository,path} and nothing else
// (actions.github.io/buildtypes/workflow/v1).
const GitHubWorkflowType = "https://actions.github.io/buildtypes/workflow/v1"

// A Build is what a verified workload token says about a running build. The
// whole predicate is made from it: the caller adds nothing but the digests of
// what was built (SLSA v1.2 build requirements, "Provenance is Unforgeable").
type Build struct {
	BuilderID          string         // from the builder table, never from the caller
	BuildType          string         // from the builder table
	ExternalParameters map[string]any // JSON values
	InternalParameters map[string]any // JSON values; may be nil
	Dependencies       []Resource     // the source first
	InvocationID       string
}

// A Resource is something a build used, as an in-toto ResourceDescriptor.
type Resource struct {
	URI    string
	Digest map[string]string // such as gitCommit → 40 or 64 hex digits
}

// Provenance asks for SLSA provenance of the caller's own build.
type Provenance struct{}

func (Provenance) claim(c Caller) (claim, error) {
	if err := c.Require(GrantProvenance); err != nil {
		return claim{}, err
	}
	if c.Build == nil {
		return claim{}, fmt.Errorf("%w: the token speaks for no registered build", ErrDenied)
	}
	predicate, err := c.Build.predicate()
	if err != nil {
		return claim{}, fmt.Errorf("provenance: %w", err)
	}
	return claim{ProvenanceType, predicate}, nil
}

// predicate writes SLSA provenance, canonically, so that a retried request is
// recognised. It is not written by protojson, which takes as long as verifying
// a signature does; a test compares the two.
func (b *Build) predicate() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	definition := map[string]any{"buildType": b.BuildType, "externalParameters": b.ExternalParameters}
	if b.InternalParameters != nil {
		definition["internalParameters"] = b.InternalParameters
	}
	dependencies := make([]map[string]any, len(b.Dependencies))
	for i, d := range b.Dependencies {
		dependencies[i] = map[string]any{"uri": d.URI}
		if len(d.Digest) > 0 {
			dependencies[i]["digest"] = d.Digest
		}
	}
	if len(dependencies) > 0 {
		definition["resolvedDependencies"] = dependencies
	}
	metadata := map[string]any{}
	if b.InvocationID != "" {
		metadata["invocationId"] = b.InvocationID
	}
	out, err := encodeJSON(map[string]any{
		"buildDefinition": definition,
		"runDetails":      map[string]any{"builder": map[string]any{"id": b.BuilderID}, "metadata": metadata},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: provenance: %w", ErrInvalid, err)
	}
	v := jsontext.Value(out)
	err = v.Canonicalize()
	return v, err
}

var gitCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// validate asks for what the schema requires. The binding's own Validate lets a
// dependency pass that has a name alone, and refuses the 64-digit commits of
// SHA-256 repositories.
func (b *Build) validate() error {
	if b.BuilderID == "" || b.BuildType == "" || b.ExternalParameters == nil {
		return fmt.Errorf("%w: builder.id, buildType and externalParameters are required", ErrInvalid)
	}
	for _, d := range b.Dependencies {
		if d.URI == "" {
			return fmt.Errorf("%w: a dependency without a uri", ErrInvalid)
		}
		if c, ok := d.Digest["gitCommit"]; ok && !gitCommit.MatchString(c) {
			return fmt.Errorf("%w: dependency %.200s: gitCommit: want 40 or 64 lower-case hex digits", ErrInvalid, d.URI)
		}
	}
	return nil
}

// ParseProvenance reads a believed predicate of [ProvenanceType]. Members that
// the schema does not have are ignored. The error is an [ErrInvalid].
func ParseProvenance(predicate []byte) (*Build, error) {
	var p provenance.Provenance
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(predicate, &p); err != nil {
		return nil, fmt.Errorf("%w: provenance: %w", ErrInvalid, err)
	}
	def, run := p.GetBuildDefinition(), p.GetRunDetails()
	if def.GetBuildType() == "" || def.GetExternalParameters() == nil || run.GetBuilder().GetId() == "" {
		return nil, fmt.Errorf("%w: provenance: buildType, externalParameters and builder.id are required", ErrInvalid)
	}
	b := &Build{
		BuilderID:          run.GetBuilder().GetId(),
		BuildType:          def.GetBuildType(),
		ExternalParameters: def.GetExternalParameters().AsMap(),
		InternalParameters: def.GetInternalParameters().AsMap(),
		InvocationID:       run.GetMetadata().GetInvocationId(),
	}
	for _, d := range def.GetResolvedDependencies() {
		b.Dependencies = append(b.Dependencies, Resource{d.GetUri(), d.GetDigest()})
	}
	return b, nil
}
