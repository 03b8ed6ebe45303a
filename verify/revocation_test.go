// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
	"provost/verify"
)

// revoke has a real issuer take an attestation back.
func (r *realm) revoke(m *memory, a attest.Attestation, reason string) attest.Attestation {
	m.t.Helper()
	request := must(attest.Revoke(service, a, reason, r.clock.Now()))
	caller := attest.Caller{Issuer: "https://idp.example", Subject: "responder", Grants: []attest.Grant{attest.GrantRevoke}}
	revoked, err := r.issuer(m).Issue(m.t.Context(), caller, request)
	check(m.t, err)
	return revoked
}

// revocation is the predicate that takes a bundle back.
func revocation(t testing.TB, raw []byte) string {
	payload, signature, err := attest.OpenUnverified(raw)
	check(t, err)
	n := attest.NameOf(payload, signature)
	return `{"revoked":[{"id":"x","message":{"sha256":"` + n.Message["sha256"] + `"},"signature":{"sha256":"` + n.Signature["sha256"] + `"}}],"reason":"because"}`
}

func TestVerifyRevocation(t *testing.T) {
	r := ours()
	kind := attest.RevocationType(service)
	good := r.provenance(t)
	sealed := func(p attest.Power, predicateType, predicate string) []byte {
		return encode(t, r.sealed(t, p, statement(predicateType, predicate)))
	}
	says := revocation(t, good)
	v, err := r.trust.Verify(good, verify.Expect{Artifact: app})
	check(t, err)
	for _, c := range []struct {
		name    string
		bundle  []byte
		service string
		want    verify.Step // "" believes it
	}{
		{"as it should be", sealed(attest.PowerVerdict, kind, says), service, ""},
		{"of the service that signed it", sealed(attest.PowerVerdict, kind, says), "", ""},
		{"of another service than expected", sealed(attest.PowerVerdict, kind, says), "https://other.example", verify.StepIdentity},
		{"for another service", sealed(attest.PowerVerdict, attest.RevocationType("https://other.example"), says), service, verify.StepStatement},
		{"signed by the signer of SBOMs", sealed(attest.PowerEvidence, kind, says), service, verify.StepIdentity},
		{"signed by the signer of provenance", sealed(attest.PowerProvenance, kind, says), "", verify.StepIdentity},
		{"a verdict", sealed(attest.PowerVerdict, attest.VSAType, says), service, verify.StepStatement},
		{"provenance", good, service, verify.StepStatement},
		{"of nothing", sealed(attest.PowerVerdict, kind, `{"revoked":[]}`), service, verify.StepStatement},
		{"of something without a name", sealed(attest.PowerVerdict, kind, `{"revoked":[{"id":"x"}]}`), service, verify.StepStatement},
		{"by strangers", encode(t, strangers().sealed(t, attest.PowerVerdict, statement(kind, says))), service, verify.StepTime},
		{"tampered with", edit(t, sealed(attest.PowerVerdict, kind, says), func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = []byte(strings.Replace(string(b.GetDsseEnvelope().Payload), "because", "Because", 1))
		}), service, verify.StepSignature},
		{"garbage", []byte("garbage"), service, verify.StepBundle},
		{"nothing", nil, service, verify.StepBundle},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := r.trust.VerifyRevocation(c.bundle, c.service)
			if c.want == "" {
				check(t, err)
				wantRefused(t, nil, verify.Revocations{got}.Check(v), verify.StepRevoked)
				if got.Said().Service != service || got.SignedAt().IsZero() {
					t.Errorf("believed %+v", got.Said())
				}
				return
			}
			if got != nil {
				t.Error("an error came with something believed")
			}
			wantRefused(t, nil, err, c.want)
		})
	}
	var none verify.Revocations
	if none.Check(v) != nil || (verify.Revocations{{}}).Check(v) != nil {
		t.Error("nothing takes something back")
	}
	if _, err := (&verify.Trust{}).VerifyRevocation(sealed(attest.PowerVerdict, kind, says), service); err == nil {
		t.Error("believed by nobody")
	}
}

