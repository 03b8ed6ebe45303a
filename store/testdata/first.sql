-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- The rows of a database of the first release, as goose and it have left them.
PRAGMA application_id = 1347573331;

CREATE TABLE goose_db_version (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    version_id INTEGER NOT NULL,
    is_applied INTEGER NOT NULL,
    tstamp TIMESTAMP DEFAULT (datetime('now'))
);
INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1);

INSERT INTO intents (seq, id, at, caller_issuer, caller_subject, signer, predicate_type, payload, idempotency_key) VALUES
    (1, 'intent-1', '2026-03-01T12:00:00.000000005Z', 'https://issuer.example', 'repo:a/b', 'provenance', 'https://slsa.dev/provenance/v1', unhex('239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5'), ''),
    (2, 'intent-2', '2026-03-01T12:00:00.000000005Z', 'https://issuer.example', 'repo:a/b', 'provenance', 'https://slsa.dev/provenance/v1', unhex('239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5'), 'done'),
    (3, 'intent-3', '2026-03-01T12:00:00.000000005Z', 'https://issuer.example', 'repo:a/b', 'provenance', 'https://slsa.dev/provenance/v1', unhex('239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5'), ''),
    (4, 'intent-4', '2026-03-01T12:00:00.000000005Z', 'https://issuer.example', 'repo:a/b', 'verdict', 'https://slsa.dev/verification_summary/v1', unhex('239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5'), ''),
    (5, 'intent-5', '2026-03-01T12:00:00.000000005Z', 'https://issuer.example', 'repo:a/b', 'provenance', 'https://slsa.dev/provenance/v1', unhex('239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5'), 'key');

-- The digests of "a" and "b".
INSERT INTO subjects (intent, position, name, sha256)
    SELECT seq, 0, 'a', unhex('ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb') FROM intents WHERE seq <> 4;
INSERT INTO subjects (intent, position, name, sha256)
    SELECT seq, seq <> 4, 'b', unhex('3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d') FROM intents WHERE seq <> 5;

INSERT INTO attestations (seq, intent, key_version, signed_at, bundle) VALUES
    (1, 1, 1, '2026-03-01T12:00:00.000000005Z', CAST('bundle 1' AS BLOB)),
    (2, 2, 1, '2026-03-01T13:00:00.000000005Z', CAST('bundle 2' AS BLOB)),
    (3, 3, 2, '2026-03-01T14:00:00.000000005Z', CAST('bundle 3' AS BLOB)),
    (4, 4, 7, '2026-03-01T12:00:00.000000005Z', CAST('bundle 4' AS BLOB));

INSERT INTO attested (digest, seq, predicate_type)
    SELECT s.sha256, a.seq, i.predicate_type FROM attestations a JOIN intents i ON i.seq = a.intent JOIN subjects s ON s.intent = i.seq;

INSERT INTO open_intents (intent) VALUES (5);

INSERT INTO decisions (seq, id, at, caller, artifact, name, environment, verdict, reasons, vsa, vsa_id) VALUES
    (1, 'decision-1', '2026-03-01T12:00:00.000000005Z', 'c', unhex('ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb'), 'a', 'prod', 'PASS', '[{"rule":"r","severity":"info","message":"m"}]', CAST('bundle 4' AS BLOB), 'intent-4');

INSERT INTO certificates (name, version, der) VALUES ('root', 1, CAST('der' AS BLOB));
