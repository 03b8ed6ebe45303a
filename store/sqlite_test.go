// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/attest"
	"provost/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		path := filepath.Join(t.TempDir(), "provost.db")
		return faultySQLite{openTest(t, path), path}
	})
}

// faultySQLite stages the faults of the contract.
type faultySQLite struct {
	*SQLite
	path string
}

func (f faultySQLite) Reopen(t *testing.T) storetest.Backend {
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return faultySQLite{openTest(t, f.path), f.path}
}

func (f faultySQLite) Fill(t *testing.T) { f.limitPages(t, 1) } // SQLite takes what there is already
func (f faultySQLite) Free(t *testing.T) { f.limitPages(t, 1<<30) }

func (f faultySQLite) limitPages(t *testing.T, n int) {
	t.Helper()
	mustExec(t, f.writer.DB, fmt.Sprintf("PRAGMA max_page_count = %d", n))
}

// Lock does what another process would.
func (f faultySQLite) Lock(t *testing.T) (unlock func()) {
	db := rawDB(t, f.path)
	mustExec(t, db, "BEGIN IMMEDIATE")
	return func() { mustExec(t, db, "ROLLBACK") }
}

func openTest(t testing.TB, path string) *SQLite {
	t.Helper()
	s, err := OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// rawDB is one plain connection, as another program would have.
func rawDB(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func mustExec(t testing.TB, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.Exec(query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func testIntent(name string) attest.Intent {
	return attest.Intent{
		ID: attest.NewID(), At: time.Unix(0, 0), Signer: attest.PowerProvenance, PredicateType: attest.ProvenanceType,
		Subjects: []attest.Subject{{Name: name, SHA256: attest.SHA256([]byte(name))}}, Payload: attest.SHA256([]byte("payload")),
	}
}

func testAttestation(in attest.Intent, bundle []byte) attest.Attestation {
	return attest.Attestation{ID: in.ID, PredicateType: in.PredicateType, Subjects: in.Subjects, Signer: in.Signer, KeyVersion: 1, Bundle: bundle}
}

// fillTables puts at least one row into every table.
func fillTables(t testing.TB, s *SQLite) {
	t.Helper()
	ctx := t.Context()
	in := testIntent("a")
	_, _, err1 := s.AppendIntent(ctx, testIntent("open"))
	_, _, err2 := s.AppendIntent(ctx, in)
	_, err3 := s.AppendAttestation(ctx, testAttestation(in, []byte("bundle")))
	err4 := s.AppendDecision(ctx, attest.Decision{ID: "decision", Artifact: attest.SHA256([]byte("a"))})
	_, err5 := s.AppendCertificate(ctx, attest.Certificate{Name: "root", Version: 1, DER: []byte("der")})
	err6 := s.AppendKeyRevocation(ctx, attest.KeyRevocation{ID: "revocation", Signer: in.Signer, Version: 1, From: time.Unix(0, 0), To: time.Unix(1, 0)})
	err7 := s.AppendLogOrphan(ctx, attest.LogOrphan{Log: "aa", Message: in.Payload})
	_, err8 := s.Claim(ctx, "lease", "holder", time.Unix(0, 0), time.Unix(1, 0))
	_, err9 := s.AppendAudit(ctx, attest.Caller{}.Allowed("read", "a", time.Unix(0, 0)))
	head := testIntent("head")
	head.PredicateType = attest.AuditHeadType("https://service.example")
	_, _, err10 := s.AppendIntent(ctx, head)
	_, err11 := s.AppendAttestation(ctx, testAttestation(head, []byte("head")))
	created := time.Unix(0, 0).UTC()
	_, err12 := s.AppendAPIKey(ctx, attest.APIKey{
		ID: attest.NewID(), Name: "key", Hash: attest.SHA256([]byte("secret")), Grants: []attest.Grant{attest.GrantRead},
		Owner: attest.Person{Key: "ada"}, CreatedAt: created, ExpiresAt: created.Add(time.Hour),
	})
	_, err13 := s.AppendImported(ctx, attest.Imported{ID: "imported", Root: "root", Subjects: in.Subjects, Bundle: []byte("bundle")})
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12, err13); err != nil {
		t.Fatal(err)
	}
}

func TestAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	s := openTest(t, path)
	fillTables(t, s)
	dump := func() string {
		var out strings.Builder
		for _, q := range []string{
			"SELECT seq, id, caller_issuer FROM intents", "SELECT intent, position, name FROM subjects", "SELECT seq, intent, bundle FROM attestations",
			"SELECT seq, hex(digest), predicate_type FROM attested", "SELECT seq, id, verdict FROM decisions", "SELECT name, version, der FROM certificates",
			"SELECT intent, '', '' FROM open_intents", "SELECT seq, signed_at, log FROM signed", "SELECT signer, key_version, count FROM signatures",
			"SELECT seq, log, intent FROM log_orphans", "SELECT seq, id, reason FROM key_revocations",
			"SELECT seq, why, hex(hash) FROM audit", "SELECT seq, '', '' FROM audit_heads", "SELECT id, grants, expires FROM api_keys",
			"SELECT seq, id, bundle FROM imported", "SELECT imported, name, hex(sha256) FROM imported_subjects", "SELECT hex(digest), seq, tenant FROM imported_about",
		} {
			rows, err := s.readers.Query(q)
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var a, b, c string
				if err := rows.Scan(&a, &b, &c); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&out, q, a, b, c)
			}
			rows.Close()
		}
		return out.String()
	}
	before := dump()
	statements := []string{
		"DELETE FROM open_intents", "UPDATE open_intents SET intent = 99",
		"DELETE FROM signatures", "UPDATE signatures SET count = count", "UPDATE signatures SET count = 0", "UPDATE signatures SET key_version = 9, count = 9",
	}
	for table, column := range map[string]string{
		"imported": "issuer", "imported_subjects": "name", "imported_about": "tenant",
		"audit": "why", "audit_heads": "seq", "api_keys": "expires", "signed": "signed_at", "log_orphans": "intent", "key_revocations": "reason",
		"intents": "caller_issuer", "subjects": "name", "attestations": "key_version", "attested": "predicate_type", "decisions": "verdict", "certificates": "version",
	} {
		// One column stands for all: the triggers do not name columns.
		statements = append(statements, "DELETE FROM "+table)
		statements = append(statements, fmt.Sprintf("UPDATE %s SET %s = %[2]s", table, column))
		statements = append(statements, fmt.Sprintf("INSERT OR REPLACE INTO %s SELECT * FROM %[1]s", table))
	}
	outside := rawDB(t, path)
	for _, q := range statements {
		if _, err := s.writer.Exec(q); err == nil {
			t.Errorf("%s: it was done", q)
		} else if !strings.Contains(err.Error(), "append-only") && !strings.Contains(err.Error(), "open_intents") && !strings.Contains(err.Error(), "only grows") {
			t.Errorf("%s: refused by something else: %v", q, err)
		}
		// REPLACE is seen only where recursive_triggers is on, which is ours to set.
		if strings.HasPrefix(q, "INSERT") {
			continue
		}
		if _, err := outside.Exec(q); err == nil {
			t.Errorf("%s: it was done by another connection", q)
		}
	}
	if after := dump(); after != before {
		t.Errorf("something has changed:\n%s\nwas:\n%s", after, before)
	}
	if _, err := s.readers.Exec("INSERT INTO open_intents (intent) VALUES (99)"); err == nil {
		t.Error("a reader wrote")
	}
}

