// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var keyTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func anAPIKey(tenant string, grants ...Grant) APIKey {
	return APIKey{ID: NewID(), Name: "jenkins", Hash: SHA256([]byte("secret")), Grants: grants, Tenant: tenant, ExpiresAt: keyTime.Add(time.Hour)}
}

// tenantPerson is a person who holds grants in one tenant.
func tenantPerson(key, tenant string, grants ...Grant) Caller {
	c := person(key)
	c.Tenants = map[string][]Grant{tenant: grants}
	return c
}

// A key is a part of what its maker is, and is made by people alone.
func TestAPIKeysDoNotEscalate(t *testing.T) {
	everywhere := person("ada", GrantAPIKeys, GrantRead, GrantSBOM)
	ofAcme := tenantPerson("bob", "acme", GrantAPIKeys, GrantRead)
	ofTwo := ofAcme
	ofTwo.Tenants = map[string][]Grant{"acme": {GrantAPIKeys, GrantRead}, "globex": {GrantDecide}}
	mixed := tenantPerson("eve", "acme", GrantRead)
	mixed.Grants = []Grant{GrantAPIKeys}
	all := person("root", Grants...)
	job := all
	job.Person, job.Build = "", &Build{}
	machine := all
	machine.Person = ""
	posing := all
	posing.Build = &Build{}
	made, err := anAPIKey("", GrantSBOM).Create(all, keyTime)
	if err != nil {
		t.Fatal(err)
	}
	byKey := made.Caller("https://provost.example")
	withGrant := byKey // even if it held the grant
	withGrant.Grants = Grants

	for _, c := range []struct {
		name string
		by   Caller
		key  APIKey
		kind error
	}{
		{"everywhere, by one who holds it everywhere", everywhere, anAPIKey("", GrantRead, GrantSBOM), nil},
		{"in a tenant, by one who holds it everywhere", everywhere, anAPIKey("acme", GrantRead), nil},
		{"in a tenant, by one of it", ofAcme, anAPIKey("acme", GrantRead), nil},
		{"in a tenant, of a grant that is held there, by one who makes keys everywhere", mixed, anAPIKey("acme", GrantRead), nil},
		{"all that a key may hold", all, anAPIKey("", GrantSBOM, GrantDecide, GrantRead, GrantRotate, GrantRevoke, GrantTimestamp, GrantStatement, GrantImport, GrantAudit), nil},

		{"a grant that is not held", everywhere, anAPIKey("", GrantDecide), ErrDenied},
		{"one that is held and one that is not", everywhere, anAPIKey("", GrantRead, GrantDecide), ErrDenied},
		{"a tenant that is not held", ofAcme, anAPIKey("globex", GrantRead), ErrDenied},
		{"a tenant that is spelt like it", ofAcme, anAPIKey("Acme", GrantRead), ErrDenied},
		{"every tenant, by one of a tenant", ofAcme, anAPIKey("", GrantRead), ErrDenied},
		{"a grant that is held in another tenant", ofTwo, anAPIKey("acme", GrantDecide), ErrDenied},
		{"a tenant in which only the other grant is held", ofTwo, anAPIKey("globex", GrantDecide), ErrDenied},
		{"every tenant, of a grant that is held in one", mixed, anAPIKey("", GrantRead), ErrDenied},
		{"every tenant, by one of a tenant without a name", tenantPerson("bob", "", GrantAPIKeys, GrantRead), anAPIKey("", GrantRead), ErrDenied},
		{"by one who may not make any", person("carol", GrantRead), anAPIKey("", GrantRead), ErrDenied},
		{"by nobody", Caller{}, anAPIKey("", GrantRead), ErrDenied},
		{"by a job", job, anAPIKey("", GrantRead), ErrDenied},
		{"by a job that says it is a person", posing, anAPIKey("", GrantRead), ErrDenied},
		{"by a machine", machine, anAPIKey("", GrantRead), ErrDenied},
		{"by an API key", byKey, anAPIKey("", GrantSBOM), ErrDenied},
		{"by an API key that got hold of the grant", withGrant, anAPIKey("", GrantSBOM), ErrDenied},
	} {
		got, err := c.key.Create(c.by, keyTime)
		switch {
		case c.kind != nil:
			if !errors.Is(err, c.kind) || got.ID != "" {
				t.Errorf("%s: %+v, %v; want it to be %v", c.name, got, err, c.kind)
			}
		case err != nil || got.Owner != c.by.Is() || !got.CreatedAt.Equal(keyTime):
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	for _, g := range []Grant{GrantProvenance, GrantBuilders, GrantApprove, GrantAPIKeys, GrantRevokeKeys} {
		if _, err := anAPIKey("", GrantRead, g).Create(all, keyTime); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), string(g)) {
			t.Errorf("a key with %s: %v; want it denied", g, err)
		}
	}
}

