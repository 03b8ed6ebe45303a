// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The digest algorithms a subject may carry (in-toto digest_set.md).
const (
	AlgSHA256 = "sha256"
	AlgSHA512 = "sha512"
)

// hexLength is the number of hex digits of each accepted algorithm.
var hexLength = map[string]int{AlgSHA256: 64, AlgSHA512: 128}

// A Digest names content by its hash. Only [ParseDigest], [NewDigest] and
// [SHA256] make one, so a non-zero Digest is always well formed: a known
// algorithm, lower-case hex, the right length. The zero Digest names nothing
// and equals no parsed one.
type Digest struct{ alg, hex string }

// ParseDigest reads "sha256:<64 hex>" or "sha512:<128 hex>". Upper-case hex is
// refused, because two spellings of one digest make two names for one
// artifact. The error is an [ErrInvalid].
func ParseDigest(s string) (Digest, error) {
	alg, value, ok := strings.Cut(s, ":")
	if !ok {
		return Digest{}, fmt.Errorf("%w: digest %.80q: want algorithm:hex", ErrInvalid, s)
	}
	return NewDigest(alg, value)
}

// NewDigest is [ParseDigest] with the two parts apart.
func NewDigest(alg, value string) (Digest, error) {
	want, ok := hexLength[alg]
	if !ok {
		return Digest{}, fmt.Errorf("%w: digest algorithm %.20q: want sha256 or sha512", ErrInvalid, alg)
	}
	if len(value) != want {
		return Digest{}, fmt.Errorf("%w: %s digest has %d characters: want %d hex digits", ErrInvalid, alg, len(value), want)
	}
	for _, c := range []byte(value) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Digest{}, fmt.Errorf("%w: %s digest: want lower-case hex digits", ErrInvalid, alg)
		}
	}
	return Digest{alg, value}, nil
}

// SHA256 is the digest of data.
func SHA256(data []byte) Digest {
	sum := sha256.Sum256(data)
	return Digest{AlgSHA256, hex.EncodeToString(sum[:])}
}

// Algorithm is "sha256" or "sha512"; "" for the zero Digest.
func (d Digest) Algorithm() string { return d.alg }

// Hex is the digest in lower-case hex; "" for the zero Digest.
func (d Digest) Hex() string { return d.hex }

// Bytes is the raw digest; nil for the zero Digest.
func (d Digest) Bytes() []byte {
	b, _ := hex.DecodeString(d.hex) // hex by construction
	return b
}

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// String is "algorithm:hex"; "" for the zero Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return d.alg + ":" + d.hex
}

// MarshalText writes [Digest.String].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what [ParseDigest] reads, and nothing else.
func (d *Digest) UnmarshalText(b []byte) error {
	parsed, err := ParseDigest(string(b))
	if err == nil {
		*d = parsed
	}
	return err
}
