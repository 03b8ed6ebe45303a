-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Bundles that others signed. One is there once for each tenant and root,
-- however often it is imported: a tenant's must not hide another's.
CREATE TABLE imported (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    tenant         TEXT NOT NULL, -- '' for none
    root           TEXT NOT NULL,
    digest         BLOB NOT NULL CHECK (length(digest) = 32), -- SHA-256 of the bundle
    predicate_type TEXT NOT NULL,
    issuer         TEXT NOT NULL,
    san            TEXT NOT NULL,
    signed_at      TEXT NOT NULL,
    at             TEXT NOT NULL,
    bundle         BLOB NOT NULL CHECK (length(bundle) > 0),
    UNIQUE (digest, root, tenant)
) STRICT;

CREATE TABLE imported_subjects (
    imported INTEGER NOT NULL REFERENCES imported (seq),
    position INTEGER NOT NULL, -- from 0
    name     TEXT NOT NULL,
    sha256   BLOB CHECK (length(sha256) = 32),
    sha512   BLOB CHECK (length(sha512) = 64),
    CHECK (sha256 IS NOT NULL OR sha512 IS NOT NULL),
    PRIMARY KEY (imported, position)
) STRICT, WITHOUT ROWID;

-- From an artifact to what was imported about it, in the order of storing. The
-- length of a digest tells its algorithm. The tenant stands here, too, so that
-- no bundle is read that is not asked for.
CREATE TABLE imported_about (
    digest BLOB NOT NULL CHECK (length(digest) IN (32, 64)),
    seq    INTEGER NOT NULL REFERENCES imported (seq),
    tenant TEXT NOT NULL,
    PRIMARY KEY (digest, seq)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER imported_update BEFORE UPDATE ON imported BEGIN SELECT RAISE(ABORT, 'imported is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER imported_delete BEFORE DELETE ON imported BEGIN SELECT RAISE(ABORT, 'imported is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER imported_subjects_update BEFORE UPDATE ON imported_subjects BEGIN SELECT RAISE(ABORT, 'imported_subjects is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER imported_subjects_delete BEFORE DELETE ON imported_subjects BEGIN SELECT RAISE(ABORT, 'imported_subjects is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER imported_about_update BEFORE UPDATE ON imported_about BEGIN SELECT RAISE(ABORT, 'imported_about is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER imported_about_delete BEFORE DELETE ON imported_about BEGIN SELECT RAISE(ABORT, 'imported_about is append-only'); END;
-- +goose StatementEnd
