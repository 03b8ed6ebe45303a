// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"provost/attest"
	"provost/attest/gather"
)

// writeLimits bound the writers of one process. A transaction of 256 is
// committed within tens of milliseconds; the linger is about what one sync of
// a fast disk takes.
var writeLimits = gather.Limits{Most: 256, Runs: 1, Waiting: 1024, Linger: 300 * time.Microsecond}

// A write is one caller's part of a transaction.
type write struct {
	ctx   context.Context // never done: the caller's values alone
	do    func(context.Context, *tx) error
	state atomic.Int32
}

// The states of a write. Whoever moves it on from waiting decides.
const (
	waiting int32 = iota
	begun         // it runs to its end, and its caller stays
	left          // its caller is gone; it is not done
)

// write runs do in a transaction of this process, shared with whoever else
// writes now, and commits it. What do hands out counts only when write returns
// nil.
//
// The caller's context ends the wait for the transaction, and nothing is
// stored then. Once begun, a write runs to its end whatever the context does:
// it is short, and an outcome known late is worth more than one not known. It
// fails alone, unless what it met is the end of the whole transaction.
func (s *SQLite) write(ctx context.Context, do func(context.Context, *tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: database: %w", attest.ErrUnavailable, err)
	}
	w := &write{ctx: context.WithoutCancel(ctx), do: do}
	wait, leave := context.WithCancelCause(w.ctx)
	defer leave(nil)
	defer context.AfterFunc(ctx, func() {
		if w.state.CompareAndSwap(waiting, left) {
			leave(ctx.Err())
		}
	})()
	_, err := s.writes.Call(wait, w)
	if w.state.Load() == left { // and whatever else it says, nothing was stored
		return fmt.Errorf("%w: database: %w", attest.ErrUnavailable, ctx.Err())
	}
	return err
}

// commit does several writes in one transaction, in their order. It falls
// closed: unless the commit has succeeded, all of them fail.
//
// It first goes without savepoints, which cost about as much as the writes.
// That will do as long as whoever fails has written nothing yet. Otherwise all
// is taken back and done again, each write in a savepoint of its own.
func (s *SQLite) commit(ctx context.Context, writes []*write) []gather.Result[struct{}] {
	results := make([]gather.Result[struct{}], len(writes))
	err := s.transact(ctx, writes, results, false)
	if errors.Is(err, errHalfDone) {
		clear(results)
		err = s.transact(ctx, writes, results, true)
	}
	if err != nil {
		for i := range results {
			if results[i].Err == nil {
				results[i].Err = err
			}
		}
	}
	return results
}

// errHalfDone: a write has failed that cannot be taken back alone.
var errHalfDone = errors.New("a write is half done")

