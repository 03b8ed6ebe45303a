// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"maps"
	"slices"
)

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
	GrantStatement  Grant = "attest:statement"    // sign other statements, of the types that the builder may
	GrantImport     Grant = "attest:import"       // keep attestations that others signed
	GrantBuilders   Grant = "builders:write"      // change the builder registry
	GrantApprove    Grant = "builders:approve"    // be the second person of a change
	GrantAPIKeys    Grant = "apikeys:write"       // make and revoke API keys
	GrantAudit      Grant = "audit:read"          // read the audit log
)

// Grants are all grants there are; configuration that names another is
// refused.
var Grants = []Grant{
	GrantProvenance, GrantSBOM, GrantDecide, GrantRead, GrantRotate, GrantRevokeKeys, GrantRevoke, GrantTimestamp,
	GrantStatement, GrantImport, GrantBuilders, GrantApprove, GrantAPIKeys, GrantAudit,
}

// A Role is a usual set of grants, in the words that people are given them.
type Role string

// The roles.
const (
	RoleAdministrator Role = "administrator" // registers builders, hands out API keys, reads the audit log
	RoleKeyOperator   Role = "key-operator"  // rotates keys, and takes back what they signed
	RolePolicyAuthor  Role = "policy-author" // reads what policies judge
	RoleApprover      Role = "approver"      // is the second person
	RoleSigner        Role = "signer"        // has attestations signed
	RoleGate          Role = "gate"          // asks for decisions
	RoleReader        Role = "reader"        // reads
)

// roles are what each role may do. Nobody's role includes having anything
// timestamped, or importing: those grants are given by name.
var roles = map[Role][]Grant{
	RoleAdministrator: {GrantBuilders, GrantAPIKeys, GrantAudit, GrantRead},
	RoleKeyOperator:   {GrantRotate, GrantRevokeKeys, GrantRevoke, GrantRead},
	RolePolicyAuthor:  {GrantRead},
	RoleApprover:      {GrantApprove, GrantRead},
	RoleSigner:        {GrantProvenance, GrantSBOM, GrantStatement, GrantRead},
	RoleGate:          {GrantDecide, GrantRead},
	RoleReader:        {GrantRead},
}

// Grants returns what the role may do; false for a role that there is not.
func (r Role) Grants() ([]Grant, bool) {
	g, ok := roles[r]
	return slices.Clone(g), ok
}

// Roles are all roles there are, sorted.
func Roles() []Role { return slices.Sorted(maps.Keys(roles)) }

// A Caller is who asks, as the verified token says. It is passed to everything
// that needs authority. The zero Caller may do nothing.
type Caller struct {
	Issuer  string // the token's iss, exactly as configured
	Subject string // the token's sub: recorded, never parsed
	// Grants are what it may do in every tenant, Tenants in single ones. Both
	// come from the configuration rows that match the token.
	Grants  []Grant
	Tenants map[string][]Grant
	// Tenant is where what a job has signed belongs, made of the token's
	// immutable ids or named by its rules, or the one of an API key; "" for
	// people and gates.
	Tenant string
	// Person is who it is, if it is a person: see Person.Key.
	Person string
	Build  *Build // the build that the token speaks for; nil for people and gates
	// Control is the builder control plane that it is; nil for all others.
	Control *Control
	// Retired is the builder that it spoke for, when that was taken out of the
	// registry and no other took its place: nothing is signed for it, whatever
	// it is granted. "" for none.
	Retired string

	// Session is the ID of the session that its token was exchanged for, in
	// hex; "" for a caller that needs none.
	Session string
	// Bound are the only artifacts that it may say anything about; nil for no
	// such bound.
	Bound []Digest
	// Request and Remote are the id and the address of what is asked, for the
	// audit log.
	Request, Remote string
	// Why says which rules gave the grants, for the audit log.
	Why string
}

// Require returns a [GrantError] unless the caller holds g, in every tenant or
// in one: where, [Caller.Where] says.
func (c Caller) Require(g Grant) error {
	if slices.Contains(c.Grants, g) {
		return nil
	}
	for _, grants := range c.Tenants {
		if slices.Contains(grants, g) {
			return nil
		}
	}
	return &GrantError{Missing: g}
}

// RequireEverywhere is [Caller.Require] in every tenant: for what is no tenant's
// own.
func (c Caller) RequireEverywhere(g Grant) error {
	if err := c.Require(g); err != nil {
		return err
	}
	if !c.Within(g).All {
		return fmt.Errorf("%w: the grant %q is held in single tenants alone", ErrDenied, g)
	}
	return nil
}

// Where returns the tenants in which the caller holds g, sorted; all is true
// when it does so in every one.
func (c Caller) Where(g Grant) (tenants []string, all bool) {
	if slices.Contains(c.Grants, g) {
		return nil, true
	}
	for tenant, grants := range c.Tenants {
		if slices.Contains(grants, g) {
			tenants = append(tenants, tenant)
		}
	}
	slices.Sort(tenants)
	return tenants, false
}

// Home returns the tenant to which what the caller makes under g belongs: its
// own, or the only one in which it holds g; "" is no tenant's, and for those
// who hold g everywhere. Several are an [ErrDenied]: which was meant would be
// a guess.
func (c Caller) Home(g Grant) (string, error) {
	tenants, all := c.Where(g)
	switch {
	case c.Tenant != "" && (all || slices.Contains(tenants, c.Tenant)):
		return c.Tenant, nil
	case all:
		return "", nil
	case len(tenants) == 1 && c.Tenant == "":
		return tenants[0], nil
	case len(tenants) == 0:
		return "", &GrantError{Missing: g}
	}
	return "", fmt.Errorf("%w: the grant %q is held in several tenants", ErrDenied, g)
}

// Is returns the caller as a person; its Key is "" when it is none.
func (c Caller) Is() Person { return Person{Issuer: c.Issuer, Subject: c.Subject, Key: c.Person} }
