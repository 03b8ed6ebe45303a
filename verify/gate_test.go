// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	vsa "github.com/in-toto/attestation/go/predicates/vsa/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"provost/attest"
	"provost/verify"
	"provost/verify/policy"
)

var asker = attest.Caller{Issuer: "https://ci.example", Subject: "deployer", Grants: []attest.Grant{attest.GrantDecide}}

// environments: prod asks for an SBOM, edge does not.
func environments() map[string]policy.Environment {
	prod := policy.Environment{
		Builders: []policy.Builder{{ID: builderID, Level: 3}, {ID: builderID + "/old", Level: 1}},
		Sources:  []policy.Source{{Repository: repository, Refs: []string{mainBranch, "refs/tags/v*"}}},
	}
	edge := prod
	edge.SBOM = policy.SBOMOptional
	return map[string]policy.Environment{"prod": prod, "edge": edge}
}

var shipped = sync.OnceValue(func() *policy.Policy { return must(policy.New(environments())) })

func (r *realm) gate(m *memory) *verify.Gate {
	return &verify.Gate{
		Trust:   func() (*verify.Trust, error) { return r.trust, nil },
		Service: service, Version: "1.2.3", Evidence: m, Policy: shipped(),
		Issuer: r.issuer(m), Decisions: m, Now: r.clock.Now,
	}
}

func prod(name string) verify.Question {
	return verify.Question{Artifact: app, Name: name, Environment: "prod"}
}

// built is provenance of a build that change made another of.
func (r *realm) built(m *memory, change func(*attest.Build)) attest.Attestation {
	b := goodBuild()
	if change != nil {
		change(b)
	}
	return r.issue(m.t, m, b, attest.Provenance{})
}

func (r *realm) listed(m *memory) attest.Attestation {
	return r.issue(m.t, m, nil, attest.SBOM{Document: []byte(cycloneDXDoc)})
}

// from has a build come from another source.
func from(repository, ref string) func(*attest.Build) {
	return func(b *attest.Build) {
		b.ExternalParameters["workflow"].(map[string]any)["repository"] = repository
		b.ExternalParameters["workflow"].(map[string]any)["ref"] = ref
		b.Dependencies[0].URI = "git+" + repository + "@" + ref
	}
}

// found puts an attestation that no issuer made among the evidence.
func (m *memory) found(predicateType string, bundle []byte) {
	m.attestations = append(m.attestations, attest.Attestation{
		ID: attest.NewID(), PredicateType: predicateType, Subjects: []attest.Subject{{SHA256: app}}, Bundle: bundle,
	})
}

func denying(d attest.Decision) []string {
	var rules []string
	for _, r := range d.Reasons {
		if r.Severity != attest.SeverityInfo {
			rules = append(rules, r.Rule)
		}
	}
	slices.Sort(rules)
	return rules
}

