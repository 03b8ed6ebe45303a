// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/attest"
)

func attestationRoundTrip(t *testing.T, b Backend) {
	allBytes := make([]byte, 256)
	for i := range allBytes {
		allBytes[i] = byte(i)
	}
	for i, text := range texts {
		in := attest.Intent{
			Message: sha256Of("message %d", i),
			ID:      attest.NewID() + text, At: times[i%len(times)], CallerIssuer: text, CallerSubject: text,
			Signer: attest.Power(text), PredicateType: text, Payload: sha256Of("payload %d", i), IdempotencyKey: text,
			Subjects: []attest.Subject{
				{Name: text, SHA256: sha256Of("artifact %d", i), SHA512: sha512Of(text)},
				{Name: "", SHA256: sha256Of("artifact %d", i)},
				{Name: "z", SHA256: sha256Of("common")},
				{Name: "a", SHA256: sha256Of("common"), SHA512: sha512Of("common")},
			},
		}
		appendIntent(t, b, in)
		in.At = in.At.UTC()
		same(t, "open intents", []attest.Intent{in}, open(t, b))

		a := released(in, string(allBytes)+text)
		a.SignedAt, a.KeyVersion, a.Seq = times[(i+1)%len(times)], math.MaxInt-i, -7
		if text != "" {
			a.Log, a.LogIndex = text, math.MaxInt64-int64(i)
		}
		stored, err := b.AppendAttestation(t.Context(), a)
		if err != nil {
			t.Fatalf("append attestation: %v", err)
		}
		if stored.Seq < 1 {
			t.Errorf("seq is %d: want it set by the store, from 1", stored.Seq)
		}
		a.Seq, a.SignedAt = stored.Seq, a.SignedAt.UTC()
		same(t, "stored attestation", a, stored)
		byID, err := b.Attestation(t.Context(), in.ID)
		if err != nil {
			t.Fatalf("attestation: %v", err)
		}
		same(t, "attestation by id", a, byID)
		for _, d := range []attest.Digest{sha256Of("artifact %d", i), sha512Of(text)} {
			same(t, "attestations by "+d.Algorithm(), []attest.Attestation{a}, query(t, b, attest.Query{In: attest.Everywhere, Artifact: d, Limit: 9}))
		}
		same(t, "open intents", nil, open(t, b))
	}
	if found := query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("common"), Limit: 99}); len(found) != len(texts) {
		t.Errorf("two subjects with one digest: got %d attestations: want %d, each once", len(found), len(texts))
	}
}

