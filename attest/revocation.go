// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// A KeyRevocation takes back what one version of a signer's key signed in an
// interval: a signature whose trusted time lies in it is believed no more.
// Revocations are append-only.
type KeyRevocation struct {
	ID      string
	Signer  Power
	Version int
	From    time.Time // whole seconds, UTC
	To      time.Time // whole seconds, UTC; inclusive, never before From
	At      time.Time // when it was recorded, UTC
	By      string    // issuer and subject of who revoked
	Reason  string    // for people; may be empty
}

// MaxReason is the longest reason of a revocation, in bytes.
const MaxReason = 1024

// Validate reports, as an [ErrInvalid], what is wrong with a revocation that
// is to be recorded.
func (r KeyRevocation) Validate() error {
	if _, err := ParsePower(string(r.Signer)); err != nil {
		return fmt.Errorf("%w: revocation: signer %.80q", ErrInvalid, r.Signer)
	}
	whole := func(t time.Time) bool { return !t.IsZero() && t.Equal(t.Truncate(time.Second)) }
	switch {
	case r.ID == "" || r.Version < 1:
		return fmt.Errorf("%w: revocation: want an id and a version from 1", ErrInvalid)
	case !whole(r.From) || !whole(r.To) || r.To.Before(r.From):
		return fmt.Errorf("%w: revocation: want from and to in whole seconds, to not before from", ErrInvalid)
	}
	return ValidateReason(r.Reason)
}

// ValidateReason holds for a text that people and logs are shown.
func ValidateReason(reason string) error {
	if len(reason) > MaxReason {
		return &LimitError{What: "reason", Limit: MaxReason, Unit: "bytes"}
	}
	if !utf8.ValidString(reason) || strings.ContainsFunc(reason, isControl) {
		return fmt.Errorf("%w: reason has control characters or is not UTF-8", ErrInvalid)
	}
	return nil
}

// revocationPath ends the predicateType of every [Revocation], whatever the
// service. The type is the service's own: no URI is made up in a domain of
// somebody else.
const revocationPath = "/attestation/revocation/v0.1"

// RevocationType is the predicateType of a service's revocations, given the
// service's own URL.
func RevocationType(service string) string { return service + revocationPath }

// IsRevocation reports whether statements of a predicateType are revocations,
// of whatever service.
func IsRevocation(predicateType string) bool {
	service, ok := strings.CutSuffix(predicateType, revocationPath)
	return ok && service != ""
}

// MaxRevoked is the largest number of attestations that one [Revocation] takes
// back.
const MaxRevoked = 64

// A Revocation takes back single attestations: what they say is to be believed
// no more, from whatever time, though their signatures hold. There is no way
// back; what is right after all is said again, and is another attestation.
//
// Its subjects are those of what it takes back, so that whoever looks for
// attestations about an artifact finds it.
type Revocation struct {
	Service string    `json:"-"` // whose it is: its URL stands in the predicateType
	Revoked []Revoked `json:"revoked"`
	Reason  string    `json:"reason"` // for people; may be empty
	// RevokedAt is for people: the signature's timestamp tells it as well. It
	// is left out where a request that is sent again must say the same.
	RevokedAt time.Time `json:"revokedAt,omitzero"`
	// Tenant is that of what is revoked, so that whoever sees the one sees the
	// other. It is not part of what is said.
	Tenant string `json:"-"`
}

// Revoked names one attestation by what was signed and by the signature, so
// that it is named however its bundle is written, stamped or logged again.
type Revoked struct {
	ID        string            `json:"id"`        // in the service; a label
	Message   map[string]string `json:"message"`   // digest of the DSSE pre-authentication encoding
	Signature map[string]string `json:"signature"` // [SignatureDigest]
}

// NameOf is the name of what signature makes of payload, without an ID.
// Neither is verified.
func NameOf(payload, signature []byte) Revoked {
	return Revoked{
		Message:   map[string]string{AlgSHA256: SHA256(dsse.PAE(PayloadType, payload)).Hex()},
		Signature: map[string]string{AlgSHA256: SignatureDigest(signature).Hex()},
	}
}

// Names reports whether two names are of one attestation. The IDs are not
// compared.
func (r Revoked) Names(other Revoked) bool {
	same := func(a, b map[string]string) bool { return a[AlgSHA256] != "" && a[AlgSHA256] == b[AlgSHA256] }
	return same(r.Message, other.Message) && same(r.Signature, other.Signature)
}

// maxP256Signature is the length of the longest ASN.1 ECDSA P-256 signature.
const maxP256Signature = 72