// What was found, and what the answer is.
func TestDecide(t *testing.T) {
	r := ours()
	const (
		present   = "slsa.provenance_present"
		allowed   = "slsa.builder_allowed"
		source    = "slsa.source_matches_expectation"
		known     = "slsa.no_unknown_parameters"
		sound     = "time.sound"
		accepted  = "slsa.provenance_accepted"
		listed    = "sbom.present"
		evilFork  = "https://github.com/acme/app-evil"
		otherSize = builderID + "-large"
	)
	everything := []string{listed, allowed, known, accepted, present, source, sound}
	slices.Sort(everything)
	for _, c := range []struct {
		name    string
		found   func(*memory)
		want    attest.Verdict
		denying []string
		refused int // attestations that were not believed
	}{
		{"nothing", func(*memory) {}, attest.VerdictNoEvidence, []string{"evidence.present"}, 0},
		{"good provenance and an SBOM", func(m *memory) { r.built(m, nil); r.listed(m) }, attest.VerdictPass, nil, 0},
		{"all of it twice", func(m *memory) { r.built(m, nil); r.listed(m); r.built(m, nil); r.listed(m) }, attest.VerdictPass, nil, 0},
		{"a tag that is expected", func(m *memory) { r.built(m, from(repository, "refs/tags/v1.0")); r.listed(m) }, attest.VerdictPass, nil, 0},
		{"no SBOM", func(m *memory) { r.built(m, nil) }, attest.VerdictDeny, []string{listed}, 0},
		{"no provenance", func(m *memory) { r.listed(m) }, attest.VerdictDeny, []string{allowed, known, accepted, present, source, sound}, 0},
		{"another builder", func(m *memory) {
			r.built(m, func(b *attest.Build) { b.BuilderID = "https://builders.example/x" })
			r.listed(m)
		}, attest.VerdictDeny, []string{allowed, accepted}, 0},
		{"a builder that an allowed one begins like", func(m *memory) { r.built(m, func(b *attest.Build) { b.BuilderID = otherSize }); r.listed(m) }, attest.VerdictDeny, []string{allowed, accepted}, 0},
		{"another repository", func(m *memory) { r.built(m, from(evilFork, mainBranch)); r.listed(m) }, attest.VerdictDeny, []string{accepted, source}, 0},
		{"another branch", func(m *memory) { r.built(m, from(repository, "refs/heads/feature")); r.listed(m) }, attest.VerdictDeny, []string{accepted, source}, 0},
		{"a tag in a folder", func(m *memory) { r.built(m, from(repository, "refs/tags/v1/evil")); r.listed(m) }, attest.VerdictDeny, []string{accepted, source}, 0},
		{"a pull request that is called like the branch", func(m *memory) { r.built(m, from(repository, "refs/pull/1/refs/heads/main")); r.listed(m) }, attest.VerdictDeny, []string{accepted, source}, 0},
		{"no commit", func(m *memory) { r.built(m, func(b *attest.Build) { b.Dependencies = nil }); r.listed(m) }, attest.VerdictDeny, []string{accepted, source}, 0},
		{"a parameter that the build type does not have", func(m *memory) {
			r.built(m, func(b *attest.Build) { b.ExternalParameters["inputs"] = map[string]any{"debug": "true"} })
			r.listed(m)
		}, attest.VerdictDeny, []string{known, accepted}, 0},
		{"another build type", func(m *memory) {
			r.built(m, func(b *attest.Build) { b.BuildType = "https://builds.example/v1" })
			r.listed(m)
		}, attest.VerdictDeny, []string{known, accepted, source}, 0},
		{"provenance that is each half good", func(m *memory) {
			r.built(m, func(b *attest.Build) { b.BuilderID = otherSize })
			r.built(m, from(evilFork, mainBranch))
			r.listed(m)
		}, attest.VerdictDeny, []string{accepted}, 0},
		{"bad provenance beside good", func(m *memory) {
			r.built(m, from(evilFork, mainBranch))
			r.built(m, nil)
			r.listed(m)
		}, attest.VerdictPass, nil, 0},
		{"signed in the future", func(m *memory) {
			r.at(6*time.Minute, func() { r.built(m, nil); r.listed(m) })
		}, attest.VerdictDeny, []string{listed, accepted, sound}, 0},
		{"signed by a clock that is a little ahead", func(m *memory) {
			r.at(5*time.Minute, func() { r.built(m, nil); r.listed(m) })
		}, attest.VerdictPass, nil, 0},
		{"a verdict of before, stored as something else", func(m *memory) {
			r.issue(t, m, nil, verdictOf(true))
			m.attestations[0].PredicateType = "https://example.com/p"
		}, attest.VerdictDeny, everything, 1},
		{"garbage", func(m *memory) { m.found(attest.ProvenanceType, []byte("garbage")) }, attest.VerdictDeny, everything, 1},
		{"an empty bundle", func(m *memory) { m.found(attest.ProvenanceType, nil) }, attest.VerdictDeny, everything, 1},
		{"good evidence beside garbage", func(m *memory) {
			m.found(attest.ProvenanceType, []byte("garbage"))
			r.built(m, nil)
			r.listed(m)
			m.found("https://cyclonedx.org/bom", []byte("{}"))
		}, attest.VerdictPass, nil, 2},
		{"good evidence, each tampered with", func(m *memory) {
			r.built(m, nil)
			r.listed(m)
			for i, a := range m.attestations {
				m.attestations[i].Bundle = edit(t, a.Bundle, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload[9] ^= 1 })
			}
		}, attest.VerdictDeny, everything, 2},
		{"evidence of somebody else's service", func(m *memory) {
			m.found(attest.ProvenanceType, strangers().provenance(t))
		}, attest.VerdictDeny, everything, 1},
		{"provenance signed by the signer of SBOMs", func(m *memory) {
			r.listed(m)
			m.found(attest.ProvenanceType, encode(t, r.sealed(t, attest.PowerEvidence, payloadOf(t, r.provenance(t)))))
		}, attest.VerdictDeny, []string{allowed, known, accepted, present, source, sound}, 1},
		{"provenance stored as an SBOM", func(m *memory) {
			r.built(m, nil)
			m.attestations[0].PredicateType = "https://cyclonedx.org/bom"
		}, attest.VerdictDeny, everything, 1},
		{"provenance that is none, well signed", func(m *memory) {
			r.listed(m)
			m.found(attest.ProvenanceType, encode(t, r.sealed(t, attest.PowerProvenance, statement(attest.ProvenanceType, `{"buildDefinition":{}}`))))
		}, attest.VerdictDeny, []string{allowed, known, accepted, present, source, sound}, 1},
		{"a predicate that no rule reads", func(m *memory) {
			m.found("https://example.com/p", encode(t, r.sealed(t, attest.PowerEvidence, statement("https://example.com/p", `{}`))))
		}, attest.VerdictDeny, everything, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			c.found(m)
			before := len(m.attestations)
			d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
			check(t, err)
			if d.Verdict != c.want {
				t.Fatalf("%s; want %s: %+v", d.Verdict, c.want, d.Reasons)
			}
			if diff := cmp.Diff(c.denying, denying(d), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("rules that deny (-want +got):\n%s", diff)
			}
			refused := 0
			for _, reason := range d.Reasons {
				if reason.Rule == "evidence.verifies" {
					refused++
				}
				if reason.Message == "" {
					t.Errorf("%s says nothing", reason.Rule)
				}
			}
			if refused != c.refused {
				t.Errorf("%d attestations not believed; want %d: %+v", refused, c.refused, d.Reasons)
			}
			wantSummary(t, r, m, d, before-c.refused)
		})
	}
}

