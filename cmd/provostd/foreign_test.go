// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"provost/attest"
	"provost/verify"
)

// A foreign root is what its file says now; what the file said before is not
// believed any more.
func TestForeignRootsFollowTheirFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "root.json")
	good, err := os.ReadFile("../../verify/testdata/foreign/public-good.json")
	if err != nil {
		t.Fatal(err)
	}
	write := func(raw []byte) {
		t.Helper()
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Config{Service: "https://provost.example", Foreign: []Foreign{{
		Name: "public-good", TrustedRootFile: file, PredicateTypes: []string{attest.ProvenanceType},
		Identities: []ForeignIdentity{{
			Issuer: "https://token.actions.githubusercontent.com", SAN: "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main",
		}},
	}}}
	if _, err := openForeign(c); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("without the file: %v", err)
	}
	write(good)
	roots, err := openForeign(c)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile("../../verify/testdata/foreign/npm.sigstore.json")
	if err != nil {
		t.Fatal(err)
	}
	first, err := roots.trust("public-good")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Verify(bundle); err != nil {
		t.Errorf("a good bundle: %v", err)
	}
	if again, err := roots.trust("public-good"); again != first || err != nil {
		t.Errorf("it was read anew without a change: %v", err)
	}
	if _, err := roots.trust("another"); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("a root that there is not: %v", err)
	}

	other, err := os.ReadFile("../../verify/testdata/foreign/npm.sigstore.json") // JSON, and no root
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"empty": nil, "something else": other, "cut": good[:len(good)/2], "too large": make([]byte, verify.MaxTrustedRoot+1)} {
		write(raw)
		if trust, err := roots.trust("public-good"); trust != nil || !errors.Is(err, attest.ErrUnavailable) || errors.Is(err, attest.ErrInvalid) {
			t.Errorf("a file that is %s: %v; want unavailable", name, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if trust, err := roots.trust("public-good"); trust != nil || !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("a file that is gone: %v; want unavailable", err)
	}
	write(append([]byte(" "), good...))
	if changed, err := roots.trust("public-good"); err != nil || changed == first {
		t.Errorf("a file that is back, and another: %v", err)
	}
}
