// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"time"
)

// A KeyRevocation takes back what one version of a signer's key signed in an
// interval: a signature whose trusted time lies in it is believed no more.
// Revocations are append-only.
type KeyRevocation struct {
	ID      string
	Signer  Power
	Version int
	From    time.Time // whole seconds, UTC
	To      time.Time // whole seconds, UTC; inclusive, never before From
	At      time.Time // when it was recorded, UTC
	By      string    // issuer and subject of who revoked
	Reason  string    // for people; may be empty
}

// MaxReason is the longest reason of a revocation, in bytes.
const MaxReason = 1024

// Validate reports, as an [ErrInvalid], what is wrong with a revocation that
// is to be recorded.
func (r KeyRevocation) Validate() error {
	if _, err := ParsePower(string(r.Signer)); err != nil {
		return fmt.Errorf("%w: revocation: signer %.80q", ErrInvalid, r.Signer)
	}
	whole := func(t time.Time) bool { return !t.IsZero() && t.Equal(t.Truncate(time.Second)) }
	switch {
	case r.ID == "" || r.Version < 1:
		return fmt.Errorf("%w: revocation: want an id and a version from 1", ErrInvalid)
	case !whole(r.From) || !whole(r.To) || r.To.Before(r.From):
		return fmt.Errorf("%w: revocation: want from and to in whole seconds, to not before from", ErrInvalid)
	case len(r.Reason) > MaxReason:
		return &LimitError{What: "reason", Limit: MaxReason, Unit: "bytes"}
	}
	return nil
}
