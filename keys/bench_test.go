// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/keys/keystest"
)

const (
	benchRounds = 5
	benchRound  = time.Second
)

// rate runs do from so many callers for a round and returns calls a second.
func rate(b *testing.B, callers int, do func(context.Context) error) float64 {
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

// BenchmarkVaultSign: signatures a second against bare Vault transit signing
// through the same client library, one signature a call, on the same Vault.
// Rounds of both, one after the other; the figure is the median of their
// ratios.
func BenchmarkVaultSign(b *testing.B) {
	server := vaultWithKeys(b)
	config := server.Config(keystest.PolicySignProvenance)
	var requests atomic.Int64
	config.Observe = func(op string, _ time.Duration, _ error) {
		if op == "sign" {
			requests.Add(1)
		}
	}
	v := openVault(b, config)
	digest := make([]byte, 32)
	ours := func(ctx context.Context) error {
		_, err := v.Sign(ctx, "provenance", 1, digest)
		return err
	}
	c, err := api.NewClient(&api.Config{
		Address: server.Address(), Timeout: time.Minute,
		HttpClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}},
	})
	check(b, err)
	c.SetToken(server.Token(time.Hour, keystest.PolicySignProvenance))
	body := map[string]any{
		"input": base64.StdEncoding.EncodeToString(digest), "prehashed": true, "key_version": "1",
		"hash_algorithm": "sha2-256", "marshaling_algorithm": "asn1",
	}
	bare := func(ctx context.Context) error {
		_, err := c.Logical().WriteWithContext(ctx, "transit/sign/provost-provenance", body)
		return err
	}
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var signatures, reference, ratios []float64
			var made float64
			requests.Store(0)
			for range benchRounds {
				s, r := rate(b, callers, ours), rate(b, callers, bare)
				made += s * benchRound.Seconds()
				signatures, reference, ratios = append(signatures, s), append(reference, r), append(ratios, s/r)
			}
			for _, all := range [][]float64{signatures, reference, ratios} {
				slices.Sort(all)
			}
			const mid = benchRounds / 2
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ratios[mid], "ratio")
			fmt.Printf("# Vault, %d callers: %.0f signatures/s, bare Vault %.0f, ratio %.2f, %.1f signatures a request\n",
				callers, signatures[mid], reference[mid], ratios[mid], made/float64(requests.Load()))
		})
	}
}
