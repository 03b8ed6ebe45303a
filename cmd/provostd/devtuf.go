// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"provost/attest"
	"provost/keys/tuf"
)

// devOfflineKeys is how many offline keys the development repository has; all
// of them sign.
const devOfflineKeys = 2

// devTUF publishes the trust root of the development service: at the first
// start, and at each one after which it has changed or lasts less than half
// its time. The "offline" keys are in the data directory, and new authorities
// are used at once: what a real service never does.
func devTUF(ctx context.Context, c Config, s *service, data string) error {
	var offline []crypto.Signer
	for i := range devOfflineKeys {
		key, err := devOfflineKey(filepath.Join(data, fmt.Sprintf("tuf-offline-%d.key", i+1)))
		if err != nil {
			return err
		}
		offline = append(offline, key)
	}
	repository, err := tuf.Open(tuf.Config{
		Directory: c.TUF.Directory, WithoutLeadUnsafe: true, SnapshotExpiry: c.TUF.SnapshotExpiry, TimestampExpiry: c.TUF.TimestampExpiry,
		Online: func(ctx context.Context) ([]crypto.Signer, error) { return onlineSigners(ctx, s.backend, tufKey) },
	})
	if err != nil {
		return err
	}
	trusted, err := toPublish(c, s.authority.ToPublish(), tuf.KeepNew)
	if err != nil {
		return err
	}
	files, err := tufFiles(ctx, c, s.store, trusted)
	if err != nil {
		return err
	}
	now := time.Now()
	change := tuf.Change{Files: files}
	status, err := repository.Status()
	switch {
	case errors.Is(err, attest.ErrNotFound):
		change.Threshold = devOfflineKeys
		for _, key := range offline {
			change.Add = append(change.Add, key.Public())
		}
	case err != nil:
		return err
	default:
		published, err := repository.Targets()
		if err != nil {
			return err
		}
		root, targets := status.Roles[0], status.Roles[1]
		change.NewRoot = root.Expires.Sub(now) < tuf.DefaultRootExpiry/2
		if !change.NewRoot && targets.Expires.Sub(now) > tuf.DefaultTargetsExpiry/2 && maps.EqualFunc(files, published, bytes.Equal) {
			return repository.Refresh(ctx, now)
		}
	}
	staged, err := repository.Stage(ctx, now, change)
	if err != nil {
		return err
	}
	for _, key := range offline {
		if _, err := staged.Sign(key); err != nil {
			return err
		}
	}
	return repository.Publish(ctx, now, staged)
}

// devOfflineKey reads the key in a file, or makes one.
func devOfflineKey(path string) (crypto.Signer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if raw, _, err = tuf.GenerateKey(""); err == nil {
			err = writeFile(path, raw)
		}
	}
	if err != nil {
		return nil, err
	}
	return tuf.OpenKey(raw, "")
}