// TestCertificateVersions: no certificate has a version below 1, whoever
// writes it.
func TestCertificateVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	openTest(t, path)
	outside := rawDB(t, path)
	for version, ok := range map[int]bool{-1: false, 0: false, 1: true} {
		if _, err := outside.Exec("INSERT INTO certificates (name, version, der) VALUES ('issuing', ?, x'00')", version); (err == nil) != ok {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

// TestSettings: the wait for other processes is in begin, see busyPoll.
func TestSettings(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "provost.db"))
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "0", "recursive_triggers": "1",
	} {
		var got string
		if err := s.writer.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v: want %s", pragma, got, err, want)
		}
	}
}

// TestPlans keeps every lookup on an index: a page costs what it returns, not
// what is stored.
func TestPlans(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "provost.db"))
	plan := func(query string, args ...any) string {
		rows, err := s.readers.Query("EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		defer rows.Close()
		var out strings.Builder
		for rows.Next() {
			var a, b, c, detail string
			if err := rows.Scan(&a, &b, &c, &detail); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&out, detail)
		}
		return out.String()
	}
	for name, test := range map[string]struct {
		q    attest.Query
		want string
	}{
		"any type":   {attest.Query{In: attest.Everywhere}, "SEARCH attested USING PRIMARY KEY (digest=? AND seq>?)"},
		"one type":   {attest.Query{In: attest.Everywhere, PredicateType: "t"}, "INDEX attested_by_type (digest=? AND predicate_type=? AND seq>?)"},
		"not a type": {attest.Query{In: attest.Everywhere, NotPredicateType: "t"}, "INDEX attested_by_type (digest=? AND predicate_type<?)"},
	} {
		query, args := attestedQuery(test.q)
		got := plan(query, args...)
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %s", name, got)
		}
		got = plan(withBundle+"WHERE a.seq IN (SELECT seq FROM ("+query+")) ORDER BY a.seq", args...)
		if strings.Contains(got, "SCAN a") || strings.Contains(got, "SCAN i") {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, q := range []string{
		"SELECT id FROM intents WHERE caller_issuer = ? AND caller_subject = ? AND idempotency_key = ? AND idempotency_key <> ''",
		"SELECT log_index FROM signed WHERE log = ? AND log <> '' ORDER BY log_index DESC LIMIT 1",
		"SELECT id FROM intents WHERE message = ?",
		"SELECT id FROM decisions WHERE artifact = ? ORDER BY seq DESC LIMIT 5",
		"SELECT id FROM decisions WHERE artifact = ? AND environment = ? ORDER BY seq DESC LIMIT 5",
	} {
		if got := plan(q, "", "", "")[:6]; got != "SEARCH" {
			t.Errorf("%s: %s", q, plan(q, "", "", ""))
		}
		if got := plan(q, "", "", ""); strings.Contains(got, "B-TREE") {
			t.Errorf("%s sorts: %s", q, got)
		}
	}
	for few, want := range map[bool]string{
		true:  "USING COVERING INDEX signed_by_time (signer=? AND signed_at>? AND signed_at<?)",
		false: "USING PRIMARY KEY (signer=? AND seq>?)",
	} {
		query, args := signedQuery(attest.SignedQuery{Limit: 1}, few)
		if got := plan(query, args...); !strings.Contains(got, want) || !few && strings.Contains(got, "B-TREE") {
			t.Errorf("signed by, few %t: %s", few, got)
		}
		got := plan(withoutBundle+"WHERE a.seq IN (SELECT seq FROM ("+query+")) ORDER BY a.seq", args...)
		for _, table := range []string{"SCAN a", "SCAN i", "SCAN g", "SCAN signed"} {
			if strings.Contains(got, table) {
				t.Errorf("signed by, few %t: %s", few, got)
			}
		}
	}
}