// What is taken back stays so in whatever bundle it is put, and nothing else is.
func TestRevocationNames(t *testing.T) {
	r := ours()
	good, other := r.provenance(t), r.provenance(t) // the same payload, signed twice
	taken := must(r.trust.VerifyRevocation(encode(t, r.sealed(t, attest.PowerVerdict, statement(attest.RevocationType(service), revocation(t, good)))), service))
	flipped := func() []byte { // (r, n-s) of (r, s), stamped again
		b := decodeBundle(t, good)
		var sig struct{ R, S *big.Int }
		_, err := asn1.Unmarshal(signatureOf(b), &sig)
		check(t, err)
		sig.S.Sub(elliptic.P256().Params().N, sig.S)
		return encode(t, r.assemble(t, b.GetDsseEnvelope().GetPayload(), attest.Signature{DER: must(asn1.Marshal(sig)), Certificate: leafOf(b)}))
	}()
	for _, c := range []struct {
		name    string
		bundle  []byte
		revoked bool
	}{
		{"the very one", good, true},
		{"with white space", slices.Concat([]byte(" "), good), true},
		{"with another timestamp", encode(t, r.assemble(t, []byte(payloadOf(t, good)), attest.Signature{DER: signatureOf(decodeBundle(t, good)), Certificate: leafOf(decodeBundle(t, good))})), true},
		{"with the other form of its signature", flipped, true},
		{"the same said again", other, false},
		{"another", r.issue(t, newMemory(t), nil, attest.SBOM{Document: []byte(cycloneDXDoc)}).Bundle, false},
	} {
		v, err := r.trust.Verify(c.bundle, verify.Expect{Artifact: app})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		err = verify.Revocations{taken}.Check(v)
		if c.revoked {
			wantRefused(t, nil, err, verify.StepRevoked)
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// The gate obeys what was taken back, in whatever order it was stored, and does
// not pass over what it cannot believe.
func TestDecideRevoked(t *testing.T) {
	r := ours()
	kind := attest.RevocationType(service)
	spoil := func(m *memory, i int) {
		m.attestations[i].Bundle = edit(t, m.attestations[i].Bundle, func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = append(b.GetDsseEnvelope().Payload, ' ')
		})
	}
	for _, c := range []struct {
		name    string
		found   func(*memory)
		want    attest.Verdict
		refused []string // in the reasons
	}{
		{"nothing taken back", func(m *memory) { r.built(m, nil); r.listed(m) }, attest.VerdictPass, nil},
		{"the provenance taken back", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, a, "stolen job")
		}, attest.VerdictDeny, []string{"is not believed: revoked: taken back at", "stolen job"}},
		{"the SBOM taken back", func(m *memory) { r.built(m, nil); r.revoke(m, r.listed(m), "") }, attest.VerdictDeny, []string{"revoked: taken back at"}},
		{"all of it taken back", func(m *memory) {
			for _, a := range []attest.Attestation{r.built(m, nil), r.listed(m)} {
				r.revoke(m, a, "")
			}
		}, attest.VerdictDeny, []string{"revoked:"}},
		{"taken back, and stored before", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, a, "")
			slices.Reverse(m.attestations)
		}, attest.VerdictDeny, []string{"revoked:"}},
		{"taken back on another page", func(m *memory) {
			a := r.built(m, nil)
			for range 9 {
				r.listed(m)
			}
			r.revoke(m, a, "")
		}, attest.VerdictDeny, []string{"revoked:"}},
		{"taken back, and said again", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, a, "")
			r.built(m, nil)
		}, attest.VerdictPass, []string{"revoked:"}},
		{"bad provenance taken back beside good", func(m *memory) {
			r.revoke(m, r.built(m, from("https://github.com/acme/other", mainBranch)), "")
			r.built(m, nil)
			r.listed(m)
		}, attest.VerdictPass, []string{"revoked:"}},
		{"taken back twice", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, a, "")
			r.revoke(m, a, "")
		}, attest.VerdictDeny, []string{"revoked:"}},
		{"taken back, and that taken back: there is no way back", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, r.revoke(m, a, "stolen job"), "sorry")
		}, attest.VerdictDeny, []string{"stolen job"}},
		{"a revocation alone", func(m *memory) {
			elsewhere := newMemory(t)
			r.revoke(m, r.built(elsewhere, nil), "")
		}, attest.VerdictDeny, nil},
		{"what would take it back, signed by the signer of SBOMs", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			m.found("https://example.com/p", encode(t, r.sealed(t, attest.PowerEvidence, statement("https://example.com/p", revocation(t, a.Bundle)))))
		}, attest.VerdictPass, nil},
		{"what would take it back for another service", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			other := attest.RevocationType("https://other.example")
			m.found(other, encode(t, r.sealed(t, attest.PowerVerdict, statement(other, revocation(t, a.Bundle)))))
		}, attest.VerdictPass, nil},
		{"a revocation by strangers for their service", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			other := attest.RevocationType("https://other.example")
			m.found(other, encode(t, strangers().sealed(t, attest.PowerVerdict, statement(other, revocation(t, a.Bundle)))))
		}, attest.VerdictPass, []string{"is not believed: time:"}},

		// What would take something back and is not believed: denied.
		{"a revocation tampered with", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, a, "")
			spoil(m, 2)
		}, attest.VerdictDeny, []string{"takes others back and is not believed: signature:"}},
		{"a revocation of something else tampered with", func(m *memory) {
			r.built(m, nil)
			r.revoke(m, r.listed(m), "")
			r.listed(m)
			spoil(m, 2)
		}, attest.VerdictDeny, []string{"takes others back and is not believed: signature:"}},
		{"a revocation stored as something else", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			r.revoke(m, a, "")
			m.attestations[2].PredicateType = "https://cyclonedx.org/bom"
		}, attest.VerdictDeny, []string{"takes others back and is not believed: statement:"}},
		{"something else stored as a revocation", func(m *memory) {
			r.built(m, nil)
			r.listed(m)
			r.listed(m)
			m.attestations[2].PredicateType = kind
		}, attest.VerdictDeny, []string{"takes others back and is not believed"}},
		{"garbage stored as a revocation", func(m *memory) {
			r.built(m, nil)
			r.listed(m)
			m.found(kind, []byte("garbage"))
		}, attest.VerdictDeny, []string{"takes others back and is not believed: bundle:"}},
		{"a revocation that the signer of SBOMs signed", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			m.found(kind, encode(t, r.sealed(t, attest.PowerEvidence, statement(kind, revocation(t, a.Bundle)))))
		}, attest.VerdictDeny, []string{"takes others back and is not believed: identity:"}},
		{"a revocation that says nothing, well signed", func(m *memory) {
			r.built(m, nil)
			r.listed(m)
			m.found(kind, encode(t, r.sealed(t, attest.PowerVerdict, statement(kind, `{}`))))
		}, attest.VerdictDeny, []string{"takes others back and is not believed: statement:"}},
		{"a doubtful revocation that was settled, and what it took back as well", func(m *memory) {
			a := r.built(m, nil)
			r.listed(m)
			doubtful := r.revoke(m, a, "")
			spoil(m, 2)
			doubtful.Bundle = m.attestations[2].Bundle
			r.revoke(m, a, "again")
			r.revoke(m, doubtful, "settled")
		}, attest.VerdictDeny, []string{"again", "settled"}},
		{"a doubtful revocation of something that is not needed, settled", func(m *memory) {
			r.built(m, nil)
			doubtful := r.revoke(m, r.listed(m), "")
			r.listed(m)
			spoil(m, 2)
			doubtful.Bundle = m.attestations[2].Bundle
			r.revoke(m, doubtful, "settled")
		}, attest.VerdictPass, []string{"settled"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			c.found(m)
			d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
			check(t, err)
			if d.Verdict != c.want {
				t.Fatalf("%s; want %s: %+v", d.Verdict, c.want, d.Reasons)
			}
			var text strings.Builder
			for _, reason := range d.Reasons {
				if strings.HasPrefix(reason.Rule, "evidence.") {
					text.WriteString(reason.Message + "\n")
				}
				if reason.Rule == "evidence.revocations" && (reason.Severity != attest.SeverityDeny || c.want != attest.VerdictDeny) {
					t.Errorf("%+v", reason)
				}
			}
			for _, want := range c.refused {
				if !strings.Contains(text.String(), want) {
					t.Errorf("no reason says %q:\n%s", want, text.String())
				}
			}
			if c.refused == nil && strings.Contains(text.String(), "revoked") {
				t.Errorf("something was taken back:\n%s", text.String())
			}
		})
	}
}

