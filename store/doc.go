// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package store is what Provost remembers: intents, attestations, decisions,
// certificates, revocations, builders, sessions and spent tokens, API keys, what
// others signed, the audit log, who has a lease, and which entries of the log
// nobody stored, in SQLite.
//
// It promises:
//
//   - What it has acknowledged survives the process being killed and the
//     machine losing power: every acknowledged write was synced to disk.
//   - What was recorded is never changed and never deleted; the database
//     itself refuses it. Only leases come and go, an API key is revoked once,
//     sessions count, and they and spent tokens go when they are over.
//   - Concurrent writers share a transaction, and each still fails alone. A
//     lone writer waits for nobody.
//   - The first writer wins, and everybody is told what the first one wrote.
//   - What cannot be given back exactly is not taken. Text with a NUL or that
//     is not UTF-8 is an [attest.ErrInvalid]: databases differ on it.
//   - A read is complete or an error. No failure looks like an empty answer.
//
// Every failure falls closed: the caller gets an error and must not act.
//
//   - No space, I/O error, read-only file, locked by another process, context
//     done, store closed: [attest.ErrUnavailable], as it may pass. The words
//     name no path.
//   - Too many are writing: [attest.BusyError], which says when to come back.
//   - Corruption, and whatever else cannot be explained: an error that wraps
//     none of the five, because trying again will not help.
//   - When a context ends, nothing was stored if the error says so. After
//     other errors the write may or may not be there; the idempotency key is
//     what makes trying again safe.
//
// The contract stands as a test suite in store/storetest. Every store passes
// it.
package store
