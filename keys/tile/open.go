// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"

	"provost/attest"
	"provost/attest/gather"
)

const (
	checkpointName = layout.CheckpointPath
	hashSize       = sha256.Size
)

// Create makes an empty log, with a checkpoint of size 0, in a directory that
// it makes too. A log that is there already it leaves as it is, if it is this
// one; another is an [attest.ErrConflict].
func Create(ctx context.Context, config Config) error {
	if err := config.complete(); err != nil {
		return err
	}
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	dir, err := os.Open(config.Dir)
	if err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	defer dir.Close()
	if err := lock(ctx, dir, config.LockTimeout); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	there, err := exists(config.Dir)
	if err == nil && !there {
		err = create(ctx, &config)
	}
	unlock(dir)
	if err != nil {
		return fmt.Errorf("create log in %s: %w", config.Dir, err)
	}
	if !there {
		return nil
	}
	l, err := Open(ctx, config)
	if err != nil {
		return err
	}
	return l.Close()
}

// exists reports whether there is anything of a log.
func exists(dir string) (bool, error) {
	for _, name := range []string{journalName, checkpointName, "tile"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// create writes the journal first: Open makes the checkpoint of it.
func create(ctx context.Context, config *Config) error {
	n, err := config.sign(ctx, 0, rfc6962.DefaultHasher.EmptyRoot())
	if err != nil {
		return err
	}
	if err := createJournal(config.Dir, n, nil); err != nil {
		return err
	}
	if err := write(config.Dir, checkpointName, n); err != nil {
		return err
	}
	return syncAll(config.Dir, []string{checkpointName})
}

// Open opens a log for appending, and puts in order what a crash left behind:
// it may have a checkpoint signed. It refuses, and says what to do, when there
// is no log ([attest.ErrNotFound]); when it is another one, or its checkpoint
// is older than what it had released ([attest.ErrConflict]); when a file is
// missing, torn or contradicts the signed root ([ErrDamaged]); and when the
// directory cannot be written.
func Open(ctx context.Context, config Config) (*Log, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	l, err := open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", config.Dir, err)
	}
	return l, nil
}

func open(ctx context.Context, config Config) (_ *Log, err error) {
	dir, err := os.Open(config.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no such directory: create the log, or mount its disk", attest.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	l := &Log{config: config, dir: dir}
	l.gather = gather.New("transparency log", gather.Limits{Most: maxBatch, Runs: 1, Waiting: config.Waiting, Linger: linger}, l.batch)
	defer func() {
		if err != nil {
			err = errors.Join(err, l.journal.close(), dir.Close())
		}
	}()
	if err := lock(ctx, dir, config.LockTimeout); err != nil {
		return nil, err
	}
	defer unlock(dir)
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	if err := l.load(ctx); err != nil {
		return nil, err
	}
	if err := l.readReleased(); err != nil {
		return nil, err
	}
	if err := l.journal.cut(); err != nil {
		return nil, err
	}
	// Written even when nothing changed, so that a directory which cannot be
	// written is found now.
	if err := write(config.Dir, checkpointName, l.released.note); err != nil {
		return nil, unwritable(err)
	}
	if err := l.writeUnwritten(); err != nil {
		return nil, err
	}
	if err := l.release(); err != nil {
		return nil, err
	}
	// A loss of power may have torn partial tiles between what the journal
	// starts from and what was just written.
	places(l.marks[0].size, l.edge.size, func(p place) {
		err = errors.Join(err, config.tidy(p, l.marks[0].size, l.edge.size))
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func unwritable(err error) error {
	return fmt.Errorf("the directory cannot be written: make it and its files writable for this user, or mount its disk read-write: %w", err)
}

// enter takes the lock and catches up with what other processes did. leave
// gives it back.
func (l *Log) enter() (leave func(), err error) {
	if err := lock(context.Background(), l.dir, l.config.LockTimeout); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.config.Timeout)
	defer cancel()
	if err := l.catchUp(ctx); err != nil {
		unlock(l.dir)
		return nil, fmt.Errorf("log %s: %w", l.config.Dir, err)
	}
	return func() { unlock(l.dir) }, nil
}

func (l *Log) catchUp(ctx context.Context) error {
	same, unchanged, err := l.journal.current(l.config.Dir)
	switch {
	case err != nil:
		return fmt.Errorf("%w: journal: %w", attest.ErrUnavailable, err)
	case !same:
		err = l.load(ctx)
	case !unchanged:
		err = l.journal.replay(l.replayed)
	}
	if err == nil {
		err = l.readReleased()
	}
	if err != nil {
		return err
	}
	if l.released.size == l.edge.size {
		clear(l.unwritten) // whoever released it had written it
	}
	return l.journal.cut()
}

// load reads everything anew but the checkpoint that is public.
func (l *Log) load(ctx context.Context) error {
	j, err := openJournal(l.config.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		j, err = l.remakeJournal(ctx)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return unwritable(err)
	}
	if err != nil {
		return err
	}
	base, err := l.config.open(j.base)
	if err != nil {
		return errors.Join(l.config.foreign("the journal", j.base, err), j.close())
	}
	e, err := loadEdge(l.config.Layout, base.size, base.root, func(p place) ([]byte, error) {
		return l.config.read(p, base.size)
	})
	if err != nil {
		return errors.Join(fmt.Errorf("%w: restore the tiles from a backup", err), j.close())
	}
	if err := l.journal.close(); err != nil {
		return errors.Join(err, j.close())
	}
	l.journal, l.edge, l.unwritten = j, e, make(map[place]file)
	l.marks = []mark{{size: base.size, root: base.root, end: j.end}}
	if l.released.note == nil {
		l.released = base
	}
	return j.replay(l.replayed)
}

// replayed takes a batch of the journal into the tree.
func (l *Log) replayed(r record) error {
	if r.first != l.edge.size {
		return fmt.Errorf("a record begins at entry %d: want %d", r.first, l.edge.size)
	}
	g, err := l.edge.append(r.framed)
	if err != nil {
		return err
	}
	if !bytes.Equal(g.root, r.root) {
		return errors.New("the entries of a record do not come to its root")
	}
	l.adopt(g, r.end)
	return nil
}

// readReleased reads the checkpoint that is public, and holds it against the
// journal. One that is missing, empty or zeros was lost with the power: then the last
// that we know is put back, which for a log that is being opened is the one
// that the journal starts from.
func (l *Log) readReleased() error {
	n, err := readBounded(filepath.Join(l.config.Dir, checkpointName), maxNote)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: checkpoint: %w", attest.ErrUnavailable, err)
	}
	if len(bytes.Trim(n, "\x00")) == 0 {
		n = l.released.note
		if err := write(l.config.Dir, checkpointName, n); err != nil {
			return fmt.Errorf("%w: checkpoint: %w", attest.ErrUnavailable, err)
		}
	}
	if bytes.Equal(n, l.released.note) && l.hasMark(l.released) {
		return nil
	}
	cp, err := l.config.open(n)
	if err != nil {
		return l.config.foreign("the checkpoint", n, err)
	}
	switch {
	case cp.size < l.marks[0].size || cp.size < l.released.size:
		return fmt.Errorf("%w: the checkpoint is of size %d, and this log had released one of size %d: a backup was put back. "+
			"Going on would fork the log. Put the newest copy of the whole directory back, or close this log and create one with another origin",
			attest.ErrConflict, cp.size, max(l.marks[0].size, l.released.size))
	case cp.size > l.edge.size:
		return fmt.Errorf("%w: the checkpoint is of size %d, the journal ends at %d: journal and tiles are from an older backup. "+
			"Put the newest copy of the whole directory back, or close this log and create one with another origin",
			ErrDamaged, cp.size, l.edge.size)
	case !l.hasMark(cp):
		return fmt.Errorf("%w: the checkpoint of size %d has a root that the journal does not come to: "+
			"put the newest copy of the whole directory back, or close this log and create one with another origin", ErrDamaged, cp.size)
	}
	l.released = cp
	return nil
}

// hasMark reports whether the journal comes to the tree of a checkpoint.
func (l *Log) hasMark(cp checkpoint) bool {
	i, found := slices.BinarySearchFunc(l.marks, cp.size, func(m mark, size uint64) int {
		switch {
		case m.size < size:
			return -1
		case m.size > size:
			return 1
		}
		return 0
	})
	return found && bytes.Equal(l.marks[i].root, cp.root)
}

// foreign is the refusal of a checkpoint that is not the log's own.
func (c *Config) foreign(what string, n []byte, err error) error {
	origin, _, _ := bytes.Cut(n, []byte("\n"))
	if len(origin) <= 200 && string(origin) != c.Origin {
		return fmt.Errorf("%w: %s is of the log %q, the configuration says %q: correct the directory or the origin", attest.ErrConflict, what, origin, c.Origin)
	}
	return fmt.Errorf("%w: %s: %w: put it back from a backup, or configure the key that it was signed with", ErrDamaged, what, err)
}

// remakeJournal makes a journal for a log that has none, if its every tile and
// entry is there: it was restored without the files whose names begin with a
// dot.
func (l *Log) remakeJournal(ctx context.Context) (*journal, error) {
	n, err := readBounded(filepath.Join(l.config.Dir, checkpointName), maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the directory has neither checkpoint nor journal: create the log, or put its backup back", attest.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	cp, err := l.config.open(n)
	if err != nil {
		return nil, l.config.foreign("the checkpoint", n, err)
	}
	if err := l.config.check(ctx, cp); err != nil {
		return nil, fmt.Errorf("%w: the journal is missing, and the rest is not whole: put the newest copy of the whole directory back", err)
	}
	if err := l.config.sync(0, cp.size); err != nil {
		return nil, err
	}
	if err := createJournal(l.config.Dir, n, nil); err != nil {
		return nil, err
	}
	return openJournal(l.config.Dir)
}

// Close waits for the batch that is being appended, makes everything durable
// and closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	closing := l.closing
	l.closing = true
	l.mu.Unlock()
	if closing {
		return nil
	}
	l.flushes.Wait()
	err := l.flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, l.journal.close(), l.dir.Close())
}
