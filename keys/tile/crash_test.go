// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"provost/attest"
)

// The test binary is its own child: PROVOST_TILE_CHILD says what to do.
func TestMain(m *testing.M) {
	child := os.Getenv("PROVOST_TILE_CHILD")
	if child == "" {
		os.Exit(m.Run())
	}
	var err error
	switch what, arg, _ := strings.Cut(child, " "); what {
	case "append":
		err = childAppend(arg)
	case "disk":
		err = childDisk()
	default:
		err = fmt.Errorf("no child %q", child)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// childCommand runs the test binary as a child on a log.
func childCommand(t *testing.T, what, dir, private, public string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROVOST_TILE_CHILD="+what, "PROVOST_TILE_DIR="+dir, "PROVOST_TILE_PRIVATE="+private, "PROVOST_TILE_PUBLIC="+public)
	return cmd
}

func childConfig() (Config, error) {
	return configOf(os.Getenv("PROVOST_TILE_DIR"), os.Getenv("PROVOST_TILE_PRIVATE"), os.Getenv("PROVOST_TILE_PUBLIC"))
}

// childAppend appends from 8 callers and prints what was acknowledged, until
// it is killed: by the parent, or by itself at the nth time of a stage.
func childAppend(arg string) error {
	c, err := childConfig()
	if err != nil {
		return err
	}
	c.flushAt = 5_000
	stage, nth, _ := strings.Cut(arg, " ")
	if n, err := strconv.ParseInt(nth, 10, 64); err == nil {
		var times atomic.Int64
		c.at = func(s string) {
			if s == stage && times.Add(1) == n {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	}
	l, err := Open(context.Background(), c)
	if err != nil {
		return err
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := 0; ; k++ {
				s := fmt.Sprintf("%d of %d in %d", k, i, os.Getpid())
				a, err := l.Append(context.Background(), data(s))
				if err != nil {
					fmt.Println("error", err)
					return
				}
				out.Lock()
				fmt.Printf("acked %d %d %s %s\n", a.Index, a.Size, base64.StdEncoding.EncodeToString(a.Root), s)
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

// A process that is killed, at each stage of a batch and of a flush and at any
// time, loses nothing that it acknowledged, and never shows two trees of one
// size.
func TestKill(t *testing.T) {
	private, public := testKey(t)
	dir := t.TempDir()
	c, err := configOf(dir, private, public)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var kills []string
	for _, stage := range []string{"journal", "journalled", "tile", "signed", "released", "synced", "flushed", "torn"} {
		for _, nth := range []int{1, 3} {
			kills = append(kills, fmt.Sprint(stage, " ", nth))
		}
	}
	for range 10 {
		kills = append(kills, "")
	}
	entries := map[uint64]string{} // acknowledged
	roots := map[uint64]string{}   // released, by size
	for i, kill := range kills {
		acked := 0
		cmd := childCommand(t, "append "+kill, dir, private, public)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		if kill == "" || strings.HasPrefix(kill, "torn") {
			stop.Reset(time.Duration(20+rand.IntN(200)) * time.Millisecond)
		}
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			line := lines.Text()
			var index, size uint64
			var root string
			if _, err := fmt.Sscanf(line, "acked %d %d %s", &index, &size, &root); err != nil {
				if strings.HasPrefix(line, "acked") { // cut short by the kill
					continue
				}
				t.Fatalf("killed at %q: %s", kill, line)
			}
			fields := strings.SplitN(line, " ", 5)
			if len(fields) < 5 {
				continue
			}
			if was, ok := roots[size]; ok && was != root {
				t.Errorf("two trees of size %d were released", size)
			}
			if was, ok := entries[index]; ok {
				t.Errorf("entry %d was acknowledged twice: %q, %q", index, was, fields[4])
			}
			entries[index], roots[size] = fields[4], root
			acked++
		}
		_ = cmd.Wait()
		stop.Stop()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("killed at %q: %v", kill, cmd.ProcessState)
		}
		if strings.HasPrefix(kill, "torn") { // as a loss of power would leave a record that was being written
			tear(t, dir, kill == "torn 1")
		}
		fsckLog(t, c, dir) // as the public sees it, before anybody tidies up
		l, err := Open(t.Context(), c)
		if err != nil {
			t.Fatalf("killed at %q: %v", kill, err)
		}
		if err := l.Check(t.Context()); err != nil {
			t.Errorf("killed at %q: %v", kill, err)
		}
		for index, entry := range entries {
			if got, err := l.Entry(t.Context(), index); err != nil || string(got) != entry {
				t.Fatalf("killed at %q: entry %d is %q, %v: want %q", kill, index, got, err, entry)
			}
		}
		for size, root := range roots {
			b, _ := base64.StdEncoding.DecodeString(root)
			if err := l.ConsistentWith(t.Context(), size, b); err != nil {
				t.Fatalf("killed at %q: %v", kill, err)
			}
		}
		if i%2 == 0 { // half of the children find a journal as Open leaves it, half a new one
			err = l.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		fsckLog(t, c, dir)
		t.Logf("killed at %-14q %4d acknowledged", kill, acked)
	}
	if len(entries) < 100 {
		t.Errorf("only %d entries were acknowledged", len(entries))
	}
}

// tear puts the beginning of a record at the journal's end, or zeros.
func tear(t *testing.T, dir string, zeros bool) {
	t.Helper()
	f, err := os.OpenFile(dir+"/"+journalName, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte{0, 0, 1, 0}, bytes.Repeat([]byte("torn"), 20)...)
	if zeros {
		b = make([]byte, 5000)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

var errNoMount = errors.New("cannot mount")

// TestDisk fills a real file system and makes one read-only, in a name space
// of its own.
func TestDisk(t *testing.T) {
	private, public := testKey(t)
	cmd := childCommand(t, "disk", t.TempDir(), private, public)
	namespace(cmd)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && cmd.ProcessState == nil, strings.Contains(string(out), errNoMount.Error()):
		t.Skipf("this machine gives no name spaces: %v %s", err, out)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
}

func childDisk() error {
	ctx := context.Background()
	c, err := childConfig()
	if err != nil {
		return err
	}
	if err := mount(c.Dir, false, "size=1m"); err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	c.flushAt = 100_000
	if err := Create(ctx, c); err != nil {
		return err
	}
	l, err := Open(ctx, c)
	if err != nil {
		return err
	}
	acked := map[uint64]string{}
	add := func() error {
		s := fmt.Sprint(len(acked), strings.Repeat(" entry", 300))
		a, err := l.Append(ctx, data(s))
		if err == nil {
			acked[a.Index] = s
		}
		return err
	}
	check := func(when string) error {
		for index, s := range acked {
			if got, err := l.Entry(ctx, index); err != nil || string(got) != s {
				return fmt.Errorf("%s: entry %d: %q, %w", when, index, got, err)
			}
		}
		if err := l.Check(ctx); err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
		return nil
	}
	for err = add(); err == nil; err = add() {
	}
	first := err
	for failures := 0; failures < 30; { // room is found now and then; at last there is none
		if err := add(); err == nil {
			failures = 0
		} else if failures++; !errors.Is(err, attest.ErrUnavailable) {
			return fmt.Errorf("full: %w", err)
		}
	}
	fmt.Printf("%d entries fit; then: %v\n", len(acked), first)
	if err := check("full"); err != nil {
		return err
	}
	if err := mount(c.Dir, true, "size=100m"); err != nil {
		return err
	}
	for range 300 {
		if err := add(); err != nil {
			return fmt.Errorf("with space again: %w", err)
		}
	}
	if err := errors.Join(check("with space again"), l.Close()); err != nil {
		return err
	}
	if err := mount(c.Dir, true, "ro"); err != nil {
		return err
	}
	_, err = Open(ctx, c)
	if err == nil || !strings.Contains(err.Error(), "read-write") {
		return fmt.Errorf("open a read-only directory: %w", err)
	}
	fmt.Println("read-only:", err)
	if err := mount(c.Dir, true, "rw"); err != nil {
		return err
	}
	if l, err = Open(ctx, c); err != nil {
		return err
	}
	return errors.Join(check("writable again"), l.Close())
}
