// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"

	"provost/attest"
)

// maxFile bounds a tile or bundle, in bytes.
func (l Layout) maxFile() int64 { return layout.EntryBundleWidth * int64(2+l.maxEntry()) }

// read reads a tile or bundle of a tree of that size. A partial one that is
// gone, or torn, is cut out of the full one, or of what that tree has. What
// cannot be had is an [ErrDamaged].
func (c *Config) read(p place, size uint64) ([]byte, error) {
	b, err := c.readFile(p)
	if err == nil || p.partial == 0 || !errors.Is(err, ErrDamaged) {
		return b, err
	}
	newest := partial(p.level, size)
	newest.bundle = p.bundle
	full := p
	full.partial = 0
	for _, larger := range []place{full, newest} {
		if larger.index != p.index || larger.partial != 0 && larger.partial <= p.partial {
			continue
		}
		if b, lerr := c.readFile(larger); lerr == nil {
			if !p.bundle {
				return b[:int(p.partial)*hashSize], nil
			}
			if _, _, n, lerr := c.Layout.split(b, int(p.partial)); lerr == nil {
				return b[:n], nil
			}
		}
	}
	return nil, err
}

func (c *Config) readFile(p place) ([]byte, error) {
	path := c.Layout.path(p)
	b, err := readBounded(filepath.Join(c.Dir, filepath.FromSlash(path)), c.Layout.maxFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, path)
	}
	if err != nil {
		return nil, err
	}
	n := int(p.partial)
	if n == 0 {
		n = layout.TileWidth
	}
	if p.bundle {
		if got, err := c.Layout.count(b); err != nil || got != n {
			return nil, fmt.Errorf("%w: %s is torn", ErrDamaged, path)
		}
	} else if len(b) != n*hashSize {
		return nil, fmt.Errorf("%w: %s is torn", ErrDamaged, path)
	}
	return b, nil
}

// Checkpoint reads the checkpoint that is public now. One that is not the
// log's own, or smaller than one that was read before, is an error.
func (l *Log) Checkpoint() (note []byte, size uint64, root []byte, err error) {
	cp, err := l.checkpoint()
	if err != nil {
		return nil, 0, nil, err
	}
	return cp.note, cp.size, cp.root, nil
}

func (l *Log) checkpoint() (*checkpoint, error) {
	last := l.public.Load() // before the file is read: it can only be older
	n, err := readBounded(filepath.Join(l.config.Dir, checkpointName), maxNote)
	if err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", attest.ErrUnavailable, err)
	}
	if last != nil && bytes.Equal(n, last.note) {
		return last, nil
	}
	cp, err := l.config.open(n)
	if err != nil {
		return nil, l.config.foreign("the checkpoint", n, err)
	}
	if last != nil && cp.size < last.size {
		return nil, fmt.Errorf("%w: the checkpoint is of size %d, and was of size %d", attest.ErrConflict, cp.size, last.size)
	}
	l.public.CompareAndSwap(last, &cp) // lost: there is a newer one
	return &cp, nil
}

// Entry reads an entry that is in the public tree. Another is an
// [attest.ErrNotFound].
func (l *Log) Entry(_ context.Context, index uint64) ([]byte, error) {
	cp, err := l.checkpoint()
	if err != nil {
		return nil, err
	}
	if index >= cp.size {
		return nil, fmt.Errorf("%w: log entry %d: the log has %d", attest.ErrNotFound, index, cp.size)
	}
	i := index / layout.EntryBundleWidth
	b, err := l.config.read(place{bundle: true, index: i, partial: layout.PartialTileSize(0, i, cp.size)}, cp.size)
	if err != nil {
		return nil, err
	}
	n := int(index % layout.EntryBundleWidth)
	entries, _, _, err := l.config.Layout.split(b, n+1)
	if err != nil {
		return nil, fmt.Errorf("%w: log entry %d: %w", ErrDamaged, index, err)
	}
	return entries[n], nil
}

