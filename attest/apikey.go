// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds on an API key.
const (
	MaxAPIKeyLifetime = 90 * 24 * time.Hour
	maxTenant         = 1024 // bytes
	apiKeySkew        = time.Minute
)

// An APIKey speaks for a system that has no identity of its own: no OpenID
// Connect, no SPIFFE, no certificate. It is made by a person, holds a part of
// what that person held then, and ends by itself.
//
// What it may do is what is stored with it. A later change of the rules by
// which its maker got their grants does not change it: it holds until it has
// expired or is revoked.
type APIKey struct {
	ID string
	// Name is a label of 1 to 63 lower-case letters, digits and '-'; two keys
	// may have the same.
	Name string
	// Hash is the SHA-256 of the secret, which is kept nowhere.
	Hash   Digest
	Grants []Grant
	// Tenant is where it holds them; "" for every tenant.
	Tenant    string
	Owner     Person    // who made it
	CreatedAt time.Time // UTC
	ExpiresAt time.Time // UTC
	RevokedAt time.Time // UTC; zero until it is revoked
	RevokedBy Person
	Seq       int64 // order of storing, for paging; set by the store
}

// notForAPIKeys are the grants that no API key holds: it speaks for no build,
// hands out no authority, and does not take back what keys have signed. Those
// take an identity that somebody vouches for now.
var notForAPIKeys = []Grant{GrantProvenance, GrantBuilders, GrantApprove, GrantAPIKeys, GrantRevokeKeys}

// APIKeyIssuer is the issuer of callers with API keys, given the service's own
// URL. No token has it.
func APIKeyIssuer(service string) string { return service + "/apikeys" }

// Create decides about a new key: what k, as asked for, becomes when by asks
// for it. Only a person may, who holds [GrantAPIKeys] where the key is to hold,
// and whatever else it is to hold there; so no key, no job and no machine makes
// keys, and none is more than its maker. Errors are ErrInvalid and ErrDenied.
func (k APIKey) Create(by Caller, now time.Time) (APIKey, error) {
	if err := by.Require(GrantAPIKeys); err != nil {
		return APIKey{}, err
	}
	if by.Person == "" || by.Build != nil { // closed: nobody would answer for it
		return APIKey{}, fmt.Errorf("%w: API keys are made by people, and the token does not say which person this is", ErrDenied)
	}
	k.Owner, k.CreatedAt, k.ExpiresAt = by.Is(), now.UTC(), k.ExpiresAt.UTC()
	k.RevokedAt, k.RevokedBy, k.Seq = time.Time{}, Person{}, 0
	for _, g := range k.Grants {
		if slices.Contains(notForAPIKeys, g) {
			return APIKey{}, fmt.Errorf("%w: no API key may hold the grant %q", ErrDenied, g)
		}
	}
	if err := k.Validate(); err != nil {
		return APIKey{}, err
	}
	for _, g := range append([]Grant{GrantAPIKeys}, k.Grants...) {
		if by.Within(g).Has(k.Tenant) {
			continue
		}
		where := "in every tenant"
		if k.Tenant != "" {
			where = fmt.Sprintf("in tenant %q", k.Tenant)
		}
		return APIKey{}, fmt.Errorf("%w: an API key holds no more than its maker, who does not hold the grant %q %s", ErrDenied, g, where)
	}
	return k, nil
}

// Revoke decides about taking the key back: what it becomes when by asks for
// that, who holds [GrantAPIKeys] where the key holds, or has made it. One that
// is revoked stays as it is. The error is an ErrDenied.
func (k APIKey) Revoke(by Caller, now time.Time) (APIKey, error) {
	owner := by.Person != "" && by.Person == k.Owner.Key
	if !owner && !by.Within(GrantAPIKeys).Has(k.Tenant) {
		if err := by.Require(GrantAPIKeys); err != nil {
			return APIKey{}, err
		}
		return APIKey{}, fmt.Errorf("%w: the grant %q is held in other tenants than the API key's", ErrDenied, GrantAPIKeys)
	}
	if k.RevokedAt.IsZero() {
		k.RevokedAt, k.RevokedBy = now.UTC(), by.Is()
	}
	return k, nil
}