// SignatureDigest is the SHA-256 of an ECDSA P-256 signature, in the one form
// that has the smaller s. Whoever has a signature (r, s) can make (r, n-s) of
// it, which verifies as well and must not be another attestation. What is no
// such signature is hashed as it is.
func SignatureDigest(der []byte) Digest {
	if len(der) > maxP256Signature {
		return SHA256(der)
	}
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 {
		return SHA256(der)
	}
	n := elliptic.P256().Params().N
	if other := new(big.Int).Sub(n, sig.S); sig.S.Sign() > 0 && other.Sign() > 0 && other.Cmp(sig.S) < 0 {
		sig.S = other
	}
	if low, err := asn1.Marshal(sig); err == nil {
		return SHA256(low)
	}
	return SHA256(der)
}

// Revoke is the request that takes an attestation of a service back, given the
// service's own URL. A zero time is left out. It fails when the attestation cannot be named: when its
// bundle is no bundle of one signature.
func Revoke(service string, a Attestation, reason string, at time.Time) (Request, error) {
	payload, signature, err := OpenUnverified(a.Bundle)
	if err != nil {
		return Request{}, fmt.Errorf("attestation %s: %w", a.ID, err)
	}
	statement, err := ParseStatement(payload)
	if err != nil {
		return Request{}, fmt.Errorf("attestation %s: %w", a.ID, err)
	}
	name := NameOf(payload, signature)
	name.ID = a.ID
	return Request{Subjects: statement.Subjects, Predicate: Revocation{
		Service: service, Revoked: []Revoked{name}, Reason: reason, RevokedAt: at.UTC().Truncate(time.Second), Tenant: a.Tenant,
	}}, nil
}

// OpenUnverified is what a stored bundle signs, and its one signature. Nothing
// is verified: it is for naming a bundle, never for believing it.
func OpenUnverified(raw []byte) (payload, signature []byte, err error) {
	if len(raw) > MaxBundle {
		return nil, nil, &LimitError{What: "bundle", Limit: MaxBundle, Unit: "bytes"}
	}
	b := new(protobundle.Bundle)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, b); err != nil {
		return nil, nil, fmt.Errorf("%w: bundle: %w", ErrInvalid, err)
	}
	signatures := b.GetDsseEnvelope().GetSignatures()
	if len(signatures) != 1 {
		return nil, nil, fmt.Errorf("%w: bundle has %d signatures: want one", ErrInvalid, len(signatures))
	}
	return b.GetDsseEnvelope().GetPayload(), signatures[0].GetSig(), nil
}

func (r Revocation) claim(c Caller) (claim, error) {
	if err := c.Require(GrantRevoke); err != nil {
		return claim{}, err
	}
	if !c.Within(GrantRevoke).Has(r.Tenant) {
		return claim{}, fmt.Errorf("%w: the grant %q is held in other tenants", ErrDenied, GrantRevoke)
	}
	if err := r.validate(); err != nil {
		return claim{}, fmt.Errorf("revocation: %w", err)
	}
	predicate, err := encodeJSON(r)
	if err != nil {
		return claim{}, fmt.Errorf("%w: revocation: %w", ErrInvalid, err)
	}
	return claim{RevocationType(r.Service), predicate, r.Tenant}, nil
}

func (r Revocation) validate() error {
	if len(r.Revoked) > MaxRevoked {
		return &LimitError{What: "revocation", Limit: MaxRevoked, Unit: "attestations"}
	}
	if len(r.Revoked) == 0 {
		return fmt.Errorf("%w: revoked is required", ErrInvalid)
	}
	for i, n := range r.Revoked {
		if n.ID == "" || len(n.ID) > MaxSubjectName || strings.ContainsFunc(n.ID, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
			return fmt.Errorf("%w: revoked %d: id: want visible ASCII", ErrInvalid, i)
		}
		for name, digests := range map[string]map[string]string{"message": n.Message, "signature": n.Signature} {
			if _, err := NewDigest(AlgSHA256, digests[AlgSHA256]); err != nil {
				return fmt.Errorf("revoked %d: %s: %w", i, name, err)
			}
		}
	}
	return ValidateReason(r.Reason)
}

// ParseRevocation reads a believed predicate of a service's [RevocationType].
// The error is an [ErrInvalid].
func ParseRevocation(service string, predicate []byte) (Revocation, error) {
	r := Revocation{}
	if err := DecodeOpenJSON(predicate, &r); err != nil {
		return Revocation{}, fmt.Errorf("revocation: %w", err)
	}
	if err := r.validate(); err != nil {
		return Revocation{}, fmt.Errorf("revocation: %w", err)
	}
	r.Service = service
	return r, nil
}
