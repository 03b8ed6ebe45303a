-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- What is signed and logged for the intent: NULL in rows that are older than
-- the log.
ALTER TABLE intents ADD COLUMN message BLOB CHECK (length(message) = 32);

CREATE INDEX intents_by_message ON intents (message) WHERE message IS NOT NULL;

-- Every attestation once more, by its signer and in the order of storing, with
-- what one asks of many at once. It stands apart because SQLite reads what
-- comes after a bundle through the bundle.
CREATE TABLE signed (
    signer      TEXT NOT NULL,
    seq         INTEGER NOT NULL REFERENCES attestations (seq),
    key_version INTEGER NOT NULL,
    signed_at   TEXT NOT NULL,
    log         TEXT NOT NULL, -- '' for none
    log_index   INTEGER NOT NULL CHECK (log_index >= 0 AND (log_index = 0 OR log <> '')),
    PRIMARY KEY (signer, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO signed (signer, seq, key_version, signed_at, log, log_index)
    SELECT i.signer, a.seq, a.key_version, a.signed_at, '', 0
    FROM attestations a JOIN intents i ON i.seq = a.intent ORDER BY i.signer, a.seq;

CREATE INDEX signed_by_time ON signed (signer, signed_at, seq, key_version);
CREATE UNIQUE INDEX signed_in_log ON signed (log, log_index) WHERE log <> '';

-- How many attestations a key version has. It only grows.
CREATE TABLE signatures (
    signer      TEXT NOT NULL,
    key_version INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    PRIMARY KEY (signer, key_version)
) STRICT, WITHOUT ROWID;

INSERT INTO signatures (signer, key_version, count)
    SELECT signer, key_version, count(1) FROM signed GROUP BY signer, key_version;

-- Entries of a log that no attestation had when they were found. intent is ''
-- when none is known.
CREATE TABLE log_orphans (
    seq       INTEGER PRIMARY KEY,
    log       TEXT NOT NULL CHECK (log <> ''),
    log_index INTEGER NOT NULL CHECK (log_index >= 0),
    message   BLOB NOT NULL CHECK (length(message) = 32),
    intent    TEXT NOT NULL,
    at        TEXT NOT NULL,
    UNIQUE (log, log_index)
) STRICT;

CREATE TABLE key_revocations (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    signer      TEXT NOT NULL,
    key_version INTEGER NOT NULL CHECK (key_version >= 1),
    from_at     TEXT NOT NULL,
    to_at       TEXT NOT NULL CHECK (to_at >= from_at), -- inclusive
    at          TEXT NOT NULL,
    by          TEXT NOT NULL,
    reason      TEXT NOT NULL
) STRICT;

-- Who may do now what only one may do at a time.
CREATE TABLE leases (
    name   TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER signed_update BEFORE UPDATE ON signed BEGIN SELECT RAISE(ABORT, 'signed is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER signed_delete BEFORE DELETE ON signed BEGIN SELECT RAISE(ABORT, 'signed is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER signatures_update BEFORE UPDATE ON signatures
    WHEN new.signer <> old.signer OR new.key_version <> old.key_version OR new.count <= old.count
BEGIN SELECT RAISE(ABORT, 'signatures only grows'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER signatures_delete BEFORE DELETE ON signatures BEGIN SELECT RAISE(ABORT, 'signatures only grows'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER log_orphans_update BEFORE UPDATE ON log_orphans BEGIN SELECT RAISE(ABORT, 'log_orphans is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER log_orphans_delete BEFORE DELETE ON log_orphans BEGIN SELECT RAISE(ABORT, 'log_orphans is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER key_revocations_update BEFORE UPDATE ON key_revocations BEGIN SELECT RAISE(ABORT, 'key_revocations is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER key_revocations_delete BEFORE DELETE ON key_revocations BEGIN SELECT RAISE(ABORT, 'key_revocations is append-only'); END;
-- +goose StatementEnd
