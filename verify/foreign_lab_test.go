// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"provost/attest"
	"provost/verify"
)

const (
	actions  = "https://token.actions.githubusercontent.com"
	workflow = "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1"
	scanType = "https://in-toto.io/attestation/vulns/v0.1"
)

// A sigstore is somebody else's: certificates for whoever logs in, timestamps,
// and a log that is a Rekor v1 and, under the same key, a Rekor v2.
type sigstore struct{ *lab }

func newSigstore(t testing.TB) sigstore { return sigstore{newLab(t)} }

// foreignRoot is what tests configure: the workflow may say two things.
func foreignRoot() verify.ForeignRoot {
	return verify.ForeignRoot{
		Name: "github", PredicateTypes: []string{attest.ProvenanceType, scanType},
		Identities: []verify.ForeignIdentity{{Issuer: actions, SAN: workflow}},
	}
}

// trust reads its trusted root, as change made another of.
func (s sigstore) trust(r verify.ForeignRoot, change func(*prototrustroot.TrustedRoot)) *verify.ForeignTrust {
	s.t.Helper()
	trust, err := verify.ParseForeign(r, service, s.knownAs(change))
	check(s.t, err)
	return trust
}

// knownAs is its trusted root without certificate logs, as change made another
// of.
func (s sigstore) knownAs(change func(*prototrustroot.TrustedRoot)) []byte {
	return s.trusted(func(r *prototrustroot.TrustedRoot) {
		r.Ctlogs = nil
		if change != nil {
			change(r)
		}
	})
}

// loggedIn is a certificate of ten minutes for an identity, from a time on.
func (s sigstore) loggedIn(san, issuer string, from time.Time) party {
	template, key := s.template(), newKey()
	template.NotBefore, template.NotAfter = from, from.Add(10*time.Minute)
	template.EmailAddresses = []string{san} // which says any text
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	template.ExtraExtensions = []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: must(asn1.MarshalWithParams(issuer, "utf8"))},
	}
	return party{s.issuing.issue(template, key), key}
}

// rekorV1 puts an entry of a Rekor v1 into a bundle, with proof, promise and
// time.
func (s sigstore) rekorV1(raw []byte, at time.Time) []byte {
	s.t.Helper()
	b := decodeBundle(s.t, raw)
	hash := func(data []byte) map[string]string {
		return map[string]string{"algorithm": "sha256", "value": fmt.Sprintf("%x", sha256.Sum256(data))}
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafOf(b)})
	body := must(json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
		"envelopeHash": hash([]byte("envelope")), "payloadHash": hash(b.GetDsseEnvelope().GetPayload()),
		"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(signatureOf(b)), "verifier": base64.StdEncoding.EncodeToString(certificate)}},
	}}))
	b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, s.entryV1(body, &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}, at))
	return encode(s.t, b)
}

// entryV1 is a body as a Rekor v1 logs it: the only one of its tree.
func (s sigstore) entryV1(body []byte, kind *protorekor.KindVersion, at time.Time) *protorekor.TransparencyLogEntry {
	hash := rfc6962.DefaultHasher.HashLeaf(body)
	signer := must(rekornote.NewNoteSigner(s.t.Context(), s.log.host, must(signature.LoadECDSASigner(s.log.key, crypto.SHA256))))
	text := fmt.Sprintf("%s - 123\n1\n%s\n", s.log.host, base64.StdEncoding.EncodeToString(hash))
	promised := must(json.Marshal(map[string]any{ // RFC 8785, as it happens
		"body": body, "integratedTime": at.Unix(), "logID": fmt.Sprintf("%x", s.log.id), "logIndex": 7,
	}))
	digest := sha256.Sum256(promised)
	return &protorekor.TransparencyLogEntry{
		LogIndex: 7, LogId: &protocommon.LogId{KeyId: s.log.id}, KindVersion: kind, IntegratedTime: at.Unix(), CanonicalizedBody: body,
		InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: must(ecdsa.SignASN1(rand.Reader, s.log.key, digest[:]))},
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: hash, Checkpoint: &protorekor.Checkpoint{Envelope: string(must(note.Sign(&note.Note{Text: text}, signer)))},
		},
	}
}

// says is what an identity signs, with a timestamp, logged in a Rekor v1.
func (s sigstore) says(san, issuer, payload string) []byte {
	s.t.Helper()
	return s.rekorV1(s.sign(s.loggedIn(san, issuer, s.now.Add(-time.Minute)), payload, s.now), s.now)
}

// provenance is a bundle that has everything.
func (s sigstore) provenance() []byte {
	return s.says(workflow, actions, statement(attest.ProvenanceType, `{}`))
}

func withoutStamps(b *protobundle.Bundle)  { b.VerificationMaterial.TimestampVerificationData = nil }
func withoutEntries(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }
