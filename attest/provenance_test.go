// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProvenanceRoundTrip(t *testing.T) {
	want := builder().Build
	predicate, err := want.predicate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseProvenance(predicate)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

// Repositories with SHA-256 have longer commits.
func TestProvenanceLongCommit(t *testing.T) {
	b := builder().Build
	b.Dependencies[0].Digest["gitCommit"] = hexA
	if _, err := b.predicate(); err != nil {
		t.Error(err)
	}
}

// A retried request is recognised by its payload, so the same build must give
// the same bytes; protojson alone does not.
func TestProvenanceBytesAreStable(t *testing.T) {
	first, _ := builder().Build.predicate()
	for range 50 {
		if again, _ := builder().Build.predicate(); !bytes.Equal(first, again) {
			t.Fatalf("the same build gave\n%s\nand\n%s", first, again)
		}
	}
}

func TestProvenanceIncomplete(t *testing.T) {
	for name, change := range map[string]func(*Build){
		"no builder.id":            func(b *Build) { b.BuilderID = "" },
		"no buildType":             func(b *Build) { b.BuildType = "" },
		"no externalParameters":    func(b *Build) { b.ExternalParameters = nil },
		"dependency named nowhere": func(b *Build) { b.Dependencies = []Resource{{}} },
		"a short commit": func(b *Build) {
			b.Dependencies = []Resource{{"git+https://a/b@c", map[string]string{"gitCommit": "abc"}}}
		},
		"a value JSON cannot hold": func(b *Build) { b.ExternalParameters = map[string]any{"f": func() {}} },
	} {
		b := *builder().Build
		change(&b)
		if p, err := b.predicate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %s, %v; want ErrInvalid", name, p, err)
		}
	}
	for _, bad := range []string{``, `null`, `{}`, `{"buildDefinition":{"buildType":"x","externalParameters":{}},"runDetails":{"builder":{}}}`, `{"buildDefinition":[]}`} {
		if _, err := ParseProvenance([]byte(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseProvenance(%s): %v; want ErrInvalid", bad, err)
		}
	}
}

func FuzzParseProvenance(f *testing.F) {
	good, _ := builder().Build.predicate()
	f.Add(good)
	f.Add([]byte(`{"buildDefinition":{"build_type":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := ParseProvenance(data); err == nil && (b.BuilderID == "" || b.BuildType == "") {
			t.Errorf("%s: believed without builder.id or buildType", data)
		}
	})
}
