// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"provost/attest"
	"provost/keys"
)

// revoke completes and records a revocation.
func revoke(t *testing.T, a *keys.Authority, r attest.KeyRevocation) attest.KeyRevocation {
	t.Helper()
	planned, _, err := a.PlanRevocation(t.Context(), r)
	check(t, err)
	check(t, a.Revoke(t.Context(), planned))
	return planned
}

// A hole in the trusted root takes back what was signed inside it and nothing
// before it, and the signer goes on.
func TestRevokeMakesAHole(t *testing.T) {
	var skew time.Duration
	now := func() time.Time { return time.Now().Add(skew) }
	r := newLoggedRealm(t, func(c *keys.Config) { c.Now = now })
	before := r.sign()
	skew = 10 * time.Minute
	inside := r.sign()
	from := now().Add(-5 * time.Minute)
	planned := revoke(t, r.Authority, attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1, From: from, Reason: "leaked"})
	if !planned.From.Equal(from.UTC().Truncate(time.Second)) || planned.To.Before(now()) {
		t.Errorf("planned %+v", planned)
	}
	after := r.sign()
	if after.KeyVersion != 2 {
		t.Errorf("goes on with version %d", after.KeyVersion)
	}
	if err := r.believed(before.Bundle); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := r.believed(inside.Bundle); err == nil {
		t.Error("inside: believed")
	}
	if err := r.believed(after.Bundle); err != nil {
		t.Errorf("after, under the next CA: %v", err)
	}
	all, err := r.Keys(t.Context())
	check(t, err)
	if got := all[0].Versions; got[0].State != attest.KeyRevoked || got[1].State != attest.KeyActive {
		t.Errorf("states %+v", got)
	}
	// The backend signs with the revoked version no more.
	if _, err := r.config.Backend.Sign(t.Context(), "provenance", 1, make([]byte, 32)); !errors.Is(err, keys.ErrVersion) {
		t.Errorf("version 1 in the backend: %v", err)
	}
	// Another process, and a restart, see the same.
	r.open()
	if err := r.believed(inside.Bundle); err == nil {
		t.Error("after a restart: believed")
	}
	if got := r.sign(); got.KeyVersion != 2 {
		t.Errorf("after a restart signs version %d", got.KeyVersion)
	}
}

// Whoever gives an end leaves what the same CA certified since as good as it
// is; without one the interval lasts as long as the leaf.
func TestRevokeASupersededVersion(t *testing.T) {
	var skew time.Duration
	now := func() time.Time { return time.Now().Add(skew) }
	r := newLoggedRealm(t, func(c *keys.Config) { c.Now, c.RetireAfter = now, time.Minute })
	first := r.sign()
	_, err := r.Rotate(t.Context(), attest.PowerProvenance)
	check(t, err)
	skew = 5 * time.Minute
	second := r.sign()
	whole, _, err := r.PlanRevocation(t.Context(), attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1})
	check(t, err)
	if whole.To.Before(now().Add(time.Hour)) {
		t.Errorf("without an end it ends at %s: a copy of the key is good until its leaf ends", whole.To)
	}
	planned, touched, err := r.PlanRevocation(t.Context(), attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1, To: now().Add(-3 * time.Minute)})
	check(t, err)
	if len(touched) != 2 {
		t.Errorf("versions %v touched", touched)
	}
	check(t, r.Revoke(t.Context(), planned))
	if err := r.believed(first.Bundle); err == nil {
		t.Error("first: believed")
	}
	if err := r.believed(second.Bundle); err != nil {
		t.Errorf("second: %v", err)
	}
	if third := r.sign(); third.KeyVersion != 2 {
		t.Errorf("signs with version %d now", third.KeyVersion)
	}
}

// Without a reserve the revocation is recorded, and the signer stops until
// there is another CA: it does not sign what nobody believes.
func TestRevokeWithoutAReserve(t *testing.T) {
	r := newLoggedRealm(t)
	revoke(t, r.Authority, attest.KeyRevocation{Signer: attest.PowerVerdict, Version: 1})
	revoke2, _, err := r.PlanRevocation(t.Context(), attest.KeyRevocation{Signer: attest.PowerVerdict, Version: 2})
	check(t, err)
	var incomplete *keys.IncompleteError
	if err := r.Revoke(t.Context(), revoke2); !errors.As(err, &incomplete) || !incomplete.Recorded() || len(r.archive.revoked) != 2 {
		t.Fatalf("got %v, %d recorded", err, len(r.archive.revoked))
	}
	if _, err := signOnce(t.Context(), r.Authority, attest.PowerVerdict); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("signs nevertheless: %v", err)
	}
	if err := r.Ready(t.Context()); err == nil {
		t.Error("ready nevertheless")
	}
	if _, err := signOnce(t.Context(), r.Authority, attest.PowerProvenance); err != nil {
		t.Errorf("another signer: %v", err)
	}
}

func TestPlanRevocationRefuses(t *testing.T) {
	r := newLoggedRealm(t)
	at := time.Now()
	for _, tt := range []struct {
		name string
		r    attest.KeyRevocation
		want error
	}{
		{"no such signer", attest.KeyRevocation{Signer: "root", Version: 1}, attest.ErrNotFound},
		{"no such version", attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 2}, attest.ErrNotFound},
		{"version 0", attest.KeyRevocation{Signer: attest.PowerProvenance}, attest.ErrNotFound},
		{"to before from", attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1, From: at, To: at.Add(-time.Second)}, attest.ErrInvalid},
		{"to before the version began", attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1, To: at.Add(-time.Hour)}, attest.ErrInvalid},
	} {
		if _, _, err := r.PlanRevocation(t.Context(), tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// Overlapping revocations make one hole, whatever their order.
func TestHolesMerge(t *testing.T) {
	r := newLoggedRealm(t)
	t0 := time.Now().UTC().Truncate(time.Second)
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	for _, i := range [][2]int{{30, 40}, {5, 10}, {8, 20}, {35, 36}} {
		revoke(t, r.Authority, attest.KeyRevocation{Signer: attest.PowerEvidence, Version: 1, From: at(i[0]), To: at(i[1])})
	}
	text, err := r.TrustedRoot()
	check(t, err)
	_, err = root.NewTrustedRootFromJSON(text)
	check(t, err)
	var said struct {
		CertificateAuthorities []struct {
			ValidFor struct{ Start, End time.Time }
			Subject  struct{ CommonName string }
		}
	}
	check(t, json.Unmarshal(text, &said))
	var ends []time.Time
	for _, ca := range said.CertificateAuthorities {
		if !ca.ValidFor.End.IsZero() {
			ends = append(ends, ca.ValidFor.End)
		}
	}
	if len(said.CertificateAuthorities) != 8 || len(ends) != 2 || !ends[0].Equal(at(5).Add(-time.Second)) || !ends[1].Equal(at(30).Add(-time.Second)) {
		t.Errorf("%d windows, ending at %v", len(said.CertificateAuthorities), ends)
	}
}
