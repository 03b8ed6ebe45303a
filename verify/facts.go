// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"provost/attest"
	"provost/attest/sbom"
)

// Facts are all that a policy sees: what was believed, never raw bytes. The
// JSON is the policy's input document, so its names are stable.
type Facts struct {
	Now        time.Time        `json:"now"` // the gate's clock, UTC
	Artifact   attest.Digest    `json:"artifact"`
	Provenance []ProvenanceFact `json:"provenance"`
	SBOMs      []SBOMFact       `json:"sboms"`
}

// A Believed is what holds of every attestation that was believed.
type Believed struct {
	Attestation string    `json:"attestation"` // its id
	SignedAt    time.Time `json:"signedAt"`    // trusted time, UTC
	NotBefore   time.Time `json:"notBefore"`   // of the leaf that signed
	NotAfter    time.Time `json:"notAfter"`
}

// A ProvenanceFact is one believed provenance.
type ProvenanceFact struct {
	Believed
	BuilderID         string   `json:"builderId"`
	BuildType         string   `json:"buildType"`
	InvocationID      string   `json:"invocationId"`
	Source            Source   `json:"source"`
	UnknownParameters []string `json:"unknownParameters"` // external parameters that the build type does not have
}

// A Source is where a build came from.
type Source struct {
	Repository string `json:"repository"` // URL; "" when the build type is not known
	Ref        string `json:"ref"`        // such as refs/heads/main
	Commit     string `json:"commit"`     // gitCommit
}

// An SBOMFact is one believed bill of materials.
type SBOMFact struct {
	Believed
	PredicateType string `json:"predicateType"`
}

// add sorts a believed bundle into the facts by its predicate type. A
// predicate that does not decode is an error: it was signed by us and yet is
// not what it says.
func (f *Facts) add(id string, v *Verified) error {
	b := Believed{Attestation: id, SignedAt: v.SignedAt()}
	b.NotBefore, b.NotAfter = v.Window()
	switch t := v.Statement().PredicateType; {
	case t == attest.ProvenanceType:
		build, err := attest.ParseProvenance(v.Statement().Predicate)
		if err != nil {
			return err
		}
		p := ProvenanceFact{Believed: b, BuilderID: build.BuilderID, BuildType: build.BuildType, InvocationID: build.InvocationID}
		p.Source, p.UnknownParameters = source(build)
		f.Provenance = append(f.Provenance, p)
	case t == sbom.CycloneDXType || strings.HasPrefix(t, sbom.SPDXTypePrefix):
		f.SBOMs = append(f.SBOMs, SBOMFact{b, t})
	}
	return nil
}

// remove takes out what some attestations said.
func (f *Facts) remove(gone map[string]bool) {
	f.Provenance = slices.DeleteFunc(f.Provenance, func(p ProvenanceFact) bool { return gone[p.Attestation] })
	f.SBOMs = slices.DeleteFunc(f.SBOMs, func(s SBOMFact) bool { return gone[s.Attestation] })
}

// source reads repository, ref and commit from the external parameters of the
// build types that are known, and lists the parameters that are not. Of an
// unknown build type everything is unknown, so no expectation can match it.
func source(b *attest.Build) (s Source, unknown []string) {
	unknown = []string{}
	if b.BuildType != attest.GitHubWorkflowType {
		for name := range b.ExternalParameters {
			unknown = append(unknown, name)
		}
		slices.Sort(unknown)
		return s, unknown
	}
	workflow, _ := b.ExternalParameters["workflow"].(map[string]any)
	for name := range b.ExternalParameters {
		if name != "workflow" {
			unknown = append(unknown, name)
		}
	}
	for name, value := range workflow {
		text, ok := value.(string)
		switch {
		case name == "repository" && ok:
			s.Repository = text
		case name == "ref" && ok:
			s.Ref = text
		case name == "path" && ok:
		default:
			unknown = append(unknown, "workflow."+name)
		}
	}
	slices.Sort(unknown)
	s.Commit = commit(b.Dependencies, fmt.Sprintf("git+%s@%s", s.Repository, s.Ref))
	return s, unknown
}

// commit is that of the dependency named, and of nothing else. Named twice with
// different commits, it is none.
func commit(dependencies []attest.Resource, uri string) string {
	var found []string
	for _, d := range dependencies {
		if d.URI == uri {
			found = append(found, d.Digest["gitCommit"])
		}
	}
	if found = slices.Compact(found); len(found) != 1 {
		return ""
	}
	return found[0]
}
