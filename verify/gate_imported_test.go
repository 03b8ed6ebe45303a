// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
	"provost/verify"
)

// imports are imported bundles in memory.
type imports struct {
	all []attest.Imported
	err error
	in  attest.Tenants // as it was asked last
}

func (m *imports) add(raw []byte) {
	n := len(m.all) + 1
	m.all = append(m.all, attest.Imported{ID: fmt.Sprint("import", n), Seq: int64(n), Root: "github", Bundle: raw})
}

func (m *imports) ImportedAbout(_ context.Context, q attest.ImportedQuery) (page []attest.Imported, err error) {
	m.in = q.In
	for _, i := range m.all {
		if i.Seq > q.After && len(page) < q.Limit {
			page = append(page, i)
		}
	}
	return page, m.err
}

// A witness is a policy that remembers what it was shown.
type witness struct {
	verify.Policy
	saw verify.Facts
}

func (w *witness) Judge(ctx context.Context, environment string, f verify.Facts) (verify.Judgement, error) {
	w.saw = f
	return w.Policy.Judge(ctx, environment, f)
}

func TestImportedBundlesAreJudgedApart(t *testing.T) {
	r, s := ours(), newSigstore(t)
	trust := s.trust(foreignRoot(), nil)
	roots := func(string) (*verify.ForeignTrust, error) { return trust, nil }
	ours := func(m *memory) {
		r.built(m, nil)
		r.issue(t, m, nil, attest.SBOM{Document: []byte(cycloneDXDoc)})
	}
	fact := verify.ImportedFact{Import: "import1", Root: "github", PredicateType: attest.ProvenanceType, Issuer: actions, SAN: workflow, SignedAt: s.now}
	later := s.trust(foreignRoot(), func(r *prototrustroot.TrustedRoot) {
		r.CertificateAuthorities[0].ValidFor.End = timestamppb.New(time.Now().Add(-30 * time.Minute))
	})
	rootThatIs := func(state string) func(string) (*verify.ForeignTrust, error) {
		return func(name string) (*verify.ForeignTrust, error) {
			if name != "github" {
				t.Errorf("asked for root %q", name)
			}
			if state == "closed" {
				return later, nil
			}
			return nil, fmt.Errorf("%w: foreign root %s", attest.ErrNotFound, name)
		}
	}
	elsewhere := s.says(workflow, actions, strings.Replace(statement(attest.ProvenanceType, `{}`), app.Hex(), attest.SHA256([]byte("other")).Hex(), 1))
	for _, c := range []struct {
		name     string
		evidence func(*memory)
		raw      []byte
		foreign  func(string) (*verify.ForeignTrust, error)
		verdict  attest.Verdict
		facts    []verify.ImportedFact
		says     string
	}{
		{"beside what we signed", ours, s.provenance(), roots, attest.VerdictPass, []verify.ImportedFact{fact}, ""},
		{"alone it is no evidence", func(*memory) {}, s.provenance(), roots, attest.VerdictNoEvidence, []verify.ImportedFact{fact}, ""},
		{"an imported provenance is none of ours", func(m *memory) { r.issue(t, m, nil, attest.SBOM{Document: []byte(cycloneDXDoc)}) }, s.provenance(), roots,
			attest.VerdictDeny, []verify.ImportedFact{fact}, ""},
		{"a root that was closed meanwhile", ours, s.provenance(), rootThatIs("closed"), attest.VerdictPass, nil, "import1 is not believed: revoked"},
		{"a root that is gone", ours, s.provenance(), rootThatIs("gone"), attest.VerdictPass, nil, `no foreign root is called "github" any more`},
		{"a bundle about something else", ours, elsewhere, roots, attest.VerdictPass, nil, "import1 is not believed: subject"},
		{"a bundle that was tampered with", ours, []byte(`{}`), roots, attest.VerdictPass, nil, "import1 is not believed: bundle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, kept := newMemory(t), &imports{}
			c.evidence(m)
			kept.add(c.raw)
			g := r.gate(m)
			saw := &witness{Policy: shipped()}
			g.Policy, g.Imports, g.Foreign = saw, kept, c.foreign
			d, err := g.Decide(t.Context(), asker, prod("app"))
			if err != nil || d.Verdict != c.verdict {
				t.Fatalf("%s, %v; want %s", d.Verdict, err, c.verdict)
			}
			if diff := cmp.Diff(append([]verify.ImportedFact{}, c.facts...), saw.saw.Imported); diff != "" {
				t.Errorf("facts (-want +got):\n%s", diff)
			}
			for _, p := range saw.saw.Provenance {
				if p.BuilderID != builderID {
					t.Errorf("provenance of %s is among the facts", p.BuilderID)
				}
			}
			said := ""
			for _, reason := range d.Reasons {
				if reason.Rule == "evidence.imported" {
					said += reason.Message
					if reason.Severity != attest.SeverityInfo {
						t.Errorf("%+v", reason)
					}
				}
			}
			if (said == "") != (c.says == "") || !strings.Contains(said, c.says) {
				t.Errorf("it says %q; want %q", said, c.says)
			}
			if !kept.in.All {
				t.Errorf("asked in %+v", kept.in)
			}
		})
	}
}

// What cannot be read is an error, never nothing.
func TestImportedBundlesThatCannotBeRead(t *testing.T) {
	r, s := ours(), newSigstore(t)
	trust := s.trust(foreignRoot(), nil)
	broken := errors.New("broken")
	for _, c := range []struct {
		name    string
		change  func(*verify.Gate, *imports)
		decides bool // and records an ERROR
	}{
		{"the store fails", func(_ *verify.Gate, m *imports) { m.err = attest.ErrUnavailable }, false},
		{"the root cannot be read", func(g *verify.Gate, _ *imports) {
			g.Foreign = func(string) (*verify.ForeignTrust, error) { return nil, broken }
		}, false},
		{"the store repeats itself", func(_ *verify.Gate, m *imports) { m.add(s.provenance()); m.all[1].Seq = 1; m.all[0].Seq = 2 }, false},
		{"there are more than a decision reads", func(_ *verify.Gate, m *imports) {
			for range 1000 {
				m.add([]byte("{}"))
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, kept := newMemory(t), &imports{}
			r.built(m, nil)
			kept.add(s.provenance())
			g := r.gate(m)
			g.Imports, g.Foreign = kept, func(string) (*verify.ForeignTrust, error) { return trust, nil }
			c.change(g, kept)
			d, err := g.Decide(t.Context(), asker, prod("app"))
			if d.Verdict != attest.VerdictError || (err == nil) != c.decides || errors.Is(err, attest.ErrInvalid) || errors.Is(err, attest.ErrNotFound) {
				t.Errorf("%s, %v", d.Verdict, err)
			}
			if recorded := len(m.decisions) == 1; recorded != c.decides {
				t.Errorf("recorded %d decisions", len(m.decisions))
			}
		})
	}
}
