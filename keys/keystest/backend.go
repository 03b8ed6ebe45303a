// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package keystest tests key backends: [Backend] is the contract of
// keys.Backend, keys.Rotator and keys.Retirer as a test suite, which every implementation
// must pass, and [StartVault] gives tests a real Vault under the shipped
// policies.
package keystest

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"provost/attest"
	"provost/keys"
)

// A Full is a backend with all the power there is.
type Full interface {
	keys.Backend
	keys.Rotator
	keys.Retirer
}

// The keys that the suite uses; two that every backend must be able to hold.
const (
	keyA = "provenance"
	keyB = "verdict"
)

// Backend runs the contract. open returns a backend without any key; what it
// needs cleaned up it registers with t.
func Backend(t *testing.T, open func(t *testing.T) Full) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Full)
	}{
		{"what does not exist is not found", testNotFound},
		{"create makes version 1 and is idempotent", testCreate},
		{"rotate makes the next version, and the old one still signs", testRotate},
		{"keys do not mix", testSeparate},
		{"only 32 bytes are signed", testDigest},
		{"only plain names are keys", testNames},
		{"a cancelled context signs nothing", testCancelled},
		{"signing during rotations never mismatches", testConcurrent},
		{"callers who come together get what they asked for", testTogether},
		{"one who leaves takes nobody along", testLeaving},
		{"what is retired signs no more, and is still seen", testRetire},
		{"retiring at once never brings a version back", testRetireConcurrent},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func testNotFound(t *testing.T, b Full) {
	ctx := t.Context()
	wantErr(t, attest.ErrNotFound)(b.Versions(ctx, keyA))
	wantErr(t, attest.ErrNotFound)(b.Sign(ctx, keyA, 1, digest()))
	wantErr(t, attest.ErrNotFound)(0, b.Rotate(ctx, keyA))

	must(t, b.Create(ctx, keyA))
	for _, version := range []int{2, 1 << 20, 0, -1} {
		wantErr(t, keys.ErrVersion)(b.Sign(ctx, keyA, version, digest()))
	}
	wantErr(t, attest.ErrNotFound)(b.Versions(ctx, keyB))
}

func testCreate(t *testing.T, b Full) {
	ctx := t.Context()
	must(t, b.Create(ctx, keyA))
	before := versions(t, b, keyA, 1)
	must(t, b.Create(ctx, keyA))
	after := versions(t, b, keyA, 1)
	if !before[0].Public.Equal(after[0].Public) {
		t.Error("the second create replaced the key")
	}
	if before[0].Created.IsZero() {
		t.Error("version has no time of creation")
	}
	signs(t, b, keyA, after[0])
}

func testRotate(t *testing.T, b Full) {
	ctx := t.Context()
	must(t, b.Create(ctx, keyA))
	before := versions(t, b, keyA, 1)
	must(t, b.Rotate(ctx, keyA))
	must(t, b.Rotate(ctx, keyA))
	after := versions(t, b, keyA, 3)
	if !before[0].Public.Equal(after[0].Public) {
		t.Error("rotate changed version 1")
	}
	if after[0].Public.Equal(after[1].Public) || after[1].Public.Equal(after[2].Public) {
		t.Error("two versions share a key")
	}
	for _, v := range after {
		signs(t, b, keyA, v)
	}
	must(t, b.Create(ctx, keyA)) // still idempotent
	versions(t, b, keyA, 3)
}

func testSeparate(t *testing.T, b Full) {
	ctx := t.Context()
	must(t, b.Create(ctx, keyA))
	must(t, b.Create(ctx, keyB))
	must(t, b.Rotate(ctx, keyB))
	a, other := versions(t, b, keyA, 1), versions(t, b, keyB, 2)
	if a[0].Public.Equal(other[0].Public) {
		t.Error("two keys are one")
	}
	signs(t, b, keyA, a[0])
	signs(t, b, keyB, other[1])
}

func testDigest(t *testing.T, b Full) {
	must(t, b.Create(t.Context(), keyA))
	for _, size := range []int{0, 20, 31, 33, 64} {
		wantErr(t, attest.ErrInvalid)(b.Sign(t.Context(), keyA, 1, make([]byte, size)))
	}
}

func testNames(t *testing.T, b Full) {
	ctx := t.Context()
	for _, name := range []string{"", ".", "..", "a/b", "../provenance", "provenance/rotate", "Provenance", "a.v1", "a b", "a?b", "a%2fb", "-a"} {
		wantErr(t, attest.ErrInvalid)(b.Sign(ctx, name, 1, digest()))
		wantErr(t, attest.ErrInvalid)(b.Versions(ctx, name))
		wantErr(t, attest.ErrInvalid)(0, b.Create(ctx, name))
		wantErr(t, attest.ErrInvalid)(0, b.Rotate(ctx, name))
	}
}

func testCancelled(t *testing.T, b Full) {
	must(t, b.Create(t.Context(), keyA))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, context.Canceled, attest.ErrUnavailable)(b.Sign(ctx, keyA, 1, digest()))
	wantErr(t, context.Canceled, attest.ErrUnavailable)(b.Versions(ctx, keyA))
	wantErr(t, context.Canceled, attest.ErrUnavailable)(0, b.Rotate(ctx, keyA))
	versions(t, b, keyA, 1)
}

