// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkAppend is the log alone, signed with an Ed25519 key in memory: how
// long a lone caller waits, and how many entries a second 64 callers append.
// cmd.BenchmarkLog compares with the Rekor v2 server.
func BenchmarkAppend(b *testing.B) {
	entry := data(string(bytes.Repeat([]byte("e"), 1500)))
	b.Run("lone", func(b *testing.B) {
		l := openTest(b, testConfig(b, b.TempDir()))
		var all []time.Duration
		for b.Loop() {
			start := time.Now()
			if _, err := l.Append(b.Context(), entry); err != nil {
				b.Fatal(err)
			}
			all = append(all, time.Since(start))
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
	})
	b.Run("callers=64", func(b *testing.B) {
		l := openTest(b, testConfig(b, b.TempDir()))
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 64 {
			n := b.N / 64
			if i < b.N%64 {
				n++
			}
			wg.Go(func() {
				for range n {
					if _, err := l.Append(b.Context(), entry); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "entries/s")
	})
}
