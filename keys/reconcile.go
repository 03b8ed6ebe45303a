// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

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
	orphans, err := a.orphans(ctx, records, id, 0, int64(size))
	if err == nil {
		a.settling = settling{compared: int64(size)}
	}
	return orphans, err
}

// settlesIn is how long after it was logged an entry is either stored or never
// will be: no request lives as long.
const settlesIn = 5 * time.Minute

// settling is how far [Authority.Settle] has come.
type settling struct {
	compared int64 // entries below this were compared
	settled  int64 // entries below this are to be
	sizes    []logSize
}

// A logSize is how many entries the log had at a time.
type logSize struct {
	at   time.Time
	size int64
}

// Settle is Reconcile for what was logged since: to be called every minute or
// so, by one caller at a time, beside whoever signs. It compares what is old
// enough that nobody can be about to store it, and returns the orphans: entries
// whose attestation could not be stored.
func (a *Authority) Settle(ctx context.Context, records LogRecords) ([]attest.LogOrphan, error) {
	if a.log == nil {
		return nil, nil
	}
	_, size, _, err := a.log.tree.Checkpoint()
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	now, s := a.config.Now(), &a.settling
	s.sizes = append(s.sizes, logSize{now, int64(size)})
	settled := max(s.compared, s.settled)
	for len(s.sizes) > 0 && now.Sub(s.sizes[0].at) >= settlesIn {
		settled = s.sizes[0].size
		s.sizes = s.sizes[1:]
	}
	s.settled = settled
	orphans, err := a.orphans(ctx, records, hex.EncodeToString(logID(a.log.key)), s.compared, settled)
	if err != nil {
		return orphans, err
	}
	s.compared = settled
	return orphans, nil
}

// orphans records the entries in [begin, end) that nobody knows.
func (a *Authority) orphans(ctx context.Context, records LogRecords, id string, begin, end int64) (orphans []attest.LogOrphan, err error) {
	for from := begin; from < end; from += reconcilePage {
		to := min(from+reconcilePage, end)
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
