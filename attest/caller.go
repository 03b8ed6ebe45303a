// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import "slices"

// A Grant is one thing that a caller may do.
type Grant string

// The grants of this version.
const (
	GrantProvenance Grant = "attest:provenance"   // sign provenance of the caller's own build
	GrantSBOM       Grant = "attest:sbom"         // sign SBOM attestations
	GrantDecide     Grant = "decide"              // ask for decisions
	GrantRead       Grant = "read"                // read attestations, decisions and keys
	GrantRotate     Grant = "keys:rotate"         // rotate signing keys
	GrantRevokeKeys Grant = "keys:revoke"         // take back what a key version signed in an interval
	GrantRevoke     Grant = "attestations:revoke" // take back single attestations
	GrantTimestamp  Grant = "timestamp"           // have anything timestamped: see keys.Authority.Stamp
)

// Grants are all grants there are; configuration that names another is
// refused.
var Grants = []Grant{GrantProvenance, GrantSBOM, GrantDecide, GrantRead, GrantRotate, GrantRevokeKeys, GrantRevoke, GrantTimestamp}

// A Caller is who asks, as the verified token says. It is passed to everything
// that needs authority. The zero Caller may do nothing.
type Caller struct {
	Issuer  string  // the token's iss, exactly as configured
	Subject string  // the token's sub: recorded, never parsed
	Grants  []Grant // from the configuration rows that match the token
	Build   *Build  // the build that the token speaks for; nil for people and gates
}

// Require returns a [GrantError] unless the caller holds g.
func (c Caller) Require(g Grant) error {
	if !slices.Contains(c.Grants, g) {
		return &GrantError{Missing: g}
	}
	return nil
}
