// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"provost/attest"
)

// LogRecords is what is remembered of the log.
type LogRecords interface {
	// LogHead returns the attestation with the largest index in the log of
	// that ID, or an [attest.ErrNotFound].
	LogHead(ctx context.Context, log string) (attest.Attestation, error)
	// LogIndexes returns the indexes in [from, to) that an attestation or an
	// orphan has.
	LogIndexes(ctx context.Context, log string, from, to int64) ([]int64, error)
	// IntentOfMessage returns the intent to sign that message, or an
	// [attest.ErrNotFound].
	IntentOfMessage(ctx context.Context, message attest.Digest) (attest.Intent, error)
	// AppendLogOrphan records an entry that no attestation has. Recording it
	// again does nothing.
	AppendLogOrphan(ctx context.Context, o attest.LogOrphan) error
}

// reconcilePage is how many entries are compared at once.
const reconcilePage = 10_000

// Reconcile compares the transparency log with what is remembered of it, and is
// for the start, before anything is signed.
//
// A log that is shorter than what was released, or another, is an
// [attest.ErrConflict]: an old copy was put back, and going on would sign a
// second history. Entries that no attestation has are recorded as orphans and
// returned: a process was killed between logging and storing. None of them was
// released. An entry that not even an intent explains is among them, with no
// intent: somebody else signed it, with our key or our log.
func (a *Authority) Reconcile(ctx context.Context, records LogRecords) ([]attest.LogOrphan, error) {
	if a.log == nil {
		return nil, nil
	}
	tree, id := a.log.tree, hex.EncodeToString(logID(a.log.key))
	_, size, _, err := tree.Checkpoint()
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	head, err := records.LogHead(ctx, id)
	switch {
	case errors.Is(err, attest.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("read what was logged: %w", err)
	default:
		was, root, err := attest.CheckpointOf(head.Bundle)
		if err != nil {
			return nil, fmt.Errorf("attestation %s: %w", head.ID, err)
		}
		if err := tree.ConsistentWith(ctx, uint64(was), root); err != nil { // closed: never a second history
			return nil, fmt.Errorf("the log in %s is not the one in which attestation %s stands at %d: an older copy of it was put back; "+
				"restore a copy that is newer than the database: %w", a.config.Log.Directory, head.ID, head.LogIndex, err)
		}
	}
	var orphans []attest.LogOrphan
	for from := int64(0); from < int64(size); from += reconcilePage {
		to := min(from+reconcilePage, int64(size))
		known, err := records.LogIndexes(ctx, id, from, to)
		if err != nil {
			return orphans, fmt.Errorf("read what was logged: %w", err)
		}
		if int64(len(known)) == to-from {
			continue
		}
		have := make(map[int64]bool, len(known))
		for _, i := range known {
			have[i] = true
		}
		for i := from; i < to; i++ {
			if have[i] {
				continue
			}
			o, err := a.orphan(ctx, records, id, i)
			if err != nil {
				return orphans, err
			}
			orphans = append(orphans, o)
		}
	}
	return orphans, nil
}

// orphan records one entry.
func (a *Authority) orphan(ctx context.Context, records LogRecords, id string, index int64) (attest.LogOrphan, error) {
	o := attest.LogOrphan{Log: id, Index: index, At: a.config.Now().UTC()}
	body, err := a.log.tree.Entry(ctx, uint64(index))
	if err != nil {
		return o, fmt.Errorf("read log entry %d: %w", index, err)
	}
	if o.Message, err = attest.ParseLogEntry(body); err != nil {
		return o, fmt.Errorf("log entry %d: %w", index, err)
	}
	intent, err := records.IntentOfMessage(ctx, o.Message)
	if err != nil && !errors.Is(err, attest.ErrNotFound) {
		return o, fmt.Errorf("log entry %d: %w", index, err)
	}
	o.Intent = intent.ID
	if err := records.AppendLogOrphan(ctx, o); err != nil {
		return o, fmt.Errorf("record log entry %d: %w", index, err)
	}
	return o, nil
}
