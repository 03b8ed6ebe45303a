// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
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

	"github.com/google/go-cmp/cmp"

	"provost/attest"
	"provost/keys"
)

const identity = "https://provost.example.com"

// An archive is a keys.Archive in memory. It is strict: the same certificate
// version is never stored twice. It can lie: fail is asked before each append
// what error to return, and whether to store nevertheless.
type archive struct {
	mu    sync.Mutex
	certs []attest.Certificate
	fail  func(attest.Certificate) (store bool, err error)
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
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now().Truncate(time.Second)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
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
		Backend: openFile(t, filepath.Join(t.TempDir(), "keys"), newIdentity(t)), Archive: store,
		Identity: identity, Organization: "Example", SigningWindow: 24 * time.Hour, Now: now.Now,
	}, store, now
}

func dropRoot(*x509.Certificate, []byte) error { return nil }

func newAuthority(t testing.TB, config keys.Config) *keys.Authority {
	t.Helper()
	check(t, keys.Init(t.Context(), config, dropRoot))
	a, err := keys.Open(t.Context(), config)
	check(t, err)
	return a
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
			c.Archive = store
		}, attest.ErrConflict, "another public key"},
		{"keys put back to an older state", func(c *keys.Config, _ *archive) { c.Backend = older{c.Backend} }, attest.ErrConflict, "older state"},
		{"another identity", func(c *keys.Config, _ *archive) { c.Identity = "https://other.example.com" }, nil, "identity changed"},
		{"an archive without its issuing CA", func(_ *keys.Config, a *archive) {
			var left []attest.Certificate
			for _, c := range a.certs {
				if c.Name != "issuing" {
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

// TestInitSurvivesFailure breaks Init at every single step, both before and
// after the step took effect, and runs it again: it always completes, and what
// was completed before stays.
func TestInitSurvivesFailure(t *testing.T) {
	for _, persist := range []bool{false, true} {
		for step := range 30 {
			t.Run(fmt.Sprintf("persist=%v/step=%d", persist, step), func(t *testing.T) {
				config, store, _ := newConfig(t)
				steps, broke := 0, false
				fail := func() error {
					if steps++; steps-1 == step {
						broke = true
						return errors.New("killed")
					}
					return nil
				}
				store.fail = func(attest.Certificate) (bool, error) { return persist, fail() }
				whole := config.Backend
				config.Backend = brittle{whole.(*keys.File), persist, fail}
				var kept []*x509.Certificate
				keep := func(root *x509.Certificate, _ []byte) error {
					if err := fail(); err != nil && !persist {
						return err
					} else {
						kept = append(kept, root)
						return err
					}
				}
				if err := keys.Init(t.Context(), config, keep); (err != nil) != broke {
					t.Fatalf("broken: %v, error: %v", broke, err)
				}
				config.Backend, store.fail = whole, nil
				check(t, keys.Init(t.Context(), config, keep))
				before := store.names()
				check(t, keys.Init(t.Context(), config, keep))
				if diff := cmp.Diff(before, store.names()); diff != "" {
					t.Errorf("a third init changed something: %s", diff)
				}
				a, err := keys.Open(t.Context(), config)
				check(t, err)
				for _, p := range attest.Powers {
					_, err := signOnce(t.Context(), a, p)
					check(t, err)
				}
				checkRootKept(t, a, kept)
			})
		}
	}
}

// checkRootKept checks that the key of the root in use was given away.
func checkRootKept(t *testing.T, a *keys.Authority, kept []*x509.Certificate) {
	t.Helper()
	trusted := trustedRoot(t, a)
	for _, root := range kept {
		if bytes.Equal(trusted.top.Raw, root.Raw) {
			return
		}
	}
	t.Error("nobody was given the key of the root in use")
}

type brittle struct {
	*keys.File
	persist bool
	fail    func() error
}

func (b brittle) Create(ctx context.Context, key string) error {
	return b.do(func() error { return b.File.Create(ctx, key) })
}

func (b brittle) Rotate(ctx context.Context, key string) error {
	return b.do(func() error { return b.File.Rotate(ctx, key) })
}

func (b brittle) Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error) {
	if err := b.fail(); err != nil {
		return nil, err
	}
	return b.File.Sign(ctx, key, version, digest)
}

func (b brittle) do(act func() error) error {
	if err := b.fail(); err != nil {
		if b.persist {
			return errors.Join(err, act())
		}
		return err
	}
	return act()
}

func TestInitByManyAtOnce(t *testing.T) {
	config, _, _ := newConfig(t)
	var mu sync.Mutex
	var kept []*x509.Certificate
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			err := keys.Init(t.Context(), config, func(root *x509.Certificate, _ []byte) error {
				mu.Lock()
				defer mu.Unlock()
				kept = append(kept, root)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	a, err := keys.Open(t.Context(), config)
	check(t, err)
	check(t, a.Ready(t.Context()))
	checkRootKept(t, a, kept)
}

func TestSigner(t *testing.T) {
	config, store, now := newConfig(t)
	a := newAuthority(t, config)
	ctx := t.Context()
	window := config.SigningWindow

	first, err := signOnce(ctx, a, attest.PowerProvenance)
	check(t, err)
	if first.Version != 1 {
		t.Errorf("signed with version %d", first.Version)
	}
	if sig, err := a.Signer("root").Sign(ctx, []byte("x")); err == nil {
		t.Errorf("a signer that does not exist signed: %v", sig)
	}
	if _, err := a.Rotate(ctx, "issuing"); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("rotate issuing: %v", err)
	}

	v, err := a.Rotate(ctx, attest.PowerProvenance)
	check(t, err)
	start := now.Now().UTC()
	want := attest.KeyVersion{Version: 2, State: attest.KeyActive, NotBefore: start.Add(-time.Minute), NotAfter: start.Add(window + 15*time.Minute)}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Error(diff)
	}
	if sig, err := signOnce(ctx, a, attest.PowerProvenance); err != nil || sig.Version != 2 {
		t.Errorf("after rotation: version %d, %v", sig.Version, err)
	}
	if sig, err := signOnce(ctx, a, attest.PowerVerdict); err != nil || sig.Version != 1 {
		t.Errorf("the other signer: version %d, %v", sig.Version, err)
	}

	// An outsider rotates: nothing changes until Maintain adopts it.
	check(t, config.Backend.(keys.Rotator).Rotate(ctx, "verdict"))
	if sig, err := signOnce(ctx, a, attest.PowerVerdict); err != nil || sig.Version != 1 {
		t.Errorf("before adoption: version %d, %v", sig.Version, err)
	}
	check(t, a.Maintain(ctx))
	if sig, err := signOnce(ctx, a, attest.PowerVerdict); err != nil || sig.Version != 2 {
		t.Errorf("after adoption: version %d, %v", sig.Version, err)
	}
	check(t, a.Maintain(ctx))
	if n := store.names(); n["verdict"] != 2 || n["provenance"] != 2 || n["evidence"] != 1 {
		t.Errorf("leaves: %v", n)
	}

	// The window ends: signing goes on through the overlap, Maintain rotates.
	now.advance(window)
	if sig, err := signOnce(ctx, a, attest.PowerVerdict); err != nil || sig.Version != 2 {
		t.Errorf("in the overlap: version %d, %v", sig.Version, err)
	}
	check(t, a.Maintain(ctx))
	if sig, err := signOnce(ctx, a, attest.PowerVerdict); err != nil || sig.Version != 3 {
		t.Errorf("next window: version %d, %v", sig.Version, err)
	}

	// Nobody maintained in time: closed, until somebody does.
	now.advance(window + 15*time.Minute + time.Second)
	for _, p := range attest.Powers {
		if sig, err := signOnce(ctx, a, p); !errors.Is(err, attest.ErrUnavailable) || sig.DER != nil {
			t.Errorf("%s signed with an expired leaf: %v", p, err)
		}
	}
	if err := a.Ready(ctx); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("ready with expired leaves: %v", err)
	}
	again, err := keys.Open(ctx, config) // a restart does not need more
	check(t, err)
	check(t, again.Maintain(ctx))
	if sig, err := signOnce(ctx, again, attest.PowerVerdict); err != nil || sig.Version != 4 {
		t.Errorf("after maintenance: version %d, %v", sig.Version, err)
	}

	all, err := again.Keys(ctx)
	check(t, err)
	if len(all) != 3 || all[2].Signer != attest.PowerVerdict || all[2].Identity != identity+"/signers/verdict" {
		t.Fatalf("keys: %v", all)
	}
	var states []string
	for _, v := range all[2].Versions {
		states = append(states, fmt.Sprint(v.Version, v.State))
	}
	if diff := cmp.Diff([]string{"1retired", "2retired", "3retired", "4active"}, states); diff != "" {
		t.Error(diff)
	}

	// A clock before the leaf: closed too.
	now.advance(-48 * time.Hour)
	if _, err := signOnce(ctx, again, attest.PowerVerdict); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("signed before the leaf begins: %v", err)
	}
}

// TestSignerAtTheEndOfTheCA: leaves do not outlive the issuing CA, and no
// versions are made that could have no leaf.
func TestSignerAtTheEndOfTheCA(t *testing.T) {
	config, store, now := newConfig(t)
	a := newAuthority(t, config)
	end := trustedRoot(t, a).issuing.NotAfter
	now.advance(end.Sub(now.Now()) - time.Hour)
	v, err := a.Rotate(t.Context(), attest.PowerEvidence)
	check(t, err)
	if !v.NotAfter.Equal(end) {
		t.Errorf("leaf ends at %s, the CA at %s", v.NotAfter, end)
	}
	now.advance(50 * time.Minute)
	before, err := config.Backend.Versions(t.Context(), "evidence")
	check(t, err)
	if err := a.Maintain(t.Context()); !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "issuing CA") {
		t.Errorf("maintain: %v", err)
	}
	if after, err := config.Backend.Versions(t.Context(), "evidence"); err != nil || len(after) != len(before) || store.names()["evidence"] != 2 {
		t.Errorf("made a version without a leaf: %d, was %d (%v)", len(after), len(before), err)
	}
	if _, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil {
		t.Errorf("the last leaf still signs: %v", err)
	}
	now.advance(11 * time.Minute)
	if _, err := a.Timestamp(t.Context(), []byte("x")); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("timestamp with an expired certificate: %v", err)
	}
}

