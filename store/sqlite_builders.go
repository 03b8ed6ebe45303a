// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"

	"provost/attest"
)

// Builders returns of every name the row that holds, and the proposal that
// waits for it, if there is one, in the order of their revisions; and the
// registry's revision, 0 while it is empty.
func (s *SQLite) Builders(ctx context.Context) (found []attest.Builder, revision int64, err error) {
	err = s.read(ctx, func(tx *tx) error {
		found, revision, err = findBuilders(ctx, tx)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return found, revision, nil
}

func findBuilders(ctx context.Context, tx *tx) (found []attest.Builder, revision int64, err error) {
	if err := tx.queryRow(ctx, "SELECT coalesce(max(revision), 0) FROM builders").Scan(&revision); err != nil {
		return nil, 0, err
	}
	rows, err := tx.query(ctx, `
		SELECT b.revision, b.name, b.state, b.row FROM builders b
		WHERE b.revision = (SELECT max(revision) FROM builders WHERE name = b.name)
		OR b.revision = (SELECT max(revision) FROM builders WHERE name = b.name AND state <> 'proposed')
		ORDER BY b.revision`)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var b attest.Builder
		var at int64
		var name, state string
		if err := rows.Scan(&at, &name, &state, builderColumn{&b}); err != nil {
			return nil, 0, err
		}
		if b.Name != name || b.State != state {
			return nil, 0, fmt.Errorf("stored builder %.40q: its row says otherwise", name)
		}
		b.Revision = at
		found = append(found, b)
	}
	return found, revision, rows.Err()
}

// AppendBuilder stores a row, if the registry is still at that revision, and
// returns it with its own. Otherwise somebody was faster, which is an
// [attest.ErrConflict].
func (s *SQLite) AppendBuilder(ctx context.Context, b attest.Builder, revision int64) (attest.Builder, error) {
	if err := b.Validate(); err != nil {
		return attest.Builder{}, err
	}
	err := s.write(ctx, func(ctx context.Context, tx *tx) error {
		var now int64
		if err := tx.queryRow(ctx, "SELECT coalesce(max(revision), 0) FROM builders").Scan(&now); err != nil {
			return err
		}
		if now != revision {
			return fmt.Errorf("%w: the registry has changed meanwhile: it is at revision %d, not %d", attest.ErrConflict, now, revision)
		}
		_, err := tx.exec(ctx, "INSERT INTO builders (revision, name, state, row) VALUES (?, ?, ?, ?)", now+1, b.Name, b.State, builderColumn{&b})
		b.Revision = now + 1
		return err
	})
	if err != nil {
		return attest.Builder{}, err
	}
	return b, nil
}

// BuilderHistory returns every row that there ever was of a name, oldest first.
func (s *SQLite) BuilderHistory(ctx context.Context, name string) (found []attest.Builder, err error) {
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, "SELECT revision, row FROM builders WHERE name = ? ORDER BY revision", name)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var b attest.Builder
			var at int64
			if err := rows.Scan(&at, builderColumn{&b}); err != nil {
				return err
			}
			b.Revision = at
			found = append(found, b)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// A builderColumn is a builder as JSON in TEXT. It is read with its name and
// never searched.
type builderColumn struct{ b *attest.Builder }
