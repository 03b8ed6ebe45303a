// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"provost/attest"
)

// AppendKeyRevocation stores a revocation. It is an [attest.ErrConflict] if
// the ID is taken and an [attest.ErrInvalid] if it is not well formed.
func (s *SQLite) AppendKeyRevocation(ctx context.Context, r attest.KeyRevocation) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := checkText(r.ID, r.By, r.Reason); err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		_, err := tx.exec(ctx, `
			INSERT INTO key_revocations (id, signer, key_version, from_at, to_at, at, by, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, string(r.Signer), r.Version, timeColumn{&r.From}, timeColumn{&r.To}, timeColumn{&r.At}, r.By, r.Reason)
		return err
	})
}

// KeyRevocations returns all revocations, in the order of storing.
func (s *SQLite) KeyRevocations(ctx context.Context) (found []attest.KeyRevocation, err error) {
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, "SELECT id, signer, key_version, from_at, to_at, at, by, reason FROM key_revocations ORDER BY seq")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r attest.KeyRevocation
			if err := rows.Scan(&r.ID, &r.Signer, &r.Version, timeColumn{&r.From}, timeColumn{&r.To}, timeColumn{&r.At}, &r.By, &r.Reason); err != nil {
				return err
			}
			found = append(found, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Claim grants the lease of that name to holder until a time, and reports
// whether it did. It does if nobody holds it, if it ran out before now, or if
// holder has it already; then it is extended, and never shortened. On an error
// it was not granted for all that holder may know: act only on true.
//
// The times are the callers' clocks: they must agree better than a lease
// lasts.
func (s *SQLite) Claim(ctx context.Context, name, holder string, now, until time.Time) (granted bool, err error) {
	if name == "" || holder == "" || !until.After(now) {
		return false, fmt.Errorf("%w: lease: want a name, a holder and an end after now", attest.ErrInvalid)
	}
	if err := checkText(name, holder); err != nil {
		return false, err
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		result, err := tx.exec(ctx, `
			INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?4)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = max(until, excluded.until)
			WHERE holder = excluded.holder OR until < ?3`,
			name, holder, timeColumn{&now}, timeColumn{&until})
		granted = err == nil && changed(result) == 1
		return err
	})
	return granted && err == nil, err
}

// Release gives up a lease. If holder has it not, nothing is done.
func (s *SQLite) Release(ctx context.Context, name, holder string) error {
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		_, err := tx.exec(ctx, "DELETE FROM leases WHERE name = ? AND holder = ?", name, holder)
		return err
	})
}

// Signatures returns how many attestations that version of the signer's key
// has. It is one row, whatever is stored.
func (s *SQLite) Signatures(ctx context.Context, signer attest.Power, version int) (n int64, err error) {
	err = s.read(ctx, func(tx *tx) error {
		err := tx.queryRow(ctx, "SELECT count FROM signatures WHERE signer = ? AND key_version = ?", string(signer), version).Scan(&n)
		if errors.Is(err, sql.ErrNoRows) { // a version that has signed nothing
			return nil
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// fewSigned is how many attestations of an interval are sorted rather than
// found by walking over all that the signer ever made.
const fewSigned = 10_000

// SignedBy returns, in the order of storing and without their bundles, the
// attestations of a signer that q selects; none is not an error. Paging by
// q.After misses none.
func (s *SQLite) SignedBy(ctx context.Context, q attest.SignedQuery) (found []attest.Attestation, err error) {
	if q.Signer == "" || q.Version < 0 || q.To.Before(q.From) {
		return nil, fmt.Errorf("%w: query: want a signer, a version or 0, and an interval", attest.ErrInvalid)
	}
	if err := checkLimit(q.Limit); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(tx *tx) error {
		var some int
		if err := tx.queryRow(ctx, "SELECT count(1) FROM (SELECT 1 FROM signed INDEXED BY signed_by_time WHERE signer = ? AND signed_at >= ? AND signed_at <= ? LIMIT ?)",
			string(q.Signer), timeColumn{&q.From}, timeColumn{&q.To}, fewSigned).Scan(&some); err != nil {
			return err
		}
		page, args := signedQuery(q, some < fewSigned)
		found, err = findAttestations(ctx, tx, withoutBundle, page, args)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// signedQuery selects the seqs of a page. A few are found by their time and
// sorted; many are met soon enough on a walk in their order.
func signedQuery(q attest.SignedQuery, few bool) (string, []any) {
	from := "signed WHERE signer = ?1 AND seq > ?2 AND signed_at >= ?3 AND signed_at <= ?4"
	if few {
		from = "signed INDEXED BY signed_by_time WHERE signer = ?1 AND +seq > ?2 AND signed_at >= ?3 AND signed_at <= ?4"
	}
	return "SELECT seq FROM " + from + " AND (?5 = 0 OR key_version = ?5) ORDER BY seq LIMIT ?6",
		[]any{string(q.Signer), q.After, timeColumn{&q.From}, timeColumn{&q.To}, q.Version, q.Limit}
}