// Whoever asks for a key cannot say who made it, or when.
func TestAPIKeysSayWhoMadeThem(t *testing.T) {
	asked := anAPIKey("", GrantRead)
	asked.Owner, asked.CreatedAt, asked.Seq = Person{Key: "bob"}, keyTime.Add(-time.Hour), 7
	asked.RevokedAt, asked.RevokedBy = keyTime, Person{Key: "bob"}
	ada := person("ada", GrantAPIKeys, GrantRead)
	got, err := asked.Create(ada, keyTime)
	want := asked
	want.Owner, want.CreatedAt, want.Seq, want.RevokedAt, want.RevokedBy = ada.Is(), keyTime, 0, time.Time{}, Person{}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y Digest) bool { return x == y })); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestAPIKeysThatCouldNotBeMeant(t *testing.T) {
	all := person("root", Grants...)
	for name, change := range map[string]func(*APIKey){
		"no name":                  func(k *APIKey) { k.Name = "" },
		"a name with a space":      func(k *APIKey) { k.Name = "my key" },
		"a name for a terminal":    func(k *APIKey) { k.Name = "a\x1b[2Jb" },
		"a long name":              func(k *APIKey) { k.Name = strings.Repeat("a", 64) },
		"no hash":                  func(k *APIKey) { k.Hash = Digest{} },
		"no ID":                    func(k *APIKey) { k.ID = "" },
		"no grant":                 func(k *APIKey) { k.Grants = nil },
		"an unknown grant":         func(k *APIKey) { k.Grants = []Grant{"root"} },
		"the same grant twice":     func(k *APIKey) { k.Grants = []Grant{GrantRead, GrantRead} },
		"no end":                   func(k *APIKey) { k.ExpiresAt = time.Time{} },
		"an end now":               func(k *APIKey) { k.ExpiresAt = keyTime },
		"an end before":            func(k *APIKey) { k.ExpiresAt = keyTime.Add(-1) },
		"more than ninety days":    func(k *APIKey) { k.ExpiresAt = keyTime.Add(MaxAPIKeyLifetime + 1) },
		"an end beyond all counts": func(k *APIKey) { k.ExpiresAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"the word for all":         func(k *APIKey) { k.Tenant = "*" },
		"a tenant with a newline":  func(k *APIKey) { k.Tenant = "acme\n" },
		"a tenant of a blank":      func(k *APIKey) { k.Tenant = " " },
		"a tenant that is no text": func(k *APIKey) { k.Tenant = "\xff" },
		"a long tenant":            func(k *APIKey) { k.Tenant = strings.Repeat("a", maxTenant+1) },
	} {
		k := anAPIKey("acme", GrantRead)
		change(&k)
		if got, err := k.Create(all, keyTime); !errors.Is(err, ErrInvalid) || got.ID != "" {
			t.Errorf("%s: %+v, %v; want it invalid", name, got, err)
		}
	}
	stored, err := anAPIKey("acme", GrantRead).Create(all, keyTime)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range notForAPIKeys { // whoever wrote it into the database
		stored.Grants = []Grant{GrantRead, g}
		if err := stored.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("a stored key with %s: %v; want it invalid", g, err)
		}
	}
	k := anAPIKey("127.0.0.1:8080/dev/issuer/github/65/74", GrantRead)
	k.ExpiresAt = keyTime.Add(MaxAPIKeyLifetime)
	if _, err := k.Create(all, keyTime); err != nil {
		t.Errorf("ninety days in the tenant of a token: %v", err)
	}
}

