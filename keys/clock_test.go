// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"errors"
	"testing"
	"time"

	"provost/attest"
	"provost/keys"
)

// skewed is a realm whose clock differs from the machine's by what the test
// says, and whose keys sign for an hour.
func skewed(t *testing.T, skew *time.Duration) *loggedRealm {
	t.Helper()
	return newLoggedRealm(t, func(c *keys.Config) {
		c.SigningWindow, c.Now = time.Hour, func() time.Time { return time.Now().Add(*skew) }
	})
}

// refuses has every signer, and the timestamp authority if it must, refuse as
// what may pass.
func (r *loggedRealm) refuses(what string, stamps bool) {
	r.t.Helper()
	for _, p := range attest.Powers {
		if _, err := signOnce(r.t.Context(), r.Authority, p); !errors.Is(err, attest.ErrUnavailable) {
			r.t.Errorf("%s: %s: %v: want ErrUnavailable", what, p, err)
		}
	}
	if _, err := r.Stamp(r.t.Context(), keys.StampRequest{}); (err == nil) != stamps || err != nil && !errors.Is(err, attest.ErrUnavailable) {
		r.t.Errorf("%s: timestamp: %v", what, err)
	}
	if err := r.Ready(r.t.Context()); err == nil {
		r.t.Errorf("%s: ready", what)
	}
}

// recovers waits for Ready, which believes for a second what it found.
func (r *loggedRealm) recovers(what string) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := r.Ready(r.t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not ready: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// An hour forward the signing window has ended: the signers rotate and go on,
// and what was signed before and after is believed. Whoever slept longer than
// the leaf lives refuses until the next Maintain.
func TestClockForward(t *testing.T) {
	var skew time.Duration
	r := skewed(t, &skew)
	bundles := []attest.Attestation{r.sign()}
	skew = time.Hour
	bundles = append(bundles, r.sign()) // in the overlap
	check(t, r.Maintain(t.Context()))
	bundles = append(bundles, r.sign())
	skew += 2 * time.Hour // as of a machine that was asleep
	r.refuses("leaf ended", true)
	check(t, r.Maintain(t.Context()))
	r.recovers("rotated")
	bundles = append(bundles, r.sign())
	for i, want := range []int{1, 1, 2, 3} {
		if got := bundles[i].KeyVersion; got != want {
			t.Errorf("bundle %d: key version %d, want %d", i, got, want)
		}
		if err := r.believed(bundles[i].Bundle); err != nil {
			t.Errorf("bundle %d: %v", i, err)
		}
	}
}

// An hour back no certificate has begun, so nobody would believe what is signed:
// nothing is, nor does anybody rotate, and with the clock right again all is as
// it was.
func TestClockBack(t *testing.T) {
	var skew time.Duration
	r := skewed(t, &skew)
	before := r.sign()
	skew = -time.Hour
	r.refuses("an hour back", false)
	if err := r.Maintain(t.Context()); err != nil && !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("maintain: %v", err)
	}
	if _, err := r.Rotate(t.Context(), attest.PowerProvenance); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("rotate: %v: want ErrUnavailable", err)
	}
	r.refuses("still an hour back", false)
	skew = 0
	r.recovers("right again")
	after := r.sign()
	if after.KeyVersion != 1 {
		t.Errorf("goes on with version %d", after.KeyVersion)
	}
	for name, a := range map[string]attest.Attestation{"before": before, "after": after} {
		if err := r.believed(a.Bundle); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A clock that ran ahead by an hour had a version made whose leaf has not begun
// when the clock is put right. It is not signed with until then, by a process
// that is started anew neither; a rotation by command goes on at once.
func TestClockForwardAndBack(t *testing.T) {
	var skew time.Duration
	r := skewed(t, &skew)
	before := r.sign()
	skew = time.Hour
	check(t, r.Maintain(t.Context()))
	ahead := r.sign()
	skew = 0
	r.refuses("put right", true)
	check(t, r.Maintain(t.Context()))
	r.refuses("maintained", true)
	r.open()
	r.refuses("started anew", true)
	for _, p := range attest.Powers {
		_, err := r.Rotate(t.Context(), p)
		check(t, err)
	}
	r.recovers("rotated")
	after := r.sign()
	for i, a := range []attest.Attestation{before, ahead, after} {
		if a.KeyVersion != i+1 {
			t.Errorf("key version %d, want %d", a.KeyVersion, i+1)
		}
		if err := r.believed(a.Bundle); err != nil {
			t.Errorf("version %d: %v", i+1, err)
		}
	}
}
