// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
	"provost/verify"
)

func verdictOf(passed bool) attest.VSA {
	v := attest.VSA{
		Verifier: attest.Verifier{ID: service}, TimeVerified: time.Now(), ResourceURI: "pkg:generic/app",
		Policy:             attest.PolicyRef{URI: service + "/policies/prod", Digest: map[string]string{"sha256": app.Hex()}},
		VerificationResult: attest.VSAFailed, VerifiedLevels: []string{attest.VSAFailed}, SLSAVersion: "1.2",
	}
	if passed {
		v.VerificationResult, v.VerifiedLevels = attest.VSAPassed, []string{"SLSA_BUILD_LEVEL_2"}
	}
	return v
}

// Whatever the issuer says of any of its signers is believed, and read back as
// it was said.
func TestVerify(t *testing.T) {
	r := ours()
	lib := attest.SHA256([]byte("lib"))
	for name, c := range map[string]struct {
		predicate     attest.Predicate
		predicateType string
		signer        attest.Power
	}{
		"provenance":     {attest.Provenance{}, "https://slsa.dev/provenance/v1", attest.PowerProvenance},
		"CycloneDX SBOM": {attest.SBOM{Document: []byte(cycloneDXDoc)}, "https://cyclonedx.org/bom", attest.PowerEvidence},
		"SPDX SBOM":      {attest.SBOM{Document: []byte(spdxDoc)}, "https://spdx.dev/Document/v2.3", attest.PowerEvidence},
		"verdict":        {verdictOf(true), "https://slsa.dev/verification_summary/v1", attest.PowerVerdict},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.issue(t, newMemory(t), goodBuild(), c.predicate, lib, app)
			for whom, id := range map[string]verify.Identity{
				"anybody":        {},
				"the service":    {Issuer: service},
				"the one signer": {SAN: service + "/signers/" + string(c.signer), Issuer: service},
			} {
				v, err := r.trust.Verify(a.Bundle, verify.Expect{Artifact: app, Identity: id, PredicateType: c.predicateType})
				if err != nil {
					t.Fatalf("expecting %s: %v", whom, err)
				}
				if got, want := v.Identity(), verify.SignerIdentity(service, c.signer); got != want {
					t.Errorf("identity %+v; want %+v", got, want)
				}
				if v.Subject().Name != "app-1" || v.Subject().SHA256 != app {
					t.Errorf("subject %+v; want the second, which is the artifact", v.Subject())
				}
				if got := v.Statement(); got.PredicateType != c.predicateType || len(got.Subjects) != 2 || len(got.Predicate) == 0 {
					t.Errorf("statement %+v", got)
				}
				if !v.SignedAt().Equal(r.clock.Now()) || v.SignedAt().Location() != time.UTC {
					t.Errorf("signed at %s; the authority's clock says %s", v.SignedAt(), r.clock.Now())
				}
				leaf, err := x509.ParseCertificate(decodeBundle(t, a.Bundle).GetVerificationMaterial().GetCertificate().GetRawBytes())
				check(t, err)
				if from, to := v.Window(); !from.Equal(leaf.NotBefore) || !to.Equal(leaf.NotAfter) || from.Location() != time.UTC {
					t.Errorf("window %s to %s; want the leaf's", from, to)
				}
				if v.Digest() != attest.SHA256(a.Bundle) {
					t.Errorf("digest %s; want that of the bundle's bytes", v.Digest())
				}
			}
		})
	}
}

func TestZeroVerifiedSaysNothing(t *testing.T) {
	var v verify.Verified
	from, to := v.Window()
	if len(v.Statement().Subjects) != 0 || v.Subject() != (attest.Subject{}) || v.Identity() != (verify.Identity{}) ||
		!v.SignedAt().IsZero() || !from.IsZero() || !to.IsZero() || !v.Digest().IsZero() {
		t.Errorf("the zero Verified says %+v", v)
	}
}

