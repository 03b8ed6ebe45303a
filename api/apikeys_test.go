// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/api/client"
	"provost/attest"
)

// apiKeysInMemory keeps API keys as a store does. It can be changed behind the
// service's back, as another replica would.
type apiKeysInMemory struct {
	mu      sync.Mutex
	all     []attest.APIKey
	revoked int
	asked   int    // by hash
	during  func() // called in the next question by hash, after it was answered
	fail    error
}

func (m *apiKeysInMemory) find(match func(attest.APIKey) bool) (*attest.APIKey, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	if i := slices.IndexFunc(m.all, match); i >= 0 {
		return &m.all[i], nil
	}
	return nil, fmt.Errorf("%w: API key", attest.ErrNotFound)
}

func (m *apiKeysInMemory) one(match func(attest.APIKey) bool) (attest.APIKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, err := m.find(match)
	if err != nil {
		return attest.APIKey{}, err
	}
	return *k, nil
}

func (m *apiKeysInMemory) APIKey(_ context.Context, id string) (attest.APIKey, error) {
	return m.one(func(k attest.APIKey) bool { return k.ID == id })
}

func (m *apiKeysInMemory) APIKeyByHash(_ context.Context, hash attest.Digest) (attest.APIKey, error) {
	k, err := m.one(func(k attest.APIKey) bool { return k.Hash == hash })
	m.mu.Lock()
	m.asked++
	during := m.during
	m.during = nil
	m.mu.Unlock()
	if during != nil {
		during()
	}
	return k, err
}

func (m *apiKeysInMemory) AppendAPIKey(_ context.Context, k attest.APIKey) (attest.APIKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k.Seq = int64(len(m.all) + 1)
	m.all = append(m.all, k)
	return k, m.fail
}

func (m *apiKeysInMemory) APIKeys(_ context.Context, in attest.Tenants, after int64, limit int) (found []attest.APIKey, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.all {
		if in.Has(k.Tenant) && k.Seq > after && len(found) < limit {
			found = append(found, k)
		}
	}
	return found, m.fail
}

func (m *apiKeysInMemory) RevokeAPIKey(_ context.Context, k attest.APIKey) (attest.APIKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stored, err := m.find(func(o attest.APIKey) bool { return o.ID == k.ID })
	if err != nil {
		return attest.APIKey{}, err
	}
	if stored.RevokedAt.IsZero() {
		stored.RevokedAt, stored.RevokedBy = k.RevokedAt, k.RevokedBy
		m.revoked++
	}
	return *stored, nil
}

