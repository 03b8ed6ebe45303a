// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
)

func newIdentity(t testing.TB) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func openFile(t testing.TB, dir, identity string) *keys.File {
	t.Helper()
	f, err := keys.OpenFile(dir, identity)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFile(t *testing.T) {
	keystest.Backend(t, func(t *testing.T) keystest.Full {
		return openFile(t, filepath.Join(t.TempDir(), "keys"), newIdentity(t))
	})
}

func TestFileSurvivesReopening(t *testing.T) {
	dir, identity := filepath.Join(t.TempDir(), "a", "keys"), newIdentity(t)
	f := openFile(t, dir, identity)
	if err := errors.Join(f.Create(t.Context(), "verdict"), f.Rotate(t.Context(), "verdict")); err != nil {
		t.Fatal(err)
	}
	before, err := f.Versions(t.Context(), "verdict")
	if err != nil {
		t.Fatal(err)
	}
	after, err := openFile(t, dir, "# created: today\n# public key: age1…\n"+identity+"\n").Versions(t.Context(), "verdict")
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if !before[i].Public.Equal(after[i].Public) || !before[i].Created.Equal(after[i].Created) {
			t.Errorf("version %d changed", i+1)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: mode %v, %v", info.Mode(), err)
	}
	for _, e := range entries(t, dir) {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(string(data), "age-encryption.org/v1\n") {
			t.Errorf("%s is not an age file (%v)", e.Name(), err)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	at := func(dir, name string) string { return filepath.Join(dir, name) }
	for _, test := range []struct {
		name     string
		damage   func(t *testing.T, dir string)
		identity string
		want     error
		words    string
	}{
		{name: "another identity", identity: newIdentity(t), words: "another age identity"},
		{name: "no identity", identity: "AGE-SECRET-KEY-1NONSENSE", want: attest.ErrInvalid, words: "AGE-SECRET-KEY-1"},
		{name: "two identities", identity: newIdentity(t) + "\n" + newIdentity(t), want: attest.ErrInvalid, words: "found 2"},
		{name: "an empty identity", identity: "\n", want: attest.ErrInvalid, words: "found 0"},
		{name: "a directory that the group can enter", want: keys.ErrDegraded, words: "mode 0710", damage: func(t *testing.T, dir string) {
			check(t, os.Chmod(dir, 0o710))
		}},
		{name: "a file that others can read", want: keys.ErrDegraded, words: "mode 0604", damage: func(t *testing.T, dir string) {
			check(t, os.Chmod(at(dir, "verdict.v1.age"), 0o604))
		}},
		{name: "a truncated file", words: "damaged", damage: func(t *testing.T, dir string) {
			info, err := os.Stat(at(dir, "verdict.v1.age"))
			check(t, err)
			check(t, os.Truncate(at(dir, "verdict.v1.age"), info.Size()-1))
		}},
		{name: "an empty file", words: "damaged", damage: func(t *testing.T, dir string) {
			check(t, os.Truncate(at(dir, "verdict.v1.age"), 0))
		}},
		{name: "a changed byte", words: "damaged", damage: func(t *testing.T, dir string) {
			data, err := os.ReadFile(at(dir, "verdict.v1.age"))
			check(t, err)
			data[len(data)-20] ^= 1
			check(t, os.WriteFile(at(dir, "verdict.v1.age"), data, 0o600))
		}},
		{name: "two files swapped", words: "renamed or copied", damage: func(t *testing.T, dir string) {
			check(t, os.Rename(at(dir, "verdict.v1.age"), at(dir, "x")))
			check(t, os.Rename(at(dir, "verdict.v2.age"), at(dir, "verdict.v1.age")))
			check(t, os.Rename(at(dir, "x"), at(dir, "verdict.v2.age")))
		}},
		{name: "one key's file under another's name", words: "renamed or copied", damage: func(t *testing.T, dir string) {
			check(t, os.Link(at(dir, "verdict.v1.age"), at(dir, "provenance.v1.age")))
		}},
		{name: "a directory in a file's place", want: keys.ErrDegraded, words: "not a regular file", damage: func(t *testing.T, dir string) {
			check(t, os.Mkdir(at(dir, "provenance.v1.age"), 0o700))
		}},
		{name: "an endless file", want: keys.ErrDegraded, words: "more than", damage: func(t *testing.T, dir string) {
			check(t, os.Truncate(at(dir, "verdict.v1.age"), 1<<40))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, identity := filepath.Join(t.TempDir(), "keys"), newIdentity(t)
			f := openFile(t, dir, identity)
			check(t, errors.Join(f.Create(t.Context(), "verdict"), f.Rotate(t.Context(), "verdict")))
			if test.damage != nil {
				test.damage(t, dir)
			}
			if test.identity != "" {
				identity = test.identity
			}
			f, err := keys.OpenFile(dir, identity)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.words)
			}
			if f != nil || err != nil && strings.Contains(err.Error(), strings.TrimSpace(identity)) && strings.TrimSpace(identity) != "" {
				t.Errorf("got a backend, or the identity in the error: %v", err)
			}
		})
	}
}

// TestFileProcesses has two processes' worth of backends rotate the same key
// at once. No version is lost or made twice.
func TestFileProcesses(t *testing.T) {
	dir, identity := filepath.Join(t.TempDir(), "keys"), newIdentity(t)
	var wg sync.WaitGroup
	const processes, rotations = 4, 10
	for range processes {
		f := openFile(t, dir, identity)
		wg.Go(func() {
			if err := f.Create(t.Context(), "verdict"); err != nil {
				t.Error(err)
			}
			for range rotations {
				if err := f.Rotate(t.Context(), "verdict"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all, err := openFile(t, dir, identity).Versions(t.Context(), "verdict")
	if err != nil || len(all) != 1+processes*rotations || all[len(all)-1].Number != len(all) {
		t.Errorf("got %d versions, want %d (%v)", len(all), 1+processes*rotations, err)
	}
	for _, e := range entries(t, dir) {
		if !strings.HasSuffix(e.Name(), ".age") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// TestFileKill kills a process again and again while it rotates. Every version
// that it said it made is there, and every file is whole.
func TestFileKill(t *testing.T) {
	if dir := os.Getenv("KEYS_TEST_ROTATE_DIR"); dir != "" {
		rotateForEver(t, dir, os.Getenv("KEYS_TEST_ROTATE_IDENTITY"))
	}
	dir, identity := filepath.Join(t.TempDir(), "keys"), newIdentity(t)
	check(t, openFile(t, dir, identity).Create(t.Context(), "verdict"))
	for kill := range 20 {
		child := exec.Command(os.Args[0], "-test.run=^TestFileKill$")
		child.Env = append(os.Environ(), "KEYS_TEST_ROTATE_DIR="+dir, "KEYS_TEST_ROTATE_IDENTITY="+identity)
		out, err := child.StdoutPipe()
		check(t, err)
		check(t, child.Start())
		said := 0
		lines := bufio.NewScanner(out)
		for n := 0; n <= kill%5 && lines.Scan(); n++ { // each time after another number of rotations
			if _, err := fmt.Sscanf(lines.Text(), "made %d", &said); err != nil {
				t.Fatalf("child says %q", lines.Text())
			}
		}
		// Somewhere within the next rotation; where, is up to the scheduler.
		for end := time.Now().Add(time.Duration(kill*97) * time.Microsecond); time.Now().Before(end); {
		}
		check(t, child.Process.Kill())
		_ = child.Wait() // killed

		f := openFile(t, dir, identity) // reads every file
		all, err := f.Versions(t.Context(), "verdict")
		if err != nil || all[len(all)-1].Number < said || len(all) != all[len(all)-1].Number {
			t.Fatalf("kill %d: %d versions, the child made %d (%v)", kill, len(all), said, err)
		}
		if _, err := f.Sign(t.Context(), "verdict", len(all), make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
	}
}

func rotateForEver(t *testing.T, dir, identity string) {
	f := openFile(t, dir, identity)
	for {
		check(t, f.Rotate(t.Context(), "verdict"))
		all, err := f.Versions(t.Context(), "verdict")
		check(t, err)
		fmt.Printf("made %d\n", len(all))
	}
}

// TestFileRemovesStale: what a killed process left is removed once it is old,
// and left alone while another process may be at it.
func TestFileRemovesStale(t *testing.T) {
	dir, identity := filepath.Join(t.TempDir(), "keys"), newIdentity(t)
	openFile(t, dir, identity)
	for _, name := range []string{".new-old", ".new-young"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	old := time.Now().Add(-2 * time.Hour)
	check(t, os.Chtimes(filepath.Join(dir, ".new-old"), old, old))
	openFile(t, dir, identity)
	if left := entries(t, dir); len(left) != 1 || left[0].Name() != ".new-young" {
		t.Errorf("left: %v", left)
	}
}

func entries(t *testing.T, dir string) []fs.DirEntry {
	t.Helper()
	all, err := os.ReadDir(dir)
	check(t, err)
	return all
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
