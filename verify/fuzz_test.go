// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
	checkpoint "github.com/transparency-dev/formats/log"

	"provost/attest"
	"provost/verify"
)

// FuzzVerify: nothing panics, an error believes nothing, and what is believed
// is what was signed, and is believed by sigstore-go.
func FuzzVerify(f *testing.F) {
	g := readGolden(f)
	trusts := g.trusts()
	signed := map[string]bool{}
	for i, b := range g.bundles {
		f.Add(b.raw, uint8(b.root))
		signed[string(decodeBundle(f, b.raw).GetDsseEnvelope().GetPayload())] = true
		for n := range uint64(8) {
			raw, _ := mutate(f, rand.New(rand.NewPCG(uint64(i), n)), b.raw, g.bundles[0].raw)
			f.Add(raw, uint8(b.root))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, under uint8) {
		under %= 3
		trust, trustedRoot := trusts[under], g.roots[under]
		v, err := trust.Verify(raw, verify.Expect{Artifact: app})
		if err != nil {
			var at *verify.Error
			if v != nil || !errors.As(err, &at) || at.Step == "" {
				t.Fatalf("%v with %v", v, err)
			}
			return
		}
		if !signed[string(decodeBundle(t, raw).GetDsseEnvelope().GetPayload())] {
			t.Fatal("believed what was never signed")
		}
		if _, ok := v.Statement().About(app); !ok || v.SignedAt().IsZero() || v.Identity().Issuer != service || v.Digest() != attest.SHA256(raw) {
			t.Fatalf("believed %+v", v)
		}
		if err := foreign(trustedRoot, raw, app, v.Identity()); err != nil {
			t.Fatalf("believed, and sigstore-go says %v", err)
		}
	})
}

// FuzzParseTrust: nothing panics, an error trusts nobody, and who is trusted is
// so only from some time on.
func FuzzParseTrust(f *testing.F) {
	g := readGolden(f)
	for i, raw := range g.roots {
		f.Add(raw)
		for n := range uint64(16) {
			mutated, _ := mutate(f, rand.New(rand.NewPCG(uint64(i), n)), raw, g.roots[loggedRoot])
			f.Add(mutated)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		trust, err := verify.ParseTrust(raw)
		if err != nil {
			if trust != nil || !errors.Is(err, attest.ErrInvalid) {
				t.Fatalf("%v with %v", trust, err)
			}
			return
		}
		if _, err := root.NewTrustedRootFromJSON(raw); err != nil {
			t.Fatalf("trusted, and sigstore-go says %v", err)
		}
		kinds := map[string]int{}
		for _, a := range trust.Authorities() {
			kinds[a.Kind]++
			if a.ValidFrom.IsZero() || !a.ValidTo.IsZero() && a.ValidTo.Before(a.ValidFrom) {
				t.Fatalf("trusted from no time on: %+v", a)
			}
		}
		if kinds["certificate authority"] == 0 || kinds["timestamp authority"] == 0 {
			t.Fatalf("trusted: %v", kinds)
		}
		for _, b := range g.bundles {
			if v, err := trust.Verify(b.raw, verify.Expect{Artifact: app}); (v == nil) == (err == nil) {
				t.Fatalf("%s: %v with %v", b.name, v, err)
			}
		}
	})
}

// FuzzCheckpoint: whatever the parser that checks the signature reads, ours
// reads the same.
func FuzzCheckpoint(f *testing.F) {
	for _, b := range readGolden(f).bundles {
		if b.root != plainRoot {
			f.Add(entryOf(decodeBundle(f, b.raw)).GetInclusionProof().GetCheckpoint().GetEnvelope())
		}
	}
	const hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	for _, text := range []string{
		"", "\n", "\n\n\n", "o\n0\n" + hash + "\n", "o\n0\n" + hash, "o\n00\n" + hash + "\n", "o\n+1\n" + hash + "\n", "o\n-1\n" + hash + "\n",
		"o\n18446744073709551615\n" + hash + "\n", "o\n9223372036854775807\n" + hash + "\next\n", "o\n1\n" + hash + "\r\n", "o\n1\r\n" + hash + "\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, hash, err := attest.ParseCheckpoint(text)
		if err != nil && (size != 0 || hash != nil) {
			t.Fatalf("%d, %x with %v", size, hash, err)
		}
		var theirs checkpoint.Checkpoint
		if _, e := theirs.Unmarshal([]byte(text)); e != nil || err != nil {
			return // refused by one: the entry is not believed
		}
		if size < 0 || uint64(size) != theirs.Size || !bytes.Equal(hash, theirs.Hash) {
			t.Fatalf("%d %x; the signature is over %d %x", size, hash, theirs.Size, theirs.Hash)
		}
	})
}
