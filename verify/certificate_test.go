// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
	"provost/verify"
)

// What a leaf promises of certificate logs. accepts says that sigstore-go does
// not mind.
func TestVerifySCTs(t *testing.T) {
	l := newLab(t)
	a, b, unknown := l.ctlogs[0], l.ctlogs[1], newKey()
	flip := func(s *ct.SignedCertificateTimestamp) { s.Signature.Signature[len(s.Signature.Signature)-1] ^= 1 }
	trustedRoot := l.trusted(func(p *prototrustroot.TrustedRoot) {
		p.Ctlogs[0].PublicKey.ValidFor = &protocommon.TimeRange{
			Start: timestamppb.New(l.now.Add(-10 * time.Minute)), End: timestamppb.New(l.now.Add(10 * time.Minute)),
		}
	})
	trust := must(verify.ParseTrust(trustedRoot))
	for _, c := range []struct {
		name     string
		promises []promise
		believed bool
		accepts  bool
	}{
		{"one", []promise{{log: a}}, true, true},
		{"one of each log", []promise{{log: a}, {log: b}}, true, true},
		{"none", nil, false, false},
		{"of a log that the root does not know", []promise{{log: unknown}}, false, false},
		{"one, and one of a log that the root does not know", []promise{{log: a}, {log: unknown}}, false, true},
		{"one of a log that the root does not know, and one", []promise{{log: unknown}, {log: a}}, false, true},
		{"a bad one", []promise{{log: a, spoil: flip}}, false, false},
		{"one, and a bad one", []promise{{log: a}, {log: b, spoil: flip}}, false, true},
		{"a bad one, and one", []promise{{log: a, spoil: flip}, {log: b}}, false, true},
		{"two of one log", []promise{{log: a}, {log: a, at: -time.Second}}, false, true},
		{"one by another log's name", []promise{{log: unknown, spoil: func(s *ct.SignedCertificateTimestamp) {
			s.LogID.KeyID = l.sct(l.issuing.cert, promise{log: a}).LogID.KeyID
		}}}, false, false},
		{"one for another certificate", []promise{{log: a, spoil: func(s *ct.SignedCertificateTimestamp) {
			*s = *l.sct(l.issuing.cert, promise{log: a})
		}}}, false, false},
		{"one whose time was moved", []promise{{log: a, spoil: func(s *ct.SignedCertificateTimestamp) { s.Timestamp-- }}}, false, false},
		{"more than anybody needs", slices.Repeat([]promise{{log: a}}, 9), false, true},
		{"made when the log begins", []promise{{log: a, at: -10 * time.Minute}}, true, true},
		{"made before the log begins", []promise{{log: a, at: -10*time.Minute - time.Millisecond}}, false, false},
		{"made a minute after it signed", []promise{{log: a, at: time.Minute}}, true, true},
		{"made more than a minute after it signed", []promise{{log: a, at: time.Minute + time.Millisecond}}, false, true},
		{"made after the log ended", []promise{{log: a, at: 10*time.Minute + time.Millisecond}}, false, false},
		{"one in time, one too late", []promise{{log: a}, {log: b, at: 2 * time.Minute}}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := l.logged(l.leaf(attest.PowerProvenance, c.promises...), statement(attest.ProvenanceType, `{}`), l.now)
			v, err := trust.Verify(raw, verify.Expect{Artifact: app})
			if !c.believed {
				wantRefused(t, v, err, verify.StepCertificate)
				if !strings.Contains(err.Error(), "SCT") {
					t.Errorf("refused in other words: %v", err)
				}
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
			if err := foreign(trustedRoot, raw, app, provenanceSigner); (err == nil) != c.accepts {
				t.Errorf("sigstore-go: %v; accepting it was expected to be %t", err, c.accepts)
			}
		})
	}

	// A root without certificate logs asks for none.
	without := must(verify.ParseTrust(l.trusted(func(p *prototrustroot.TrustedRoot) { p.Ctlogs = nil })))
	for name, raw := range map[string][]byte{
		"with":    l.provenance(),
		"without": l.logged(l.leaf(attest.PowerProvenance), statement(attest.ProvenanceType, `{}`), l.now),
	} {
		if _, err := without.Verify(raw, verify.Expect{Artifact: app}); err != nil {
			t.Errorf("%s an SCT, under a root without certificate logs: %v", name, err)
		}
	}
}

