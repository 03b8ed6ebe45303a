// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

func auditOf(n int) []AuditRecord {
	c := Caller{Issuer: "https://issuer.example", Subject: "repo:a/b", Tenant: "acme", Request: "r", Remote: "192.0.2.1", Why: "rule 1"}
	var all []AuditRecord
	var head AuditHead
	for i := range n {
		at := time.Date(2026, 3, 1, 12, 0, i, 123_456_789, time.FixedZone("", 3600))
		all = append(all, c.Allowed("attest.provenance", fmt.Sprint("object ", i), at).Chain(head))
		head = all[i].Head()
	}
	return all
}

// Whoever has the JSON of a record can compute its hash: it is that of the
// canonical form of RFC 8785 without the hash.
func TestAuditHashIsOfCanonicalJSON(t *testing.T) {
	for _, text := range []string{"", "plain", `quote " \ / < > &`, "é ✓ 𝔘 \U0010ffff \u2028 \u2029 \ufffd", "\u00a0"} {
		c := Caller{Issuer: text, Subject: text, Tenant: text, Session: text, Request: text, Remote: text}
		r := c.Refused("read", text, text, time.Date(2026, 3, 1, 12, 0, 0, 120_000_000, time.UTC)).Chain(AuditHead{Seq: 1 << 40, Hash: SHA256([]byte("x"))})
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]jsontext.Value
		if err := json.Unmarshal(raw, &members); err != nil {
			t.Fatal(err)
		}
		delete(members, "hash")
		without, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		canonical := jsontext.Value(without)
		if err := canonical.Canonicalize(); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256(canonical)); got != r.Hash.String() {
			t.Errorf("%q: the canonical JSON\n%s\nhas %s, the record says %s", text, canonical, got, r.Hash)
		}
		var back AuditRecord
		if err := DecodeJSON(raw, &back); err != nil {
			t.Fatal(err)
		}
		if back != r {
			t.Errorf("read back %+v: want %+v", back, r)
		}
	}
	// A fixed one, so that the form never changes unseen.
	const want = "sha256:ec1367fb085120fb37288e39285135588c07a05089be058fc14de3a7171fd5a1"
	if got := auditOf(2)[1].Hash.String(); got != want {
		t.Errorf("the second record has hash %s: want %s", got, want)
	}
}

