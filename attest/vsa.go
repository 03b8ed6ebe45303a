// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"strings"
	"time"
)

// VSAType is the predicateType of a SLSA verification summary.
const VSAType = "https://slsa.dev/verification_summary/v1"

// Results of a verification summary.
const (
	VSAPassed = "PASSED"
	VSAFailed = "FAILED"
)

// VSA is a SLSA verification summary (SLSA v1.2 verification_summary.md). The
// in-toto binding is not used: it has no verifier.version.
type VSA struct {
	Verifier           Verifier           `json:"verifier"`
	TimeVerified       time.Time          `json:"timeVerified"`
	ResourceURI        string             `json:"resourceUri"`
	Policy             PolicyRef          `json:"policy"`
	InputAttestations  []InputAttestation `json:"inputAttestations,omitempty"`
	VerificationResult string             `json:"verificationResult"`
	VerifiedLevels     []string           `json:"verifiedLevels"`
	SLSAVersion        string             `json:"slsaVersion"`
	// Extension carries what the spec has no member for. Its keys are URIs, as
	// the spec asks of extension names.
	Extension map[string]any `json:",embed"`
	// Tenant is that which the verdict belongs to. It is not part of what is
	// said.
	Tenant string `json:"-"`
}

// A Verifier says who verified.
type Verifier struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// A PolicyRef names the policy applied, by where it is and what it was.
type PolicyRef struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// An InputAttestation names one attestation that the verdict rests on, by the
// digest of its bundle. When any is listed, all are.
type InputAttestation struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

func (v VSA) claim(Caller) (claim, error) {
	// No grant: verdicts are the gate's own words. The gate has asked for
	// GrantDecide, and no request from outside can carry a VSA.
	if err := v.validate(); err != nil {
		return claim{}, fmt.Errorf("VSA: %w", err)
	}
	predicate, err := encodeJSON(v)
	if err != nil {
		return claim{}, fmt.Errorf("%w: VSA: %w", ErrInvalid, err)
	}
	return claim{VSAType, predicate, v.Tenant}, nil
}

// validate holds the spec's rules that the types do not.
func (v VSA) validate() error {
	failed := len(v.VerifiedLevels) == 1 && v.VerifiedLevels[0] == VSAFailed
	switch {
	case v.Verifier.ID == "" || v.ResourceURI == "" || v.Policy.URI == "" || v.TimeVerified.IsZero():
		return fmt.Errorf("%w: verifier.id, resourceUri, policy.uri and timeVerified are required", ErrInvalid)
	case v.VerificationResult != VSAPassed && v.VerificationResult != VSAFailed:
		return fmt.Errorf("%w: verificationResult %q", ErrInvalid, v.VerificationResult)
	case (v.VerificationResult == VSAFailed) != failed:
		return fmt.Errorf("%w: FAILED goes with the one level FAILED", ErrInvalid)
	case len(v.VerifiedLevels) == 0:
		return fmt.Errorf("%w: verifiedLevels is empty", ErrInvalid)
	}
	tracks := map[string]bool{}
	for _, level := range v.VerifiedLevels {
		if !strings.HasPrefix(level, "SLSA_") {
			continue
		}
		track, _, _ := strings.Cut(strings.TrimPrefix(level, "SLSA_"), "_LEVEL_")
		if tracks[track] {
			return fmt.Errorf("%w: two levels of track %s", ErrInvalid, track)
		}
		tracks[track] = true
	}
	for _, in := range v.InputAttestations {
		if in.URI == "" || in.Digest[AlgSHA256] == "" {
			return fmt.Errorf("%w: an input attestation without uri or digest", ErrInvalid)
		}
	}
	return nil
}

// ParseVSA reads a believed predicate of [VSAType]. The error is an
// [ErrInvalid].
func ParseVSA(predicate []byte) (VSA, error) {
	var v VSA
	if err := DecodeOpenJSON(predicate, &v); err != nil {
		return VSA{}, fmt.Errorf("VSA: %w", err)
	}
	if err := v.validate(); err != nil {
		return VSA{}, fmt.Errorf("VSA: %w", err)
	}
	return v, nil
}