func testConcurrent(t *testing.T, b Full) {
	ctx := t.Context()
	must(t, b.Create(ctx, keyA))
	const rotations, signers, each = 8, 4, 60
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range rotations {
				if err := b.Rotate(ctx, keyA); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range signers {
		wg.Go(func() {
			for range each {
				all, err := b.Versions(ctx, keyA)
				if err != nil {
					t.Error(err)
					return
				}
				for _, v := range []keys.Version{all[0], all[len(all)-1]} { // the oldest, and the newest of a moment ago
					if err := sign(ctx, b, keyA, v); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	versions(t, b, keyA, 1+2*rotations)
}

// testTogether has several versions of two keys sign, each many times at once.
func testTogether(t *testing.T, b Full) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for _, key := range []string{keyA, keyB} {
		must(t, b.Create(ctx, key))
		must(t, b.Rotate(ctx, key))
		for _, v := range versions(t, b, key, 2) {
			for range 100 {
				wg.Go(func() {
					if err := sign(ctx, b, key, v); err != nil {
						t.Error(err)
					}
				})
			}
		}
		for range 20 {
			wg.Go(func() { wantErr(t, keys.ErrVersion)(b.Sign(ctx, key, 3, digest())) })
		}
	}
	wg.Wait()
}

// testLeaving has every third of many callers leave at any moment.
func testLeaving(t *testing.T, b Full) {
	must(t, b.Create(t.Context(), keyA))
	v := versions(t, b, keyA, 1)[0]
	var wg sync.WaitGroup
	for i := range 150 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			leaves := i%3 == 0
			if leaves {
				time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
			}
			err := sign(ctx, b, keyA, v)
			if err != nil && !(leaves && errors.Is(err, context.Canceled) && errors.Is(err, attest.ErrUnavailable)) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func testRetire(t *testing.T, b Full) {
	ctx := t.Context()
	wantErr(t, attest.ErrNotFound)(0, b.Retire(ctx, keyA, 1))
	must(t, b.Create(ctx, keyA))
	must(t, b.Create(ctx, keyB))
	must(t, b.Rotate(ctx, keyA))
	must(t, b.Rotate(ctx, keyA))
	before := versions(t, b, keyA, 3)
	for _, first := range []int{-1, 0, 4} { // above the newest nothing would be left to sign with
		wantErr(t, keys.ErrVersion)(0, b.Retire(ctx, keyA, first))
	}
	must(t, b.Retire(ctx, keyA, 1)) // below it there is nothing
	signs(t, b, keyA, before[0])
	for _, step := range []struct{ first, signsFrom int }{{2, 2}, {2, 2}, {1, 2}, {3, 3}, {2, 3}, {3, 3}} {
		must(t, b.Retire(ctx, keyA, step.first))
		after := versions(t, b, keyA, 3)
		for i, v := range after {
			if !v.Public.Equal(before[i].Public) {
				t.Errorf("retiring changed version %d", v.Number)
			}
			if v.Number >= step.signsFrom {
				signs(t, b, keyA, v)
			} else {
				wantErr(t, keys.ErrVersion)(b.Sign(ctx, keyA, v.Number, digest()))
			}
		}
	}
	must(t, b.Rotate(ctx, keyA))
	signs(t, b, keyA, versions(t, b, keyA, 4)[3])
	signs(t, b, keyB, versions(t, b, keyB, 1)[0]) // another key is none of its business
	for _, name := range []string{"", "..", "a/b"} {
		wantErr(t, attest.ErrInvalid)(0, b.Retire(ctx, name, 1))
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	wantErr(t, context.Canceled, attest.ErrUnavailable)(0, b.Retire(cancelled, keyA, 4))
	signs(t, b, keyA, before[2])
}

func testRetireConcurrent(t *testing.T, b Full) {
	ctx := t.Context()
	must(t, b.Create(ctx, keyA))
	const n = 6
	for range n - 1 {
		must(t, b.Rotate(ctx, keyA))
	}
	var wg sync.WaitGroup
	for first := 1; first <= n; first++ {
		for range 2 {
			wg.Go(func() {
				if err := b.Retire(ctx, keyA, first); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, v := range versions(t, b, keyA, n) {
		if v.Number == n {
			signs(t, b, keyA, v)
		} else {
			wantErr(t, keys.ErrVersion)(b.Sign(ctx, keyA, v.Number, digest()))
		}
	}
}

// versions returns the key's versions, which must be 1 to n.
func versions(t *testing.T, b keys.Backend, key string, n int) []keys.Version {
	t.Helper()
	all, err := b.Versions(t.Context(), key)
	must(t, err)
	if len(all) != n {
		t.Fatalf("%s has %d versions, want %d", key, len(all), n)
	}
	for i, v := range all {
		if v.Number != i+1 {
			t.Fatalf("%s: version %d stands at %d", key, v.Number, i)
		}
	}
	return all
}

func signs(t *testing.T, b keys.Backend, key string, v keys.Version) {
	t.Helper()
	must(t, sign(t.Context(), b, key, v))
}

// sign has a random digest signed and verifies the signature.
func sign(ctx context.Context, b keys.Backend, key string, v keys.Version) error {
	d := digest()
	signature, err := b.Sign(ctx, key, v.Number, d)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(v.Public, d, signature) {
		return fmt.Errorf("signature of %s version %d does not verify with its public key", key, v.Number)
	}
	return nil
}

func digest() []byte {
	sum := sha256.Sum256([]byte(rand.Text()))
	return sum[:]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr checks that a call failed in all these ways.
func wantErr(t *testing.T, kinds ...error) func(any, error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		for _, kind := range kinds {
			if !errors.Is(err, kind) {
				t.Errorf("got error %v, want %v", err, kind)
			}
		}
	}
}
