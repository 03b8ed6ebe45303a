// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

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
// what was built, and dependencies that are flagged as the caller's (SLSA v1.2
// build requirements, "Provenance is Unforgeable").
type Build struct {
	BuilderID          string         // from the builder registry, never from the caller
	BuildType          string         // from the builder registry
	ExternalParameters map[string]any // JSON values
	InternalParameters map[string]any // JSON values; may be nil
	Dependencies       []Resource     // the source first
	InvocationID       string

	// Level is the highest SLSA build level that is claimed, 1 to 3, and
	// LevelReason why it is not the builder's own; 0 and "" when the
	// provenance does not say.
	Level       int
	LevelReason string
	// Origins say where each field comes from. Of what we issue it is
	// complete: a field that nobody answers for is not signed.
	Origins Origins
	// Registration is what the builder's row allows beside provenance.
	Registration *Registration
}

// A Registration is the row of the builder registry that a token matched.
type Registration struct {
	Name           string
	Revision       int64
	PredicateTypes []string
}

// A Resource is something a build used, as an in-toto ResourceDescriptor.
type Resource struct {
	URI    string
	Digest map[string]string // such as gitCommit → 40 or 64 hex digits
	// TenantSupplied marks what the caller said and nobody checked.
	TenantSupplied bool
}

// Provenance asks for SLSA provenance of the caller's own build.
type Provenance struct {
	// Dependencies are further resolvedDependencies, the only fields that a
	// caller may fill: they are marked as tenant-supplied. At most
	// [MaxDependencies].
	Dependencies []Resource
}

// tenantSupplied is the annotation of what the caller said (resource
// descriptors have no other place for it).
const tenantSupplied = "tenantSupplied"

func (p Provenance) claim(c Caller) (claim, error) {
	if err := c.Require(GrantProvenance); err != nil {
		return claim{}, err
	}
	if c.Build == nil {
		return claim{}, fmt.Errorf("%w: the token speaks for no registered build", ErrDenied)
	}
	build, err := c.Build.with(p.Dependencies)
	if err != nil {
		return claim{}, fmt.Errorf("provenance: %w", err)
	}
	predicate, err := build.predicate()
	if err != nil {
		return claim{}, fmt.Errorf("provenance: %w", err)
	}
	tenant, err := c.Home(GrantProvenance)
	return claim{ProvenanceType, predicate, tenant}, err
}

// with returns the build with dependencies of the caller's after its own. A
// caller cannot name one of the build's again: of two commits of one source a
// reader could believe either.
func (b *Build) with(dependencies []Resource) (*Build, error) {
	if len(dependencies) == 0 {
		return b, nil
	}
	if len(dependencies) > MaxDependencies {
		return nil, &LimitError{What: "resolvedDependencies", Limit: MaxDependencies, Unit: "dependencies"}
	}
	more := *b
	more.Dependencies = slices.Clone(b.Dependencies)
	more.Origins = maps.Clone(b.Origins)
	taken := map[string]bool{}
	for _, d := range b.Dependencies {
		taken[d.URI] = true
	}
	for i, d := range dependencies {
		if err := d.validateSupplied(); err != nil {
			return nil, fmt.Errorf("dependency %d: %w", i, err)
		}
		if taken[d.URI] {
			return nil, fmt.Errorf("%w: dependency %d: %.200s is named already", ErrInvalid, i, d.URI)
		}
		taken[d.URI] = true
		d.TenantSupplied = true
		if more.Origins != nil {
			more.Origins[fmt.Sprintf("/buildDefinition/resolvedDependencies/%d", len(more.Dependencies))] = Origin{From: SourceTenant}
		}
		more.Dependencies = append(more.Dependencies, d)
	}
	return &more, nil
}

// validateSupplied asks more of what the caller said than of what we write.
func (r Resource) validateSupplied() error {
	u, err := url.Parse(r.URI)
	if err != nil || u.Scheme == "" || len(r.URI) > maxURI || strings.ContainsFunc(r.URI, func(c rune) bool { return c <= 0x20 || c >= 0x7f }) {
		return fmt.Errorf("%w: uri %.80q: want a URI of at most %d bytes", ErrInvalid, r.URI, maxURI)
	}
	if len(r.Digest) == 0 || len(r.Digest) > 8 {
		return fmt.Errorf("%w: digest: want 1 to 8 algorithms", ErrInvalid)
	}
	for alg, value := range r.Digest {
		if !digestAlgorithm.MatchString(alg) || !digestValue.MatchString(value) {
			return fmt.Errorf("%w: digest %.40q: want lower-case hex", ErrInvalid, alg)
		}
	}
	return nil
}

var (
	digestAlgorithm = regexp.MustCompile(`^[A-Za-z0-9]{1,32}$`)
	digestValue     = regexp.MustCompile(`^([0-9a-f]{2}){16,64}$`)
)

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
		if d.TenantSupplied {
			dependencies[i]["annotations"] = map[string]any{tenantSupplied: true}
		}
	}
	if len(dependencies) > 0 {
		definition["resolvedDependencies"] = dependencies
	}
	metadata := map[string]any{}
	if b.InvocationID != "" {
		metadata["invocationId"] = b.InvocationID
	}
	run := map[string]any{"builder": map[string]any{"id": b.BuilderID}}
	if len(metadata) > 0 {
		run["metadata"] = metadata
	}
	predicate := map[string]any{"buildDefinition": definition, "runDetails": run}
	if err := b.Origins.complete(predicate); err != nil { // closed: nobody would answer for it
		return nil, err
	}
	metadata[extensionOrigins] = b.Origins
	if b.Level > 0 {
		metadata[extensionLevel] = b.Level
	}
	if b.LevelReason != "" {
		metadata[extensionLevelReason] = b.LevelReason
	}
	run["metadata"] = metadata
	out, err := encodeJSON(predicate)
	if err != nil {
		return nil, fmt.Errorf("%w: provenance: %w", ErrInvalid, err)
	}
	v := jsontext.Value(out)
	err = v.Canonicalize()
	return v, err
}

// Our extension fields, in runDetails.metadata.
const (
	extensionOrigins     = extensionPrefix + "origins"
	extensionLevel       = extensionPrefix + "level"
	extensionLevelReason = extensionPrefix + "levelReason"
)

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
		tenant := d.GetAnnotations().GetFields()[tenantSupplied].GetBoolValue()
		b.Dependencies = append(b.Dependencies, Resource{d.GetUri(), d.GetDigest(), tenant})
	}
	// The binding has no room for extension fields.
	var extended struct {
		RunDetails struct {
			Metadata struct {
				Level       int     `json:"provost_level"`
				LevelReason string  `json:"provost_levelReason"`
				Origins     Origins `json:"provost_origins"`
			} `json:"metadata"`
		} `json:"runDetails"`
	}
	if err := DecodeOpenJSON(predicate, &extended); err != nil {
		return nil, fmt.Errorf("provenance: extension fields: %w", err)
	}
	m := extended.RunDetails.Metadata
	b.Level, b.LevelReason, b.Origins = m.Level, m.LevelReason, m.Origins
	return b, nil
}