// By name, what makes a good bundle bad; and the step that must notice.
func TestVerifyRefuses(t *testing.T) {
	r := ours()
	good := r.provenance(t)
	expect := verify.Expect{Artifact: app, Identity: verify.Identity{Issuer: service}, PredicateType: attest.ProvenanceType}
	if _, err := r.trust.Verify(good, expect); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	other := decodeBundle(t, r.provenance(t)) // with a signature and a timestamp of its own
	if bytes.Equal(signatureOf(other), signatureOf(decodeBundle(t, good))) {
		t.Fatal("two signatures are the same")
	}
	leaf := decodeBundle(t, good).GetVerificationMaterial().GetCertificate().GetRawBytes()
	strangersStamp, err := strangers().authority.Timestamp(t.Context(), signatureOf(decodeBundle(t, good)))
	check(t, err)
	change := func(f func(*protobundle.Bundle)) []byte { return edit(t, good, f) }
	text := func(old, new string) []byte { return replace(t, good, old, new) }
	sealed := func(p attest.Power, predicateType, predicate string) []byte {
		return encode(t, r.sealed(t, p, statement(predicateType, predicate)))
	}

	for _, c := range []struct {
		name   string
		bundle []byte
		want   verify.Step
		expect func(*verify.Expect)
	}{
		// The envelope.
		{"payload flipped", change(func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload[100] ^= 1 }), verify.StepSignature, nil},
		{"payload emptied", change(func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload = nil }), verify.StepBundle, nil},
		{"payload of another bundle", change(func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = []byte(statement(attest.ProvenanceType, `{}`))
		}), verify.StepSignature, nil},
		{"signature flipped", change(func(b *protobundle.Bundle) { s := signatureOf(b); s[len(s)-1] ^= 1 }), verify.StepTime, nil},
		{"signature flipped and stamped again", encode(t, func() *protobundle.Bundle {
			b := decodeBundle(t, good)
			der := signatureOf(b)
			der[len(der)-1] ^= 1
			return r.assemble(t, b.GetDsseEnvelope().GetPayload(), attest.Signature{DER: der, Certificate: leaf})
		}()), verify.StepSignature, nil},
		{"signature emptied", change(func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Sig = nil }), verify.StepTime, nil},
		{"no signature", change(func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures = nil }), verify.StepBundle, nil},
		{"two signatures", change(func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures = append(b.GetDsseEnvelope().Signatures, other.GetDsseEnvelope().Signatures...)
		}), verify.StepBundle, nil},
		{"the same signature twice", change(func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures = append(b.GetDsseEnvelope().Signatures, b.GetDsseEnvelope().Signatures[0])
		}), verify.StepBundle, nil},
		{"a keyid", change(func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Keyid = "provenance-v1" }), verify.StepBundle, nil},
		{"the keyid that the engine would accept", change(func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures[0].Keyid = must(dsse.SHA256KeyID(must(x509.ParseCertificate(leaf)).PublicKey))
		}), verify.StepBundle, nil},
		{"another payload type", change(func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().PayloadType = "application/vnd.in-toto.provenance+json"
		}), verify.StepBundle, nil},
		{"no payload type", change(func(b *protobundle.Bundle) { b.GetDsseEnvelope().PayloadType = "" }), verify.StepBundle, nil},
		{"a message signature", change(func(b *protobundle.Bundle) {
			b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
				MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: app.Bytes()}, Signature: signatureOf(b),
			}}
		}), verify.StepBundle, nil},
		{"no content", change(func(b *protobundle.Bundle) { b.Content = nil }), verify.StepBundle, nil},

		// Who signed.
		{"a public key hint", change(func(b *protobundle.Bundle) {
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "provenance-v1"}}
		}), verify.StepBundle, nil},
		{"a certificate chain", change(func(b *protobundle.Bundle) {
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{
				X509CertificateChain: &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{{RawBytes: leaf}}},
			}
		}), verify.StepBundle, nil},
		{"two certificates in one field", change(func(b *protobundle.Bundle) {
			b.VerificationMaterial.GetCertificate().RawBytes = slices.Concat(leaf, leaf)
		}), verify.StepBundle, nil},
		{"garbage after the certificate", change(func(b *protobundle.Bundle) {
			b.VerificationMaterial.GetCertificate().RawBytes = slices.Concat(leaf, []byte{0})
		}), verify.StepBundle, nil},
		{"no certificate", change(func(b *protobundle.Bundle) { b.VerificationMaterial.Content = nil }), verify.StepBundle, nil},
		{"an empty certificate", change(func(b *protobundle.Bundle) { b.VerificationMaterial.GetCertificate().RawBytes = nil }), verify.StepBundle, nil},
		{"no verification material", change(func(b *protobundle.Bundle) { b.VerificationMaterial = nil }), verify.StepBundle, nil},
		{"the leaf flipped", change(func(b *protobundle.Bundle) { c := b.VerificationMaterial.GetCertificate().RawBytes; c[len(c)-1] ^= 1 }), verify.StepCertificate, nil},
		{"another signer's leaf", change(func(b *protobundle.Bundle) {
			b.VerificationMaterial.GetCertificate().RawBytes = must(r.authority.Signer(attest.PowerEvidence).Sign(t.Context(), nil)).Certificate
		}), verify.StepSignature, nil},
		{"the issuing CA as a leaf", change(func(b *protobundle.Bundle) { b.VerificationMaterial.GetCertificate().RawBytes = r.ca(t).cert.Raw }), verify.StepCertificate, nil},
		{"a leaf of another CA", strangers().provenance(t), verify.StepTime, nil},
		{"a leaf of another CA, stamped by ours", encode(t, func() *protobundle.Bundle {
			payload := statement(attest.ProvenanceType, `{}`)
			sig := must(strangers().authority.Signer(attest.PowerProvenance).Sign(t.Context(), dsse.PAE(attest.PayloadType, []byte(payload))))
			return r.assemble(t, []byte(payload), sig)
		}()), verify.StepCertificate, nil},
		{"an SBOM signed by the signer of provenance", sealed(attest.PowerProvenance, "https://cyclonedx.org/bom", cycloneDXDoc), verify.StepIdentity, func(e *verify.Expect) { e.PredicateType = "" }},
		{"provenance signed by the signer of SBOMs", sealed(attest.PowerEvidence, attest.ProvenanceType, `{}`), verify.StepIdentity, nil},
		{"provenance signed by the signer of verdicts", sealed(attest.PowerVerdict, attest.ProvenanceType, `{}`), verify.StepIdentity, nil},
		{"a verdict signed by the signer of provenance", sealed(attest.PowerProvenance, attest.VSAType, `{}`), verify.StepIdentity, func(e *verify.Expect) { e.PredicateType = "" }},
		{"an unknown predicate signed by the signer of verdicts", sealed(attest.PowerVerdict, "https://example.com/p", `{}`), verify.StepIdentity, func(e *verify.Expect) { e.PredicateType = "" }},
		{"provenance signed by the signer of SBOMs, and no service expected", sealed(attest.PowerEvidence, attest.ProvenanceType, `{}`), verify.StepIdentity, func(e *verify.Expect) { e.Identity = verify.Identity{} }},

		// When.
		{"timestamps removed", change(func(b *protobundle.Bundle) { b.VerificationMaterial.TimestampVerificationData = nil }), verify.StepTime, nil},
		{"an empty list of timestamps", change(func(b *protobundle.Bundle) { stamps(b).Rfc3161Timestamps = nil }), verify.StepTime, nil},
		{"timestamp flipped", change(func(b *protobundle.Bundle) {
			s := stamps(b).Rfc3161Timestamps[0].SignedTimestamp
			s[len(s)-1] ^= 1
		}), verify.StepTime, nil},
		{"timestamp truncated", change(func(b *protobundle.Bundle) {
			s := stamps(b).Rfc3161Timestamps[0]
			s.SignedTimestamp = s.SignedTimestamp[:len(s.SignedTimestamp)-1]
		}), verify.StepTime, nil},
		{"an empty timestamp", change(func(b *protobundle.Bundle) { stamps(b).Rfc3161Timestamps[0].SignedTimestamp = nil }), verify.StepTime, nil},
		{"timestamp of another signature", change(func(b *protobundle.Bundle) {
			stamps(b).Rfc3161Timestamps = stamps(other).Rfc3161Timestamps
		}), verify.StepTime, nil},
		{"timestamp of an unknown authority", change(func(b *protobundle.Bundle) {
			stamps(b).Rfc3161Timestamps[0].SignedTimestamp = strangersStamp[0]
		}), verify.StepTime, nil},
		{"a second timestamp, of an unknown authority", change(func(b *protobundle.Bundle) {
			stamps(b).Rfc3161Timestamps = append(stamps(b).Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: strangersStamp[0]})
		}), verify.StepTime, nil},
		{"a second timestamp, of garbage", change(func(b *protobundle.Bundle) {
			stamps(b).Rfc3161Timestamps = append(stamps(b).Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: []byte("x")})
		}), verify.StepTime, nil},
		{"the same timestamp twice", change(func(b *protobundle.Bundle) {
			stamps(b).Rfc3161Timestamps = append(stamps(b).Rfc3161Timestamps, stamps(b).Rfc3161Timestamps[0])
		}), verify.StepTime, nil},
		{"more timestamps than anybody needs", change(func(b *protobundle.Bundle) {
			stamps(b).Rfc3161Timestamps = slices.Repeat(stamps(b).Rfc3161Timestamps, 9)
		}), verify.StepBundle, nil},
		{"stamped after the leaf expired", r.stampedAfter(t, 25*time.Hour), verify.StepCertificate, nil},

		// What it says it is.
		{"media type v0.1", text(mediaType, "application/vnd.dev.sigstore.bundle+json;version=0.1"), verify.StepBundle, nil},
		{"media type v0.2", text(mediaType, "application/vnd.dev.sigstore.bundle+json;version=0.2"), verify.StepBundle, nil},
		{"media type v0.3 in its older spelling", text(mediaType, "application/vnd.dev.sigstore.bundle+json;version=0.3"), verify.StepBundle, nil},
		{"media type v0.3.1", text("v0.3+json", "v0.3.1+json"), verify.StepBundle, nil},
		{"media type v0.4", text("v0.3+json", "v0.4+json"), verify.StepBundle, nil},
		{"media type in capitals", text("bundle.v0.3", "Bundle.v0.3"), verify.StepBundle, nil},
		{"another media type", text(mediaType, "application/json"), verify.StepBundle, nil},
		{"no media type", text(`"mediaType":"`+mediaType+`",`, ""), verify.StepBundle, nil},

		// JSON that others read differently.
		{"nothing", nil, verify.StepBundle, nil},
		{"white space", []byte(" \n"), verify.StepBundle, nil},
		{"null", []byte("null"), verify.StepBundle, nil},
		{"an empty object", []byte("{}"), verify.StepBundle, nil},
		{"a list of bundles", slices.Concat([]byte("["), good, []byte("]")), verify.StepBundle, nil},
		{"truncated", good[:len(good)-1], verify.StepBundle, nil},
		{"cut in half", good[:len(good)/2], verify.StepBundle, nil},
		{"something after it", slices.Concat(good, []byte("{}")), verify.StepBundle, nil},
		{"a zero byte after it", slices.Concat(good, []byte{0}), verify.StepBundle, nil},
		{"a byte order mark before it", slices.Concat([]byte("\xef\xbb\xbf"), good), verify.StepBundle, nil},
		{"not UTF-8", text(mediaType, "\xff"), verify.StepBundle, nil},
		{"an unknown member", text(`"dsseEnvelope"`, `"extra":1,"dsseEnvelope"`), verify.StepBundle, nil},
		{"a member in another case", text(`"dsseEnvelope"`, `"DsseEnvelope"`), verify.StepBundle, nil},
		{"a field by its .proto name", text(`"dsseEnvelope"`, `"dsse_envelope"`), verify.StepBundle, nil},
		{"a field by its .proto name, escaped", text(`"dsseEnvelope"`, `"dsse\u005fenvelope"`), verify.StepBundle, nil},
		{"a nested field by its .proto name", text(`"payloadType"`, `"payload_type"`), verify.StepBundle, nil},
		{"a field by both names", text(`"payloadType"`, `"payload_type":"application/vnd.in-toto+json","payloadType"`), verify.StepBundle, nil},
		{"a field by both names, one null", text(`"payloadType"`, `"payload_type":null,"payloadType"`), verify.StepBundle, nil},
		{"too deep", text(`"dsseEnvelope"`, `"extra":`+strings.Repeat("[", attest.MaxDepth)+strings.Repeat("]", attest.MaxDepth)+`,"dsseEnvelope"`), verify.StepBundle, nil},
		{"ten million brackets", bytes.Repeat([]byte("["), 10<<20), verify.StepBundle, nil},
		{"too large", slices.Concat(good, bytes.Repeat([]byte(" "), attest.MaxBundle)), verify.StepBundle, nil},

		// What was expected.
		{"another artifact", good, verify.StepSubject, func(e *verify.Expect) { e.Artifact = attest.SHA256([]byte("another")) }},
		{"an artifact by a digest that is not there", good, verify.StepSubject, func(e *verify.Expect) {
			e.Artifact = must(attest.ParseDigest("sha512:" + strings.Repeat("a", 128)))
		}},
		{"no artifact", good, verify.StepBundle, func(e *verify.Expect) { e.Artifact = attest.Digest{} }},
		{"nothing expected", good, verify.StepBundle, func(e *verify.Expect) { *e = verify.Expect{} }},
		{"another predicate type", good, verify.StepStatement, func(e *verify.Expect) { e.PredicateType = "https://cyclonedx.org/bom" }},
		{"a predicate type that is a prefix", good, verify.StepStatement, func(e *verify.Expect) { e.PredicateType = "https://slsa.dev/provenance/v" }},
		{"another identity", good, verify.StepIdentity, func(e *verify.Expect) { e.Identity.SAN = service + "/signers/evidence" }},
		{"an identity that is a prefix", good, verify.StepIdentity, func(e *verify.Expect) { e.Identity.SAN = service + "/signers/prov" }},
		{"an identity that is longer", good, verify.StepIdentity, func(e *verify.Expect) { e.Identity.SAN = service + "/signers/provenance2" }},
		{"an identity that is a pattern", good, verify.StepIdentity, func(e *verify.Expect) { e.Identity.SAN = service + "/signers/.*" }},
		{"another issuer", good, verify.StepIdentity, func(e *verify.Expect) { e.Identity.Issuer = "https://provost.example.evil" }},
		{"an issuer with a slash", good, verify.StepIdentity, func(e *verify.Expect) { e.Identity.Issuer = service + "/" }},
		{"the identity without its issuer", good, verify.StepIdentity, func(e *verify.Expect) {
			e.Identity = verify.Identity{SAN: service + "/signers/provenance"}
		}},
		{"the identity of another issuer", good, verify.StepIdentity, func(e *verify.Expect) {
			e.Identity = verify.Identity{SAN: service + "/signers/provenance", Issuer: "https://accounts.example"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := expect
			if c.expect != nil {
				c.expect(&e)
			}
			v, err := r.trust.Verify(c.bundle, e)
			wantRefused(t, v, err, c.want)
		})
	}
}

