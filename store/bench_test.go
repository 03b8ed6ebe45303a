// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"provost/attest"
	"provost/store/storetest"
)

// BenchmarkAppend appends an intent and its attestation, which are two
// transactions, and compares the time of one with a transaction that puts the
// same bundle into a table of one column, on the same disk with the same
// durability: that is "x-raw".
func BenchmarkAppend(b *testing.B) {
	bundle := bytes.Repeat([]byte("b"), 6<<10)
	b.Run("serial", func(b *testing.B) {
		s := openTest(b, filepath.Join(b.TempDir(), "provost.db"))
		for b.Loop() {
			appendBoth(b, s, bundle)
		}
		elapsed := b.Elapsed()
		raw := rawTransactions(b, b.N, bundle)
		b.ReportMetric(float64(elapsed)/2/float64(raw), "x-raw")
		b.ReportMetric(float64(raw)/float64(b.N), "raw-ns/tx")
	})
	b.Run("parallel", func(b *testing.B) {
		s := openTest(b, filepath.Join(b.TempDir(), "provost.db"))
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				appendBoth(b, s, bundle)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attestations/s")
	})
}

func appendBoth(b *testing.B, s *SQLite, bundle []byte) {
	in := testIntent("artifact")
	in.IdempotencyKey = in.ID
	_, _, err := s.AppendIntent(b.Context(), in)
	if err == nil {
		_, err = s.AppendAttestation(b.Context(), testAttestation(in, bundle))
	}
	if err != nil {
		b.Error(err)
	}
}

// rawTransactions returns how long n transactions of one row took, in a
// database with our settings and no schema of ours.
func rawTransactions(b *testing.B, n int, bundle []byte) time.Duration {
	s := openTest(b, filepath.Join(b.TempDir(), "raw.db"))
	mustExec(b, s.writer.DB, "CREATE TABLE raw (bundle BLOB)")
	start := time.Now()
	for range n {
		if _, err := s.writer.Exec("INSERT INTO raw (bundle) VALUES (?)", bundle); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}

// BenchmarkQueryPastVerdicts is what a gate asks: everything about an artifact
// but the many verdicts that it has given about it.
func BenchmarkQueryPastVerdicts(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "provost.db"))
	mustExec(b, s.writer.DB, "PRAGMA synchronous = OFF") // only to get there
	bundle := bytes.Repeat([]byte("b"), 6<<10)
	q := attest.Query{In: attest.Everywhere, Artifact: testIntent("artifact").Subjects[0].SHA256, NotPredicateType: attest.VSAType, Limit: 100}
	for i := range 20_000 {
		in := testIntent("artifact")
		if i%2000 != 0 {
			in.PredicateType = attest.VSAType
		}
		if _, _, err := s.AppendIntent(b.Context(), in); err != nil {
			b.Fatal(err)
		}
		if _, err := s.AppendAttestation(b.Context(), testAttestation(in, bundle)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if found, err := s.Attestations(b.Context(), q); err != nil || len(found) != 10 {
			b.Fatal(len(found), err)
		}
	}
}

// The figures below are ratios to a reference in the same run: rounds of both,
// one after the other, and the median of the rounds. Nothing asserts a time.
const (
	benchRounds = 5
	benchRound  = 2 * time.Second
)

// report prints a figure and its ratio.
func report(b *testing.B, ratio float64, format string, args ...any) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratio, "ratio")
	fmt.Printf("# "+format+"\n", args...)
}

