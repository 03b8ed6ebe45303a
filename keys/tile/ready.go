// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"provost/attest"
)

// probeName is what Ready writes: about as much as a batch needs. Processes
// that ask at the same time share it, for nobody reads it.
const (
	probeName = ".ready"
	probeSize = 16 << 10
)

// Ready reports whether entries could be written now: whether the public
// checkpoint is this log's, and the directory takes a file. It waits for no
// batch. What may pass is an [attest.ErrUnavailable].
func (l *Log) Ready() error {
	if _, err := l.checkpoint(); err != nil {
		return fmt.Errorf("log %s: %w", l.config.Dir, err)
	}
	path := filepath.Join(l.config.Dir, probeName)
	err := writeTemp(path, make([]byte, probeSize), true)
	if removed := os.Remove(path); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	if err != nil { // closed: what cannot be written cannot be logged
		return fmt.Errorf("%w: log %s cannot be written: %w", attest.ErrUnavailable, l.config.Dir, err)
	}
	return nil
}
