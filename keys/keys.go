// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package keys is who can sign. It keeps private keys where they are, in
// HashiCorp Vault's transit engine or in an encrypted directory, makes the
// certificates that say whose they are, and is the timestamp authority.
//
// A [Backend] holds the keys and signs; an [Authority] stands on one backend
// and on an [Archive] of certificates, and is what the rest of the service
// sees: an [attest.Signer] for each [attest.Power], an [attest.Timestamper],
// and the trusted root that verifiers need.
//
// Invariants:
//
//   - A private key never leaves its backend. The one exception is the offline
//     root, which exists in memory during [Init] and is then given away.
//   - Every signature names the key version that made it, pinned in the
//     request and checked in the answer; "latest" is never asked for.
//   - A key version signs statements only after its leaf certificate is
//     archived, and only while that leaf is valid.
//   - What is archived is believed only as far as the pinned root certified
//     it: whoever can write the archive can stop the service, not become it.
//   - What cannot be had fails closed: no error path returns a signature.
package keys

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"regexp"
	"time"

	"provost/attest"
)

// A Backend holds private keys, which never leave it. All are ECDSA P-256. A
// key is named by lower-case letters, digits and dashes, and has versions that
// are numbered from 1; a version, once made, never changes. Implementations
// must be safe for concurrent use, also by several processes.
type Backend interface {
	// Sign signs a 32-byte SHA-256 digest with exactly that version and
	// returns the ASN.1 DER signature. Another length is an
	// [attest.ErrInvalid], an unknown key an [attest.ErrNotFound], a version
	// that does not exist or may no longer sign an [ErrVersion]. An error
	// that may pass wraps [attest.ErrUnavailable], a refusal by the backend
	// [ErrBackendDenied].
	Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error)
	// Versions returns the versions that the backend can name, ascending,
	// with their public keys. The newest is always among them, old ones may
	// be hidden. An unknown key is an [attest.ErrNotFound]; a key that is not
	// fit to be trusted an [ErrDegraded]; other errors are those of Sign.
	Versions(ctx context.Context, key string) ([]Version, error)
}

// A Version is one version of a key.
type Version struct {
	Number  int // from 1
	Public  *ecdsa.PublicKey
	Created time.Time
}

// A Rotator can make keys and versions. It stands apart from [Backend] so that
// a backend whose credentials may only sign is still a whole Backend.
type Rotator interface {
	// Create makes the key with version 1. If the key exists it does nothing.
	Create(ctx context.Context, key string) error
	// Rotate makes a new version, numbered above all others. When it fails
	// the version may exist nevertheless; that is harmless, since a version
	// signs nothing before it is adopted. An unknown key is an
	// [attest.ErrNotFound].
	Rotate(ctx context.Context, key string) error
}

// A Retirer can take old versions out of use for good.
type Retirer interface {
	// Retire makes every version below first refuse to sign, for everybody and
	// every process. It is idempotent and never brings a version back. Public
	// keys stay: Versions names them as before. When it fails some of the
	// versions may be retired nevertheless. A first that is no version of the
	// key is an [ErrVersion], an unknown key an [attest.ErrNotFound]; other
	// errors are those of [Backend.Sign].
	Retire(ctx context.Context, key string, first int) error
}

// What a backend may answer beside the kinds of package attest. None of them
// is the fault of whoever asked for a signature.
var (
	// ErrBackendDenied: the backend refuses our credentials or what we do
	// with them. It does not pass by itself: a policy, a role or a credential
	// has to be changed.
	ErrBackendDenied = errors.New("key backend denies access")
	// ErrVersion: the key version does not exist, or may no longer sign.
	ErrVersion = errors.New("key version does not sign")
	// ErrDegraded: the key exists but its private part may have left the
	// backend, or may be made to, or the key is not of the right kind.
	ErrDegraded = errors.New("key is not fit for signing")
)

// An UnavailableError is an [attest.ErrUnavailable] of a backend.
type UnavailableError struct {
	// Wait is how long the backend asked us to wait; 0 if it did not
	// say.
	Wait time.Duration
	Err  error
}

func (e *UnavailableError) Error() string { return "key backend unavailable: " + e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

// RetryAfter is Wait, for whoever answers a caller and does not know this
// type.
func (e *UnavailableError) RetryAfter() time.Duration { return e.Wait }

// Is makes an UnavailableError an [attest.ErrUnavailable].
func (e *UnavailableError) Is(target error) bool { return target == attest.ErrUnavailable }

// digestSize is what Sign accepts, in bytes. Backends enforce it themselves:
// Vault, for one, signs a "digest" of any length.
const digestSize = 32

var keyName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// checkKey keeps anything but a plain name out of paths and URLs.
func checkKey(key string) error {
	if !keyName.MatchString(key) {
		return fmt.Errorf("%w: key name %.80q: want lower-case letters, digits and dashes", attest.ErrInvalid, key)
	}
	return nil
}

func checkDigest(digest []byte) error {
	if len(digest) != digestSize {
		return fmt.Errorf("%w: digest has %d bytes: want the %d of SHA-256", attest.ErrInvalid, len(digest), digestSize)
	}
	return nil
}