func payloadOf(t *testing.T, raw []byte) string {
	return string(decodeBundle(t, raw).GetDsseEnvelope().GetPayload())
}

// wantSummary asserts that a decision is recorded, and that its VSA is what the
// SLSA specification v1.2 asks for (verification_summary.md), to the word.
func wantSummary(t *testing.T, r *realm, m *memory, d attest.Decision, inputs int) {
	t.Helper()
	if len(m.decisions) != 1 || m.decisions[0].ID != d.ID || m.decisions[0].Verdict != d.Verdict {
		t.Fatalf("recorded %+v; want %+v", m.decisions, d)
	}
	v, err := r.trust.Verify(d.VSA, verify.Expect{
		Artifact: d.Artifact, Identity: verify.SignerIdentity(service, attest.PowerVerdict), PredicateType: attest.VSAType,
	})
	if err != nil {
		t.Fatalf("the VSA does not verify: %v", err)
	}
	if got := v.Statement(); len(got.Subjects) != 1 || v.Subject().Name != d.Name {
		t.Errorf("subjects %+v; want the artifact alone", got.Subjects)
	}
	stored := m.attestations[slices.IndexFunc(m.attestations, func(a attest.Attestation) bool { return a.ID == d.VSAID })]
	if string(stored.Bundle) != string(d.VSA) {
		t.Error("the VSA returned is not the one stored under its ID")
	}

	result, levels := "FAILED", []any{"FAILED"}
	if d.Verdict == attest.VerdictPass {
		result, levels = "PASSED", []any{"SLSA_BUILD_LEVEL_3"}
	}
	var reasons []any
	check(t, json.Unmarshal(must(json.Marshal(d.Reasons)), &reasons))
	var believed []any
	for _, a := range m.attestations {
		if _, err := r.trust.Verify(a.Bundle, verify.Expect{Artifact: app, Identity: verify.Identity{Issuer: service}, PredicateType: a.PredicateType}); err != nil || a.ID == d.VSAID {
			continue
		}
		if _, err := attest.ParseProvenance([]byte(predicateOf(t, a.Bundle))); a.PredicateType == attest.ProvenanceType && err != nil {
			continue
		}
		believed = append(believed, map[string]any{
			"uri": service + "/v1/attestations/" + a.ID, "digest": map[string]any{"sha256": attest.SHA256(a.Bundle).Hex()},
		})
	}
	if len(believed) != inputs {
		t.Errorf("%d attestations believed; want %d", len(believed), inputs)
	}
	want := map[string]any{
		"verifier":           map[string]any{"id": service, "version": map[string]any{"provost": "1.2.3"}},
		"timeVerified":       r.clock.Now().UTC().Format(time.RFC3339),
		"resourceUri":        verify.ResourceURI(d.Name, d.Artifact),
		"policy":             map[string]any{"uri": service + "/policies/" + d.Environment, "digest": map[string]any{"sha256": policyDigest(t, r, d.Environment)}},
		"verificationResult": result,
		"verifiedLevels":     levels,
		"slsaVersion":        "1.2",

		service + "/vsa/decision": d.ID,
		service + "/vsa/verdict":  d.Verdict.String(),
		service + "/vsa/reasons":  reasons,
	}
	if len(believed) > 0 {
		want["inputAttestations"] = believed
	}
	var got map[string]any
	check(t, json.Unmarshal(v.Statement().Predicate, &got))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("VSA (-want +got):\n%s", diff)
	}

	// in-toto's own binding reads it; it has no verifier.version.
	var theirs vsa.VerificationSummary
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(v.Statement().Predicate, &theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.GetVerifier().GetId() != service || theirs.GetVerificationResult() != result || theirs.GetResourceUri() == "" ||
		theirs.GetPolicy().GetUri() == "" || !theirs.GetTimeVerified().AsTime().Equal(d.At) || len(theirs.GetInputAttestations()) != inputs ||
		len(theirs.GetVerifiedLevels()) != 1 || theirs.GetSlsaVersion() != "1.2" {
		t.Errorf("in-toto's binding reads %+v", &theirs)
	}
	ourWay, err := attest.ParseVSA(v.Statement().Predicate)
	if err != nil || ourWay.VerificationResult != result {
		t.Errorf("ParseVSA = %+v, %v", ourWay, err)
	}
}