func unrepresentable(t *testing.T, b Backend) {
	mutations := map[string]func(*attest.Intent){
		"year 10000":              func(in *attest.Intent) { in.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"year -1":                 func(in *attest.Intent) { in.At = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no id":                   func(in *attest.Intent) { in.ID = "" },
		"no payload":              func(in *attest.Intent) { in.Payload = attest.Digest{} },
		"sha512 payload":          func(in *attest.Intent) { in.Payload = sha512Of("x") },
		"sha512 message":          func(in *attest.Intent) { in.Message = sha512Of("x") },
		"subject without sha256":  func(in *attest.Intent) { in.Subjects[0].SHA256 = attest.Digest{} },
		"sha512 where sha256 is":  func(in *attest.Intent) { in.Subjects[0].SHA256 = sha512Of("x") },
		"sha256 where sha512 is":  func(in *attest.Intent) { in.Subjects[0].SHA512 = sha256Of("x") },
		"second subject is wrong": func(in *attest.Intent) { in.Subjects = append(in.Subjects, attest.Subject{Name: "x"}) },
	}
	for _, bad := range []string{"a\x00b", "a\xffb", "\xed\xa0\x80"} {
		mutations[fmt.Sprintf("id %q", bad)] = func(in *attest.Intent) { in.ID = bad }
		mutations[fmt.Sprintf("issuer %q", bad)] = func(in *attest.Intent) { in.CallerIssuer = bad }
		mutations[fmt.Sprintf("subject %q", bad)] = func(in *attest.Intent) { in.CallerSubject = bad }
		mutations[fmt.Sprintf("signer %q", bad)] = func(in *attest.Intent) { in.Signer = attest.Power(bad) }
		mutations[fmt.Sprintf("type %q", bad)] = func(in *attest.Intent) { in.PredicateType = bad }
		mutations[fmt.Sprintf("key %q", bad)] = func(in *attest.Intent) { in.IdempotencyKey = bad }
		mutations[fmt.Sprintf("name %q", bad)] = func(in *attest.Intent) { in.Subjects[0].Name = bad }
	}
	for name, mutate := range mutations {
		in := newIntent(sha256Of("a"))
		mutate(&in)
		_, _, err := b.AppendIntent(t.Context(), in)
		refused(t, name, attest.ErrInvalid, err)
	}
	same(t, "open intents", nil, open(t, b))

	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	a := released(in, "bundle")
	a.SignedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	_, err := b.AppendAttestation(t.Context(), a)
	refused(t, "signed in the year 10000", attest.ErrInvalid, err)
	_, err = b.AppendAttestation(t.Context(), released(in, ""))
	refused(t, "no bundle", attest.ErrInvalid, err)
	same(t, "open intents", []attest.Intent{in}, open(t, b))
}

func idempotency(t *testing.T, b Backend) {
	first := newIntent(sha256Of("a"))
	first.IdempotencyKey = "key"
	appendIntent(t, b, first)

	retry := func(change func(*attest.Intent)) (string, *attest.Attestation, error) {
		in := newIntent(sha256Of("a"))
		in.IdempotencyKey, in.Payload, in.At = "key", first.Payload, in.At.Add(time.Hour)
		change(&in)
		return b.AppendIntent(t.Context(), in)
	}
	asItWas := func(*attest.Intent) {}

	id, done, err := retry(asItWas)
	if err != nil || id != first.ID || done != nil {
		t.Errorf("retried before the first has finished: got %s, %v, %v: want %s, nil, nil", id, done, err, first.ID)
	}
	_, _, err = retry(func(in *attest.Intent) { in.Payload = sha256Of("other") })
	refused(t, "another payload before the first has finished", attest.ErrConflict, err)
	_, _, err = retry(func(in *attest.Intent) { in.Tenant += "another" })
	refused(t, "another tenant before the first has finished", attest.ErrConflict, err)
	same(t, "retries store nothing: open intents", []attest.Intent{first}, open(t, b))

	stored, err := b.AppendAttestation(t.Context(), released(first, "bundle"))
	if err != nil {
		t.Fatal(err)
	}
	id, done, err = retry(asItWas)
	if err != nil || id != first.ID || done == nil {
		t.Fatalf("retried after the first has finished: got %s, %v, %v: want its attestation", id, done, err)
	}
	same(t, "retried after the first has finished", stored, *done)
	_, _, err = retry(func(in *attest.Intent) { in.Payload = sha256Of("other") })
	refused(t, "another payload after the first has finished", attest.ErrConflict, err)
	_, done, err = retry(func(in *attest.Intent) { in.Tenant += "another" })
	refused(t, "another tenant after the first has finished", attest.ErrConflict, err)
	if done != nil {
		t.Error("another tenant is given the first's attestation")
	}
	same(t, "retries store nothing: open intents", nil, open(t, b))

	for name, change := range map[string]func(*attest.Intent){
		"another issuer":      func(in *attest.Intent) { in.CallerIssuer += "/" },
		"another subject":     func(in *attest.Intent) { in.CallerSubject += "c" },
		"another case of key": func(in *attest.Intent) { in.IdempotencyKey = "KEY" },
		"a moved boundary":    func(in *attest.Intent) { in.CallerIssuer, in.CallerSubject = in.CallerIssuer+"r", in.CallerSubject[1:] },
		"no key":              func(in *attest.Intent) { in.IdempotencyKey = "" },
		"no key again":        func(in *attest.Intent) { in.IdempotencyKey = "" },
	} {
		if id, done, err := retry(change); err != nil || id == first.ID || done != nil {
			t.Errorf("%s: got %s, %v, %v: want a new intent", name, id, done, err)
		}
	}
}

// concurrently runs f n times at once and returns what each returned.
func concurrently[T any](t *testing.T, n int, f func(i int) (T, error)) []T {
	t.Helper()
	results := make([]T, n)
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			results[i], errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return results
}

func concurrentKey(t *testing.T, b Backend) {
	payload := sha256Of("one payload")
	got := concurrently(t, 50, func(i int) (attest.Attestation, error) {
		in := newIntent(sha256Of("a"))
		in.IdempotencyKey, in.Payload = "key", payload
		id, done, err := b.AppendIntent(t.Context(), in)
		if err != nil || done != nil {
			if done == nil {
				done = &attest.Attestation{}
			}
			return *done, err
		}
		in.ID = id
		return b.AppendAttestation(t.Context(), released(in, fmt.Sprint("bundle of ", i)))
	})
	for _, a := range got {
		same(t, "attestation", got[0], a)
	}
	if found := query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("a"), Limit: 99}); len(found) != 1 {
		t.Errorf("got %d attestations: want 1", len(found))
	}
	same(t, "open intents", nil, open(t, b))
}

func concurrentAttestations(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	got := concurrently(t, 50, func(i int) (attest.Attestation, error) {
		a := released(in, fmt.Sprint("bundle of ", i))
		a.KeyVersion = i
		return b.AppendAttestation(t.Context(), a)
	})
	for _, a := range got {
		same(t, "attestation", got[0], a)
	}
	same(t, "attestations", got[:1], query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("a"), Limit: 99}))
}

