// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"provost/attest"
)

// Grow puts n attestations into an SQLite database that has the store's schema,
// no attestations, and nobody who has it open: each signed a second after the
// one before, logged in a log of its own, and about an artifact of its own.
// Their bundles are of half a kilobyte, for the time it takes; all rows beside
// them are as the service's.
func Grow(ctx context.Context, path string, n int) (err error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		"PRAGMA synchronous = OFF", "PRAGMA cache_size = -400000", "BEGIN",
		fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d)
		INSERT INTO intents (seq, id, at, caller_issuer, caller_subject, signer, predicate_type, payload, message, idempotency_key)
		SELECT i, lower(hex(randomblob(13))), strftime('%%Y-%%m-%%dT%%H:%%M:%%S.000000000Z', 1700000000+i, 'unixepoch'),
			'https://token.actions.example.com', 'repo:organization/repository:ref:refs/heads/main', 'provenance', '%s', randomblob(32), randomblob(32), '' FROM n`,
			n, attest.ProvenanceType),
		"INSERT INTO subjects (intent, position, name, sha256) SELECT seq, 0, id, randomblob(32) FROM intents ORDER BY seq",
		"INSERT INTO attestations (intent, key_version, signed_at, bundle) SELECT seq, 1, at, zeroblob(512) FROM intents ORDER BY seq",
		"INSERT INTO attested (digest, seq, predicate_type) SELECT s.sha256, s.intent, i.predicate_type FROM subjects s JOIN intents i ON i.seq = s.intent ORDER BY s.sha256",
		"INSERT INTO signed (signer, seq, key_version, signed_at, log, log_index) SELECT 'provenance', seq, 1, signed_at, 'aa11', seq FROM attestations ORDER BY seq",
		"INSERT INTO signatures (signer, key_version, count) SELECT signer, key_version, count(1) FROM signed GROUP BY 1, 2",
		"COMMIT", "PRAGMA wal_checkpoint(TRUNCATE)",
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%w: %.60s", err, q)
		}
	}
	return nil
}