func stamps(b *protobundle.Bundle) *protobundle.TimestampVerificationData {
	return b.GetVerificationMaterial().GetTimestampVerificationData()
}

// stampedAfter is good provenance but for its timestamp, which was made later
// than the signature.
func (r *realm) stampedAfter(t *testing.T, d time.Duration) (raw []byte) {
	payload := statement(attest.ProvenanceType, `{}`)
	sig, err := r.authority.Signer(attest.PowerProvenance).Sign(t.Context(), dsse.PAE(attest.PayloadType, []byte(payload)))
	check(t, err)
	r.at(d, func() { raw = encode(t, r.assemble(t, []byte(payload), sig)) })
	return raw
}

// Every object of the bundle with any of its members twice is refused.
func TestVerifyRefusesDuplicateKeysAtEveryLevel(t *testing.T) {
	good := ours().provenance(t)
	tree, err := parseTree(good)
	check(t, err)
	levels := 0
	for _, n := range tree.all() {
		for i, m := range n.members {
			levels++
			n.members = slices.Insert(n.members, i, m)
			v, err := ours().trust.Verify(tree.encode(), verify.Expect{Artifact: app})
			wantRefused(t, v, err, verify.StepBundle)
			n.members = slices.Delete(n.members, i, i+1)
		}
	}
	if levels < 11 {
		t.Errorf("only %d members were there to double: %s", levels, good)
	}
	if _, err := ours().trust.Verify(tree.encode(), verify.Expect{Artifact: app}); err != nil {
		t.Errorf("the tree of the good one: %v", err)
	}
}

