// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
	"provost/verify"
)

func TestForeignBundlesAreBelieved(t *testing.T) {
	s := newSigstore(t)
	v2 := s.logged(s.loggedIn(workflow, actions, s.now.Add(-time.Minute)), statement(attest.ProvenanceType, `{}`), s.now)
	noStampers := func(r *prototrustroot.TrustedRoot) { r.TimestampAuthorities = nil }
	noLogs := func(r *prototrustroot.TrustedRoot) { r.Tlogs = nil }
	pattern := foreignRoot()
	pattern.Identities = []verify.ForeignIdentity{
		{Issuer: actions, SAN: "somebody else"},
		{Issuer: actions, SANPattern: `^https://github\.com/acme/app/\.github/workflows/release\.yml@refs/tags/v[0-9.]+$`},
	}
	for _, c := range []struct {
		name   string
		root   verify.ForeignRoot
		change func(*prototrustroot.TrustedRoot)
		raw    []byte
	}{
		{"with everything", foreignRoot(), nil, s.provenance()},
		{"by a pattern over the whole SAN", pattern, nil, s.provenance()},
		{"without a timestamp, by the log's own time", foreignRoot(), noStampers, edit(t, s.provenance(), withoutStamps)},
		{"without a log, as GitHub's own root", foreignRoot(), noLogs, edit(t, s.provenance(), withoutEntries)},
		{"of Rekor v2", foreignRoot(), nil, v2},
		{"of an older version, with a chain", foreignRoot(), nil, edit(t, s.provenance(), func(b *protobundle.Bundle) {
			b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.2"
			leaf := b.VerificationMaterial.GetCertificate()
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{
				X509CertificateChain: &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{leaf}},
			}
		})},
		{"of another type that is listed", foreignRoot(), nil, s.says(workflow, actions, statement(scanType, `{}`))},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := s.trust(c.root, c.change).Verify(c.raw)
			if err != nil {
				t.Fatal(err)
			}
			if want := (verify.Identity{SAN: workflow, Issuer: actions}); f.Identity() != want || f.Root() != "github" || f.SignedAt().IsZero() || f.SignedAt().Location() != time.UTC {
				t.Errorf("believed %+v at %s under %s", f.Identity(), f.SignedAt(), f.Root())
			}
			if _, ok := f.Statement().About(app); !ok {
				t.Errorf("it is about %v", f.Statement().Subjects)
			}
			// And it is no bundle of ours, whatever root is asked.
			v, err := ours().trust.Verify(c.raw, verify.Expect{Artifact: app})
			if v != nil || err == nil {
				t.Error("it is believed as one of ours")
			}
		})
	}
}

