// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package attest is what Provost says: statements, predicates, bundles, and
// the life of a signature from a caller's request to the released bundle.
//
// It touches nothing: no file, socket, database or log. What it needs done it
// asks of three narrow interfaces ([Signer], [Timestamper], [Ledger]), and it
// holds one invariant over them:
//
//	no signature exists whose intent is not stored, and
//	no bundle is released that is not stored.
//
// A statement is encoded once. Everything after that step, hashing, signing,
// storing, works on those very bytes.
package attest
