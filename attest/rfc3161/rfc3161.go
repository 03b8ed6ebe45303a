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
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
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
	Nonce    *big.Int // comes back; nil for none
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
// returned, wrapped. Nothing here verifies that signature.
func Create(r Request, cert *x509.Certificate, sign func(digest []byte) ([]byte, error)) ([]byte, error) {
	serial := make([]byte, 20)
	rand.Read(serial) // never fails
	info, err := tstInfo(r, new(big.Int).SetBytes(serial), cert)
	if err != nil {
		return nil, err
	}
	attributes, err := signedAttributes(info, r.Time, cert)
	if err != nil {
		return nil, err
	}
	digest := attributesDigest(attributes)
	signature, err := sign(digest[:])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(info)+len(attributes)+len(cert.Raw)+len(cert.RawIssuer)+512))
	sequence(b, func(b *cryptobyte.Builder) {
		sequence(b, func(b *cryptobyte.Builder) { b.AddASN1Int64(granted) })
		sequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidSignedData)
			b.AddASN1(tag0Compound, func(b *cryptobyte.Builder) {
				sequence(b, func(b *cryptobyte.Builder) { signedData(b, r.Bare, info, attributes, signature, cert) })
			})
		})
	})
	return b.Bytes()
}

func signedData(b *cryptobyte.Builder, bare bool, info, attributes, signature []byte, cert *x509.Certificate) {
	b.AddASN1Int64(versionCMS)
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { algorithm(b, oidSHA256) })
	sequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidTSTInfo)
		b.AddASN1(tag0Compound, func(b *cryptobyte.Builder) { b.AddASN1OctetString(info) })
	})
	if !bare {
		b.AddASN1(tag0Compound, func(b *cryptobyte.Builder) { b.AddBytes(cert.Raw) })
	}
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
		sequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(versionSigner)
			sequence(b, func(b *cryptobyte.Builder) {
				b.AddBytes(cert.RawIssuer)
				b.AddASN1BigInt(cert.SerialNumber)
			})
			algorithm(b, oidSHA256)
			b.AddASN1(tag0Compound, func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
			algorithm(b, oidECDSASHA256)
			b.AddASN1OctetString(signature)
		})
	})
}

// tstInfo is what is signed, by way of its digest (RFC 3161, section 2.4.2).
func tstInfo(r Request, serial *big.Int, cert *x509.Certificate) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 192+len(cert.RawSubject)))
	sequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(versionTSTInfo)
		b.AddASN1ObjectIdentifier(r.Policy)
		sequence(b, func(b *cryptobyte.Builder) {
			sequence(b, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidSHA256)
				b.AddASN1NULL()
			})
			b.AddASN1OctetString(r.Imprint[:])
		})
		b.AddASN1BigInt(serial)
		b.AddASN1GeneralizedTime(r.Time.UTC())
		sequence(b, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(r.Accuracy)) })
		if r.Nonce != nil {
			b.AddASN1BigInt(r.Nonce)
		}
		b.AddASN1(tag0Compound, func(b *cryptobyte.Builder) { directoryName(b, cert.RawSubject) })
	})
	return b.Bytes()
}

// signedAttributes is what the signature is over, as the content of a SET (RFC
// 5652, section 5.4), the signing certificate among it (RFC 5816).
func signedAttributes(info []byte, at time.Time, cert *x509.Certificate) ([]byte, error) {
	digest, certHash := sha256.Sum256(info), sha256.Sum256(cert.Raw)
	var attributes [][]byte
	for _, a := range []struct {
		oid   asn1.ObjectIdentifier
		value cryptobyte.BuilderContinuation
	}{
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidTSTInfo) }},
		{oidSigningTime, func(b *cryptobyte.Builder) { b.AddASN1UTCTime(at.UTC()) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) }},
		{oidSigningCertV2, func(b *cryptobyte.Builder) {
			sequence(b, func(b *cryptobyte.Builder) {
				sequence(b, func(b *cryptobyte.Builder) {
					sequence(b, func(b *cryptobyte.Builder) {
						b.AddASN1OctetString(certHash[:])
						sequence(b, func(b *cryptobyte.Builder) {
							sequence(b, func(b *cryptobyte.Builder) { directoryName(b, cert.RawIssuer) })
							b.AddASN1BigInt(cert.SerialNumber)
						})
					})
				})
			})
		}},
	} {
		b := cryptobyte.NewBuilder(make([]byte, 0, 64))
		sequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			b.AddASN1(cbasn1.SET, a.value)
		})
		encoded, err := b.Bytes()
		if err != nil {
			return nil, err
		}
		attributes = append(attributes, encoded)
	}
	slices.SortFunc(attributes, bytes.Compare) // the order of a SET OF in DER
	return slices.Concat(attributes...), nil
}

// attributesDigest is the SHA-256 of signed attributes as a SET, which is how
// they are signed; in the message they stand under a tag.
func attributesDigest(attributes []byte) [sha256.Size]byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(attributes)+8))
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
	return sha256.Sum256(b.BytesOrPanic()) // bytes alone always encode
}

func sequence(b *cryptobyte.Builder, f cryptobyte.BuilderContinuation) { b.AddASN1(cbasn1.SEQUENCE, f) }

func algorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	sequence(b, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
}

func directoryName(b *cryptobyte.Builder, name []byte) {
	b.AddASN1(tag4Compound, func(b *cryptobyte.Builder) { b.AddBytes(name) })
}
