// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"provost/attest"
)

func paging(t *testing.T, b Backend) {
	types := []string{attest.ProvenanceType, attest.VSAType, "https://a.example/first", "https://z.example/last", "x", "x "}
	artifact := sha256Of("a")
	var all []attest.Attestation
	for i := range 30 {
		in := newIntent(artifact)
		in.PredicateType = types[i%len(types)]
		all = append(all, store(t, b, in, fmt.Sprint("bundle ", i)))
		store(t, b, newIntent(sha256Of("another artifact")), "bundle")
	}
	if !slices.IsSortedFunc(all, func(x, y attest.Attestation) int { return int(x.Seq - y.Seq) }) {
		t.Error("seq does not grow in the order of storing")
	}

	// Every selection at every page size must be the model's.
	for _, only := range append(types, "", "https://nothing.example/") {
		for _, not := range append(types, "", "https://nothing.example/") {
			var want []attest.Attestation
			for _, a := range all {
				if (only == "" || a.PredicateType == only) && (not == "" || a.PredicateType != not) {
					want = append(want, a)
				}
			}
			for _, limit := range []int{1, 2, 7, 30, 31, math.MaxInt32} {
				var got []attest.Attestation
				q := attest.Query{In: attest.Everywhere, Artifact: artifact, PredicateType: only, NotPredicateType: not, Limit: limit}
				for {
					page := query(t, b, q)
					if len(page) > limit {
						t.Fatalf("%+v: got %d attestations", q, len(page))
					}
					got = append(got, page...)
					if len(page) < limit {
						break
					}
					q.After = page[len(page)-1].Seq
				}
				same(t, fmt.Sprintf("only %q, not %q, by %d", only, not, limit), want, got)
			}
		}
	}
	for _, after := range []int64{math.MinInt64, -1, 0} {
		same(t, "after nothing", all, query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, After: after, Limit: 99}))
	}
	same(t, "after everything", nil, query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, After: math.MaxInt64, Limit: 99}))
}

func pagingWhileWriting(t *testing.T, b Backend) {
	const writers, each = 8, 25
	artifact := sha256Of("a")
	written := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for range each {
				in := newIntent(artifact)
				if _, _, err = b.AppendIntent(t.Context(), in); err == nil {
					_, err = b.AppendAttestation(t.Context(), released(in, "bundle"))
				}
				if err != nil {
					break
				}
			}
			written <- err
		}()
	}
	seen := map[string]bool{}
	var after int64
	for running := writers; ; {
		page := query(t, b, attest.Query{In: attest.Everywhere, Artifact: artifact, After: after, Limit: 10})
		for _, a := range page {
			if a.Seq <= after || seen[a.ID] {
				t.Fatalf("attestation %s has seq %d after %d, or came twice", a.ID, a.Seq, after)
			}
			after, seen[a.ID] = a.Seq, true
		}
		if running == 0 && len(page) == 0 {
			break
		}
		select {
		case err := <-written:
			if running--; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	if len(seen) != writers*each {
		t.Errorf("saw %d attestations: want %d", len(seen), writers*each)
	}
}

func badQueries(t *testing.T, b Backend) {
	a := sha256Of("a")
	for _, limit := range []int{0, -1, math.MinInt} {
		_, err := b.Attestations(t.Context(), attest.Query{In: attest.Everywhere, Artifact: a, Limit: limit})
		refused(t, "attestations: limit", attest.ErrInvalid, err)
		_, err = b.Decisions(t.Context(), a, "", limit)
		refused(t, "decisions: limit", attest.ErrInvalid, err)
		_, err = b.OpenIntents(t.Context(), limit)
		refused(t, "open intents: limit", attest.ErrInvalid, err)
		_, err = b.LogOrphans(t.Context(), limit)
		refused(t, "log orphans: limit", attest.ErrInvalid, err)
	}
	_, err := b.Attestations(t.Context(), attest.Query{Limit: 1})
	refused(t, "attestations: no artifact", attest.ErrInvalid, err)
	_, err = b.Decisions(t.Context(), attest.Digest{}, "", 1)
	refused(t, "decisions: no artifact", attest.ErrInvalid, err)
	_, err = b.LogHead(t.Context(), "")
	refused(t, "log head: no log", attest.ErrInvalid, err)
	for _, message := range []attest.Digest{{}, sha512Of("x")} {
		_, err = b.IntentOfMessage(t.Context(), message)
		refused(t, "intent of message: no sha256", attest.ErrInvalid, err)
	}
	for _, r := range [][2]int64{{-1, 1}, {2, 1}, {0, math.MaxInt64}} {
		_, err = b.LogIndexes(t.Context(), "aa", r[0], r[1])
		refused(t, fmt.Sprintf("log indexes from %d below %d", r[0], r[1]), attest.ErrInvalid, err)
	}
	_, err = b.LogIndexes(t.Context(), "", 0, 1)
	refused(t, "log indexes: no log", attest.ErrInvalid, err)
}

func notFound(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in) // an intent alone is not an attestation
	d := newDecision(sha256Of("a"), "prod")
	if err := b.AppendDecision(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", in.ID, d.VSAID, "%", attest.NewID()} {
		_, err := b.Attestation(t.Context(), id)
		refused(t, fmt.Sprintf("attestation %q", id), attest.ErrNotFound, err)
	}
	for _, id := range []string{"", in.ID, d.ID + " ", d.ID[1:], "%", attest.NewID()} {
		_, err := b.Decision(t.Context(), id)
		refused(t, fmt.Sprintf("decision %q", id), attest.ErrNotFound, err)
	}
	same(t, "attestations", nil, query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("a"), Limit: 9}))
	none, err := b.Decisions(t.Context(), sha256Of("b"), "", 9)
	if err != nil || len(none) != 0 {
		t.Errorf("decisions about nothing: got %v, %v: want none", none, err)
	}
	certs, err := b.Certificates(t.Context())
	if err != nil || len(certs) != 0 {
		t.Errorf("certificates: got %v, %v: want none", certs, err)
	}
}