// What is too much is refused for being too much, before it is parsed.
func TestVerifyLimits(t *testing.T) {
	deep := strings.Repeat("[", attest.MaxDepth+1) + strings.Repeat("]", attest.MaxDepth+1)
	for name, raw := range map[string][]byte{
		"too deep":  []byte(deep),
		"too large": bytes.Repeat([]byte(" "), attest.MaxBundle+1),
	} {
		var limit *attest.LimitError
		if _, err := ours().trust.Verify(raw, verify.Expect{Artifact: app}); !errors.As(err, &limit) {
			t.Errorf("a bundle that is %s: %v; want a LimitError", name, err)
		}
		if _, err := verify.ParseTrust(raw); !errors.As(err, &limit) {
			t.Errorf("a root that is %s: %v; want a LimitError", name, err)
		}
	}
}

// What is signed and is yet not a strict statement.
func TestVerifyRefusesStatements(t *testing.T) {
	r := ours()
	good := statement(attest.ProvenanceType, `{"a":1}`)
	expect := verify.Expect{Artifact: app, PredicateType: attest.ProvenanceType}
	if _, err := r.trust.Verify(encode(t, r.sealed(t, attest.PowerProvenance, good)), expect); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	text := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	hex := app.Hex()
	for _, c := range []struct {
		name    string
		payload string
		want    verify.Step
	}{
		{"version 0.1", text("Statement/v1", "Statement/v0.1"), verify.StepStatement},
		{"no _type", text(`"_type":"https://in-toto.io/Statement/v1",`, ""), verify.StepStatement},
		{"not JSON", "hello", verify.StepStatement},
		{"truncated", good[:len(good)-1], verify.StepStatement},
		{"something after it", good + "{}", verify.StepStatement},
		{"a key twice", text(`"predicateType"`, `"predicateType":"https://example.com/p","predicateType"`), verify.StepStatement},
		{"a key twice, in the subject", text(`"sha256"`, `"sha256":"`+strings.Repeat("0", 64)+`","sha256"`), verify.StepStatement},
		{"a key twice, in the predicate", text(`"a":1`, `"a":1,"a":2`), verify.StepStatement},
		{"another subject, and ours in another case, which the engine reads", text(`"subject"`, `"subject":[{"digest":{"sha256":"`+strings.Repeat("0", 64)+`"}}],"Subject"`), verify.StepSubject},
		{"our subject, and another in another case, which the engine reads", text(`],"predicateType"`, `],"Subject":[{"digest":{"sha256":"`+strings.Repeat("0", 64)+`"}}],"predicateType"`), verify.StepSubject},
		{"Subject", text(`"subject"`, `"Subject"`), verify.StepStatement},
		{"PredicateType", text(`"predicateType"`, `"PredicateType"`), verify.StepStatement},
		{"upper-case hex", text(hex, strings.ToUpper(hex)), verify.StepStatement},
		{"the digest padded", text(hex, hex+" "), verify.StepStatement},
		{"another algorithm's name", text("sha256", "SHA256"), verify.StepSubject},
		{"no subject", text(`{"name":"app","digest":{"sha256":"`+hex+`"}}`, ""), verify.StepSubject},
		{"a subject without a digest", text(`,"digest":{"sha256":"`+hex+`"}`, ""), verify.StepSubject},
		{"a subject that has the artifact for a name", text(`"name":"app","digest":{"sha256":"`+hex+`"}`, `"name":"sha256:`+hex+`","digest":{"sha256":"`+strings.Repeat("0", 64)+`"}`), verify.StepSubject},
		{"a subject that is another's sha512", text(`"sha256":"`+hex, `"sha256":"`+strings.Repeat("0", 64)+`","sha512":"`+hex), verify.StepSubject},
		{"a second subject that is malformed", text(`}],"predicateType"`, `},{"digest":{"sha256":"x"}}],"predicateType"`), verify.StepStatement},
		{"too many subjects", text(`"subject":[`, `"subject":[`+strings.Repeat(`{"digest":{"sha256":"`+hex+`"}},`, attest.MaxSubjects)), verify.StepStatement},
		{"too many digests", text(`"sha256"`, manyDigests()+`"sha256"`), verify.StepStatement},
		{"no predicate", text(`,"predicate":{"a":1}`, ""), verify.StepStatement},
		{"a predicate that is a string", text(`{"a":1}`, `"x"`), verify.StepStatement},
		{"another predicate type", text(attest.ProvenanceType, "https://slsa.dev/provenance/v0.2"), verify.StepStatement},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := r.trust.Verify(encode(t, r.sealed(t, attest.PowerProvenance, c.payload)), expect)
			wantRefused(t, v, err, c.want)
		})
	}
}

