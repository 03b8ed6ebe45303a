// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"provost/attest"
)

// AppendIntent stores the intent, or finds the one that the caller's
// idempotency key already has: see [attest.Ledger]. While the earlier intent
// has no attestation its ID is returned with a nil done, and the caller may go
// on with it. It is an [attest.ErrConflict] if the ID is taken and an
// [attest.ErrInvalid] if the intent cannot be represented.
func (s *SQLite) AppendIntent(ctx context.Context, intent attest.Intent) (id string, done *attest.Attestation, err error) {
	if err := checkIntent(intent); err != nil {
		return "", nil, err
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		id, done, err = appendIntent(ctx, tx, intent)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return id, done, nil
}

// AppendAttestation stores a bundle under its intent's ID, sets its Seq, and
// returns what is stored there: see [attest.Ledger]. The predicate type, the
// signer and the subjects must be the intent's, or it is an
// [attest.ErrConflict]: what is released is what was announced. So it is if
// another attestation has that entry of the log.
func (s *SQLite) AppendAttestation(ctx context.Context, a attest.Attestation) (stored attest.Attestation, err error) {
	if len(a.Bundle) == 0 {
		return stored, fmt.Errorf("%w: attestation %.40q has no bundle", attest.ErrInvalid, a.ID)
	}
	if a.LogIndex < 0 || a.LogIndex != 0 && a.Log == "" {
		return stored, fmt.Errorf("%w: attestation %.40q: log index %d of log %.64q", attest.ErrInvalid, a.ID, a.LogIndex, a.Log)
	}
	if err := checkText(a.Log); err != nil {
		return stored, err
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		stored, err = appendAttestation(ctx, tx, a)
		return err
	})
	if err != nil {
		return attest.Attestation{}, err
	}
	return stored, nil
}

// Attestation returns the attestation of that ID, or an [attest.ErrNotFound].
func (s *SQLite) Attestation(ctx context.Context, id string) (a attest.Attestation, err error) {
	err = s.read(ctx, func(tx *tx) error {
		a, err = findAttestation(ctx, tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: attestation %.40q", attest.ErrNotFound, id)
		}
		return err
	})
	if err != nil {
		return attest.Attestation{}, err
	}
	return a, nil
}