// Prove proves that an entry is in the public tree, from the tiles. One that
// is not there is an [attest.ErrNotFound].
func (l *Log) Prove(ctx context.Context, index uint64) (Appended, error) {
	cp, err := l.checkpoint()
	if err != nil {
		return Appended{}, err
	}
	if index >= cp.size {
		return Appended{}, fmt.Errorf("%w: log entry %d: the log has %d", attest.ErrNotFound, index, cp.size)
	}
	b, err := client.NewProofBuilder(ctx, cp.size, fetcher{&l.config, cp}.ReadTile)
	if err != nil {
		return Appended{}, err
	}
	p, err := b.InclusionProof(ctx, index)
	if err != nil {
		return Appended{}, fmt.Errorf("prove log entry %d: %w", index, err)
	}
	return Appended{Index: index, Size: cp.size, Root: cp.root, Proof: p, Checkpoint: cp.note}, nil
}

// ConsistentWith returns nil if the public tree is an older one, grown. If it
// is smaller, or another, somebody put an old copy of the log back: an
// [attest.ErrConflict].
func (l *Log) ConsistentWith(ctx context.Context, size uint64, root []byte) error {
	cp, err := l.checkpoint()
	if err != nil {
		return err
	}
	if cp.size < size {
		return fmt.Errorf("%w: the log has %d entries and had %d: an older copy of it was put back. "+
			"Put the newest copy back, or close this log and create one with another origin", attest.ErrConflict, cp.size, size)
	}
	if size == 0 {
		return nil
	}
	var p [][]byte
	if size < cp.size {
		b, err := client.NewProofBuilder(ctx, cp.size, fetcher{&l.config, cp}.ReadTile)
		if err != nil {
			return err
		}
		if p, err = b.ConsistencyProof(ctx, size, cp.size); err != nil {
			return fmt.Errorf("prove consistency from %d to %d: %w", size, cp.size, err)
		}
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, size, cp.size, p, root, cp.root); err != nil {
		return fmt.Errorf("%w: the log of %d entries is not the one of %d, grown: an older copy of it was put back and appended to. "+
			"Put the newest copy back, or close this log and create one with another origin: %w", attest.ErrConflict, cp.size, size, err)
	}
	return nil
}

// Check reads the whole public log, and returns nil if every entry and tile is
// what the signed root says.
func (l *Log) Check(ctx context.Context) error {
	cp, err := l.checkpoint()
	if err != nil {
		return err
	}
	return l.config.check(ctx, *cp)
}

// check builds the tree anew from its entries, and compares.
func (c *Config) check(ctx context.Context, cp checkpoint) error {
	e := newEdge(c.Layout)
	for e.size < cp.size {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: check log: %w", attest.ErrUnavailable, err)
		}
		i := e.size / layout.EntryBundleWidth
		b, err := c.read(place{bundle: true, index: i, partial: layout.PartialTileSize(0, i, cp.size)}, cp.size)
		if err != nil {
			return err
		}
		entries, _, _, err := c.Layout.split(b, int(min(cp.size-e.size, layout.EntryBundleWidth)))
		if err != nil {
			return fmt.Errorf("%w: bundle %d: %w", ErrDamaged, i, err)
		}
		for j := range entries {
			entries[j] = c.Layout.frame(entries[j])
		}
		g, err := e.append(entries)
		if err != nil {
			return err
		}
		e = g.edge
		for _, f := range g.files {
			if f.bundle || f.partial > 0 && f.place != partial(f.level, cp.size) {
				continue // what it was made from, or a step on the way
			}
			b, err := c.read(f.place, cp.size)
			if err != nil {
				return err
			}
			if !bytes.Equal(b, f.data) {
				return fmt.Errorf("%w: %s is not what the entries come to", ErrDamaged, c.Layout.path(f.place))
			}
		}
	}
	if !bytes.Equal(e.root, cp.root) {
		return fmt.Errorf("%w: the entries come to root %x, the checkpoint of size %d says %x", ErrDamaged, e.root, cp.size, cp.root)
	}
	return nil
}

// A fetcher reads the log at one checkpoint, as tessera wants it.
type fetcher struct {
	*Config
	at *checkpoint
}

func (f fetcher) ReadCheckpoint(context.Context) ([]byte, error) { return f.at.note, nil }

func (f fetcher) ReadTile(_ context.Context, level, index uint64, p uint8) ([]byte, error) {
	return f.read(place{level: level, index: index, partial: p}, f.at.size)
}

func (f fetcher) ReadEntryBundle(_ context.Context, index uint64, p uint8) ([]byte, error) {
	return f.read(place{bundle: true, index: index, partial: p}, f.at.size)
}
