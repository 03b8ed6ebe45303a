// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"provost/attest"
)

// A row that the database has and nobody signed is believed by nobody: whoever
// can write the database changes a condition, adds a builder, raises a level,
// approves what waits, or swaps two rows' signatures.
func TestRowsThatNobodySigned(t *testing.T) {
	f := newFixture(t)
	store := &rows{}
	r := &Registrar{Service: service, Store: store, Records: f.memory, Issuer: f.issuer, Trust: f.ca.trust}
	put := func(b attest.Builder, at int64) attest.Builder {
		t.Helper()
		b, err := r.AppendBuilder(t.Context(), b, at)
		if err != nil || b.Attestation == "" || b.Revision != at+1 {
			t.Fatalf("%+v, %v", b, err)
		}
		return b
	}
	one := put(builderRow(f.idp.URL, "one", `claims.repository_id == "74"`), 0)
	proposed := builderRow(f.idp.URL, "two", `claims.repository_id == "75"`)
	proposed.Level, proposed.State, proposed.ProposedBy = 3, attest.BuilderProposed, attest.Person{Issuer: "https://people.example", Subject: "ada", Key: "17"}
	two := put(proposed, 1)
	states := func() (all []string) {
		found, revision, err := r.Builders(t.Context())
		if err != nil || revision != 2 {
			t.Fatalf("revision %d, %v", revision, err)
		}
		for _, b := range found {
			all = append(all, b.Name+" "+b.State)
		}
		slices.Sort(all)
		return all
	}
	good := []string{"one active", "two proposed"}
	if got := states(); !slices.Equal(got, good) {
		t.Fatalf("%v", got)
	}
	for name, change := range map[string]func(b *attest.Builder){
		"condition": func(b *attest.Builder) { b.Condition = `claims.repository_id == "6"` },
		"level":     func(b *attest.Builder) { b.Level = 3 },
		"issuer":    func(b *attest.Builder) { b.Issuer = "https://other.example" },
		"name":      func(b *attest.Builder) { b.Name = "other" },
		"predicate types": func(b *attest.Builder) {
			b.PredicateTypes = append(slices.Clone(b.PredicateTypes), "https://t.example/x")
		},
		"revision":               func(b *attest.Builder) { b.Revision = 9 },
		"description":            func(b *attest.Builder) { b.Description = "isolated" },
		"attestation: none":      func(b *attest.Builder) { b.Attestation = "" },
		"attestation: another's": func(b *attest.Builder) { b.Attestation = two.Attestation },
		"attestation: of no row": func(b *attest.Builder) { b.Attestation = attestationOf(t, f) },
	} {
		store.set(func(s *rows) {
			s.all = []attest.Builder{one, two}
			change(&s.all[0])
		})
		if got := states(); slices.Equal(got, good) || !slices.ContainsFunc(got, func(s string) bool { return s == "one unbelieved" || s == "other unbelieved" }) {
			t.Errorf("another %s: %v", name, got)
		}
	}
	for name, change := range map[string]func(b *attest.Builder){
		"it is approved": func(b *attest.Builder) {
			b.State, b.ApprovedBy = attest.BuilderActive, attest.Person{Issuer: "https://people.example", Subject: "bob", Key: "18"}
		},
		"another has proposed it": func(b *attest.Builder) { b.ProposedBy.Key = "18" },
	} {
		store.set(func(s *rows) {
			s.all = []attest.Builder{one, two}
			change(&s.all[1])
		})
		if got := states(); !slices.Contains(got, "two unbelieved") {
			t.Errorf("%s: %v", name, got)
		}
	}

	// Tokens of an issuer with such a row speak for nothing at all, until an
	// administrator has set it again.
	store.set(func(s *rows) {
		s.all = []attest.Builder{one, two}
		s.all[1].State, s.all[1].Condition = attest.BuilderActive, `claims.repository_id == "74"`
	})
	a, err := NewAuthenticator([]Issuer{{URL: f.idp.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 600e9, Provider: "github"}},
		[]Rule{{Issuer: f.idp.URL, Claims: map[string]string{"repository_id": "74"}, Roles: []attest.Role{attest.RoleSigner}}},
		AuthOptions{Now: f.idp.now, Service: service, Registry: r, Sessions: f.sessions})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := a.Exchange(t.Context(), exchange{token: f.idp.token(nil)}); err == nil {
		t.Error("a token spoke for a builder that nobody registered")
	}
	store.set(func(s *rows) { s.all = []attest.Builder{one} })
	a.forget()
	if _, _, caller, err := a.Exchange(t.Context(), exchange{token: f.idp.token(nil)}); err != nil || caller.Build == nil {
		t.Errorf("after it was mended: %+v, %v", caller, err)
	}

	// What cannot be read or signed is no registry.
	f.memory.fail = fmt.Errorf("%w: database", attest.ErrUnavailable)
	if b, err := r.AppendBuilder(t.Context(), builderRow(f.idp.URL, "three", `claims.repository_id == "76"`), 2); !errors.Is(err, attest.ErrUnavailable) || b.Name != "" {
		t.Errorf("a row that cannot be signed: %+v, %v", b, err)
	}
	f.memory.fail = nil
	f.ca.set(func(ca *testCA) { ca.trustedRootError = errors.New("gone") })
	if _, _, err := r.Builders(t.Context()); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("without a trust root: %v", err)
	}
}

// attestationOf is the ID of an attestation that is about an artifact.
func attestationOf(t *testing.T, f *fixture) string {
	t.Helper()
	a, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, "")
	if err != nil {
		t.Fatal(err)
	}
	return a.ID
}
