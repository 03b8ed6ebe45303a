// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"provost/attest"
)

// Each case spoils a closed log of 300 entries, whose journal is empty, or a
// killed one, whose journal has the last 10.
func TestOpenRefuses(t *testing.T) {
	const journal, bundle, tile0, tile1 = journalName, "tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"
	for _, tc := range []struct {
		name   string
		killed bool
		spoil  func(t *testing.T, s spoiler)
		want   error
		words  string
	}{
		{"a tile is missing", false, func(t *testing.T, s spoiler) { s.remove(tile0) }, ErrDamaged, "tile/0/001.p/44 is missing: restore"},
		{"a higher tile is missing", false, func(t *testing.T, s spoiler) { s.remove(tile1) }, ErrDamaged, "tile/1/000.p/1 is missing: restore"},
		{"a bundle is missing", false, func(t *testing.T, s spoiler) { s.remove(bundle) }, ErrDamaged, "001.p/44 is missing: restore"},
		{"a tile is torn", false, func(t *testing.T, s spoiler) { s.truncate(tile0, 100) }, ErrDamaged, "is torn: restore"},
		{"a tile is empty", false, func(t *testing.T, s spoiler) { s.truncate(tile0, 0) }, ErrDamaged, "is torn: restore"},
		{"a bundle is torn", false, func(t *testing.T, s spoiler) { s.truncate(bundle, 100) }, ErrDamaged, "is torn: restore"},
		{"a tile has another hash", false, func(t *testing.T, s spoiler) { s.flip(tile0, 5) }, ErrDamaged, "hash to root"},
		{"a higher tile has another hash", false, func(t *testing.T, s spoiler) { s.flip(tile1, 5) }, ErrDamaged, "hash to root"},
		{"a bundle has another entry", false, func(t *testing.T, s spoiler) { s.flip(bundle, 5) }, ErrDamaged, "not those of the tile"},
		{"the checkpoint has another root", false, func(t *testing.T, s spoiler) { s.flip(checkpointName, len(testOrigin)+10) }, ErrDamaged, "does not carry the log's signature"},
		{"the checkpoint is older", false, func(t *testing.T, s spoiler) { s.write(checkpointName, s.old) }, attest.ErrConflict, "a backup was put back"},
		{"the checkpoint is older, of a killed log", true, func(t *testing.T, s spoiler) { s.write(checkpointName, s.old) }, attest.ErrConflict, "a backup was put back"},
		{"all but the checkpoint is older", false, func(t *testing.T, s spoiler) { s.restore(); s.write(checkpointName, s.newest) }, ErrDamaged, "from an older backup"},
		{"another checkpoint of that size is signed", false, func(t *testing.T, s spoiler) { s.write(checkpointName, s.forged) }, ErrDamaged, "a root that the journal does not come to"},
		{"the journal is no journal", false, func(t *testing.T, s spoiler) { s.write(journal, []byte("hello")) }, ErrDamaged, "not a journal"},
		{"the journal is empty", false, func(t *testing.T, s spoiler) { s.truncate(journal, 0) }, ErrDamaged, "not a journal"},
		{"the journal's checkpoint is torn", false, func(t *testing.T, s spoiler) { s.truncate(journal, 60) }, ErrDamaged, "ends within"},
		{"the journal lost what was released", true, func(t *testing.T, s spoiler) { s.truncate(journal, -30) }, ErrDamaged, "from an older backup"},
		{"an entry in the journal is another", true, func(t *testing.T, s spoiler) { s.flip(journal, s.firstRecord+50) }, ErrDamaged, "do not come to its root"},
		{"the journal and a tile are missing", false, func(t *testing.T, s spoiler) { s.remove(journal); s.remove("tile/0/000") }, ErrDamaged, "tile/0/000 is missing"},
		{"checkpoint and journal are missing", false, func(t *testing.T, s spoiler) { s.remove(journal); s.remove(checkpointName) }, attest.ErrNotFound, "create the log"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSpoiler(t, tc.killed)
			tc.spoil(t, s)
			l, err := Open(t.Context(), s.c)
			if err == nil {
				_ = l.Close()
			}
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("%v\nwant %v with %q", err, tc.want, tc.words)
			}
		})
	}
	t.Run("another origin", func(t *testing.T) {
		s := newSpoiler(t, false)
		for _, n := range []string{journalName, checkpointName} {
			b := s.read(n)
			s.write(n, bytes.ReplaceAll(b, []byte("\n"+testOrigin+"\n"), []byte("\nlog.example.net\n")))
		}
		s.write(checkpointName, bytes.Replace(s.read(checkpointName), []byte(testOrigin), []byte("log.example.net"), 1))
		b := s.read(journalName)
		i := bytes.Index(b, []byte(testOrigin))
		copy(b[i:], "log.example.xxx"[:len(testOrigin)])
		s.write(journalName, b)
		if _, err := Open(t.Context(), s.c); !errors.Is(err, attest.ErrConflict) || !strings.Contains(err.Error(), "correct the directory or the origin") {
			t.Error(err)
		}
	})
}

