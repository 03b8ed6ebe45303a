// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"provost/attest"
)

// TestStoredNonsense: what this package cannot have written is an error, and
// not one that blames the caller.
func TestStoredNonsense(t *testing.T) {
	for name, column := range map[string]sql.Scanner{
		"time":    timeColumn{new(time.Time)},
		"digest":  digestColumn{new(attest.Digest)},
		"verdict": verdictColumn{new(attest.Verdict)},
		"reasons": reasonsColumn{new([]attest.Reason)},
	} {
		for _, v := range []any{"", "x", []byte{1, 2, 3}, []byte{}, int64(7), "2026-03-01T00:00:00Z"} {
			if err := column.Scan(v); err == nil || errors.Is(err, attest.ErrInvalid) {
				t.Errorf("%s %#v: got %v: want an error that is no ErrInvalid", name, v, err)
			}
		}
	}
}