// TestRotateFails: when the leaf cannot be archived the new version is not
// used, and signing goes on with the old one.
func TestRotateFails(t *testing.T) {
	for _, persist := range []bool{false, true} {
		config, store, _ := newConfig(t)
		a := newAuthority(t, config)
		store.fail = func(attest.Certificate) (bool, error) { return persist, attest.ErrUnavailable }
		if _, err := a.Rotate(t.Context(), attest.PowerEvidence); !errors.Is(err, attest.ErrUnavailable) {
			t.Fatalf("rotate: %v", err)
		}
		if sig, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil || sig.Version != 1 {
			t.Errorf("version %d, %v", sig.Version, err)
		}
		store.fail = nil
		check(t, a.Maintain(t.Context()))
		if sig, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil || sig.Version != 2 {
			t.Errorf("version %d, %v", sig.Version, err)
		}
	}
}

// retiring is a backend in which versions can be retired, as Vault does with
// min_encryption_version.
type retiring struct {
	*keys.File
	mu  sync.Mutex
	min int
}

func (r *retiring) Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error) {
	r.mu.Lock()
	low := r.min
	r.mu.Unlock()
	if key == "evidence" && version < low {
		return nil, fmt.Errorf("%w: below %d", keys.ErrVersion, low)
	}
	return r.File.Sign(ctx, key, version, digest)
}

