// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package rfc3161

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/digitorus/timestamp"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A Parser reads timestamps. Its zero value is ready, and safe for concurrent
// use. It remembers the last certificate that the library accepted, and reads by
// itself only what that one signed.
type Parser struct {
	cert atomic.Pointer[x509.Certificate]
}

// Parse returns what a granted DER TimeStampResp says, once its signature
// verifies with the certificate in it. Who that certificate belongs to is not
// looked at, and neither is whether anybody trusts it. A response without a
// certificate, over another hash than SHA-256, or whose signature does not
// verify is an error.
func (p *Parser) Parse(response []byte) (Stamp, error) {
	s, ok := split(response)
	if cert := p.cert.Load(); ok && cert != nil && bytes.Equal(cert.Raw, s.cert) {
		stamp, err := s.verify(cert)
		if !errors.Is(err, errShape) {
			return stamp, err
		}
	}
	// Another authority's, with chains, RSA, parts of seconds; or the first.
	stamp, cert, err := parseAny(response)
	if err == nil && ok && bytes.Equal(cert.Raw, s.cert) {
		p.cert.Store(cert)
	}
	return stamp, err
}

// parseAny has the library read a response, and returns a certificate in it.
func parseAny(response []byte) (Stamp, *x509.Certificate, error) {
	ts, err := timestamp.ParseResponse(response)
	switch {
	case err != nil:
		return Stamp{}, nil, err
	case len(ts.Certificates) == 0: // closed: the library did not verify it then
		return Stamp{}, nil, errors.New("timestamp without a certificate")
	case ts.HashAlgorithm != crypto.SHA256 || len(ts.HashedMessage) != sha256.Size:
		return Stamp{}, nil, errors.New("timestamp over another hash than SHA-256")
	}
	return Stamp{[sha256.Size]byte(ts.HashedMessage), ts.Time.UTC()}, ts.Certificates[0], nil
}

// A signed is what a response holds, as bytes.
type signed struct {
	info, cert, issuer, attributes, signature cryptobyte.String
	serial                                    *big.Int
}

// errShape means that a response is not of the shape that is read here.
var errShape = errors.New("another shape")

// verify is Parse for the shape that [Create] makes; any other is an errShape.
func (s *signed) verify(cert *x509.Certificate) (Stamp, error) {
	stamp, ok := readInfo(s.info)
	if !ok {
		return Stamp{}, errShape
	}
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() || !bytes.Equal(cert.RawIssuer, s.issuer) || cert.SerialNumber.Cmp(s.serial) != 0 {
		return Stamp{}, errShape
	}
	if !bytes.Equal(s.attributes, signedAttributes(s.info, stamp.Time, cert)) {
		return Stamp{}, errShape
	}
	digest := attributesDigest(s.attributes)
	if !ecdsa.VerifyASN1(public, digest[:], s.signature) {
		return Stamp{}, errors.New("the timestamp's signature does not verify")
	}
	if stamp.Time.Before(cert.NotBefore) || stamp.Time.After(cert.NotAfter) { // clients refuse it
		return Stamp{}, fmt.Errorf("the timestamp is of %s, outside its certificate's validity", stamp.Time.Format(time.RFC3339))
	}
	return stamp, nil
}

