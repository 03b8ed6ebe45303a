// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"time"

	"provost/attest"
)

// Lifetimes of certificates.
const (
	rootLifetime    = 20 * 365 * 24 * time.Hour
	issuingLifetime = 3 * 365 * 24 * time.Hour // the issuing CA and the timestamp authority
	// backdate is how far before now a leaf begins, for clocks that differ.
	backdate = time.Minute
	// overlap is how long a leaf outlives its signing window. A signer whose
	// window ended is rotated inside it, so that signing never pauses.
	overlap = 15 * time.Minute
)

// The extensions of a leaf that name its issuer, as Fulcio has them
// (sigstore/fulcio docs/oid-info.md). Clients read one or the other.
var (
	oidIssuerV1 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1} // raw bytes
	oidIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8} // DER UTF8String

	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}

	// oidDocumentSigning (RFC 9336) is what a log's certificate is for. It must
	// be for something: without any use it would be for code signing too.
	oidDocumentSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 36}
)

// An issuer is a certificate that can sign others.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newRoot makes the offline root.
func newRoot(organization string, key *ecdsa.PrivateKey, now time.Time) (issuer, error) {
	t, err := template(&key.PublicKey, now, rootLifetime)
	if err != nil {
		return issuer{}, err
	}
	t.Subject = pkix.Name{Organization: []string{organization}, CommonName: organization + " attestation root"}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLen = true, true, 1
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	cert, err := issuer{t, key}.sign(t, &key.PublicKey)
	return issuer{cert, key}, err
}

// newIssuing makes the certificate of a CA that issues one signer's leaves,
// whose name and epoch it carries. gh wants exactly one O, the same as the
// root's.
func (root issuer) newIssuing(name string, epoch int, public *ecdsa.PublicKey, from time.Time) (*x509.Certificate, error) {
	t, err := template(public, from, issuingLifetime)
	if err != nil {
		return nil, err
	}
	organization := root.cert.Subject.Organization
	t.Subject = pkix.Name{Organization: organization, CommonName: fmt.Sprintf("%s %s issuing CA %d", organization[0], name, epoch)}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	return root.sign(t, public)
}

// newTimestamp makes the certificate of the timestamp authority (RFC 3161,
// section 2.3: the extended key usage is timeStamping alone, and critical).
func (root issuer) newTimestamp(public *ecdsa.PublicKey, from time.Time) (*x509.Certificate, error) {
	t, err := template(public, from, issuingLifetime)
	if err != nil {
		return nil, err
	}
	organization := root.cert.Subject.Organization
	t.Subject = pkix.Name{Organization: organization, CommonName: organization[0] + " timestamp authority"}
	t.BasicConstraintsValid = true
	t.KeyUsage = x509.KeyUsageDigitalSignature
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping})
	if err != nil {
		return nil, err
	}
	t.ExtraExtensions = []pkix.Extension{{Id: oidExtKeyUsage, Critical: true, Value: usage}}
	return root.sign(t, public)
}

// newLog makes the certificate of a log's key, which says to whom has the root
// which host's log that is. Clients never see it: they have the key itself in
// the trusted root.
func (root issuer) newLog(host string, public *ecdsa.PublicKey, from time.Time) (*x509.Certificate, error) {
	t, err := template(public, from, rootLifetime)
	if err != nil {
		return nil, err
	}
	if t.NotAfter.After(root.cert.NotAfter) {
		t.NotAfter = root.cert.NotAfter
	}
	organization := root.cert.Subject.Organization
	t.Subject = pkix.Name{Organization: organization, CommonName: organization[0] + " transparency log"}
	t.DNSNames = []string{host}
	t.BasicConstraintsValid = true
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidDocumentSigning}
	return root.sign(t, public)
}

// A leaf is whose a leaf certificate is, and for how long.
type leaf struct {
	identity   string // SAN URI
	oidcIssuer string
	public     *ecdsa.PublicKey
	from, to   time.Time
}

// newLeaf makes the certificate of a signer's key version.
func (ca issuer) newLeaf(l leaf) (*x509.Certificate, error) {
	t, err := leafTemplate(l)
	if err != nil {
		return nil, err
	}
	return ca.sign(t, l.public)
}

// leafTemplate is what a leaf says. Its subject is empty, so crypto/x509 makes
// the name, the signer's URI, critical.
func leafTemplate(l leaf) (*x509.Certificate, error) {
	t, err := template(l.public, l.from, l.to.Sub(l.from))
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(l.identity)
	if err != nil {
		return nil, fmt.Errorf("signer identity: %w", err)
	}
	oidcIssuer, err := asn1.MarshalWithParams(l.oidcIssuer, "utf8")
	if err != nil {
		return nil, fmt.Errorf("OIDC issuer: %w", err)
	}
	t.URIs = []*url.URL{uri}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	t.ExtraExtensions = []pkix.Extension{
		{Id: oidIssuerV1, Value: []byte(l.oidcIssuer)},
		{Id: oidIssuerV2, Value: oidcIssuer},
	}
	return t, nil
}

// sign makes a certificate. crypto/x509 verifies what the key made.
func (i issuer) sign(t *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, i.cert, public, i.key)
	if err != nil {
		return nil, fmt.Errorf("create certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// template is what all certificates have in common: a random 128-bit serial,
// whole seconds, a subject key identifier (RFC 7093, section 2, method 1).
func template(public *ecdsa.PublicKey, from time.Time, lifetime time.Duration) (*x509.Certificate, error) {
	point, err := public.Bytes()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(point)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	from = from.UTC().Truncate(time.Second)
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // never 0
		NotBefore:    from,
		NotAfter:     from.Add(lifetime).Truncate(time.Second),
		SubjectKeyId: id[:20],
	}, nil
}

// A pinned is a crypto.Signer over one key version of a backend, for one
// operation: crypto.Signer has no place for a context but the value itself.
type pinned struct {
	ctx     context.Context
	backend Backend
	key     string
	version int
	public  *ecdsa.PublicKey
}

func (p pinned) Public() crypto.PublicKey { return p.public }

// SignerOf returns a version of a backend's key as crypto knows signers, for
// what is done under ctx. It returns only signatures that verify with that
// version's public key; any other is an [attest.ErrSelfCheck].
func SignerOf(ctx context.Context, b Backend, key string, v Version) crypto.Signer {
	return pinned{ctx, b, key, v.Number, v.Public}
}

// unverified is the same for whoever verifies the signature in another way.
func (p pinned) unverified() crypto.Signer { return unverified(p) }

type unverified pinned

func (u unverified) Public() crypto.PublicKey { return u.public }

func (u unverified) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return u.backend.Sign(u.ctx, u.key, u.version, digest)
}

// Sign returns only what verifies with the pinned version's public key.
func (p pinned) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	signature, err := p.backend.Sign(p.ctx, p.key, p.version, digest)
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(p.public, digest, signature) {
		return nil, fmt.Errorf("%w: %s version %d and its public key disagree", attest.ErrSelfCheck, p.key, p.version)
	}
	return signature, nil
}
