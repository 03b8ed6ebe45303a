// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/attest"
)

// failAlone mixes writes that are refused, some of them after they have
// written a part, among many that are not.
func failAlone(t *testing.T, b Backend) {
	const n = 200
	taken := newIntent(sha256Of("taken"))
	appendIntent(t, b, taken)
	appendAttestation(t, b, logged(taken, "aa", 1))
	var intents []attest.Intent
	for i := range n {
		in := newIntent(sha256Of("%d", i))
		intents = append(intents, in)
		appendIntent(t, b, in)
	}
	kinds := []error{nil, attest.ErrConflict, attest.ErrNotFound, nil, attest.ErrInvalid, attest.ErrConflict}
	errs := make([]error, n)
	concurrently(t, n, func(i int) (struct{}, error) {
		a := released(intents[i], "bundle of "+intents[i].ID)
		switch i % len(kinds) {
		case 1: // found out late: another attestation has that entry
			a.Log, a.LogIndex = "aa", 1
		case 2:
			a.ID = attest.NewID()
		case 4:
			a.SignedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
		case 5:
			a.Subjects = nil
		}
		_, errs[i] = b.AppendAttestation(t.Context(), a)
		return struct{}{}, nil
	})
	stored := int64(1)
	for i, err := range errs {
		found := query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("%d", i), Limit: 9})
		kind := kinds[i%len(kinds)]
		if kind != nil {
			refused(t, "one of many", kind, err)
			if len(found) != 0 {
				t.Errorf("attestation %d was refused and is there", i)
			}
			continue
		}
		stored++
		if err != nil || len(found) != 1 || string(found[0].Bundle) != "bundle of "+intents[i].ID {
			t.Errorf("attestation %d: got %v, %v: want it stored", i, found, err)
		}
	}
	if count, err := b.Signatures(t.Context(), taken.Signer, 1); err != nil || count != stored {
		t.Errorf("signatures: got %d, %v: want %d", count, err, stored)
	}
	if left := open(t, b); len(left) != n+1-int(stored) {
		t.Errorf("got %d open intents: want %d", len(left), n+1-int(stored))
	}
}

// leaveAlone lets some of many writers leave at any moment. Who was told so
// has stored nothing; nobody else is hurt.
func leaveAlone(t *testing.T, b Backend) {
	const n = 300
	var mu sync.Mutex
	stored, gone := map[string]bool{}, map[string]bool{}
	concurrently(t, n, func(i int) (struct{}, error) {
		ctx, cancel := t.Context(), func() {}
		if i%2 == 1 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(i)*20*time.Microsecond)
		}
		defer cancel()
		for range 3 {
			in := newIntent(sha256Of("a"))
			_, _, err := b.AppendIntent(ctx, in)
			mu.Lock()
			switch {
			case err == nil:
				stored[in.ID] = true
			case i%2 == 1:
				refused(t, "a writer that leaves", attest.ErrUnavailable, err)
				gone[in.ID] = true
			default:
				t.Errorf("a writer that stays: %v", err)
			}
			mu.Unlock()
		}
		return struct{}{}, nil
	})
	found := open(t, b)
	for _, in := range found {
		if !stored[in.ID] {
			t.Errorf("intent %s is there; its writer was told otherwise: %t", in.ID, gone[in.ID])
		}
	}
	if len(found) != len(stored) {
		t.Errorf("got %d intents: want the %d acknowledged", len(found), len(stored))
	}
}

// outOfSpaceTogether fills the store while many write.
func outOfSpaceTogether(t *testing.T, b Backend) {
	f, ok := b.(Filler)
	if !ok {
		t.Skip("this backend cannot be filled")
	}
	artifact := sha256Of("a")
	before := store(t, b, newIntent(artifact), "before")
	f.Fill(t)
	var mu sync.Mutex
	acked := map[string]bool{before.ID: true}
	refusals := 0
	concurrently(t, 100, func(i int) (struct{}, error) {
		in := newIntent(artifact)
		_, _, err := b.AppendIntent(t.Context(), in)
		if err == nil {
			_, err = b.AppendAttestation(t.Context(), released(in, strings.Repeat("x", 100_000)))
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			acked[in.ID] = true
			return struct{}{}, nil
		}
		refusals++
		refused(t, "when full", attest.ErrUnavailable, err)
		return struct{}{}, nil
	})
	check := func(when string) {
		t.Helper()
		found := query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, Limit: 999})
		for _, a := range found {
			if !acked[a.ID] {
				t.Errorf("%s: attestation %s is there and was not acknowledged", when, a.ID)
			}
		}
		if len(found) != len(acked) {
			t.Errorf("%s: got %d attestations: want the %d acknowledged", when, len(found), len(acked))
		}
		if n, err := b.Signatures(t.Context(), before.Signer, 1); err != nil || n != int64(len(acked)) {
			t.Errorf("%s: signatures: got %d, %v: want %d", when, n, err, len(acked))
		}
	}
	if refusals == 0 {
		t.Error("nobody was refused")
	}
	check("full")
	f.Free(t)
	for _, in := range open(t, b) {
		a, err := b.AppendAttestation(t.Context(), released(in, "after"))
		if err != nil {
			t.Fatal(errors.Join(errors.New("with space again"), err))
		}
		acked[a.ID] = true
	}
	check("with space again")
}
