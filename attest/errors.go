// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"fmt"
	"time"
)

// The five kinds of refusal. Every error that a room returns to another wraps
// one of them or is an internal failure; callers ask with errors.Is.
var (
	// ErrInvalid: the input is malformed; trying again will not help.
	ErrInvalid = errors.New("invalid")
	// ErrDenied: the caller may not do this.
	ErrDenied = errors.New("denied")
	// ErrNotFound: the thing named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict: it contradicts what is already recorded.
	ErrConflict = errors.New("conflict")
	// ErrUnavailable: something this depends on cannot be reached now;
	// trying again later may help.
	ErrUnavailable = errors.New("unavailable")
)

// A LimitError reports an input over a bound of limits.go. It is an
// [ErrInvalid].
type LimitError struct {
	What  string // what was too large, such as "subjects"
	Limit int64  // the largest value accepted
	Unit  string // what Limit counts, such as "bytes"
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: more than %d %s", e.What, e.Limit, e.Unit)
}

// Is makes a LimitError an ErrInvalid.
func (e *LimitError) Is(target error) bool { return target == ErrInvalid }

// A DocumentError reports well-formed JSON that is not the document it is
// offered as. It is an [ErrInvalid].
type DocumentError struct {
	What string // the kind of document expected, such as "CycloneDX 1.6"
	Err  error
}

func (e *DocumentError) Error() string { return e.What + ": " + e.Err.Error() }
func (e *DocumentError) Unwrap() error { return e.Err }

// Is makes a DocumentError an ErrInvalid.
func (e *DocumentError) Is(target error) bool { return target == ErrInvalid }

// A GrantError names the grant a caller lacks. It is an [ErrDenied].
type GrantError struct{ Missing Grant }

func (e *GrantError) Error() string { return fmt.Sprintf("grant %q is missing", e.Missing) }

// Is makes a GrantError an ErrDenied.
func (e *GrantError) Is(target error) bool { return target == ErrDenied }

// A BusyError says that too many wait for something already. It is an
// [ErrUnavailable]: coming back a little later will help.
type BusyError struct {
	What string // what they wait for
}

func (e *BusyError) Error() string { return e.What + ": too many are waiting" }

// Is makes a BusyError an ErrUnavailable.
func (e *BusyError) Is(target error) bool { return target == ErrUnavailable }

// RetryAfter is how long to stay away.
func (e *BusyError) RetryAfter() time.Duration { return time.Second }
