// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"provost/attest"
)

func TestFileMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "odd name ?#% ü.db")
	check := func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s has mode %v, %v: want 0600", e.Name(), info.Mode(), err)
			}
		}
		if len(entries) != 3 {
			t.Errorf("got %v: want the database, its WAL and its index", entries)
		}
	}
	s := openTest(t, path)
	fillTables(t, s)
	check()
	for _, suffix := range []string{"", "-wal", "-shm"} { // as a volume does to files it finds
		if err := os.Chmod(path+suffix, 0o664); err != nil {
			t.Fatal(err)
		}
	}
	openTest(t, path)
	check()
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer")
	func() {
		s := openTest(t, newer)
		mustExec(t, s.writer.DB, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	foreign := filepath.Join(dir, "foreign")
	func() {
		db := rawDB(t, foreign)
		mustExec(t, db, "CREATE TABLE other (x)")
		db.Close()
	}()
	tagged := filepath.Join(dir, "tagged")
	func() {
		db := rawDB(t, tagged)
		mustExec(t, db, "PRAGMA application_id = 7")
		db.Close()
	}()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		newer:                              "it needs a newer build",
		foreign:                            "a database of another program",
		tagged:                             "a database of another program",
		garbage:                            "not a database",
		filepath.Join(dir, "missing", "x"): "no such file or directory",
		dir:                                "not a regular file",
	} {
		before, _ := os.ReadFile(path)
		s, err := OpenSQLite(t.Context(), path)
		if err == nil {
			s.Close()
			t.Errorf("%s: it was opened", path)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("%s: %v: want %q", path, err, want)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: it was changed", path)
		}
	}
}

func TestOpenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s, err := OpenSQLite(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, _, err := s.AppendIntent(t.Context(), testIntent(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	found, err := openTest(t, path).OpenIntents(t.Context(), 99)
	if err != nil || len(found) != 8 {
		t.Errorf("got %d intents, %v: want 8", len(found), err)
	}
}

// TestCorrupt: damage must never look like "there is none", nor like something
// that passes.
func TestCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	s := openTest(t, path)
	var ids []string
	artifact := testIntent("artifact").Subjects[0].SHA256
	for range 20 {
		in := testIntent("artifact")
		ids = append(ids, in.ID)
		if _, _, err := s.AppendIntent(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendAttestation(t.Context(), testAttestation(in, bytes.Repeat([]byte("b"), 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	met := 0
	for damaged := 0; damaged < len(whole)/page; damaged++ {
		file := bytes.Clone(whole)
		for i := range page {
			file[damaged*page+i] = 0xa5
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		check := func(what string, err error) {
			if err == nil {
				return
			}
			met++
			for _, kind := range []error{attest.ErrInvalid, attest.ErrNotFound, attest.ErrConflict, attest.ErrUnavailable} {
				if errors.Is(err, kind) {
					t.Errorf("page %d: %s: %v", damaged, what, err)
				}
			}
		}
		s, err := OpenSQLite(t.Context(), path)
		if err != nil {
			check("open", err)
			continue
		}
		for _, id := range ids {
			_, err := s.Attestation(t.Context(), id)
			check("attestation", err)
		}
		found, err := s.Attestations(t.Context(), attest.Query{Artifact: artifact, Limit: 99})
		check("attestations", err)
		if err == nil && len(found) != len(ids) {
			t.Errorf("page %d: got %d attestations: want all or an error", damaged, len(found))
		}
		_, _, err = s.AppendIntent(t.Context(), testIntent("other"))
		check("append intent", err)
		s.Close()
	}
	if met < 100 {
		t.Errorf("met only %d errors: is the damage where the data is?", met)
	}
}

// TestReadOnly: a file that its owner has protected is not opened, and a store
// that turns read-only says so.
func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	s := openTest(t, path)
	mustExec(t, s.writer.DB, "PRAGMA query_only = 1") // SQLITE_READONLY for every write
	if err := s.Ready(t.Context()); !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("ready: %v: want unavailable, read-only", err)
	}
	if _, _, err := s.AppendIntent(t.Context(), testIntent("a")); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("append intent: %v: want unavailable", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	runChild(t, "read-only", path)
}

// childReadOnly opens the protected file as somebody whom modes stop.
func childReadOnly(path string) error {
	s, err := OpenSQLite(context.Background(), path)
	if err == nil {
		s.Close()
		return errors.New("it was opened")
	}
	if !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "read-only") {
		return fmt.Errorf("%w: want read-only", err)
	}
	return nil
}

// TestErrorsNameNoPath: what may leave the machine does not say where the
// database is.
func TestErrorsNameNoPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret-place.db")
	s := openTest(t, path)
	s.readers.SetMaxIdleConns(0) // the next read opens the file again
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := s.Attestation(t.Context(), "x")
	if !errors.Is(err, attest.ErrUnavailable) || strings.Contains(err.Error(), "secret-place") {
		t.Errorf("got %v: want unavailable, without the path", err)
	}
}