// Attestations returns what q selects, in the order of storing; none is not an
// error. An attestation that is stored later has a larger Seq than all that
// were ever returned, so paging by q.After misses none. All bundles of a page
// are in memory at once.
func (s *SQLite) Attestations(ctx context.Context, q attest.Query) (found []attest.Attestation, err error) {
	if q.Artifact.IsZero() {
		return nil, fmt.Errorf("%w: query names no artifact", attest.ErrInvalid)
	}
	if err := checkLimit(q.Limit); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(tx *tx) error {
		page, args := attestedQuery(q)
		found, err = findAttestations(ctx, tx, withBundle, page, args)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// OpenIntents returns at most limit intents that have no attestation, oldest
// first: something may have been signed for them that nobody was given.
func (s *SQLite) OpenIntents(ctx context.Context, limit int) (found []attest.Intent, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(tx *tx) error {
		found, err = findIntents(ctx, tx, "FROM open_intents o JOIN intents i ON i.seq = o.intent ORDER BY o.intent LIMIT ?", limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// checkIntent refuses what could not be given back, or not be found again.
func checkIntent(in attest.Intent) error {
	if in.ID == "" || in.Payload.Algorithm() != attest.AlgSHA256 {
		return fmt.Errorf("%w: intent: want an id and the payload's sha256", attest.ErrInvalid)
	}
	if !in.Message.IsZero() && in.Message.Algorithm() != attest.AlgSHA256 {
		return fmt.Errorf("%w: intent: want the message's sha256, or nothing", attest.ErrInvalid)
	}
	if err := checkText(in.ID, in.CallerIssuer, in.CallerSubject, string(in.Signer), in.PredicateType, in.IdempotencyKey, in.Tenant, in.Session); err != nil {
		return err
	}
	if in.Audit != nil {
		if err := in.Audit.Validate(); err != nil {
			return err
		}
	}
	for i, sub := range in.Subjects {
		if sub.SHA256.Algorithm() != attest.AlgSHA256 || (!sub.SHA512.IsZero() && sub.SHA512.Algorithm() != attest.AlgSHA512) {
			return fmt.Errorf("%w: subject %d: want a sha256, and a sha512 or nothing", attest.ErrInvalid, i)
		}
		if err := checkText(sub.Name); err != nil {
			return err
		}
	}
	return nil
}

func appendIntent(ctx context.Context, tx *tx, in attest.Intent) (string, *attest.Attestation, error) {
	result, err := tx.exec(ctx, `
		INSERT INTO intents (id, at, caller_issuer, caller_subject, signer, predicate_type, payload, message, idempotency_key, tenant, session)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (caller_issuer, caller_subject, idempotency_key) WHERE idempotency_key <> '' DO NOTHING`,
		in.ID, timeColumn{&in.At}, in.CallerIssuer, in.CallerSubject, string(in.Signer), in.PredicateType,
		digestColumn{&in.Payload}, digestColumn{&in.Message}, in.IdempotencyKey, in.Tenant, in.Session)
	if in.IdempotencyKey != "" && (isTaken(err) || err == nil && changed(result) == 0) {
		id, done, findErr := findByKey(ctx, tx, in)
		if !errors.Is(findErr, sql.ErrNoRows) {
			if findErr == nil && done == nil && in.Session != "" { // it will be signed once more
				findErr = countStatement(ctx, tx, in)
			}
			if findErr == nil && in.Audit != nil { // who asks again is let again
				_, findErr = appendAudit(ctx, tx, *in.Audit)
			}
			return id, done, findErr
		}
	}
	if err != nil {
		return "", nil, err
	}
	seq, err := result.LastInsertId()
	if err != nil {
		return "", nil, err
	}
	if in.Session != "" {
		if err := countStatement(ctx, tx, in); err != nil {
			return "", nil, err
		}
	}
	if _, err := tx.exec(ctx, "INSERT INTO open_intents (intent) VALUES (?)", seq); err != nil {
		return "", nil, err
	}
	for i, sub := range in.Subjects {
		if _, err := tx.exec(ctx, "INSERT INTO subjects (intent, position, name, sha256, sha512) VALUES (?, ?, ?, ?, ?)",
			seq, i, sub.Name, digestColumn{&sub.SHA256}, digestColumn{&sub.SHA512}); err != nil {
			return "", nil, err
		}
	}
	if in.Audit != nil {
		if _, err := appendAudit(ctx, tx, *in.Audit); err != nil {
			return "", nil, err
		}
	}
	tx.announced = append(tx.announced, announced{in.ID, seq, in.Signer, in.PredicateType, in.Tenant, slices.Clone(in.Subjects)})
	return in.ID, nil, nil
}

// changed is how many rows a statement has changed.
func changed(result sql.Result) int64 {
	n, _ := result.RowsAffected() // SQLite always knows
	return n
}

// findByKey returns the intent that the caller's key already has and, if it
// was released, its attestation. Without one it is sql.ErrNoRows.
func findByKey(ctx context.Context, tx *tx, in attest.Intent) (string, *attest.Attestation, error) {
	var id, tenant string
	var payload attest.Digest
	err := tx.queryRow(ctx, `
		SELECT id, payload, tenant FROM intents
		WHERE caller_issuer = ? AND caller_subject = ? AND idempotency_key = ? AND idempotency_key <> ''`,
		in.CallerIssuer, in.CallerSubject, in.IdempotencyKey).Scan(&id, digestColumn{&payload}, &tenant)
	if err != nil {
		return "", nil, err
	}
	if payload != in.Payload || tenant != in.Tenant { // closed: a subject can be named again by another tenant
		return "", nil, fmt.Errorf("%w: the idempotency key was used for another statement", attest.ErrConflict)
	}
	a, err := findAttestation(ctx, tx, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return id, nil, nil
	case err != nil:
		return "", nil, err
	}
	return id, &a, nil
}

func appendAttestation(ctx context.Context, tx *tx, a attest.Attestation) (attest.Attestation, error) {
	var none attest.Attestation
	in, err := findAnnounced(ctx, tx, a.ID)
	if err != nil {
		return none, err
	}
	if !in.fits(a) {
		return none, fmt.Errorf("%w: attestation %s says something else than its intent", attest.ErrConflict, a.ID)
	}
	a.SignedAt = a.SignedAt.UTC()
	result, err := tx.exec(ctx, `
		INSERT INTO attestations (intent, key_version, signed_at, bundle) VALUES (?, ?, ?, ?) ON CONFLICT (intent) DO NOTHING`,
		in.intent, a.KeyVersion, timeColumn{&a.SignedAt}, a.Bundle)
	if err != nil {
		return none, err
	}
	if changed(result) == 0 { // somebody was first
		return findAttestation(ctx, tx, a.ID)
	}
	if a.Seq, err = result.LastInsertId(); err != nil {
		return none, err
	}
	// Two subjects may share a digest, under two names.
	for _, sub := range a.Subjects {
		for _, d := range []attest.Digest{sub.SHA256, sub.SHA512} {
			if d.IsZero() {
				continue
			}
			if _, err := tx.exec(ctx, "INSERT INTO attested (digest, seq, predicate_type, tenant) VALUES (?, ?, ?, ?) ON CONFLICT (digest, seq) DO NOTHING",
				digestColumn{&d}, a.Seq, a.PredicateType, in.tenant); err != nil {
				return none, err
			}
		}
	}
	if _, err := tx.exec(ctx, "INSERT INTO signed (signer, seq, key_version, signed_at, log, log_index) VALUES (?, ?, ?, ?, ?, ?)",
		string(a.Signer), a.Seq, a.KeyVersion, timeColumn{&a.SignedAt}, a.Log, a.LogIndex); err != nil {
		return none, err
	}
	if attest.IsAuditHead(a.PredicateType) {
		if _, err := tx.exec(ctx, "INSERT INTO audit_heads (seq) VALUES (?)", a.Seq); err != nil {
			return none, err
		}
	}
	if _, err := tx.exec(ctx, "DELETE FROM open_intents WHERE intent = ?", in.intent); err != nil {
		return none, err
	}
	a.Bundle = bytes.Clone(a.Bundle) // ours to give; the caller keeps its own
	a.Subjects, a.Tenant = in.subjects, in.tenant
	tx.signed[version{a.Signer, a.KeyVersion}]++
	return a, nil
}

// findAnnounced returns what was announced under that ID, or an ErrNotFound.
func findAnnounced(ctx context.Context, tx *tx, id string) (announced, error) {
	if in, ok := tx.recent.take(id); ok {
		return in, nil
	}
	in := announced{id: id}
	err := tx.queryRow(ctx, "SELECT seq, signer, predicate_type, tenant FROM intents WHERE id = ?", id).
		Scan(&in.intent, &in.signer, &in.predicateType, &in.tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return in, fmt.Errorf("%w: intent %.40q", attest.ErrNotFound, id)
	}
	if err == nil {
		in.subjects, err = findSubjects(ctx, tx, in.intent)
	}
	return in, err
}

// The selections that go with scanAttestation. The join to signed is a left
// one so that a row that is missing there is an error, and not nothing.
const (
	withBundle    = selectAttestation + "a.bundle" + fromAttestations
	withoutBundle = selectAttestation + "NULL" + fromAttestations

	selectAttestation = "SELECT i.seq, i.id, a.seq, i.predicate_type, i.signer, i.tenant, a.key_version, a.signed_at, g.log, g.log_index, "
	fromAttestations  = `
		FROM attestations a JOIN intents i ON i.seq = a.intent LEFT JOIN signed g ON g.signer = i.signer AND g.seq = a.seq `
)

func scanAttestation(row interface{ Scan(...any) error }) (intent int64, a attest.Attestation, err error) {
	err = row.Scan(&intent, &a.ID, &a.Seq, &a.PredicateType, &a.Signer, &a.Tenant, &a.KeyVersion, timeColumn{&a.SignedAt}, &a.Log, &a.LogIndex, &a.Bundle)
	return intent, a, err
}

// findAttestation returns sql.ErrNoRows when there is none.
func findAttestation(ctx context.Context, tx *tx, id string) (attest.Attestation, error) {
	intent, a, err := scanAttestation(tx.queryRow(ctx, withBundle+"WHERE i.id = ?", id))
	if err != nil {
		return a, err
	}
	a.Subjects, err = findSubjects(ctx, tx, intent)
	return a, err
}

// attestedQuery selects the seqs of a page. Each form walks along one index.
// To leave out a type, it takes the types below and above it; by itself SQLite
// would rather walk over the whole artifact than sort those few.
func attestedQuery(q attest.Query) (string, []any) {
	artifact := digestColumn{&q.Artifact}
	in, whose := tenantsQuery(q.In)
	by := "SELECT seq FROM attested INDEXED BY attested_by_type WHERE digest = ? AND seq > ?" + in + " AND predicate_type "
	args := append([]any{artifact, q.After}, whose...)
	switch {
	case q.PredicateType != "" && q.PredicateType == q.NotPredicateType:
		return "SELECT seq FROM attested WHERE false", nil
	case q.PredicateType != "":
		return by + "= ? ORDER BY seq LIMIT ?", append(args, q.PredicateType, q.Limit)
	case q.NotPredicateType != "":
		half := append(args, q.NotPredicateType)
		return by + "< ? UNION ALL " + by + "> ? ORDER BY seq LIMIT ?", append(slices.Concat(half, half), q.Limit)
	default:
		return "SELECT seq FROM attested WHERE digest = ? AND seq > ?" + in + " ORDER BY seq LIMIT ?", append(args, q.Limit)
	}
}

// tenantsQuery is the part of a condition on a column tenant that keeps to
// those tenants.
func tenantsQuery(t attest.Tenants) (string, []any) {
	if t.All {
		return "", nil
	}
	names := slices.DeleteFunc(slices.Clone(t.Names), func(name string) bool { return name == "" })
	if t.Shared {
		names = append(names, "")
	}
	list, err := json.Marshal(names)
	if err != nil || len(names) == 0 {
		list = []byte("[]") // closed: nobody's
	}
	return " AND tenant IN (SELECT value FROM json_each(?))", []any{string(list)}
}

// findAttestations returns, in the order of storing, those whose seqs page
// selects.
func findAttestations(ctx context.Context, tx *tx, selection, page string, args []any) ([]attest.Attestation, error) {
	rows, err := tx.query(ctx, selection+"WHERE a.seq IN (SELECT seq FROM ("+page+")) ORDER BY a.seq", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []attest.Attestation
	var intents []int64
	for rows.Next() {
		intent, a, err := scanAttestation(rows)
		if err != nil {
			return nil, err
		}
		found, intents = append(found, a), append(intents, intent)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range found {
		if found[i].Subjects, err = findSubjects(ctx, tx, intents[i]); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func findSubjects(ctx context.Context, tx *tx, intent int64) ([]attest.Subject, error) {
	return readSubjects(ctx, tx, "SELECT name, sha256, sha512 FROM subjects WHERE intent = ? ORDER BY position", intent)
}

// readSubjects runs one of the selections above, of what has that number.
func readSubjects(ctx context.Context, tx *tx, query string, of int64) ([]attest.Subject, error) {
	rows, err := tx.query(ctx, query, of)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var subjects []attest.Subject
	for rows.Next() {
		var sub attest.Subject
		if err := rows.Scan(&sub.Name, digestColumn{&sub.SHA256}, digestColumn{&sub.SHA512}); err != nil {
			return nil, err
		}
		subjects = append(subjects, sub)
	}
	return subjects, rows.Err()
}

// findIntents returns the intents i that from, a constant, selects.
func findIntents(ctx context.Context, tx *tx, from string, args ...any) ([]attest.Intent, error) {
	rows, err := tx.query(ctx, `
		SELECT i.seq, i.id, i.at, i.caller_issuer, i.caller_subject, i.signer, i.predicate_type, i.payload, i.message, i.idempotency_key, i.tenant, i.session
		`+from, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []attest.Intent
	var seqs []int64
	for rows.Next() {
		var seq int64
		var in attest.Intent
		if err := rows.Scan(&seq, &in.ID, timeColumn{&in.At}, &in.CallerIssuer, &in.CallerSubject, &in.Signer,
			&in.PredicateType, digestColumn{&in.Payload}, digestColumn{&in.Message}, &in.IdempotencyKey, &in.Tenant, &in.Session); err != nil {
			return nil, err
		}
		found, seqs = append(found, in), append(seqs, seq)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range found {
		if found[i].Subjects, err = findSubjects(ctx, tx, seqs[i]); err != nil {
			return nil, err
		}
	}
	return found, nil
}
