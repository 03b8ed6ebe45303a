-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Whose it is; '' for nobody's, as is all that is older than tenants.
ALTER TABLE intents ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE intents ADD COLUMN session TEXT NOT NULL DEFAULT ''; -- hex; '' for none
ALTER TABLE attested ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE decisions ADD COLUMN tenant TEXT NOT NULL DEFAULT '';

-- What workload tokens were exchanged for. A row goes some time after it has
-- ended.
CREATE TABLE sessions (
    id         BLOB PRIMARY KEY CHECK (length(id) = 32), -- SHA-256 of the secret
    issuer     TEXT NOT NULL,
    proof      BLOB NOT NULL, -- the token
    checked    BLOB, -- JSON
    subjects   BLOB NOT NULL CHECK (length(subjects) % 32 = 0), -- SHA-256 after SHA-256
    at         TEXT NOT NULL,
    expires    TEXT NOT NULL,
    statements INTEGER NOT NULL,
    used       INTEGER NOT NULL CHECK (used >= 0 AND used <= statements)
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_end ON sessions (expires);

-- The tokens that were exchanged, and into what; zeros for nothing. A row goes when a copy of the
-- token would be too old anyway.
CREATE TABLE spent_tokens (
    token   BLOB PRIMARY KEY CHECK (length(token) = 32),
    until   TEXT NOT NULL,
    session BLOB NOT NULL CHECK (length(session) = 32)
) STRICT, WITHOUT ROWID;

CREATE INDEX spent_tokens_by_end ON spent_tokens (until);

-- +goose StatementBegin
CREATE TRIGGER sessions_update BEFORE UPDATE ON sessions
    WHEN new.id <> old.id OR new.issuer <> old.issuer OR new.proof <> old.proof OR new.checked IS NOT old.checked
        OR new.at <> old.at OR new.subjects <> old.subjects OR new.expires <> old.expires OR new.statements <> old.statements OR new.used <= old.used
BEGIN SELECT RAISE(ABORT, 'sessions: only used grows'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER spent_tokens_update BEFORE UPDATE ON spent_tokens BEGIN SELECT RAISE(ABORT, 'a spent token stays so'); END;
-- +goose StatementEnd
