// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
	checkpoint "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/note"

	"provost/attest"
)

// A virtual is an attestation service whose keys the tests hold: it signs what
// a right service never would, at any time. Bundles and trusted root have the
// shape that Provost's have.
type virtual struct {
	t       testing.TB
	service string                     // its name
	cas     map[attest.Power]authority // one for each signer
	tsa     authority
	ctlog   *ecdsa.PrivateKey
	logKey  *ecdsa.PrivateKey
	tree    *testonly.Tree
	born    time.Time
}

// An authority is a certificate under the root, and its key.
type authority struct {
	top, cert *x509.Certificate
	key       *ecdsa.PrivateKey
}

const virtualLog = "log.provost.example"

func newVirtual(t testing.TB, service string) *virtual {
	t.Helper()
	v := &virtual{t: t, service: service, born: time.Now().Add(-30 * 24 * time.Hour).UTC().Truncate(time.Second),
		ctlog: v256(t), logKey: v256(t), tree: testonly.New(rfc6962.DefaultHasher),
		cas: map[attest.Power]authority{}}
	topKey := v256(t)
	ca := func(cn string, pathLen int) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{Organization: []string{"Virtual"}, CommonName: cn}, NotBefore: v.born, NotAfter: v.born.AddDate(3, 0, 0),
			IsCA: true, BasicConstraintsValid: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	self := ca("root", 1)
	top := v.certificate(self, self, topKey.Public(), topKey)
	for _, power := range attest.Powers {
		a := authority{top, nil, v256(t)}
		issuing := ca("issuing CA of "+string(power), 0)
		issuing.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		a.cert = v.certificate(issuing, top, a.key.Public(), topKey)
		v.cas[power] = a
	}
	v.tsa = authority{top, nil, v256(t)}
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	ok(t, err)
	v.tsa.cert = v.certificate(&x509.Certificate{
		Subject: pkix.Name{Organization: []string{"Virtual"}, CommonName: "timestamps"}, NotBefore: v.born, NotAfter: v.born.AddDate(3, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, top, v.tsa.key.Public(), topKey)
	return v
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func v256(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	return key
}

func (v *virtual) certificate(template, parent *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	v.t.Helper()
	if template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
		ok(v.t, err)
		template.SerialNumber = serial.Add(serial, big.NewInt(1))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	ok(v.t, err)
	cert, err := x509.ParseCertificate(der)
	ok(v.t, err)
	return cert
}

// A virtualKey is one version of a signer's key.
type virtualKey struct {
	key  *ecdsa.PrivateKey
	leaf *x509.Certificate
}

// newKey makes a key version with a leaf.
func (v *virtual) newKey(power attest.Power, from, to time.Time, withSCT bool) virtualKey {
	v.t.Helper()
	key := v256(v.t)
	san, err := url.Parse(v.service + "/signers/" + string(power))
	ok(v.t, err)
	name, err := asn1.MarshalWithParams(v.service, "utf8")
	ok(v.t, err)
	template := &x509.Certificate{
		NotBefore: from, NotAfter: to, URIs: []*url.URL{san}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(v.service)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: name},
		},
	}
	ca := v.cas[power]
	leaf := v.certificate(template, ca.cert, key.Public(), ca.key)
	if withSCT {
		template.ExtraExtensions = append(template.ExtraExtensions, v.sct(ca, leaf, from))
		leaf = v.certificate(template, ca.cert, key.Public(), ca.key)
	}
	return virtualKey{key, leaf}
}

// sct is the extension with a signed certificate timestamp (RFC 6962, sections
// 3.2 and 3.3) over a certificate that has none yet.
func (v *virtual) sct(ca authority, leaf *x509.Certificate, at time.Time) pkix.Extension {
	v.t.Helper()
	b := binary.BigEndian
	ms := b.AppendUint64(nil, uint64(at.UnixMilli()))
	caKey := sha256.Sum256(ca.cert.RawSubjectPublicKeyInfo)
	tbs := leaf.RawTBSCertificate
	in := slices.Concat([]byte{0, 0}, ms, []byte{0, 1}, caKey[:], []byte{byte(len(tbs) >> 16)}, b.AppendUint16(nil, uint16(len(tbs))), tbs, []byte{0, 0})
	digest := sha256.Sum256(in)
	sig, err := ecdsa.SignASN1(rand.Reader, v.ctlog, digest[:])
	ok(v.t, err)
	sct := slices.Concat([]byte{0}, v.keyID(v.ctlog), ms, []byte{0, 0, 4, 3}, b.AppendUint16(nil, uint16(len(sig))), sig)
	list := b.AppendUint16(nil, uint16(len(sct)+2))
	list = append(b.AppendUint16(list, uint16(len(sct))), sct...)
	value, err := asn1.Marshal(list)
	ok(v.t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

func (v *virtual) keyID(key *ecdsa.PrivateKey) []byte {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	ok(v.t, err)
	id := sha256.Sum256(spki)
	return id[:]
}

// sign makes a bundle of a statement, stamped at a time and logged.
func (v *virtual) sign(k virtualKey, statement []byte, at time.Time) []byte {
	v.t.Helper()
	digest := sha256.Sum256(dsse.PAE(attest.PayloadType, statement))
	sig, err := ecdsa.SignASN1(rand.Reader, k.key, digest[:])
	ok(v.t, err)
	imprint := sha256.Sum256(sig)
	stamp, err := (&timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Time: at.UTC(), Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}, AddTSACertificate: true,
	}).CreateResponseWithOpts(v.tsa.cert, v.tsa.key, crypto.SHA256)
	ok(v.t, err)
	body := attest.LogEntry{Digest: digest, Signature: sig, Certificate: k.leaf.Raw}.Body()
	v.tree.AppendData([]byte("an entry of somebody else"), body, []byte("and another"), []byte("and one more"))
	index := v.tree.Size() - 3
	return v.bundle(k, statement, sig, stamp, body, index)
}

func (v *virtual) bundle(k virtualKey, statement, sig, stamp, body []byte, index uint64) []byte {
	v.t.Helper()
	proof, err := v.tree.InclusionProof(index, v.tree.Size())
	ok(v.t, err)
	signer, err := signature.LoadECDSASigner(v.logKey, crypto.SHA256)
	ok(v.t, err)
	noteSigner, err := rekornote.NewNoteSigner(v.t.Context(), virtualLog, signer)
	ok(v.t, err)
	cp := checkpoint.Checkpoint{Origin: virtualLog, Size: v.tree.Size(), Hash: v.tree.Hash()}
	signed, err := note.Sign(&note.Note{Text: string(cp.Marshal())}, noteSigner)
	ok(v.t, err)
	type object = map[string]any
	raw, err := json.Marshal(object{
		"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": object{
			"certificate":               object{"rawBytes": k.leaf.Raw},
			"timestampVerificationData": object{"rfc3161Timestamps": []object{{"signedTimestamp": stamp}}},
			"tlogEntries": []object{{
				"logIndex": decimal(index), "logId": object{"keyId": v.keyID(v.logKey)},
				"kindVersion":       object{"kind": attest.LogKind, "version": attest.LogVersion},
				"canonicalizedBody": body,
				"inclusionProof": object{
					"logIndex": decimal(index), "treeSize": decimal(v.tree.Size()), "rootHash": v.tree.Hash(), "hashes": proof,
					"checkpoint": object{"envelope": string(signed)},
				},
			}},
		},
		"dsseEnvelope": object{"payload": statement, "payloadType": attest.PayloadType, "signatures": []object{{"sig": sig}}},
	})
	ok(v.t, err)
	return raw
}

func decimal(n uint64) string { return new(big.Int).SetUint64(n).String() }

func (v *virtual) trustedRoot() []byte {
	v.t.Helper()
	log := func(url string, key *ecdsa.PrivateKey) map[string]*root.TransparencyLog {
		id := v.keyID(key)
		return map[string]*root.TransparencyLog{string(id): {
			BaseURL: url, ID: id, ValidityPeriodStart: v.born, HashFunc: crypto.SHA256, PublicKey: key.Public(), SignatureHashFunc: crypto.SHA256,
		}}
	}
	var cas []root.CertificateAuthority
	for _, power := range attest.Powers {
		cas = append(cas, &root.FulcioCertificateAuthority{
			Root: v.cas[power].top, Intermediates: []*x509.Certificate{v.cas[power].cert}, ValidityPeriodStart: v.born, URI: v.service})
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, log("https://ct.provost.example", v.ctlog),
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: v.tsa.top, Leaf: v.tsa.cert, ValidityPeriodStart: v.born, URI: v.service + "/v1/timestamp"}},
		log("https://"+virtualLog, v.logKey))
	ok(v.t, err)
	raw, err := tr.MarshalJSON()
	ok(v.t, err)
	return raw
}

// statement says something about an artifact.
func statement(artifact attest.Digest, predicateType, predicate string) []byte {
	return []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"app","digest":{"sha256":"` + artifact.Hex() +
		`"}}],"predicateType":"` + predicateType + `","predicate":` + cmp.Or(predicate, "{}") + `}`)
}
