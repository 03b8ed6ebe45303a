-- SPDX-FileCopyrightText: The Provost Authors
-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- The builder registry: every row that there ever was. What holds of a name is
-- the last row that is not proposed; a later one that is, is a proposal.
CREATE TABLE builders (
    revision INTEGER PRIMARY KEY,
    name     TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('active', 'proposed', 'retired')),
    row      TEXT NOT NULL -- JSON: see builderColumn
) STRICT;

CREATE INDEX builders_by_name ON builders (name, revision);

-- +goose StatementBegin
CREATE TRIGGER builders_update BEFORE UPDATE ON builders BEGIN SELECT RAISE(ABORT, 'builders is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER builders_delete BEFORE DELETE ON builders BEGIN SELECT RAISE(ABORT, 'builders is append-only'); END;
-- +goose StatementEnd
