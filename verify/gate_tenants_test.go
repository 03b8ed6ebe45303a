// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"provost/attest"
	"provost/verify"
)

// of makes what is said last that of a tenant.
func (m *memory) of(tenant string, a attest.Attestation) attest.Attestation {
	m.attestations[len(m.attestations)-1].Tenant = tenant
	a.Tenant = tenant
	return a
}

// noise has a builder that no environment accepts.
func noise(b *attest.Build) { b.BuilderID = service + "/builders/mallory" }

// inputsOf are the attestations that a verdict rests on.
func inputsOf(t *testing.T, r *realm, d attest.Decision) (ids []string) {
	t.Helper()
	v, err := r.trust.Verify(d.VSA, verify.Expect{Artifact: app})
	check(t, err)
	said, err := attest.ParseVSA(v.Statement().Predicate)
	check(t, err)
	for _, in := range said.InputAttestations {
		ids = append(ids, strings.TrimPrefix(in.URI, service+"/v1/attestations/"))
	}
	return ids
}

// What several tenants said about one artifact, at a gate that sees them all,
// in either order of storing.
func TestDecideEachTenantAlone(t *testing.T) {
	r := ours()
	const accepted, present, listed, allowed = "slsa.provenance_accepted", "slsa.provenance_present", "sbom.present", "slsa.builder_allowed"
	evilFork := from("https://github.com/acme/app-evil", mainBranch)
	// A said is one attestation: whose it is, what it is, and whether the
	// verdict rests on it.
	type said struct {
		tenant string
		build  func(*attest.Build) // of provenance; nil for an SBOM
		input  bool
	}
	good := func(*attest.Build) {}
	for _, c := range []struct {
		name    string
		said    []said
		want    attest.Verdict
		tenant  string
		denying []string
	}{
		{"a stranger's SBOM, and provenance of the stranger's",
			[]said{{"acme", good, true}, {"mallory", nil, false}, {"mallory", noise, false}}, attest.VerdictDeny, "acme", []string{listed}},
		{"the same by a stranger who comes first",
			[]said{{"acme", good, false}, {"aaa", nil, true}, {"aaa", noise, true}}, attest.VerdictDeny, "aaa", []string{allowed, accepted}},
		{"all of one, and a stranger's noise",
			[]said{{"acme", good, true}, {"acme", nil, true}, {"mallory", noise, false}, {"mallory", nil, false}}, attest.VerdictPass, "acme", nil},
		{"all of one, and noise of one who comes first",
			[]said{{"acme", good, true}, {"acme", nil, true}, {"aaa", noise, false}}, attest.VerdictPass, "acme", nil},
		{"all of each of two",
			[]said{{"acme", good, true}, {"acme", nil, true}, {"bolt", good, false}, {"bolt", nil, false}}, attest.VerdictPass, "acme", nil},
		{"two of whom none is whole",
			[]said{{"acme", good, true}, {"bolt", evilFork, false}, {"bolt", nil, false}}, attest.VerdictDeny, "acme", []string{listed}},
		{"two who are whole together, each with provenance that is half good",
			[]said{{"acme", noise, true}, {"acme", nil, true}, {"bolt", evilFork, false}, {"bolt", nil, false}}, attest.VerdictDeny, "acme", []string{allowed, accepted}},
		{"provenance of one, and an SBOM of no tenant",
			[]said{{"acme", good, true}, {"", nil, true}, {"mallory", noise, false}}, attest.VerdictPass, "acme", nil},
		{"provenance of no tenant, and a stranger's SBOM",
			[]said{{"", good, true}, {"mallory", nil, false}}, attest.VerdictDeny, "", []string{listed}},
		{"provenance of no tenant, and all of it a stranger's beside",
			[]said{{"", good, false}, {"mallory", nil, true}, {"mallory", noise, true}}, attest.VerdictDeny, "mallory", []string{allowed, accepted}},
		{"all of no tenant, and a stranger's noise",
			[]said{{"", good, true}, {"", nil, true}, {"mallory", noise, false}, {"mallory", nil, false}}, attest.VerdictPass, "", nil},
		{"no provenance, and an SBOM of one",
			[]said{{"acme", nil, true}}, attest.VerdictDeny, "acme", []string{present}},
		{"no provenance, and SBOMs of two",
			[]said{{"acme", nil, true}, {"bolt", nil, true}}, attest.VerdictDeny, "", []string{present}},
	} {
		for _, reverse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/reverse %t", c.name, reverse), func(t *testing.T) {
				m := newMemory(t)
				var inputs, aside []string
				for _, s := range c.said {
					var a attest.Attestation
					if s.build == nil {
						a = r.listed(m)
					} else {
						a = r.built(m, s.build)
					}
					if m.of(s.tenant, a); s.input {
						inputs = append(inputs, a.ID)
					} else {
						aside = append(aside, a.ID)
					}
				}
				if reverse {
					slices.Reverse(m.attestations)
					slices.Reverse(inputs)
				}
				d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
				check(t, err)
				if d.Verdict != c.want || d.Tenant != c.tenant {
					t.Errorf("%s of tenant %q; want %s of %q: %+v", d.Verdict, d.Tenant, c.want, c.tenant, d.Reasons)
				}
				denies := denying(d)
				if slices.Contains(denies, present) {
					denies = []string{present} // the others are not judged then
				}
				if diff := cmp.Diff(c.denying, denies, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("rules that deny (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(inputs, inputsOf(t, r, d)); diff != "" {
					t.Errorf("inputs of the verdict (-want +got):\n%s", diff)
				}
				if in := m.intents[d.VSAID]; in.ID == "" || in.Tenant != c.tenant {
					t.Errorf("the VSA is of tenant %q; want %q", in.Tenant, c.tenant)
				}
				for _, id := range aside {
					if !slices.ContainsFunc(d.Reasons, func(r attest.Reason) bool {
						return r.Rule == "evidence.verifies" && r.Severity == attest.SeverityInfo && strings.Contains(r.Message, id)
					}) {
						t.Errorf("nothing says that %s is set aside: %+v", id, d.Reasons)
					}
				}
			})
		}
	}
}

