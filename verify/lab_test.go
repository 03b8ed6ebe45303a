// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
)

// A lab is a whole Sigstore in memory, which does what no service would: root,
// issuing CA, two timestamp authorities, two certificate logs and a
// transparency log. Its bundles carry all that a bundle can: an SCT, a
// timestamp and a log entry.
type lab struct {
	t             testing.TB
	now           time.Time
	root, issuing party
	stampers      []party
	ctlogs        []*ecdsa.PrivateKey
	log           *tlog
}

// A party is a certificate and its key.
type party struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, now: time.Now().UTC().Truncate(time.Second), log: newLog(t, "log.provost.example")}
	name := pkix.Name{Organization: []string{"Example"}}
	authority := func(cn string) *x509.Certificate {
		c := l.template()
		c.Subject, c.NotAfter = name, l.now.AddDate(3, 0, 0)
		c.Subject.CommonName = cn
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		return c
	}
	l.root.key, l.issuing.key = newKey(), newKey()
	l.root.cert = authority("root")
	l.root.cert = l.root.issue(l.root.cert, l.root.key)
	l.issuing.cert = l.root.issue(authority("issuing"), l.issuing.key)
	for range 2 {
		c := l.template()
		c.Subject, c.NotAfter, c.KeyUsage = name, l.now.AddDate(3, 0, 0), x509.KeyUsageDigitalSignature
		usage := must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}))
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
		key := newKey()
		l.stampers = append(l.stampers, party{l.root.issue(c, key), key})
		l.ctlogs = append(l.ctlogs, newKey())
	}
	return l
}

// issue makes a certificate by p's key, and checks it.
func (p party) issue(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, p.cert, key.Public(), p.key))))
}

func (l *lab) template() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))),
		NotBefore:    l.now.Add(-time.Hour), NotAfter: l.now.Add(24 * time.Hour),
	}
}

// A promise is an SCT to be made: by which log, at what time from now, and
// spoiled how.
type promise struct {
	log   *ecdsa.PrivateKey
	at    time.Duration
	spoil func(*ct.SignedCertificateTimestamp)
}

// leaf is a signer's certificate with SCTs, none if none are promised.
func (l *lab) leaf(p attest.Power, promises ...promise) party {
	template, key := l.template(), newKey()
	template.URIs = []*url.URL{must(url.Parse(service + "/signers/" + string(p)))}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	template.ExtraExtensions = []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: must(asn1.MarshalWithParams(service, "utf8"))},
	}
	plain := l.issuing.issue(template, key)
	if len(promises) == 0 {
		return party{plain, key}
	}
	var scts []*ct.SignedCertificateTimestamp
	for _, p := range promises {
		scts = append(scts, l.sct(plain, p))
	}
	list := must(tls.Marshal(*must(x509util.MarshalSCTsIntoSCTList(scts))))
	template.ExtraExtensions = append(template.ExtraExtensions,
		pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: must(asn1.Marshal(list))})
	return party{l.issuing.issue(template, key), key}
}

// sct is a log's promise about a certificate that has none yet (RFC 6962,
// section 3.2): the precertificate's TBSCertificate is that of the certificate
// without the extension.
func (l *lab) sct(plain *x509.Certificate, p promise) *ct.SignedCertificateTimestamp {
	sct := &ct.SignedCertificateTimestamp{
		SCTVersion: ct.V1, LogID: ct.LogID{KeyID: sha256.Sum256(spki(p.log))}, Timestamp: uint64(l.now.Add(p.at).UnixMilli()),
	}
	entry := ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: sha256.Sum256(l.issuing.cert.RawSubjectPublicKeyInfo), TBSCertificate: plain.RawTBSCertificate},
		},
	}}
	sct.Signature = ct.DigitallySigned(must(tls.CreateSignature(*p.log, tls.SHA256, must(ct.SerializeSCTSignatureInput(*sct, entry)))))
	if p.spoil != nil {
		p.spoil(sct)
	}
	return sct
}

