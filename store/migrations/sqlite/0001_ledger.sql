-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- What was about to be signed, for whom. seq is the order of storing.
CREATE TABLE intents (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    at              TEXT NOT NULL, -- RFC 3339, UTC, nine digits: see timeColumn
    caller_issuer   TEXT NOT NULL,
    caller_subject  TEXT NOT NULL,
    signer          TEXT NOT NULL,
    predicate_type  TEXT NOT NULL,
    payload         BLOB NOT NULL CHECK (length(payload) = 32), -- SHA-256
    idempotency_key TEXT NOT NULL -- '' for none
) STRICT;

CREATE UNIQUE INDEX intents_key ON intents (caller_issuer, caller_subject, idempotency_key)
    WHERE idempotency_key <> '';

CREATE TABLE subjects (
    intent   INTEGER NOT NULL REFERENCES intents (seq),
    position INTEGER NOT NULL, -- in the statement, from 0
    name     TEXT NOT NULL,
    sha256   BLOB NOT NULL CHECK (length(sha256) = 32),
    sha512   BLOB CHECK (length(sha512) = 64),
    PRIMARY KEY (intent, position)
) STRICT, WITHOUT ROWID;

-- What was released. What it says stands in its intent.
CREATE TABLE attestations (
    seq         INTEGER PRIMARY KEY,
    intent      INTEGER NOT NULL UNIQUE REFERENCES intents (seq),
    key_version INTEGER NOT NULL,
    signed_at   TEXT NOT NULL,
    bundle      BLOB NOT NULL CHECK (length(bundle) > 0)
) STRICT;

-- From an artifact to the attestations about it, in the order of storing. Both
-- digests of a subject stand here; their lengths tell the algorithms apart.
-- The index by type keeps a gate, which leaves out its own verdicts, from
-- walking over the many that one artifact gathers.
CREATE TABLE attested (
    digest         BLOB NOT NULL,
    seq            INTEGER NOT NULL REFERENCES attestations (seq),
    predicate_type TEXT NOT NULL,
    PRIMARY KEY (digest, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX attested_by_type ON attested (digest, predicate_type, seq);

-- The intents without an attestation: a work list, so that finding the few
-- does not walk over the many. A row leaves only when the attestation is there.
CREATE TABLE open_intents (
    intent INTEGER PRIMARY KEY REFERENCES intents (seq)
) STRICT;

CREATE TABLE decisions (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    at          TEXT NOT NULL,
    caller      TEXT NOT NULL,
    artifact    BLOB NOT NULL CHECK (length(artifact) IN (32, 64)),
    name        TEXT NOT NULL,
    environment TEXT NOT NULL,
    verdict     TEXT NOT NULL,
    reasons     TEXT NOT NULL, -- JSON
    vsa         BLOB,
    vsa_id      TEXT NOT NULL
) STRICT;

CREATE INDEX decisions_by_artifact ON decisions (artifact, seq);
CREATE INDEX decisions_by_environment ON decisions (artifact, environment, seq);

CREATE TABLE certificates (
    name    TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    der     BLOB NOT NULL CHECK (length(der) > 0),
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

-- Written by Ready, and nothing but that.
CREATE TABLE health (
    id     INTEGER PRIMARY KEY,
    writes INTEGER NOT NULL,
    filler BLOB
) STRICT;
INSERT INTO health (id, writes) VALUES (1, 0);

-- What was signed is never changed and never taken back. With
-- recursive_triggers on, these hold for INSERT OR REPLACE too.
-- +goose StatementBegin
CREATE TRIGGER intents_update BEFORE UPDATE ON intents BEGIN SELECT RAISE(ABORT, 'intents is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER intents_delete BEFORE DELETE ON intents BEGIN SELECT RAISE(ABORT, 'intents is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER subjects_update BEFORE UPDATE ON subjects BEGIN SELECT RAISE(ABORT, 'subjects is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER subjects_delete BEFORE DELETE ON subjects BEGIN SELECT RAISE(ABORT, 'subjects is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER attestations_update BEFORE UPDATE ON attestations BEGIN SELECT RAISE(ABORT, 'attestations is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER attestations_delete BEFORE DELETE ON attestations BEGIN SELECT RAISE(ABORT, 'attestations is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER attested_update BEFORE UPDATE ON attested BEGIN SELECT RAISE(ABORT, 'attested is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER attested_delete BEFORE DELETE ON attested BEGIN SELECT RAISE(ABORT, 'attested is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER decisions_update BEFORE UPDATE ON decisions BEGIN SELECT RAISE(ABORT, 'decisions is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER decisions_delete BEFORE DELETE ON decisions BEGIN SELECT RAISE(ABORT, 'decisions is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER certificates_update BEFORE UPDATE ON certificates BEGIN SELECT RAISE(ABORT, 'certificates is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER certificates_delete BEFORE DELETE ON certificates BEGIN SELECT RAISE(ABORT, 'certificates is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER open_intents_update BEFORE UPDATE ON open_intents BEGIN SELECT RAISE(ABORT, 'open_intents is a work list'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER open_intents_delete BEFORE DELETE ON open_intents
    WHEN NOT EXISTS (SELECT 1 FROM attestations WHERE intent = old.intent)
BEGIN SELECT RAISE(ABORT, 'open_intents: the intent has no attestation'); END;
-- +goose StatementEnd
