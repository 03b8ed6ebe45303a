// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"provost/attest"
)

// How an issuer's keys are fetched and kept.
const (
	keysFresh    = 10 * time.Minute // after this they are fetched again before use
	keysUsable   = time.Hour        // for so long they serve when fetching fails
	refetchEvery = 10 * time.Second // an unknown key id makes us ask at most so often
	retryEvery   = 2 * time.Second  // and so often while we have no keys at all
	fetchTimeout = 5 * time.Second  // for discovery and keys together
	maxKeySet    = 256 << 10        // bytes of either document
	minRSA       = 2048 / 8         // bytes of modulus
)

// A keySet is one issuer's keys, fetched when needed, kept for a while. However
// many tokens come in, and whatever key ids they invent, the issuer is asked
// rarely and by one request at a time.
type keySet struct {
	fetch func(context.Context) (authorities, error)
	now   func() time.Time

	mu sync.Mutex
	authorities
	fetched time.Time     // when they were got
	tried   time.Time     // when fetching last began
	err     error         // what came of that
	flight  chan struct{} // closed when the fetch under way ends; nil for none
}

// authorities are what an issuer's tokens and certificates are checked with.
type authorities struct {
	keys  []jose.JSONWebKey
	roots []*x509.Certificate // of client certificates
	fresh time.Duration       // after this they are fetched again before use
}

// find returns the keys that a token may be signed with, those of its key id.
// There being none is a [client.ErrUnauthenticated] when we hold the issuer's
// keys, and an [attest.ErrUnavailable] when we do not: then nobody knows.
func (s *keySet) find(ctx context.Context, h header) (found tokenKeys, err error) {
	known, err := s.look(ctx, func() bool {
		found = s.match(h)
		return len(found.keys) > 0
	})
	if err != nil {
		return tokenKeys{}, err
	}
	if !known {
		return tokenKeys{}, unauthenticated("the token's key is not one of the issuer's")
	}
	return found, nil
}

// look has find look into what we hold, which is as fresh as it has to be. It
// reports whether find found it; an [attest.ErrUnavailable] is that we hold
// nothing.
func (s *keySet) look(ctx context.Context, find func() bool) (bool, error) {
	asked := false
	for {
		s.mu.Lock()
		now := s.now()
		age := now.Sub(s.fetched)
		usable := !s.fetched.IsZero() && age < keysUsable
		switch {
		case usable && (age < s.fresh || asked || s.tooSoon(now)) && find():
			s.mu.Unlock()
			return true, nil
		case s.flight == nil && (asked || s.tooSoon(now)):
			defer s.mu.Unlock()
			if usable {
				return false, nil
			}
			return false, &issuerError{s.tried.Add(retryEvery).Sub(now), s.err}
		case s.flight == nil:
			s.flight, s.tried = make(chan struct{}), now
			go s.refresh()
		}
		flight := s.flight
		s.mu.Unlock()
		asked = true
		select {
		case <-ctx.Done():
			return false, &issuerError{0, ctx.Err()}
		case <-flight:
		}
	}
}

// match returns the keys of that id and algorithm.
func (s *keySet) match(h header) (found tokenKeys) {
	for _, k := range s.keys {
		if k.KeyID == h.kid && (k.Algorithm == "" || k.Algorithm == h.alg) {
			found.keys = append(found.keys, k)
		}
	}
	found.fetched = s.fetched
	return found
}

// tooSoon reports whether the issuer was asked just now.
func (s *keySet) tooSoon(now time.Time) bool {
	every := refetchEvery
	if s.fetched.IsZero() {
		every = retryEvery
	}
	return !s.tried.IsZero() && now.Sub(s.tried) < every
}

// refresh fetches the keys and ends the flight. It outlives the request that
// began it, since others wait for it too.
func (s *keySet) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	got, err := s.fetch(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.authorities, s.fetched = got, s.now()
	}
	close(s.flight)
	s.flight = nil
}

// A discovery finds the keys of an OpenID Connect issuer.
type discovery struct {
	issuer string
	client *http.Client
}

// fetch asks the issuer where its keys are, and for them. The answer of
// discovery is not kept, so that keys may move.
func (d discovery) fetch(ctx context.Context) (authorities, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, d.client), d.issuer)
	if err != nil {
		return authorities{}, fmt.Errorf("discovery: %w", err)
	}
	var document struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return authorities{}, fmt.Errorf("discovery: %w", err)
	}
	if err := checkURL(document.JWKS); err != nil {
		return authorities{}, fmt.Errorf("jwks_uri: %w", err)
	}
	raw, err := download(ctx, d.client, document.JWKS)
	if err != nil {
		return authorities{}, err
	}
	keys, err := parseKeys(raw)
	return authorities{keys: keys, fresh: keysFresh}, err
}

// download is the body of a URL, by a [boundedClient].
func download(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return raw, nil
}

// parseKeys reads a JWK Set. Keys that are not for checking signatures, or of
// a kind that no accepted algorithm uses, are ignored (RFC 7517, section 5); a
// set without a single usable key is an error.
func parseKeys(raw []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := attest.DecodeOpenJSON(raw, &set); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, item := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(item) != nil || k.KeyID == "" || k.Use != "" && k.Use != "sig" {
			continue
		}
		if usableKey(k.Key) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("key set: no usable key")
	}
	return keys, nil
}

// usableKey reports whether an accepted algorithm uses keys of this kind, and
// this one is long enough.
func usableKey(key any) bool {
	switch public := key.(type) {
	case *rsa.PublicKey:
		return public.Size() >= minRSA
	case *ecdsa.PublicKey:
		return true
	}
	return false
}

// tokenKeys are the keys one token may be signed with. They are an
// [oidc.KeySet] that fetches nothing.
type tokenKeys struct {
	keys    []jose.JSONWebKey
	fetched time.Time // when they were got from the issuer
}

// VerifySignature returns the payload of a token that one of the keys signed.
func (k tokenKeys) VerifySignature(_ context.Context, token string) ([]byte, error) {
	var algs []jose.SignatureAlgorithm
	for _, alg := range algorithms {
		algs = append(algs, jose.SignatureAlgorithm(alg))
	}
	jws, err := jose.ParseSignedCompact(token, algs) // the verifier has narrowed them to the issuer's
	if err != nil {
		return nil, err
	}
	for _, key := range k.keys {
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("the signature does not verify")
}

// An issuerError says that an issuer's keys cannot be had. It is an
// [attest.ErrUnavailable].
type issuerError struct {
	wait time.Duration
	err  error
}

// Error is bounded: discovery quotes what the issuer answered.
func (e *issuerError) Error() string             { return "keys of the token's issuer: " + detail(e.err) }
func (e *issuerError) Unwrap() error             { return e.err }
func (e *issuerError) Is(target error) bool      { return target == attest.ErrUnavailable }
func (e *issuerError) RetryAfter() time.Duration { return e.wait }

// boundedClient is a client whose answers are bounded in size and time, and
// that goes only where it is sent.
func boundedClient(given *http.Client) *http.Client {
	c := http.Client{}
	if given != nil {
		c = *given
	}
	if c.Timeout == 0 || c.Timeout > fetchTimeout {
		c.Timeout = fetchTimeout
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Transport = bounded{c.Transport}
	return &c
}

type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxKeySet)
	}
	return resp, err
}