func TestForeignBundlesAreRefused(t *testing.T) {
	s, other := newSigstore(t), newSigstore(t)
	good := s.provenance()
	unlogged := edit(t, good, withoutEntries)
	noStampers := func(r *prototrustroot.TrustedRoot) { r.TimestampAuthorities = nil }
	noLogs := func(r *prototrustroot.TrustedRoot) { r.Tlogs = nil }
	entry := func(change func(*protorekor.TransparencyLogEntry)) []byte {
		return edit(t, good, func(b *protobundle.Bundle) { change(b.VerificationMaterial.TlogEntries[0]) })
	}
	pattern := func(p string) verify.ForeignRoot {
		r := foreignRoot()
		r.Identities = []verify.ForeignIdentity{{Issuer: actions, SANPattern: p}}
		return r
	}
	old := s.loggedIn(workflow, actions, s.now.Add(-time.Hour))
	expired := s.sign(old, statement(attest.ProvenanceType, `{}`))
	byPayload := func(payload string) []byte { return s.says(workflow, actions, payload) }
	for _, c := range []struct {
		name   string
		root   verify.ForeignRoot
		change func(*prototrustroot.TrustedRoot)
		raw    []byte
		step   verify.Step
	}{
		{"of another Sigstore", foreignRoot(), nil, other.provenance(), verify.StepLog},
		{"of another Sigstore without a log", foreignRoot(), noLogs, edit(t, other.provenance(), withoutEntries), verify.StepTime},
		{"by a CA of another Sigstore, in the right log", foreignRoot(), func(r *prototrustroot.TrustedRoot) {
			var theirs prototrustroot.TrustedRoot
			editRoot(t, other.knownAs(nil), func(o *prototrustroot.TrustedRoot) { theirs.CertificateAuthorities = o.CertificateAuthorities })
			r.CertificateAuthorities = theirs.CertificateAuthorities
		}, good, verify.StepCertificate},
		{"by a CA whose window was closed", foreignRoot(), func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0].ValidFor.End = timestamppb.New(time.Now().Add(-time.Hour))
		}, good, verify.StepRevoked},
		{"in a log whose window was closed", foreignRoot(), func(r *prototrustroot.TrustedRoot) {
			r.Tlogs[0].PublicKey.ValidFor.End = timestamppb.New(time.Now().Add(-time.Minute))
		}, good, verify.StepLog},
		{"in a Rekor v2 whose window was closed", foreignRoot(), func(r *prototrustroot.TrustedRoot) {
			r.Tlogs[0].PublicKey.ValidFor.End = timestamppb.New(time.Now().Add(-time.Minute))
		}, s.logged(s.loggedIn(workflow, actions, s.now.Add(-time.Minute)), statement(attest.ProvenanceType, `{}`), s.now), verify.StepLog},
		{"of ours", foreignRoot(), nil, ours().provenance(t), verify.StepLog},
		{"of ours, under a root without a log", foreignRoot(), noLogs, ours().provenance(t), verify.StepTime},

		{"by a SAN one character off", foreignRoot(), nil, s.says(workflow+"0", actions, statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by a SAN that is the beginning of the right one", foreignRoot(), nil, s.says(workflow[:len(workflow)-1], actions, statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by a SAN of other case", foreignRoot(), nil, s.says(strings.ToUpper(workflow), actions, statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by another issuer", foreignRoot(), nil, s.says(workflow, actions+"/acme", statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by an issuer with a slash at its end", foreignRoot(), nil, s.says(workflow, actions+"/", statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by a SAN in which the pattern occurs", pattern(`https://github\.com/acme/app/`), nil, good, verify.StepIdentity},
		{"by a SAN that ends as the pattern, before a line break", pattern(`https://github\.com/acme/app/.*v1`), nil,
			s.says(workflow+"\n", actions, statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by a SAN of which a line is the pattern's", pattern(`(?m)https://github\.com/acme/app/.*v1$`), nil,
			s.says(workflow+"\nx", actions, statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},
		{"by ourselves, with a SAN that is listed", foreignRoot(), nil, s.says(workflow, service, statement(attest.ProvenanceType, `{}`)), verify.StepIdentity},

		{"with a tampered payload", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload[20] ^= 1 }), verify.StepLog},
		{"with a tampered payload, under a root without a log", foreignRoot(), noLogs, edit(t, unlogged, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload[20] ^= 1 }), verify.StepSignature},
		{"with a keyid of another key", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Keyid = "other" }), verify.StepSignature},
		{"with a signature of another bundle", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures = decodeBundle(t, s.provenance()).GetDsseEnvelope().Signatures
		}), verify.StepLog},
		{"with a certificate of another bundle", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) {
			b.VerificationMaterial.Content = decodeBundle(t, s.provenance()).VerificationMaterial.Content
		}), verify.StepLog},
		{"without a log entry", foreignRoot(), nil, unlogged, verify.StepLog},
		{"with a log entry of another bundle", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = decodeBundle(t, s.provenance()).VerificationMaterial.TlogEntries
		}), verify.StepLog},
		{"with a log entry, under a root without a log", foreignRoot(), noLogs, good, verify.StepLog},
		{"with a log entry of an unknown log beside", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, decodeBundle(t, other.provenance()).VerificationMaterial.TlogEntries...)
		}), verify.StepLog},
		{"with a log entry that has neither proof nor promise", foreignRoot(), nil, entry(func(e *protorekor.TransparencyLogEntry) { e.InclusionProof, e.InclusionPromise = nil, nil }), verify.StepBundle},
		{"with a log's time that was made up", foreignRoot(), nil, entry(func(e *protorekor.TransparencyLogEntry) { e.IntegratedTime-- }), verify.StepLog},
		{"with a proof of another root hash", foreignRoot(), nil, entry(func(e *protorekor.TransparencyLogEntry) { e.InclusionProof.RootHash[0] ^= 1 }), verify.StepLog},
		{"with no time but an unsigned one", foreignRoot(), noStampers, edit(t, good, func(b *protobundle.Bundle) {
			withoutStamps(b)
			b.VerificationMaterial.TlogEntries[0].InclusionPromise = nil
		}), verify.StepTime},
		{"with no time at all", foreignRoot(), noLogs, edit(t, unlogged, withoutStamps), verify.StepTime},
		{"with the timestamp of another bundle, and no other time", foreignRoot(), noLogs, edit(t, unlogged, func(b *protobundle.Bundle) {
			b.VerificationMaterial.TimestampVerificationData = decodeBundle(t, s.provenance()).VerificationMaterial.TimestampVerificationData
		}), verify.StepTime},
		{"logged when its certificate had expired, and stamped never", foreignRoot(), noStampers, s.rekorV1(expired, s.now), verify.StepLog},
		{"stamped when its certificate had expired", foreignRoot(), noLogs, s.sign(old, statement(attest.ProvenanceType, `{}`), s.now), verify.StepCertificate},

		{"of a type that is not listed", foreignRoot(), nil, byPayload(statement(attest.VSAType, `{}`)), verify.StepStatement},
		{"of a type that one listed begins with", foreignRoot(), nil, byPayload(statement(attest.ProvenanceType[:len(attest.ProvenanceType)-1], `{}`)), verify.StepStatement},
		{"with the same key twice in the payload", foreignRoot(), nil, byPayload(strings.Replace(statement(attest.ProvenanceType, `{}`), `{`, `{"predicateType":"`+scanType+`",`, 1)), verify.StepStatement},
		{"of another kind of statement", foreignRoot(), nil, byPayload(strings.Replace(statement(attest.ProvenanceType, `{}`), "Statement/v1", "Statement/v2", 1)), verify.StepStatement},
		{"about nothing", foreignRoot(), nil, byPayload(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"` + attest.ProvenanceType + `","predicate":{}}`), verify.StepStatement},
		{"about what only a sha1 names", foreignRoot(), nil, byPayload(strings.Replace(statement(attest.ProvenanceType, `{}`), `"sha256":"`+app.Hex(), `"sha1":"`+app.Hex()[:40], 1)), verify.StepStatement},
		{"about a digest in capitals", foreignRoot(), nil, byPayload(strings.Replace(statement(attest.ProvenanceType, `{}`), app.Hex(), strings.ToUpper(app.Hex()), 1)), verify.StepStatement},
		{"about a name that moves the cursor", foreignRoot(), nil, byPayload(strings.Replace(statement(attest.ProvenanceType, `{}`), `"app"`, `"\u001b[2J"`, 1)), verify.StepStatement},
		{"of no statement", foreignRoot(), nil, byPayload(`[]`), verify.StepStatement},

		{"with the same key twice", foreignRoot(), nil, replace(t, good, `"dsseEnvelope":{`, `"dsseEnvelope":{},"dsseEnvelope":{`), verify.StepBundle},
		{"with a member by the name of the .proto file", foreignRoot(), nil, replace(t, good, `"tlogEntries"`, `"tlog_entries"`), verify.StepBundle},
		{"of an unknown version", foreignRoot(), nil, replace(t, good, `bundle.v0.3+json`, `bundle.v0.4+json`), verify.StepBundle},
		{"of another payload type", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) { b.GetDsseEnvelope().PayloadType = "text/plain" }), verify.StepBundle},
		{"with two signatures", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures = append(b.GetDsseEnvelope().Signatures, b.GetDsseEnvelope().Signatures[0])
		}), verify.StepBundle},
		{"of a file, not a statement", foreignRoot(), nil, edit(t, good, func(b *protobundle.Bundle) {
			digest := sha256.Sum256([]byte("app"))
			b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
				MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]}, Signature: []byte("x"),
			}}
		}), verify.StepBundle},
		{"too large", foreignRoot(), nil, append(good[:len(good):len(good)], make([]byte, attest.MaxBundle)...), verify.StepBundle},
		{"that is no JSON", foreignRoot(), nil, []byte("{"), verify.StepBundle},
		{"that is nothing", foreignRoot(), nil, nil, verify.StepBundle},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := s.trust(c.root, c.change).Verify(c.raw)
			wantForeignRefused(t, f, err, c.step)
		})
	}
	f, err := new(verify.ForeignTrust).Verify(good)
	wantForeignRefused(t, f, err, verify.StepBundle)
	f, err = (*verify.ForeignTrust)(nil).Verify(good)
	wantForeignRefused(t, f, err, verify.StepBundle)
}

// wantForeignRefused asserts that nothing was believed, and where it failed.
func wantForeignRefused(t *testing.T, f *verify.Foreign, err error, want verify.Step) {
	t.Helper()
	var at *verify.Error
	if f != nil || !errors.As(err, &at) || at.Step != want {
		t.Errorf("believed %v, %v; want a refusal at %s", f != nil, err, want)
	}
}

func TestForeignBundlesAreBounded(t *testing.T) {
	s := newSigstore(t)
	trust := s.trust(foreignRoot(), nil)
	for what, change := range map[string]func(*protobundle.VerificationMaterial){
		"9 entries: want at most 8": func(m *protobundle.VerificationMaterial) {
			for range 8 {
				m.TlogEntries = append(m.TlogEntries, m.TlogEntries[0])
			}
		},
		"9 timestamps: want at most 8": func(m *protobundle.VerificationMaterial) {
			stamps := m.TimestampVerificationData
			for range 8 {
				stamps.Rfc3161Timestamps = append(stamps.Rfc3161Timestamps, stamps.Rfc3161Timestamps[0])
			}
		},
	} {
		raw := edit(t, s.provenance(), func(b *protobundle.Bundle) { change(b.VerificationMaterial) })
		if f, err := trust.Verify(raw); f != nil || err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v; want %s", err, what)
		}
	}
}

// An entry of Rekor v2 whose checkpoint says that it is one of Rekor v1 is taken
// by the engine for proven, whatever bundle it stands in.
func TestForeignEntriesOfAnotherBundle(t *testing.T) {
	s := newSigstore(t)
	mallory := s.logged(s.loggedIn("mallory", actions, s.now.Add(-time.Minute)), statement(attest.ProvenanceType, `{}`), s.now)
	logged := decodeBundle(t, mallory).VerificationMaterial.TlogEntries[0]
	raw := edit(t, s.provenance(), func(b *protobundle.Bundle) {
		e := s.entryV1(logged.CanonicalizedBody, logged.KindVersion, s.now)
		e.InclusionPromise, e.IntegratedTime = nil, 0
		b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{e}
	})
	if err := foreign(s.knownAs(nil), raw, app, verify.Identity{SAN: workflow, Issuer: actions}); err != nil {
		t.Errorf("the engine refuses it by itself now: %v", err)
	}
	f, err := s.trust(foreignRoot(), nil).Verify(raw)
	wantForeignRefused(t, f, err, verify.StepLog)
	if err == nil || !strings.Contains(err.Error(), "checkpoint: origin") {
		t.Errorf("refused for something else: %v", err)
	}
}

func TestForeignRootsAreBounded(t *testing.T) {
	s := newSigstore(t)
	for name, change := range map[string]func(*verify.ForeignRoot){
		"no name":                  func(r *verify.ForeignRoot) { r.Name = "" },
		"a name with a slash":      func(r *verify.ForeignRoot) { r.Name = "a/b" },
		"nobody":                   func(r *verify.ForeignRoot) { r.Identities = nil },
		"too many":                 func(r *verify.ForeignRoot) { r.Identities = make([]verify.ForeignIdentity, 65) },
		"no predicate type":        func(r *verify.ForeignRoot) { r.PredicateTypes = nil },
		"an empty predicate type":  func(r *verify.ForeignRoot) { r.PredicateTypes = []string{""} },
		"too many predicate types": func(r *verify.ForeignRoot) { r.PredicateTypes = make([]string, 65) },
		"no issuer":                func(r *verify.ForeignRoot) { r.Identities[0].Issuer = "" },
		"our own issuer":           func(r *verify.ForeignRoot) { r.Identities[0].Issuer = service },
		"no SAN":                   func(r *verify.ForeignRoot) { r.Identities[0].SAN = "" },
		"a SAN and a pattern":      func(r *verify.ForeignRoot) { r.Identities[0].SANPattern = "a" },
		"a SAN that is too long":   func(r *verify.ForeignRoot) { r.Identities[0].SAN = strings.Repeat("a", 1025) },
		"a pattern for everybody": func(r *verify.ForeignRoot) {
			r.Identities[0] = verify.ForeignIdentity{Issuer: actions, SANPattern: ".*"}
		},
		"a pattern with an empty choice": func(r *verify.ForeignRoot) {
			r.Identities[0] = verify.ForeignIdentity{Issuer: actions, SANPattern: "^a|.*"}
		},
		"a pattern that leaves its anchors": func(r *verify.ForeignRoot) {
			r.Identities[0] = verify.ForeignIdentity{Issuer: actions, SANPattern: `https://github\.com/acme/)|(?:.*`}
		},
		"a pattern that is none": func(r *verify.ForeignRoot) {
			r.Identities[0] = verify.ForeignIdentity{Issuer: actions, SANPattern: "a("}
		},
	} {
		r := foreignRoot()
		change(&r)
		if err := r.Validate(service); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v; want invalid", name, err)
		}
		if trust, err := verify.ParseForeign(r, service, s.knownAs(nil)); trust != nil || !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: parsed: %v", name, err)
		}
	}
	for name, raw := range map[string][]byte{
		"no JSON":                    []byte("{"),
		"nothing":                    nil,
		"the same key twice":         replace(t, s.knownAs(nil), `{`, `{"tlogs":[],`),
		"no certificate authority":   s.knownAs(func(r *prototrustroot.TrustedRoot) { r.CertificateAuthorities = nil }),
		"nobody who tells the time":  s.knownAs(func(r *prototrustroot.TrustedRoot) { r.Tlogs, r.TimestampAuthorities = nil, nil }),
		"a window without a start":   s.knownAs(func(r *prototrustroot.TrustedRoot) { r.Tlogs[0].PublicKey.ValidFor = nil }),
		"a log by the ID of another": s.knownAs(func(r *prototrustroot.TrustedRoot) { r.Tlogs[0].LogId.KeyId[0] ^= 1 }),
		"too large":                  make([]byte, verify.MaxTrustedRoot+1),
	} {
		if trust, err := verify.ParseForeign(foreignRoot(), service, raw); trust != nil || !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("a trusted root of %s: %v; want invalid", name, err)
		}
	}
}

