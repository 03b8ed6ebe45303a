// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"math"
	"testing"
	"time"

	"provost/attest"
)

func newRevocation(version int) attest.KeyRevocation {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return attest.KeyRevocation{
		ID: attest.NewID(), Signer: attest.PowerProvenance, Version: version,
		From: at, To: at.Add(time.Hour), At: at.Add(time.Nanosecond), By: "https://issuer.example admin", Reason: "leaked ünïcödé",
	}
}

func keyRevocations(t *testing.T, b Backend) {
	list := func() []attest.KeyRevocation {
		t.Helper()
		found, err := b.KeyRevocations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	same(t, "revocations of nothing", nil, list())
	var want []attest.KeyRevocation
	for _, version := range []int{3, 1, math.MaxInt, 1} {
		r := newRevocation(version)
		r.From = r.From.In(time.FixedZone("", 3600))
		if version == 3 {
			r.To, r.Reason = r.From, ""
		}
		if err := b.AppendKeyRevocation(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		refused(t, "the same id again", attest.ErrConflict, b.AppendKeyRevocation(t.Context(), r))
		r.From, r.To = r.From.UTC(), r.To.UTC()
		want = append(want, r)
	}
	for name, mutate := range map[string]func(*attest.KeyRevocation){
		"no id":          func(r *attest.KeyRevocation) { r.ID = "" },
		"no such signer": func(r *attest.KeyRevocation) { r.Signer = "x" },
		"version 0":      func(r *attest.KeyRevocation) { r.Version = 0 },
		"to before from": func(r *attest.KeyRevocation) { r.To = r.From.Add(-time.Second) },
		"half a second":  func(r *attest.KeyRevocation) { r.To = r.To.Add(time.Second / 2) },
		"NUL":            func(r *attest.KeyRevocation) { r.Reason = "a\x00" },
		"not UTF-8":      func(r *attest.KeyRevocation) { r.By = "\xff" },
		"year 10000":     func(r *attest.KeyRevocation) { r.To = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		r := newRevocation(1)
		mutate(&r)
		refused(t, name, attest.ErrInvalid, b.AppendKeyRevocation(t.Context(), r))
	}
	same(t, "revocations", want, list())
}

func leases(t *testing.T, b Backend) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for _, step := range []struct {
		what       string
		name, who  string
		now, until int // seconds
		want       bool
	}{
		{"nobody has it", "rotate", "a", 0, 10, true},
		{"another has it", "rotate", "b", 1, 11, false},
		{"another name is another lease", "other", "b", 1, 11, true},
		{"its holder extends it", "rotate", "a", 5, 20, true},
		{"so it has not run out", "rotate", "b", 15, 25, false},
		{"its holder does not shorten it", "rotate", "a", 6, 7, true},
		{"so it has not run out either", "rotate", "b", 15, 25, false},
		{"it runs to its end", "rotate", "b", 20, 30, false},
		{"it has run out", "rotate", "b", 21, 31, true},
		{"and is another's now", "rotate", "a", 22, 32, false},
	} {
		got, err := b.Claim(t.Context(), step.name, step.who, at(step.now), at(step.until))
		if err != nil || got != step.want {
			t.Errorf("%s: got %t, %v: want %t", step.what, got, err, step.want)
		}
	}
	release := func(name, holder string) {
		t.Helper()
		if err := b.Release(t.Context(), name, holder); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	release("rotate", "a") // has it no more
	if got, err := b.Claim(t.Context(), "rotate", "a", at(23), at(33)); err != nil || got {
		t.Errorf("released by somebody else: got %t, %v: want false", got, err)
	}
	release("rotate", "b")
	release("rotate", "b")
	release("never claimed", "b")
	if got, err := b.Claim(t.Context(), "rotate", "a", at(24), at(34)); err != nil || !got {
		t.Errorf("released: got %t, %v: want true", got, err)
	}
	for _, bad := range []struct {
		what, name, holder string
		until              int
	}{{"no name", "", "a", 1}, {"no holder", "n", "", 1}, {"ends now", "n", "a", 0}, {"ended", "n", "a", -1}, {"NUL", "n\x00", "a", 1}} {
		got, err := b.Claim(t.Context(), bad.name, bad.holder, at(0), at(bad.until))
		refused(t, bad.what, attest.ErrInvalid, err)
		if got {
			t.Errorf("%s: it was granted", bad.what)
		}
	}
}

func concurrentLease(t *testing.T, b Backend) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	granted := 0
	for _, ok := range concurrently(t, 50, func(i int) (bool, error) {
		return b.Claim(t.Context(), "rotate", fmt.Sprint("replica ", i), now, now.Add(time.Minute))
	}) {
		if ok {
			granted++
		}
	}
	if granted != 1 {
		t.Errorf("%d were granted one lease", granted)
	}
}

func signedBy(t *testing.T, b Backend) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	powers := []attest.Power{attest.PowerProvenance, attest.PowerVerdict}
	var all []attest.Attestation
	for i := range 60 {
		in := newIntent(sha256Of("%d", i))
		in.Signer = powers[i%5%2]
		appendIntent(t, b, in)
		a := released(in, "bundle")
		a.KeyVersion = 1 + i%3
		a.SignedAt = start.Add(time.Duration(i*7%20) * time.Minute) // not in the order of storing
		if i%4 == 0 {
			a.Log, a.LogIndex = "aa", int64(i)
		}
		a = appendAttestation(t, b, a)
		a.Bundle = nil
		all = append(all, a)
	}
	counts := map[string]int64{}
	for _, a := range all {
		counts[fmt.Sprint(a.Signer, a.KeyVersion)]++
	}
	for _, power := range append(powers, attest.PowerEvidence) {
		for version := range 5 {
			n, err := b.Signatures(t.Context(), power, version)
			if want := counts[fmt.Sprint(power, version)]; err != nil || n != want {
				t.Errorf("signatures of %s version %d: got %d, %v: want %d", power, version, n, err, want)
			}
			for _, interval := range [][2]int{{0, 19}, {5, 9}, {7, 7}, {-9, -1}, {20, 99}} {
				q := attest.SignedQuery{Signer: power, Version: version,
					From: start.Add(time.Duration(interval[0]) * time.Minute), To: start.Add(time.Duration(interval[1]) * time.Minute)}
				var want []attest.Attestation
				for _, a := range all {
					if a.Signer == power && (version == 0 || a.KeyVersion == version) && !a.SignedAt.Before(q.From) && !a.SignedAt.After(q.To) {
						want = append(want, a)
					}
				}
				for _, q.Limit = range []int{1, 7, 60, math.MaxInt32} {
					var got []attest.Attestation
					for q.After = 0; ; q.After = got[len(got)-1].Seq {
						page, err := b.SignedBy(t.Context(), q)
						if err != nil {
							t.Fatal(err)
						}
						if len(page) > q.Limit {
							t.Fatalf("%+v: got %d attestations", q, len(page))
						}
						if got = append(got, page...); len(page) < q.Limit {
							break
						}
					}
					same(t, fmt.Sprintf("signed by %s version %d at %v, by %d", power, version, interval, q.Limit), want, got)
				}
			}
		}
	}

	// What was refused or came late does not count.
	first := all[0]
	again := released(attest.Intent{ID: first.ID, PredicateType: first.PredicateType, Subjects: first.Subjects, Signer: first.Signer}, "late")
	appendAttestation(t, b, again)
	again.Signer = attest.PowerEvidence
	_, err := b.AppendAttestation(t.Context(), again)
	refused(t, "another signer", attest.ErrConflict, err)
	if n, err := b.Signatures(t.Context(), first.Signer, 1); err != nil || n != counts[fmt.Sprint(first.Signer, 1)] {
		t.Errorf("signatures after a late attestation: got %d, %v", n, err)
	}

	for name, mutate := range map[string]func(*attest.SignedQuery){
		"no limit":       func(q *attest.SignedQuery) { q.Limit = 0 },
		"no signer":      func(q *attest.SignedQuery) { q.Signer = "" },
		"version -1":     func(q *attest.SignedQuery) { q.Version = -1 },
		"to before from": func(q *attest.SignedQuery) { q.To = q.From.Add(-1) },
	} {
		q := attest.SignedQuery{Signer: attest.PowerProvenance, From: start, To: start, Limit: 1}
		mutate(&q)
		_, err := b.SignedBy(t.Context(), q)
		refused(t, name, attest.ErrInvalid, err)
	}
}