// TestBusy: the queue for the writer is bounded, and who is in it gets through.
func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	s := openTest(t, path)
	db := rawDB(t, path)
	mustExec(t, db, "BEGIN IMMEDIATE")
	const writers = 2000 // and writeLimits let 1024 wait beside a transaction's
	results := make(chan error, writers)
	for range writers {
		go func() {
			_, _, err := s.AppendIntent(t.Context(), testIntent("a"))
			results <- err
		}()
	}
	busy := 0
	for ; busy < writers-writeLimits.Waiting-writeLimits.Most; busy++ {
		err := <-results
		var b *attest.BusyError
		if !errors.As(err, &b) || b.RetryAfter() <= 0 {
			t.Fatalf("got %v: want a BusyError", err)
		}
	}
	mustExec(t, db, "ROLLBACK")
	stored := 0
	for range writers - busy {
		err := <-results
		var b *attest.BusyError
		switch {
		case err == nil:
			stored++
		case !errors.As(err, &b):
			t.Errorf("got %v: want a BusyError or nothing", err)
		}
	}
	if found, err := s.OpenIntents(t.Context(), writers); err != nil || len(found) != stored || stored < writeLimits.Waiting {
		t.Errorf("got %d intents, %v: want %d, and at least %d", len(found), err, stored, writeLimits.Waiting)
	}
}
