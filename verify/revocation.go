// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"provost/attest"
)

// A Revocation is a believed statement that takes single attestations back.
// Only [Trust.VerifyRevocation] makes one that takes back anything.
type Revocation struct {
	said     attest.Revocation
	signedAt time.Time
}

// Said is the signed statement.
func (r *Revocation) Said() attest.Revocation { return r.said }

// SignedAt is the earliest trusted time of its signature, UTC.
func (r *Revocation) SignedAt() time.Time { return r.signedAt }

// VerifyRevocation believes a revocation by the signer of verdicts of a
// service, given the service's own URL; with "", of the service that its
// certificate names. What it is about does not matter here: the subjects are
// there to find it by. It refuses as [Trust.Verify] does.
func (t *Trust) VerifyRevocation(raw []byte, service string) (*Revocation, error) {
	payload, _, err := attest.OpenUnverified(raw)
	if err != nil {
		return nil, &Error{StepBundle, err}
	}
	said, err := attest.ParseStatement(payload)
	if err != nil {
		return nil, &Error{StepStatement, err}
	}
	v, err := t.Verify(raw, Expect{Artifact: said.Subjects[0].SHA256, Identity: Identity{Issuer: service}, PredicateType: said.PredicateType})
	if err != nil {
		return nil, err
	}
	return v.revocation()
}

// revocation reads what is believed as a revocation. A service takes back its
// own attestations and nobody else's, so the predicate type must be that of the
// service which signed.
func (v *Verified) revocation() (*Revocation, error) {
	service := v.identity.Issuer
	if got, want := v.statement.PredicateType, attest.RevocationType(service); got != want {
		return nil, &Error{StepStatement, fmt.Errorf("predicateType is %s, expected %s", got, want)}
	}
	if want := SignerIdentity(service, attest.PowerVerdict); v.identity != want {
		return nil, &Error{StepIdentity, fmt.Errorf("signed by %q, expected %q", v.identity.SAN, want.SAN)}
	}
	said, err := attest.ParseRevocation(service, v.statement.Predicate)
	if err != nil {
		return nil, &Error{StepStatement, err}
	}
	return &Revocation{said, v.signedAt}, nil
}

// Revocations are what was taken back. None take back nothing.
type Revocations []*Revocation

// Check returns an [Error] at [StepRevoked] when one of rs takes v back: when
// it names what was signed and its signature, and is of the service that
// signed it. A revocation is not taken back.
func (rs Revocations) Check(v *Verified) error {
	if len(rs) == 0 || attest.IsRevocation(v.statement.PredicateType) {
		return nil
	}
	if r := rs.naming(v.identity.Issuer, v.name()); r != nil {
		return r.refusal()
	}
	return nil
}

// naming is the first revocation by a service that names an attestation.
func (rs Revocations) naming(service string, name attest.Revoked) *Revocation {
	for _, r := range rs {
		if r.said.Service == service && service != "" && slices.ContainsFunc(r.said.Revoked, name.Names) {
			return r
		}
	}
	return nil
}

func (r *Revocation) refusal() *Error {
	text := "taken back at " + r.signedAt.Format(time.RFC3339)
	if r.said.Reason != "" {
		text += ": " + r.said.Reason
	}
	return &Error{StepRevoked, errors.New(text)}
}

// claimsToRevoke reports whether an attestation that is not believed would
// take something back for a service: because it is stored as a revocation, or
// says that it is one.
func claimsToRevoke(service string, a attest.Attestation) bool {
	kind := attest.RevocationType(service)
	if a.PredicateType == kind {
		return true
	}
	payload, _, err := attest.OpenUnverified(a.Bundle)
	if err != nil {
		return false
	}
	said, err := attest.ParseStatement(payload)
	return err == nil && said.PredicateType == kind
}
