// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"provost/attest"
)

// passing are SQLite's primary result codes that may pass, in words that can
// leave the machine. All of them fall closed: nothing that was not stored is
// acknowledged, and a read that did not end is not an answer.
var passing = map[int]string{
	sqlite3.SQLITE_FULL:      "no space left",
	sqlite3.SQLITE_IOERR:     "I/O error",
	sqlite3.SQLITE_READONLY:  "read-only",
	sqlite3.SQLITE_BUSY:      "locked by another process",
	sqlite3.SQLITE_LOCKED:    "locked",
	sqlite3.SQLITE_PROTOCOL:  "locked by another process",
	sqlite3.SQLITE_CANTOPEN:  "cannot be opened",
	sqlite3.SQLITE_NOMEM:     "out of memory",
	sqlite3.SQLITE_INTERRUPT: "interrupted",
}

// sqliteError says what kind of failure err is. The texts of SQLite itself are
// kept only in errors that stay in the log.
func sqliteError(ctx context.Context, err error) error {
	if err == nil || isRefusal(err) {
		return err
	}
	if ctx.Err() != nil { // whatever SQLite says then, this is the cause
		return fmt.Errorf("%w: database: %w", attest.ErrUnavailable, ctx.Err())
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return err // such as a column that holds what was never written
	}
	if words, ok := passing[se.Code()&0xff]; ok {
		return fmt.Errorf("%w: database: %s (SQLite %d)", attest.ErrUnavailable, words, se.Code())
	}
	if isTaken(err) {
		return fmt.Errorf("%w: already recorded", attest.ErrConflict)
	}
	// SQLITE_CORRUPT, SQLITE_NOTADB, our own mistakes: closed for good.
	return fmt.Errorf("database: %w", err)
}

// beginError is sqliteError for a transaction that never began. What is not
// SQLite's there is database/sql saying that the store is closed.
func beginError(ctx context.Context, err error) error {
	var se *sqlite.Error
	if err == nil || ctx.Err() != nil || errors.As(err, &se) {
		return sqliteError(ctx, err)
	}
	return fmt.Errorf("%w: database: %v", attest.ErrUnavailable, err)
}

// isRefusal reports whether err was already given its kind inside the
// transaction.
func isRefusal(err error) bool {
	return errors.Is(err, attest.ErrInvalid) || errors.Is(err, attest.ErrNotFound) || errors.Is(err, attest.ErrConflict) || errors.Is(err, attest.ErrDenied)
}

// isTaken reports whether err says that a row of that key is already there.
func isTaken(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && (se.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || se.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// isBusy reports whether err says that another process has the file.
func isBusy(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && se.Code()&0xff == sqlite3.SQLITE_BUSY
}

// inTheWay reports whether err is what one meets when another process migrates
// the same file: a lock, or a table that is already there.
func inTheWay(err error) bool {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return false
	}
	code := se.Code() & 0xff
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_ERROR
}
