// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
)

// The benchmarks measure the programs as processes against a reference in the
// same run: rounds of both, one after the other, and the median of the rounds.
// `make bench` runs them; docs/PERFORMANCE.md has the figures. Nothing here
// asserts a time.

const (
	benchRounds = 5
	benchRound  = 2 * time.Second
)

// rate runs do from so many callers for a round and returns calls a second.
func rate(b *testing.B, callers int, do func(ctx context.Context) error) float64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), benchRound)
	defer cancel()
	var wg sync.WaitGroup
	var calls atomic.Int64
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(b.Context()); err != nil {
					b.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(calls.Load()) / time.Since(start).Seconds()
}

// median of figures, which it sorts.
func median[T float64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// timed is how long do takes, once.
func timed(b *testing.B, do func() error) time.Duration {
	b.Helper()
	start := time.Now()
	if err := do(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// report prints a figure and its ratio.
func report(b *testing.B, ratio float64, format string, args ...any) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratio, "ratio")
	fmt.Printf("# "+format+"\n", args...)
}

// BenchmarkSign: attestations a second, the whole way (HTTP, token check,
// Vault signature, timestamp signed in Vault too, two SQLite commits), against
// bare Vault transit signing through the same client library, one signature a
// call, on the same Vault.
func BenchmarkSign(b *testing.B) {
	v := keystest.StartVault(b)
	data := b.TempDir()
	d := startDev(b, data, []string{"VAULT_ADDR=" + v.Address(), "VAULT_TOKEN=" + v.Token(time.Hour, allPolicies...)}, "--keys", "vault")
	c, token := d.client(""), devToken(b, data, "--lifetime", "1h")
	c.Token = func(context.Context) (string, error) { return token, nil }
	sign := func(ctx context.Context) error {
		_, req := newArtifact()
		_, err := c.AttestProvenance(ctx, req, "")
		return err
	}
	bare := bareSigner(b, v)
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var ours, reference, ratios []float64
			for range benchRounds {
				o, r := rate(b, callers, sign), rate(b, callers, bare)
				ours, reference, ratios = append(ours, o), append(reference, r), append(ratios, o/r)
			}
			ratio := median(ratios)
			b.ReportMetric(median(ours), "attestations/s")
			report(b, ratio, "sign, %d callers: %.0f attestations/s, bare Vault %.0f signatures/s, ratio %.2f",
				callers, median(ours), median(reference), ratio)
		})
	}
}

// bareSigner signs a digest with a pinned version in Vault, and does nothing
// else.
func bareSigner(b *testing.B, v *keystest.VaultServer) func(context.Context) error {
	b.Helper()
	c, err := api.NewClient(&api.Config{
		Address: v.Address(), Timeout: time.Minute,
		HttpClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	})
	if err != nil {
		b.Fatal(err)
	}
	c.SetToken(v.Token(time.Hour, allPolicies...))
	digest := sha256.Sum256([]byte("reference"))
	body := map[string]any{
		"input": base64.StdEncoding.EncodeToString(digest[:]), "prehashed": true, "key_version": "1",
		"hash_algorithm": "sha2-256", "marshaling_algorithm": "asn1",
	}
	return func(ctx context.Context) error {
		_, err := c.Logical().WriteWithContext(ctx, "transit/sign/provost-provenance", body)
		return err
	}
}