func spki(key *ecdsa.PrivateKey) []byte { return must(x509.MarshalPKIXPublicKey(key.Public())) }

// promised is a leaf as it should be.
func (l *lab) promised(p attest.Power) party {
	return l.leaf(p, promise{log: l.ctlogs[0], at: -time.Minute})
}

// stamp is a timestamp over a signature by one of the authorities.
func (l *lab) stamp(by int, signature []byte, at time.Time) *protocommon.RFC3161SignedTimestamp {
	imprint := sha256.Sum256(signature)
	p := l.stampers[by]
	response := must((&timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Time: at, Policy: []int{1, 2, 3}, AddTSACertificate: true,
	}).CreateResponseWithOpts(p.cert, p.key, crypto.SHA256))
	return &protocommon.RFC3161SignedTimestamp{SignedTimestamp: response}
}

// sign makes a bundle without a log entry, stamped at the times given by as
// many authorities.
func (l *lab) sign(by party, payload string, at ...time.Time) []byte {
	l.t.Helper()
	message := sha256.Sum256(dsse.PAE(attest.PayloadType, []byte(payload)))
	signature := must(ecdsa.SignASN1(rand.Reader, by.key, message[:]))
	stamps := &protobundle.TimestampVerificationData{}
	for i, t := range at {
		stamps.Rfc3161Timestamps = append(stamps.Rfc3161Timestamps, l.stamp(i, signature, t))
	}
	return encode(l.t, &protobundle.Bundle{
		MediaType: mediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: by.cert.Raw}},
			TimestampVerificationData: stamps,
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: []byte(payload), PayloadType: attest.PayloadType, Signatures: []*protodsse.Signature{{Sig: signature}},
		}},
	})
}

// logged is sign, and a log entry.
func (l *lab) logged(by party, payload string, at ...time.Time) []byte {
	raw := l.sign(by, payload, at...)
	return l.log.logged(raw, l.log.add(raw))
}

// provenance is a bundle that has everything.
func (l *lab) provenance() []byte {
	return l.logged(l.promised(attest.PowerProvenance), statement(attest.ProvenanceType, `{}`), l.now)
}

// trusted is the root that knows everybody in the lab, as change made another
// of.
func (l *lab) trusted(change func(*prototrustroot.TrustedRoot)) []byte {
	since := &protocommon.TimeRange{Start: timestamppb.New(l.now.Add(-time.Hour))}
	chain := func(certs ...*x509.Certificate) *protocommon.X509CertificateChain {
		var c protocommon.X509CertificateChain
		for _, cert := range certs {
			c.Certificates = append(c.Certificates, &protocommon.X509Certificate{RawBytes: cert.Raw})
		}
		return &c
	}
	r := &prototrustroot.TrustedRoot{
		MediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		CertificateAuthorities: []*prototrustroot.CertificateAuthority{
			{Uri: service, CertChain: chain(l.issuing.cert, l.root.cert), ValidFor: since},
		},
	}
	for i, s := range l.stampers {
		r.TimestampAuthorities = append(r.TimestampAuthorities, &prototrustroot.CertificateAuthority{
			Uri: []string{service + "/v1/timestamp", "https://tsa.example"}[i], CertChain: chain(s.cert, l.root.cert), ValidFor: since,
		})
	}
	for _, key := range l.ctlogs {
		id := sha256.Sum256(spki(key))
		r.Ctlogs = append(r.Ctlogs, &prototrustroot.TransparencyLogInstance{
			BaseUrl: service + "/ct", HashAlgorithm: protocommon.HashAlgorithm_SHA2_256, LogId: &protocommon.LogId{KeyId: id[:]},
			PublicKey: &protocommon.PublicKey{RawBytes: spki(key), KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, ValidFor: since},
		})
	}
	return editRoot(l.t, l.log.known(encode(l.t, r)), func(p *prototrustroot.TrustedRoot) {
		p.Tlogs[0].PublicKey.ValidFor = since
		if change != nil {
			change(p)
		}
	})
}
