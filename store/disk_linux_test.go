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
	"syscall"
	"testing"

	"provost/attest"
)

// TestDiskFull fills a real file system, of a few megabytes, in a name space
// of its own.
func TestDiskFull(t *testing.T) { onSmallDisk(t, "disk-full") }

// TestDiskFullTogether does it with many writers in each transaction.
func TestDiskFullTogether(t *testing.T) { onSmallDisk(t, "disk-full-together") }

func onSmallDisk(t *testing.T, role string) {
	cmd := childCommand(t, role, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
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

var errNoMount = errors.New("cannot mount")

func childDiskFull(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	ctx := context.Background()
	path := filepath.Join(dir, "provost.db")
	s, err := OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	var acked []attest.Intent
	bundle := bytes.Repeat([]byte("b"), 10_000)
	add := func() error {
		in := testIntent("artifact")
		if _, _, err := s.AppendIntent(ctx, in); err != nil {
			return err
		}
		if _, err := s.AppendAttestation(ctx, testAttestation(in, bundle)); err != nil {
			return err
		}
		acked = append(acked, in)
		return nil
	}
	for err = add(); err == nil; err = add() {
	}
	first := err
	for failures := 0; failures < 50; { // room is found now and then; at last there is none
		if err := add(); err == nil {
			failures = 0
		} else if failures++; !errors.Is(err, attest.ErrUnavailable) {
			return fmt.Errorf("full: %w", err)
		}
	}
	// The last bytes, which no bundle fits in, so that Ready meets them too.
	rest, err := os.Create(filepath.Join(dir, "rest"))
	if err != nil {
		return err
	}
	for err == nil {
		_, err = rest.Write(bundle)
	}
	for failures := 0; failures < 50; {
		if err := s.Ready(ctx); err == nil {
			failures = 0
		} else if failures++; !errors.Is(err, attest.ErrUnavailable) {
			return fmt.Errorf("ready on a full disk: %w", err)
		}
	}
	fmt.Printf("%d attestations fit; then: %v; ready: %v\n", len(acked), first, s.Ready(ctx))
	check := func(when string) error {
		found, err := s.Attestations(ctx, attest.Query{In: attest.Everywhere, Artifact: acked[0].Subjects[0].SHA256, Limit: 10_000})
		if err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
		if len(found) != len(acked) {
			return fmt.Errorf("%s: %d attestations: want the %d acknowledged", when, len(found), len(acked))
		}
		for i, a := range found {
			if a.ID != acked[i].ID || !bytes.Equal(a.Bundle, bundle) {
				return fmt.Errorf("%s: attestation %d differs", when, i)
			}
		}
		return nil
	}
	if err := check("full"); err != nil {
		return err
	}
	// A restart on the full disk serves reads, and says that it is not ready.
	if err := s.Close(); err != nil {
		fmt.Println("close on a full disk:", err)
	}
	if s, err = OpenSQLite(ctx, path); err != nil {
		return err
	}
	if err := check("reopened while full"); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		return err
	}
	if err := s.Ready(ctx); err != nil {
		return fmt.Errorf("ready with space again: %w", err)
	}
	if err := add(); err != nil {
		return fmt.Errorf("add with space again: %w", err)
	}
	return errors.Join(check("with space again"), s.Close())
}

func childDiskFullTogether(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	ctx := context.Background()
	path := filepath.Join(dir, "provost.db")
	s, err := OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	acked, failed := map[string]bool{}, []error{}
	artifact := testIntent("artifact").Subjects[0].SHA256
	bundle := bytes.Repeat([]byte("b"), 10_000)
	write := func(writers, each int) {
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					in := testIntent("artifact")
					_, _, err := s.AppendIntent(ctx, in)
					if err == nil {
						_, err = s.AppendAttestation(ctx, testAttestation(in, bundle))
					}
					mu.Lock()
					if err != nil {
						failed = append(failed, err)
					} else {
						acked[in.ID] = true
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	check := func(when string) error {
		found, err := s.Attestations(ctx, attest.Query{In: attest.Everywhere, Artifact: artifact, Limit: 100_000})
		if err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
		for _, a := range found {
			if !acked[a.ID] {
				return fmt.Errorf("%s: an attestation is there that nobody was told of", when)
			}
		}
		n, err := s.Signatures(ctx, attest.PowerProvenance, 1)
		if len(found) != len(acked) || n != int64(len(acked)) || err != nil {
			return fmt.Errorf("%s: %d attestations, counted as %d, %v: want the %d acknowledged", when, len(found), n, err, len(acked))
		}
		return nil
	}
	write(64, 20)
	for _, err := range failed {
		if !errors.Is(err, attest.ErrUnavailable) {
			return fmt.Errorf("full: %w", err)
		}
	}
	if len(failed) == 0 {
		return errors.New("the disk did not fill")
	}
	fmt.Printf("%d attestations fit, %d writes were refused, such as: %v\n", len(acked), len(failed), failed[0])
	if err := check("full"); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		return err
	}
	failed = nil
	write(64, 2)
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("with space again: %w", err)
	}
	if err := errors.Join(check("with space again"), s.Close()); err != nil {
		return err
	}
	if s, err = OpenSQLite(ctx, path); err != nil {
		return err
	}
	return errors.Join(check("reopened"), s.Close())
}
