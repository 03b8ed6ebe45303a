// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package tile is an append-only Merkle tree in a directory, in the layout of
// c2sp.org/tlog-tiles (or of c2sp.org/static-ct-api), which any web server and
// any client of such logs can read.
//
// Concurrent callers share a batch, and a lone one waits for nobody. The life
// of a batch, under the directory's lock:
//
//	journal: the entries, and the root that the tree has with them · fsync
//	sign the checkpoint                    while tiles and bundles are written
//	collect cosignatures, if there are witnesses
//	rename the checkpoint into place       now it is public
//	answer every caller with its index, proof and checkpoint
//
// Tiles are made durable later, many at a time; then the journal begins anew.
// Until then it has all that they have.
//
// Invariants:
//
//   - Two different trees of one size are never signed: what is journalled
//     stays in the tree, and nothing is signed before it is durable.
//   - A checkpoint that was released, to a caller or to the public, is covered
//     by entries and tiles that survive kill -9 and a loss of power. (After a
//     loss of power the public may see an earlier one until Open returns.)
//   - A batch that could not be signed, cosigned or written releases nothing.
//     Its entries may be in the tree; the next batch releases them first, and
//     fails before it appends anything if it cannot.
//   - What is on disk is believed only as far as the log's own signature
//     covers it: the right edge, which everything is appended to, must hash to
//     the root of a checkpoint that carries it.
//   - Any number of processes may append to one directory, on one machine.
package tile

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/tessera"
	"golang.org/x/mod/sumdb/note"

	"provost/attest"
	"provost/attest/gather"
)

// ErrDamaged: the directory is not what a log can be continued from. It does
// not pass by itself; the words say what to do.
var ErrDamaged = errors.New("log is damaged")

// Config says what a log is. Dir, Origin, Sign and Verifier are needed.
type Config struct {
	Dir    string
	Origin string // the first line of the checkpoint, and the name of its signature
	Layout Layout
	// Sign makes a signed note of a checkpoint's body. It must honour its
	// context; an error that may pass should wrap [attest.ErrUnavailable].
	Sign func(ctx context.Context, body []byte) (note []byte, err error)
	// Verifier knows the log's own signature. What Sign returns and what is on
	// disk must carry it.
	Verifier note.Verifier
	// Witnesses must cosign a checkpoint before it is released; nil for none.
	// Too few cosignatures fail the batch.
	Witnesses *tessera.WitnessGroup
	// WitnessClient reaches them; nil for a client of the package's own.
	WitnessClient *http.Client
	// Timeout bounds waiting for Sign and for the witnesses, each; 0 for 30 s.
	// Callers have limits of their own and do not wait as long. It goes on while
	// the process is paused: a batch should outlive that.
	Timeout time.Duration
	// LockTimeout bounds waiting for the lock; 0 for twice the Timeout. Who
	// holds it may be waiting for Sign and the witnesses, or be paused; when it
	// is killed the lock is free.
	LockTimeout time.Duration
	// Waiting is how many callers may wait for a batch; 0 for 4096.
	Waiting int

	flushAt int64              // how long the journal may grow; for tests
	at      func(stage string) // tells tests where a batch is
}

// Bounds of a batch and of the journal.
const (
	maxBatch       = 256
	linger         = 8 * time.Millisecond
	defaultFlush   = 16 << 20
	maxJournal     = 16 // times flushAt: then nothing is appended until it can be flushed
	defaultTimeout = 30 * time.Second
	defaultWaiting = 4096
)

