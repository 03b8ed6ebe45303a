// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"provost/attest"
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
	mustExec(b, s.writer, "CREATE TABLE raw (bundle BLOB)")
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
	mustExec(b, s.writer, "PRAGMA synchronous = OFF") // only to get there
	bundle := bytes.Repeat([]byte("b"), 6<<10)
	q := attest.Query{Artifact: testIntent("artifact").Subjects[0].SHA256, NotPredicateType: attest.VSAType, Limit: 100}
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
