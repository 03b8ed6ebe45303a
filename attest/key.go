// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"time"
)

// A Power is what one signer may say. Each has its own key, its own leaf
// certificates and its own Vault policy; what signs provenance never signs a
// verdict. Its value is the signer's name.
type Power string

// The signers.
const (
	PowerProvenance Power = "provenance" // SLSA provenance
	PowerEvidence   Power = "evidence"   // SBOMs and other evidence that a tenant submits
	PowerVerdict    Power = "verdict"    // verification summaries of the gate, revocations of attestations, audit heads, builders
)

// Powers are all signers there are.
var Powers = []Power{PowerProvenance, PowerEvidence, PowerVerdict}

// ParsePower returns the signer of that name, or an [ErrNotFound].
func ParsePower(name string) (Power, error) {
	for _, p := range Powers {
		if string(p) == name {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: signer %.80q: the signers are provenance, evidence and verdict", ErrNotFound, name)
}

// States of a key version.
const (
	KeyActive  = "active"  // signs now
	KeyRetired = "retired" // signs no more; what it signed keeps verifying
	KeyRevoked = "revoked" // signs no more; what it signed in an interval verifies no more
)

// A Key is one signer and all versions it ever had.
type Key struct {
	Signer   Power
	Identity string // the SAN URI of its leaf certificates; the same for every version
	Versions []KeyVersion
}

// A KeyVersion is one version of a signer's key and the window of the leaf
// certificate that was issued for it.
type KeyVersion struct {
	Version   int
	State     string
	NotBefore time.Time
	NotAfter  time.Time
}

// A Certificate is one that this service made: the roots of its own trust and
// the leaf of each key version. Certificates are kept for ever, because the
// key backend is not an archive of public keys.
type Certificate struct {
	Name    string // what it certifies: "root", "timestamp", "log", "ctlog", "issuing-" and a signer, or a signer
	Version int    // of the key in the backend, from 1; the root has version 1
	DER     []byte
}

// PowerFor is the signer that may sign statements of a predicate type.
// Whatever is neither provenance nor a verdict, takes nothing back and is no
// audit head is evidence.
func PowerFor(predicateType string) Power {
	switch {
	case predicateType == ProvenanceType:
		return PowerProvenance
	case predicateType == VSAType, IsRevocation(predicateType), IsAuditHead(predicateType), IsBuilder(predicateType):
		return PowerVerdict
	default:
		return PowerEvidence
	}
}
