// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"strings"

	"provost/attest"
)

// A Step names what a bundle failed at, in the order things are checked.
type Step string

// The steps of [Trust.Verify].
const (
	StepBundle      Step = "bundle"      // not a Sigstore bundle v0.3 of one envelope, one signature, one certificate
	StepLog         Step = "log"         // a transparency log entry is missing or does not hold
	StepTime        Step = "time"        // no trusted timestamp, or one that does not hold
	StepCertificate Step = "certificate" // the leaf does not chain to the trust root at the signing time
	StepRevoked     Step = "revoked"     // what was signed then, or this very attestation, was taken back
	StepSignature   Step = "signature"   // the signature is not over this payload by this key
	StepStatement   Step = "statement"   // the payload is not a strict in-toto Statement v1
	StepSubject     Step = "subject"     // the statement is about something else
	StepIdentity    Step = "identity"    // signed by somebody else than expected
)

// An Error says at which step a bundle was refused.
type Error struct {
	Step Step
	Err  error
}

func (e *Error) Error() string { return string(e.Step) + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// engineSteps maps the prefixes of sigstore-go v1.3.0's errors to steps. The
// engine's refusal stands whatever the prefix; this only names it.
var engineSteps = []struct {
	prefix string
	step   Step
}{
	{"failed to verify log inclusion", StepLog},
	{"failed to verify timestamps", StepTime},
	{"failed to summarize certificate", StepCertificate},
	{"failed to verify leaf certificate", StepCertificate},
	{"failed to verify signed certificate timestamp", StepCertificate},
	{"failed to get signature verifier", StepSignature},
	{"failed to verify signature: could not verify artifact", StepStatement}, // it cannot read the statement
	{"failed to verify signature: too many", StepStatement},
	{"failed to verify signature: provided artifact", StepSubject},
	{"failed to verify signature", StepSignature},
	{"failed to fetch envelope statement", StepStatement},
	{"failed to verify certificate identity", StepIdentity},
}

func engineError(err error) *Error {
	for _, s := range engineSteps {
		if strings.HasPrefix(err.Error(), s.prefix) {
			return &Error{s.step, err}
		}
	}
	return &Error{StepBundle, err}
}

// isCallers reports whether an error is the caller's mistake.
func isCallers(err error) bool {
	return errors.Is(err, attest.ErrInvalid) || errors.Is(err, attest.ErrNotFound)
}

// ours is an error of what the gate stands on. The caller asked nothing wrong,
// so a kind that would say so is dropped, and only the words are kept.
func ours(err error) error {
	passes := errors.Is(err, attest.ErrUnavailable) || errors.Is(err, attest.ErrSelfCheck)
	blames := isCallers(err) || errors.Is(err, attest.ErrConflict) || errors.Is(err, attest.ErrDenied)
	if blames && !passes {
		return errors.New(err.Error())
	}
	return err
}
