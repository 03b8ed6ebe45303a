// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"provost/attest/sbom"
)

// Submitted is a predicate that the caller wrote. Of SLSA provenance only a
// registered builder control plane may write one; of everything else those who
// hold [GrantStatement], of the types that their builder is registered for.
type Submitted struct {
	Service   string // our own URL: types below it are our own words
	Type      string
	Predicate []byte
}

func (s Submitted) claim(c Caller) (claim, error) {
	switch {
	case s.Type == ProvenanceType:
		return s.provenance(c)
	case PowerFor(s.Type) != PowerEvidence || s.Service == "" || s.Type == s.Service || strings.HasPrefix(s.Type, s.Service+"/"):
		// closed: what speaks for the service itself nobody writes but it
		return claim{}, fmt.Errorf("%w: statements of type %.200s are the service's own", ErrDenied, s.Type)
	case strings.HasPrefix(s.Type, "https://slsa.dev/provenance/"), strings.HasPrefix(s.Type, "https://slsa.dev/verification_summary/"):
		// closed: an older spelling of a claim of ours
		return claim{}, fmt.Errorf("%w: statements of type %.200s are not signed: want %s, and verdicts are the gate's own", ErrDenied, s.Type, ProvenanceType)
	}
	if err := c.Require(GrantStatement); err != nil {
		return claim{}, err
	}
	if err := c.registeredFor(s.Type); err != nil {
		return claim{}, err
	}
	if s.Type == sbom.CycloneDXType || strings.HasPrefix(s.Type, sbom.SPDXTypePrefix) {
		made, err := SBOM{Document: s.Predicate}.check()
		if err != nil {
			return claim{}, err
		}
		if made != s.Type {
			return claim{}, &DocumentError{What: "predicate", Err: fmt.Errorf("it is a %s, not the %s that the statement says", made, s.Type)}
		}
	}
	tenant, err := c.Home(GrantStatement)
	return claim{s.Type, s.Predicate, tenant}, err
}

// registeredFor asks that the caller's builder may have statements of a type
// signed. Who speaks for no builder may not.
func (c Caller) registeredFor(predicateType string) error {
	r := c.registration()
	if r == nil {
		return fmt.Errorf("%w: the token speaks for no registered builder", ErrDenied)
	}
	if !slices.Contains(r.PredicateTypes, predicateType) {
		return fmt.Errorf("%w: builder %s is not registered for predicate type %.200s", ErrDenied, r.Name, predicateType)
	}
	return nil
}

// registration is that of the caller's builder; nil for none.
func (c Caller) registration() *Registration {
	switch {
	case c.Build != nil:
		return c.Build.Registration
	case c.Control != nil:
		return &c.Control.Registration
	}
	return nil
}

// A Control is a builder control plane that submits whole predicates.
type Control struct {
	Registration
	BuilderID string // what its provenance must say
	BuildType string
	Level     int
}

// provenance is a predicate of a control plane. Builder and build type must be
// the registered ones, and the rest what the schema has: a member that it does
// not have is refused, among them our own extensions, since what says where
// fields come from is for us to write. Nothing else is changed.
func (s Submitted) provenance(c Caller) (claim, error) {
	if err := c.Require(GrantProvenance); err != nil {
		return claim{}, err
	}
	if c.Control == nil {
		return claim{}, fmt.Errorf("%w: provenance is written by the service, or by a registered control plane", ErrDenied)
	}
	if len(s.Predicate) > MaxPredicate {
		return claim{}, &LimitError{What: "predicate", Limit: MaxPredicate, Unit: "bytes"}
	}
	var p submittedProvenance
	if err := DecodeJSON(s.Predicate, &p); err != nil {
		return claim{}, &DocumentError{What: "SLSA provenance", Err: err}
	}
	if err := p.check(); err != nil {
		return claim{}, &DocumentError{What: "SLSA provenance", Err: err}
	}
	switch {
	case p.Run.Builder.ID != c.Control.BuilderID:
		return claim{}, fmt.Errorf("%w: builder.id %.200q: want %s", ErrDenied, p.Run.Builder.ID, c.Control.BuilderID)
	case p.Definition.BuildType != c.Control.BuildType:
		return claim{}, fmt.Errorf("%w: buildType %.200q: want %s", ErrDenied, p.Definition.BuildType, c.Control.BuildType)
	}
	p.Run.Metadata.Level = c.Control.Level
	p.Run.Metadata.Origins = Origins{
		"":                           {From: SourceControl},
		"/runDetails/builder/id":     FromRegistry(),
		"/buildDefinition/buildType": FromRegistry(),
	}
	predicate, err := encodeJSON(p)
	if err != nil {
		return claim{}, fmt.Errorf("%w: provenance: %w", ErrInvalid, err)
	}
	tenant, err := c.Home(GrantProvenance)
	return claim{ProvenanceType, predicate, tenant}, err
}

