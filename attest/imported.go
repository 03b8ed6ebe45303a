// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import "time"

// An Imported is a bundle that others signed, as it was when it was verified
// against their trusted root. It is kept byte for byte and never signed again
// as ours. Imported bundles are append-only.
type Imported struct {
	ID            string
	Seq           int64  // order of storing, from 1; set by the store
	Root          string // name of the foreign root that it was verified against
	PredicateType string
	// Subjects are those of its statement that a sha256 or a sha512 names.
	// Unlike in statements of ours, SHA256 may be the zero one.
	Subjects []Subject
	Issuer   string    // of the identity that signed
	SAN      string    // of the identity that signed
	SignedAt time.Time // trusted time of the signature, UTC
	At       time.Time // when it was imported, UTC
	Bundle   []byte
	Tenant   string // that it was imported for; "" for none
}

// An ImportedQuery selects imported bundles about an artifact.
type ImportedQuery struct {
	In       Tenants
	Artifact Digest // of either algorithm
	After    int64  // Seq of the last one seen
	Limit    int    // at least 1
}

// Covers reports whether the caller may say something about all of these
// subjects: one that is bound to artifacts may about those alone.
func (c Caller) Covers(subjects []Subject) bool { return within(c.Bound, subjects) }
