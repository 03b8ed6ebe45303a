// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// leeway is how far an issuer's clock and ours may differ.
const leeway = time.Minute

// Bounds on parts of a token, in bytes.
const (
	maxKeyID   = 256
	maxSubject = 1024
)

// Authenticate returns the caller that a token speaks for: a session's secret,
// an API key's, or a signed JWT of a configured issuer, for our audience alone,
// in time and not too old. A caller of no matching rule has no grants.
//
// A token that is not accepted is a [client.ErrUnauthenticated], and so is a
// job's, which is accepted once, by [Authenticator.Exchange]. Claims that are
// accepted and do not add up to one build are an [attest.ErrDenied]; when the
// issuer's keys cannot be had it is an [attest.ErrUnavailable]. With any error
// the Caller says at most who it is: it may do nothing.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (attest.Caller, error) {
	if strings.HasPrefix(token, sessionPrefix) {
		return a.session(ctx, token)
	}
	if strings.HasPrefix(token, apiKeyPrefix) {
		return a.apiKey(ctx, token)
	}
	ad, err := a.admit(ctx, token)
	switch {
	case err != nil:
		return ad.caller, err
	case ad.issuer.workload():
		return attest.Caller{}, errSessionRequired
	case !ad.bound.IsZero():
		return attest.Caller{}, unauthenticated("the token's audience must be %q alone", ad.issuer.Audience)
	}
	return ad.caller, nil
}

// workload reports whether the issuer's tokens are of jobs.
func (i *issuer) workload() bool { return i.provider.Rules().Workload || i.Mapping != nil }

// An admitted token is one whose signature, audience and times are accepted.
type admitted struct {
	issuer  *issuer
	claims  identity.Claims
	payload []byte        // the claims as they were signed
	bound   attest.Digest // the artifacts its audience is bound to: see [attest.SubjectSet]; zero for none
	caller  attest.Caller // shared: nobody changes it
}

// admit verifies a JWT.
func (a *Authenticator) admit(ctx context.Context, token string) (admitted, error) {
	if len(token) > maxToken {
		return admitted{}, unauthenticated("the token has more than %d bytes", maxToken)
	}
	builders, err := a.current(ctx)
	if err != nil { // closed: what the token may do is not known
		return admitted{}, err
	}
	sum := sha256.Sum256([]byte(token))
	if m, ok := a.memory.recall(sum); ok && m.builders == builders {
		// Its signature was verified, and what it may do follows from the
		// token, the tables and the registry alone. Its key and its times are
		// asked anew.
		keys, err := m.issuer.keys.find(ctx, m.header)
		if err == nil && keys.fetched.Equal(m.fetched) {
			if _, err := m.issuer.check(m.claims, a.now()); err != nil {
				return admitted{}, err
			}
			return m.admitted, nil
		}
	}
	ad, header, fetched, err := a.verify(ctx, token, a.now())
	if err != nil {
		return admitted{}, err
	}
	if ad.caller, err = a.caller(ad.issuer, ad.issuer.named(ad.claims), nil, builders); err != nil {
		subject, _ := ad.claims.Text("sub")
		if len(subject) > maxSubject {
			subject = ""
		}
		return admitted{caller: attest.Caller{Issuer: ad.issuer.URL, Subject: subject}}, err
	}
	a.memory.remember(sum, remembered{admitted: ad, header: header, fetched: fetched, builders: builders})
	return ad, nil
}

