// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
	"provost/store/storetest"
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

// A signing bench is a service with its keys in a real Vault, under the shipped
// policies, and the reference: bare Vault transit signing through the same
// client library, one signature a call, on the same Vault.
type signing struct {
	*daemon
	sign, bare func(context.Context) error
}

func startSigning(b *testing.B, args ...string) signing {
	b.Helper()
	v := keystest.StartVault(b)
	data := b.TempDir()
	token := v.Token(time.Hour, append(keystest.ServePolicies(), keystest.PolicyInit)...)
	d := startDev(b, data, []string{"VAULT_ADDR=" + v.Address(), "VAULT_TOKEN=" + token}, append(args, "--keys", "vault")...)
	jobs := newJobs(b, d, data)
	// A client that does no more than send and receive: what it does beyond
	// that, it does on another machine.
	plain := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	return signing{d, func(ctx context.Context) error {
		digest := attest.SHA256([]byte(rand.Text()))
		body := `{"subjects":[{"name":"app","digest":{"sha256":"` + digest.Hex() + `"}}]}`
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/attestations/provenance", strings.NewReader(body))
		if err != nil {
			return err
		}
		secret, err := jobs.secret(ctx)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := plain.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusCreated {
			err = fmt.Errorf("%s: %s", resp.Status, got)
		}
		return err
	}, bareSigner(b, v)}
}

// vaultCalls is how many calls the service has made to Vault to sign.
func (s signing) vaultCalls(b *testing.B) float64 {
	b.Helper()
	resp, err := http.Get(s.url + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var total float64
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), `provost_vault_calls_total{op="sign",`); ok {
			_, value, _ := strings.Cut(rest, "} ")
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			total += n
		}
	}
	return total
}

// BenchmarkSign: attestations a second, the whole way (HTTP, token check,
// Vault signature, own check of it, timestamp signed in Vault too, durable
// commits), without the log and with it, against the reference at the same
// number of callers; and Vault calls an attestation.
func BenchmarkSign(b *testing.B) {
	for _, kind := range []struct {
		name string
		args []string
		bars map[int]float64
	}{
		{"without the log", []string{"--log=false"}, map[int]float64{64: 0.8, 256: 1.0}},
		{"with the log's proof", nil, map[int]float64{64: 0.6, 256: 0.85}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			s := startSigning(b, kind.args...)
			for _, callers := range []int{1, 16, 64, 256} {
				var ours, reference, ratios []float64
				before, made := s.vaultCalls(b), 0.0
				for range benchRounds {
					o, r := rate(b, callers, s.sign), rate(b, callers, s.bare)
					ours, reference, ratios = append(ours, o), append(reference, r), append(ratios, o/r)
					made += o * benchRound.Seconds()
				}
				ratio := median(ratios)
				bar := ""
				if want, ok := kind.bars[callers]; ok {
					bar = fmt.Sprintf(" (bar: at least %.2f)", want)
				}
				report(b, ratio, "sign %s, %d callers: %.0f attestations/s, bare Vault %.0f signatures/s, ratio %.2f%s; 1 Vault call for %.1f attestations",
					kind.name, callers, median(ours), median(reference), ratio, bar, made/(s.vaultCalls(b)-before))
			}
		})
	}
}

// BenchmarkLone: how long a lone request takes without the log, against a
// single Vault call.
func BenchmarkLone(b *testing.B) {
	s := startSigning(b, "--log=false")
	var ours, reference []time.Duration
	for range 40 * benchRounds {
		ours = append(ours, timed(b, func() error { return s.sign(b.Context()) }))
		reference = append(reference, timed(b, func() error { return s.bare(b.Context()) }))
	}
	o, r := median(ours), median(reference)
	report(b, float64(o)/float64(r), "lone request without the log: p50 %s, a single Vault call %s, ratio %.1f (bar: at most 3.5)",
		o.Round(10*time.Microsecond), r.Round(10*time.Microsecond), float64(o)/float64(r))
}

// BenchmarkGrowth: p50 of a lone sign request, the whole way with the log, with
// a million attestations stored against ten thousand. The keys are files, so
// that the store's part weighs more.
func BenchmarkGrowth(b *testing.B) {
	start := func(stored int) func() time.Duration {
		data := b.TempDir()
		startDev(b, data, nil).stop()
		if err := storetest.Grow(b.Context(), filepath.Join(data, "provost.db"), stored); err != nil {
			b.Fatal(err)
		}
		d := startDev(b, data, nil)
		c := newJobs(b, d, data).client()
		return func() time.Duration {
			var all []time.Duration
			for begun := time.Now(); time.Since(begun) < benchRound; {
				_, req := newArtifact()
				all = append(all, timed(b, func() error { _, err := c.AttestProvenance(b.Context(), req, ""); return err }))
			}
			return median(all)
		}
	}
	few, many := start(10_000), start(1_000_000)
	few()
	many()
	var fews, manys []time.Duration
	var ratios []float64
	for range benchRounds {
		f, m := few(), many()
		fews, manys, ratios = append(fews, f), append(manys, m), append(ratios, float64(m)/float64(f))
	}
	ratio := median(ratios)
	report(b, ratio, "growth: a sign request, p50, with 10 thousand stored %s, with 1 million %s, ratio %.2f (bar: at most 1.30)",
		median(fews).Round(10*time.Microsecond), median(manys).Round(10*time.Microsecond), ratio)
}