// The states of an API key.
const (
	APIKeyActive  = "active"
	APIKeyRevoked = "revoked"
	APIKeyExpired = "expired"
	// APIKeyFuture is of a key that is made later than now: the clock was
	// turned back, so when it ends is not known either.
	APIKeyFuture = "future"
)

// State is what the key is at a time. It speaks while it is [APIKeyActive].
func (k APIKey) State(now time.Time) string {
	switch {
	case !k.RevokedAt.IsZero(): // whatever the clock says
		return APIKeyRevoked
	case !now.Before(k.ExpiresAt):
		return APIKeyExpired
	case now.Before(k.CreatedAt.Add(-apiKeySkew)):
		return APIKeyFuture
	}
	return APIKeyActive
}

// Caller is whom the key speaks for, at the service of that URL: itself, and
// no person. Whether it still does, [APIKey.State] says.
func (k APIKey) Caller(service string) Caller {
	c := Caller{Issuer: APIKeyIssuer(service), Subject: k.ID, Tenant: k.Tenant, Why: "API key " + k.Name}
	if k.Tenant == "" {
		c.Grants = slices.Clone(k.Grants)
	} else {
		c.Tenants = map[string][]Grant{k.Tenant: slices.Clone(k.Grants)}
	}
	return c
}

var apiKeyID = regexp.MustCompile(`^[a-z2-7]{26}$`) // see [NewID]

// IsAPIKeyID reports whether s has the shape of an API key's ID. A secret does
// not.
func IsAPIKeyID(s string) bool { return apiKeyID.MatchString(s) }

// Validate returns an [ErrInvalid] for a key that [APIKey.Create] cannot have
// made, whoever asked for it.
func (k APIKey) Validate() error {
	switch life := k.ExpiresAt.Sub(k.CreatedAt); {
	case !IsAPIKeyID(k.ID) || k.Hash.Algorithm() != AlgSHA256:
		return fmt.Errorf("%w: API key: want an ID and the SHA-256 of its secret", ErrInvalid)
	case !nameShape.MatchString(k.Name):
		return fmt.Errorf("%w: API key name %.80q: want 1 to 63 lower-case letters, digits and '-'", ErrInvalid, k.Name)
	case len(k.Grants) == 0:
		return fmt.Errorf("%w: API key %s: grants: want at least one", ErrInvalid, k.Name)
	case k.ExpiresAt.IsZero() || k.CreatedAt.IsZero():
		return fmt.Errorf("%w: API key %s: it must expire", ErrInvalid, k.Name)
	case life <= 0 || life > MaxAPIKeyLifetime:
		return fmt.Errorf("%w: API key %s: it must expire within %d days", ErrInvalid, k.Name, MaxAPIKeyLifetime/(24*time.Hour))
	case k.Owner.Key == "":
		return fmt.Errorf("%w: API key %s: it has no owner", ErrInvalid, k.Name)
	case len(k.Tenant) > maxTenant || k.Tenant == "*" || !utf8.ValidString(k.Tenant) || strings.ContainsFunc(k.Tenant, isControl) || strings.TrimSpace(k.Tenant) != k.Tenant:
		return fmt.Errorf("%w: API key %s: tenant %.80q: want one tenant's name, of at most %d bytes", ErrInvalid, k.Name, k.Tenant, maxTenant)
	}
	for i, g := range k.Grants {
		switch {
		case !slices.Contains(Grants, g) || slices.Contains(notForAPIKeys, g):
			return fmt.Errorf("%w: API key %s: grant %.80q: there is none that an API key may hold", ErrInvalid, k.Name, g)
		case slices.Contains(k.Grants[:i], g):
			return fmt.Errorf("%w: API key %s: grant %q is listed twice", ErrInvalid, k.Name, g)
		}
	}
	return nil
}