// A revoked attestation is no input of the verdict; the revocation is.
func TestDecideRevokedInputs(t *testing.T) {
	r, m := ours(), newMemory(t)
	gone := r.built(m, nil)
	taken := r.revoke(m, gone, "")
	kept := []attest.Attestation{r.listed(m), r.built(m, nil)}
	d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
	check(t, err)
	v, err := r.trust.Verify(d.VSA, verify.Expect{Artifact: app})
	check(t, err)
	said, err := attest.ParseVSA(v.Statement().Predicate)
	check(t, err)
	var inputs []string
	for _, in := range said.InputAttestations {
		inputs = append(inputs, strings.TrimPrefix(in.URI, service+"/v1/attestations/"))
	}
	if want := []string{taken.ID, kept[0].ID, kept[1].ID}; d.Verdict != attest.VerdictPass || !slices.Equal(inputs, want) {
		t.Errorf("%s on %v; want PASS on %v", d.Verdict, inputs, want)
	}
}

// A verdict's signer that lost its trust over the time of a revocation brings
// nothing back.
func TestDecideRevokedInAHole(t *testing.T) {
	r, m := ours(), newMemory(t)
	r.listed(m)
	gone := r.built(m, nil)
	r.at(10*time.Second, func() { r.revoke(m, gone, "") })
	hole := must(verify.ParseTrust(editRoot(t, r.root, func(p *prototrustroot.TrustedRoot) {
		now := r.clock.Now()
		for _, before := range p.CertificateAuthorities {
			before.ValidFor.End = timestamppb.New(now)
			p.CertificateAuthorities = append(p.CertificateAuthorities, &prototrustroot.CertificateAuthority{
				CertChain: before.CertChain, ValidFor: &protocommon.TimeRange{Start: timestamppb.New(now.Add(20 * time.Second))},
			})
		}
	})))
	r.at(time.Minute, func() {
		g := r.gate(m)
		g.Trust = func() (*verify.Trust, error) { return hole, nil }
		r.built(m, nil)
		d, err := g.Decide(t.Context(), asker, prod("app"))
		check(t, err)
		if d.Verdict != attest.VerdictDeny || !slices.Equal(denying(d), []string{"evidence.revocations"}) {
			t.Errorf("%s: %+v", d.Verdict, d.Reasons)
		}
	})
}

// A policy that makes something of nothing does not pass what was taken back.
func TestDecideNeverPassesOnNothingBelieved(t *testing.T) {
	r, m := ours(), newMemory(t)
	r.revoke(m, r.built(m, nil), "")
	g := r.gate(m)
	g.Policy = judge(func(verify.Facts) (verify.Judgement, error) {
		return verify.Judgement{Required: []string{"a"}, Evaluated: []string{"a"}, Policy: app}, nil
	})
	d, err := g.Decide(t.Context(), asker, prod("app"))
	check(t, err)
	if d.Verdict != attest.VerdictDeny || !slices.Equal(denying(d), []string{"evidence.believed"}) {
		t.Errorf("%s: %+v", d.Verdict, d.Reasons)
	}
}
