// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"provost/attest"
)

// everything calls each method with arguments that would do, and returns the
// errors by name.
func everything(ctx context.Context, b Backend, in attest.Intent) map[string]error {
	errs := map[string]error{}
	_, _, errs["AppendIntent"] = b.AppendIntent(ctx, newIntent(sha256Of("new")))
	_, errs["AppendAttestation"] = b.AppendAttestation(ctx, released(in, "bundle"))
	_, errs["Attestation"] = b.Attestation(ctx, in.ID)
	_, errs["Attestations"] = b.Attestations(ctx, attest.Query{In: attest.Everywhere, Artifact: in.Subjects[0].SHA256, Limit: 9})
	_, errs["OpenIntents"] = b.OpenIntents(ctx, 9)
	errs["AppendDecision"] = b.AppendDecision(ctx, newDecision(sha256Of("new"), "prod"))
	_, errs["Decision"] = b.Decision(ctx, "id")
	_, errs["Decisions"] = b.Decisions(ctx, sha256Of("new"), "", 9)
	_, errs["AppendCertificate"] = b.AppendCertificate(ctx, attest.Certificate{Name: "root", Version: 1, DER: []byte("x")})
	_, errs["Certificates"] = b.Certificates(ctx)
	at := time.Unix(0, 0)
	_, errs["SignedBy"] = b.SignedBy(ctx, attest.SignedQuery{Signer: in.Signer, From: at, To: at, Limit: 9})
	_, errs["Signatures"] = b.Signatures(ctx, in.Signer, 1)
	errs["AppendKeyRevocation"] = b.AppendKeyRevocation(ctx, newRevocation(1))
	_, errs["KeyRevocations"] = b.KeyRevocations(ctx)
	_, errs["Claim"] = b.Claim(ctx, "lease", "holder", at, at.Add(time.Hour))
	errs["Release"] = b.Release(ctx, "lease", "holder")
	key := newAPIKey("new", "")
	_, errs["AppendAPIKey"] = b.AppendAPIKey(ctx, key)
	_, errs["APIKeys"] = b.APIKeys(ctx, attest.Everywhere, 0, 9)
	_, errs["APIKey"] = b.APIKey(ctx, key.ID)
	_, errs["APIKeyByHash"] = b.APIKeyByHash(ctx, key.Hash)
	_, errs["RevokeAPIKey"] = b.RevokeAPIKey(ctx, revokedKey(key))
	session := newSession("new")
	errs["OpenSession"] = b.OpenSession(ctx, session)
	_, errs["Session"] = b.Session(ctx, session.ID)
	_, _, errs["TokenSpent"] = b.TokenSpent(ctx, session.Token)
	errs["SpendToken"] = b.SpendToken(ctx, session.Token, session.TokenUntil)
	errs["PurgeSessions"] = b.PurgeSessions(ctx, at)
	_, _, errs["Builders"] = b.Builders(ctx)
	_, errs["AppendBuilder"] = b.AppendBuilder(ctx, newBuilder("new", attest.BuilderActive), 0)
	_, errs["BuilderHistory"] = b.BuilderHistory(ctx, "new")
	_, errs["LogHead"] = b.LogHead(ctx, "aa")
	_, errs["LogIndexes"] = b.LogIndexes(ctx, "aa", 0, 1)
	_, errs["IntentOfMessage"] = b.IntentOfMessage(ctx, sha256Of("new"))
	errs["AppendLogOrphan"] = b.AppendLogOrphan(ctx, attest.LogOrphan{Log: "aa", Message: sha256Of("new")})
	_, errs["LogOrphans"] = b.LogOrphans(ctx, 9)
	_, errs["AppendAudit"] = b.AppendAudit(ctx, newAudit("new"))
	_, errs["AuditRecords"] = b.AuditRecords(ctx, 0, 9)
	_, errs["AuditHead"] = b.AuditHead(ctx)
	_, errs["SignedAuditHead"] = b.SignedAuditHead(ctx)
	_, errs["AppendImported"] = b.AppendImported(ctx, newImported(sha256Of("new"), "", "bundle"))
	_, errs["Imported"] = b.Imported(ctx, "id")
	_, errs["ImportedAbout"] = b.ImportedAbout(ctx, attest.ImportedQuery{In: attest.Everywhere, Artifact: sha256Of("new"), Limit: 9})
	errs["Ready"] = b.Ready(ctx)
	return errs
}