func manyDigests() string {
	var b strings.Builder
	for i := range 40 {
		b.WriteString(`"x` + string(rune('A'+i)) + `":"00",`)
	}
	return b.String()
}

// Certificates of the very CA that is trusted, but not such as a signer has.
func TestVerifyRefusesLeaves(t *testing.T) {
	r := ours()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	now := r.clock.Now()
	issuerExtension := func(issuer string) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: must(asn1.MarshalWithParams(issuer, "utf8"))}
	}
	uri := func(s string) []*url.URL { return []*url.URL{must(url.Parse(s))} }
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		want   verify.Step // "" believes it
	}{
		{"a leaf as it should be", func(*x509.Certificate) {}, ""},
		{"without a name", func(c *x509.Certificate) { c.URIs = nil }, verify.StepCertificate},
		{"with an e-mail address for a name", func(c *x509.Certificate) {
			c.URIs, c.EmailAddresses = nil, []string{"provenance@provost.example"}
		}, verify.StepIdentity},
		{"with another name first", func(c *x509.Certificate) { c.URIs = append(uri("https://x.example/"), c.URIs...) }, verify.StepIdentity},
		{"without an issuer", func(c *x509.Certificate) { c.ExtraExtensions = nil }, verify.StepIdentity},
		{"without an issuer, and with the name that nobody's signer would have", func(c *x509.Certificate) {
			c.ExtraExtensions, c.URIs = nil, uri("/signers/provenance")
		}, verify.StepIdentity},
		{"of another issuer", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{issuerExtension("https://x.example")}
		}, verify.StepIdentity},
		{"with an empty issuer", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{issuerExtension("")} }, verify.StepIdentity},
		{"for another use", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, verify.StepCertificate},
		{"expired when it signed", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, verify.StepCertificate},
		{"that ends in the second it signed", func(c *x509.Certificate) { c.NotAfter = now }, ""},
		{"not yet valid when it signed", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, verify.StepCertificate},
		{"that begins in the second it signed", func(c *x509.Certificate) { c.NotBefore = now }, ""},
		{"with a critical extension nobody knows", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, verify.StepCertificate},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
				URIs: uri(service + "/signers/provenance"), KeyUsage: x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, ExtraExtensions: []pkix.Extension{issuerExtension(service)},
			}
			c.change(template)
			ca := r.ca(t)
			leaf, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca)
			check(t, err)
			payload := []byte(statement(attest.ProvenanceType, `{}`))
			hash := sha256.Sum256(dsse.PAE(attest.PayloadType, payload))
			der, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
			check(t, err)
			raw := encode(t, r.assemble(t, payload, attest.Signature{DER: der, Certificate: leaf}))
			for _, id := range []verify.Identity{{Issuer: service}, {}} {
				v, err := r.trust.Verify(raw, verify.Expect{Artifact: app, Identity: id})
				if c.want != "" {
					wantRefused(t, v, err, c.want)
				} else if err != nil {
					t.Errorf("refused: %v", err)
				}
			}
		})
	}
}

