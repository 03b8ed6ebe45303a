// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"provost/attest"
)

const service = "https://provost.example"

var (
	commitA = strings.Repeat("a", 40)
	commitB = strings.Repeat("b", 40)
)

// claimsOf are claims with changes; nil takes one away. A change of a member of
// an object has the object's name, a dot and its own.
func claimsOf(t testing.TB, claims, changes map[string]any) Claims {
	t.Helper()
	c := maps.Clone(claims)
	for name, value := range changes {
		change(c, name, value)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ParseClaims(raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func change(claims map[string]any, name string, value any) {
	for object, members := range claims {
		inner, ok := members.(map[string]any)
		if rest, below := strings.CutPrefix(name, object+"."); ok && below {
			inner = maps.Clone(inner)
			change(inner, rest, value)
			claims[object] = inner
			return
		}
	}
	if claims[name] = value; value == nil {
		delete(claims, name)
	}
}

// null is a claim that is there and says nothing.
var null = json.RawMessage("null")

// row is a builder of a provider, with a condition.
func row(t testing.TB, p Provider, server, condition string) Registered {
	t.Helper()
	c, err := Compile(condition)
	if err != nil {
		t.Fatal(err)
	}
	return Registered{
		Service: service, ServerURL: server, Pins: c.Pins(),
		Builder: attest.Builder{
			Name: "acme", Issuer: "https://ci.example", Condition: condition, BuildType: p.Rules().BuildTypeURI(service), Level: 3,
			PredicateTypes: []string{attest.ProvenanceType}, Signer: attest.PowerProvenance, Mode: attest.ModeToken,
		},
	}
}

// A sample is a provider with claims as it spells them, and a builder that they
// speak for.
type sample struct {
	Provider
	name   string
	claims map[string]any
	row    Registered
}

func (s sample) build(t testing.TB, changes map[string]any) (*attest.Build, error) {
	t.Helper()
	return Register(s.Provider, claimsOf(t, s.claims, changes), s.row)
}

func (s sample) mustBuild(t testing.TB, changes map[string]any) *attest.Build {
	t.Helper()
	b, err := s.build(t, changes)
	if err != nil {
		t.Fatalf("%s with %v: %v", s.name, changes, err)
	}
	return b
}

// tenant is the tenant as the service asks for it: a mapped issuer's is the
// mapping's.
func (s sample) tenant(t testing.TB, changes map[string]any) (string, error) {
	t.Helper()
	c := claimsOf(t, s.claims, changes)
	if s.row.Mapping != nil {
		return s.row.Mapping.TenantOf(c)
	}
	return s.Tenant(c)
}

// A refusal is a change that makes a build of nothing.
type refusal struct {
	claim string
	value any
	says  string
}

// refuses holds that each change is refused, and says which claim it is about.
func (s sample) refuses(t *testing.T, changes []refusal) {
	t.Helper()
	s.mustBuild(t, nil)
	for _, c := range changes {
		got, err := s.build(t, map[string]any{c.claim: c.value})
		if !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), c.says) || got != nil {
			t.Errorf("%s %v: %+v, %v; want it denied, saying %s", c.claim, c.value, got, err, c.says)
		}
	}
}

// requires holds that a build needs each of these claims: not there, empty,
// null, a list and an object are refused, and nothing panics.
func (s sample) requires(t *testing.T, claims ...string) {
	t.Helper()
	for _, name := range claims {
		for _, value := range []any{nil, "", null, []string{"x"}, map[string]any{"x": "y"}, "a\x1b[2Jb", strings.Repeat("x", 3000)} {
			if got, err := s.build(t, map[string]any{name: value}); !errors.Is(err, attest.ErrDenied) || got != nil {
				t.Errorf("%s %.40v: %+v, %v; want it denied", name, value, got, err)
			}
		}
	}
}

// capped holds that each change lowers the level to that, saying why, and is
// another builder.id.
func (s sample) capped(t *testing.T, level int, changes map[string]any, why string) {
	t.Helper()
	got := s.mustBuild(t, changes)
	want := service + "/builders/acme/level/" + string(rune('0'+level))
	if got.Level != level || !strings.Contains(got.LevelReason, why) || got.BuilderID != want {
		t.Errorf("%v: level %d of %s because %q; want %d of %s because %q", changes, got.Level, got.BuilderID, got.LevelReason, level, want, why)
	}
	s.row.Builder.Level = level
	if got := s.mustBuild(t, changes); got.BuilderID != service+"/builders/acme" || got.LevelReason != "" {
		t.Errorf("%v: %s because %q, where the builder is of level %d", changes, got.BuilderID, got.LevelReason, level)
	}
}

func samples(t testing.TB) []sample {
	return []sample{gitlabSample(t), buildkiteSample(t), circleciSample(t), kubernetesSample(t), spiffeSample(t), genericSample(t)}
}
