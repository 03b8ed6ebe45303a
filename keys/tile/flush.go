// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/transparency-dev/tessera/api/layout"
)

// A flush makes durable what the journal alone holds, and begins the journal
// anew, from the checkpoint that is released then. The slow part of it, to
// sync the files, runs beside the batches:
//
//	sync tiles and bundles up to a checkpoint          no lock: these do not change
//	new journal: that checkpoint, and what came since  under the lock
//	remove partial tiles whose full tile is durable

func (l *Log) startFlush() {
	if !l.flushing.CompareAndSwap(false, true) {
		return
	}
	l.flushes.Go(func() {
		defer l.flushing.Store(false)
		err := l.flush()
		l.mu.Lock()
		l.flushErr = err
		l.mu.Unlock()
	})
}

// flush does nothing if another process has begun a journal meanwhile.
func (l *Log) flush() error {
	l.mu.Lock()
	journal, from, to := l.journal, l.marks[0].size, l.released
	l.mu.Unlock()
	if from == to.size {
		return nil
	}
	syncErr := l.config.sync(from, to.size)
	l.config.at("synced")

	l.mu.Lock()
	defer l.mu.Unlock()
	leave, err := l.enter()
	if err != nil {
		return err
	}
	defer leave()
	if l.journal != journal { // another process flushed, and may have removed what was to be synced
		return nil
	}
	if syncErr != nil {
		return fmt.Errorf("flush log: %w", syncErr)
	}
	if err := l.renew(to); err != nil {
		return fmt.Errorf("flush log: %w", err)
	}
	l.config.at("flushed")
	return l.config.collect(from, to.size)
}

// renew begins the journal anew from a checkpoint.
func (l *Log) renew(from checkpoint) error {
	// The checkpoint in the directory must never be older than the journal's.
	if err := syncPath(filepath.Join(l.config.Dir, checkpointName)); err != nil {
		return err
	}
	i := 0
	for l.marks[i].size != from.size {
		i++
	}
	cut := l.marks[i].end
	records, err := l.journal.records(cut)
	if err != nil {
		return err
	}
	if err := createJournal(l.config.Dir, from.note, records); err != nil {
		return err
	}
	// If this fails, the next batch finds that the journal is another file.
	j, err := openJournal(l.config.Dir)
	if err != nil {
		return err
	}
	shift := j.end - cut
	j.end += int64(len(records))
	err = l.journal.close()
	l.journal, l.marks = j, append([]mark(nil), l.marks[i:]...)
	for i := range l.marks {
		l.marks[i].end += shift
	}
	return err
}

// places calls do for the tiles and bundles that a tree of size to has and one
// of size from has not.
func places(from, to uint64, do func(place)) {
	for level := uint64(0); to>>(level*layout.TileHeight) > 0; level++ {
		first, last := from>>(level*layout.TileHeight), to>>(level*layout.TileHeight)
		if first == last {
			continue
		}
		add := func(p place) {
			do(p)
			if level == 0 {
				p.bundle = true
				do(p)
			}
		}
		for i := first / layout.TileWidth; i < last/layout.TileWidth; i++ {
			add(place{level: level, index: i})
		}
		if p := partial(level, to); p.partial > 0 {
			add(p)
		}
	}
}

// sync makes durable what a tree has more than a smaller one.
func (c *Config) sync(from, to uint64) error {
	var paths []string
	places(from, to, func(p place) { paths = append(paths, c.Layout.path(p)) })
	return syncAll(c.Dir, paths)
}

// tidy removes partial tiles of one tile, but those of these sizes of the
// tree. Readers get the others cut out of what is there.
func (c *Config) tidy(p place, keep ...uint64) error {
	p.partial = 0
	dir := filepath.Join(c.Dir, filepath.FromSlash(c.Layout.path(p))) + ".p"
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		kept := slices.ContainsFunc(keep, func(size uint64) bool {
			q := partial(p.level, size)
			return q.index == p.index && strconv.Itoa(int(q.partial)) == f.Name()
		})
		if !kept {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}

// collect removes the partial tiles of tiles that are full, and durable.
func (c *Config) collect(from, to uint64) error {
	var first error
	places(from, to, func(p place) {
		if p.partial > 0 {
			return
		}
		path := filepath.Join(c.Dir, filepath.FromSlash(c.Layout.path(p)))
		if err := os.RemoveAll(path + ".p"); err != nil && first == nil {
			first = err
		}
	})
	return first
}
