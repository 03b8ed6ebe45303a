// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// TestMigrateFirst opens a database as the first release left it, with rows in
// every table, and expects all of it.
func TestMigrateFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db := rawDB(t, path)
	schema, err := os.ReadFile("migrations/sqlite/0001_ledger.sql")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := os.ReadFile("testdata/first.sql")
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "PRAGMA journal_mode = WAL")
	mustExec(t, db, string(schema)) // goose's remarks are comments to SQLite
	mustExec(t, db, string(rows))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	s := openTest(t, path)
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	a, b := attest.SHA256([]byte("a")), attest.SHA256([]byte("b"))
	var want []attest.Attestation
	for i := range 3 {
		want = append(want, attest.Attestation{
			ID: fmt.Sprint("intent-", i+1), Seq: int64(i + 1), PredicateType: attest.ProvenanceType, Signer: attest.PowerProvenance,
			KeyVersion: 1 + i/2, SignedAt: at.Add(time.Duration(i) * time.Hour), Bundle: fmt.Append(nil, "bundle ", i+1),
			Subjects: []attest.Subject{{Name: "a", SHA256: a}, {Name: "b", SHA256: b}},
		})
	}
	verdict := attest.Attestation{
		ID: "intent-4", Seq: 4, PredicateType: attest.VSAType, Signer: attest.PowerVerdict, KeyVersion: 7, SignedAt: at,
		Bundle: []byte("bundle 4"), Subjects: []attest.Subject{{Name: "b", SHA256: b}},
	}
	check := func(what string, want, got any, err error) {
		t.Helper()
		same := cmp.Comparer(func(x, y attest.Digest) bool { return x == y })
		if diff := cmp.Diff(want, got, same); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, diff)
		}
	}
	found, err := s.Attestations(ctx, attest.Query{In: attest.Everywhere, Artifact: a, Limit: 9})
	check("attestations about a", want, found, err)
	found, err = s.Attestations(ctx, attest.Query{In: attest.Everywhere, Artifact: b, NotPredicateType: attest.ProvenanceType, Limit: 9})
	check("verdicts about b", []attest.Attestation{verdict}, found, err)
	one, err := s.Attestation(ctx, "intent-4")
	check("the verdict", verdict, one, err)
	open, err := s.OpenIntents(ctx, 9)
	intent := attest.Intent{
		ID: "intent-5", At: at, CallerIssuer: "https://issuer.example", CallerSubject: "repo:a/b", Signer: attest.PowerProvenance,
		PredicateType: attest.ProvenanceType, Payload: attest.SHA256([]byte("payload")), IdempotencyKey: "key",
		Subjects: []attest.Subject{{Name: "a", SHA256: a}},
	}
	check("open intents", []attest.Intent{intent}, open, err)
	decision, err := s.Decision(ctx, "decision-1")
	check("decision", attest.Decision{
		ID: "decision-1", At: at, Caller: "c", Artifact: a, Name: "a", Environment: "prod", Verdict: attest.VerdictPass,
		Reasons: []attest.Reason{{Rule: "r", Severity: "info", Message: "m"}}, VSA: []byte("bundle 4"), VSAID: "intent-4",
	}, decision, err)
	certificates, err := s.Certificates(ctx)
	check("certificates", []attest.Certificate{{Name: "root", Version: 1, DER: []byte("der")}}, certificates, err)

	// What is new knows the old rows too.
	for i := range want {
		want[i].Bundle = nil
	}
	found, err = s.SignedBy(ctx, attest.SignedQuery{Signer: attest.PowerProvenance, From: at, To: at.Add(time.Hour), Limit: 9})
	check("signed in the first hour", want[:2], found, err)
	for v, count := range []int64{0, 2, 1, 0} {
		n, err := s.Signatures(ctx, attest.PowerProvenance, v)
		check(fmt.Sprint("signatures of version ", v), count, n, err)
	}

	// And what was begun before is ended after.
	again := intent
	again.ID = "again"
	id, done, err := s.AppendIntent(ctx, again)
	if err != nil || id != intent.ID || done != nil {
		t.Errorf("the old key: got %s, %v, %v: want %s, open", id, done, err, intent.ID)
	}
	late := testAttestation(intent, []byte("bundle 5"))
	late.Log, late.LogIndex = "aa", 0
	late, err = s.AppendAttestation(ctx, late)
	if err != nil || late.Seq != 5 {
		t.Fatalf("attestation of an old intent: got seq %d, %v", late.Seq, err)
	}
	head, err := s.LogHead(ctx, "aa")
	check("head of the log", late, head, err)
}
