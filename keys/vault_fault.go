// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"provost/attest"
)

// A fault is one failed attempt: what it means and what to do about it.
type fault struct {
	kind       faultKind
	err        error
	retryAfter time.Duration // 0: not said
}

type faultKind int

const (
	faultRefused faultKind = iota // the request is wrong: a bug here or a mistake in the configuration
	faultRetry                    // sealed, electing, unreachable, slow, over quota, failing
	faultGarbled                  // a success that is not Vault's
	faultToken                    // the token is expired, revoked or unknown
	faultDenied                   // the token is good, a policy says no; or the login is refused
	faultVersion                  // this key version may not sign, or does not exist
	faultMissing                  // no such key
)

// passes reports whether to try again.
func (f *fault) passes() bool { return f.kind == faultRetry || f.kind == faultGarbled }

// final is the error of a fault that does not pass.
func (f *fault) final() error {
	switch f.kind {
	case faultToken, faultDenied:
		return fmt.Errorf("%w: %w", ErrBackendDenied, f.err)
	case faultVersion:
		return fmt.Errorf("%w: %w", ErrVersion, f.err)
	case faultMissing:
		return fmt.Errorf("%w: %w", attest.ErrNotFound, f.err)
	default:
		return f.err
	}
}

// judge classifies an answer by its status and by the words in it. Words,
// because Vault answers 500 both when it has no leader and when it is asked
// for a retired version, and 403 both for a dead token and for a strict
// policy. Should a later Vault choose other words, a version error is taken for
// a failure that may pass, and a dead token for a denial: closed both ways.
// Whatever is not known falls to refused, except 5xx, which may pass.
func judge(status int, words string, retryAfter time.Duration) *fault {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(words, p) {
				return true
			}
		}
		return false
	}
	kind := faultRefused
	switch {
	case status == 403 && has("invalid token"):
		kind = faultToken
	case status == 403: // "permission denied" alone
		kind = faultDenied
	case status == 400 && has("key not found"):
		kind = faultMissing
	case status == 404 && !has("no handler for route", "unsupported path"):
		kind = faultMissing
	case (status == 500 || status == 400) && has("requested version for signing", "no such key version"):
		kind = faultVersion
	case status == 412, status == 429, status == 307, status >= 500 && status != 501:
		kind = faultRetry
	}
	if words == "" {
		words = "no reason given"
	}
	return &fault{kind, fmt.Errorf("vault answers %d: %s", status, printable(words)), retryAfter}
}

// printable bounds what others wrote and keeps it on one line.
func printable(words string) string {
	words = strings.Join(strings.FieldsFunc(words, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(words) > 300 {
		words = words[:300] + "…"
	}
	return strings.ToValidUTF8(words, "?")
}

// redacted is err, unless its words contain the secret. Then only its words
// are left, without the secret, and whether it was a deadline.
func redacted(err error, secret string) error {
	if !strings.Contains(err.Error(), secret) {
		return err
	}
	words := errors.New(strings.ReplaceAll(err.Error(), secret, "[secret]"))
	for _, kind := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %w", kind, words)
		}
	}
	return words
}