// BenchmarkRotation: the p99 of signing at 64 callers while the key rotates
// every half second, against the p99 without.
func BenchmarkRotation(b *testing.B) {
	v := keystest.StartVault(b)
	data := b.TempDir()
	token := v.Token(time.Hour, append(keystest.ServePolicies(), keystest.PolicyInit)...)
	d := startDev(b, data, []string{"VAULT_ADDR=" + v.Address(), "VAULT_TOKEN=" + token}, "--keys", "vault")
	c, admin := newJobs(b, d, data).client(), d.client(adminToken(b, data))
	p99 := func() time.Duration {
		var mu sync.Mutex
		var all []time.Duration
		rate(b, 64, func(ctx context.Context) error {
			_, req := newArtifact()
			start := time.Now()
			_, err := c.AttestProvenance(ctx, req, "")
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(start))
			return err
		})
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	var ratios []float64
	var calm, rotating []time.Duration
	for range benchRounds {
		before := p99()
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() {
			for ctx.Err() == nil {
				if _, err := admin.Rotate(b.Context(), attest.PowerProvenance); err != nil {
					done <- err
					return
				}
				select {
				case <-time.After(500 * time.Millisecond):
				case <-ctx.Done():
				}
			}
			done <- nil
		}()
		during := p99()
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		calm, rotating, ratios = append(calm, before), append(rotating, during), append(ratios, float64(during)/float64(before))
	}
	ratio := median(ratios)
	report(b, ratio, "p99 at 64 callers: %s, while the key rotates twice a second %s, ratio %.2f (bar: at most 2.00)",
		median(calm).Round(100*time.Microsecond), median(rotating).Round(100*time.Microsecond), ratio)
}

// BenchmarkCosign: attestations a second at 64 callers against `cosign
// attest-blob` with a local key, one after the other.
func BenchmarkCosign(b *testing.B) {
	cosign := cosignBinary(b)
	s := startSigning(b)
	dir := b.TempDir()
	cosignIn := func(args ...string) error {
		c := exec.Command(cosign, args...)
		c.Dir = dir
		c.Env = []string{"HOME=" + dir, "COSIGN_PASSWORD=x"}
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("cosign %s: %w\n%s", args[0], err, out)
		}
		return nil
	}
	if err := cosignIn("generate-key-pair"); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"artifact": "artifact", "predicate.json": `{"buildDefinition":{"buildType":"https://example.com/t","externalParameters":{}},"runDetails":{"builder":{"id":"https://example.com/b"}}}`,
		// A signing configuration without a log and a timestamp authority:
		// cosign does nothing but sign.
		"signing.json": `{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	attestBlob := func() error {
		return cosignIn("attest-blob", "--key", "cosign.key", "--predicate", "predicate.json", "--type", "slsaprovenance1",
			"--bundle", "out.json", "--signing-config", "signing.json", "--yes", "artifact")
	}
	var ratios, ours []float64
	var theirs []time.Duration
	for range benchRounds {
		o := rate(b, 64, s.sign)
		t := timed(b, attestBlob)
		ours, theirs, ratios = append(ours, o), append(theirs, t), append(ratios, o*t.Seconds())
	}
	ratio := median(ratios)
	report(b, ratio, "sign, 64 callers: %.0f attestations/s, cosign attest-blob %.1f/s, ratio %.0f (bar: at least 80)",
		median(ours), 1/median(theirs).Seconds(), ratio)
}

// bareSigner signs a digest with a pinned version in Vault, and does nothing
// else.
func bareSigner(b *testing.B, v *keystest.VaultServer) func(context.Context) error {
	b.Helper()
	c, err := api.NewClient(&api.Config{
		Address: v.Address(), Timeout: time.Minute,
		HttpClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}},
	})
	if err != nil {
		b.Fatal(err)
	}
	c.SetToken(v.Token(time.Hour, keystest.ServePolicies()...))
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
	build, admin := newJobs(b, d, data).client(), d.client(adminToken(b, data))
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
		file)
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
