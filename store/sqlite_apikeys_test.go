// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestAPIKeysAreRevokedOnce: the database itself lets a key be revoked, and
// nothing else be changed or taken back, whoever writes.
func TestAPIKeysAreRevokedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "provost.db")
	fillTables(t, openTest(t, path))
	outside := rawDB(t, path)
	const at, by = "revoked = '2026-03-01T12:00:00.000000000Z'", `revoked_by = '{"key":"bob"}'`
	refuses := func(set string) {
		t.Helper()
		if _, err := outside.Exec("UPDATE api_keys SET " + set); err == nil || !strings.Contains(err.Error(), "append-only") && !strings.Contains(err.Error(), "CHECK") {
			t.Errorf("%s: %v; want it refused", set, err)
		}
	}
	for _, change := range []string{
		"id = 'x'", "hash = zeroblob(32)", "name = 'x'", "grants = '[]'", "tenant = 'x'", "owner = '{}'", "created = ''", "expires = '9'", "seq = 9",
	} {
		refuses(change)
		refuses(change + ", " + at + ", " + by)
	}
	refuses(at)
	mustExec(t, outside, "UPDATE api_keys SET "+at+", "+by)
	refuses("revoked = NULL, revoked_by = NULL")
	refuses(at + ", " + by)
}
