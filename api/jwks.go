// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
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
	issuer string
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time     // when keys were got
	tried   time.Time     // when fetching last began
	err     error         // what came of that
	flight  chan struct{} // closed when the fetch under way ends; nil for none
}

// find returns the keys that a token may be signed with, those of its key id.
// There being none is a [client.ErrUnauthenticated] when we hold the issuer's
// keys, and an [attest.ErrUnavailable] when we do not: then nobody knows.
func (s *keySet) find(ctx context.Context, h header) (tokenKeys, error) {
	asked := false
	for {
		s.mu.Lock()
		now := s.now()
		age := now.Sub(s.fetched)
		usable := s.keys != nil && age < keysUsable
		found := s.match(h)
		switch {
		case len(found.keys) > 0 && usable && (age < keysFresh || asked || s.tooSoon(now)):
			s.mu.Unlock()
			return found, nil
		case s.flight == nil && (asked || s.tooSoon(now)):
			defer s.mu.Unlock()
			if usable {
				return tokenKeys{}, unauthenticated("the token's key is not one of the issuer's")
			}
			return tokenKeys{}, &issuerError{s.tried.Add(retryEvery).Sub(now), s.err}
		case s.flight == nil:
			s.flight, s.tried = make(chan struct{}), now
			go s.refresh()
		}
		flight := s.flight
		s.mu.Unlock()
		asked = true
		select {
		case <-ctx.Done():
			return tokenKeys{}, &issuerError{0, ctx.Err()}
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
	if s.keys == nil {
		every = retryEvery
	}
	return !s.tried.IsZero() && now.Sub(s.tried) < every
}

// refresh fetches the keys and ends the flight. It outlives the request that
// began it, since others wait for it too.
func (s *keySet) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	keys, err := s.fetch(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.keys, s.fetched = keys, s.now()
	}
	close(s.flight)
	s.flight = nil
}

// fetch asks the issuer where its keys are, and for them. The answer of
// discovery is not kept, so that keys may move.
func (s *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, s.client), s.issuer)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var document struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if err := checkURL(document.JWKS); err != nil {
		return nil, fmt.Errorf("jwks_uri: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, document.JWKS, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", document.JWKS, resp.Status)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", document.JWKS, err)
	}
	return parseKeys(raw)
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
		switch public := k.Key.(type) {
		case *rsa.PublicKey:
			if public.Size() < minRSA {
				continue
			}
		case *ecdsa.PublicKey:
		default:
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("key set: no usable key")
	}
	return keys, nil
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
