-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Every API key that there ever was. Its secret is not here.
CREATE TABLE api_keys (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the secret
    name       TEXT NOT NULL,
    grants     TEXT NOT NULL, -- JSON
    tenant     TEXT NOT NULL, -- '' for every one
    owner      TEXT NOT NULL, -- JSON
    created    TEXT NOT NULL,
    expires    TEXT NOT NULL,
    revoked    TEXT,
    revoked_by TEXT, -- JSON
    CHECK ((revoked IS NULL) = (revoked_by IS NULL))
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER api_keys_update BEFORE UPDATE ON api_keys
    WHEN old.revoked IS NOT NULL OR new.revoked IS NULL
        OR new.seq <> old.seq OR new.id <> old.id OR new.hash <> old.hash OR new.name <> old.name OR new.grants <> old.grants
        OR new.tenant <> old.tenant OR new.owner <> old.owner OR new.created <> old.created OR new.expires <> old.expires
BEGIN SELECT RAISE(ABORT, 'api_keys is append-only, but for revoking once'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER api_keys_delete BEFORE DELETE ON api_keys BEGIN SELECT RAISE(ABORT, 'api_keys is append-only'); END;
-- +goose StatementEnd
