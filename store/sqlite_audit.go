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

// AppendAudit stores a record as the next one of the chain, whoever else
// appends, and returns it with its place there. It is an [attest.ErrInvalid] if
// the record cannot be represented.
func (s *SQLite) AppendAudit(ctx context.Context, r attest.AuditRecord) (stored attest.AuditRecord, err error) {
	if err := r.Validate(); err != nil {
		return stored, err
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		stored, err = appendAudit(ctx, tx, r)
		return err
	})
	if err != nil {
		return attest.AuditRecord{}, err
	}
	return stored, nil
}

// AuditRecords returns at most limit records after that seq, in their order.
// Whether they are a chain is for the reader to verify.
func (s *SQLite) AuditRecords(ctx context.Context, after int64, limit int) (found []attest.AuditRecord, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, `
			SELECT seq, at, request, remote, issuer, subject, tenant, session, action, object, outcome, why, previous, hash
			FROM audit WHERE seq > ? ORDER BY seq LIMIT ?`, after, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r attest.AuditRecord
			if err := rows.Scan(&r.Seq, timeColumn{&r.At}, &r.Request, &r.Remote, &r.Issuer, &r.Subject, &r.Tenant, &r.Session,
				&r.Action, &r.Object, &r.Outcome, &r.Why, digestColumn{&r.Previous}, digestColumn{&r.Hash}); err != nil {
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

// AuditHead returns the head of the chain; the zero head when there is no
// record.
func (s *SQLite) AuditHead(ctx context.Context) (head attest.AuditHead, err error) {
	err = s.read(ctx, func(tx *tx) error {
		head, err = findAuditHead(ctx, tx)
		return err
	})
	if err != nil {
		return attest.AuditHead{}, err
	}
	return head, nil
}

// SignedAuditHead returns the attestation of the head that was signed last, or
// an [attest.ErrNotFound].
func (s *SQLite) SignedAuditHead(ctx context.Context) (a attest.Attestation, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var id string
		err := tx.queryRow(ctx, `
			SELECT i.id FROM audit_heads h JOIN attestations a ON a.seq = h.seq JOIN intents i ON i.seq = a.intent
			ORDER BY h.seq DESC LIMIT 1`).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: signed audit head", attest.ErrNotFound)
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

// appendAudit chains a record, which is valid, in the transaction of what it
// is about. The head is read in that very transaction, since other processes
// append as well; in one transaction, once.
func appendAudit(ctx context.Context, tx *tx, r attest.AuditRecord) (attest.AuditRecord, error) {
	if tx.audit == nil {
		head, err := findAuditHead(ctx, tx)
		if err != nil {
			return r, err
		}
		tx.audit = &head
	}
	r = r.Chain(*tx.audit)
	if _, err := tx.exec(ctx, `
		INSERT INTO audit (seq, at, request, remote, issuer, subject, tenant, session, action, object, outcome, why, previous, hash)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.Seq, timeColumn{&r.At}, r.Request, r.Remote, r.Issuer, r.Subject, r.Tenant, r.Session,
		r.Action, r.Object, r.Outcome, r.Why, digestColumn{&r.Previous}, digestColumn{&r.Hash}); err != nil {
		return r, err
	}
	head := r.Head()
	tx.audit = &head
	return r, nil
}

func findAuditHead(ctx context.Context, tx *tx) (head attest.AuditHead, err error) {
	err = tx.queryRow(ctx, "SELECT seq, at, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&head.Seq, timeColumn{&head.At}, digestColumn{&head.Hash})
	if errors.Is(err, sql.ErrNoRows) {
		return attest.AuditHead{}, nil
	}
	return head, err
}