// split takes a response apart.
func split(response []byte) (s signed, ok bool) {
	var resp, status, token, content, data, digests, encap, octets, certs, signers, signer, name cryptobyte.String
	in := cryptobyte.String(response)
	ok = in.ReadASN1(&resp, cbasn1.SEQUENCE) && in.Empty() &&
		resp.ReadASN1(&status, cbasn1.SEQUENCE) && readInt(&status, granted) && status.Empty() &&
		resp.ReadASN1(&token, cbasn1.SEQUENCE) && resp.Empty() &&
		readOID(&token, oidSignedData) && token.ReadASN1(&content, tag0Compound) && token.Empty() &&
		content.ReadASN1(&data, cbasn1.SEQUENCE) && content.Empty() &&

		readInt(&data, versionCMS) &&
		data.ReadASN1(&digests, cbasn1.SET) && readAlgorithm(&digests, oidSHA256) && digests.Empty() &&
		data.ReadASN1(&encap, cbasn1.SEQUENCE) && readOID(&encap, oidTSTInfo) && encap.ReadASN1(&octets, tag0Compound) && encap.Empty() &&
		octets.ReadASN1(&s.info, cbasn1.OCTET_STRING) && octets.Empty() &&
		data.ReadASN1(&certs, tag0Compound) && certs.ReadASN1Element(&s.cert, cbasn1.SEQUENCE) && certs.Empty() &&
		data.ReadASN1(&signers, cbasn1.SET) && data.Empty() &&

		signers.ReadASN1(&signer, cbasn1.SEQUENCE) && signers.Empty() &&
		readInt(&signer, versionSigner) &&
		signer.ReadASN1(&name, cbasn1.SEQUENCE) && name.ReadASN1Element(&s.issuer, cbasn1.SEQUENCE) && s.readSerial(&name) && name.Empty() &&
		readAlgorithm(&signer, oidSHA256) &&
		signer.ReadASN1(&s.attributes, tag0Compound) &&
		readAlgorithm(&signer, oidECDSASHA256) &&
		signer.ReadASN1(&s.signature, cbasn1.OCTET_STRING) && signer.Empty()
	return s, ok
}

func (s *signed) readSerial(in *cryptobyte.String) bool {
	s.serial = new(big.Int)
	return in.ReadASN1Integer(s.serial)
}

// readInfo reads a TSTInfo.
func readInfo(in cryptobyte.String) (stamp Stamp, ok bool) {
	var info, imprint, hash, hashed, accuracy, tsa cryptobyte.String
	var policy asn1.ObjectIdentifier
	serial, nonce := new(big.Int), new(big.Int)
	var seconds int
	ok = in.ReadASN1(&info, cbasn1.SEQUENCE) && in.Empty() &&
		readInt(&info, versionTSTInfo) && info.ReadASN1ObjectIdentifier(&policy) &&
		info.ReadASN1(&imprint, cbasn1.SEQUENCE) &&
		imprint.ReadASN1(&hash, cbasn1.SEQUENCE) && readOID(&hash, oidSHA256) && readNull(&hash) && hash.Empty() &&
		imprint.ReadASN1(&hashed, cbasn1.OCTET_STRING) && len(hashed) == sha256.Size && imprint.Empty() &&
		info.ReadASN1Integer(serial) && info.ReadASN1GeneralizedTime(&stamp.Time) &&
		info.ReadASN1(&accuracy, cbasn1.SEQUENCE) && accuracy.ReadASN1Integer(&seconds) && seconds > 0 && accuracy.Empty()
	if ok && info.PeekASN1Tag(cbasn1.INTEGER) {
		ok = info.ReadASN1Integer(nonce)
	}
	if !ok || !info.ReadASN1(&tsa, tag0Compound) || !info.Empty() {
		return Stamp{}, false
	}
	stamp.Imprint, stamp.Time = [sha256.Size]byte(hashed), stamp.Time.UTC()
	return stamp, true
}

func readInt(in *cryptobyte.String, want int) bool {
	var got int
	return in.ReadASN1Integer(&got) && got == want
}

func readOID(in *cryptobyte.String, want asn1.ObjectIdentifier) bool {
	var got asn1.ObjectIdentifier
	return in.ReadASN1ObjectIdentifier(&got) && got.Equal(want)
}

func readAlgorithm(in *cryptobyte.String, want asn1.ObjectIdentifier) bool {
	var algorithm cryptobyte.String
	return in.ReadASN1(&algorithm, cbasn1.SEQUENCE) && readOID(&algorithm, want) && algorithm.Empty()
}

func readNull(in *cryptobyte.String) bool {
	var null cryptobyte.String
	return in.ReadASN1(&null, cbasn1.NULL) && null.Empty()
}