func needsIntent(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	_, err := b.AppendAttestation(t.Context(), released(in, "bundle"))
	refused(t, "append without intent", attest.ErrNotFound, err)
	same(t, "attestations", nil, query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("a"), Limit: 1}))
}

func contradiction(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	in.Subjects = append(in.Subjects, attest.Subject{Name: "second", SHA256: sha256Of("b")})
	appendIntent(t, b, in)
	mutations := map[string]func(*attest.Attestation){
		"another type":           func(a *attest.Attestation) { a.PredicateType = attest.VSAType },
		"another signer":         func(a *attest.Attestation) { a.Signer = attest.PowerVerdict },
		"no subjects":            func(a *attest.Attestation) { a.Subjects = nil },
		"a subject less":         func(a *attest.Attestation) { a.Subjects = a.Subjects[:1] },
		"a subject more":         func(a *attest.Attestation) { a.Subjects = append(a.Subjects, attest.Subject{SHA256: sha256Of("c")}) },
		"another name":           func(a *attest.Attestation) { a.Subjects[1].Name = "x" },
		"another sha256":         func(a *attest.Attestation) { a.Subjects[1].SHA256 = sha256Of("c") },
		"a sha512 more":          func(a *attest.Attestation) { a.Subjects[1].SHA512 = sha512Of("b") },
		"subjects the wrong way": func(a *attest.Attestation) { slices.Reverse(a.Subjects) },
	}
	for name, mutate := range mutations {
		a := released(in, "bundle")
		a.Subjects = slices.Clone(a.Subjects)
		mutate(&a)
		_, err := b.AppendAttestation(t.Context(), a)
		refused(t, name, attest.ErrConflict, err)
	}
	same(t, "open intents", []attest.Intent{in}, open(t, b))
	stored, err := b.AppendAttestation(t.Context(), released(in, "bundle"))
	if err != nil {
		t.Fatal(err)
	}
	for name, mutate := range mutations {
		a := released(in, "bundle")
		a.Subjects = slices.Clone(a.Subjects)
		mutate(&a)
		_, err := b.AppendAttestation(t.Context(), a)
		refused(t, name+", late", attest.ErrConflict, err)
	}
	same(t, "attestations", []attest.Attestation{stored}, query(t, b, attest.Query{In: attest.Everywhere, Artifact: sha256Of("b"), Limit: 9}))
}

func intentTwice(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	appendIntent(t, b, in)
	_, _, err := b.AppendIntent(t.Context(), in)
	refused(t, "same id again", attest.ErrConflict, err)
	same(t, "open intents", []attest.Intent{in}, open(t, b))
}

func openIntents(t *testing.T, b Backend) {
	var want []attest.Intent
	for i := range 20 {
		in := newIntent(sha256Of("artifact %d", i))
		in.At = in.At.Add(-time.Duration(i) * time.Hour) // oldest by storing, whatever clocks say
		if i%3 == 0 {
			store(t, b, in, "bundle")
			continue
		}
		appendIntent(t, b, in)
		want = append(want, in)
	}
	same(t, "all open intents", want, open(t, b))
	some, err := b.OpenIntents(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "three open intents", want[:3], some)
}

func manySubjects(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	in.Subjects = nil
	for i := range attest.MaxSubjects {
		name := strings.Repeat("n", attest.MaxSubjectName)
		in.Subjects = append(in.Subjects, attest.Subject{Name: name, SHA256: sha256Of("%d", i), SHA512: sha512Of(fmt.Sprint(i))})
	}
	appendIntent(t, b, in)
	same(t, "open intents", []attest.Intent{in}, open(t, b))
	want, err := b.AppendAttestation(t.Context(), released(in, "bundle"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "subjects", in.Subjects, want.Subjects)
	for _, i := range []int{0, 1, 511, 1022, 1023} {
		for _, d := range []attest.Digest{in.Subjects[i].SHA256, in.Subjects[i].SHA512} {
			same(t, "attestations", []attest.Attestation{want}, query(t, b, attest.Query{In: attest.Everywhere, Artifact: d, Limit: 9}))
		}
	}
}

func largeBundle(t *testing.T, b Backend) {
	in := newIntent(sha256Of("a"))
	bundle := strings.Repeat("0123456789abcdef", 1<<20)
	stored := store(t, b, in, bundle)
	got, err := b.Attestation(t.Context(), in.ID)
	if err != nil {
		t.Fatal(err)
	}
	if string(stored.Bundle) != bundle || string(got.Bundle) != bundle {
		t.Errorf("a bundle of %d bytes came back as %d and %d bytes, or changed", len(bundle), len(stored.Bundle), len(got.Bundle))
	}
}