func contextDone(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, ctx := range []context.Context{canceled, late} {
		for method, err := range everything(ctx, b, in) {
			refused(t, method, attest.ErrUnavailable, err)
			if !errors.Is(err, ctx.Err()) {
				t.Errorf("%s: got %v: want it to wrap %v", method, err, ctx.Err())
			}
		}
	}
	// Nothing of it was stored.
	same(t, "open intents", []attest.Intent{in}, open(t, b))
	certs, err := b.Certificates(t.Context())
	if err != nil || len(certs) != 0 {
		t.Errorf("certificates: got %v, %v: want none", certs, err)
	}
	found, err := b.Decisions(t.Context(), sha256Of("new"), "", 9)
	if err != nil || len(found) != 0 {
		t.Errorf("decisions: got %v, %v: want none", found, err)
	}
	revocations, err := b.KeyRevocations(t.Context())
	if err != nil || len(revocations) != 0 {
		t.Errorf("revocations: got %v, %v: want none", revocations, err)
	}
	orphans, err := b.LogOrphans(t.Context(), 9)
	if err != nil || len(orphans) != 0 {
		t.Errorf("log orphans: got %v, %v: want none", orphans, err)
	}
	keys, err := b.APIKeys(t.Context(), attest.Everywhere, 0, 9)
	if err != nil || len(keys) != 0 {
		t.Errorf("API keys: got %v, %v: want none", keys, err)
	}
	if head := audited(t, b, 0); head != (attest.AuditHead{}) {
		t.Errorf("audit log: got head %+v: want none", head)
	}
	if ok, err := b.Claim(t.Context(), "lease", "another", time.Unix(1, 0), time.Unix(2, 0)); err != nil || !ok {
		t.Errorf("lease: got %t, %v: want it free", ok, err)
	}
}

// contextMidway lets the context end a little later each time, until the call
// gets through. Wherever it ends, the answer is whole or an error, and the
// same request can be tried again.
func contextMidway(t *testing.T, b Backend) {
	artifact := sha256Of("a")
	var want []attest.Attestation
	for i := range 50 {
		want = append(want, store(t, b, newIntent(artifact), strings.Repeat("bundle", i+1)))
	}
	until := func(what string, call func(context.Context) error) {
		for wait := time.Microsecond; ; wait += wait / 4 {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			err := call(ctx)
			cancel()
			if err == nil {
				return
			}
			refused(t, what, attest.ErrUnavailable, err)
			if t.Failed() {
				return
			}
		}
	}
	until("attestations", func(ctx context.Context) error {
		got, err := b.Attestations(ctx, attest.Query{In: attest.Everywhere, Artifact: artifact, Limit: 99})
		if err != nil && got != nil {
			t.Errorf("attestations: got %d with an error", len(got))
		}
		if err == nil {
			same(t, "attestations", want, got)
		}
		return err
	})

	in := newIntent(sha256Of("b"))
	in.IdempotencyKey = "key"
	for i := range 500 {
		in.Subjects = append(in.Subjects, attest.Subject{Name: "s", SHA256: sha256Of("%d", i)})
	}
	first := in.ID
	until("append intent", func(ctx context.Context) error {
		in.ID = attest.NewID()
		id, _, err := b.AppendIntent(ctx, in)
		first = id
		return err
	})
	in.ID = first
	same(t, "open intents", []attest.Intent{in}, open(t, b))
	until("append attestation", func(ctx context.Context) error {
		_, err := b.AppendAttestation(ctx, released(in, "bundle"))
		return err
	})
	if found := query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("499"), Limit: 9}); len(found) != 1 || len(found[0].Subjects) != 501 {
		t.Errorf("got %d attestations: want one, with 501 subjects", len(found))
	}
}