func TestParseTrustRefusesCertificateLogs(t *testing.T) {
	l := newLab(t)
	for name, change := range map[string]func(*prototrustroot.TrustedRoot){
		"no window": func(p *prototrustroot.TrustedRoot) { p.Ctlogs[0].PublicKey.ValidFor = nil },
		"no start":  func(p *prototrustroot.TrustedRoot) { p.Ctlogs[0].PublicKey.ValidFor.Start = nil },
		"ends before it starts": func(p *prototrustroot.TrustedRoot) {
			p.Ctlogs[0].PublicKey.ValidFor.End = &timestamppb.Timestamp{Seconds: 1}
		},
		"no key":       func(p *prototrustroot.TrustedRoot) { p.Ctlogs[0].PublicKey.RawBytes = nil },
		"no ID":        func(p *prototrustroot.TrustedRoot) { p.Ctlogs[0].LogId = nil },
		"another's ID": func(p *prototrustroot.TrustedRoot) { p.Ctlogs[0].LogId = p.Tlogs[0].LogId },
		"twice":        func(p *prototrustroot.TrustedRoot) { p.Ctlogs = append(p.Ctlogs, p.Ctlogs[0]) },
	} {
		if trust, err := verify.ParseTrust(l.trusted(change)); !errors.Is(err, attest.ErrInvalid) || trust != nil {
			t.Errorf("%s: ParseTrust = %v, %v; want ErrInvalid", name, trust, err)
		}
	}
	kinds := map[string]int{}
	for _, a := range must(verify.ParseTrust(l.trusted(nil))).Authorities() {
		kinds[a.Kind]++
	}
	if kinds["certificate log"] != 2 || kinds["log"] != 1 {
		t.Errorf("authorities: %v; want two certificate logs and a log", kinds)
	}
}

// window is a window by distances from now; 0 for an end is none.
func (l *lab) window(from, to time.Duration) *protocommon.TimeRange {
	w := &protocommon.TimeRange{Start: timestamppb.New(l.now.Add(from))}
	if to != 0 {
		w.End = timestamppb.New(l.now.Add(to))
	}
	return w
}

// The windows of one authority, and what was signed at a time. A gap between
// two is a revocation, and every trusted time must lie in a window; the ends
// belong to it. It is never laxer than sigstore-go, and here no stricter.
func TestAuthorityWindows(t *testing.T) {
	l := newLab(t)
	const minute = time.Minute
	type span struct{ from, to time.Duration }
	for _, c := range []struct {
		name    string
		windows []span
		signed  []time.Duration // one for each timestamp authority that stamped
		want    verify.Step     // "" believes it
		words   string          // in the refusal
	}{
		{"one open window", []span{{-minute, 0}}, []time.Duration{0}, "", ""},
		{"in the last second before the gap", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{-minute}, "", ""},
		{"in the first second after the gap", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{minute}, "", ""},
		{"in the first second of the gap", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{-minute + time.Second}, verify.StepRevoked, "vouched for from 20"},
		{"in the last second of the gap", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{minute - time.Second}, verify.StepRevoked, "vouched for from 20"},
		{"in the gap, in whatever order the windows stand", []span{{minute, 0}, {-30 * minute, -minute}}, []time.Duration{0}, verify.StepRevoked, "vouched for from 20"},
		{"in the second of three gaps", []span{{-30 * minute, -20 * minute}, {5 * minute, 6 * minute}, {-10 * minute, -minute}, {minute, 2 * minute}}, []time.Duration{0}, verify.StepRevoked, "vouched for from 20"},
		{"in a gap that another window covers", []span{{-30 * minute, -minute}, {minute, 0}, {-2 * minute, 2 * minute}}, []time.Duration{0}, "", ""},
		{"before the gap by both authorities", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{-minute, -2 * minute}, "", ""},
		{"before the gap by one, in it by the other", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{-minute, 0}, verify.StepRevoked, "vouched for from 20"},
		{"in the gap by one, before it by the other", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{0, -minute}, verify.StepRevoked, "vouched for from 20"},
		{"before the gap by one, after it by the other", []span{{-30 * minute, -minute}, {minute, 0}}, []time.Duration{-minute, minute}, "", ""},
		{"after the only window", []span{{-30 * minute, -minute}}, []time.Duration{0}, verify.StepRevoked, "vouched for after 20"},
		{"before the only window", []span{{minute, 0}}, []time.Duration{0}, verify.StepRevoked, "vouched for before 20"},
		{"after both windows", []span{{-30 * minute, -20 * minute}, {-10 * minute, -minute}}, []time.Duration{0}, verify.StepRevoked, "vouched for after 20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trustedRoot := l.trusted(func(p *prototrustroot.TrustedRoot) {
				ca := p.CertificateAuthorities[0]
				p.CertificateAuthorities = nil
				for _, w := range c.windows {
					p.CertificateAuthorities = append(p.CertificateAuthorities, &prototrustroot.CertificateAuthority{
						Uri: ca.Uri, CertChain: ca.CertChain, ValidFor: l.window(w.from, w.to),
					})
				}
			})
			var at []time.Time
			for _, d := range c.signed {
				at = append(at, l.now.Add(d))
			}
			by := l.leaf(attest.PowerProvenance, promise{log: l.ctlogs[0], at: -30 * minute})
			raw := l.logged(by, statement(attest.ProvenanceType, `{}`), at...)
			v, err := must(verify.ParseTrust(trustedRoot)).Verify(raw, verify.Expect{Artifact: app})
			if c.want != "" {
				wantRefused(t, v, err, c.want)
				if !strings.Contains(err.Error(), "signed at ") || !strings.Contains(err.Error(), c.words) {
					t.Errorf("refused in other words: %v", err)
				}
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
			if err := foreign(trustedRoot, raw, app, provenanceSigner); (err == nil) != (c.want == "") {
				t.Errorf("sigstore-go: %v", err)
			}
		})
	}
}