// Nothing is believed without somebody to believe.
func TestNoTrust(t *testing.T) {
	good := ours().provenance(t)
	for name, trust := range map[string]*verify.Trust{"nil": nil, "zero": {}} {
		v, err := trust.Verify(good, verify.Expect{Artifact: app})
		wantRefused(t, v, err, verify.StepBundle)
		if got := trust.Authorities(); len(got) != 0 {
			t.Errorf("the %s trust names %v", name, got)
		}
	}
	v, err := strangers().trust.Verify(good, verify.Expect{Artifact: app})
	wantRefused(t, v, err, verify.StepTime)
}

func TestParseTrustRefuses(t *testing.T) {
	r := ours()
	year1 := &timestamppb.Timestamp{Seconds: -62135596800}
	change := func(f func(*prototrustroot.TrustedRoot)) []byte { return editRoot(t, r.root, f) }
	for name, raw := range map[string][]byte{
		"nothing":           nil,
		"null":              []byte("null"),
		"an empty object":   []byte("{}"),
		"garbage":           []byte("trust me"),
		"truncated":         r.root[:len(r.root)-1],
		"something after":   slices.Concat(r.root, []byte("{}")),
		"a list of roots":   slices.Concat([]byte("["), r.root, []byte("]")),
		"a bundle":          r.provenance(t),
		"not UTF-8":         replace(t, r.root, `"uri":"https`, "\"uri\":\"\xffhttps"),
		"too large":         slices.Concat(r.root, bytes.Repeat([]byte(" "), verify.MaxTrustedRoot)),
		"a key twice":       replace(t, r.root, `"mediaType"`, `"mediaType":"x","mediaType"`),
		"a nested key":      replace(t, r.root, `"validFor":{"start"`, `"validFor":{"start":"1970-01-01T00:00:00Z","start"`),
		"an unknown member": replace(t, r.root, `"mediaType"`, `"extra":1,"mediaType"`),
		"a .proto name":     replace(t, r.root, `"validFor"`, `"valid_for"`),
		"no media type":     change(func(p *prototrustroot.TrustedRoot) { p.MediaType = "" }),
		"media type v0.2": change(func(p *prototrustroot.TrustedRoot) {
			p.MediaType = "application/vnd.dev.sigstore.trustedroot.v0.2+json"
		}),
		"no CA":  change(func(p *prototrustroot.TrustedRoot) { p.CertificateAuthorities = nil }),
		"no TSA": change(func(p *prototrustroot.TrustedRoot) { p.TimestampAuthorities = nil }),
		"a CA without certificates": change(func(p *prototrustroot.TrustedRoot) {
			p.CertificateAuthorities[0].CertChain.Certificates = nil
		}),
		"a CA of garbage": change(func(p *prototrustroot.TrustedRoot) {
			p.CertificateAuthorities[0].CertChain.Certificates[0].RawBytes = []byte("x")
		}),
		"a CA without a window": change(func(p *prototrustroot.TrustedRoot) { p.CertificateAuthorities[0].ValidFor = nil }),
		"a CA without a start":  change(func(p *prototrustroot.TrustedRoot) { p.CertificateAuthorities[0].ValidFor.Start = nil }),
		"a CA from the year 1":  change(func(p *prototrustroot.TrustedRoot) { p.CertificateAuthorities[0].ValidFor.Start = year1 }),
		"a CA until the year 1": change(func(p *prototrustroot.TrustedRoot) { p.CertificateAuthorities[0].ValidFor.End = year1 }),
		"a CA that ends before it starts": change(func(p *prototrustroot.TrustedRoot) {
			p.CertificateAuthorities[0].ValidFor.End = timestamppb.New(p.CertificateAuthorities[0].ValidFor.Start.AsTime().Add(-time.Second))
		}),
		"a TSA without a window": change(func(p *prototrustroot.TrustedRoot) { p.TimestampAuthorities[0].ValidFor = nil }),
		"a TSA without a start":  change(func(p *prototrustroot.TrustedRoot) { p.TimestampAuthorities[0].ValidFor.Start = nil }),
		"a second CA without a window": change(func(p *prototrustroot.TrustedRoot) {
			p.CertificateAuthorities = append(p.CertificateAuthorities, &prototrustroot.CertificateAuthority{CertChain: p.CertificateAuthorities[0].CertChain})
		}),
	} {
		if trust, err := verify.ParseTrust(raw); !errors.Is(err, attest.ErrInvalid) || trust != nil {
			t.Errorf("%s: ParseTrust = %v, %v; want ErrInvalid", name, trust, err)
		}
	}
}