// One who asks in a tenant of their own has the answer there.
func TestDecideAnswersTheAskersTenant(t *testing.T) {
	r, m := ours(), newMemory(t)
	m.of("acme", r.built(m, nil))
	m.of("acme", r.listed(m))
	in := asker
	in.Tenant = "gates"
	d, err := r.gate(m).Decide(t.Context(), in, prod("app"))
	if err != nil || d.Verdict != attest.VerdictPass || d.Tenant != "gates" {
		t.Errorf("%s of tenant %q, %v", d.Verdict, d.Tenant, err)
	}
}

// What takes back is never set aside, whose tenant's it is and whether it is
// believed or not.
func TestDecideRevokedByAnotherTenant(t *testing.T) {
	r := ours()
	for _, c := range []struct {
		name    string
		last    func(m *memory, own attest.Attestation) // said by another tenant
		want    attest.Verdict
		tenant  string
		denying string
	}{
		{"nothing", func(*memory, attest.Attestation) {}, attest.VerdictPass, "acme", ""},
		{"its provenance", func(m *memory, own attest.Attestation) { m.of("ops", r.revoke(m, own, "stolen")) }, attest.VerdictDeny, "mallory", "slsa.builder_allowed"},
		{"something, in a way that is not believed", func(m *memory, _ attest.Attestation) {
			m.of("ops", r.revoke(m, r.built(newMemory(t), nil), ""))
			last := &m.attestations[len(m.attestations)-1]
			last.Bundle = edit(t, last.Bundle, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload[9] ^= 1 })
		}, attest.VerdictDeny, "acme", "evidence.revocations"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			own := m.of("acme", r.built(m, nil))
			m.of("acme", r.listed(m))
			m.of("mallory", r.built(m, noise))
			c.last(m, own)
			d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
			check(t, err)
			if d.Verdict != c.want || d.Tenant != c.tenant || c.denying != "" && !slices.Contains(denying(d), c.denying) {
				t.Errorf("%s of tenant %q for %v; want %s of %q for %s", d.Verdict, d.Tenant, denying(d), c.want, c.tenant, c.denying)
			}
			for _, taking := range m.attestations {
				if believed := c.denying == "slsa.builder_allowed"; taking.Tenant == "ops" && slices.Contains(inputsOf(t, r, d), taking.ID) != believed {
					t.Errorf("the verdict rests on what took back: %t; want %t", !believed, believed)
				}
			}
		})
	}
}

// Of more tenants than are judged none is chosen.
func TestDecideOfManyTenants(t *testing.T) {
	r := ours()
	for _, c := range []struct {
		others int
		want   attest.Verdict
	}{{15, attest.VerdictPass}, {16, attest.VerdictError}} {
		m := newMemory(t)
		m.of("zeta", r.built(m, nil))
		m.of("zeta", r.listed(m))
		m.of("", r.built(m, noise)) // no tenant is none of them
		for i := range c.others {
			m.of(fmt.Sprintf("other%02d", i), r.built(m, noise))
			m.of(fmt.Sprintf("other%02d", i), r.built(m, noise))
			m.of(fmt.Sprintf("lister%02d", i), r.listed(m)) // who has no provenance is not judged
		}
		d, err := r.gate(m).Decide(t.Context(), asker, prod("app"))
		check(t, err)
		if d.Verdict != c.want {
			t.Errorf("%d others: %s; want %s", c.others, d.Verdict, c.want)
		}
		if c.want == attest.VerdictError && (d.VSA != nil || len(m.decisions) != 1 || !slices.Equal(denying(d), []string{"evidence.bounded"})) {
			t.Errorf("%d decisions, the last for %v", len(m.decisions), denying(d))
		}
	}
}

// A policy that fails on one tenant's facts says nothing about another's, and
// never makes a PASS of its own.
func TestDecidePolicyFailsOnOneTenant(t *testing.T) {
	r := ours()
	for _, c := range []struct {
		breaks string // the builder whose facts break the policy
		want   attest.Verdict
		tenant string
	}{
		{service + "/builders/mallory", attest.VerdictPass, "acme"},
		{builderID, attest.VerdictDeny, "aaa"}, // whose own answer stands first
	} {
		m := newMemory(t)
		m.of("acme", r.built(m, nil))
		m.of("acme", r.listed(m))
		m.of("aaa", r.built(m, noise))
		g := r.gate(m)
		g.Policy = judge(func(f verify.Facts) (verify.Judgement, error) {
			if len(f.Provenance) != 1 {
				t.Errorf("judged together: %+v", f.Provenance)
			}
			if f.Provenance[0].BuilderID == c.breaks {
				return verify.Judgement{}, errors.New("broken")
			}
			return shipped().Judge(t.Context(), "prod", f)
		})
		d, err := g.Decide(t.Context(), asker, prod("app"))
		check(t, err)
		if d.Verdict != c.want || d.Tenant != c.tenant {
			t.Errorf("%s breaks: %s of tenant %q; want %s of %q", c.breaks, d.Verdict, d.Tenant, c.want, c.tenant)
		}
	}
}