// sigstoreJS is who signs the bundles of testdata/foreign, whose README.md says
// whence they are.
const sigstoreJS = "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"

func publicSigstore(name string) []byte {
	return must(os.ReadFile(filepath.Join("testdata", "foreign", name)))
}

func publicTrust(san string, types ...string) *verify.ForeignTrust {
	return must(verify.ParseForeign(verify.ForeignRoot{
		Name: "public-good", PredicateTypes: types, Identities: []verify.ForeignIdentity{{Issuer: actions, SAN: san}},
	}, service, publicSigstore("public-good.json")))
}

func TestForeignBundlesOfThePublicSigstore(t *testing.T) {
	read, trust := publicSigstore, publicTrust
	f, err := trust(sigstoreJS, attest.ProvenanceType).Verify(read("npm.sigstore.json"))
	check(t, err)
	const hexDigest = "46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c"
	digest := must(attest.NewDigest(attest.AlgSHA512, hexDigest))
	if diff := cmp.Diff(fmt.Sprint([]attest.Subject{{Name: "pkg:npm/sigstore@2.0.0", SHA512: digest}}), fmt.Sprint(f.Statement().Subjects)); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	if sub, ok := f.Statement().About(digest); !ok || sub.Name != "pkg:npm/sigstore@2.0.0" {
		t.Errorf("it is not about %s", digest)
	}
	if f.Identity() != (verify.Identity{SAN: sigstoreJS, Issuer: actions}) || f.SignedAt().Year() != 2023 {
		t.Errorf("signed by %+v at %s", f.Identity(), f.SignedAt())
	}
	// Its certificate has long expired: only the log's signed time carries it.
	leaf := must(x509.ParseCertificate(decodeBundle(t, read("npm.sigstore.json")).VerificationMaterial.GetX509CertificateChain().Certificates[0].RawBytes))
	if !time.Now().After(leaf.NotAfter) {
		t.Error("its certificate has not expired")
	}
	f, err = trust(sigstoreJS, attest.ProvenanceType).Verify(edit(t, read("npm.sigstore.json"), func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }))
	wantForeignRefused(t, f, err, verify.StepLog)
	f, err = trust(sigstoreJS[:len(sigstoreJS)-1], attest.ProvenanceType).Verify(read("npm.sigstore.json"))
	wantForeignRefused(t, f, err, verify.StepIdentity)
	f, err = trust(sigstoreJS, attest.ProvenanceType).Verify(read("npm-key.sigstore.json"))
	wantForeignRefused(t, f, err, verify.StepBundle)

	f, err = trust(sigstoreJS, attest.ProvenanceType).Verify(edit(t, read("npm.sigstore.json"), func(b *protobundle.Bundle) {
		b.VerificationMaterial.TlogEntries[0].InclusionProof = nil // the promise is enough in version 0.1
	}))
	if err != nil || f.SignedAt().Year() != 2023 {
		t.Errorf("with a promise alone: %v", err)
	}

	f, err = trust(sigstoreJS, "https://slsa.dev/provenance/v0.2").Verify(read("npm-statement-v0.1.sigstore.json"))
	if err != nil || f.Statement().Subjects[0].Name != "pkg:npm/sigstore@1.3.0" {
		t.Errorf("an older one: %v", err)
	}
}

// Nothing that is not signed by the one who is listed is believed, whatever is
// made of good bundles.
func FuzzForeign(f *testing.F) {
	for _, name := range []string{"npm.sigstore.json", "npm-statement-v0.1.sigstore.json", "npm-key.sigstore.json"} {
		f.Add(publicSigstore(name))
	}
	trust := publicTrust(sigstoreJS, attest.ProvenanceType)
	want := must(trust.Verify(publicSigstore("npm.sigstore.json")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := trust.Verify(raw)
		if (v == nil) == (err == nil) {
			t.Fatalf("believed %v with the error %v", v, err)
		}
		if v != nil && (v.Identity() != want.Identity() || fmt.Sprint(v.Statement()) != fmt.Sprint(want.Statement())) {
			t.Errorf("believed %+v of %+v", v.Statement(), v.Identity())
		}
	})
}