// transact puts into results who failed alone. Its error is everybody's.
func (s *SQLite) transact(ctx context.Context, writes []*write, results []gather.Result[struct{}], savepoints bool) error {
	tx, err := s.writer.begin(ctx, nil) // waits, until all callers have left
	if err != nil {
		return beginError(ctx, err)
	}
	defer tx.end()
	tx.recent = &s.recent
	ctx = context.WithoutCancel(ctx)
	for i, w := range writes {
		if !w.begin() {
			results[i].Err = fmt.Errorf("%w: database: the caller has left", attest.ErrUnavailable)
			continue
		}
		if savepoints {
			if _, err := tx.exec(ctx, "SAVEPOINT write"); err != nil {
				return sqliteError(ctx, err)
			}
		}
		tx.wrote = false
		err := w.do(w.ctx, tx)
		if dooms(err) || err != nil && len(writes) == 1 {
			return sqliteError(ctx, err)
		}
		results[i].Err = sqliteError(ctx, err)
		if !savepoints {
			if err != nil && tx.wrote {
				return errHalfDone
			}
			continue
		}
		if err != nil {
			if _, err := tx.exec(ctx, "ROLLBACK TO write"); err != nil { // it would stand in the commit
				return sqliteError(ctx, err)
			}
			tx.audit = nil
		}
		if _, err := tx.exec(ctx, "RELEASE write"); err != nil {
			return sqliteError(ctx, err)
		}
	}
	for v, n := range tx.signed {
		if _, err := tx.exec(ctx, `
			INSERT INTO signatures (signer, key_version, count) VALUES (?, ?, ?)
			ON CONFLICT (signer, key_version) DO UPDATE SET count = count + excluded.count`,
			string(v.signer), v.version, n); err != nil {
			return sqliteError(ctx, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return sqliteError(ctx, err)
	}
	s.recent.add(tx.announced)
	return nil
}

// begin reports whether the write is to be done, and then keeps its caller.
func (w *write) begin() bool {
	return w.state.CompareAndSwap(waiting, begun) || w.state.Load() == begun
}

// dooms reports whether err may have ended the transaction, or leaves it in
// doubt: SQLite takes back the whole of it after some failures of the machine.
func dooms(err error) bool {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return false
	}
	_, machine := passing[se.Code()&0xff]
	return machine
}

// A version of a signer's key.
type version struct {
	signer  attest.Power
	version int
}

// An announced intent is what its attestation must say.
type announced struct {
	id            string
	intent        int64
	signer        attest.Power
	predicateType string
	tenant        string
	subjects      []attest.Subject
}

// fits reports whether a is what was announced.
func (in announced) fits(a attest.Attestation) bool {
	return a.Signer == in.signer && a.PredicateType == in.predicateType && slices.Equal(a.Subjects, in.subjects)
}

// recent are intents that were stored a moment ago by this process, whose
// attestations will come soon. It saves looking them up, and forgets the
// oldest; they never change. Only the transaction under way touches it.
type recent struct {
	byID  map[string]announced
	order [1024]string // a ring
	next  int
}

// maxRecentSubjects keeps the memory of all within some 10 MiB.
const maxRecentSubjects = 8

func (r *recent) add(all []announced) {
	if r.byID == nil {
		r.byID = map[string]announced{}
	}
	for _, in := range all {
		if len(in.subjects) > maxRecentSubjects {
			continue
		}
		delete(r.byID, r.order[r.next])
		r.byID[in.id], r.order[r.next] = in, in.id
		r.next = (r.next + 1) % len(r.order)
	}
}

// take returns the intent of that ID and forgets it: it has one attestation.
func (r *recent) take(id string) (announced, bool) {
	in, ok := r.byID[id]
	delete(r.byID, id)
	return in, ok
}

// A pool is connections that keep their statements: parsing one costs SQLite
// more than doing it.
type pool struct {
	*sql.DB
	mu       sync.Mutex
	prepared map[string]*sql.Stmt // by their text, which is always a constant
}

// A tx is a transaction on a connection of a pool.
type tx struct {
	*sql.Tx
	pool  *pool
	stmts map[string]*sql.Stmt
	fresh []string // to be prepared for those who come later

	recent    *recent     // intents that need not be looked up
	wrote     bool        // whether the write under way has changed anything
	announced []announced // what counts once it is committed
	signed    map[version]int
	audit     *attest.AuditHead // as of now; nil when it is not known
}

// begin waits for other processes, not longer than busyTimeout.
func (p *pool) begin(ctx context.Context, opts *sql.TxOptions) (*tx, error) {
	t, err := p.BeginTx(ctx, opts)
	for start := time.Now(); isBusy(err) && time.Since(start) < busyTimeout; t, err = p.BeginTx(ctx, opts) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(busyPoll):
		}
	}
	if err != nil {
		return nil, err
	}
	return &tx{Tx: t, pool: p, stmts: map[string]*sql.Stmt{}, signed: map[version]int{}}, nil
}

// end takes back what was not committed, and has the statements prepared that
// were met for the first time. That needs a connection, which tx had.
func (t *tx) end() {
	t.Rollback()
	for _, query := range t.fresh {
		stmt, err := t.pool.Prepare(query)
		if err != nil { // such as a closed store: it stays unprepared
			continue
		}
		t.pool.mu.Lock()
		if _, ok := t.pool.prepared[query]; ok {
			stmt.Close()
		} else {
			t.pool.prepared[query] = stmt
		}
		t.pool.mu.Unlock()
	}
}

// stmt is the statement of that text, in this transaction.
func (t *tx) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := t.stmts[query]; ok {
		return stmt, nil
	}
	t.pool.mu.Lock()
	stmt, ok := t.pool.prepared[query]
	t.pool.mu.Unlock()
	if ok {
		stmt = t.StmtContext(ctx, stmt)
	} else {
		var err error
		if stmt, err = t.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		t.fresh = append(t.fresh, query)
	}
	t.stmts[query] = stmt
	return stmt, nil
}

func (t *tx) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	stmt, err := t.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	t.wrote = t.wrote || err == nil // a statement that fails leaves nothing
	return result, err
}

func (t *tx) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := t.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// row is one row, or an error that waits to be scanned.
type row struct {
	*sql.Row
	err error
}

func (t *tx) queryRow(ctx context.Context, query string, args ...any) row {
	stmt, err := t.stmt(ctx, query)
	if err != nil {
		return row{err: err}
	}
	return row{Row: stmt.QueryRowContext(ctx, args...)}
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.Row.Scan(dest...)
}

// read runs do in a read transaction: everything do sees is of one moment.
func (s *SQLite) read(ctx context.Context, do func(*tx) error) error {
	tx, err := s.readers.begin(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return beginError(ctx, err)
	}
	defer tx.end()
	return sqliteError(ctx, do(tx))
}