func (c *Config) complete() error {
	if c.Dir == "" || c.Origin == "" || c.Sign == nil || c.Verifier == nil {
		return fmt.Errorf("%w: log: directory, origin, signer and verifier are needed", attest.ErrInvalid)
	}
	if c.Verifier.Name() != c.Origin {
		return fmt.Errorf("%w: log: the verifier is named %q, the origin is %q", attest.ErrInvalid, c.Verifier.Name(), c.Origin)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.LockTimeout <= 0 {
		c.LockTimeout = 2 * c.Timeout
	}
	if c.Waiting <= 0 {
		c.Waiting = defaultWaiting
	}
	if c.flushAt <= 0 {
		c.flushAt = defaultFlush
	}
	if c.at == nil {
		c.at = func(string) {}
	}
	if c.WitnessClient == nil {
		c.WitnessClient = newWitnessClient()
	}
	return nil
}

// An Entry makes the data of an entry for the index that it gets. It may be
// called more than once. (An [Entries] log wants just the data; LeafData of
// tessera's ctonly.Entry makes that of a [Certificates] log.)
type Entry func(index uint64) []byte

// Appended proves that an entry is in the log.
type Appended struct {
	Index      uint64
	Size       uint64 // of the tree of the checkpoint
	Root       []byte
	Proof      [][]byte
	Checkpoint []byte // the signed note, with cosignatures
}

// A Log is open for appending. It is safe for concurrent use.
type Log struct {
	config Config
	dir    *os.File // carries the lock
	gather *gather.Gatherer[Entry, Appended]
	public atomic.Pointer[checkpoint] // the newest that was read, see Checkpoint

	mu        sync.Mutex // guards what follows; it is held by who holds the lock, too
	closing   bool
	journal   *journal
	marks     []mark         // ends of batches in the journal, ascending; the first is what it starts from
	edge      *edge          // with everything in the journal
	unwritten map[place]file // newest of each tile (partial 0) since the last release
	full      []place        // tiles that became full since then, and are written
	released  checkpoint

	flushing atomic.Bool
	flushes  sync.WaitGroup
	flushErr error // of the last flush
}

// A checkpoint is a signed note, and what it says.
type checkpoint struct {
	note []byte
	size uint64
	root []byte
}

// A mark is the end of a batch: what a checkpoint can be of.
type mark struct {
	size uint64
	root []byte
	end  int64 // in the journal
}

// Append appends an entry, and returns when the checkpoint that covers it is
// durable and public. When it fails, the entry may be in the log nevertheless.
// When too many wait already it is an [attest.BusyError].
func (l *Log) Append(ctx context.Context, e Entry) (Appended, error) {
	return l.gather.Call(ctx, e)
}

// batch is the life of a batch. It goes on when its callers have left: what is
// journalled is better released now than by the next.
func (l *Log) batch(_ context.Context, entries []Entry) []gather.Result[Appended] {
	results := make([]gather.Result[Appended], len(entries))
	g, indexes, err := l.grow(entries, results)
	for i := range results {
		r := &results[i]
		if r.Err != nil { // it was refused alone
			continue
		}
		if r.Err = err; err != nil {
			continue
		}
		r.Out = Appended{Index: indexes[i], Size: g.size, Root: g.root, Checkpoint: g.checkpoint}
		if r.Out.Proof, r.Err = g.inclusion(indexes[i]); r.Err != nil {
			r.Out = Appended{}
		}
	}
	return results
}

// A grown tree, and its checkpoint.
type grown struct {
	*growth
	checkpoint []byte
}

// grow appends entries and releases them. Entries that are refused get their
// error in results; an error that it returns is for all others.
func (l *Log) grow(entries []Entry, results []gather.Result[Appended]) (*grown, []uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return nil, nil, fmt.Errorf("%w: the log is closed", attest.ErrUnavailable)
	}
	leave, err := l.enter()
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	if l.flushErr != nil && l.journal.end > maxJournal*l.config.flushAt {
		l.startFlush()
		return nil, nil, fmt.Errorf("%w: the log's journal is full and cannot be flushed: %w", attest.ErrUnavailable, l.flushErr)
	}
	if err := l.release(); err != nil { // what the last batch left behind
		return nil, nil, err
	}
	first := l.edge.size
	indexes := make([]uint64, len(entries))
	var framed [][]byte
	for i, e := range entries {
		indexes[i] = first + uint64(len(framed))
		data := e(indexes[i])
		if most := l.config.Layout.maxEntry(); len(data) > most {
			results[i].Err = &attest.LimitError{What: "log entry", Limit: int64(most), Unit: "bytes"}
			continue
		}
		f := l.config.Layout.frame(data)
		if n, err := l.config.Layout.count(f); err != nil || n != 1 {
			results[i].Err = fmt.Errorf("%w: log entry: not of the log's layout", attest.ErrInvalid)
			continue
		}
		framed = append(framed, f)
	}
	if len(framed) == 0 {
		return nil, nil, nil
	}
	g, err := l.edge.append(framed)
	if err != nil {
		return nil, nil, err
	}
	l.config.at("journal")
	if err := l.journal.append(encodeRecord(first, g, framed)); err != nil {
		return nil, nil, fmt.Errorf("%w: journal: %w", attest.ErrUnavailable, err)
	}
	l.adopt(g, l.journal.end)
	l.config.at("journalled")
	if err := l.release(); err != nil {
		return nil, nil, err
	}
	if l.journal.end > l.config.flushAt {
		l.startFlush()
	}
	return &grown{growth: g, checkpoint: l.released.note}, indexes, nil
}

