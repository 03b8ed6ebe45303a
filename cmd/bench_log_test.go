// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
	"provost/keys/tile"
)

// BenchmarkLog: how long a lone caller waits until the inclusion proof of its
// entry is in hand, and how many entries a second 64 callers log: our embedded
// log, whose every checkpoint is signed in a real Vault, against the Rekor v2
// POSIX server at its best settings (keystest.StartRekor), which signs with a
// key in memory. Both log the same entries, signed beforehand.
func BenchmarkLog(b *testing.B) {
	rekor, err := keys.OpenRekor(keystest.StartRekor(b).Config())
	if err != nil {
		b.Fatal(err)
	}
	ours, entries := benchLog(b, keystest.StartVault(b)), newEntries(b)
	appendOurs := func(ctx context.Context) error {
		body := entries().Body()
		_, err := ours.Append(ctx, func(uint64) []byte { return body })
		return err
	}
	appendTheirs := func(ctx context.Context) error {
		_, err := rekor.Append(ctx, entries())
		return err
	}
	b.Run("lone", func(b *testing.B) {
		p50 := func(n int, do func(context.Context) error) time.Duration {
			all := make([]time.Duration, n)
			for i := range all {
				all[i] = timed(b, func() error { return do(b.Context()) })
			}
			return median(all)
		}
		var us, them []time.Duration
		var ratios []float64
		for range benchRounds {
			u, t := p50(100, appendOurs), p50(5, appendTheirs)
			us, them, ratios = append(us, u), append(them, t), append(ratios, float64(u)/float64(t))
		}
		ratio := median(ratios)
		report(b, ratio, "log, lone request, p50 until the proof: ours (checkpoint signed in Vault) %s, Rekor v2 %s, ratio 1/%.0f (bar: at most 1/20)",
			median(us).Round(10*time.Microsecond), median(them).Round(time.Millisecond), 1/ratio)
	})
	b.Run("callers=64", func(b *testing.B) {
		var us, them, ratios []float64
		for range benchRounds {
			u, t := rate(b, 64, appendOurs), rate(b, 64, appendTheirs)
			us, them, ratios = append(us, u), append(them, t), append(ratios, u/t)
		}
		ratio := median(ratios)
		report(b, ratio, "log, 64 callers: ours (checkpoints signed in Vault) %.0f entries/s, Rekor v2 %.0f entries/s, ratio %.1f (bar: at least 4)",
			median(us), median(them), ratio)
	})
}

// benchLog is our log, on a key in Vault.
func benchLog(b *testing.B, v *keystest.VaultServer) *tile.Log {
	b.Helper()
	const origin = "log.example.com"
	backend, err := keys.OpenVault(b.Context(), v.Config(keystest.PolicyInit, keystest.PolicyLog))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = backend.Close() })
	if err := backend.Create(b.Context(), "log"); err != nil {
		b.Fatal(err)
	}
	versions, err := backend.Versions(b.Context(), "log")
	if err != nil {
		b.Fatal(err)
	}
	public := versions[0].Public
	ecdsaVerifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		b.Fatal(err)
	}
	verifier, err := rekornote.NewNoteVerifier(origin, ecdsaVerifier)
	if err != nil {
		b.Fatal(err)
	}
	_, id, err := rekornote.KeyHash(origin, public)
	if err != nil {
		b.Fatal(err)
	}
	config := tile.Config{
		Dir: b.TempDir(), Origin: origin, Verifier: verifier,
		Sign: func(ctx context.Context, body []byte) ([]byte, error) {
			digest := sha256.Sum256(body)
			sig, err := backend.Sign(ctx, "log", 1, digest[:])
			if err != nil {
				return nil, err
			}
			return fmt.Appendf(nil, "%s\n— %s %s\n", body, origin, base64.StdEncoding.EncodeToString(append(id[:4:4], sig...))), nil
		},
	}
	if err := tile.Create(b.Context(), config); err != nil {
		b.Fatal(err)
	}
	l, err := tile.Open(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Check(context.Background()); err != nil {
			b.Error(err)
		}
		_ = l.Close()
	})
	return l
}

// newEntries returns a source of entries that are all different: Rekor refuses
// what it has already, and verifies each signature. It signs in the caller's
// time, for both sides alike, which is 30 µs an entry.
func newEntries(b *testing.B) func() attest.LogEntry {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	return func() attest.LogEntry {
		e := attest.LogEntry{Digest: sha256.Sum256(fmt.Append(nil, "entry ", n.Add(1))), Certificate: der}
		var err error
		if e.Signature, err = ecdsa.SignASN1(rand.Reader, key, e.Digest[:]); err != nil {
			panic(err)
		}
		return e
	}
}
