// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"

	"provost/attest"
)

// AppendAPIKey stores a new key. Another of its ID or its secret is an
// [attest.ErrConflict]; one that cannot have been made, or is revoked, an
// [attest.ErrInvalid].
func (s *SQLite) AppendAPIKey(ctx context.Context, k attest.APIKey) (attest.APIKey, error) {
	if err := k.Validate(); err != nil {
		return attest.APIKey{}, err
	}
	if !k.RevokedAt.IsZero() || k.RevokedBy != (attest.Person{}) {
		return attest.APIKey{}, fmt.Errorf("%w: API key %s: it is revoked", attest.ErrInvalid, k.Name)
	}
	err := s.write(ctx, func(ctx context.Context, tx *tx) error {
		result, err := tx.exec(ctx, `
			INSERT INTO api_keys (id, hash, name, grants, tenant, owner, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, digestColumn{&k.Hash}, k.Name, grantsColumn{&k.Grants}, k.Tenant, personColumn{&k.Owner},
			timeColumn{&k.CreatedAt}, timeColumn{&k.ExpiresAt})
		if err != nil {
			return err
		}
		k.Seq, err = result.LastInsertId()
		return err
	})
	if err != nil {
		return attest.APIKey{}, err
	}
	return k, nil
}

const selectAPIKeys = "SELECT seq, id, hash, name, grants, tenant, owner, created, expires, revoked, revoked_by FROM api_keys "

// APIKeys returns at most limit keys of those tenants after that Seq, in the
// order of storing, expired and revoked ones too. Those that hold in every
// tenant belong to none.
func (s *SQLite) APIKeys(ctx context.Context, in attest.Tenants, after int64, limit int) (found []attest.APIKey, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(tx *tx) error {
		whose, args := tenantsQuery(in)
		rows, err := tx.query(ctx, selectAPIKeys+"WHERE seq > ?"+whose+" ORDER BY seq LIMIT ?", append(append([]any{after}, args...), limit)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			k, err := scanAPIKey(rows.Scan)
			if err != nil {
				return err
			}
			found = append(found, k)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// APIKey returns the key of that ID, or an [attest.ErrNotFound].
func (s *SQLite) APIKey(ctx context.Context, id string) (attest.APIKey, error) {
	return s.oneAPIKey(ctx, "WHERE id = ?", id)
}

// APIKeyByHash returns the key whose secret has that SHA-256, expired or
// revoked, too, or an [attest.ErrNotFound].
func (s *SQLite) APIKeyByHash(ctx context.Context, hash attest.Digest) (attest.APIKey, error) {
	return s.oneAPIKey(ctx, "WHERE hash = ?", digestColumn{&hash})
}

func (s *SQLite) oneAPIKey(ctx context.Context, where string, arg any) (k attest.APIKey, err error) {
	err = s.read(ctx, func(tx *tx) error {
		k, err = findAPIKey(ctx, tx, where, arg)
		return err
	})
	if err != nil {
		return attest.APIKey{}, err
	}
	return k, nil
}

func findAPIKey(ctx context.Context, tx *tx, where string, arg any) (attest.APIKey, error) {
	k, err := scanAPIKey(tx.queryRow(ctx, selectAPIKeys+where, arg).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return k, fmt.Errorf("%w: API key", attest.ErrNotFound)
	}
	return k, err
}

// RevokeAPIKey stores that the key of k's ID is revoked, as k says, and returns
// it as it is then: the first revocation stays. There is no way back.
func (s *SQLite) RevokeAPIKey(ctx context.Context, k attest.APIKey) (stored attest.APIKey, err error) {
	if k.RevokedAt.IsZero() {
		return stored, fmt.Errorf("%w: API key: it is not revoked", attest.ErrInvalid)
	}
	err = s.write(ctx, func(ctx context.Context, tx *tx) error {
		if _, err := tx.exec(ctx, "UPDATE api_keys SET revoked = ?, revoked_by = ? WHERE id = ? AND revoked IS NULL",
			timeColumn{&k.RevokedAt}, personColumn{&k.RevokedBy}, k.ID); err != nil {
			return err
		}
		stored, err = findAPIKey(ctx, tx, "WHERE id = ?", k.ID)
		return err
	})
	if err != nil {
		return attest.APIKey{}, err
	}
	return stored, nil
}

func scanAPIKey(scan func(...any) error) (k attest.APIKey, err error) {
	var revoked, by sql.NullString
	if err := scan(&k.Seq, &k.ID, digestColumn{&k.Hash}, &k.Name, grantsColumn{&k.Grants}, &k.Tenant, personColumn{&k.Owner},
		timeColumn{&k.CreatedAt}, timeColumn{&k.ExpiresAt}, &revoked, &by); err != nil {
		return attest.APIKey{}, err
	}
	if revoked.Valid {
		err = errors.Join(timeColumn{&k.RevokedAt}.Scan(revoked.String), personColumn{&k.RevokedBy}.Scan(by.String))
	}
	return k, err
}

// A grantsColumn is grants as JSON in TEXT.
type grantsColumn struct{ g *[]attest.Grant }

func (c grantsColumn) Value() (driver.Value, error) {
	raw, err := json.Marshal(*c.g)
	return string(raw), err
}

func (c grantsColumn) Scan(v any) error {
	s, _ := v.(string)
	if err := json.Unmarshal([]byte(s), c.g); err != nil {
		return fmt.Errorf("stored grants: %v", err)
	}
	return nil
}

// A personColumn is a person as JSON in TEXT.
type personColumn struct{ p *attest.Person }

// Value refuses what JSON would replace without a word.
func (c personColumn) Value() (driver.Value, error) {
	if err := checkText(c.p.Issuer, c.p.Subject, c.p.Key); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(*c.p)
	return string(raw), err
}

func (c personColumn) Scan(v any) error {
	s, _ := v.(string)
	if err := json.Unmarshal([]byte(s), c.p); err != nil {
		return fmt.Errorf("stored person: %v", err)
	}
	return nil
}