// adopt takes on a tree whose entries the journal has.
func (l *Log) adopt(g *growth, end int64) {
	l.edge = g.edge
	for _, f := range g.files {
		tile := f.place
		tile.partial = 0
		l.unwritten[tile] = f
	}
	l.marks = append(l.marks, mark{size: g.size, root: g.root, end: end})
}

// release writes, signs and publishes what the journal has and the checkpoint
// has not. When it fails nothing was released, and it can be called again.
func (l *Log) release() error {
	if l.released.size == l.edge.size {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.config.Timeout)
	defer cancel()
	type signed struct {
		note []byte
		err  error
	}
	signature := make(chan signed, 1)
	size, root := l.edge.size, l.edge.root
	go func() {
		n, err := l.config.sign(ctx, size, root)
		signature <- signed{n, err}
	}()
	werr := l.writeUnwritten()
	var s signed
	select {
	case s = <-signature:
	case <-ctx.Done(): // a signature that comes later is thrown away
		s.err = fmt.Errorf("%w: sign checkpoint of size %d: %w", attest.ErrUnavailable, size, ctx.Err())
	}
	l.config.at("signed")
	if s.err != nil {
		return s.err
	}
	if werr != nil {
		return werr
	}
	cp := checkpoint{note: s.note, size: size, root: root}
	if l.config.Witnesses != nil {
		var err error
		if cp.note, err = l.cosign(cp); err != nil {
			return err
		}
		l.config.at("cosigned")
	}
	if err := write(l.config.Dir, checkpointName, cp.note); err != nil {
		return fmt.Errorf("%w: checkpoint: %w", attest.ErrUnavailable, err)
	}
	l.released = cp
	l.public.Store(&cp)
	l.config.at("released")
	// The partial tiles of a full one take much room: they go now, but for
	// those that the journal starts from. What fails here, a flush does later.
	for _, p := range l.full {
		_ = l.config.tidy(p, l.marks[0].size)
	}
	l.full = nil
	return nil
}

func (l *Log) writeUnwritten() error {
	for tile, f := range l.unwritten {
		if err := write(l.config.Dir, l.config.Layout.path(f.place), f.data); err != nil {
			return fmt.Errorf("%w: write tile: %w", attest.ErrUnavailable, err)
		}
		delete(l.unwritten, tile)
		if f.partial == 0 {
			l.full = append(l.full, tile)
		}
		l.config.at("tile")
	}
	return nil
}

// sign has a checkpoint signed, and sees that it is what will be believed when
// it is read again.
func (c *Config) sign(ctx context.Context, size uint64, root []byte) ([]byte, error) {
	body := formats.Checkpoint{Origin: c.Origin, Size: size, Hash: root}.Marshal()
	n, err := c.Sign(ctx, body)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of size %d: %w", size, err)
	}
	opened, err := c.open(n)
	if err != nil {
		return nil, fmt.Errorf("%w: checkpoint of size %d: %w", attest.ErrSelfCheck, size, err)
	}
	if opened.size != size || string(opened.root) != string(root) {
		return nil, fmt.Errorf("%w: checkpoint of size %d: another one was signed", attest.ErrSelfCheck, size)
	}
	return n, nil
}

var errUnsigned = errors.New("does not carry the log's signature")

// open reads a checkpoint that carries the log's signature.
func (c *Config) open(n []byte) (checkpoint, error) {
	if len(n) > maxNote {
		return checkpoint{}, fmt.Errorf("more than %d bytes", maxNote)
	}
	cp, _, _, err := formats.ParseCheckpoint(n, c.Origin, c.Verifier)
	if err != nil {
		return checkpoint{}, fmt.Errorf("%w: %w", errUnsigned, err)
	}
	if len(cp.Hash) != hashSize {
		return checkpoint{}, errors.New("its root is not a SHA-256")
	}
	return checkpoint{note: n, size: cp.Size, root: cp.Hash}, nil
}