func predicateOf(t *testing.T, raw []byte) string {
	s, err := attest.ParseStatement([]byte(payloadOf(t, raw)))
	check(t, err)
	return string(s.Predicate)
}

// policyDigest is the digest that the policy itself gives, whatever the facts.
func policyDigest(t *testing.T, r *realm, environment string) string {
	j, err := shipped().Judge(t.Context(), environment, verify.Facts{Now: r.clock.Now(), Provenance: []verify.ProvenanceFact{}, SBOMs: []verify.SBOMFact{}})
	check(t, err)
	return j.Policy.Hex()
}

func TestDecideElsewhere(t *testing.T) {
	r, m := ours(), newMemory(t)
	r.built(m, func(b *attest.Build) { b.BuilderID = builderID + "/old" })
	edge := verify.Question{Artifact: app, Environment: "edge"}
	d, err := r.gate(m).Decide(t.Context(), asker, edge)
	check(t, err)
	if d.Verdict != attest.VerdictPass {
		t.Fatalf("without an SBOM where none is asked for: %s: %+v", d.Verdict, d.Reasons)
	}
	if s := predicateOf(t, d.VSA); !strings.Contains(s, `"verifiedLevels":["SLSA_BUILD_LEVEL_1"]`) || !strings.Contains(s, "/policies/edge") {
		t.Errorf("VSA: %s", s)
	}
	if d.Caller != "https://ci.example deployer" || d.Environment != "edge" || d.Artifact != app || !d.At.Equal(r.clock.Now()) || len(d.ID) != 26 {
		t.Errorf("decision %+v", d)
	}
	// The verdict of before is no evidence for the next.
	again, err := r.gate(m).Decide(t.Context(), asker, edge)
	check(t, err)
	if in, _ := attest.ParseVSA([]byte(predicateOf(t, again.VSA))); len(in.InputAttestations) != 1 {
		t.Errorf("rests on %+v; want the provenance alone", in.InputAttestations)
	}
	// Where an SBOM is asked for, the same evidence is not enough.
	if d, err := r.gate(m).Decide(t.Context(), asker, prod("")); err != nil || d.Verdict != attest.VerdictDeny {
		t.Errorf("in prod: %s, %v", d.Verdict, err)
	}
}

// A nonce comes back in the signed verdict, under a name of its own; none comes
// back where none was given.
func TestDecideNonce(t *testing.T) {
	r := ours()
	for _, nonce := range []string{"", "n", strings.Repeat("~", 64), `"}`} {
		m := newMemory(t)
		r.built(m, nil)
		q := prod("app")
		q.Nonce = nonce
		d, err := r.gate(m).Decide(t.Context(), asker, q)
		check(t, err)
		var got map[string]any
		check(t, json.Unmarshal([]byte(predicateOf(t, d.VSA)), &got))
		if said, ok := got[service+"/vsa/nonce"]; ok != (nonce != "") || ok && said != nonce {
			t.Errorf("nonce %q: the verdict says %v", nonce, said)
		}
	}
}

// wantNone asserts that there is no decision.
func wantNone(t *testing.T, m *memory, d attest.Decision, err, want error) {
	t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("error %v; want %v", err, want)
	}
	if d.Verdict != attest.VerdictError || d.VSA != nil || d.ID != "" || d.Reasons != nil {
		t.Errorf("with the error came %+v", d)
	}
	if len(m.decisions) != 0 {
		t.Errorf("recorded: %+v", m.decisions)
	}
}

