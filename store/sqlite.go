// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"provost/attest"
	"provost/attest/gather"
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

const (
	// applicationID marks our files in the SQLite header, so that another
	// program's database is refused rather than migrated. It reads "PRVS".
	applicationID = 0x50525653
	// busyTimeout bounds the wait for another process, such as a backup, the
	// service that this one replaces, or another replica that is paused while
	// it writes. Callers with less time wait less.
	busyTimeout = 30 * time.Second
	// busyPoll is how often the writer looks whether the file is free. SQLite
	// itself would soon look every 100 ms only, and so hardly ever get in
	// beside a process that writes without a pause.
	busyPoll = time.Millisecond
	// maxReaders is the number of connections for reading. They do not wait
	// for the writer (WAL).
	maxReaders = 4
	// writerCache and readerCache are what a connection keeps of the database
	// in memory, in bytes. The writer's holds the inner pages of all indexes
	// at millions of rows. More costs more than it saves: SQLite walks over
	// the whole cache in a commit that has split a page out of order.
	writerCache = 16 << 20
	readerCache = 8 << 20
	// walPages is how far the WAL grows before a commit brings it home. A page
	// that many commits change, as the ends of the tables, goes home once.
	walPages = 4000
)

// SQLite is a store in one SQLite file. It keeps what attest.Ledger and the
// package comment promise, and is safe for concurrent use.
//
// Several processes of one machine may share the file, as an old and a new one
// do during a restart. It must not be on a network file system: SQLite's locks
// do not hold there.
type SQLite struct {
	writer  *pool // one connection: its owner is the only writer of this process
	readers *pool
	writes  *gather.Gatherer[*write, struct{}]

	recent recent
}

// OpenSQLite opens the database at path, creating the file, but not its
// directory, when it is missing, and brings its schema up to date. The file is
// readable and writable by its owner only; wider modes are narrowed. The
// caller must Close the store.
//
// It refuses, and leaves as it is, a file that a newer version of this program
// has migrated, that belongs to another program, that is not a database, or
// that cannot be written. Its errors name the path, for the operator.
func OpenSQLite(ctx context.Context, path string) (*SQLite, error) {
	s, err := openSQLite(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return s, nil
}

func openSQLite(ctx context.Context, path string) (*SQLite, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := ensureFile(path); err != nil {
		return nil, err
	}
	s := &SQLite{}
	s.writes = gather.New("database", writeLimits, s.commit)
	// synchronous=FULL syncs the WAL on every commit; NORMAL, the usual
	// companion of WAL, loses acknowledged commits with the power.
	// recursive_triggers lets the append-only triggers see INSERT OR REPLACE.
	if s.writer, err = openPool(path, 1, 0, url.Values{
		"_txlock":       {"immediate"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_pragma": {
			"recursive_triggers(1)", "journal_size_limit(67108864)", "cell_size_check(1)",
			fmt.Sprintf("cache_size(-%d)", writerCache>>10), fmt.Sprintf("wal_autocheckpoint(%d)", walPages),
		},
	}); err != nil {
		return nil, err
	}
	if s.readers, err = openPool(path, maxReaders, busyTimeout, url.Values{
		"_query_only": {"on"},
		"_pragma":     {"cell_size_check(1)", fmt.Sprintf("cache_size(-%d)", readerCache>>10)},
	}); err != nil {
		s.writer.Close()
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, sqliteError(ctx, err)
	}
	return s, nil
}

// ensureFile makes path an empty file of mode 0600 unless it exists, and
// narrows what exists. SQLite gives the files it adds the mode of the
// database, and syncs the directory.
func ensureFile(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := createFile(path); err != nil {
			return err
		}
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) && name != path {
			continue
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errors.New("not a regular file")
		}
		// Volumes of a container platform widen the mode at every mount.
		if perm := info.Mode().Perm(); perm&0o077 != 0 {
			if err := os.Chmod(name, perm&^0o077); err != nil {
				return err
			}
		}
	}
	return nil
}