// A key is taken back by whoever hands them out where it holds, and by its
// owner, whatever they may do by then.
func TestRevokeAPIKey(t *testing.T) {
	k, err := anAPIKey("acme", GrantRead).Create(tenantPerson("ada", "acme", GrantAPIKeys, GrantRead), keyTime)
	if err != nil {
		t.Fatal(err)
	}
	all := k
	all.Tenant = ""
	for _, c := range []struct {
		name string
		by   Caller
		key  APIKey
		ok   bool
	}{
		{"by its owner, who may nothing any more", person("ada"), k, true},
		{"by its owner by another login", Caller{Issuer: "https://other.example", Subject: "a", Person: "ada"}, k, true},
		{"by one of its tenant", tenantPerson("bob", "acme", GrantAPIKeys), k, true},
		{"by one of every tenant", person("bob", GrantAPIKeys), k, true},
		{"by a machine of every tenant", Caller{Grants: []Grant{GrantAPIKeys}}, all, true},
		{"by one of another tenant", tenantPerson("bob", "globex", GrantAPIKeys), k, false},
		{"one of every tenant by one of a tenant", tenantPerson("bob", "acme", GrantAPIKeys), all, false},
		{"by one with other grants", person("bob", GrantRead, GrantAudit), k, false},
		{"by nobody", Caller{}, k, false},
		{"by itself", k.Caller("https://provost.example"), k, false},
	} {
		got, err := c.key.Revoke(c.by, keyTime.Add(time.Minute))
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrDenied) || c.ok != (got.State(keyTime) == APIKeyRevoked) || c.ok && got.RevokedBy != c.by.Is() {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	ownerless := k
	ownerless.Owner.Key = ""
	if _, err := ownerless.Revoke(Caller{}, keyTime); !errors.Is(err, ErrDenied) {
		t.Errorf("a key of nobody by nobody: %v", err)
	}
	first, _ := k.Revoke(person("ada"), keyTime.Add(time.Minute))
	if again, err := first.Revoke(person("bob", GrantAPIKeys), keyTime.Add(time.Hour)); err != nil || again.RevokedBy.Key != "ada" || !again.RevokedAt.Equal(first.RevokedAt) {
		t.Errorf("revoked twice: %+v, %v", again, err)
	}
}

func TestAPIKeyStates(t *testing.T) {
	k, err := anAPIKey("", GrantRead).Create(person("ada", GrantAPIKeys, GrantRead), keyTime)
	if err != nil {
		t.Fatal(err)
	}
	revoked, _ := k.Revoke(person("ada"), keyTime.Add(time.Minute))
	for _, c := range []struct {
		name string
		key  APIKey
		at   time.Time
		want string
	}{
		{"when it was made", k, keyTime, APIKeyActive},
		{"by a clock a little behind", k, keyTime.Add(-apiKeySkew), APIKeyActive},
		{"just before its end", k, k.ExpiresAt.Add(-1), APIKeyActive},
		{"at its end", k, k.ExpiresAt, APIKeyExpired},
		{"by a clock that was turned back", k, keyTime.Add(-apiKeySkew - 1), APIKeyFuture},
		{"revoked", revoked, keyTime.Add(time.Minute), APIKeyRevoked},
		{"revoked, by a clock that was turned back to before", revoked, keyTime, APIKeyRevoked},
		{"revoked and expired", revoked, k.ExpiresAt, APIKeyRevoked},
		{"the zero key", APIKey{}, keyTime, APIKeyExpired},
	} {
		if got := c.key.State(c.at); got != c.want {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
}

// What a key makes belongs to its tenant, and nobody takes it for a person.
func TestAPIKeyCaller(t *testing.T) {
	for tenant, want := range map[string]Caller{
		"":     {Issuer: "https://provost.example/apikeys", Grants: []Grant{GrantSBOM}, Why: "API key jenkins"},
		"acme": {Issuer: "https://provost.example/apikeys", Tenant: "acme", Tenants: map[string][]Grant{"acme": {GrantSBOM}}, Why: "API key jenkins"},
	} {
		k := anAPIKey(tenant, GrantSBOM)
		want.Subject = k.ID
		got := k.Caller("https://provost.example")
		if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y Digest) bool { return x == y })); diff != "" {
			t.Errorf("in %q: %s", tenant, diff)
		}
		if home, err := got.Home(GrantSBOM); err != nil || home != tenant {
			t.Errorf("in %q: what it makes belongs to %q, %v", tenant, home, err)
		}
		if within := got.Within(GrantSBOM); within.All != (tenant == "") || within.Has("globex") != (tenant == "") || !within.Has(tenant) {
			t.Errorf("in %q: holds it in %+v", tenant, within)
		}
	}
}