// Whatever cannot be asked, looked up, signed or recorded gives an error and no
// verdict; above all it never gives NO_EVIDENCE, or a verdict that nobody
// remembers.
func TestDecideFailsClosed(t *testing.T) {
	r := ours()
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		fault func(*verify.Gate, *memory)
		want  error
	}{
		{"evidence cannot be read", func(_ *verify.Gate, m *memory) { m.failing("evidence", false, attest.ErrUnavailable) }, attest.ErrUnavailable},
		{"evidence is broken", func(_ *verify.Gate, m *memory) { m.failing("evidence", false, broken) }, broken},
		{"some evidence comes with an error", func(g *verify.Gate, m *memory) {
			all := m.attestations
			g.Evidence = evidence(func(attest.Query) ([]attest.Attestation, error) { return all, broken })
		}, broken},
		{"a store that never ends", func(g *verify.Gate, m *memory) {
			g.Evidence = evidence(func(q attest.Query) (page []attest.Attestation, err error) {
				for range q.Limit {
					page = append(page, m.attestations[0]) // with the same Seq
				}
				return page, nil
			})
		}, nil},
		{"a store that goes back", func(g *verify.Gate, m *memory) {
			g.Evidence = evidence(func(attest.Query) ([]attest.Attestation, error) {
				a, b := m.attestations[0], m.attestations[1]
				a.Seq, b.Seq = 2, 1
				return []attest.Attestation{a, b}, nil
			})
		}, nil},
		{"no trust root", func(g *verify.Gate, _ *memory) {
			g.Trust = func() (*verify.Trust, error) { return nil, attest.ErrUnavailable }
		}, attest.ErrUnavailable},
		{"the signer of verdicts is missing", func(g *verify.Gate, _ *memory) { delete(g.Issuer.Signers, attest.PowerVerdict) }, nil},
		{"the signer fails", func(g *verify.Gate, _ *memory) {
			g.Issuer.Signers[attest.PowerVerdict] = failingSigner{attest.ErrUnavailable}
		}, attest.ErrUnavailable},
		{"the signer signs something else", func(g *verify.Gate, _ *memory) {
			g.Issuer.Signers[attest.PowerVerdict] = wrongSigner{r.authority.Signer(attest.PowerVerdict)}
		}, attest.ErrSelfCheck},
		{"the intent cannot be stored", func(_ *verify.Gate, m *memory) { m.failing("intent", false, attest.ErrUnavailable) }, attest.ErrUnavailable},
		{"the VSA cannot be stored", func(_ *verify.Gate, m *memory) { m.failing("attestation", false, attest.ErrUnavailable) }, attest.ErrUnavailable},
		{"the VSA is stored but not confirmed", func(_ *verify.Gate, m *memory) { m.failing("attestation", true, attest.ErrUnavailable) }, attest.ErrUnavailable},
		{"the decision cannot be stored", func(_ *verify.Gate, m *memory) { m.failing("decision", false, attest.ErrUnavailable) }, attest.ErrUnavailable},
		{"a decision of ERROR cannot be stored", func(g *verify.Gate, m *memory) {
			g.Policy = judge(func(verify.Facts) (verify.Judgement, error) { return verify.Judgement{}, broken })
			m.failing("decision", false, attest.ErrUnavailable)
		}, attest.ErrUnavailable},
		{"a decision of a policy without rules cannot be stored", func(g *verify.Gate, m *memory) {
			g.Policy = judge(func(verify.Facts) (verify.Judgement, error) { return verify.Judgement{}, nil })
			m.failing("decision", false, attest.ErrUnavailable)
		}, attest.ErrUnavailable},
		{"the policy knows no such environment", func(g *verify.Gate, _ *memory) {
			g.Policy = judge(func(verify.Facts) (verify.Judgement, error) { return verify.Judgement{}, attest.ErrNotFound })
		}, attest.ErrNotFound},
		{"the service has no name", func(g *verify.Gate, _ *memory) { g.Service = "" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			r.built(m, nil)
			r.listed(m)
			g := r.gate(m)
			c.fault(g, m)
			d, err := g.Decide(t.Context(), asker, prod("app"))
			wantNone(t, m, d, err, c.want)
		})
	}
}

