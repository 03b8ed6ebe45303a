// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"provost/attest"
	"provost/verify"
)

// headOf is the predicate of an audit head with that hash.
func headOf(hash attest.Digest) string {
	return fmt.Sprintf(`{"seq":7,"hash":"%s","at":"2026-01-02T03:04:05Z"}`, hash)
}

// auditHead is a signed head whose hash is the artifact's digest.
func (r *realm) auditHead(t testing.TB) []byte {
	return encode(t, r.sealed(t, attest.PowerVerdict, statement(attest.AuditHeadType(service), headOf(app))))
}

func TestVerifyAuditHead(t *testing.T) {
	r := ours()
	kind := attest.AuditHeadType(service)
	sealed := func(p attest.Power, predicateType, predicate string) []byte {
		return encode(t, r.sealed(t, p, statement(predicateType, predicate)))
	}
	for _, c := range []struct {
		name   string
		bundle []byte
		want   verify.Step // "" believes it
	}{
		{"as it should be", r.auditHead(t), ""},
		{"of another service", sealed(attest.PowerVerdict, attest.AuditHeadType("https://other.example"), headOf(app)), verify.StepStatement},
		{"signed by the signer of SBOMs", sealed(attest.PowerEvidence, kind, headOf(app)), verify.StepIdentity},
		{"a verdict", sealed(attest.PowerVerdict, attest.VSAType, headOf(app)), verify.StepStatement},
		{"provenance", r.provenance(t), verify.StepStatement},
		{"of another hash than its subject", sealed(attest.PowerVerdict, kind, headOf(attest.SHA256(nil))), verify.StepSubject},
		{"of no record", sealed(attest.PowerVerdict, kind, strings.Replace(headOf(app), "7", "0", 1)), verify.StepStatement},
		{"by strangers", encode(t, strangers().sealed(t, attest.PowerVerdict, statement(kind, headOf(app)))), verify.StepTime},
		{"tampered with", edit(t, r.auditHead(t), func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = []byte(strings.Replace(string(b.GetDsseEnvelope().Payload), `"seq":7`, `"seq":6`, 1))
		}), verify.StepSignature},
		{"garbage", []byte("garbage"), verify.StepBundle},
		{"nothing", nil, verify.StepBundle},
	} {
		t.Run(c.name, func(t *testing.T) {
			head, at, err := r.trust.VerifyAuditHead(c.bundle)
			if c.want == "" {
				check(t, err)
				if head.Service != service || head.Seq != 7 || head.Hash != app || at.IsZero() {
					t.Errorf("believed %+v of %s", head, at)
				}
				return
			}
			if head != (attest.AuditHead{}) {
				t.Error("an error came with something believed")
			}
			wantRefused(t, nil, err, c.want)
		})
	}
	if _, _, err := (&verify.Trust{}).VerifyAuditHead(r.auditHead(t)); err == nil {
		t.Error("believed by nobody")
	}
}

// An audit head is no evidence, though its hash is the digest that is asked
// about; and what is stored as one is looked at all the same.
func TestDecideAboutAnAuditHead(t *testing.T) {
	r := ours()
	kind := attest.AuditHeadType(service)
	for _, c := range []struct {
		name    string
		found   func(*memory)
		want    attest.Verdict
		denying string // one of the rules
		inputs  int    // of the verdict
	}{
		{"alone", func(m *memory) { m.found(kind, r.auditHead(t)) }, attest.VerdictNoEvidence, "evidence.present", 0},
		{"stored as provenance", func(m *memory) { m.found(attest.ProvenanceType, r.auditHead(t)) }, attest.VerdictDeny, "slsa.provenance_present", 0},
		{"beside good evidence", func(m *memory) { m.found(kind, r.auditHead(t)); r.built(m, nil); r.listed(m) }, attest.VerdictPass, "", 2},
		{"signed by the signer of SBOMs", func(m *memory) {
			m.found(kind, encode(t, r.sealed(t, attest.PowerEvidence, statement(kind, headOf(app)))))
		}, attest.VerdictDeny, "slsa.provenance_present", 0},
		{"a revocation that is stored as one", func(m *memory) {
			r.listed(m)
			r.revoke(m, r.built(m, nil), "stolen")
			m.attestations[2].PredicateType = kind
		}, attest.VerdictDeny, "evidence.revocations", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			c.found(m)
			d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
			check(t, err)
			if d.Verdict != c.want || c.denying != "" && !slices.Contains(denying(d), c.denying) {
				t.Errorf("%v, denied by %q: want %v by %s", d.Verdict, denying(d), c.want, c.denying)
			}
			said, err := attest.ParseStatement(payloadOfVSA(t, d))
			check(t, err)
			vsa, err := attest.ParseVSA(said.Predicate)
			check(t, err)
			if len(vsa.InputAttestations) != c.inputs {
				t.Errorf("the verdict rests on %d attestations: want %d", len(vsa.InputAttestations), c.inputs)
			}
		})
	}
}

func payloadOfVSA(t *testing.T, d attest.Decision) []byte {
	t.Helper()
	payload, _, err := attest.OpenUnverified(d.VSA)
	check(t, err)
	return payload
}