func TestVerifyAudit(t *testing.T) {
	all := auditOf(6)
	head, err := VerifyAudit(all, AuditHead{})
	if err != nil || head != all[5].Head() {
		t.Fatalf("%+v, %v", head, err)
	}
	if head, err = VerifyAudit(all[3:], all[2].Head()); err != nil || head != all[5].Head() {
		t.Errorf("from the middle: %+v, %v", head, err)
	}
	if head, err = VerifyAudit(nil, all[2].Head()); err != nil || head != all[2].Head() {
		t.Errorf("of nothing: %+v, %v", head, err)
	}
	remade := func(from int, all []AuditRecord) []AuditRecord { // as by somebody who knows how
		for i := from; i < len(all); i++ {
			all[i] = all[i].Chain(all[i-1].Head())
		}
		return all
	}
	for name, c := range map[string]struct {
		change func([]AuditRecord) []AuditRecord
		want   string
	}{
		"the first is missing":         {func(a []AuditRecord) []AuditRecord { return a[1:] }, "after record 0 comes record 2"},
		"one is missing":               {func(a []AuditRecord) []AuditRecord { return slices.Delete(a, 2, 3) }, "after record 2 comes record 4"},
		"two have changed places":      {func(a []AuditRecord) []AuditRecord { a[2], a[3] = a[3], a[2]; return a }, "after record 2 comes record 4"},
		"one stands there twice":       {func(a []AuditRecord) []AuditRecord { return slices.Insert(a, 3, a[2]) }, "after record 3 comes record 3"},
		"one has another outcome":      {func(a []AuditRecord) []AuditRecord { a[2].Outcome = AuditRefused; return a }, "record 3 was changed"},
		"one has another subject":      {func(a []AuditRecord) []AuditRecord { a[2].Subject = "x"; return a }, "record 3 was changed"},
		"one is later":                 {func(a []AuditRecord) []AuditRecord { a[2].At = a[2].At.Add(1); return a }, "record 3 was changed"},
		"one has no hash":              {func(a []AuditRecord) []AuditRecord { a[2].Hash = Digest{}; return a }, "record 3 was changed"},
		"text moved between members":   {func(a []AuditRecord) []AuditRecord { a[2].Action, a[2].Issuer = "", a[2].Action+a[2].Issuer; return a }, "record 3 was changed"},
		"one is made anew":             {func(a []AuditRecord) []AuditRecord { a[2].Why = "x"; a[2] = a[2].Chain(a[1].Head()); return a }, "record 4 does not follow"},
		"one is missing and renamed":   {func(a []AuditRecord) []AuditRecord { a = slices.Delete(a, 2, 3); a[2].Seq = 3; return a }, "record 3 does not follow"},
		"the first follows something":  {func(a []AuditRecord) []AuditRecord { a[0].Previous = SHA256(nil); a[0].Hash = a[0].hash(); return a }, "record 1 does not follow"},
		"all are made anew, from then": {func(a []AuditRecord) []AuditRecord { a[2].Why = "x"; return remade(2, a) }, ""},
	} {
		got, err := VerifyAudit(c.change(slices.Clone(all)), AuditHead{})
		if c.want == "" { // no chain shows it: the head is another, and a signed one tells
			if err != nil || got == all[5].Head() {
				t.Errorf("%s: %v, and the head is the same: %t", name, err, got == all[5].Head())
			}
			continue
		}
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// A record of whatever a caller sends can be stored.
func TestAuditTextsFit(t *testing.T) {
	evil := "\x1b[2J\x00\n\xff" + strings.Repeat("é", MaxAuditText)
	c := Caller{Issuer: evil, Subject: evil, Tenant: evil, Session: evil, Request: evil, Remote: evil, Why: evil}
	for _, r := range []AuditRecord{c.Allowed("read", evil, time.Now()), c.Refused("read", evil, evil, time.Now())} {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		for _, text := range r.texts() {
			if strings.ContainsAny(*text, "\x1b\x00\n") || !strings.HasPrefix(*text, "�[2J�") || !strings.HasSuffix(*text, "é…") {
				t.Errorf("text %q", *text)
			}
		}
	}
}

// What is signed for a caller is recorded with its intent; a head that the
// service signs by itself is not.
func TestIssueIsAudited(t *testing.T) {
	issuer, _, ledger := newTestIssuer(t)
	caller := builder()
	caller.Request, caller.Remote, caller.Tenant, caller.Session, caller.Why = "r", "192.0.2.1", "acme", "s", "rule 1, builder b"
	req := Request{Subjects: append(slices.Clone(oneSubject), Subject{Name: "b", SHA256: SHA256([]byte("b"))}), Predicate: Provenance{}}
	a, err := issuer.Issue(t.Context(), caller, req)
	if err != nil {
		t.Fatal(err)
	}
	in := ledger.intents[a.ID]
	want := AuditRecord{
		At: in.At, Request: "r", Remote: "192.0.2.1", Issuer: caller.Issuer, Subject: caller.Subject, Tenant: "acme", Session: "s",
		Action: "attest.provenance", Outcome: AuditAllowed, Why: "rule 1, builder b",
		Object: fmt.Sprintf("%s %s %s and 1 more", in.Payload, ProvenanceType, oneSubject[0].SHA256),
	}
	if diff := cmp.Diff(&want, in.Audit, cmp.Comparer(func(x, y Digest) bool { return x == y })); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if err := in.Audit.Validate(); err != nil {
		t.Error(err)
	}

	head := auditOf(3)[2].Head()
	head.Service = "https://provost.example"
	signed, err := issuer.Issue(t.Context(), Caller{Issuer: head.Service, Subject: "audit log"}, head.Request())
	if err != nil {
		t.Fatal(err)
	}
	if in := ledger.intents[signed.ID]; in.Audit != nil || signed.Signer != PowerVerdict || !IsAuditHead(signed.PredicateType) {
		t.Errorf("head: recorded %+v, signed by %s as %s", in.Audit, signed.Signer, signed.PredicateType)
	}
	payload, _, err := OpenUnverified(signed.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseStatement(payload)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseAuditHead(head.Service, s.Predicate); err != nil || back != head || s.Subjects[0].SHA256 != head.Hash {
		t.Errorf("read back %+v, %v: want %+v", back, err, head)
	}
	again, err := issuer.Issue(t.Context(), Caller{Issuer: head.Service, Subject: "audit log"}, head.Request())
	if err != nil || again.ID != signed.ID {
		t.Errorf("asked again: %s, %v: want the same attestation", again.ID, err)
	}
}

func TestAuditHeadRefuses(t *testing.T) {
	good := auditOf(1)[0].Head()
	good.Service = "https://provost.example"
	for name, change := range map[string]func(*AuditHead){
		"the zero head": func(h *AuditHead) { *h = AuditHead{Service: h.Service} },
		"no service":    func(h *AuditHead) { h.Service = "" },
		"no hash":       func(h *AuditHead) { h.Hash = Digest{} },
		"no time":       func(h *AuditHead) { h.At = time.Time{} },
	} {
		h := good
		change(&h)
		if _, err := h.claim(Caller{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
		}
	}
	for _, predicate := range []string{"", "{}", `{"seq":0,"hash":"` + good.Hash.String() + `","at":"2026-01-01T00:00:00Z"}`, `{"seq":1,"hash":"sha256:00","at":"2026-01-01T00:00:00Z"}`} {
		if _, err := ParseAuditHead(good.Service, []byte(predicate)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", predicate, err)
		}
	}
	if IsAuditHead(auditHeadPath) || IsAuditHead(VSAType) || IsRevocation(AuditHeadType("https://a")) {
		t.Error("types are mixed up")
	}
}