// verify verifies a JWT as it was presented at a time. The caller is not set.
func (a *Authenticator) verify(ctx context.Context, token string, at time.Time) (ad admitted, h header, fetched time.Time, err error) {
	refuse := func(err error) (admitted, header, time.Time, error) { return admitted{}, header{}, time.Time{}, err }
	h, unverified, err := peek(token)
	if err != nil {
		return refuse(err)
	}
	// Up to here nothing is known. What is read of the token now chooses whose
	// keys are asked, from those configured, and nothing else.
	i, ok := a.issuerOf(unverified)
	if !ok {
		return refuse(unauthenticated("the token's issuer is not configured"))
	}
	if !slices.Contains(i.Algorithms, h.alg) {
		return refuse(unauthenticated("the token's algorithm is not one of the issuer's"))
	}
	keys, err := i.keys.find(ctx, h)
	if err != nil {
		return refuse(err)
	}
	verified, err := oidc.NewVerifier(i.URL, keys, &oidc.Config{
		SupportedSigningAlgs: i.Algorithms,
		SkipClientIDCheck:    true, SkipExpiryCheck: true, // ours are stricter: [issuer.check]
		SkipIssuerCheck: i.Provider == identity.SPIFFE,
	}).Verify(ctx, token)
	if err != nil {
		return refuse(unauthenticated("%w", err))
	}
	ad = admitted{issuer: i}
	if ad.claims, ad.payload, err = verifiedClaims(verified); err != nil {
		return refuse(err)
	}
	if ad.bound, err = i.check(ad.claims, at); err != nil {
		return refuse(err)
	}
	return ad, h, keys.fetched, nil
}

// A remembered token, or chain of certificates, is one that was accepted.
type remembered struct {
	admitted
	header   header
	fetched  time.Time // the keys it was verified with, of the issuer's set
	builders *snapshot

	from, until time.Time // of a certificate's chain
}

// maxRemembered is how many tokens are remembered. A job sends one with many
// requests.
const maxRemembered = 4096

// A tokenMemory has accepted tokens, by the hash of each. It saves work and
// decides nothing: see [Authenticator.admit].
type tokenMemory struct {
	mu     sync.Mutex
	tokens map[[sha256.Size]byte]remembered
}

func (m *tokenMemory) recall(sum [sha256.Size]byte) (remembered, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.tokens[sum]
	return r, ok
}

func (m *tokenMemory) remember(sum [sha256.Size]byte, r remembered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tokens == nil || len(m.tokens) >= maxRemembered {
		m.tokens = make(map[[sha256.Size]byte]remembered)
	}
	m.tokens[sum] = r
}

// A header is what is needed of a token's.
type header struct{ alg, kid string }

// refusedHeaders name keys inside the token, or change what the signature
// covers. No issuer of identity tokens has a use for them.
var refusedHeaders = []string{"crit", "b64", "zip", "jwk", "jku", "x5u", "x5c"}

// compactToken is RFC 7515, section 7.1, with a signature.
var compactToken = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// peek takes a token apart without believing it: three parts of base64url,
// JSON that every parser reads the same way, no header that we do not
// understand.
func peek(token string) (header, identity.Claims, error) {
	if len(token) > maxToken {
		return header{}, nil, unauthenticated("the token has more than %d bytes", maxToken)
	}
	if !compactToken.MatchString(token) { // decoders skip some characters, and not the same ones
		return header{}, nil, unauthenticated("the token is no signed JWT in compact form")
	}
	parts := strings.Split(token, ".")
	var members [2]identity.Claims
	for n := range members {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(parts[n])
		if err != nil {
			return header{}, nil, unauthenticated("the token is not base64url")
		}
		if err := attest.CheckJSON(raw); err != nil {
			return header{}, nil, unauthenticated("the token's JSON: %v", err)
		}
		if err := json.Unmarshal(raw, &members[n]); err != nil {
			return header{}, nil, unauthenticated("the token's JSON: want objects")
		}
	}
	h := members[0]
	for _, name := range refusedHeaders {
		if _, ok := h[name]; ok {
			return header{}, nil, unauthenticated("the token's header has %q", name)
		}
	}
	if typ, ok := h.Text("typ"); h["typ"] != nil && (!ok || !strings.EqualFold(typ, "JWT")) {
		return header{}, nil, unauthenticated("the token's typ is not JWT")
	}
	alg, _ := h.Text("alg")
	if h["alg"].Kind() != '"' || !slices.Contains(algorithms, alg) {
		return header{}, nil, unauthenticated("the token's algorithm is not one of the issuer's")
	}
	kid, _ := h.Text("kid")
	if h["kid"].Kind() != '"' || kid == "" || len(kid) > maxKeyID {
		return header{}, nil, unauthenticated("the token names no key")
	}
	return header{alg, kid}, members[1], nil
}

