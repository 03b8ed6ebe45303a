// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"provost/attest"
)

// OpenSession spends a token and stores the session that it is exchanged for.
// A token that was spent already is an [attest.ErrConflict], unless it was for
// this very session: then the answer was lost, and nothing is stored but the
// audit record. What was spent stays so for every process on the file, whatever
// dies.
func (s *SQLite) OpenSession(ctx context.Context, session attest.Session) error {
	if session.ID.Algorithm() != attest.AlgSHA256 || session.Token.Algorithm() != attest.AlgSHA256 || session.Statements < 1 || len(session.Proof) == 0 {
		return fmt.Errorf("%w: session: want an id, a token, its proof and a number of statements", attest.ErrInvalid)
	}
	var subjects []byte
	for _, d := range session.Subjects {
		if d.Algorithm() != attest.AlgSHA256 {
			return fmt.Errorf("%w: session: subjects: want sha256", attest.ErrInvalid)
		}
		subjects = append(subjects, d.Bytes()...)
	}
	if subjects == nil {
		subjects = []byte{}
	}
	if err := checkText(session.Issuer); err != nil {
		return err
	}
	if session.Audit != nil {
		if err := session.Audit.Validate(); err != nil {
			return err
		}
	}
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		result, err := tx.exec(ctx, "INSERT INTO spent_tokens (token, until, session) VALUES (?, ?, ?) ON CONFLICT (token) DO NOTHING",
			digestColumn{&session.Token}, timeColumn{&session.TokenUntil}, digestColumn{&session.ID})
		if err != nil {
			return err
		}
		if changed(result) == 0 {
			var before attest.Digest
			if err := tx.queryRow(ctx, "SELECT session FROM spent_tokens WHERE token = ?", digestColumn{&session.Token}).Scan(digestColumn{&before}); err != nil {
				return err
			}
			if before != session.ID { // closed
				return fmt.Errorf("%w: the token was used already", attest.ErrConflict)
			}
		} else if _, err := tx.exec(ctx, `
			INSERT INTO sessions (id, issuer, proof, checked, subjects, at, expires, statements, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)`,
			digestColumn{&session.ID}, session.Issuer, session.Proof, session.Checked, subjects,
			timeColumn{&session.At}, timeColumn{&session.Expires}, session.Statements); err != nil {
			return err
		}
		if session.Audit != nil {
			_, err = appendAudit(ctx, tx, *session.Audit)
		}
		return err
	})
}

// TokenSpent returns the session that a token was spent for, and whether it was;
// the zero one for a token that was spent for nothing.
func (s *SQLite) TokenSpent(ctx context.Context, token attest.Digest) (session attest.Digest, spent bool, err error) {
	err = s.read(ctx, func(tx *tx) error {
		err := tx.queryRow(ctx, "SELECT session FROM spent_tokens WHERE token = ?", digestColumn{&token}).Scan(digestColumn{&session})
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		spent = err == nil
		return err
	})
	if err != nil {
		return attest.Digest{}, false, err
	}
	return session, spent, nil
}

// SpendToken spends a token for nothing: no session is ever opened with it, and
// one that was is gone.
func (s *SQLite) SpendToken(ctx context.Context, token attest.Digest, until time.Time) error {
	if token.Algorithm() != attest.AlgSHA256 {
		return fmt.Errorf("%w: token: want a sha256", attest.ErrInvalid)
	}
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		if _, err := tx.exec(ctx, "INSERT INTO spent_tokens (token, until, session) VALUES (?, ?, zeroblob(32)) ON CONFLICT (token) DO NOTHING",
			digestColumn{&token}, timeColumn{&until}); err != nil {
			return err
		}
		_, err := tx.exec(ctx, "DELETE FROM sessions WHERE id = (SELECT session FROM spent_tokens WHERE token = ?)", digestColumn{&token})
		return err
	})
}

// Session returns the session of that ID, ended or not, or an
// [attest.ErrNotFound]. Token, TokenUntil and Audit are not set.
func (s *SQLite) Session(ctx context.Context, id attest.Digest) (session attest.Session, err error) {
	session.ID = id
	err = s.read(ctx, func(tx *tx) error {
		var subjects []byte
		err := tx.queryRow(ctx, "SELECT issuer, proof, checked, subjects, at, expires, statements FROM sessions WHERE id = ?", digestColumn{&id}).
			Scan(&session.Issuer, &session.Proof, &session.Checked, &subjects, timeColumn{&session.At}, timeColumn{&session.Expires}, &session.Statements)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: session", attest.ErrNotFound)
		}
		for part := range slices.Chunk(subjects, 32) {
			d, err := attest.NewDigest(attest.AlgSHA256, hex.EncodeToString(part))
			if err != nil {
				return fmt.Errorf("stored session: %v", err)
			}
			session.Subjects = append(session.Subjects, d)
		}
		return err
	})
	if err != nil {
		return attest.Session{}, err
	}
	return session, nil
}

// countStatement counts an intent in its session, or refuses it.
func countStatement(ctx context.Context, tx *tx, in attest.Intent) error {
	id, err := attest.NewDigest(attest.AlgSHA256, in.Session)
	if err != nil {
		return fmt.Errorf("intent: session: %w", err)
	}
	result, err := tx.exec(ctx, "UPDATE sessions SET used = used + 1 WHERE id = ? AND used < statements AND expires > ?", digestColumn{&id}, timeColumn{&in.At})
	if err != nil {
		return err
	}
	if changed(result) == 0 { // closed
		return fmt.Errorf("%w: the session has ended, or has no statement left", attest.ErrDenied)
	}
	return nil
}

// purgeMost bounds what one purge removes, so that it holds up nobody.
const purgeMost = 10_000

// PurgeSessions removes what is over: sessions that ended before a time, and
// spent tokens of which no copy is accepted any more.
func (s *SQLite) PurgeSessions(ctx context.Context, before time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *tx) error {
		for _, q := range []string{
			"DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires < ? LIMIT ?)",
			"DELETE FROM spent_tokens WHERE token IN (SELECT token FROM spent_tokens WHERE until < ? LIMIT ?)",
		} {
			if _, err := tx.exec(ctx, q, timeColumn{&before}, purgeMost); err != nil {
				return err
			}
		}
		return nil
	})
}
