// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"provost/attest"
)

func newAudit(object string) attest.AuditRecord {
	return attest.AuditRecord{
		At: time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC), Request: "request", Remote: "192.0.2.1",
		Issuer: "https://issuer.example", Subject: "repo:a/b", Tenant: "acme", Session: "session",
		Action: "attest.provenance", Object: object, Outcome: attest.AuditAllowed, Why: "rule 1",
	}
}

func appendAudit(t *testing.T, b Backend, r attest.AuditRecord) attest.AuditRecord {
	t.Helper()
	stored, err := b.AppendAudit(t.Context(), r)
	if err != nil {
		t.Fatalf("append audit record: %v", err)
	}
	return stored
}

// audited fails the test unless the audit log is a chain of n records that ends
// with the head that the store says. It reads in small pages.
func audited(t *testing.T, b Backend, n int) (head attest.AuditHead) {
	t.Helper()
	for {
		page, err := b.AuditRecords(t.Context(), head.Seq, 7)
		if err != nil {
			t.Fatalf("audit records: %v", err)
		}
		if head, err = attest.VerifyAudit(page, head); err != nil {
			t.Fatal(err)
		}
		if len(page) < 7 {
			break
		}
	}
	if head.Seq != int64(n) {
		t.Errorf("got %d audit records: want %d", head.Seq, n)
	}
	said, err := b.AuditHead(t.Context())
	if err != nil {
		t.Fatalf("audit head: %v", err)
	}
	same(t, "audit head", head, said)
	return head
}

func auditChain(t *testing.T, b Backend) {
	audited(t, b, 0)
	var want []attest.AuditRecord
	for i, text := range []string{"", " ", "ünïcödé ✓ 𝔘 \U0010ffff \ufffd", "quote ' \" ` \\ %s $1 ? ; --", strings.Repeat("x", attest.MaxAuditText)} {
		r := newAudit(text)
		r.Request, r.Remote, r.Issuer, r.Subject, r.Tenant, r.Session, r.Why = text, text, text, text, text, text, text
		if i%2 == 1 {
			r.Outcome = attest.AuditRefused
		}
		stored := appendAudit(t, b, r)
		if r = r.Chain(attest.AuditHead{Seq: stored.Seq - 1, Hash: lastHash(want)}); stored.Seq != int64(i+1) {
			t.Errorf("record %d has seq %d", i+1, stored.Seq)
		}
		same(t, "stored", r, stored)
		want = append(want, r)
	}
	got, err := b.AuditRecords(t.Context(), 0, 99)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "all", want, got)
	if got, err = b.AuditRecords(t.Context(), 2, 2); err != nil {
		t.Fatal(err)
	}
	same(t, "a page", want[2:4], got)
	audited(t, b, len(want))
	_, err = b.AuditRecords(t.Context(), 0, 0)
	refused(t, "limit 0", attest.ErrInvalid, err)
}

func lastHash(records []attest.AuditRecord) attest.Digest {
	if len(records) == 0 {
		return attest.Digest{}
	}
	return records[len(records)-1].Hash
}

func badAudit(t *testing.T, b Backend) {
	for name, change := range map[string]func(*attest.AuditRecord){
		"no action":               func(r *attest.AuditRecord) { r.Action = "" },
		"an action with a space":  func(r *attest.AuditRecord) { r.Action = "do it" },
		"no outcome":              func(r *attest.AuditRecord) { r.Outcome = "" },
		"another outcome":         func(r *attest.AuditRecord) { r.Outcome = "PASS" },
		"no time":                 func(r *attest.AuditRecord) { r.At = time.Time{} },
		"the year 10000":          func(r *attest.AuditRecord) { r.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a NUL":                   func(r *attest.AuditRecord) { r.Why = "a\x00" },
		"a line break":            func(r *attest.AuditRecord) { r.Subject = "a\nb" },
		"what is not UTF-8":       func(r *attest.AuditRecord) { r.Object = "\xff" },
		"a text that is too long": func(r *attest.AuditRecord) { r.Tenant = strings.Repeat("x", attest.MaxAuditText+1) },
	} {
		r := newAudit("a")
		change(&r)
		_, err := b.AppendAudit(t.Context(), r)
		refused(t, name, attest.ErrInvalid, err)
		in := newIntent(sha256Of("a"))
		in.Audit = &r
		_, _, err = b.AppendIntent(t.Context(), in)
		refused(t, "an intent with "+name, attest.ErrInvalid, err)
	}
	audited(t, b, 0)
	if left := open(t, b); len(left) != 0 {
		t.Errorf("%d intents are there without their audit record", len(left))
	}
}

func auditWithIntent(t *testing.T, b Backend) {
	keyed := func(object string) attest.Intent {
		in := newIntent(sha256Of("a"))
		in.IdempotencyKey, in.Payload = "key", sha256Of("one payload")
		r := newAudit(object)
		in.Audit = &r
		return in
	}
	first := keyed("first")
	appendIntent(t, b, first)
	audited(t, b, 1)

	// Asked again it is let again: before and after it was released.
	if id, done, err := b.AppendIntent(t.Context(), keyed("open")); err != nil || id != first.ID || done != nil {
		t.Fatalf("retried: %s, %v, %v", id, done, err)
	}
	if _, err := b.AppendAttestation(t.Context(), released(first, "bundle")); err != nil {
		t.Fatal(err)
	}
	if id, done, err := b.AppendIntent(t.Context(), keyed("released")); err != nil || id != first.ID || done == nil {
		t.Fatalf("retried: %s, %v, %v", id, done, err)
	}
	audited(t, b, 3)

	// What is refused leaves neither.
	other := keyed("other")
	other.Payload = sha256Of("another payload")
	_, _, err := b.AppendIntent(t.Context(), other)
	refused(t, "the key for something else", attest.ErrConflict, err)
	taken := keyed("taken")
	taken.ID, taken.IdempotencyKey = first.ID, "another key"
	_, _, err = b.AppendIntent(t.Context(), taken)
	refused(t, "an id that is taken", attest.ErrConflict, err)
	audited(t, b, 3)
	got, err := b.AuditRecords(t.Context(), 0, 9)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"first", "open", "released"} {
		if got[i].Object != want {
			t.Errorf("record %d is of %q: want %q", i+1, got[i].Object, want)
		}
	}
}