// A revoked interval is a hole in the CA's window: what was signed before and
// after it is believed, what was signed inside is not; both ends belong to the
// windows.
func TestTrustWindows(t *testing.T) {
	r := ours()
	now := r.clock.Now()
	from, to := now.Add(10*time.Minute), now.Add(20*time.Minute)
	hole := must(verify.ParseTrust(editRoot(t, r.root, func(p *prototrustroot.TrustedRoot) {
		before := p.CertificateAuthorities[0]
		after := &prototrustroot.CertificateAuthority{CertChain: before.CertChain, Uri: before.Uri, Subject: before.Subject}
		after.ValidFor = &protocommon.TimeRange{Start: timestamppb.New(to)}
		before.ValidFor.End = timestamppb.New(from)
		p.CertificateAuthorities = append(p.CertificateAuthorities, after)
	})))
	closed := must(verify.ParseTrust(editRoot(t, r.root, func(p *prototrustroot.TrustedRoot) {
		p.TimestampAuthorities[0].ValidFor.End = timestamppb.New(from)
	})))
	late := must(verify.ParseTrust(editRoot(t, r.root, func(p *prototrustroot.TrustedRoot) {
		p.TimestampAuthorities[0].ValidFor.Start = timestamppb.New(to)
	})))
	for _, c := range []struct {
		name               string
		signed             time.Time
		hole, closed, late verify.Step // "" believes it
	}{
		{"long before the hole", now, "", "", verify.StepTime},
		{"in its last good second", from, "", "", verify.StepTime},
		{"a second later", from.Add(time.Second), verify.StepRevoked, verify.StepTime, verify.StepTime},
		{"a second before it ends", to.Add(-time.Second), verify.StepRevoked, verify.StepTime, verify.StepTime},
		{"in the first good second after it", to, "", verify.StepTime, ""},
		{"long after it", to.Add(time.Hour), "", verify.StepTime, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.at(c.signed.Sub(now), func() {
				raw := r.provenance(t)
				for trust, want := range map[*verify.Trust]verify.Step{hole: c.hole, closed: c.closed, late: c.late} {
					v, err := trust.Verify(raw, verify.Expect{Artifact: app})
					if want != "" {
						wantRefused(t, v, err, want)
					} else if err != nil {
						t.Errorf("refused: %v", err)
					} else if !v.SignedAt().Equal(c.signed) {
						t.Errorf("signed at %s; want %s", v.SignedAt(), c.signed)
					}
				}
			})
		})
	}
}