func contextLocked(t *testing.T, b Backend) {
	locker, ok := b.(Locker)
	if !ok {
		t.Skip("this backend cannot stage a lock")
	}
	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	unlock := locker.Lock(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for method, err := range everything(ctx, b, in) {
		if strings.HasPrefix(method, "Append") || method == "Claim" || method == "Release" || method == "Ready" {
			refused(t, method+" while locked", attest.ErrUnavailable, err)
		}
	}
	same(t, "reads do not wait: open intents", []attest.Intent{in}, open(t, b))

	// One who has the time waits for the lock, and gets it.
	waited := make(chan error, 1)
	go func() { waited <- b.Ready(t.Context()) }()
	unlock()
	if err := <-waited; err != nil {
		t.Errorf("ready after the lock: %v", err)
	}
	same(t, "what gave up was not stored: open intents", []attest.Intent{in}, open(t, b))
}

func closed(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		for method, err := range everything(t.Context(), b, in) {
			refused(t, method+" after Close", attest.ErrUnavailable, err)
		}
	}
}

func reopen(t *testing.T, b Backend) {
	r, ok := b.(Reopener)
	if !ok {
		t.Skip("this backend cannot be reopened")
	}
	artifact := sha256Of("a")
	var want []attest.Attestation
	for i := range 10 {
		want = append(want, store(t, b, newIntent(artifact), fmt.Sprint("bundle ", i)))
	}
	keyed := newIntent(artifact)
	keyed.IdempotencyKey = "key"
	want = append(want, store(t, b, keyed, "keyed"))
	unfinished := newIntent(artifact)
	appendIntent(t, b, unfinished)
	decision := newDecision(artifact, "prod")
	if err := b.AppendDecision(t.Context(), decision); err != nil {
		t.Fatal(err)
	}
	cert, err := b.AppendCertificate(t.Context(), attest.Certificate{Name: "root", Version: 1, DER: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	revocation, orphan := newRevocation(1), attest.LogOrphan{Log: "aa", Index: 7, Message: sha256Of("m"), At: time.Unix(0, 0).UTC()}
	if err := errors.Join(b.AppendKeyRevocation(t.Context(), revocation), b.AppendLogOrphan(t.Context(), orphan)); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.Claim(t.Context(), "lease", "before", time.Unix(0, 0), time.Unix(9, 0)); err != nil || !ok {
		t.Fatalf("lease: got %t, %v", ok, err)
	}
	appendAudit(t, b, newAudit("before"))
	key := appendAPIKey(t, b, newAPIKey("revoked", "a"))
	if key, err = b.RevokeAPIKey(t.Context(), revokedKey(key)); err != nil {
		t.Fatal(err)
	}

	b = r.Reopen(t)
	defer b.Close()
	same(t, "attestations", want, query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, Limit: 99}))
	same(t, "open intents", []attest.Intent{unfinished}, open(t, b))
	again := keyed
	again.ID = attest.NewID()
	id, done, err := b.AppendIntent(t.Context(), again)
	if err != nil || id != keyed.ID || done == nil {
		t.Fatalf("retried key: got %s, %v, %v: want the attestation of %s", id, done, err, keyed.ID)
	}
	same(t, "retried key", want[len(want)-1], *done)
	gotDecision, err := b.Decision(t.Context(), decision.ID)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "decision", decision, gotDecision)
	certs, err := b.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "certificates", []attest.Certificate{cert}, certs)
	revocations, err := b.KeyRevocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "revocations", []attest.KeyRevocation{revocation}, revocations)
	orphans, err := b.LogOrphans(t.Context(), 9)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "log orphans", []attest.LogOrphan{orphan}, orphans)
	if ok, err := b.Claim(t.Context(), "lease", "after", time.Unix(1, 0), time.Unix(9, 0)); err != nil || ok {
		t.Errorf("lease: got %t, %v: want it still held", ok, err)
	}
	if n, err := b.Signatures(t.Context(), attest.PowerProvenance, 1); err != nil || n != int64(len(want)) {
		t.Errorf("signatures: got %d, %v: want %d", n, err, len(want))
	}
	gotKey, err := b.APIKeyByHash(t.Context(), key.Hash)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "API key", key, gotKey)
	appendAudit(t, b, newAudit("after"))
	audited(t, b, 2)
	if next := store(t, b, newIntent(artifact), "next"); next.Seq <= want[len(want)-1].Seq {
		t.Errorf("seq went back to %d after reopening", next.Seq)
	}
}

