// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"provost/attest"
)

// The tests of this file run this test binary again, as a child that can be
// killed or that has fewer rights. childEnv says what the child does, and to
// which database.
const childEnv = "PROVOST_STORE_CHILD"

func TestMain(m *testing.M) {
	role, path, _ := strings.Cut(os.Getenv(childEnv), " ")
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "append":
		err = childAppend(path, 4)
	case "append-200":
		err = childAppend(path, 200)
	case "read-only":
		err = childReadOnly(path)
	case "disk-full-together":
		err = childDiskFullTogether(path)
	case "disk-full":
		err = childDiskFull(path)
	default:
		err = fmt.Errorf("no such role: %s", role)
	}
	if err != nil {
		fmt.Println("child:", err)
		os.Exit(1)
	}
}

// childCommand runs the binary through /proc where there is one: there it can
// be reached without rights on the directories above it.
func childCommand(t *testing.T, role, path string) *exec.Cmd {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		binary = "/proc/self/exe"
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(os.Environ(), childEnv+"="+role+" "+path)
	return cmd
}

// runChild runs the role as an ordinary user: root is not stopped by modes.
func runChild(t *testing.T, role, path string) {
	t.Helper()
	cmd := childCommand(t, role, path)
	if os.Geteuid() == 0 {
		const nobody = 65534
		for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{path, filepath.Dir(path)} {
			if err := os.Chown(name, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", role, err, out)
	}
}

// TestKill kills a process that writes, as hard as can be, and expects
// everything that it had acknowledged. It shows that nothing acknowledged
// lives in the process; that it is also on the disk follows from
// synchronous=FULL, which TestSettings holds.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	acked := map[string]string{} // id → bundle, "" for an intent
	for _, kill := range []struct {
		role string
		acks int
	}{{"append", 1}, {"append", 50}, {"append-200", 1}, {"append-200", 150}, {"append-200", 1000}, {"append-200", 2000}} {
		cmd := childCommand(t, kill.role, path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == kill.acks { // and go on reading what it said before it died
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			word, rest, _ := strings.Cut(lines.Text(), " ")
			id, bundle, _ := strings.Cut(rest, " ")
			switch word {
			case "intent":
				acked[id] = ""
			case "attestation":
				acked[id] = bundle
			default:
				t.Fatalf("the child said %q", lines.Text())
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v", err)
		}
	}

	s := openTest(t, path)
	intents, err := s.OpenIntents(t.Context(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]bool{}
	for _, in := range intents {
		open[in.ID] = true
	}
	attestations := 0
	for id, bundle := range acked {
		a, err := s.Attestation(t.Context(), id)
		switch {
		case bundle != "" && (err != nil || string(a.Bundle) != bundle):
			t.Errorf("attestation %s was acknowledged: got %q, %v: want %q", id, a.Bundle, err, bundle)
		case bundle == "" && err != nil && !open[id]:
			t.Errorf("intent %s was acknowledged and is gone", id)
		}
		if bundle != "" {
			attestations++
		}
	}
	t.Logf("%d attestations and %d more intents were acknowledged; %d intents are open", attestations, len(acked)-attestations, len(intents))
	released, err := s.Signatures(t.Context(), attest.PowerProvenance, 1)
	if err != nil {
		t.Fatal(err)
	}
	var stored int64
	if err := s.readers.QueryRow("SELECT count(1) FROM attestations").Scan(&stored); err != nil || stored != released {
		t.Errorf("%d attestations, %v, are counted as %d", stored, err, released)
	}
	checkAudit(t, s, acked)
	var health string
	if err := s.readers.QueryRow("PRAGMA integrity_check").Scan(&health); err != nil || health != "ok" {
		t.Errorf("integrity check: %s, %v", health, err)
	}
}

// checkAudit fails the test unless the audit log is one chain that has what was
// acknowledged, and every intent that there is once.
func checkAudit(t *testing.T, s *SQLite, acked ...map[string]string) {
	t.Helper()
	records, err := s.AuditRecords(t.Context(), 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.VerifyAudit(records, attest.AuditHead{}); err != nil {
		t.Error(err)
	}
	audited := map[string]bool{}
	for _, r := range records {
		audited[r.Object] = true
	}
	for _, ids := range acked {
		for id := range ids {
			if !audited[id] {
				t.Errorf("intent %s was acknowledged and has no audit record", id)
			}
		}
	}
	var intents int
	if err := s.readers.QueryRow("SELECT count(1) FROM intents").Scan(&intents); err != nil || intents != len(records) || intents != len(audited) {
		t.Errorf("%d intents, %v, and %d audit records of %d", intents, err, len(records), len(audited))
	}
}

// TestTwoProcesses: two processes at full load both get to write, and nothing
// that either was told is lost.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	openTest(t, path)
	var acked [2]map[string]string // id → bundle
	var wg sync.WaitGroup
	for i := range acked {
		acked[i] = map[string]string{}
		cmd := childCommand(t, "append-200", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				word, rest, _ := strings.Cut(lines.Text(), " ")
				if word == "child:" {
					t.Error(lines.Text())
				}
				if word == "attestation" {
					id, bundle, _ := strings.Cut(rest, " ")
					acked[i][id] = bundle
				}
				if len(acked[i]) == 400 {
					_ = cmd.Process.Kill() // the other one goes on; it may be gone by itself
				}
			}
			_ = cmd.Wait() // killed
		})
	}
	wg.Wait()
	s := openTest(t, path)
	checkAudit(t, s, acked[0], acked[1])
	for i, ids := range acked {
		if len(ids) < 400 {
			t.Errorf("process %d was told of %d attestations only", i, len(ids))
		}
		for id := range ids {
			if _, err := s.Attestation(t.Context(), id); err != nil {
				t.Errorf("process %d was told of attestation %s: %v", i, id, err)
			}
		}
	}
}

// TestLeaseOfProcesses: of several stores on one file, one gets the lease.
func TestLeaseOfProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	var granted atomic.Int32
	var wg sync.WaitGroup
	now := time.Now()
	for i := range 6 {
		s := openTest(t, path)
		wg.Go(func() {
			ok, err := s.Claim(t.Context(), "rotate provenance", fmt.Sprint("replica ", i), now, now.Add(time.Minute))
			if err != nil {
				t.Error(err)
			}
			if ok {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if granted.Load() != 1 {
		t.Errorf("%d were granted one lease", granted.Load())
	}
}

// childAppend appends from several goroutines for ever, and says what was
// acknowledged.
func childAppend(path string, writers int) error {
	ctx := context.Background()
	s, err := OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	var mu sync.Mutex // a line is one write, but let it not depend on that
	say := func(words ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(words...)
	}
	failed := make(chan error)
	for range writers {
		go func() {
			for {
				in := testIntent("artifact")
				r := attest.Caller{}.Allowed("attest.provenance", in.ID, time.Unix(0, 0))
				in.Audit = &r
				if _, _, err := s.AppendIntent(ctx, in); err != nil {
					failed <- err
				}
				say("intent", in.ID)
				bundle := "bundle-of-" + in.ID
				if _, err := s.AppendAttestation(ctx, testAttestation(in, []byte(bundle))); err != nil {
					failed <- err
				}
				say("attestation", in.ID, bundle)
			}
		}()
	}
	return <-failed
}