// The words name the very gap.
func TestRevokedWords(t *testing.T) {
	l := newLab(t)
	trust := must(verify.ParseTrust(l.trusted(func(p *prototrustroot.TrustedRoot) {
		after := &prototrustroot.CertificateAuthority{CertChain: p.CertificateAuthorities[0].CertChain, ValidFor: l.window(time.Minute, 0)}
		p.CertificateAuthorities[0].ValidFor = l.window(-time.Hour, -time.Minute)
		p.CertificateAuthorities = append(p.CertificateAuthorities, after)
	})))
	_, err := trust.Verify(l.provenance(), verify.Expect{Artifact: app})
	day := func(d time.Duration) string { return l.now.Add(d).Format(time.RFC3339) }
	want := "revoked: signed at " + day(0) + ", and the trusted root takes back what this authority vouched for from " + day(-time.Minute) + " to " + day(time.Minute)
	if err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}

	// A leaf that no authority ever vouched for was not taken back.
	foreigner := newLab(t)
	foreigner.stampers, foreigner.log, foreigner.now = l.stampers, l.log, l.now
	v, err := trust.Verify(foreigner.provenance(), verify.Expect{Artifact: app})
	wantRefused(t, v, err, verify.StepCertificate)
	if strings.Contains(err.Error(), "takes back") {
		t.Error(err)
	}

	// Nor one that had expired by then.
	late := l.logged(l.promised(attest.PowerProvenance), statement(attest.ProvenanceType, `{}`), l.now.Add(25*time.Hour))
	v, err = trust.Verify(late, verify.Expect{Artifact: app})
	wantRefused(t, v, err, verify.StepCertificate)
}

// A bundle with everything is what all agree on.
func TestVerifyEverything(t *testing.T) {
	l := newLab(t)
	trustedRoot := l.trusted(nil)
	trust := must(verify.ParseTrust(trustedRoot))
	by := l.promised(attest.PowerProvenance)
	l.log.fill(3)
	raw := l.logged(by, statement(attest.ProvenanceType, `{}`), l.now.Add(time.Second), l.now)
	v, err := trust.Verify(raw, verify.Expect{Artifact: app})
	check(t, err)
	if !v.SignedAt().Equal(l.now) {
		t.Errorf("signed at %s; want the earlier of two, %s", v.SignedAt(), l.now)
	}
	check(t, foreign(trustedRoot, raw, app, provenanceSigner))
	for name, change := range map[string]func(*protobundle.VerificationMaterial){
		"the log entry":  func(m *protobundle.VerificationMaterial) { m.TlogEntries = nil },
		"the timestamps": func(m *protobundle.VerificationMaterial) { m.TimestampVerificationData = nil },
		"the SCT": func(m *protobundle.VerificationMaterial) {
			m.GetCertificate().RawBytes = l.leaf(attest.PowerProvenance).cert.Raw
		},
	} {
		without := edit(t, raw, func(b *protobundle.Bundle) { change(b.VerificationMaterial) })
		if v, err := trust.Verify(without, verify.Expect{Artifact: app}); v != nil || err == nil {
			t.Errorf("believed without %s", name)
		}
		if foreign(trustedRoot, without, app, provenanceSigner) == nil {
			t.Errorf("sigstore-go accepts it without %s", name)
		}
	}
	if _, err := trust.Verify(edit(t, raw, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }), verify.Expect{Artifact: app}); err == nil ||
		err.Error() != "log: no entry, and the trusted root names a log" {
		t.Error(err)
	}
}
