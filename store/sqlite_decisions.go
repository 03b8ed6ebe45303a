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

// AppendDecision stores a decision. It is an [attest.ErrConflict] if the ID is
// taken and an [attest.ErrInvalid] if the decision names no artifact or cannot
// be represented. Until it has returned nil there is no verdict to give.
func (s *SQLite) AppendDecision(ctx context.Context, d attest.Decision) error {
	if d.ID == "" || d.Artifact.IsZero() {
		return fmt.Errorf("%w: decision: want an id and an artifact", attest.ErrInvalid)
	}
	if err := checkText(d.ID, d.Caller, d.Name, d.Environment, d.VSAID, d.Tenant); err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, tx *tx) error { return appendDecision(ctx, tx, d) })
}

// Decision returns the decision of that ID, or an [attest.ErrNotFound].
func (s *SQLite) Decision(ctx context.Context, id string) (attest.Decision, error) {
	found, err := s.findDecisions(ctx, "WHERE id = ?", id)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: decision %.40q", attest.ErrNotFound, id)
	}
	if err != nil {
		return attest.Decision{}, err
	}
	return found[0], nil
}

// Decisions returns at most limit decisions about the artifact, newest first,
// for one environment or, with "", for all. None is not an error.
func (s *SQLite) Decisions(ctx context.Context, artifact attest.Digest, environment string, limit int) ([]attest.Decision, error) {
	if artifact.IsZero() {
		return nil, fmt.Errorf("%w: query names no artifact", attest.ErrInvalid)
	}
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	if environment == "" {
		return s.findDecisions(ctx, "WHERE artifact = ? ORDER BY seq DESC LIMIT ?", digestColumn{&artifact}, limit)
	}
	return s.findDecisions(ctx, "WHERE artifact = ? AND environment = ? ORDER BY seq DESC LIMIT ?", digestColumn{&artifact}, environment, limit)
}

// AppendCertificate stores a certificate and returns what is stored under its
// name and version: the first one wins, so that all replicas use the same.
func (s *SQLite) AppendCertificate(ctx context.Context, c attest.Certificate) (stored attest.Certificate, err error) {
	if c.Name == "" || c.Version < 1 || len(c.DER) == 0 {
		return stored, fmt.Errorf("%w: certificate: want a name, a version from 1, and DER", attest.ErrInvalid)
	}
	if err := checkText(c.Name); err != nil {
		return stored, err
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		stored, err = appendCertificate(ctx, tx, c)
		return err
	})
	if err != nil {
		return attest.Certificate{}, err
	}
	return stored, nil
}

// Certificates returns every certificate, ordered by name, then version.
func (s *SQLite) Certificates(ctx context.Context) (found []attest.Certificate, err error) {
	err = s.read(ctx, func(tx *tx) error {
		found, err = findCertificates(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func appendDecision(ctx context.Context, tx *tx, d attest.Decision) error {
	if len(d.VSA) == 0 {
		d.VSA = nil
	}
	_, err := tx.exec(ctx, `
		INSERT INTO decisions (id, at, caller, artifact, name, environment, verdict, reasons, vsa, vsa_id, tenant)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		d.ID, timeColumn{&d.At}, d.Caller, digestColumn{&d.Artifact}, d.Name, d.Environment,
		verdictColumn{&d.Verdict}, reasonsColumn{&d.Reasons}, d.VSA, d.VSAID, d.Tenant)
	return err
}

// findDecisions runs one of the selections above; where is always a constant.
func (s *SQLite) findDecisions(ctx context.Context, where string, args ...any) (found []attest.Decision, err error) {
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, `
			SELECT id, at, caller, artifact, name, environment, verdict, reasons, vsa, vsa_id, tenant
			FROM decisions `+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d attest.Decision
			if err := rows.Scan(&d.ID, timeColumn{&d.At}, &d.Caller, digestColumn{&d.Artifact}, &d.Name, &d.Environment,
				verdictColumn{&d.Verdict}, reasonsColumn{&d.Reasons}, &d.VSA, &d.VSAID, &d.Tenant); err != nil {
				return err
			}
			found = append(found, d)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func appendCertificate(ctx context.Context, tx *tx, c attest.Certificate) (attest.Certificate, error) {
	if _, err := tx.exec(ctx, "INSERT INTO certificates (name, version, der) VALUES (?, ?, ?) ON CONFLICT (name, version) DO NOTHING",
		c.Name, c.Version, c.DER); err != nil {
		return attest.Certificate{}, err
	}
	stored := attest.Certificate{Name: c.Name, Version: c.Version}
	err := tx.queryRow(ctx, "SELECT der FROM certificates WHERE name = ? AND version = ?", c.Name, c.Version).Scan(&stored.DER)
	if errors.Is(err, sql.ErrNoRows) {
		return stored, fmt.Errorf("certificate %s version %d is gone", c.Name, c.Version)
	}
	return stored, err
}

func findCertificates(ctx context.Context, tx *tx) ([]attest.Certificate, error) {
	rows, err := tx.query(ctx, "SELECT name, version, der FROM certificates ORDER BY name, version")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []attest.Certificate
	for rows.Next() {
		var c attest.Certificate
		if err := rows.Scan(&c.Name, &c.Version, &c.DER); err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, rows.Err()
}
