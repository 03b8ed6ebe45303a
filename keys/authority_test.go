// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/attest"
	"provost/keys"
)

const identity = "https://provost.example.com"

// An archive is a keys.Archive in memory. It is strict: the same certificate
// version is never stored twice. It can lie: fail is asked before each append
// what error to return, and whether to store nevertheless.
type archive struct {
	mu      sync.Mutex
	certs   []attest.Certificate
	revoked []attest.KeyRevocation
	leases  map[string]lease
	fail    func(attest.Certificate) (store bool, err error)
}

type lease struct {
	holder string
	until  time.Time
}

func (a *archive) KeyRevocations(context.Context) ([]attest.KeyRevocation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]attest.KeyRevocation(nil), a.revoked...), nil
}

func (a *archive) AppendKeyRevocation(_ context.Context, r attest.KeyRevocation) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = append(a.revoked, r)
	return nil
}

// Claim implements keys.Leases.
func (a *archive) Claim(_ context.Context, name, holder string, now, until time.Time) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.leases[name]; ok && l.holder != holder && now.Before(l.until) {
		return false, nil
	}
	if a.leases == nil {
		a.leases = make(map[string]lease)
	}
	a.leases[name] = lease{holder, until}
	return true, nil
}

// Release implements keys.Leases.
func (a *archive) Release(_ context.Context, name, holder string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leases[name].holder == holder {
		delete(a.leases, name)
	}
	return nil
}

func (a *archive) Certificates(context.Context) ([]attest.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]attest.Certificate(nil), a.certs...), nil
}

func (a *archive) AppendCertificate(_ context.Context, c attest.Certificate) (attest.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		if store, err := a.fail(c); err != nil {
			if store {
				a.append(c)
			}
			return attest.Certificate{}, err
		}
	}
	return a.append(c), nil
}

func (a *archive) append(c attest.Certificate) attest.Certificate {
	for _, have := range a.certs {
		if have.Name == c.Name && have.Version == c.Version {
			return have
		}
	}
	a.certs = append(a.certs, c)
	return c
}

func (a *archive) names() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := make(map[string]int)
	for _, c := range a.certs {
		n[c.Name]++
	}
	return n
}

// A clock that tests turn.
type clock struct {
	mu   sync.Mutex
	now  time.Time
	real bool // the machine's instead
}

func newClock() *clock { return &clock{now: time.Now().Truncate(time.Second)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real {
		return time.Now()
	}
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newConfig(t testing.TB) (keys.Config, *archive, *clock) {
	t.Helper()
	store, now := &archive{}, newClock()
	return keys.Config{
		Backend: openFile(t, filepath.Join(t.TempDir(), "keys"), newIdentity(t)), Archive: store, Leases: store,
		Identity: identity, Organization: "Example", SigningWindow: 24 * time.Hour, Now: now.Now,
	}, store, now
}

func dropRoot(*x509.Certificate, []byte) error { return nil }

func newAuthority(t testing.TB, config keys.Config) *keys.Authority {
	t.Helper()
	check(t, keys.Init(t.Context(), config, dropRoot))
	a, err := keys.Open(t.Context(), pin(t, config))
	check(t, err)
	return a
}

// pin is the configuration with the archived root pinned.
func pin(t testing.TB, config keys.Config) keys.Config {
	t.Helper()
	root, err := keys.Root(t.Context(), config.Archive)
	check(t, err)
	config.Root = root
	return config
}

// signOnce signs a message and verifies the signature under its leaf.
func signOnce(ctx context.Context, a *keys.Authority, p attest.Power) (attest.Signature, error) {
	message := []byte("message for " + p)
	sig, err := a.Signer(p).Sign(ctx, message)
	if err != nil {
		return sig, err
	}
	leaf, err := x509.ParseCertificate(sig.Certificate)
	if err != nil {
		return sig, err
	}
	digest := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), digest[:], sig.DER) {
		return sig, fmt.Errorf("signature of %s does not verify under the leaf of version %d", p, sig.Version)
	}
	return sig, nil
}

func TestOpenRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*keys.Config, *archive)
		want   error
		words  string
	}{
		{"what was never initialised", func(c *keys.Config, _ *archive) { c.Archive = &archive{} }, attest.ErrNotFound, "run provostd init"},
		{"another key directory", func(c *keys.Config, _ *archive) {
			c.Backend = openFile(t, filepath.Join(t.TempDir(), "keys"), newIdentity(t))
		}, attest.ErrConflict, "the key backend has none"},
		{"another service's keys", func(c *keys.Config, _ *archive) {
			other, _, _ := newConfig(t)
			newAuthority(t, other)
			c.Backend = other.Backend
		}, attest.ErrConflict, "another public key"},
		{"another service's archive", func(c *keys.Config, _ *archive) {
			other, store, _ := newConfig(t)
			newAuthority(t, other)
			c.Archive, c.Root = store, pin(t, other).Root
		}, attest.ErrConflict, "another public key"},
		{"another root", func(c *keys.Config, _ *archive) {
			other, store, _ := newConfig(t)
			newAuthority(t, other)
			c.Archive = store
		}, nil, "not the pinned one"},
		{"no pinned root", func(c *keys.Config, _ *archive) { c.Root = attest.Digest{} }, attest.ErrInvalid, "no root pinned: run provostd init"},
		{"keys put back to an older state", func(c *keys.Config, _ *archive) { c.Backend = older{c.Backend} }, attest.ErrConflict, "older state"},
		{"another identity", func(c *keys.Config, _ *archive) { c.Identity = "https://other.example.com" }, nil, "identity changed"},
		{"an archive without its issuing CA", func(_ *keys.Config, a *archive) {
			var left []attest.Certificate
			for _, c := range a.certs {
				if c.Name != "issuing-provenance" {
					left = append(left, c)
				}
			}
			a.certs = left
		}, attest.ErrConflict, "lost certificates"},
		{"http", func(c *keys.Config, _ *archive) { c.Identity = "http://provost.example.com" }, attest.ErrInvalid, "want https"},
		{"a slash at the end", func(c *keys.Config, _ *archive) { c.Identity += "/" }, attest.ErrInvalid, "slash"},
		{"no window", func(c *keys.Config, _ *archive) { c.SigningWindow = 0 }, attest.ErrInvalid, "signing window"},
		{"an unreachable backend", func(c *keys.Config, _ *archive) { c.Backend = unreachable{} }, attest.ErrUnavailable, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, store, _ := newConfig(t)
			a := newAuthority(t, config)
			_, err := a.Rotate(t.Context(), attest.PowerVerdict)
			check(t, err)
			config = pin(t, config)
			test.change(&config, store)
			a, err = keys.Open(t.Context(), config)
			if a != nil || err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.words)
			}
		})
	}
}

// older is a backend that has lost its newest versions.
type older struct{ keys.Backend }

func (o older) Versions(ctx context.Context, key string) ([]keys.Version, error) {
	all, err := o.Backend.Versions(ctx, key)
	return all[:1], err
}

type unreachable struct{ keys.Backend }

func (unreachable) Versions(context.Context, string) ([]keys.Version, error) {
	return nil, &keys.UnavailableError{Err: errors.New("connection refused")}
}