func (r *retiring) retireBelow(version int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.min = version
}

func TestSignerReplacesARetiredVersion(t *testing.T) {
	config, store, _ := newConfig(t)
	backend := &retiring{File: config.Backend.(*keys.File)}
	config.Backend = backend
	a := newAuthority(t, config)
	check(t, backend.Rotate(t.Context(), "evidence"))
	backend.retireBelow(2)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if sig, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil || sig.Version != 2 {
				t.Errorf("version %d, %v", sig.Version, err)
			}
		})
	}
	wg.Wait()
	if store.names()["evidence"] != 2 {
		t.Errorf("leaves: %v", store.names())
	}
	backend.retireBelow(3) // and there is none
	if sig, err := signOnce(t.Context(), a, attest.PowerEvidence); !errors.Is(err, attest.ErrUnavailable) || sig.DER != nil {
		t.Errorf("got %v", err)
	}
	_, err := a.Rotate(t.Context(), attest.PowerEvidence) // helps
	check(t, err)
	_, err = signOnce(t.Context(), a, attest.PowerEvidence)
	check(t, err)
}

// degrading is a backend whose keys may become unfit.
type degrading struct {
	*keys.File
	unfit bool
}

func (d *degrading) Versions(ctx context.Context, key string) ([]keys.Version, error) {
	if d.unfit && key == "verdict" {
		return nil, fmt.Errorf("%w: it is exportable", keys.ErrDegraded)
	}
	return d.File.Versions(ctx, key)
}

func TestSignerStopsWithAnUnfitKey(t *testing.T) {
	config, _, _ := newConfig(t)
	backend := &degrading{File: config.Backend.(*keys.File)}
	config.Backend = backend
	a := newAuthority(t, config)
	backend.unfit = true
	if err := a.Maintain(t.Context()); !errors.Is(err, keys.ErrDegraded) {
		t.Errorf("maintain: %v", err)
	}
	if sig, err := signOnce(t.Context(), a, attest.PowerVerdict); !errors.Is(err, keys.ErrDegraded) || sig.DER != nil {
		t.Errorf("an unfit key signed: %v", err)
	}
	if _, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil {
		t.Errorf("the other signer: %v", err)
	}
	if err := a.Ready(t.Context()); err == nil {
		t.Error("ready with an unfit key")
	}
	backend.unfit = false
	check(t, a.Maintain(t.Context()))
	_, err := signOnce(t.Context(), a, attest.PowerVerdict)
	check(t, err)
}

// TestManyProcesses runs several authorities on one backend and archive, all
// signing, rotating and maintaining. Every signature verifies under its leaf,
// and all agree in the end.
func TestManyProcesses(t *testing.T) {
	config, store, _ := newConfig(t)
	newAuthority(t, config)
	var authorities []*keys.Authority
	for range 3 {
		a, err := keys.Open(t.Context(), config)
		check(t, err)
		authorities = append(authorities, a)
	}
	var wg sync.WaitGroup
	for _, a := range authorities {
		for range 2 {
			wg.Go(func() {
				for range 100 {
					if _, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range 5 {
					_, err := a.Rotate(t.Context(), attest.PowerEvidence)
					if err := errors.Join(err, a.Maintain(t.Context())); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	seen := make(map[int]bool)
	for _, a := range authorities {
		check(t, a.Maintain(t.Context()))
		sig, err := signOnce(t.Context(), a, attest.PowerEvidence)
		check(t, err)
		seen[sig.Version] = true
	}
	if len(seen) != 1 || !seen[31] {
		t.Errorf("versions in use: %v, want 31; leaves: %v", seen, store.names())
	}
}
