// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"time"
)

// A Verdict answers whether an artifact may go where it is asked to go. The
// zero Verdict is ERROR, so that forgetting to decide never passes.
type Verdict int

// The verdicts. Everything but PASS means no.
const (
	VerdictError      Verdict = iota // it could not be decided
	VerdictPass                      // judged, and the answer is yes
	VerdictDeny                      // judged, and the answer is no
	VerdictNoEvidence                // nothing was found to judge
)

var verdictNames = [...]string{"ERROR", "PASS", "DENY", "NO_EVIDENCE"}

func (v Verdict) String() string {
	if v < 0 || int(v) >= len(verdictNames) {
		return verdictNames[VerdictError]
	}
	return verdictNames[v]
}

// MarshalText writes the verdict's name.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a verdict's name. Anything else leaves ERROR and returns
// an [ErrInvalid].
func (v *Verdict) UnmarshalText(b []byte) error {
	for i, name := range verdictNames {
		if name == string(b) {
			*v = Verdict(i)
			return nil
		}
	}
	*v = VerdictError
	return fmt.Errorf("%w: verdict %.20q", ErrInvalid, b)
}

// Severities of a reason.
const (
	SeverityDeny = "deny" // it decided against
	SeverityInfo = "info" // it was found to hold, or is good to know
)

// A Reason is one rule's part in a verdict.
type Reason struct {
	Rule     string `json:"rule"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
}

// A Decision is a verdict with its reasons, as it is recorded. Decisions are
// append-only.
type Decision struct {
	ID          string
	At          time.Time // when it was decided, UTC
	Caller      string    // issuer and subject of who asked
	Artifact    Digest
	Name        string // as asked; a label
	Environment string
	Verdict     Verdict
	Reasons     []Reason
	VSA         []byte // the signed verdict, a bundle; nil for ERROR
	VSAID       string // its attestation id; "" for ERROR
	Tenant      string // that it belongs to; "" for none
}