// median of figures, which it sorts.
func median[T float64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// rate runs do from so many goroutines for a round, and returns calls a second.
func rate(b *testing.B, callers int, do func() error) float64 {
	b.Helper()
	var calls atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for time.Since(start) < benchRound {
				if err := do(); err != nil {
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

// cpu is what this process has used so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGroupCommit: durable commits a second of so many writers, against a
// loop of transactions of one row, which is as long as the row of an intent or
// of a bundle in turn: of the same rows, and of the intents and attestations of
// sign requests, which are nine rows with eight indexes.
func BenchmarkGroupCommit(b *testing.B) {
	bundle := bytes.Repeat([]byte("b"), 6<<10)
	dir := b.TempDir()
	s := openTest(b, filepath.Join(dir, "provost.db"))
	raw := openTest(b, filepath.Join(dir, "raw.db"))
	mustExec(b, raw.writer.DB, "CREATE TABLE raw (id INTEGER PRIMARY KEY, bundle BLOB)")
	insert, err := raw.writer.Prepare("INSERT INTO raw (bundle) VALUES (?)")
	if err != nil {
		b.Fatal(err)
	}
	oneRow := func() error {
		if _, err := insert.Exec(bundle[:300]); err != nil {
			return err
		}
		_, err := insert.Exec(bundle)
		return err
	}
	ours := func() error { return sign(s, benchIntent(), bundle) }
	row := func(content []byte) error {
		return raw.write(b.Context(), func(ctx context.Context, tx *tx) error {
			_, err := tx.exec(ctx, "INSERT INTO raw (bundle) VALUES (?)", content)
			return err
		})
	}
	same := func() error {
		if err := row(bundle[:300]); err != nil {
			return err
		}
		return row(bundle)
	}
	for _, writers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			var rows, commits, reference, rowRatios, ratios []float64
			var used []time.Duration
			for range benchRounds {
				before := cpu(b)
				o := rate(b, writers, ours)
				used = append(used, time.Duration(float64(cpu(b)-before)/(o*benchRound.Seconds())))
				r, s := rate(b, 1, oneRow), rate(b, writers, same)
				rows, commits, reference = append(rows, 2*s), append(commits, 2*o), append(reference, 2*r)
				rowRatios, ratios = append(rowRatios, s/r), append(ratios, o/r)
			}
			ratio := median(rowRatios)
			report(b, ratio, "durable commits, %d writers: %.0f/s of the same row, one-row transactions %.0f/s, ratio %.2f (bar at 64: at least 4.50); of intents and attestations %.0f/s, ratio %.2f, CPU for both %s",
				writers, median(rows), median(reference), ratio, median(commits), median(ratios), median(used).Round(time.Microsecond))
		})
	}
}

// benchIntent is as most are: about an artifact of its own.
func benchIntent() attest.Intent {
	in := testIntent(attest.NewID())
	in.At = time.Now()
	in.CallerIssuer, in.CallerSubject = "https://token.actions.example.com", "repo:organization/repository:ref:refs/heads/main"
	in.Payload, in.Message = attest.SHA256([]byte(in.ID)), attest.SHA256([]byte("PAE "+in.ID))
	return in
}

// logIndex is the last that was used, far beyond those that grow makes.
var logIndex atomic.Int64

func init() { logIndex.Store(1 << 40) }

// sign is the store's part of a sign request.
func sign(s *SQLite, in attest.Intent, bundle []byte) error {
	_, _, err := s.AppendIntent(context.Background(), in)
	if err == nil {
		a := testAttestation(in, bundle)
		a.SignedAt, a.Log, a.LogIndex = in.At, "aa11", logIndex.Add(1)
		_, err = s.AppendAttestation(context.Background(), a)
	}
	return err
}

// BenchmarkGrowth: p50 of the store's part of a lone sign request, with many
// attestations stored against few.
func BenchmarkGrowth(b *testing.B) {
	bundle := bytes.Repeat([]byte("b"), 6<<10)
	few, many := grown(b, 10_000), grown(b, 1_000_000)
	var fews, manys []time.Duration
	var ratios []float64
	p50 := func(s *SQLite) time.Duration {
		var all []time.Duration
		for start := time.Now(); time.Since(start) < benchRound; {
			in := benchIntent()
			before := time.Now()
			if err := sign(s, in, bundle); err != nil {
				b.Fatal(err)
			}
			all = append(all, time.Since(before))
		}
		return median(all)
	}
	p50(few)
	p50(many)
	for range benchRounds {
		f, m := p50(few), p50(many)
		fews, manys, ratios = append(fews, f), append(manys, m), append(ratios, float64(m)/float64(f))
	}
	ratio := median(ratios)
	report(b, ratio, "growth: intent and attestation, p50, with 10 thousand stored %s, with 1 million %s, ratio %.2f (bar: at most 1.30)",
		median(fews).Round(time.Microsecond), median(manys).Round(time.Microsecond), ratio)

	at := func(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }
	for what, q := range map[string]attest.SignedQuery{
		"a minute":       {From: at(900_000), To: at(900_060)},
		"all, to page":   {From: at(0), To: at(1 << 30)},
		"the last third": {From: at(660_000), To: at(1 << 30)},
	} {
		q.Signer, q.Limit = attest.PowerProvenance, 1000
		var took []time.Duration
		var n int
		for range benchRounds {
			start := time.Now()
			found, err := many.SignedBy(b.Context(), q)
			if err != nil {
				b.Fatal(err)
			}
			n, took = len(found), append(took, time.Since(start))
		}
		fmt.Printf("# signed by, 1 million stored, %s: a page of %d in %s\n", what, n, median(took).Round(time.Microsecond))
	}
	var took []time.Duration
	for range benchRounds {
		start := time.Now()
		if n, err := many.Signatures(b.Context(), attest.PowerProvenance, 1); err != nil || n < 1_000_000 {
			b.Fatal(n, err)
		}
		took = append(took, time.Since(start))
	}
	fmt.Printf("# signatures of a version, 1 million stored: %s\n", median(took).Round(time.Microsecond))
}

// grown is a store with n attestations: see [storetest.Grow].
func grown(b *testing.B, n int) *SQLite {
	b.Helper()
	path := filepath.Join(b.TempDir(), "provost.db")
	if err := openTest(b, path).Close(); err != nil {
		b.Fatal(err)
	}
	if err := storetest.Grow(b.Context(), path, n); err != nil {
		b.Fatal(err)
	}
	return openTest(b, path)
}
