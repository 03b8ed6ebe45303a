// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"

	"provost/attest"
)

// AppendImported stores a bundle that others signed, sets its Seq, and returns
// what is stored: of a bundle that the tenant imported under that root before,
// the first one. It is an [attest.ErrConflict] if the ID is taken and an
// [attest.ErrInvalid] if it cannot be found or represented.
func (s *SQLite) AppendImported(ctx context.Context, i attest.Imported) (stored attest.Imported, err error) {
	if err := checkImported(i); err != nil {
		return stored, err
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		stored, err = appendImported(ctx, tx, i)
		return err
	})
	if err != nil {
		return attest.Imported{}, err
	}
	return stored, nil
}

// Imported returns the imported bundle of that ID, or an [attest.ErrNotFound].
func (s *SQLite) Imported(ctx context.Context, id string) (i attest.Imported, err error) {
	err = s.read(ctx, func(tx *tx) error {
		found, err := findImported(ctx, tx, "WHERE id = ?", id)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%w: imported bundle %.40q", attest.ErrNotFound, id)
		}
		if err != nil {
			return err
		}
		i = found[0]
		return nil
	})
	if err != nil {
		return attest.Imported{}, err
	}
	return i, nil
}

// ImportedAbout returns what q selects, in the order of storing; none is not an
// error. What is stored later has a larger Seq than all that were ever
// returned, so paging by q.After misses none. All bundles of a page are in
// memory at once.
func (s *SQLite) ImportedAbout(ctx context.Context, q attest.ImportedQuery) (found []attest.Imported, err error) {
	if q.Artifact.IsZero() {
		return nil, fmt.Errorf("%w: query names no artifact", attest.ErrInvalid)
	}
	if err := checkLimit(q.Limit); err != nil {
		return nil, err
	}
	in, whose := tenantsQuery(q.In)
	args := append([]any{digestColumn{&q.Artifact}, q.After}, whose...)
	err = s.read(ctx, func(tx *tx) error {
		found, err = findImported(ctx, tx, "WHERE seq IN (SELECT seq FROM imported_about WHERE digest = ? AND seq > ?"+in+" ORDER BY seq LIMIT ?) ORDER BY seq",
			append(args, q.Limit)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func checkImported(i attest.Imported) error {
	if i.ID == "" || i.Root == "" || len(i.Bundle) == 0 || len(i.Subjects) == 0 {
		return fmt.Errorf("%w: imported bundle: want an id, a root, a subject and the bundle", attest.ErrInvalid)
	}
	if err := checkText(i.ID, i.Root, i.PredicateType, i.Issuer, i.SAN, i.Tenant); err != nil {
		return err
	}
	for n, sub := range i.Subjects {
		ok256 := sub.SHA256.IsZero() || sub.SHA256.Algorithm() == attest.AlgSHA256
		ok512 := sub.SHA512.IsZero() || sub.SHA512.Algorithm() == attest.AlgSHA512
		if !ok256 || !ok512 || sub.SHA256.IsZero() && sub.SHA512.IsZero() {
			return fmt.Errorf("%w: subject %d: want a sha256, a sha512 or both", attest.ErrInvalid, n)
		}
		if err := checkText(sub.Name); err != nil {
			return err
		}
	}
	return nil
}

func appendImported(ctx context.Context, tx *tx, i attest.Imported) (attest.Imported, error) {
	digest := attest.SHA256(i.Bundle)
	i.SignedAt, i.At = i.SignedAt.UTC(), i.At.UTC()
	result, err := tx.exec(ctx, `
		INSERT INTO imported (id, tenant, root, digest, predicate_type, issuer, san, signed_at, at, bundle)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest, root, tenant) DO NOTHING`,
		i.ID, i.Tenant, i.Root, digestColumn{&digest}, i.PredicateType, i.Issuer, i.SAN, timeColumn{&i.SignedAt}, timeColumn{&i.At}, i.Bundle)
	if err != nil {
		return attest.Imported{}, err
	}
	if changed(result) == 0 { // it was imported before
		found, err := findImported(ctx, tx, "WHERE digest = ? AND root = ? AND tenant = ?", digestColumn{&digest}, i.Root, i.Tenant)
		if err == nil && len(found) != 1 {
			err = errors.New("an imported bundle is there and is not found")
		}
		if err != nil {
			return attest.Imported{}, err
		}
		return found[0], nil
	}
	if i.Seq, err = result.LastInsertId(); err != nil {
		return attest.Imported{}, err
	}
	for n, sub := range i.Subjects {
		if _, err := tx.exec(ctx, "INSERT INTO imported_subjects (imported, position, name, sha256, sha512) VALUES (?, ?, ?, ?, ?)",
			i.Seq, n, sub.Name, digestColumn{&sub.SHA256}, digestColumn{&sub.SHA512}); err != nil {
			return attest.Imported{}, err
		}
		for _, d := range []attest.Digest{sub.SHA256, sub.SHA512} {
			if d.IsZero() {
				continue
			}
			if _, err := tx.exec(ctx, "INSERT INTO imported_about (digest, seq, tenant) VALUES (?, ?, ?) ON CONFLICT (digest, seq) DO NOTHING",
				digestColumn{&d}, i.Seq, i.Tenant); err != nil {
				return attest.Imported{}, err
			}
		}
	}
	return i, nil
}

// findImported runs one of the selections above; where is always a constant,
// but for the tenants' condition.
func findImported(ctx context.Context, tx *tx, where string, args ...any) ([]attest.Imported, error) {
	rows, err := tx.query(ctx, "SELECT seq, id, tenant, root, predicate_type, issuer, san, signed_at, at, bundle FROM imported "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []attest.Imported
	for rows.Next() {
		var i attest.Imported
		if err := rows.Scan(&i.Seq, &i.ID, &i.Tenant, &i.Root, &i.PredicateType, &i.Issuer, &i.SAN, timeColumn{&i.SignedAt}, timeColumn{&i.At}, &i.Bundle); err != nil {
			return nil, err
		}
		found = append(found, i)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for n := range found {
		if found[n].Subjects, err = findImportedSubjects(ctx, tx, found[n].Seq); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func findImportedSubjects(ctx context.Context, tx *tx, imported int64) ([]attest.Subject, error) {
	return readSubjects(ctx, tx, "SELECT name, sha256, sha512 FROM imported_subjects WHERE imported = ? ORDER BY position", imported)
}
