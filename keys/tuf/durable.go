// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"provost/attest"
)

// tempPrefix starts the names of files that are being written; they are never
// served.
const tempPrefix = ".new-"

// lockName is the file that writers lock.
const lockName = ".lock"

// lockEvery is how often a lock that another process has is tried again.
const lockEvery = 20 * time.Millisecond

// lock makes its caller the only writer of the directory, among all processes
// of this machine, until unlock is called or the process ends. A directory on
// a network file system must support flock(2).
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("%w: another process writes %s: %w", attest.ErrUnavailable, dir, ctx.Err())
		case <-time.After(lockEvery):
		}
	}
}

// temporary writes data to a new file beside path and makes it durable. The
// caller must remove it, or give it its name.
func temporary(path string, data []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// writeOnce writes a file that never changes, whole or not at all, durable
// when it returns nil. A file that is there with the same content is fine;
// with another, it is an [attest.ErrConflict] and stays.
func writeOnce(path string, data []byte) error {
	temp, err := temporary(path, data, 0o644)
	if err != nil {
		return err
	}
	err = os.Link(temp, path)
	if errors.Is(err, fs.ErrExist) {
		var there []byte
		if there, err = readBounded(path, int64(len(data))); err != nil || !bytes.Equal(there, data) {
			err = fmt.Errorf("%w: %s is there with another content", attest.ErrConflict, filepath.Base(path))
		}
	}
	// The directory is synced in either case: whoever wrote the same may have
	// been killed before.
	return errors.Join(err, os.Remove(temp), syncDirectory(filepath.Dir(path)))
}

// replace writes a file over what has its name. Readers and a kill at any
// point find the whole old or the whole new one.
func replace(path string, data []byte, mode fs.FileMode) error {
	temp, err := temporary(path, data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeStale removes what killed writers left behind. The caller has the
// lock, so nobody is at it.
func removeStale(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// readBounded reads a regular file of at most max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", attest.ErrInvalid, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", attest.ErrInvalid, path, max)
	}
	return data, nil
}
