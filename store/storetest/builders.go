// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost/attest"
)

func newBuilder(name, state string) attest.Builder {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	b := attest.Builder{
		Name: name, Issuer: "https://ci.example", Condition: `claims.id == "1" && claims.ü == "é"`, BuildType: attest.GitHubWorkflowType, Level: 3,
		PredicateTypes: []string{attest.ProvenanceType}, Signer: attest.PowerProvenance, Mode: attest.ModeToken, Repository: "https://git.example/a",
		CrossCheck: true, Description: "two\nlines", State: state, ProposedBy: attest.Person{Issuer: "https://people.example", Subject: "ada", Key: "17"}, ProposedAt: at,
	}
	if state == attest.BuilderActive {
		b.ApprovedBy, b.ApprovedAt = attest.Person{Issuer: "https://people.example", Subject: "bob", Key: "18"}, at.Add(time.Hour)
	}
	return b
}

func builders(t *testing.T, b Backend) {
	list := func(revision int64) []attest.Builder {
		t.Helper()
		found, at, err := b.Builders(t.Context())
		if err != nil || at != revision {
			t.Fatalf("registry at revision %d, %v; want %d", at, err, revision)
		}
		return found
	}
	put := func(row attest.Builder, at int64) attest.Builder {
		t.Helper()
		row, err := b.AppendBuilder(t.Context(), row, at)
		if err != nil || row.Revision != at+1 {
			t.Fatalf("append %s at %d: revision %d, %v", row.Name, at, row.Revision, err)
		}
		return row
	}
	same(t, "an empty registry", nil, list(0))
	one := put(newBuilder("one", attest.BuilderActive), 0)
	two := put(newBuilder("two", attest.BuilderProposed), 1)
	same(t, "a row and a proposal of another name", []attest.Builder{one, two}, list(2))
	change := put(newBuilder("one", attest.BuilderProposed), 2)
	same(t, "a row and the proposal that waits for it", []attest.Builder{one, two, change}, list(3))
	later := put(newBuilder("one", attest.BuilderProposed), 3)
	same(t, "a later proposal", []attest.Builder{one, two, later}, list(4))
	approved := put(newBuilder("one", attest.BuilderActive), 4)
	same(t, "the proposal, approved", []attest.Builder{two, approved}, list(5))
	retired := put(newBuilder("one", attest.BuilderRetired), 5)
	same(t, "the row, retired", []attest.Builder{two, retired}, list(6))

	_, err := b.AppendBuilder(t.Context(), newBuilder("two", attest.BuilderActive), 5)
	refused(t, "what was made of an older registry", attest.ErrConflict, err)
	_, err = b.AppendBuilder(t.Context(), attest.Builder{Name: "x"}, 6)
	refused(t, "a row that says nothing", attest.ErrInvalid, err)
	history, err := b.BuilderHistory(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "history", []attest.Builder{one, change, later, approved, retired}, history)
	if none, err := b.BuilderHistory(t.Context(), "x"); err != nil || none != nil {
		t.Errorf("history of nothing: %v, %v", none, err)
	}

	var won atomic.Int32
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			_, err := b.AppendBuilder(t.Context(), newBuilder("three", attest.BuilderActive), 6)
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, attest.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d changes of one revision; want 1", n)
	}
}