func outOfSpace(t *testing.T, b Backend) {
	f, ok := b.(Filler)
	if !ok {
		t.Skip("this backend cannot be filled")
	}
	artifact := sha256Of("a")
	want := []attest.Attestation{store(t, b, newIntent(artifact), "before")}
	waiting := newIntent(artifact)
	appendIntent(t, b, waiting)
	for range 3 { // asking must not leave room behind for the next time
		if err := b.Ready(t.Context()); err != nil {
			t.Fatalf("ready: %v", err)
		}
	}

	f.Fill(t)
	refused(t, "ready when full", attest.ErrUnavailable, b.Ready(t.Context()))
	large := strings.Repeat("x", 1<<20)
	_, err := b.AppendAttestation(t.Context(), released(waiting, large))
	refused(t, "append attestation when full", attest.ErrUnavailable, err)
	_, err = b.Attestation(t.Context(), waiting.ID)
	refused(t, "what was not acknowledged", attest.ErrNotFound, err)
	crowd := newIntent(artifact)
	for i := range attest.MaxSubjects - 1 {
		crowd.Subjects = append(crowd.Subjects, attest.Subject{Name: "s", SHA256: sha256Of("%d", i)})
	}
	_, _, err = b.AppendIntent(t.Context(), crowd)
	refused(t, "append intent when full", attest.ErrUnavailable, err)
	decision := newDecision(artifact, "prod")
	decision.VSA = []byte(large)
	refused(t, "append decision when full", attest.ErrUnavailable, b.AppendDecision(t.Context(), decision))
	_, err = b.AppendCertificate(t.Context(), attest.Certificate{Name: "root", Version: 1, DER: []byte(large)})
	refused(t, "append certificate when full", attest.ErrUnavailable, err)
	for n := 0; ; n++ { // until nothing fits any more
		r := newAudit("full")
		r.Why, r.Object, r.Subject = strings.Repeat("w", attest.MaxAuditText), strings.Repeat("o", attest.MaxAuditText), strings.Repeat("s", attest.MaxAuditText)
		if _, err := b.AppendAudit(t.Context(), r); err != nil {
			refused(t, "append audit record when full", attest.ErrUnavailable, err)
			audited(t, b, n)
			break
		}
	}
	same(t, "reading goes on: attestations", want, query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, Limit: 9}))
	same(t, "reading goes on: open intents", []attest.Intent{waiting}, open(t, b))

	f.Free(t)
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("ready after there is space: %v", err)
	}
	stored, err := b.AppendAttestation(t.Context(), released(waiting, large))
	if err != nil {
		t.Fatalf("append attestation after there is space: %v", err)
	}
	appendIntent(t, b, crowd)
	if err := b.AppendDecision(t.Context(), decision); err != nil {
		t.Errorf("append decision after there is space: %v", err)
	}
	same(t, "attestations", append(want, stored), query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, Limit: 9}))
}
