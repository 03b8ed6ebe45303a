// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
	"provost/keys"
)

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
	if _, err := a.Rotate(ctx, "issuing-provenance"); !errors.Is(err, attest.ErrNotFound) {
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
	again, err := keys.Open(ctx, pin(t, config)) // a restart does not need more
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

// mute is a backend in which one key does not sign.
type mute struct {
	*keys.File
	key string
}

func (m mute) Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error) {
	if key == m.key {
		return nil, fmt.Errorf("%w: policy", keys.ErrBackendDenied)
	}
	return m.File.Sign(ctx, key, version, digest)
}

func TestReadyProbesEveryKey(t *testing.T) {
	config, _, _ := newConfig(t)
	newAuthority(t, config)
	config = pin(t, config)
	file := config.Backend.(*keys.File)
	for _, key := range []string{"provenance", "evidence", "verdict", "issuing-provenance", "issuing-evidence", "issuing-verdict", "timestamp"} {
		config.Backend = mute{file, key}
		a, err := keys.Open(t.Context(), config)
		check(t, err)
		if err := a.Ready(t.Context()); !errors.Is(err, keys.ErrBackendDenied) {
			t.Errorf("ready although %s does not sign: %v", key, err)
		}
	}
}

// TestManyProcesses runs several authorities on one backend and archive, all
// signing, rotating and maintaining. Every signature verifies under its leaf,
// and all agree in the end.
func TestManyProcesses(t *testing.T) {
	config, store, _ := newConfig(t)
	newAuthority(t, config)
	var authorities []*keys.Authority
	for range 3 {
		a, err := keys.Open(t.Context(), pin(t, config))
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