// createFile never has path itself open, but links another file there: closing
// any descriptor of a file drops every lock that the process holds on it, and
// SQLite may already hold some for another caller.
func createFile(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// openPool opens nothing yet: every connection that database/sql makes later
// gets these settings, because they stand in its name.
func openPool(path string, conns int, wait time.Duration, settings url.Values) (*pool, error) {
	settings.Set("_busy_timeout", fmt.Sprint(wait.Milliseconds()))
	settings.Set("_dqs", "0")       // a misspelt column is an error, not a string
	settings.Set("_defensive", "1") // SQL cannot corrupt the file
	settings.Set("_error_rc", "1")  // no text of an earlier error beside a code
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: settings.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return &pool{DB: db, prepared: map[string]*sql.Stmt{}}, nil
}

// prepare makes the file ours, or refuses it unchanged, and migrates it.
func (s *SQLite) prepare(ctx context.Context) error {
	// Another process may do the same now. Then ours fails, and finds on
	// trying again that it is done: each is done whole or not at all. As long
	// as there is no write-ahead log, a commit does not wait for readers.
	if err := again(ctx, isBusy, s.claim); err != nil {
		return err
	}
	if err := again(ctx, inTheWay, s.setUp); err != nil {
		return err
	}
	return s.checkWritable(ctx)
}

// again does what another process may be in the way of, until it is not, or for
// as long as one waits for one.
func again(ctx context.Context, passes func(error) bool, do func(context.Context) error) error {
	err := do(ctx)
	for start := time.Now(); passes(err) && time.Since(start) < busyTimeout; err = do(ctx) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return err
}

func (s *SQLite) setUp(ctx context.Context) error {
	// The mode is kept in the file. Switching needs the file for one's own,
	// and does not wait for it.
	var mode string
	if err := s.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system does not carry a write-ahead log: journal mode stays %q", mode)
	}
	return s.migrate(ctx)
}

func (s *SQLite) migrate(ctx context.Context) error {
	p, err := s.migrations()
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

func (s *SQLite) migrations() (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, s.writer.DB, dir, goose.WithDisableGlobalRegistry(true))
}

// checkWritable asks whether the file may be written, which migrating an
// up-to-date one does not need. BEGIN IMMEDIATE does not ask; a write does,
// and taken back it needs no space: with a full disk there is still reading.
func (s *SQLite) checkWritable(ctx context.Context) error {
	tx, err := s.writer.begin(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "UPDATE health SET writes = writes + 1 WHERE id = 1")
	return err
}

// claim marks an empty database as ours, and refuses one of another program or
// of a later version.
func (s *SQLite) claim(ctx context.Context) error {
	tx, err := s.writer.begin(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var id, objects, versioned int
	if err := tx.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, "SELECT count(1), count(CASE name WHEN 'goose_db_version' THEN 1 END) FROM sqlite_schema").
		Scan(&objects, &versioned); err != nil {
		return err
	}
	switch {
	case id == applicationID && versioned > 0:
		return s.checkVersion(ctx, tx)
	case id == applicationID: // and killed before it was migrated
		return nil
	case id != 0 || objects != 0:
		return fmt.Errorf("it is a database of another program: application id %#x, %d objects", uint32(id), objects)
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *SQLite) checkVersion(ctx context.Context, tx *tx) error {
	p, err := s.migrations()
	if err != nil {
		return err
	}
	var version, known int64
	for _, source := range p.ListSources() {
		known = max(known, source.Version)
	}
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&version); err != nil {
		return err
	}
	if version > known {
		return fmt.Errorf("its schema is version %d, this build knows %d: it needs a newer build", version, known)
	}
	return nil
}

// Close waits for the write under way and closes the store; later calls return
// an [attest.ErrUnavailable]. Closing twice does nothing.
func (s *SQLite) Close() error {
	last, err := s.writer.Conn(context.Background()) // nobody writes while we have it
	if err == nil {
		defer last.Close()
	}
	// The last connection to close takes the WAL in; it should be the writer's.
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// growth is what [SQLite.Ready] asks room for, in bytes.
const growth = 64 << 10

// Ready returns nil when a durable write works now. It commits one, synced to
// disk, because nothing less meets a full or read-only disk; and before it, it
// lets the database grow by 64 KiB and takes that back, because a small write
// may find room in a file that may not grow. It costs one sync. Otherwise it
// is an [attest.ErrUnavailable].
func (s *SQLite) Ready(ctx context.Context) error {
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		for _, q := range []string{
			"SAVEPOINT growth",
			fmt.Sprintf("UPDATE health SET filler = zeroblob(%d) WHERE id = 1", growth),
			"ROLLBACK TO growth",
			"UPDATE health SET writes = writes + 1 WHERE id = 1",
		} {
			if _, err := tx.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
}

var _ attest.Ledger = (*SQLite)(nil)