// A store that fails and yet has the decision: the caller gets no verdict.
func TestDecideStoredButNotConfirmed(t *testing.T) {
	r, m := ours(), newMemory(t)
	r.built(m, nil)
	r.listed(m)
	m.failing("decision", true, attest.ErrUnavailable)
	d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
	if !errors.Is(err, attest.ErrUnavailable) || d.Verdict != attest.VerdictError || d.VSA != nil {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestDecideCancelled(t *testing.T) {
	r, m := ours(), newMemory(t)
	r.built(m, nil)
	ctx, cancel := context.WithCancel(t.Context())
	g := r.gate(m)
	g.Policy = judge(func(verify.Facts) (verify.Judgement, error) { cancel(); return verify.Judgement{}, ctx.Err() })
	d, err := g.Decide(ctx, asker, prod("app"))
	wantNone(t, m, d, err, context.Canceled)
}

// With more evidence than is read the verdict is ERROR, and says so: one of
// those left out might have been the one that matters.
func TestDecideBeyondTheLimit(t *testing.T) {
	r := ours()
	for name, pile := range map[string]func(*memory){
		"too many": func(m *memory) {
			first := m.attestations[0]
			first.Bundle = []byte("{}")
			for len(m.attestations) <= 1000 {
				m.attestations = append(m.attestations, first)
			}
		},
		"too large": func(m *memory) {
			large := m.attestations[0]
			large.Bundle = make([]byte, 16<<20)
			for range 17 {
				m.attestations = append(m.attestations, large)
			}
		},
	} {
		m := newMemory(t)
		r.built(m, nil)
		r.listed(m)
		pile(m)
		d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
		if err != nil || d.Verdict != attest.VerdictError || d.VSA != nil || len(d.Reasons) != 1 || d.Reasons[0].Rule != "evidence.bounded" {
			t.Errorf("%s: %s %v, %v", name, d.Verdict, d.Reasons, err)
		}
		if len(m.decisions) != 1 {
			t.Errorf("%s: %d decisions are recorded", name, len(m.decisions))
		}
	}
}

// With exactly as much evidence as is read, there is an answer.
func TestDecideAtTheLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("verifies a thousand bundles")
	}
	r, m := ours(), newMemory(t)
	r.built(m, nil)
	r.listed(m)
	for len(m.attestations) < 1000 {
		m.attestations = append(m.attestations, m.attestations[len(m.attestations)%2])
	}
	d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
	if err != nil || d.Verdict != attest.VerdictPass {
		t.Errorf("%s, %v", d.Verdict, err)
	}
}

type evidence func(attest.Query) ([]attest.Attestation, error)

func (e evidence) Attestations(_ context.Context, q attest.Query) ([]attest.Attestation, error) {
	return e(q)
}

type judge func(verify.Facts) (verify.Judgement, error)

func (j judge) Judge(_ context.Context, _ string, f verify.Facts) (verify.Judgement, error) {
	return j(f)
}

type failingSigner struct{ err error }

func (s failingSigner) Sign(context.Context, []byte) (attest.Signature, error) {
	return attest.Signature{}, s.err
}

type wrongSigner struct{ attest.Signer }

func (s wrongSigner) Sign(ctx context.Context, _ []byte) (attest.Signature, error) {
	return s.Signer.Sign(ctx, []byte("something else"))
}

func TestDecideRefuses(t *testing.T) {
	r := ours()
	with := func(change func(*verify.Question)) verify.Question {
		q := prod("app")
		change(&q)
		return q
	}
	environment := func(name string) verify.Question {
		return with(func(q *verify.Question) { q.Environment = name })
	}
	for name, c := range map[string]struct {
		caller attest.Caller
		q      verify.Question
		want   error
	}{
		"nobody":                        {attest.Caller{}, prod("app"), attest.ErrDenied},
		"who may do all but decide":     {attest.Caller{Issuer: "i", Subject: "s", Grants: slices.DeleteFunc(slices.Clone(attest.Grants), func(g attest.Grant) bool { return g == attest.GrantDecide })}, prod("app"), attest.ErrDenied},
		"who may decide in other words": {attest.Caller{Issuer: "i", Subject: "s", Grants: []attest.Grant{"Decide", "decide ", "*"}}, prod("app"), attest.ErrDenied},
		"no artifact":                   {asker, with(func(q *verify.Question) { q.Artifact = attest.Digest{} }), attest.ErrInvalid},
		"an artifact by its sha512": {asker, with(func(q *verify.Question) {
			q.Artifact = must(attest.ParseDigest("sha512:" + strings.Repeat("a", 128)))
		}), attest.ErrInvalid},
		"a name too long":              {asker, prod(strings.Repeat("a", attest.MaxSubjectName+1)), attest.ErrInvalid},
		"a name with a terminal's say": {asker, prod("app\x1b[2J"), attest.ErrInvalid},
		"a name of two lines":          {asker, prod("app\nPASS"), attest.ErrInvalid},
		"a name that is not UTF-8":     {asker, prod("app\xff"), attest.ErrInvalid},
		"a nonce too long":             {asker, with(func(q *verify.Question) { q.Nonce = strings.Repeat("n", 65) }), attest.ErrInvalid},
		"a nonce with a space":         {asker, with(func(q *verify.Question) { q.Nonce = "a b" }), attest.ErrInvalid},
		"a nonce of two lines":         {asker, with(func(q *verify.Question) { q.Nonce = "a\n" }), attest.ErrInvalid},
		"a nonce that is not ASCII":    {asker, with(func(q *verify.Question) { q.Nonce = "é" }), attest.ErrInvalid},
		"a nonce that is not UTF-8":    {asker, with(func(q *verify.Question) { q.Nonce = "\xff" }), attest.ErrInvalid},
		"no environment":               {asker, environment(""), attest.ErrInvalid},
		"an unknown environment":       {asker, environment("production"), attest.ErrNotFound},
		"a prefix of an environment":   {asker, environment("pro"), attest.ErrNotFound},
		"an environment in capitals":   {asker, environment("Prod"), attest.ErrInvalid},
		"an environment and a line":    {asker, environment("prod\n"), attest.ErrInvalid},
		"an environment and a space":   {asker, environment("prod "), attest.ErrInvalid},
		"a path":                       {asker, environment("../prod"), attest.ErrInvalid},
		"a path inside":                {asker, environment("prod/../edge"), attest.ErrInvalid},
		"two dots":                     {asker, environment(".."), attest.ErrInvalid},
		"a dash at the end":            {asker, environment("prod-"), attest.ErrInvalid},
		"a query":                      {asker, environment("prod?x"), attest.ErrInvalid},
		"a letter that looks like one": {asker, environment("prоd"), attest.ErrInvalid},
		"65 letters":                   {asker, environment(strings.Repeat("a", 65)), attest.ErrInvalid},
		"64 letters":                   {asker, environment(strings.Repeat("a", 64)), attest.ErrNotFound},
		"one letter":                   {asker, environment("p"), attest.ErrNotFound},
		"dots, dashes, digits, lines":  {asker, environment("eu-west_1.prod.2"), attest.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t)
			r.built(m, nil)
			r.listed(m)
			g, asked := r.gate(m), false
			g.Evidence = evidence(func(q attest.Query) ([]attest.Attestation, error) {
				asked = true
				return m.Attestations(t.Context(), q)
			})
			d, err := g.Decide(t.Context(), c.caller, c.q)
			wantNone(t, m, d, err, c.want)
			if asked && c.want != attest.ErrNotFound {
				t.Error("a refused question was looked into")
			}
			if len(m.intents) != 2 {
				t.Error("something was signed")
			}
		})
	}
}