// submittedProvenance is SLSA provenance v1 with every member that the schema
// has (SLSA v1.2 provenance). What it does not look into it keeps as it is.
type submittedProvenance struct {
	Definition struct {
		BuildType  string           `json:"buildType"`
		External   jsontext.Value   `json:"externalParameters"`
		Internal   jsontext.Value   `json:"internalParameters,omitzero"`
		Dependency []submittedThing `json:"resolvedDependencies,omitempty"`
	} `json:"buildDefinition"`
	Run struct {
		Builder struct {
			ID         string            `json:"id"`
			Dependency []submittedThing  `json:"builderDependencies,omitempty"`
			Version    map[string]string `json:"version,omitempty"`
		} `json:"builder"`
		Metadata struct {
			Invocation string  `json:"invocationId,omitempty"`
			Started    string  `json:"startedOn,omitempty"`
			Finished   string  `json:"finishedOn,omitempty"`
			Level      int     `json:"provost_level,omitzero"`
			Origins    Origins `json:"provost_origins,omitempty"`
		} `json:"metadata,omitzero"`
		Byproducts []submittedThing `json:"byproducts,omitempty"`
	} `json:"runDetails"`
}

// A submittedThing is an in-toto ResourceDescriptor.
type submittedThing struct {
	Name             string            `json:"name,omitempty"`
	URI              string            `json:"uri,omitempty"`
	Digest           map[string]string `json:"digest,omitempty"`
	Content          string            `json:"content,omitempty"`
	DownloadLocation string            `json:"downloadLocation,omitempty"`
	MediaType        string            `json:"mediaType,omitempty"`
	Annotations      jsontext.Value    `json:"annotations,omitzero"`
}

func (p *submittedProvenance) check() error {
	m := &p.Run.Metadata
	switch {
	case m.Level != 0 || m.Origins != nil:
		return fmt.Errorf("%w: runDetails.metadata: members that begin with %s are the service's own", ErrInvalid, extensionPrefix)
	case p.Definition.External.Kind() != '{':
		return fmt.Errorf("%w: buildDefinition.externalParameters: want an object", ErrInvalid)
	case p.Definition.Internal != nil && p.Definition.Internal.Kind() != '{':
		return fmt.Errorf("%w: buildDefinition.internalParameters: want an object", ErrInvalid)
	}
	var times [2]time.Time
	for i, text := range []string{m.Started, m.Finished} {
		if text == "" {
			continue
		}
		var err error
		if times[i], err = time.Parse(time.RFC3339, text); err != nil || !strings.HasSuffix(text, "Z") {
			return fmt.Errorf("%w: runDetails.metadata: %.40q: want a time in RFC 3339, in UTC", ErrInvalid, text)
		}
	}
	if m.Started != "" && m.Finished != "" && times[1].Before(times[0]) {
		return fmt.Errorf("%w: runDetails.metadata: finishedOn is before startedOn", ErrInvalid)
	}
	things := slices.Concat(p.Definition.Dependency, p.Run.Builder.Dependency, p.Run.Byproducts)
	if len(things) > MaxDependencies {
		return &LimitError{What: "dependencies and byproducts", Limit: MaxDependencies, Unit: "in all"}
	}
	for _, d := range things {
		if d.URI == "" && len(d.Digest) == 0 && d.Content == "" {
			return fmt.Errorf("%w: a dependency or byproduct without uri, digest and content", ErrInvalid)
		}
		for alg, value := range d.Digest {
			if alg == "" || !digestValue.MatchString(value) {
				return fmt.Errorf("%w: digest %.40q: want lower-case hex", ErrInvalid, alg)
			}
		}
		if len(d.Annotations) > 0 && d.Annotations.Kind() != '{' {
			return fmt.Errorf("%w: annotations: want an object", ErrInvalid)
		}
	}
	return nil
}

// ParseSubmitted reads a statement that somebody wrote, strictly: besides what
// [ParseStatement] refuses, a member that a statement does not have. The error
// is an [ErrInvalid].
func ParseSubmitted(raw []byte) (Statement, error) {
	if len(raw) > MaxStatement {
		return Statement{}, &LimitError{What: "statement", Limit: MaxStatement, Unit: "bytes"}
	}
	var strict wireStatement
	if err := DecodeJSON(raw, &strict); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	for i, s := range strict.Subject {
		for alg := range s.Digest { // one that is ignored would not be signed, and be missed
			if alg != AlgSHA256 && alg != AlgSHA512 {
				return Statement{}, fmt.Errorf("%w: subject %d: digest algorithm %.20q: want sha256, and sha512 beside it", ErrInvalid, i, alg)
			}
		}
	}
	return ParseStatement(raw)
}