func (m *apiKeysInMemory) set(change func(*apiKeysInMemory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *apiKeysInMemory) timesAsked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// newKey has ada, who may everything everywhere, make a key of an hour.
func (f *fixture) newKey(name, tenant string, grants ...attest.Grant) client.CreatedAPIKey {
	f.t.Helper()
	k, err := f.client(f.idp.person("ada")).CreateAPIKey(f.t.Context(), client.APIKeyRequest{Name: name, Tenant: tenant, Grants: grants, ExpiresIn: 3600})
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

// accepts asks the service who the secret speaks for.
func (f *fixture) accepts(secret string) error {
	_, err := f.secretClient(secret).Whoami(f.t.Context())
	return err
}

func TestAPIKeys(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	k := f.newKey("jenkins", "acme", attest.GrantSBOM, attest.GrantRead)
	want := client.APIKey{
		ID: k.ID, Name: "jenkins", State: attest.APIKeyActive, Grants: []attest.Grant{attest.GrantSBOM, attest.GrantRead}, Tenant: "acme",
		Owner: attest.Person{Issuer: f.idp.URL + "/people", Subject: "ada"}, CreatedAt: k.CreatedAt, ExpiresAt: k.CreatedAt.Add(time.Hour),
	}
	if diff := cmp.Diff(want, k.APIKey); diff != "" || !attest.IsAPIKeyID(k.ID) || !apiKeySecret.MatchString(k.Secret) || len(k.Secret) != 56 {
		t.Errorf("%s %s", k.Secret, diff)
	}
	c := f.secretClient(k.Secret)
	who, err := c.Whoami(ctx)
	if diff := cmp.Diff(client.Whoami{
		Issuer: service + "/apikeys", Subject: k.ID, Tenant: "acme", Grants: []attest.Grant{}, Tenants: map[string][]attest.Grant{"acme": k.Grants},
	}, who); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := c.AttestSBOM(ctx, client.Artifact{Digest: artifact}, cycloneDX, ""); err != nil {
		t.Errorf("what it may: %v", err)
	}
	if r := f.records()[len(f.records())-1]; r.Subject != k.ID || r.Issuer != service+"/apikeys" || r.Tenant != "acme" || r.Why != "API key jenkins" {
		t.Errorf("recorded as %+v", r)
	}
	for what, err := range map[string]error{
		"provenance":   second(c.AttestProvenance(ctx, oneDigest, "")),
		"a decision":   second(c.Decide(ctx, client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod"})),
		"the audit":    second(c.Audit(ctx, "", 0)),
		"a rotation":   second(c.Rotate(ctx, attest.PowerEvidence)),
		"another key":  second(c.CreateAPIKey(ctx, client.APIKeyRequest{Name: "x", Grants: []attest.Grant{attest.GrantRead}, Tenant: "acme", ExpiresIn: 60})),
		"the keys":     second(c.APIKeys(ctx, "", 0)),
		"its own end":  second(c.RevokeAPIKey(ctx, k.ID)),
		"a builder":    second(c.PutBuilder(ctx, "x", client.BuilderRequest{})),
		"an approval":  second(c.ApproveBuilder(ctx, "x", client.Approval{Revision: 1})),
		"a revocation": second(c.Revoke(ctx, attest.PowerProvenance, client.RevocationRequest{Version: 3})),
	} {
		if !errors.Is(err, attest.ErrDenied) {
			t.Errorf("%s: %v; want it denied", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Whoever may make keys sees those of their tenants, page by page, and no hash.
func TestAPIKeysAreListed(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	acme, globex, all := f.newKey("one", "acme", attest.GrantRead), f.newKey("two", "globex", attest.GrantRead), f.newKey("three", AllTenants, attest.GrantRead)
	if all.Tenant != AllTenants || len(f.kept.all[2].Tenant) != 0 {
		t.Errorf("of every tenant: %+v", all)
	}
	ids := func(p client.APIKeys, err error) (ids []string) {
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range p.APIKeys {
			ids = append(ids, k.ID)
		}
		return append(ids, p.Next)
	}
	for name, c := range map[string]struct {
		person string
		after  string
		limit  int
		want   []string
	}{
		"everywhere":       {"ada", "", 0, []string{acme.ID, globex.ID, all.ID, ""}},
		"in pages":         {"ada", "", 2, []string{acme.ID, globex.ID, "2"}},
		"the last page":    {"ada", "2", 2, []string{all.ID, ""}},
		"in one tenant":    {"bob", "", 0, []string{acme.ID, ""}},
		"in other tenants": {"eve", "", 0, []string{globex.ID, ""}},
	} {
		if diff := cmp.Diff(c.want, ids(f.client(f.idp.person(c.person)).APIKeys(ctx, c.after, c.limit))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, claims := range []map[string]any{gate, f.idp.person("nobody")} {
		if _, err := f.client(claims).APIKeys(ctx, "", 0); !errors.Is(err, attest.ErrDenied) {
			t.Errorf("without the grant: %v", err)
		}
	}
	req, _ := http.NewRequest(http.MethodGet, f.url+"/v1/apikeys", nil)
	req.Header.Set("Authorization", "Bearer "+f.idp.token(f.idp.person("ada")))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	for _, k := range f.kept.all {
		if !strings.Contains(string(raw), k.ID) || strings.Contains(string(raw), k.Hash.Hex()) || strings.Contains(string(raw), `"key"`) {
			t.Errorf("listed: %s", raw)
		}
	}
	for _, secret := range []string{acme.Secret, globex.Secret, all.Secret} {
		if strings.Contains(string(raw), secret[len(apiKeyPrefix):]) {
			t.Errorf("a secret is listed: %s", raw)
		}
	}
}

// Nobody makes a key that is more than they are, and each attempt is on record.
func TestAPIKeyEscalation(t *testing.T) {
	f := newFixture(t)
	key := f.newKey("jenkins", AllTenants, attest.GrantRead, attest.GrantSBOM, attest.GrantRotate, attest.GrantAudit)
	for _, c := range []struct {
		name, token, body string
		want              int
	}{
		{"a grant that is not held", f.idp.token(f.idp.person("bob")), `{"name":"x","grants":["decide"],"tenant":"acme","expiresIn":60}`, 403},
		{"a tenant that is not held", f.idp.token(f.idp.person("bob")), `{"name":"x","grants":["read"],"tenant":"globex","expiresIn":60}`, 403},
		{"every tenant, by one of a tenant", f.idp.token(f.idp.person("bob")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60}`, 403},
		{"a grant of the other tenant", f.idp.token(f.idp.person("eve")), `{"name":"x","grants":["decide"],"tenant":"globex","expiresIn":60}`, 403},
		{"the grant to make keys", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["apikeys:write"],"tenant":"*","expiresIn":60}`, 403},
		{"provenance", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["attest:provenance"],"tenant":"acme","expiresIn":60}`, 403},
		{"approvals", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["builders:approve"],"tenant":"*","expiresIn":60}`, 403},
		{"by a key", key.Secret, `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60}`, 403},
		{"by a job that may make keys", f.token(admin), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60}`, 403},
		{"by a person without the grant", f.idp.token(f.idp.person("nobody")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60}`, 403},
		{"by nobody", "", `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60}`, 401},

		{"several tenants at once", f.idp.token(f.idp.person("eve")), `{"name":"x","grants":["read"],"expiresIn":60}`, 400},
		{"every tenant by leaving it out", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"expiresIn":60}`, 400},
		{"no end", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*"}`, 400},
		{"two ends", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60,"expiresAt":"2999-01-01T00:00:00Z"}`, 400},
		{"an end in the past", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresAt":"2020-01-01T00:00:00Z"}`, 400},
		{"a late end", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresAt":"2999-01-01T00:00:00Z"}`, 400},
		{"a long life", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":7776001}`, 400},
		{"a life that overflows", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":9223372036854775807}`, 400},
		{"a negative life", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":-60}`, 400},
		{"another owner", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60,"owner":{"subject":"bob"}}`, 400},
		{"a secret of one's own", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":["read"],"tenant":"*","expiresIn":60,"secret":"pvk_x"}`, 400},
		{"no grants", f.idp.token(f.idp.person("ada")), `{"name":"x","grants":[],"tenant":"*","expiresIn":60}`, 400},
		{"a large body", f.idp.token(f.idp.person("ada")), `{"name":"` + strings.Repeat("x", maxAPIKeyJSON) + `"}`, 413},
	} {
		n, before := len(f.records()), len(f.kept.all)
		status, p := f.post("/v1/apikeys", c.body, "Authorization", "Bearer "+c.token, "Content-Type", "application/json")
		if status != c.want || len(f.kept.all) != before {
			t.Errorf("%s: %d %+v, %d keys; want %d", c.name, status, p, len(f.kept.all)-before, c.want)
		}
		records := f.records()[n:]
		if refused := len(records) > 0 && records[len(records)-1].Outcome == attest.AuditRefused; refused != (c.want == 401 || c.want == 403) {
			t.Errorf("%s: recorded %+v", c.name, records)
		}
	}
	k, err := f.client(f.idp.person("bob")).CreateAPIKey(t.Context(), client.APIKeyRequest{Name: "own", Grants: []attest.Grant{attest.GrantRead}, ExpiresIn: 60})
	if err != nil || k.Tenant != "acme" {
		t.Errorf("without a tenant, by one of one tenant: %+v, %v", k, err)
	}
}

// A key ends when it says, by a clock that nobody turns back.
func TestAPIKeysExpire(t *testing.T) {
	f := newFixture(t)
	k := f.newKey("jenkins", AllTenants, attest.GrantRead)
	f.idp.advance(59 * time.Minute)
	if err := f.accepts(k.Secret); err != nil {
		t.Errorf("before its end: %v", err)
	}
	f.idp.advance(61 * time.Second)
	n := len(f.records())
	if _, err := f.secretClient(k.Secret).Keys(t.Context()); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its end: %v", err)
	}
	if records := f.records()[n:]; len(records) != 1 || records[0].Outcome != attest.AuditRefused || records[0].Subject != k.ID || !strings.Contains(records[0].Why, "the API key has expired") {
		t.Errorf("recorded %+v", records)
	}
	f.idp.advance(-3 * time.Hour)
	if err := f.accepts(k.Secret); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("by a clock turned back to before it was made: %v", err)
	}
}

// A key that is revoked here stops at once; revoked by another replica, within
// two seconds, also if the clock is turned back in them.
func TestRevokedAPIKeysStop(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	elsewhere := func(k client.CreatedAPIKey) {
		_, err := f.kept.RevokeAPIKey(ctx, attest.APIKey{ID: k.ID, RevokedAt: f.idp.now().Add(time.Hour)}) // its clock is ahead
		if err != nil {
			t.Fatal(err)
		}
	}
	stopped := func(what string, k client.CreatedAPIKey) {
		t.Helper()
		if err := f.accepts(k.Secret); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s: %v; want it revoked", what, err)
		}
	}
	here, there, back := f.newKey("here", "acme", attest.GrantRead), f.newKey("there", AllTenants, attest.GrantRead), f.newKey("back", "acme", attest.GrantRead)
	for _, k := range []client.CreatedAPIKey{here, there, back} {
		if err := f.accepts(k.Secret); err != nil {
			t.Fatal(err)
		}
	}
	asked := f.kept.timesAsked()
	if err := f.accepts(here.Secret); err != nil || f.kept.timesAsked() != asked {
		t.Errorf("again: %v, asked %d times", err, f.kept.timesAsked()-asked)
	}
	got, err := f.client(f.idp.person("bob")).RevokeAPIKey(ctx, here.ID)
	if err != nil || got.State != attest.APIKeyRevoked || got.RevokedBy.Subject != "bob" || got.RevokedBy.Key != "" {
		t.Fatalf("%+v, %v", got, err)
	}
	stopped("revoked here", here)
	again, err := f.client(f.idp.person("ada")).RevokeAPIKey(ctx, here.ID)
	if diff := cmp.Diff(got, again); err != nil || diff != "" {
		t.Errorf("revoked twice: %v %s", err, diff)
	}

	if err := f.accepts(there.Secret); err != nil {
		t.Fatal(err)
	}
	if err := f.accepts(back.Secret); err != nil {
		t.Fatal(err)
	}
	elsewhere(there)
	elsewhere(back)
	f.idp.advance(-10 * time.Second)
	stopped("revoked elsewhere, by a clock turned back", back)
	f.idp.advance(10*time.Second + apiKeyFresh)
	stopped("revoked elsewhere, two seconds later", there)
}

// What was read before a revocation is not remembered after it.
func TestRevocationOvertakesAReader(t *testing.T) {
	f := newFixture(t)
	k := f.newKey("jenkins", AllTenants, attest.GrantRead)
	f.kept.set(func(m *apiKeysInMemory) {
		m.during = func() {
			if _, err := f.client(f.idp.person("ada")).RevokeAPIKey(t.Context(), k.ID); err != nil {
				t.Error(err)
			}
		}
	})
	if err := f.accepts(k.Secret); err != nil { // it was read before
		t.Errorf("the reader: %v", err)
	}
	if err := f.accepts(k.Secret); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("the next: %v", err)
	}
}

// Who may revoke is decided by whose key it is.
func TestWhoRevokesAPIKeys(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	acme, all := f.newKey("one", "acme", attest.GrantRead), f.newKey("two", AllTenants, attest.GrantRead)
	f.kept.set(func(m *apiKeysInMemory) { // whose maker may nothing any more
		m.all = append(m.all, m.all[0])
		last := &m.all[2]
		last.ID, last.Hash = attest.NewID(), attest.SHA256([]byte("x"))
		last.Owner = attest.Person{Issuer: f.idp.URL + "/people", Subject: "former", Key: f.idp.URL + "/people former"}
	})
	for _, c := range []struct {
		name   string
		claims map[string]any
		id     string
		want   int // 0 for done
	}{
		{"one of another tenant", f.idp.person("eve"), acme.ID, 403},
		{"one of every tenant, by one of a tenant", f.idp.person("bob"), all.ID, 403},
		{"by a person who may nothing", f.idp.person("nobody"), acme.ID, 403},
		{"by a gate", gate, acme.ID, 403},
		{"one that there is not", f.idp.person("ada"), attest.NewID(), 404},
		{"by its name", f.idp.person("ada"), "one", 400},
		{"by its secret", f.idp.person("ada"), acme.Secret, 400},
		{"by a pattern", f.idp.person("ada"), "%", 400},
		{"by its owner, who may nothing any more", f.idp.person("former"), f.kept.all[2].ID, 0},
		{"by a machine that may make keys", admin, all.ID, 0},
	} {
		n, before := len(f.records()), f.kept.revoked
		_, err := f.client(c.claims).RevokeAPIKey(ctx, c.id)
		if status(err) != c.want || f.kept.revoked-before != map[bool]int{true: 1}[c.want == 0] {
			t.Errorf("%s: %v, %d revoked; want %d", c.name, err, f.kept.revoked-before, c.want)
		}
		outcomes := map[int][]string{0: {"allowed"}, 403: {"refused"}}[c.want]
		var got []string
		for _, r := range f.records()[n:] {
			if r.Action == "apikeys.revoke" {
				got = append(got, r.Outcome)
			}
		}
		if diff := cmp.Diff(outcomes, got); diff != "" {
			t.Errorf("%s: recorded %s", c.name, diff)
		}
	}
}

// A key of one tenant sees nothing of another, and what it makes is its own's.
func TestAPIKeysStayInTheirTenant(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	made := map[string]client.Attestation{}
	clients := map[string]*client.Client{}
	for _, tenant := range []string{"acme", "globex", AllTenants} {
		clients[tenant] = f.secretClient(f.newKey("jenkins", tenant, attest.GrantSBOM, attest.GrantRead).Secret)
		a, err := clients[tenant].AttestSBOM(ctx, client.Artifact{Digest: artifact}, cycloneDX, "the-same-key")
		if err != nil {
			t.Fatal(err)
		}
		made[tenant] = a
	}
	for tenant, c := range clients {
		page, err := c.Attestations(ctx, artifact, "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, a := range page.Attestations {
			ids = append(ids, a.ID)
		}
		want := []string{made[tenant].ID}
		if tenant == AllTenants {
			want = []string{made["acme"].ID, made["globex"].ID, made[AllTenants].ID}
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("the key of %s sees %s", tenant, diff)
		}
		for other, a := range made {
			_, err := c.Attestation(ctx, a.ID)
			if mine := other == tenant || tenant == AllTenants; mine != (err == nil) || err != nil && status(err) != 404 {
				t.Errorf("the key of %s asks for that of %s: %v", tenant, other, err)
			}
		}
	}
}