// A policy that cannot be evaluated, or says too little, makes ERROR, which is
// recorded and carries no VSA.
func TestDecidePolicyErrors(t *testing.T) {
	r := ours()
	holds := attest.Reason{Rule: "a", Severity: attest.SeverityInfo, Message: "holds"}
	good := verify.Judgement{Reasons: []attest.Reason{holds}, Required: []string{"a"}, Evaluated: []string{"a"}, Level: 2, Policy: app}
	with := func(change func(*verify.Judgement)) verify.Judgement {
		j := good
		change(&j)
		return j
	}
	for _, c := range []struct {
		name string
		says verify.Judgement
		err  error
		want attest.Verdict
		rule string // what denies
	}{
		{"as it should", good, nil, attest.VerdictPass, ""},
		{"it fails", good, errors.New("broken"), attest.VerdictError, "policy"},
		{"it runs out of time", good, context.DeadlineExceeded, attest.VerdictError, "policy"},
		{"it evaluates nothing", with(func(j *verify.Judgement) { j.Evaluated = nil }), nil, attest.VerdictError, "a"},
		{"it evaluates too little", with(func(j *verify.Judgement) { j.Required = []string{"a", "b"} }), nil, attest.VerdictError, "b"},
		{"it evaluates something else", with(func(j *verify.Judgement) { j.Evaluated = []string{"A", "a "} }), nil, attest.VerdictError, "a"},
		{"it evaluates too little and denies", with(func(j *verify.Judgement) {
			j.Evaluated, j.Reasons = nil, []attest.Reason{{Rule: "a", Severity: attest.SeverityDeny, Message: "no"}}
		}), nil, attest.VerdictError, "a"},
		{"it requires nothing", with(func(j *verify.Judgement) { j.Required = nil }), nil, attest.VerdictError, "policy"},
		{"it says nothing", verify.Judgement{}, nil, attest.VerdictError, "policy"},
		{"it has no digest", with(func(j *verify.Judgement) { j.Policy = attest.Digest{} }), nil, attest.VerdictError, "policy"},
		{"it claims a level there is not", with(func(j *verify.Judgement) { j.Level = 4 }), nil, attest.VerdictError, "policy"},
		{"it claims a level below zero", with(func(j *verify.Judgement) { j.Level = -1 }), nil, attest.VerdictError, "policy"},
		{"it denies", with(func(j *verify.Judgement) {
			j.Reasons = []attest.Reason{holds, {Rule: "a", Severity: attest.SeverityDeny, Message: "no"}}
		}), nil, attest.VerdictDeny, "a"},
		{"it denies in its own words", with(func(j *verify.Judgement) {
			j.Reasons = []attest.Reason{holds, {Rule: "a", Severity: "Deny", Message: "no"}}
		}), nil, attest.VerdictDeny, "a"},
		{"it warns", with(func(j *verify.Judgement) {
			j.Reasons = []attest.Reason{holds, {Rule: "a", Severity: "warn", Message: "no"}}
		}), nil, attest.VerdictDeny, "a"},
		{"a reason without severity", with(func(j *verify.Judgement) { j.Reasons = []attest.Reason{{Rule: "a", Message: "no"}} }), nil, attest.VerdictDeny, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			r.built(m, nil)
			g := r.gate(m)
			g.Policy = judge(func(verify.Facts) (verify.Judgement, error) { return c.says, c.err })
			d, err := g.Decide(t.Context(), asker, prod("app"))
			check(t, err)
			if d.Verdict != c.want {
				t.Fatalf("%s; want %s", d.Verdict, c.want)
			}
			if len(m.decisions) != 1 || m.decisions[0].Verdict != c.want || len(m.decisions[0].Reasons) == 0 {
				t.Errorf("recorded %+v", m.decisions)
			}
			if c.rule != "" && !slices.Contains(denying(d), c.rule) {
				t.Errorf("denies for %v; want %s", denying(d), c.rule)
			}
			if signed := len(m.attestations) > 1; signed != (c.want != attest.VerdictError) {
				t.Errorf("signed: %t", signed)
			}
			for _, r := range d.Reasons {
				if strings.Contains(r.Message, "broken") {
					t.Errorf("an inner error is told to the caller: %q", r.Message)
				}
			}
		})
	}
}

