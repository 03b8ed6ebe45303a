// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"provost/api/identity"
	"provost/attest"
)

// maxChain bounds the certificates that a client sends.
const maxChain = 8

// mtlsName is the URL of an issuer of provider mtls.
var mtlsName = regexp.MustCompile(`^mtls://[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// AuthenticateCertificate returns the caller that a client certificate speaks
// for, the first of chain, whose key the connection was made with. It is an
// X509-SVID of a configured trust domain, or certified by the CA of exactly one
// issuer of provider mtls. Whether it still is, is asked at each call: a connection outlives
// neither its certificate nor what was believed when it began. There is no token
// that could be stolen or replayed, and so none to exchange for a session.
//
// A certificate that is not accepted is a [client.ErrUnauthenticated]; when the
// authorities cannot be had it is an [attest.ErrUnavailable]. With any error the
// Caller is the zero one, which may do nothing.
func (a *Authenticator) AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (attest.Caller, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return attest.Caller{}, unauthenticated("the client certificate: want a chain of 1 to %d", maxChain)
	}
	builders, err := a.current(ctx)
	if err != nil { // closed: what the certificate may do is not known
		return attest.Caller{}, err
	}
	if !slices.ContainsFunc(chain[0].URIs, isSPIFFE) { // whatever else is in it, no other issuer is asked
		i, claims, err := a.machine(ctx, chain)
		if err != nil {
			return attest.Caller{}, err
		}
		return a.caller(i, claims, nil, builders)
	}
	sum := sumOf(chain)
	if m, ok := a.memory.recall(sum); ok && m.builders == builders {
		// Its chain was verified, and is still one while the bundle is the same
		// and nothing in it has run out.
		roots, err := m.issuer.keys.certificates(ctx)
		if now := a.now(); err == nil && roots.fetched.Equal(m.fetched) && !now.Before(m.from) && !now.After(m.until) {
			return m.caller, nil
		}
	}
	verified, err := a.workload(ctx, chain)
	if err != nil {
		return attest.Caller{}, err
	}
	if verified.caller, err = a.caller(verified.issuer, verified.claims, nil, builders); err != nil {
		return attest.Caller{}, err
	}
	verified.builders = builders
	a.memory.remember(sum, verified)
	return verified.caller, nil
}

// sumOf names a chain. DER says where it ends, so no two chains are the same
// bytes.
func sumOf(chain []*x509.Certificate) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	h.Sum(sum[:0])
	return sum
}

// workload verifies an X509-SVID (X509-SVID, section 5.2, and 4.3 and 4.4,
// which validators need not ask for).
func (a *Authenticator) workload(ctx context.Context, chain []*x509.Certificate) (remembered, error) {
	leaf := chain[0]
	// What is read unverified chooses whose bundle is asked, and nothing else.
	unverified, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return remembered{}, unauthenticated("the client certificate: %s", detail(err))
	}
	i, ok := a.issuers[unverified.TrustDomain().IDString()]
	if !ok {
		return remembered{}, unauthenticated("the client certificate's trust domain is not configured")
	}
	roots, err := i.keys.certificates(ctx)
	if err != nil {
		return remembered{}, err
	}
	bundle := x509bundle.FromX509Authorities(unverified.TrustDomain(), roots.all)
	id, chains, err := x509svid.Verify(chain, bundle, x509svid.WithTime(a.now()))
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok { // its words name our authorities
		return remembered{}, unauthenticated("the client certificate is not certified by its trust domain")
	}
	switch {
	case err != nil:
		return remembered{}, unauthenticated("the client certificate: %s", detail(err))
	case id.Path() == "":
		return remembered{}, unauthenticated("the client certificate: its SPIFFE ID has no path: it is a trust domain's")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return remembered{}, unauthenticated("the client certificate: its key usage is not digitalSignature")
	case (len(leaf.ExtKeyUsage) > 0 || len(leaf.UnknownExtKeyUsage) > 0) && !forClients(leaf):
		return remembered{}, unauthenticated("the client certificate: its extended key usage is not clientAuth")
	}
	from, until := window(chains[0])
	return remembered{
		admitted: admitted{issuer: i, claims: i.named(identity.Claims{"sub": text(id.String())})},
		fetched:  roots.fetched, from: from, until: until,
	}, nil
}

// machine verifies a certificate of provider mtls. Two issuers that both
// certified it are refused: whose it is would be a guess.
func (a *Authenticator) machine(ctx context.Context, chain []*x509.Certificate) (found *issuer, claims identity.Claims, err error) {
	asked := false
	for _, i := range a.issuers {
		if i.Provider != identity.MTLS {
			continue
		}
		asked = true
		roots, err := i.keys.certificates(ctx)
		if err != nil { // closed: it may be this one's
			return nil, nil, err
		}
		if err := verifyMachine(chain, roots.all, a.now()); err != nil {
			continue
		}
		if found != nil {
			return nil, nil, unauthenticated("the client certificate is ambiguous: two issuers certified it")
		}
		found = i
	}
	switch {
	case !asked:
		return nil, nil, unauthenticated("the client certificate has no SPIFFE ID")
	case found == nil:
		return nil, nil, unauthenticated("the client certificate is not one of a configured issuer's, or not valid now")
	}
	claims, err = machineClaims(chain[0])
	return found, claims, err
}

func verifyMachine(chain, roots []*x509.Certificate, now time.Time) error {
	if leaf := chain[0]; leaf.IsCA || leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return unauthenticated("the client certificate is not for authentication")
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// machineClaims are what rules see of a machine's certificate: sub is its whole
// subject (RFC 2253), dns and uri are there when it has one of that kind and
// no more, fingerprint is the SHA-256 of all of it.
func machineClaims(leaf *x509.Certificate) (identity.Claims, error) {
	var subject pkix.RDNSequence // not [pkix.Name], which forgets all but one of several names
	if rest, err := asn1.Unmarshal(leaf.RawSubject, &subject); err != nil || len(rest) > 0 {
		return nil, unauthenticated("the client certificate's subject is malformed")
	}
	sum := sha256.Sum256(leaf.Raw)
	claims := identity.Claims{"sub": text(subject.String()), "fingerprint": text(hex.EncodeToString(sum[:]))}
	if len(leaf.DNSNames) == 1 {
		claims["dns"] = text(leaf.DNSNames[0])
	}
	if len(leaf.URIs) == 1 {
		claims["uri"] = text(leaf.URIs[0].String())
	}
	if len(subject) == 0 { // a name that no subject is written as
		claims["sub"] = text("fingerprint:" + hex.EncodeToString(sum[:]))
	}
	return claims, nil
}

// rootsOf are the roots of client certificates, as they were got.
type rootsOf struct {
	all     []*x509.Certificate
	fetched time.Time
}

func (s *keySet) certificates(ctx context.Context) (roots rootsOf, err error) {
	known, err := s.look(ctx, func() bool {
		roots = rootsOf{s.roots, s.fetched}
		return len(roots.all) > 0
	})
	if err == nil && !known {
		err = unauthenticated("the client certificate's trust domain has no X509-SVIDs")
	}
	return roots, err
}

// window is the time in which all of a chain is valid.
func window(chain []*x509.Certificate) (from, until time.Time) {
	from, until = chain[0].NotBefore, chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return from, until
}

func forClients(leaf *x509.Certificate) bool {
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// text is a claim's JSON. Bytes that are not UTF-8 are not kept: no rule can
// name them.
func text(s string) []byte {
	encoded, err := json.Marshal(strings.ToValidUTF8(s, "\uFFFD"))
	if err != nil {
		return nil
	}
	return encoded
}
