// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
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
	want.Registration = nil // is no part of it
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
			b.Dependencies = []Resource{{"git+https://a/b@c", map[string]string{"gitCommit": "abc"}, false}}
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

// What we write is what protojson would have written of the in-toto binding.
func TestPredicateIsTheProtobuf(t *testing.T) {
	for name, b := range map[string]*Build{
		"the least": {BuilderID: "https://b.example/1", BuildType: "https://t.example/1", ExternalParameters: map[string]any{}},
		"everything": {
			BuilderID: "https://b.example/1", BuildType: "https://t.example/1", InvocationID: "https://i.example/<1>&é",
			ExternalParameters: map[string]any{"workflow": map[string]any{"ref": "refs/heads/é", "n": 1.5, "b": true, "l": []any{"x", nil}}},
			InternalParameters: map[string]any{"github": map[string]any{"event_name": "push", "id": "9007199254740993"}},
			Dependencies: []Resource{
				{URI: "git+https://g.example/a@refs/heads/main", Digest: map[string]string{"gitCommit": strings.Repeat("a", 40)}},
				{URI: "https://g.example/b"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.Origins = Origins{"": FromRegistry()}
			got, err := b.predicate()
			if err != nil {
				t.Fatal(err)
			}
			got = []byte(strings.Replace(string(got), `"provost_origins":{"":{"from":"registry"}}`, "", 1))
			got = []byte(strings.Replace(string(got), `,}`, `}`, 1))
			external, err := structpb.NewStruct(b.ExternalParameters)
			if err != nil {
				t.Fatal(err)
			}
			def := &provenance.BuildDefinition{BuildType: b.BuildType, ExternalParameters: external}
			if b.InternalParameters != nil {
				if def.InternalParameters, err = structpb.NewStruct(b.InternalParameters); err != nil {
					t.Fatal(err)
				}
			}
			for _, d := range b.Dependencies {
				def.ResolvedDependencies = append(def.ResolvedDependencies, &intoto.ResourceDescriptor{Uri: d.URI, Digest: d.Digest})
			}
			raw, err := protojson.Marshal(&provenance.Provenance{BuildDefinition: def, RunDetails: &provenance.RunDetails{
				Builder: &provenance.Builder{Id: b.BuilderID}, Metadata: &provenance.BuildMetadata{InvocationId: b.InvocationID},
			}})
			if err != nil {
				t.Fatal(err)
			}
			want := jsontext.Value(raw)
			if err := want.Canonicalize(); err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
