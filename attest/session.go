// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"slices"
	"strings"
	"time"
)

// Bounds on a session. A job has its provenance, SBOM and scans signed within
// minutes.
const (
	SessionLifetime   = 15 * time.Minute
	SessionStatements = 100 // new statements; a retried request is none
)

// A Session is what a workload token was exchanged for: the token is spent, and
// its verified claims speak until the session ends.
type Session struct {
	ID      Digest // SHA-256 of the secret that the job holds
	Issuer  string // the token's
	Proof   []byte // the token itself, spent: it is verified again when the session is read
	Checked []byte // what the CI's own API said of it, JSON; nil when it was not asked
	// Subjects are the artifacts that its statements may be about, when the
	// token's audience was bound to them; nil for any.
	Subjects   []Digest
	At         time.Time // UTC
	Expires    time.Time // UTC
	Statements int       // new statements that may be signed in it

	// Token is what the token is told by: SHA-256 of its issuer and jti, or of
	// the token. Until TokenUntil a copy of it could still be accepted.
	Token      Digest
	TokenUntil time.Time

	// Audit is the record that the caller was let. It is stored in the one
	// transaction with the session, also when the same one is opened again, or
	// neither is; nil for none. It is not read back.
	Audit *AuditRecord
}

// within reports whether a statement about these subjects may be signed in the
// session that bound is of.
func within(bound []Digest, subjects []Subject) bool {
	return len(bound) == 0 || !slices.ContainsFunc(subjects, func(s Subject) bool {
		return !slices.Contains(bound, s.SHA256) || !s.SHA512.IsZero() // the set says nothing of it
	})
}

// SubjectSet is what an audience can be bound to: SHA-256 over the artifacts'
// SHA-256 in lower-case hex, sorted, each once, with a line feed after each.
func SubjectSet(digests []Digest) Digest {
	var lines []string
	for _, d := range digests {
		lines = append(lines, d.Hex()+"\n")
	}
	slices.Sort(lines)
	return SHA256([]byte(strings.Join(slices.Compact(lines), "")))
}

// Tenants says whose records are asked for. The zero value is nobody's.
type Tenants struct {
	// All is every tenant, and what belongs to none.
	All bool
	// Names are single tenants.
	Names []string
	// Shared adds what belongs to no tenant: what those who hold a grant
	// everywhere made.
	Shared bool
}

// Everywhere is every tenant.
var Everywhere = Tenants{All: true}

// Has reports whether what belongs to a tenant, "" for none, is among them.
func (t Tenants) Has(tenant string) bool {
	return t.All || tenant == "" && t.Shared || tenant != "" && slices.Contains(t.Names, tenant)
}

// Within returns the tenants in which the caller holds g.
func (c Caller) Within(g Grant) Tenants {
	names, all := c.Where(g)
	return Tenants{All: all, Names: names}
}