// auditWithSession holds that a session that was opened has its record, once
// for each time that it was given out, and a token that was spent has none.
func auditWithSession(t *testing.T, b Backend) {
	keyed := func(object string) attest.Session {
		s, r := newSession("one"), newAudit(object)
		s.Audit = &r
		return s
	}
	for _, object := range []string{"first", "again"} {
		if err := b.OpenSession(t.Context(), keyed(object)); err != nil {
			t.Fatal(err)
		}
	}
	audited(t, b, 2)
	replay := keyed("replay")
	replay.ID = sha256Of("another secret")
	refused(t, "a token twice", attest.ErrConflict, b.OpenSession(t.Context(), replay))
	bad := newSession("two")
	bad.Audit = &attest.AuditRecord{}
	refused(t, "a session with a record that is none", attest.ErrInvalid, b.OpenSession(t.Context(), bad))
	_, err := b.Session(t.Context(), bad.ID)
	refused(t, "its session", attest.ErrNotFound, err)
	audited(t, b, 2)
}

// concurrentAudit has many append at once, some with an intent, some of which
// fail when a part is written. What failed has no record, and the rest is one
// chain.
func concurrentAudit(t *testing.T, b Backend) {
	const n = 200
	taken := newIntent(sha256Of("taken"))
	appendIntent(t, b, taken)
	concurrently(t, n, func(i int) (struct{}, error) {
		switch i % 4 {
		case 0, 1:
			_, err := b.AppendAudit(t.Context(), newAudit(fmt.Sprint("alone ", i)))
			return struct{}{}, err
		case 2:
			in, r := newIntent(sha256Of("%d", i)), newAudit(fmt.Sprint("intent ", i))
			in.Audit = &r
			_, _, err := b.AppendIntent(t.Context(), in)
			return struct{}{}, err
		}
		r := newAudit(fmt.Sprint("refused ", i))
		in := newIntent(sha256Of("%d", i))
		in.ID, in.Audit = taken.ID, &r
		if _, _, err := b.AppendIntent(t.Context(), in); !errors.Is(err, attest.ErrConflict) {
			return struct{}{}, fmt.Errorf("an id that is taken: %v", err)
		}
		return struct{}{}, nil
	})
	audited(t, b, n-n/4)
	seen := map[string]bool{}
	records, err := b.AuditRecords(t.Context(), 0, n+1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if seen[r.Object] || strings.HasPrefix(r.Object, "refused") {
			t.Errorf("record %d: %q stands there twice, or should not", r.Seq, r.Object)
		}
		seen[r.Object] = true
	}
}

func signedAuditHead(t *testing.T, b Backend) {
	_, err := b.SignedAuditHead(t.Context())
	refused(t, "before the first", attest.ErrNotFound, err)
	var last attest.Attestation
	for i := range 3 {
		store(t, b, newIntent(sha256Of("something else %d", i)), "no head")
		head := appendAudit(t, b, newAudit("x")).Head()
		in := newIntent(head.Hash)
		in.PredicateType, in.Signer = attest.AuditHeadType("https://service.example"), attest.PowerVerdict
		last = store(t, b, in, fmt.Sprint("head ", i))
		store(t, b, newIntent(head.Hash), "no head either")
		got, err := b.SignedAuditHead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		same(t, "the last signed head", last, got)
	}
}
