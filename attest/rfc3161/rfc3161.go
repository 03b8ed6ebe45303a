// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package rfc3161 makes and checks timestamps of one shape, quickly: a
// TimeStampResp (RFC 3161, section 2.4.2) that is granted, of one ECDSA P-256
// signature with SHA-256 over a SHA-256 imprint, with whole seconds. Every
// attestation has at least one, and reading any shape there is costs more than
// the signature in it. What has another shape is read by a library.
//
// Invariants:
//
//   - What [Create] returns, any RFC 3161 client can verify.
//   - What [Parser.Parse] returns, that library would return too. It reads by itself
//     only what a certificate signed that the library has accepted before.
package rfc3161

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A Stamp says that something existed at a time.
type Stamp struct {
	Imprint [sha256.Size]byte // SHA-256 of it
	Time    time.Time         // UTC, in whole seconds
}

// A Request is for a [Stamp] to be signed.
type Request struct {
	Stamp    // a part of a second is dropped
	Policy   asn1.ObjectIdentifier
	Accuracy int      // seconds; positive
	Nonce    *big.Int // comes back; not negative; nil for none
	Bare     bool     // without the authority's certificate
}

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

var (
	tag0Compound = cbasn1.Tag(0).Constructed().ContextSpecific()
	tag4Compound = cbasn1.Tag(4).Constructed().ContextSpecific()
)

// What the two sides agree on.
const (
	granted        = 0
	versionTSTInfo = 1 // RFC 3161, section 2.4.2
	versionCMS     = 3 // RFC 5652, section 5.1: the content is not plain data
	versionSigner  = 1 // RFC 5652, section 5.3: issuerAndSerialNumber
)

// Create returns a DER TimeStampResp, signed by whoever cert speaks for. sign is
// given a SHA-256 digest and returns an ASN.1 ECDSA signature; its error is
// returned, wrapped. Nothing here verifies that signature. The time must be one
// of the years 1950 to 2049, which is what a signing time can say.
func Create(r Request, cert *x509.Certificate, sign func(digest []byte) ([]byte, error)) ([]byte, error) {
	at := r.Time.UTC()
	if at.Year() < 1950 || at.Year() > 2049 {
		return nil, fmt.Errorf("timestamp of the year %d", at.Year())
	}
	if r.Accuracy <= 0 || r.Nonce != nil && r.Nonce.Sign() < 0 || cert.SerialNumber.Sign() < 0 {
		return nil, errors.New("timestamp: accuracy, nonce and serial number: want none below zero")
	}
	info, err := tstInfo(r, at, cert)
	if err != nil {
		return nil, err
	}
	attributes := signedAttributes(info, at, cert)
	digest := attributesDigest(attributes)
	signature, err := sign(digest[:])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	certificates := element(tag0Compound, cert.Raw)
	if r.Bare {
		certificates = nil
	}
	signer := sequence(
		integer(versionSigner),
		sequence(cert.RawIssuer, bigInteger(cert.SerialNumber)),
		sequence(derSHA256),
		element(tag0Compound, attributes),
		sequence(derECDSASHA256),
		element(cbasn1.OCTET_STRING, signature),
	)
	data := sequence(
		integer(versionCMS),
		element(cbasn1.SET, sequence(derSHA256)),
		sequence(derTSTInfo, element(tag0Compound, element(cbasn1.OCTET_STRING, info))),
		certificates,
		element(cbasn1.SET, signer),
	)
	return sequence(sequence(integer(granted)), sequence(derSignedData, element(tag0Compound, data))), nil
}

// tstInfo is what is signed, by way of its digest (RFC 3161, section 2.4.2).
func tstInfo(r Request, at time.Time, cert *x509.Certificate) ([]byte, error) {
	policy, err := asn1.Marshal(r.Policy)
	if err != nil {
		return nil, err
	}
	var nonce []byte
	if r.Nonce != nil {
		nonce = bigInteger(r.Nonce)
	}
	serial := make([]byte, 20) // at most 160 bits
	rand.Read(serial)          // never fails
	return sequence(
		integer(versionTSTInfo),
		policy,
		sequence(sequence(derSHA256, derNull), element(cbasn1.OCTET_STRING, r.Imprint[:])),
		bigInteger(new(big.Int).SetBytes(serial)),
		element(cbasn1.GeneralizedTime, at.AppendFormat(nil, "20060102150405Z")),
		sequence(integer(r.Accuracy)),
		nonce,
		element(tag0Compound, element(tag4Compound, cert.RawSubject)),
	), nil
}

// signedAttributes is what the signature is over, as the content of a SET (RFC
// 5652, section 5.4), the signing certificate among it (RFC 5816).
func signedAttributes(info []byte, at time.Time, cert *x509.Certificate) []byte {
	digest, certHash := sha256.Sum256(info), sha256.Sum256(cert.Raw)
	attribute := func(oid, value []byte) []byte { return sequence(oid, element(cbasn1.SET, value)) }
	issuer := sequence(element(tag4Compound, cert.RawIssuer))
	attributes := [][]byte{
		attribute(derContentType, derTSTInfo),
		attribute(derSigningTime, element(cbasn1.UTCTime, at.AppendFormat(nil, "060102150405Z"))),
		attribute(derMessageDigest, element(cbasn1.OCTET_STRING, digest[:])),
		attribute(derSigningCertV2, sequence(sequence(sequence(
			element(cbasn1.OCTET_STRING, certHash[:]),
			sequence(issuer, bigInteger(cert.SerialNumber)),
		)))),
	}
	slices.SortFunc(attributes, bytes.Compare) // the order of a SET OF in DER
	return slices.Concat(attributes...)
}

// attributesDigest is the SHA-256 of signed attributes as a SET, which is how
// they are signed; in the message they stand under a tag.
func attributesDigest(attributes []byte) [sha256.Size]byte {
	return sha256.Sum256(element(cbasn1.SET, attributes))
}

// What stands in every timestamp, encoded.
var (
	derSignedData    = mustEncode(oidSignedData)
	derTSTInfo       = mustEncode(oidTSTInfo)
	derContentType   = mustEncode(oidContentType)
	derMessageDigest = mustEncode(oidMessageDigest)
	derSigningTime   = mustEncode(oidSigningTime)
	derSigningCertV2 = mustEncode(oidSigningCertV2)
	derSHA256        = mustEncode(oidSHA256)
	derECDSASHA256   = mustEncode(oidECDSASHA256)
	derNull          = element(cbasn1.NULL)
)

func mustEncode(oid asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(oid)
	if err != nil {
		panic(err) // one of those above
	}
	return der
}

func sequence(parts ...[]byte) []byte { return element(cbasn1.SEQUENCE, parts...) }

// element encodes an element with that content, in DER. cryptobyte's builder
// does the same at five times the cost.
func element(tag cbasn1.Tag, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := append(make([]byte, 0, n+5), byte(tag))
	switch {
	case n < 1<<7:
		b = append(b, byte(n))
	case n < 1<<8:
		b = append(b, 0x81, byte(n))
	case n < 1<<16:
		b = append(b, 0x82, byte(n>>8), byte(n))
	default: // no certificate is larger than this holds
		b = append(b, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// integer encodes a number that is not negative.
func integer(n int) []byte { return bigInteger(big.NewInt(int64(n))) }

// bigInteger encodes a number that is not negative.
func bigInteger(n *big.Int) []byte {
	b := make([]byte, n.BitLen()/8+1) // with room for the sign
	return element(cbasn1.INTEGER, n.FillBytes(b))
}
