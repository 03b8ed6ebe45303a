// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

func sameDigest(a, b Digest) bool { return a == b }

func TestStatementRoundTrip(t *testing.T) {
	want := Statement{
		Subjects: []Subject{
			{Name: "app <&> \u2028", SHA256: SHA256([]byte("app"))},
			{SHA256: SHA256([]byte("lib")), SHA512: Digest{AlgSHA512, hexA + hexA}},
		},
		PredicateType: "https://example.com/p/v1",
		Predicate:     []byte(`{"big":12345678901234567890,"small":1e-400,"text":"<b>&"}`),
	}
	payload, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseStatement(payload)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(sameDigest)); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
	if !bytes.Contains(payload, want.Predicate) {
		t.Errorf("the predicate's bytes changed on the way: %s", payload)
	}
	again, _ := want.Encode()
	if !bytes.Equal(payload, again) {
		t.Error("the same statement encoded to other bytes")
	}
}

// What we write, in-toto's own Go binding reads and finds valid.
func TestStatementInToto(t *testing.T) {
	payload, err := Statement{
		Subjects:      []Subject{{Name: "app", SHA256: SHA256(nil)}},
		PredicateType: ProvenanceType,
		Predicate:     []byte(`{"a":1}`),
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var s intoto.Statement
	if err := protojson.Unmarshal(payload, &s); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseStatementRefuses(t *testing.T) {
	const good = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"` + hexA + `"}}],"predicateType":"https://example.com/p","predicate":{}}`
	if _, err := ParseStatement([]byte(good)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	subject := `{"name":"a","digest":{"sha256":"` + hexA + `"}}`
	for name, bad := range map[string]string{
		"empty":                     "",
		"null":                      "null",
		"array":                     "[" + good + "]",
		"truncated":                 good[:len(good)-1],
		"trailing garbage":          good + "{}",
		"not UTF-8":                 replace(`"a"`, "\"\xff\""),
		"statement v0.1":            replace("Statement/v1", "Statement/v0.1"),
		"no _type":                  replace(`"_type":"https://in-toto.io/Statement/v1",`, ""),
		"no subject":                replace(subject, ""),
		"subject null":              replace("["+subject+"]", "null"),
		"subject without digest":    replace(`,"digest":{"sha256":"`+hexA+`"}`, ""),
		"only sha1":                 replace(`"sha256":"`+hexA, `"sha1":"`+hexA[:40]),
		"upper-case hex":            replace(hexA, strings.ToUpper(hexA)),
		"short hex":                 replace(hexA, hexA[2:]),
		"bad sha512":                replace(`"sha256"`, `"sha512":"00","sha256"`),
		"digest a number":           replace(`"`+hexA+`"`, "1"),
		"subject listed twice":      replace(subject, subject+","+subject),
		"duplicate predicateType":   replace(`"predicateType"`, `"predicateType":"https://other.example/","predicateType"`),
		"duplicate key, escaped":    replace(`"predicateType"`, `"predicate\u0054ype":"https://other.example/","predicateType"`),
		"duplicate digest":          replace(`"sha256"`, `"sha256":"`+hexA+`","sha256"`),
		"Subject in another case":   replace(`"subject"`, `"Subject"`),
		"predicate a string":        replace(`"predicate":{}`, `"predicate":"x"`),
		"no predicate":              replace(`,"predicate":{}`, ""),
		"predicateType not a URI":   replace("https://example.com/p", "cyclonedx"),
		"predicateType upper host":  replace("https://example.com/p", "https://Example.com/p"),
		"name with escape sequence": replace(`"a"`, `"a\u001b[2J"`),
		"name too long":             replace(`"a"`, `"`+strings.Repeat("a", MaxSubjectName+1)+`"`),
		"too deep":                  replace(`"predicate":{}`, `"predicate":{"a":`+strings.Repeat("[", MaxDepth)+strings.Repeat("]", MaxDepth)+"}"),
		"10,000 subjects":           replace(subject, manySubjects(10_000)),
	} {
		if s, err := ParseStatement([]byte(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: ParseStatement = %+.60v, %v; want ErrInvalid", name, s, err)
		}
	}
	if _, err := ParseStatement([]byte(replace(subject, manySubjects(MaxSubjects)))); err != nil {
		t.Errorf("%d subjects: %v", MaxSubjects, err)
	}
}

func manySubjects(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"name":"f%d","digest":{"sha256":%q}}`, i, SHA256(fmt.Appendf(nil, "%d", i)).Hex())
	}
	return b.String()
}

func TestCheckJSONDepth(t *testing.T) {
	nest := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if err := CheckJSON(nest(MaxDepth)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	var limit *LimitError
	if err := CheckJSON(nest(MaxDepth + 1)); !errors.As(err, &limit) {
		t.Errorf("above the limit: %v; want a LimitError", err)
	}
	if err := CheckJSON([]byte(`"` + strings.Repeat("[", 100) + `\"` + strings.Repeat("[", 100) + `"`)); err != nil {
		t.Errorf("brackets in a string are not nesting: %v", err)
	}
	// A parser must not be reached by what would exhaust its stack.
	if err := CheckJSON(bytes.Repeat([]byte("["), 10<<20)); !errors.As(err, &limit) {
		t.Errorf("ten million brackets: %v", err)
	}
}

func FuzzParseStatement(f *testing.F) {
	good, _ := Statement{Subjects: []Subject{{Name: "a", SHA256: SHA256(nil)}}, PredicateType: VSAType, Predicate: []byte(`{"x":[1,{"y":null}]}`)}.Encode()
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("subject"), []byte("Subject"), 1))
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://a/","predicate":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseStatement(data)
		if err != nil {
			return
		}
		payload, err := s.Encode()
		if err != nil {
			t.Fatalf("believed but cannot be said: %v", err)
		}
		again, err := ParseStatement(payload)
		if err != nil {
			t.Fatalf("said but not believed: %v", err)
		}
		if diff := cmp.Diff(s.Subjects, again.Subjects, cmp.Comparer(sameDigest)); diff != "" || s.PredicateType != again.PredicateType {
			t.Fatalf("changed on the way: %s", diff)
		}
	})
}
