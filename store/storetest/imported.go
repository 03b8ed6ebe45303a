// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/attest"
)

// newImported is an ordinary import about one artifact.
func newImported(artifact attest.Digest, tenant, bundle string) attest.Imported {
	return attest.Imported{
		ID: attest.NewID(), Root: "github", PredicateType: attest.ProvenanceType, Tenant: tenant, Bundle: []byte(bundle),
		Issuer: "https://issuer.example", SAN: "https://git.example/a/b@refs/heads/ü", Subjects: []attest.Subject{{Name: "a", SHA256: artifact}},
		SignedAt: time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC), At: time.Date(2026, 3, 2, 12, 0, 0, 9, time.UTC),
	}
}

func imports(t *testing.T, b Backend) {
	add := func(i attest.Imported) attest.Imported {
		t.Helper()
		stored, err := b.AppendImported(t.Context(), i)
		if err != nil {
			t.Fatalf("append import: %v", err)
		}
		return stored
	}
	list := func(q attest.ImportedQuery) []attest.Imported {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 99
		}
		found, err := b.ImportedAbout(t.Context(), q)
		if err != nil {
			t.Fatalf("imports: %v", err)
		}
		return found
	}
	artifact, other := sha256Of("artifact"), sha256Of("other")
	one := newImported(artifact, "", `{"one": "ü"} `)
	// Two subjects of one digest, one with the other algorithm alone.
	one.Subjects = []attest.Subject{{Name: "a", SHA256: artifact}, {Name: "b", SHA256: artifact, SHA512: sha512Of("x")}, {Name: "npm", SHA512: sha512Of("y")}}
	want := one
	want.Seq = 1
	same(t, "an import as it was stored", want, add(one))
	one = want
	found, err := b.Imported(t.Context(), one.ID)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "an import by its id", one, found)
	for _, d := range []attest.Digest{artifact, sha512Of("x"), sha512Of("y")} {
		same(t, "imports about "+d.Algorithm(), []attest.Imported{one}, list(attest.ImportedQuery{In: attest.Everywhere, Artifact: d}))
	}
	same(t, "imports about something else", nil, list(attest.ImportedQuery{In: attest.Everywhere, Artifact: other}))

	again := newImported(artifact, "", string(one.Bundle))
	again.Issuer = "https://another.example"
	same(t, "the same bundle again", one, add(again))
	renamed := again
	renamed.ID, renamed.Root = attest.NewID(), "renamed"
	renamed = add(renamed)
	of := map[string]attest.Imported{}
	for _, tenant := range []string{"a", "b"} {
		if of[tenant] = add(newImported(artifact, tenant, string(one.Bundle))); of[tenant].Tenant != tenant || of[tenant].ID == one.ID {
			t.Errorf("the same bundle, by tenant %s: %+v", tenant, of[tenant])
		}
	}
	for _, c := range []struct {
		in   attest.Tenants
		want []attest.Imported
	}{
		{attest.Tenants{}, nil},
		{attest.Everywhere, []attest.Imported{one, renamed, of["a"], of["b"]}},
		{attest.Tenants{Names: []string{"a"}}, []attest.Imported{of["a"]}},
		{attest.Tenants{Names: []string{"a", "c"}, Shared: true}, []attest.Imported{one, renamed, of["a"]}},
		{attest.Tenants{Names: []string{""}}, nil},
		{attest.Tenants{Names: []string{`"],["b`, "%"}}, nil},
	} {
		same(t, fmt.Sprintf("imports in %+v", c.in), c.want, list(attest.ImportedQuery{In: c.in, Artifact: artifact}))
	}
	var paged []attest.Imported
	for q := (attest.ImportedQuery{In: attest.Everywhere, Artifact: artifact, Limit: 1}); ; {
		page := list(q)
		if len(page) == 0 {
			break
		}
		paged, q.After = append(paged, page...), page[0].Seq
	}
	same(t, "imports page by page", []attest.Imported{one, renamed, of["a"], of["b"]}, paged)

	for name, change := range map[string]func(*attest.Imported){
		"no id":                  func(i *attest.Imported) { i.ID = "" },
		"no root":                func(i *attest.Imported) { i.Root = "" },
		"no bundle":              func(i *attest.Imported) { i.Bundle = nil },
		"no subject":             func(i *attest.Imported) { i.Subjects = nil },
		"a subject of nothing":   func(i *attest.Imported) { i.Subjects = []attest.Subject{{Name: "a"}} },
		"digests the wrong way":  func(i *attest.Imported) { i.Subjects = []attest.Subject{{SHA256: sha512Of("x")}} },
		"a NUL in a SAN":         func(i *attest.Imported) { i.SAN = "a\x00" },
		"a name that is no UTF8": func(i *attest.Imported) { i.Subjects[0].Name = "\xff" },
		"a year beyond":          func(i *attest.Imported) { i.SignedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		i := newImported(artifact, "", name)
		change(&i)
		_, err := b.AppendImported(t.Context(), i)
		refused(t, name, attest.ErrInvalid, err)
	}
	taken := newImported(artifact, "", "another bundle")
	taken.ID = one.ID
	_, err = b.AppendImported(t.Context(), taken)
	refused(t, "an id that is taken", attest.ErrConflict, err)
	_, err = b.Imported(t.Context(), "none")
	refused(t, "an import that is not there", attest.ErrNotFound, err)
	for name, q := range map[string]attest.ImportedQuery{"no artifact": {In: attest.Everywhere, Limit: 1}, "no limit": {In: attest.Everywhere, Artifact: artifact}} {
		_, err := b.ImportedAbout(t.Context(), q)
		refused(t, name, attest.ErrInvalid, err)
	}
	if n := len(list(attest.ImportedQuery{In: attest.Everywhere, Artifact: artifact})); n != 4 {
		t.Errorf("%d imports; want the four from before", n)
	}

	// Whoever imports at once, one is stored, and all are told of that one.
	bundle := strings.Repeat("x", 1<<20)
	ids := make([]string, 8)
	var wait sync.WaitGroup
	for n := range ids {
		wait.Go(func() {
			stored, err := b.AppendImported(t.Context(), newImported(other, "", bundle))
			if err != nil {
				t.Error(err)
			}
			ids[n] = stored.ID
		})
	}
	wait.Wait()
	if len(slices.Compact(ids)) != 1 || len(list(attest.ImportedQuery{In: attest.Everywhere, Artifact: other})) != 1 {
		t.Errorf("one bundle, imported at once, is %v", ids)
	}
}
