// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost/attest"
)

func newSession(name string) attest.Session {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return attest.Session{
		ID: attest.SHA256([]byte("secret " + name)), Issuer: "https://ci.example", Proof: []byte("token of " + name),
		Subjects: []attest.Digest{attest.SHA256([]byte("a")), attest.SHA256([]byte("b"))},
		At:       at, Expires: at.Add(attest.SessionLifetime), Statements: 2,
		Token: attest.SHA256([]byte("token " + name)), TokenUntil: at.Add(time.Hour),
	}
}

func sessions(t *testing.T, b Backend) {
	want := newSession("one")
	if err := b.OpenSession(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, err := b.Session(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	stored := want
	stored.Token, stored.TokenUntil = attest.Digest{}, time.Time{}
	same(t, "session", stored, got)
	_, err = b.Session(t.Context(), attest.SHA256([]byte("secret")))
	refused(t, "a session that there is not", attest.ErrNotFound, err)

	// A retry gets what was stored first; another's copy of the token nothing.
	retry := want
	retry.Expires = want.Expires.Add(time.Hour)
	if err := b.OpenSession(t.Context(), retry); err != nil {
		t.Errorf("the same session again: %v", err)
	}
	got, _ = b.Session(t.Context(), want.ID)
	same(t, "session after a retry", stored, got)
	replay := newSession("replay")
	replay.Token = want.Token
	refused(t, "a token twice", attest.ErrConflict, b.OpenSession(t.Context(), replay))
	_, err = b.Session(t.Context(), replay.ID)
	refused(t, "the session of a token twice", attest.ErrNotFound, err)

	for name, mutate := range map[string]func(*attest.Session){
		"no id":         func(s *attest.Session) { s.ID = attest.Digest{} },
		"no token":      func(s *attest.Session) { s.Token = attest.Digest{} },
		"no proof":      func(s *attest.Session) { s.Proof = nil },
		"no statements": func(s *attest.Session) { s.Statements = 0 },
		"no subject":    func(s *attest.Session) { s.Subjects = []attest.Digest{{}} },
		"NUL":           func(s *attest.Session) { s.Issuer = "a\x00" },
	} {
		s := newSession(name)
		mutate(&s)
		refused(t, name, attest.ErrInvalid, b.OpenSession(t.Context(), s))
	}

	// A token can be spent for nothing, and one that was spent stays so.
	for name, want := range map[string]attest.Digest{"one": newSession("one").ID, "nothing": {}, "never": {}} {
		token := attest.SHA256([]byte("token " + name))
		if name != "never" {
			if err := b.SpendToken(t.Context(), token, newSession("one").TokenUntil); err != nil {
				t.Fatal(err)
			}
		}
		session, spent, err := b.TokenSpent(t.Context(), token)
		if err != nil || spent != (name != "never") || name == "one" && session != want || name == "nothing" && session == newSession("nothing").ID {
			t.Errorf("token %s: session %s, %v, %v", name, session, spent, err)
		}
	}
	refused(t, "a token that was spent for nothing", attest.ErrConflict, b.OpenSession(t.Context(), newSession("nothing")))

	_, err = b.Session(t.Context(), want.ID)
	refused(t, "the session of a token that was spent for nothing after it", attest.ErrNotFound, err)

	// What is over goes; a spent token later than its session.
	over := newSession("over")
	if err := b.OpenSession(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	if err := b.PurgeSessions(t.Context(), want.Expires.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = b.Session(t.Context(), over.ID)
	refused(t, "a session that was purged", attest.ErrNotFound, err)
	refused(t, "its token", attest.ErrConflict, b.OpenSession(t.Context(), replay))
	if err := b.PurgeSessions(t.Context(), want.TokenUntil.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := b.OpenSession(t.Context(), replay); err != nil { // it is too old to be accepted by then
		t.Errorf("a token that was forgotten: %v", err)
	}
}

// sessionsCount holds that a session's statements are counted where they are
// stored: no more than it has, whoever asks at once, and none after its end.
func sessionsCount(t *testing.T, b Backend) {
	s := newSession("one")
	s.Statements = 5
	if err := b.OpenSession(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	intent := func(key string) attest.Intent {
		in := newIntent(sha256Of("%s", key))
		in.Session, in.At, in.Tenant = s.ID.Hex(), s.At.Add(time.Minute), "ci.example/1"
		return in
	}
	first := intent("first")
	first.IdempotencyKey = "first"
	if _, _, err := b.AppendIntent(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	again := first
	again.ID = attest.NewID()
	if _, done, err := b.AppendIntent(t.Context(), again); err != nil || done != nil { // it will be signed once more: that counts
		t.Fatalf("an open intent again: %v, %v", done, err)
	}
	if _, err := b.AppendAttestation(t.Context(), released(first, "bundle")); err != nil {
		t.Fatal(err)
	}
	for range 3 { // what was released is no new statement
		if _, done, err := b.AppendIntent(t.Context(), again); err != nil || done == nil {
			t.Fatalf("what was released, again: %v, %v", done, err)
		}
	}
	var stored atomic.Int32
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			_, _, err := b.AppendIntent(t.Context(), intent(fmt.Sprint(i)))
			switch {
			case err == nil:
				stored.Add(1)
			case !errors.Is(err, attest.ErrDenied):
				t.Errorf("a statement too many: %v; want it denied", err)
			}
		})
	}
	wait.Wait()
	if n := stored.Load(); n != 3 {
		t.Errorf("%d more statements in a session of 5; want 3", n)
	}
	late := newSession("late")
	if err := b.OpenSession(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	in := newIntent(sha256Of("late"))
	in.Session, in.At = late.ID.Hex(), late.Expires
	_, _, err := b.AppendIntent(t.Context(), in)
	refused(t, "a statement at the session's end", attest.ErrDenied, err)
	in.ID, in.Session = attest.NewID(), attest.SHA256([]byte("none")).Hex()
	_, _, err = b.AppendIntent(t.Context(), in)
	refused(t, "a statement in no session", attest.ErrDenied, err)
	open, err := b.OpenIntents(t.Context(), 100)
	if err != nil || len(open) != 3 {
		t.Errorf("%d open intents, %v; want 3", len(open), err)
	}
}

// tenants holds that what is asked for in some tenants is theirs.
func tenants(t *testing.T, b Backend) {
	artifact := attest.SHA256([]byte("artifact"))
	made := map[string]string{}
	for _, tenant := range []string{"", "a", "b"} {
		for _, predicateType := range []string{"https://t.example/1", "https://t.example/2"} {
			in := newIntent(artifact)
			in.Tenant, in.PredicateType, in.Subjects = tenant, predicateType, []attest.Subject{{SHA256: artifact}}
			if _, _, err := b.AppendIntent(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			a, err := b.AppendAttestation(t.Context(), released(in, "bundle"))
			if err != nil {
				t.Fatal(err)
			}
			if a.Tenant != tenant {
				t.Errorf("attestation of tenant %q is of %q", tenant, a.Tenant)
			}
			made[a.ID] = tenant
		}
	}
	for _, c := range []struct {
		in   attest.Tenants
		want map[string]int
	}{
		{attest.Tenants{}, map[string]int{}},
		{attest.Everywhere, map[string]int{"": 2, "a": 2, "b": 2}},
		{attest.Tenants{Names: []string{"a"}}, map[string]int{"a": 2}},
		{attest.Tenants{Names: []string{"a", "c"}, Shared: true}, map[string]int{"": 2, "a": 2}},
		{attest.Tenants{Names: []string{""}}, map[string]int{}},
		{attest.Tenants{Names: []string{`"],["b`, "%"}}, map[string]int{}},
		{attest.Tenants{Shared: true}, map[string]int{"": 2}},
	} {
		got := map[string]int{}
		count := func(q attest.Query) {
			found, err := b.Attestations(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range found {
				if a.Tenant != made[a.ID] {
					t.Errorf("attestation of tenant %q is of %q", made[a.ID], a.Tenant)
				}
				got[a.Tenant]++
			}
		}
		count(attest.Query{In: c.in, Artifact: artifact, Limit: 9})
		same(t, fmt.Sprintf("in %+v", c.in), c.want, got)
		got = map[string]int{}
		count(attest.Query{In: c.in, Artifact: artifact, PredicateType: "https://t.example/1", Limit: 9})
		count(attest.Query{In: c.in, Artifact: artifact, NotPredicateType: "https://t.example/1", Limit: 9})
		same(t, fmt.Sprintf("by type in %+v", c.in), c.want, got)
	}
}