// What a crash can leave is put in order.
func TestOpenRepairs(t *testing.T) {
	for _, tc := range []struct {
		name   string
		killed bool
		spoil  func(s spoiler)
	}{
		{"nothing", false, func(spoiler) {}},
		{"a killed one", true, func(spoiler) {}},
		{"the checkpoint is missing", true, func(s spoiler) { s.remove(checkpointName) }},
		{"the checkpoint is empty", true, func(s spoiler) { s.truncate(checkpointName, 0) }},
		{"tiles since the last flush are empty", true, func(s spoiler) {
			for _, f := range []string{"tile/0/001.p/44", "tile/entries/001.p/44", "tile/0/001.p/40", "tile/entries/001.p/43"} {
				s.truncate(f, 0)
			}
		}},
		{"tiles since the last flush are missing", true, func(s spoiler) { s.remove("tile/0/001.p/44"); s.remove("tile/entries/001.p/44") }},
		{"the journal is missing, and all else is there", false, func(s spoiler) { s.remove(journalName) }},
		{"a half-written file is there", true, func(s spoiler) { s.write(tempName, []byte("half")) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSpoiler(t, tc.killed)
			tc.spoil(s)
			l, err := Open(t.Context(), s.c)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if _, size, _, err := l.Checkpoint(); err != nil || size != 300 {
				t.Errorf("size %d, %v: want 300", size, err)
			}
			for _, p := range []place{{index: 1, partial: 40}, {bundle: true, index: 1, partial: 43}} {
				if _, err := l.config.read(p, 300); err != nil {
					t.Error(err)
				}
			}
			mustAppend(t, l, "after")
			if err := l.Check(t.Context()); err != nil {
				t.Error(err)
			}
			fsckLog(t, s.c, s.c.Dir)
		})
	}
}

// A backup of the whole directory looks like a log. Who knows of a later
// checkpoint finds out, also when it was appended to since.
func TestConsistentWith(t *testing.T) {
	s := newSpoiler(t, false)
	newest, err := s.c.open(s.newest)
	if err != nil {
		t.Fatal(err)
	}
	s.restore()
	l, err := Open(t.Context(), s.c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.ConsistentWith(t.Context(), newest.size, newest.root); !errors.Is(err, attest.ErrConflict) || !strings.Contains(err.Error(), "an older copy of it was put back") {
		t.Error(err)
	}
	appendMany(t, l, 300)
	if err := l.ConsistentWith(t.Context(), newest.size, newest.root); !errors.Is(err, attest.ErrConflict) || !strings.Contains(err.Error(), "appended to") {
		t.Error(err)
	}
	old, err := s.c.open(s.old)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.ConsistentWith(t.Context(), old.size, old.root), l.ConsistentWith(t.Context(), 0, nil)); err != nil {
		t.Error(err)
	}
}

// A checkpoint that is replaced under an open log stops it.
func TestReplacedWhileOpen(t *testing.T) {
	s := newSpoiler(t, false)
	l, err := Open(t.Context(), s.c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mustAppend(t, l, "one")
	good := s.read(checkpointName)
	s.write(checkpointName, s.old)
	if _, err := l.Append(t.Context(), data("two")); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("append: %v", err)
	}
	if _, _, _, err := l.Checkpoint(); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("checkpoint: %v", err)
	}
	s.write(checkpointName, good)
	mustAppend(t, l, "two")
}

// A spoiler does to a log what it is told.
type spoiler struct {
	t           *testing.T
	c           Config
	old         []byte // the checkpoint of size 200
	newest      []byte // the checkpoint of size 300
	forged      []byte // another checkpoint of size 300, with the log's signature
	backup      string // of size 200
	firstRecord int    // where the journal's first record begins
}

func newSpoiler(t *testing.T, killed bool) spoiler {
	t.Helper()
	s := spoiler{t: t, c: testConfig(t, filepath.Join(t.TempDir(), "log"))}
	l := openTest(t, s.c)
	appendMany(t, l, 200)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.old = s.read(checkpointName)
	s.backup = s.c.Dir + ".backup"
	if err := exec.Command("cp", "-a", s.c.Dir, s.backup).Run(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, s.c)
	appendMany(t, l, 90)
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	s.firstRecord = int(l.journal.end)
	for range 10 {
		mustAppend(t, l, "last")
	}
	if !killed {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	} else { // what Close would do is left undone
		l.mu.Lock()
		l.closing = true
		if err := errors.Join(l.journal.close(), l.dir.Close()); err != nil {
			t.Fatal(err)
		}
		l.mu.Unlock()
	}
	s.newest = s.read(checkpointName)
	forged, err := s.c.sign(context.Background(), 300, bytes.Repeat([]byte{7}, hashSize))
	if err != nil {
		t.Fatal(err)
	}
	s.forged = forged
	return s
}

func (s spoiler) path(name string) string { return filepath.Join(s.c.Dir, name) }

func (s spoiler) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s spoiler) write(name string, b []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), b, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s spoiler) remove(name string) {
	s.t.Helper()
	if err := os.Remove(s.path(name)); err != nil {
		s.t.Fatal(err)
	}
}

// truncate cuts a file to n bytes, or by -n.
func (s spoiler) truncate(name string, n int) {
	s.t.Helper()
	b := s.read(name)
	if n < 0 {
		n += len(b)
	}
	s.write(name, b[:n])
}

func (s spoiler) flip(name string, at int) {
	s.t.Helper()
	b := s.read(name)
	b[at] ^= 1
	s.write(name, b)
}

// restore puts the backup back.
func (s spoiler) restore() {
	s.t.Helper()
	if err := errors.Join(os.RemoveAll(s.c.Dir), os.Rename(s.backup, s.c.Dir)); err != nil {
		s.t.Fatal(err)
	}
}