// verifiedClaims reads the claims again, out of what was verified.
func verifiedClaims(token *oidc.IDToken) (identity.Claims, []byte, error) {
	var raw stdjson.RawMessage
	if err := token.Claims(&raw); err != nil {
		return nil, nil, unauthenticated("the token's claims: %w", err)
	}
	c, err := identity.ParseClaims(raw)
	if err != nil {
		return nil, nil, unauthenticated("the token's claims: %v", err)
	}
	return c, raw, nil
}

// check holds what the library does not: the one audience, our own leeway, an
// iat, and our own limit to the token's age. It returns what the audience is
// bound to.
func (i *issuer) check(c identity.Claims, now time.Time) (bound attest.Digest, err error) {
	if i.Provider == identity.SPIFFE {
		if _, err := i.spiffeID(c); err != nil {
			return bound, err
		}
	} else if iss, _ := c.Text("iss"); iss != i.URL || c["iss"].Kind() != '"' {
		return bound, unauthenticated("the token's issuer is not configured")
	}
	aud, ok := oneAudience(c["aud"])
	if set, isBound := strings.CutPrefix(aud, strings.TrimSuffix(i.Audience, "/")+"/?d="); ok && isBound {
		bound, err = attest.NewDigest(attest.AlgSHA256, set)
		ok = err == nil
	} else {
		ok = ok && aud == i.Audience
	}
	if !ok {
		return attest.Digest{}, unauthenticated("the token's audience must be %q alone", i.Audience)
	}
	expires, ok := timeOf(c, "exp")
	if !ok || now.After(expires.Add(leeway)) {
		return bound, unauthenticated("the token has expired or does not say when")
	}
	if notBefore, ok := timeOf(c, "nbf"); c["nbf"] != nil && (!ok || now.Add(leeway).Before(notBefore)) {
		return bound, unauthenticated("the token is not valid yet")
	}
	issued, ok := timeOf(c, "iat")
	switch {
	case c["iat"] == nil && i.Provider == identity.SPIFFE && expires.Sub(now) <= i.MaxAge: // see [Issuer.MaxAge]
	case !ok:
		return bound, unauthenticated("the token does not say when it was issued")
	case now.Add(leeway).Before(issued):
		return bound, unauthenticated("the token was issued in the future")
	case now.Sub(issued) > i.MaxAge:
		return bound, unauthenticated("the token was issued more than %s ago", i.MaxAge)
	}
	return bound, nil
}

// oneAudience is the only audience of a token: a string, or an array of one.
func oneAudience(aud jsontext.Value) (string, bool) {
	switch aud.Kind() {
	case '"':
		var s string
		err := json.Unmarshal(aud, &s)
		return s, err == nil
	case '[':
		var all []string
		if err := json.Unmarshal(aud, &all); err != nil || len(all) != 1 {
			return "", false
		}
		return all[0], true
	}
	return "", false
}

// timeOf is a claim of type NumericDate (RFC 7519, section 2): seconds, perhaps
// with a fraction. It must lie between 1970 and the year 9999.
func timeOf(c identity.Claims, name string) (time.Time, bool) {
	if c[name].Kind() != '0' {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(c[name]), 64)
	if err != nil || !(seconds >= 0 && seconds < 253402300800) {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// unauthenticated says why a token is not accepted. It never quotes the token.
func unauthenticated(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{client.ErrUnauthenticated}, args...)...)
}
