// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"sync"
	"testing"
	"time"

	"provost/attest"
)

func newAPIKey(name, tenant string) attest.APIKey {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	return attest.APIKey{
		ID: attest.NewID(), Name: name, Hash: attest.SHA256([]byte("secret of " + name)), Tenant: tenant,
		Grants: []attest.Grant{attest.GrantSBOM, attest.GrantRead}, Owner: attest.Person{Issuer: "https://people.example", Subject: "adé\u2028<", Key: "17"},
		CreatedAt: at, ExpiresAt: at.Add(attest.MaxAPIKeyLifetime),
	}
}

func revokedKey(k attest.APIKey) attest.APIKey {
	k.RevokedAt, k.RevokedBy = k.CreatedAt.Add(time.Hour), attest.Person{Issuer: "https://people.example", Subject: "bob", Key: "18"}
	return k
}

func appendAPIKey(t *testing.T, b Backend, k attest.APIKey) attest.APIKey {
	t.Helper()
	stored, err := b.AppendAPIKey(t.Context(), k)
	if err != nil {
		t.Fatalf("append API key: %v", err)
	}
	k.Seq = stored.Seq
	same(t, "API key as it was stored", k, stored)
	return stored
}

func apiKeys(t *testing.T, b Backend) {
	one, two, all := appendAPIKey(t, b, newAPIKey("one", "a")), appendAPIKey(t, b, newAPIKey("two", "b")), appendAPIKey(t, b, newAPIKey("all", ""))
	for _, want := range []attest.APIKey{one, two, all} {
		got, err := b.APIKeyByHash(t.Context(), want.Hash)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "by its hash", want, got)
		if got, err = b.APIKey(t.Context(), want.ID); err != nil {
			t.Fatal(err)
		}
		same(t, "by its ID", want, got)
	}
	for name, c := range map[string]struct {
		in    attest.Tenants
		after int64
		limit int
		want  []attest.APIKey
	}{
		"everywhere":           {attest.Everywhere, 0, 9, []attest.APIKey{one, two, all}},
		"everywhere, in pages": {attest.Everywhere, one.Seq, 1, []attest.APIKey{two}},
		"of one tenant":        {attest.Tenants{Names: []string{"a"}}, 0, 9, []attest.APIKey{one}},
		"of two":               {attest.Tenants{Names: []string{"b", "a"}}, 0, 9, []attest.APIKey{one, two}},
		"of another":           {attest.Tenants{Names: []string{"c"}}, 0, 9, nil},
		"of no name":           {attest.Tenants{Names: []string{""}}, 0, 9, nil},
		"of nobody":            {attest.Tenants{}, 0, 9, nil},
	} {
		got, err := b.APIKeys(t.Context(), c.in, c.after, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		same(t, name, c.want, got)
	}
	_, err := b.APIKeys(t.Context(), attest.Everywhere, 0, 0)
	refused(t, "a page of nothing", attest.ErrInvalid, err)
	for what, hash := range map[string]attest.Digest{"another hash": attest.SHA256([]byte("secret")), "no hash": {}} {
		_, err := b.APIKeyByHash(t.Context(), hash)
		refused(t, what, attest.ErrNotFound, err)
	}
	for _, id := range []string{"", one.ID[1:], one.ID + "a", "%"} {
		_, err := b.APIKey(t.Context(), id)
		refused(t, "ID "+id, attest.ErrNotFound, err)
	}
}

func badAPIKeys(t *testing.T, b Backend) {
	appendAPIKey(t, b, newAPIKey("one", "a"))
	taken := newAPIKey("one", "b")
	_, err := b.AppendAPIKey(t.Context(), taken)
	refused(t, "a secret twice", attest.ErrConflict, err)
	for name, change := range map[string]func(*attest.APIKey){
		"no hash":         func(k *attest.APIKey) { k.Hash = attest.Digest{} },
		"no end":          func(k *attest.APIKey) { k.ExpiresAt = time.Time{} },
		"a late end":      func(k *attest.APIKey) { k.ExpiresAt = k.ExpiresAt.Add(1) },
		"a forbidden one": func(k *attest.APIKey) { k.Grants = []attest.Grant{attest.GrantAPIKeys} },
		"no owner":        func(k *attest.APIKey) { k.Owner = attest.Person{} },
		"an owner of NUL": func(k *attest.APIKey) { k.Owner.Subject = "\x00" },
		"revoked already": func(k *attest.APIKey) { *k = revokedKey(*k) },
	} {
		k := newAPIKey("bad", "a")
		change(&k)
		_, err := b.AppendAPIKey(t.Context(), k)
		refused(t, name, attest.ErrInvalid, err)
	}
	if all, err := b.APIKeys(t.Context(), attest.Everywhere, 0, 9); err != nil || len(all) != 1 {
		t.Errorf("%d keys, %v; want one", len(all), err)
	}
}

// apiKeysRevoked holds that the first revocation stays, whoever asks at once.
func apiKeysRevoked(t *testing.T, b Backend) {
	k, other := appendAPIKey(t, b, newAPIKey("one", "a")), appendAPIKey(t, b, newAPIKey("other", "a"))
	_, err := b.RevokeAPIKey(t.Context(), k)
	refused(t, "a revocation at no time", attest.ErrInvalid, err)
	_, err = b.RevokeAPIKey(t.Context(), revokedKey(newAPIKey("none", "a")))
	refused(t, "a key that there is not", attest.ErrNotFound, err)

	var wait sync.WaitGroup
	answers := make([]attest.APIKey, 8)
	for i := range answers {
		wait.Go(func() {
			r := revokedKey(k)
			r.RevokedAt = r.RevokedAt.Add(time.Duration(i) * time.Second)
			r.Grants, r.ExpiresAt = attest.Grants, r.ExpiresAt.Add(time.Hour) // nothing else changes
			var err error
			if answers[i], err = b.RevokeAPIKey(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	got, err := b.APIKeyByHash(t.Context(), k.Hash)
	if err != nil {
		t.Fatal(err)
	}
	want := revokedKey(k)
	want.RevokedAt = got.RevokedAt
	same(t, "a revoked key", want, got)
	for _, a := range answers {
		same(t, "what each was told", got, a)
	}
	if got, err = b.APIKey(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
	same(t, "another key", other, got)
}
