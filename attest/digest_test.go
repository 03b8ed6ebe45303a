// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParseDigest(t *testing.T) {
	for _, good := range []string{"sha256:" + hexA, "sha512:" + hexA + hexA} {
		d, err := ParseDigest(good)
		if err != nil || d.String() != good || len(d.Bytes())*2 != len(d.Hex()) {
			t.Errorf("ParseDigest(%q) = %v, %v", good, d, err)
		}
	}
	for name, bad := range map[string]string{
		"empty":            "",
		"no algorithm":     hexA,
		"upper-case hex":   "sha256:" + strings.ToUpper(hexA),
		"one short":        "sha256:" + hexA[1:],
		"one long":         "sha256:a" + hexA,
		"sha512 of 64":     "sha512:" + hexA,
		"not hex":          "sha256:g" + hexA[1:],
		"sha1":             "sha1:" + hexA[:40],
		"upper algorithm":  "SHA256:" + hexA,
		"space":            "sha256: " + hexA[1:],
		"trailing newline": "sha256:" + hexA[1:] + "\n",
		"unicode digit":    "sha256:" + hexA[3:] + "٣",
	} {
		if d, err := ParseDigest(bad); !errors.Is(err, ErrInvalid) || !d.IsZero() {
			t.Errorf("%s: ParseDigest(%q) = %v, %v; want ErrInvalid", name, bad, d, err)
		}
	}
}

func TestZeroDigestMatchesNothing(t *testing.T) {
	s := Statement{Subjects: []Subject{{SHA256: SHA256(nil)}}}
	if _, ok := s.About(Digest{}); ok {
		t.Error("the zero digest matched a subject without sha512")
	}
}

func TestDigestJSON(t *testing.T) {
	var d Digest
	if err := json.Unmarshal([]byte(`"sha256:`+strings.ToUpper(hexA)+`"`), &d); !errors.Is(err, ErrInvalid) || !d.IsZero() {
		t.Errorf("upper case from JSON: %v, %v", d, err)
	}
	want := SHA256([]byte("x"))
	raw, _ := json.Marshal(want)
	if err := json.Unmarshal(raw, &d); err != nil || d != want {
		t.Errorf("round trip: %v, %v", d, err)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add("sha256:" + hexA)
	f.Add("sha512:" + hexA + hexA)
	f.Add("sha256:" + strings.ToUpper(hexA))
	f.Add(":")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err == nil && (d.String() != s || d.IsZero()) {
			t.Errorf("%q parsed as %q", s, d)
		}
		if err != nil && !d.IsZero() {
			t.Errorf("%q: an error and a digest", s)
		}
	})
}
