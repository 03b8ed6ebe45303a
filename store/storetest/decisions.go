// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"provost/attest"
)

func decisionRoundTrip(t *testing.T, b Backend) {
	verdicts := []attest.Verdict{attest.VerdictError, attest.VerdictPass, attest.VerdictDeny, attest.VerdictNoEvidence}
	for i, text := range texts {
		d := attest.Decision{
			ID: attest.NewID() + text, At: times[i%len(times)], Caller: text, Artifact: sha256Of("artifact %d", i),
			Name: text, Environment: text, Verdict: verdicts[i%len(verdicts)],
			Reasons: []attest.Reason{{Rule: text, Severity: text, Message: "<&>" + text}, {}},
			VSA:     []byte("vsa\x00\xff" + text), VSAID: text,
		}
		switch i % 3 {
		case 1:
			d.Artifact, d.Reasons, d.VSA = sha512Of(text), nil, nil
		case 2:
			d.Reasons, d.VSA = []attest.Reason{}, []byte{}
		}
		if err := b.AppendDecision(t.Context(), d); err != nil {
			t.Fatalf("append decision: %v", err)
		}
		if len(d.VSA) == 0 {
			d.VSA = nil // none is nil
		}
		d.At = d.At.UTC()
		got, err := b.Decision(t.Context(), d.ID)
		if err != nil {
			t.Fatalf("decision: %v", err)
		}
		same(t, "decision", d, got)
		listed, err := b.Decisions(t.Context(), d.Artifact, text, 9)
		if err != nil {
			t.Fatalf("decisions: %v", err)
		}
		same(t, "decisions", []attest.Decision{d}, listed)

		refused(t, "the same id again", attest.ErrConflict, b.AppendDecision(t.Context(), d))
		other := newDecision(sha256Of("b"), "prod")
		other.ID = d.ID
		refused(t, "the same id for another decision", attest.ErrConflict, b.AppendDecision(t.Context(), other))
	}
}

func badDecisions(t *testing.T, b Backend) {
	mutations := map[string]func(*attest.Decision){
		"no id":       func(d *attest.Decision) { d.ID = "" },
		"no artifact": func(d *attest.Decision) { d.Artifact = attest.Digest{} },
		"year 10000":  func(d *attest.Decision) { d.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	for _, bad := range []string{"a\x00b", "a\xffb"} {
		mutations[fmt.Sprintf("id %q", bad)] = func(d *attest.Decision) { d.ID = bad }
		mutations[fmt.Sprintf("caller %q", bad)] = func(d *attest.Decision) { d.Caller = bad }
		mutations[fmt.Sprintf("name %q", bad)] = func(d *attest.Decision) { d.Name = bad }
		mutations[fmt.Sprintf("environment %q", bad)] = func(d *attest.Decision) { d.Environment = bad }
		mutations[fmt.Sprintf("vsa id %q", bad)] = func(d *attest.Decision) { d.VSAID = bad }
		mutations[fmt.Sprintf("rule %q", bad)] = func(d *attest.Decision) { d.Reasons[0].Rule = bad }
		mutations[fmt.Sprintf("severity %q", bad)] = func(d *attest.Decision) { d.Reasons[0].Severity = bad }
		mutations[fmt.Sprintf("message %q", bad)] = func(d *attest.Decision) { d.Reasons[0].Message = bad }
	}
	for name, mutate := range mutations {
		d := newDecision(sha256Of("a"), "prod")
		mutate(&d)
		refused(t, name, attest.ErrInvalid, b.AppendDecision(t.Context(), d))
	}
	found, err := b.Decisions(t.Context(), sha256Of("a"), "", 99)
	if err != nil || len(found) != 0 {
		t.Errorf("got %v, %v: want nothing stored", found, err)
	}
}

func decisions(t *testing.T, b Backend) {
	environments := []string{"prod", "staging", "Prod", "prod "}
	var all []attest.Decision
	for i := range 24 {
		d := newDecision(sha256Of("a"), environments[i%len(environments)])
		d.At = d.At.Add(-time.Duration(i) * time.Hour) // newest by storing, whatever clocks say
		if err := b.AppendDecision(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
		if err := b.AppendDecision(t.Context(), newDecision(sha256Of("b"), "prod")); err != nil {
			t.Fatal(err)
		}
	}
	slices.Reverse(all)
	for _, environment := range append(environments, "", "nowhere") {
		var want []attest.Decision
		for _, d := range all {
			if environment == "" || d.Environment == environment {
				want = append(want, d)
			}
		}
		for _, limit := range []int{1, 5, 24, 99} {
			got, err := b.Decisions(t.Context(), sha256Of("a"), environment, limit)
			if err != nil {
				t.Fatal(err)
			}
			same(t, fmt.Sprintf("%d decisions for %q", limit, environment), want[:min(limit, len(want))], got)
		}
	}
}

func certificates(t *testing.T, b Backend) {
	want := []attest.Certificate{
		{Name: "issuing", Version: 1, DER: []byte{0x30, 0}},
		{Name: "provenance", Version: 1, DER: []byte("\x00\xff")},
		{Name: "provenance", Version: 2, DER: []byte("two")},
		{Name: "provenance", Version: 10, DER: []byte("ten")},
		{Name: "root", Version: 1, DER: []byte("root")},
	}
	for _, i := range []int{3, 0, 4, 2, 1} {
		stored, err := b.AppendCertificate(t.Context(), want[i])
		if err != nil {
			t.Fatal(err)
		}
		same(t, "stored certificate", want[i], stored)
	}
	for _, c := range want {
		stored, err := b.AppendCertificate(t.Context(), attest.Certificate{Name: c.Name, Version: c.Version, DER: []byte("late")})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "the second writer is told of the first", c, stored)
	}
	for name, bad := range map[string]attest.Certificate{
		"no name":    {Version: 1, DER: []byte("x")},
		"version 0":  {Name: "n", DER: []byte("x")},
		"version -1": {Name: "n", Version: -1, DER: []byte("x")},
		"no DER":     {Name: "n", Version: 1},
		"NUL":        {Name: "n\x00", Version: 1, DER: []byte("x")},
		"not UTF-8":  {Name: "n\xff", Version: 1, DER: []byte("x")},
	} {
		_, err := b.AppendCertificate(t.Context(), bad)
		refused(t, name, attest.ErrInvalid, err)
	}
	got, err := b.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "certificates", want, got)
}

func concurrentCertificates(t *testing.T, b Backend) {
	got := concurrently(t, 50, func(i int) (attest.Certificate, error) {
		return b.AppendCertificate(t.Context(), attest.Certificate{Name: "root", Version: 1, DER: fmt.Append(nil, "of ", i)})
	})
	for _, c := range got {
		same(t, "certificate", got[0], c)
	}
	all, err := b.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "certificates", got[:1], all)
}
