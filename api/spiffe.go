// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"net/url"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"provost/api/identity"
)

// issuerOf is the configured issuer that a token, not yet verified, says it is
// of: by its iss, or, since JWT-SVIDs need not have one of use, by the trust
// domain of its sub.
func (a *Authenticator) issuerOf(unverified identity.Claims) (*issuer, bool) {
	name, _ := unverified.Text("iss")
	if i, ok := a.issuers[name]; ok {
		return i, true
	}
	subject, _ := unverified.Text("sub")
	id, err := spiffeid.FromString(subject)
	if err != nil {
		return nil, false
	}
	i, ok := a.issuers[id.TrustDomain().IDString()]
	return i, ok
}

// spiffeID is the SPIFFE ID of a token's sub, which must be a workload's of the
// issuer's own trust domain: no other may speak for it.
func (i *issuer) spiffeID(c identity.Claims) (spiffeid.ID, error) {
	subject, _ := c.Text("sub")
	id, err := spiffeid.FromString(subject)
	if err != nil || id.TrustDomain().IDString() != i.URL || id.Path() == "" {
		return spiffeid.ID{}, unauthenticated("the token's sub is not the SPIFFE ID of a workload of %s", i.URL)
	}
	return id, nil
}

// named adds what the parts of a SPIFFE ID are to its claims, in place of claims
// of those names: a rule reads the same of both kinds of SVID. Others' claims
// stay as they are.
func (i *issuer) named(c identity.Claims) identity.Claims {
	if i.Provider != identity.SPIFFE {
		return c
	}
	id, err := i.spiffeID(c)
	if err != nil { // was checked
		return nil
	}
	c = maps.Clone(c)
	c["spiffe_id"], c["trust_domain"], c["path"] = text(id.String()), text(id.TrustDomain().Name()), text(id.Path())
	return c
}

// isSPIFFE reports whether a certificate's URI is meant as a SPIFFE ID.
func isSPIFFE(u *url.URL) bool { return strings.EqualFold(u.Scheme, "spiffe") }
