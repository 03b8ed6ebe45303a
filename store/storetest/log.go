// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"provost/attest"
)

// logged is released with an entry of a log.
func logged(in attest.Intent, log string, index int64) attest.Attestation {
	a := released(in, "bundle of "+in.ID)
	a.Log, a.LogIndex = log, index
	return a
}

func appendAttestation(t *testing.T, b Backend, a attest.Attestation) attest.Attestation {
	t.Helper()
	stored, err := b.AppendAttestation(t.Context(), a)
	if err != nil {
		t.Fatalf("append attestation: %v", err)
	}
	return stored
}

func logEntries(t *testing.T, b Backend) {
	const log, other = "aa11", "bb22"
	_, err := b.LogHead(t.Context(), log)
	refused(t, "head of an empty log", attest.ErrNotFound, err)
	store(t, b, newIntent(sha256Of("a")), "not logged")
	_, err = b.LogHead(t.Context(), log)
	refused(t, "head of a log without attestations", attest.ErrNotFound, err)

	var all []attest.Attestation
	for _, index := range []int64{0, 7, 3, math.MaxInt64, 4} {
		for _, l := range []string{log, other} {
			in := newIntent(sha256Of("a"))
			appendIntent(t, b, in)
			a := appendAttestation(t, b, logged(in, l, index))
			if a.Log != l || a.LogIndex != index {
				t.Errorf("stored in log %q at %d: want %q at %d", a.Log, a.LogIndex, l, index)
			}
			all = append(all, a)
		}
	}
	head, err := b.LogHead(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "head of the log", all[6], head)
	for _, a := range all {
		got, err := b.Attestation(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "attestation with a log entry", a, got)
	}
	same(t, "attestations with log entries", all, query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("a"), After: all[0].Seq - 1, Limit: 99}))

	in := newIntent(sha256Of("b"))
	appendIntent(t, b, in)
	_, err = b.AppendAttestation(t.Context(), logged(in, log, 7))
	refused(t, "an entry that another attestation has", attest.ErrConflict, err)
	for name, bad := range map[string]attest.Attestation{
		"index -1": logged(in, log, -1), "an index in no log": logged(in, "", 1), "NUL in the log": logged(in, "a\x00", 1),
	} {
		_, err := b.AppendAttestation(t.Context(), bad)
		refused(t, name, attest.ErrInvalid, err)
	}
	same(t, "open intents", []attest.Intent{in}, open(t, b))
	same(t, "nothing of it was stored", nil, query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("b"), Limit: 9}))

	orphan := attest.LogOrphan{Log: log, Index: 5, Message: sha256Of("m"), At: time.Unix(1, 2).UTC()}
	if err := b.AppendLogOrphan(t.Context(), orphan); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		from, to int64
		want     []int64
	}{
		{0, 8, []int64{0, 3, 4, 5, 7}},
		{3, 5, []int64{3, 4}},
		{5, 6, []int64{5}},
		{1, 3, nil},
		{3, 3, nil},
		{math.MaxInt64 - 1, math.MaxInt64, nil},
	} {
		got, err := b.LogIndexes(t.Context(), log, test.from, test.to)
		if err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("indexes from %d below %d", test.from, test.to), test.want, got)
	}
	got, err := b.LogIndexes(t.Context(), "cc", 0, 100)
	if err != nil || len(got) != 0 {
		t.Errorf("indexes of another log: got %v, %v: want none", got, err)
	}
}

func intentOfMessage(t *testing.T, b Backend) {
	message := sha256Of("message")
	_, err := b.IntentOfMessage(t.Context(), message)
	refused(t, "no intent", attest.ErrNotFound, err)
	var all []attest.Intent
	for range 3 {
		appendIntent(t, b, newIntent(sha256Of("a"))) // without a message, as before there was a log
		in := newIntent(sha256Of("a"))
		in.Message = message
		appendIntent(t, b, in)
		all = append(all, in)
	}
	want := func(what string, want attest.Intent) {
		t.Helper()
		got, err := b.IntentOfMessage(t.Context(), message)
		if err != nil {
			t.Fatal(err)
		}
		same(t, what, want, got)
	}
	want("the first of several", all[0])
	appendAttestation(t, b, released(all[0], "bundle"))
	appendAttestation(t, b, released(all[2], "bundle"))
	want("the one that is open", all[1])
	appendAttestation(t, b, released(all[1], "bundle"))
	want("the first when none is open", all[0])
	for _, m := range []attest.Digest{sha256Of("other"), all[0].Payload} {
		_, err = b.IntentOfMessage(t.Context(), m)
		refused(t, "another message", attest.ErrNotFound, err)
	}
}

func logOrphans(t *testing.T, b Backend) {
	list := func() []attest.LogOrphan {
		t.Helper()
		found, err := b.LogOrphans(t.Context(), 99)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	same(t, "orphans of nothing", nil, list())
	in, done := newIntent(sha256Of("a")), newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	store(t, b, done, "bundle")
	var want []attest.LogOrphan
	for i, intent := range []string{in.ID, done.ID, "", "unheard of"} {
		for _, log := range []string{"bb", "aa"} {
			o := attest.LogOrphan{Log: log, Index: int64(3 - i), Message: sha256Of("%d", i), Intent: intent, At: times[i]}
			if err := b.AppendLogOrphan(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			again := o
			again.At = o.At.Add(time.Hour)
			if err := b.AppendLogOrphan(t.Context(), again); err != nil {
				t.Errorf("recorded again: %v", err)
			}
			again.Message = sha256Of("other")
			refused(t, "with another message", attest.ErrConflict, b.AppendLogOrphan(t.Context(), again))
			again = o
			again.Intent += "x"
			refused(t, "with another intent", attest.ErrConflict, b.AppendLogOrphan(t.Context(), again))
			if o.At = o.At.UTC(); intent != done.ID {
				want = append(want, o)
			}
		}
	}
	same(t, "orphans", want, list())
	some, err := b.LogOrphans(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "two orphans", want[:2], some)

	// Whoever was slow comes after all, with that very entry.
	slow := newIntent(sha256Of("a"))
	appendIntent(t, b, slow)
	appendAttestation(t, b, logged(slow, "bb", want[2].Index))
	same(t, "an entry that has its attestation", slices.Delete(slices.Clone(want), 2, 3), list())
	appendAttestation(t, b, released(in, "bundle"))
	same(t, "an intent that has its attestation", slices.Delete(slices.Clone(want), 0, 3), list())

	for name, mutate := range map[string]func(*attest.LogOrphan){
		"no log":         func(o *attest.LogOrphan) { o.Log = "" },
		"index -1":       func(o *attest.LogOrphan) { o.Index = -1 },
		"no message":     func(o *attest.LogOrphan) { o.Message = attest.Digest{} },
		"sha512 message": func(o *attest.LogOrphan) { o.Message = sha512Of("x") },
		"NUL":            func(o *attest.LogOrphan) { o.Intent = "a\x00" },
		"not UTF-8":      func(o *attest.LogOrphan) { o.Log = "\xff" },
		"year 10000":     func(o *attest.LogOrphan) { o.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		o := attest.LogOrphan{Log: "zz", Index: 1, Message: sha256Of("m")}
		mutate(&o)
		refused(t, name, attest.ErrInvalid, b.AppendLogOrphan(t.Context(), o))
	}
}