// BenchmarkDecide: one decision over HTTP about an artifact with provenance and
// an SBOM. Cold is the first decision about an artifact, warm the ones after
// it; the reference is six raw P-256 verifications.
func BenchmarkDecide(b *testing.B) {
	data := b.TempDir()
	d := startDev(b, data, nil)
	build, admin := d.client(devToken(b, data, "--lifetime", "1h")), d.client(adminToken(b, data))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("reference"))
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	sixVerifications := func() error {
		for range 6 {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) {
				return fmt.Errorf("does not verify")
			}
		}
		return nil
	}
	var cold, warm, reference []time.Duration
	for range 10 * benchRounds {
		artifact, req := newArtifact()
		if _, err := build.AttestProvenance(b.Context(), req, ""); err != nil {
			b.Fatal(err)
		}
		if _, err := build.AttestSBOM(b.Context(), client.Artifact{Digest: artifact}, []byte(sbomDocument), ""); err != nil {
			b.Fatal(err)
		}
		decide := func() error {
			got, err := admin.Decide(b.Context(), client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod"})
			if err == nil && got.Verdict != attest.VerdictPass {
				err = fmt.Errorf("verdict %s", got.Verdict)
			}
			return err
		}
		reference = append(reference, timed(b, sixVerifications))
		cold = append(cold, timed(b, decide))
		warm = append(warm, timed(b, decide))
	}
	c, w, r := median(cold), median(warm), median(reference)
	report(b, float64(c)/float64(r), "decide: cold %s, warm %s, six P-256 verifications %s, ratio of cold %.1f",
		c.Round(time.Microsecond), w.Round(time.Microsecond), r.Round(time.Microsecond), float64(c)/float64(r))
}

// BenchmarkVerifyProcess: `provost verify` as a whole process against `cosign
// verify-blob-attestation` on the same bundle and trusted root.
func BenchmarkVerifyProcess(b *testing.B) {
	cosign := cosignBinary(b)
	data := b.TempDir()
	d := startDev(b, data, nil)
	file := filepath.Join(data, "artifact")
	if err := os.WriteFile(file, []byte("artifact"), 0o600); err != nil {
		b.Fatal(err)
	}
	artifact := attest.SHA256([]byte("artifact"))
	a, err := d.client(devToken(b, data)).AttestProvenance(b.Context(), client.ProvenanceRequest{
		Subjects: []client.Subject{{Name: "artifact", Digest: map[string]string{"sha256": artifact.Hex()}}},
	}, "")
	if err != nil {
		b.Fatal(err)
	}
	root, err := d.client("").TrustedRoot(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	bundle, trusted := filepath.Join(data, "bundle.json"), filepath.Join(data, "trusted_root.json")
	if err := os.WriteFile(bundle, a.Bundle, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(trusted, root, 0o600); err != nil {
		b.Fatal(err)
	}
	dir, err := programs()
	if err != nil {
		b.Fatal(err)
	}
	identity := []string{"--certificate-identity", "https://provost.localhost/signers/provenance", "--certificate-oidc-issuer", "https://provost.localhost"}
	run := func(name string, args ...string) func() error {
		return func() error {
			c := exec.Command(name, append(args, identity...)...)
			c.Env = []string{"HOME=" + data}
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", name, err, out)
			}
			return nil
		}
	}
	ours := run(filepath.Join(dir, "provost"), "verify", file, "--bundle", bundle, "--trusted-root", trusted)
	theirs := run(cosign, "verify-blob-attestation", "--bundle", bundle, "--trusted-root", trusted, "--type", "slsaprovenance1",
		"--use-signed-timestamps", "--insecure-ignore-tlog", "--insecure-ignore-sct", file)
	var us, them []time.Duration
	var ratios []float64
	for range 5 * benchRounds {
		u, t := timed(b, ours), timed(b, theirs)
		us, them, ratios = append(us, u), append(them, t), append(ratios, float64(u)/float64(t))
	}
	ratio := median(ratios)
	report(b, ratio, "verify, whole process: provost %s, cosign %s, ratio %.2f (bar: at most 0.60)",
		median(us).Round(100*time.Microsecond), median(them).Round(100*time.Microsecond), ratio)
}

// cosignBinary is $COSIGN_BIN or the one that `make testbed` builds.
func cosignBinary(b *testing.B) string {
	b.Helper()
	bin := os.Getenv("COSIGN_BIN")
	if bin == "" {
		bin, _ = filepath.Abs("../bin/testbed/cosign")
	}
	if _, err := os.Stat(bin); err != nil {
		b.Skipf("NOT MEASURED: this needs cosign: run `make testbed`, or set COSIGN_BIN (%v)", err)
	}
	return bin
}
