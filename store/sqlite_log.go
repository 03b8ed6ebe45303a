// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"provost/attest"
)

// maxLogRange is how many indexes [SQLite.LogIndexes] is asked about at once.
const maxLogRange = 1 << 20

// LogHead returns the attestation with the greatest index in that log, or an
// [attest.ErrNotFound].
func (s *SQLite) LogHead(ctx context.Context, logID string) (a attest.Attestation, err error) {
	if logID == "" {
		return a, fmt.Errorf("%w: query names no log", attest.ErrInvalid)
	}
	err = s.read(ctx, func(tx *tx) error {
		var id string
		err := tx.queryRow(ctx, `
			SELECT i.id FROM signed g JOIN attestations a ON a.seq = g.seq JOIN intents i ON i.seq = a.intent
			WHERE g.log = ? AND g.log <> '' ORDER BY g.log_index DESC LIMIT 1`, logID).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: attestation in log %.64q", attest.ErrNotFound, logID)
		}
		if err == nil {
			a, err = findAttestation(ctx, tx, id)
		}
		return err
	})
	if err != nil {
		return attest.Attestation{}, err
	}
	return a, nil
}

// LogIndexes returns, in their order, the indexes from from to below to that
// an attestation or a recorded orphan has in that log. What is missing is an
// entry that nobody knows.
func (s *SQLite) LogIndexes(ctx context.Context, logID string, from, to int64) (found []int64, err error) {
	if logID == "" || from < 0 || to < from || to-from > maxLogRange {
		return nil, fmt.Errorf("%w: query: want a log and a range of at most %d indexes", attest.ErrInvalid, maxLogRange)
	}
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, `
			SELECT log_index FROM signed WHERE log = ?1 AND log <> '' AND log_index >= ?2 AND log_index < ?3
			UNION SELECT log_index FROM log_orphans WHERE log = ?1 AND log_index >= ?2 AND log_index < ?3
			ORDER BY log_index`, logID, from, to)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var index int64
			if err := rows.Scan(&index); err != nil {
				return err
			}
			found = append(found, index)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// IntentOfMessage returns the intent to sign that message, or an
// [attest.ErrNotFound]. Of several, it is the first that has no attestation;
// if all have one, the first.
func (s *SQLite) IntentOfMessage(ctx context.Context, message attest.Digest) (attest.Intent, error) {
	if message.Algorithm() != attest.AlgSHA256 {
		return attest.Intent{}, fmt.Errorf("%w: query: want a message's sha256", attest.ErrInvalid)
	}
	var found []attest.Intent
	err := s.read(ctx, func(tx *tx) (err error) {
		found, err = findIntents(ctx, tx, `
			FROM intents i WHERE i.message = ?
			ORDER BY EXISTS (SELECT 1 FROM open_intents o WHERE o.intent = i.seq) DESC, i.seq LIMIT 1`, digestColumn{&message})
		return err
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: intent of that message", attest.ErrNotFound)
	}
	if err != nil {
		return attest.Intent{}, err
	}
	return found[0], nil
}

// AppendLogOrphan records an entry of a log that no attestation has. Recording
// it again changes nothing; with another message or intent it is an
// [attest.ErrConflict].
func (s *SQLite) AppendLogOrphan(ctx context.Context, o attest.LogOrphan) error {
	if o.Log == "" || o.Index < 0 || o.Message.Algorithm() != attest.AlgSHA256 {
		return fmt.Errorf("%w: log orphan: want a log, an index and the message's sha256", attest.ErrInvalid)
	}
	if err := checkText(o.Log, o.Intent); err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		result, err := tx.exec(ctx, `
			INSERT INTO log_orphans (log, log_index, message, intent, at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (log, log_index) DO NOTHING`,
			o.Log, o.Index, digestColumn{&o.Message}, o.Intent, timeColumn{&o.At})
		if err != nil || changed(result) == 1 {
			return err
		}
		stored := o
		if err := tx.queryRow(ctx, "SELECT message, intent FROM log_orphans WHERE log = ? AND log_index = ?", o.Log, o.Index).
			Scan(digestColumn{&stored.Message}, &stored.Intent); err != nil {
			return err
		}
		if stored != o {
			return fmt.Errorf("%w: log entry %d was recorded as another's", attest.ErrConflict, o.Index)
		}
		return nil
	})
}

// LogOrphans returns at most limit recorded orphans, in the order of storing,
// whose entry still has no attestation and whose intent has none.
func (s *SQLite) LogOrphans(ctx context.Context, limit int) (found []attest.LogOrphan, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, `
			SELECT log, log_index, message, intent, at FROM log_orphans o
			WHERE NOT EXISTS (SELECT 1 FROM signed g WHERE g.log = o.log AND g.log <> '' AND g.log_index = o.log_index)
			AND NOT EXISTS (SELECT 1 FROM intents i JOIN attestations a ON a.intent = i.seq WHERE i.id = o.intent)
			ORDER BY seq LIMIT ?`, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var o attest.LogOrphan
			if err := rows.Scan(&o.Log, &o.Index, digestColumn{&o.Message}, &o.Intent, timeColumn{&o.At}); err != nil {
				return err
			}
			found = append(found, o)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