// Of every set of evidence: what a set passes with, no larger set fails with.
// So taking an attestation away never turns a no into a yes.
func TestTakingEvidenceAwayNeverPasses(t *testing.T) {
	r := ours()
	m := newMemory(t)
	r.built(m, nil)
	r.listed(m)
	r.built(m, from("https://github.com/acme/app-evil", mainBranch))
	r.built(m, func(b *attest.Build) { b.BuilderID = "https://builders.example/x" })
	r.built(m, func(b *attest.Build) { b.ExternalParameters["inputs"] = "x" })
	m.found(attest.ProvenanceType, []byte("garbage"))
	r.at(time.Hour, func() { r.built(m, nil) })
	all := slices.Clone(m.attestations)

	passes := make([]bool, 1<<len(all))
	for set := range passes {
		var some []attest.Attestation
		for i, a := range all {
			if set&(1<<i) != 0 {
				some = append(some, a)
			}
		}
		m := newMemory(t)
		g := r.gate(m)
		m.attestations = some
		d, err := g.Decide(t.Context(), asker, prod("app"))
		check(t, err)
		passes[set] = d.Verdict == attest.VerdictPass
		if d.Verdict == attest.VerdictError || (d.Verdict == attest.VerdictNoEvidence) != (set == 0) {
			t.Errorf("set %b: %s", set, d.Verdict)
		}
		if want := set&0b11 == 0b11; passes[set] != want { // good provenance and an SBOM
			t.Errorf("set %b: %s; passing was expected to be %t", set, d.Verdict, want)
		}
	}
	for set := range passes {
		for i := range all {
			if less := set &^ (1 << i); passes[less] && !passes[set] {
				t.Errorf("set %b is refused, and passes without %d", set, i)
			}
		}
	}
}

func TestResourceURI(t *testing.T) {
	d := attest.SHA256([]byte("app"))
	generic := func(path string) string { return "pkg:generic/" + path + "?checksum=" + d.String() }
	for _, c := range []struct{ name, want string }{
		// A URI is a name like any other: whoever asks does not choose what
		// the verdict vouches for.
		{"pkg:npm/%40acme/app@1.0.0", generic("pkg:npm/%2540acme/app%401.0.0")},
		{"https://example.com/app.tar.gz", generic("https:/example.com/app.tar.gz")},
		{"", generic(d.Hex())},
		{"/", generic(d.Hex())},
		{"app", generic("app")},
		{"/usr/bin/app", generic("usr/bin/app")},
		{"dist//app", generic("dist/app")},
		{"app:1.0", generic("app:1.0")},
		{"registry.example:5000/acme/app:1.0", generic("registry.example:5000/acme/app:1.0")},
		{"app@1.0", generic("app%401.0")},
		{"app?checksum=sha256:0", generic("app%3Fchecksum%3Dsha256:0")},
		{"app#x", generic("app%23x")},
		{"my app+1", generic("my%20app%2B1")},
		{"50%", generic("50%25")},
		{"übung", generic("%C3%BCbung")},
		{`C:\app.exe`, generic("C:%5Capp.exe")},
		{"javascript:alert(1)", generic("javascript:alert%281%29")},
		{"pkg:", generic("pkg:")},
		{"https://", generic("https:")},
	} {
		if got := verify.ResourceURI(c.name, d); got != c.want {
			t.Errorf("ResourceURI(%q) = %q; want %q", c.name, got, c.want)
		}
	}
}
