// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"provost/attest"
)

// tempName is where a file is written before it gets its name. One is enough:
// only who holds the lock writes. What a killed process left there is
// overwritten.
const tempName = ".new"

// lock takes the directory's lock, which the processes that append share. It
// waits no longer than ctx and that long, and ends with the process.
func lock(ctx context.Context, dir *os.File, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("%w: lock %s: %w", attest.ErrUnavailable, dir.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: lock %s: another process has held it for long: %w", attest.ErrUnavailable, dir.Name(), ctx.Err())
		case <-time.After(200 * time.Microsecond):
		}
	}
}

func unlock(dir *os.File) {
	// It fails only for a file that is closed, and then the lock is gone.
	_ = syscall.Flock(int(dir.Fd()), syscall.LOCK_UN)
}

func writeTemp(path string, data []byte, durable bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// write gives a file its content at once, or not at all. It is not durable:
// the journal is.
func write(root, path string, data []byte) error {
	temp, path := filepath.Join(root, tempName), filepath.Join(root, filepath.FromSlash(path))
	if err := writeTemp(temp, data, false); err != nil {
		return err
	}
	err := os.Rename(temp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.Rename(temp, path)
		}
	}
	return err
}

// syncPath makes a file durable, or the names in a directory.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncAll makes files durable with their names, and the directories above
// them up to root.
func syncAll(root string, paths []string) error {
	dirs := map[string]bool{root: true}
	for _, path := range paths {
		path = filepath.Join(root, filepath.FromSlash(path))
		if err := syncPath(path); err != nil {
			return err
		}
		for dir := filepath.Dir(path); !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		if err := syncPath(dir); err != nil {
			return err
		}
	}
	return nil
}

// readBounded reads a file of at most that many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrDamaged, path, most)
	}
	return b, err
}
