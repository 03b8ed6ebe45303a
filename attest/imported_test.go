// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import "testing"

func TestCovers(t *testing.T) {
	a, b := Subject{Name: "a", SHA256: SHA256([]byte("a"))}, Subject{Name: "b", SHA256: SHA256([]byte("b"))}
	long, err := NewDigest(AlgSHA512, a.SHA256.Hex()+b.SHA256.Hex())
	if err != nil {
		t.Fatal(err)
	}
	bound := Caller{Bound: []Digest{a.SHA256}}
	for name, c := range map[string]struct {
		caller   Caller
		subjects []Subject
		want     bool
	}{
		"without a bound, anything":               {Caller{}, []Subject{a, b}, true},
		"its own artifact":                        {bound, []Subject{a}, true},
		"its own and another":                     {bound, []Subject{a, b}, false},
		"another":                                 {bound, []Subject{b}, false},
		"one that only the other algorithm names": {bound, []Subject{{SHA512: long}}, false},
	} {
		if got := c.caller.Covers(c.subjects); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
