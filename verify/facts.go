// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"maps"
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
	Imported   []ImportedFact   `json:"imported"` // what others signed; nothing of it is among the rest
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
	Level             int      `json:"level"` // SLSA build level that it claims; 0 when it does not say
	Source            Source   `json:"source"`
	UnknownParameters []string `json:"unknownParameters"` // external parameters that the build type does not have
	TenantSupplied    []string `json:"tenantSupplied"`    // URIs of dependencies that the build itself named, and nobody checked

	origins     attest.Origins
	levelReason string
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

// add sorts a believed bundle of a service into the facts by its predicate
// type. A predicate that does not decode is an error: it was signed by us and
// yet is not what it says.
func (f *Facts) add(service, id string, v *Verified) error {
	b := Believed{Attestation: id, SignedAt: v.SignedAt()}
	b.NotBefore, b.NotAfter = v.Window()
	switch t := v.Statement().PredicateType; {
	case t == attest.ProvenanceType:
		build, err := attest.ParseProvenance(v.Statement().Predicate)
		if err != nil {
			return err
		}
		p := ProvenanceFact{
			Believed: b, BuilderID: build.BuilderID, BuildType: build.BuildType, InvocationID: build.InvocationID,
			Level: build.Level, TenantSupplied: []string{}, origins: build.Origins, levelReason: build.LevelReason,
		}
		p.Source, p.UnknownParameters = source(service, build)
		for _, d := range build.Dependencies {
			if d.TenantSupplied {
				p.TenantSupplied = append(p.TenantSupplied, d.URI)
			}
		}
		f.Provenance = append(f.Provenance, p)
	case t == sbom.CycloneDXType || strings.HasPrefix(t, sbom.SPDXTypePrefix):
		f.SBOMs = append(f.SBOMs, SBOMFact{b, t})
	}
	return nil
}

// RuleOrigins is the rule of reasons that say whose word provenance is. They
// decide nothing.
const RuleOrigins = "provenance.origins"

// maxExplained is how many provenances a decision explains.
const maxExplained = 8

// explain says whose word each provenance is.
func (f *Facts) explain() (reasons []attest.Reason) {
	for _, p := range f.Provenance[:min(len(f.Provenance), maxExplained)] {
		reasons = append(reasons, attest.Reason{Rule: RuleOrigins, Severity: attest.SeverityInfo, Message: p.explain()})
	}
	return reasons
}

// explain says in a line whose word the fields of a provenance are. It is for
// people, and part of the decision.
func (p ProvenanceFact) explain() string {
	bySource := map[string][]string{}
	for pointer, o := range p.origins {
		said := string(o.From)
		if o.VerifiedBy != "" {
			said += " verified by " + string(o.VerifiedBy)
		}
		if pointer == "" {
			pointer = "/ (all others)"
		}
		bySource[said] = append(bySource[said], pointer)
	}
	parts := []string{fmt.Sprintf("attestation %s of %s", p.Attestation, p.BuilderID)}
	if p.Level > 0 {
		parts[0] += fmt.Sprintf(" at level %d", p.Level)
	}
	if p.levelReason != "" {
		parts[0] += " (" + p.levelReason + ")"
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		slices.Sort(bySource[source])
		parts = append(parts, source+": "+strings.Join(bySource[source], " "))
	}
	if len(bySource) == 0 {
		parts = append(parts, "where its fields come from is not recorded")
	}
	return strings.Join(parts, "; ")
}

// remove takes out what some attestations said.
func (f *Facts) remove(gone map[string]bool) {
	f.Provenance = slices.DeleteFunc(f.Provenance, func(p ProvenanceFact) bool { return gone[p.Attestation] })
	f.SBOMs = slices.DeleteFunc(f.SBOMs, func(s SBOMFact) bool { return gone[s.Attestation] })
}

// A layout says where a build type has its external parameters, by their path
// with dots: all of them, and those that name the source.
type layout struct {
	parameters      []string
	repository, ref string
}

// layoutOf returns the layout of a build type that is known: GitHub's and those
// of the service itself, whose pages say the same.
func layoutOf(service, buildType string) (layout, bool) {
	if buildType == attest.GitHubWorkflowType {
		return layout{[]string{"workflow.path", "workflow.ref", "workflow.repository"}, "workflow.repository", "workflow.ref"}, true
	}
	t, ok := attest.DescribeBuildType(service, buildType)
	l := layout{repository: attest.ParameterRepository, ref: attest.ParameterRef}
	for _, p := range t.Parameters {
		l.parameters = append(l.parameters, p.Path)
	}
	return l, ok
}

// source reads repository, ref and commit from the external parameters of the
// build types that are known, and lists the parameters that are not. Of an
// unknown build type everything is unknown, so no expectation can match it.
func source(service string, b *attest.Build) (s Source, unknown []string) {
	l, ok := layoutOf(service, b.BuildType)
	if !ok {
		return s, append([]string{}, slices.Sorted(maps.Keys(b.ExternalParameters))...)
	}
	known, unknown := l.read("", b.ExternalParameters)
	slices.Sort(unknown)
	s.Repository, s.Ref = known[l.repository], known[l.ref]
	s.Commit = commit(b.Dependencies, fmt.Sprintf("git+%s@%s", s.Repository, s.Ref))
	return s, unknown
}

// read sorts what stands below a path: known parameters, which are texts, and
// whatever else is there. A name with a dot of its own is never known, as it
// would read as the path of another.
func (l layout) read(path string, members map[string]any) (known map[string]string, unknown []string) {
	known, unknown = map[string]string{}, []string{}
	for name, value := range members {
		full := path + name
		text, isText := value.(string)
		inner, isObject := value.(map[string]any)
		isParent := slices.ContainsFunc(l.parameters, func(p string) bool { return strings.HasPrefix(p, full+".") })
		switch {
		case strings.Contains(name, "."):
			unknown = append(unknown, full)
		case isText && slices.Contains(l.parameters, full):
			known[full] = text
		case isObject && isParent:
			k, u := l.read(full+".", inner)
			maps.Copy(known, k)
			unknown = append(unknown, u...)
		default:
			unknown = append(unknown, full)
		}
	}
	return known, unknown
}

// commit is that of the dependency named, and of nothing else; what the build
// itself named says nothing. Named twice with different commits, it is none.
func commit(dependencies []attest.Resource, uri string) string {
	var found []string
	for _, d := range dependencies {
		if d.URI == uri && !d.TenantSupplied {
			found = append(found, d.Digest["gitCommit"])
		}
	}
	if found = slices.Compact(found); len(found) != 1 {
		return ""
	}
	return found[0]
}