// With two authorities both must have stamped well, and the earlier time is
// when it was signed.
func TestTwoTimestamps(t *testing.T) {
	r := ours()
	both := must(verify.ParseTrust(editRoot(t, r.root, func(p *prototrustroot.TrustedRoot) {
		theirs := new(prototrustroot.TrustedRoot)
		_ = editRoot(t, strangers().root, func(s *prototrustroot.TrustedRoot) { theirs.TimestampAuthorities = s.TimestampAuthorities })
		theirs.TimestampAuthorities[0].Uri = "https://tsa.example"
		p.TimestampAuthorities = append(p.TimestampAuthorities, theirs.TimestampAuthorities...)
	})))
	signed := r.clock.Now().Add(time.Hour)
	for _, c := range []struct {
		name         string
		ours, theirs time.Duration
		want         verify.Step // "" believes it
	}{
		{"theirs is earlier", 30 * time.Second, 0, ""},
		{"theirs is later", 0, 30 * time.Second, ""},
		{"theirs is after the leaf", 0, 25 * time.Hour, verify.StepCertificate},
	} {
		t.Run(c.name, func(t *testing.T) {
			var raw []byte
			r.at(time.Hour+c.ours, func() { raw = r.provenance(t) })
			theirs := strangers()
			theirs.at(signed.Add(c.theirs).Sub(theirs.clock.Now()), func() {
				raw = edit(t, raw, func(b *protobundle.Bundle) {
					stamp, err := theirs.authority.Timestamp(t.Context(), signatureOf(b))
					check(t, err)
					stamps(b).Rfc3161Timestamps = append(stamps(b).Rfc3161Timestamps, &protocommon.RFC3161SignedTimestamp{SignedTimestamp: stamp[0]})
				})
			})
			v, err := both.Verify(raw, verify.Expect{Artifact: app})
			if c.want != "" {
				wantRefused(t, v, err, c.want)
			} else if err != nil {
				t.Errorf("refused: %v", err)
			} else if !v.SignedAt().Equal(signed) {
				t.Errorf("signed at %s; want the earlier, %s", v.SignedAt(), signed)
			}
		})
	}
}

func TestAuthorities(t *testing.T) {
	r := ours()
	var kinds []string
	found := false
	for _, a := range r.trust.Authorities() {
		kinds = append(kinds, a.Kind)
		if a.ValidFrom.IsZero() || !a.ValidTo.IsZero() || !strings.HasPrefix(a.URI, service) || len(a.Fingerprint) != 64 ||
			!strings.Contains(a.Subject, "Example") || a.NotAfter.Before(a.NotBefore) {
			t.Errorf("%+v", a)
		}
		found = found || a.Kind == "certificate authority" && a.Fingerprint == attest.SHA256(r.ca(t).cert.Raw).Hex()
	}
	if !found {
		t.Error("no fingerprint of the issuing CA")
	}
	ca := "certificate authority" // each of three signers has one, and a reserve
	if diff := cmp.Diff([]string{ca, ca, ca, ca, ca, ca, "timestamp authority"}, kinds); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A CA of a Provost service speaks for the signer that it is named for, and for
// no other; one that is named in another way is held to nothing here.
func TestCheckIssuedFor(t *testing.T) {
	for _, tt := range []struct {
		ca, san string
		ok      bool
	}{
		{"Example provenance issuing CA 1", service + "/signers/provenance", true},
		{"Example provenance issuing CA 23", service + "/signers/provenance", true},
		{"Example evidence issuing CA 1", service + "/signers/provenance", false},
		{"Example evidence issuing CA 2", service + "/signers/verdict", false},
		{"Example verdict issuing CA 1", service + "/signers/evidence", false},
		{"Example verdict issuing CA 1", "https://github.com/acme/app", false},
		{"Example verdict issuing CA 1", "", false},
		{"sigstore-intermediate", "https://github.com/acme/app", true},
	} {
		leaf := &x509.Certificate{Issuer: pkix.Name{CommonName: tt.ca}}
		if err := verify.CheckIssuedFor(leaf, tt.san); (err == nil) != tt.ok {
			t.Errorf("%q for %q: %v", tt.ca, tt.san, err)
		}
	}
}
