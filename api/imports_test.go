// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

const (
	npmIssuer = "https://token.actions.githubusercontent.com"
	npmSAN    = "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"
	npmSHA512 = "sha512:46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c"
)

// publicSigstore reads a file of the public Sigstore.
func publicSigstore(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "verify", "testdata", "foreign", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// npmBundle is a bundle that the root of [newImports] believes.
func npmBundle(t testing.TB) string {
	return strings.TrimSpace(string(publicSigstore(t, "npm.sigstore.json")))
}

// importsInMemory keep imports, and know one foreign root, public-good.
type importsInMemory struct {
	t    *testing.T
	mu   sync.Mutex
	all  []attest.Imported
	fail error // of the store
	// What the root is now.
	san     string
	rootErr error
	root    []byte
}

func newImports(t *testing.T) *importsInMemory {
	return &importsInMemory{t: t, san: npmSAN, root: publicSigstore(t, "public-good.json")}
}

func (m *importsInMemory) foreign(name string) (*verify.ForeignTrust, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name != "public-good" {
		return nil, fmt.Errorf("%w: no foreign root is called %.80q", attest.ErrNotFound, name)
	}
	if m.rootErr != nil {
		return nil, m.rootErr
	}
	return verify.ParseForeign(verify.ForeignRoot{
		Name: name, PredicateTypes: []string{attest.ProvenanceType}, Identities: []verify.ForeignIdentity{{Issuer: npmIssuer, SAN: m.san}},
	}, service, m.root)
}

func (m *importsInMemory) AppendImported(_ context.Context, i attest.Imported) (attest.Imported, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return attest.Imported{}, m.fail
	}
	for _, have := range m.all {
		if bytes.Equal(have.Bundle, i.Bundle) && have.Root == i.Root && have.Tenant == i.Tenant {
			return have, nil
		}
	}
	i.Seq = int64(len(m.all) + 1)
	m.all = append(m.all, i)
	return i, nil
}

func (m *importsInMemory) Imported(_ context.Context, id string) (attest.Imported, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.all {
		if i.ID == id {
			return i, m.fail
		}
	}
	return attest.Imported{}, fmt.Errorf("%w: imported bundle", attest.ErrNotFound)
}

func (m *importsInMemory) ImportedAbout(_ context.Context, q attest.ImportedQuery) (page []attest.Imported, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if q.Limit < 1 {
		m.t.Errorf("query with limit %d", q.Limit)
	}
	for _, i := range m.all {
		about := slices.ContainsFunc(i.Subjects, func(s attest.Subject) bool { return s.SHA256 == q.Artifact || s.SHA512 == q.Artifact })
		if about && i.Seq > q.After && q.In.Has(i.Tenant) && len(page) < q.Limit {
			page = append(page, i)
		}
	}
	return page, m.fail
}

func TestImport(t *testing.T) {
	f := newFixture(t)
	c := f.client(admin)
	raw := npmBundle(t)
	artifact, err := attest.ParseDigest(npmSHA512)
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.AddImport(t.Context(), "public-good", []byte("\n "+raw+"\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if made.ID == "" || made.Root != "public-good" || made.PredicateType != attest.ProvenanceType || made.Identity != (client.ForeignIdentity{Issuer: npmIssuer, SAN: npmSAN}) ||
		made.SignedAt.Year() != 2023 || made.ImportedAt.IsZero() || len(made.Subjects) != 1 || made.Subjects[0].Digest["sha512"] != artifact.Hex() || made.Bundle != nil {
		t.Errorf("%+v", made)
	}
	again, err := c.AddImport(t.Context(), "public-good", []byte(raw))
	if err != nil || again.ID != made.ID {
		t.Errorf("the same bundle again: %s, %v; want %s", again.ID, err, made.ID)
	}
	one, err := c.Import(t.Context(), made.ID)
	if err != nil || string(one.Bundle) != raw || one.Digest != attest.SHA256([]byte(raw)) {
		t.Errorf("it comes back as %d bytes, %s, %v", len(one.Bundle), one.Digest, err)
	}
	page, err := c.Imports(t.Context(), artifact, "", 0)
	if err != nil || len(page.Imports) != 1 || string(page.Imports[0].Bundle) != raw || page.Next != "" {
		t.Errorf("about the artifact: %d, %v", len(page.Imports), err)
	}
	// It is nothing of ours: no signature was made, and no list of ours has it.
	if len(f.memory.intents)+len(f.memory.attestations) != 0 {
		t.Error("something was signed")
	}
	if ours, err := c.Attestations(t.Context(), artifact, "", "", 0); err != nil || len(ours.Attestations) != 0 {
		t.Errorf("among ours: %+v, %v", ours, err)
	}
}

func TestImportsArePaged(t *testing.T) {
	f := newFixture(t)
	about, err := attest.ParseDigest(npmSHA512)
	if err != nil {
		t.Fatal(err)
	}
	large := []byte(`"` + strings.Repeat("x", client.MaxPage/2) + `"`)
	for n := range 25 {
		i := attest.Imported{ID: fmt.Sprint("i", n), Bundle: []byte(`{}`), Subjects: []attest.Subject{{SHA512: about}}, Root: "r", Tenant: ""}
		if n > 21 {
			i.Bundle = large
		}
		i.Bundle = append(bytes.Clone(i.Bundle), strings.Repeat(" ", n)...) // each another
		if _, err := f.imports.AppendImported(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	c := f.client(gate)
	for limit, pages := range map[int]int{0: 3, 10: 5, 25: 3, 1: 25} {
		var ids []string
		n := 0
		for after := ""; ; n++ {
			page, err := c.Imports(t.Context(), about, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range page.Imports {
				ids = append(ids, i.ID)
			}
			if after = page.Next; after == "" {
				n++
				break
			}
		}
		if len(ids) != 25 || len(slices.Compact(ids)) != 25 || n != pages {
			t.Errorf("limit %d: %d imports on %d pages; want 25 on %d", limit, len(ids), n, pages)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?after=-1", "?after=x", "?predicateType=x", "?limit=1&limit=2"} {
		if status, _ := f.ask("GET", "/v1/artifacts/"+npmSHA512+"/imports"+query, nil); status != 400 {
			t.Errorf("%s: %d; want 400", query, status)
		}
	}
}

func TestImportsAreRefused(t *testing.T) {
	raw := npmBundle(t)
	ours := func(f *fixture) string {
		a, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, "")
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Bundle)
	}
	for _, c := range []struct {
		name   string
		change func(*fixture) // before
		query  string
		body   func(*fixture) string
		media  string
		claims map[string]any
		status int
		detail string
	}{
		{name: "an identity that is not listed", change: func(f *fixture) { f.imports.san = npmSAN + "x" }, status: 403, detail: "identity: signed by"},
		{name: "a tampered payload", body: func(*fixture) string { return strings.Replace(raw, `"payload": "eyJf`, `"payload": "eyJg`, 1) }, status: 422, detail: "bundle: log: "},
		{name: "a bundle of ours", body: ours, status: 422, detail: "bundle: log: "},
		{name: "a bundle of a key", body: func(*fixture) string { return string(publicSigstore(t, "npm-key.sigstore.json")) }, status: 422, detail: "bundle: bundle: no certificate"},
		{name: "another predicate type", body: func(*fixture) string { return string(publicSigstore(t, "npm-statement-v0.1.sigstore.json")) }, status: 422, detail: "bundle: statement: predicateType"},
		{name: "the same key twice", body: func(*fixture) string { return strings.Replace(raw, `{`, `{"mediaType":"x",`, 1) }, status: 422, detail: "duplicate"},
		{name: "no JSON", body: func(*fixture) string { return "x" }, status: 422},
		{name: "nothing", body: func(*fixture) string { return "" }, status: 422},
		{name: "no root", query: "?", status: 400, detail: "root"},
		{name: "two roots", query: "?root=public-good&root=public-good", status: 400},
		{name: "something else in the query", query: "?root=public-good&force=true", status: 400, detail: "force"},
		{name: "an unknown root", query: "?root=github", status: 404, detail: `no foreign root is called "github"`},
		{name: "another kind of body", media: "application/jose", status: 415},
		{name: "a root that cannot be read", change: func(f *fixture) { f.imports.rootErr = fmt.Errorf("%w: /secret/path", attest.ErrUnavailable) }, status: 503},
		{name: "a root that is broken", change: func(f *fixture) { f.imports.rootErr = errors.New("/secret/path") }, status: 500},
		{name: "a store that is away", change: func(f *fixture) { f.imports.fail = attest.ErrUnavailable }, status: 503},
		{name: "a caller without the grant", claims: gate, status: 403, detail: `grant "attest:import" is missing`},
		{name: "a job without the grant", claims: map[string]any{}, status: 403, detail: `grant "attest:import" is missing`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			if c.change != nil {
				c.change(f)
			}
			if c.query == "" {
				c.query = "?root=public-good"
			}
			if c.claims == nil {
				c.claims = admin
			}
			if c.media == "" {
				c.media = "application/vnd.dev.sigstore.bundle.v0.3+json"
			}
			body := raw
			if c.body != nil {
				if body = c.body(f); body == raw {
					t.Fatal("the body is as it was")
				}
			}
			before := len(f.imports.all)
			status, p := f.ask("POST", "/v1/imports"+c.query, strings.NewReader(body), "Authorization", "Bearer "+f.token(c.claims), "Content-Type", c.media)
			if status != c.status || !strings.Contains(p.Detail, c.detail) || strings.Contains(p.Detail, "secret") {
				t.Errorf("%d %+v; want %d %q", status, p, c.status, c.detail)
			}
			if len(f.imports.all) != before {
				t.Error("it was kept")
			}
			records := f.records()
			if c.status == 403 && (len(records) == 0 || records[len(records)-1].Outcome != attest.AuditRefused || records[len(records)-1].Action != "attest.import") {
				t.Errorf("the refusal is recorded as %+v", records)
			}
		})
	}
	f := newFixture(t)
	if status, p := f.ask("POST", "/v1/imports?root=public-good", strings.NewReader(strings.Repeat(" ", attest.MaxBundle+1)), "Content-Type", "application/json"); status != 413 || p.Limit != attest.MaxBundle {
		t.Errorf("too large: %d %+v", status, p)
	}
}

// What a tenant imported is its own, and the same bundle another's again.
func TestImportsOfTenants(t *testing.T) {
	f := newFixture(t)
	about, err := attest.ParseDigest(npmSHA512)
	if err != nil {
		t.Fatal(err)
	}
	one, other := f.client(map[string]any{"role": "importer"}), f.client(map[string]any{"role": "importer", "repository_id": "75", "repository": "acme/other"})
	first, err := one.AddImport(t.Context(), "public-good", []byte(npmBundle(t)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Import(t.Context(), first.ID); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("another tenant's import: %v", err)
	}
	if page, err := other.Imports(t.Context(), about, "", 0); err != nil || len(page.Imports) != 0 {
		t.Errorf("another tenant's imports: %+v, %v", page, err)
	}
	second, err := other.AddImport(t.Context(), "public-good", []byte(npmBundle(t)))
	if err != nil || second.ID == first.ID {
		t.Errorf("the same bundle by another tenant: %s, %v", second.ID, err)
	}
	if page, err := f.client(gate).Imports(t.Context(), about, "", 0); err != nil || len(page.Imports) != 2 {
		t.Errorf("of every tenant: %d, %v; want 2", len(page.Imports), err)
	}
	if tenants := []string{f.imports.all[0].Tenant, f.imports.all[1].Tenant}; tenants[0] == tenants[1] || tenants[0] == "" || tenants[1] == "" {
		t.Errorf("of tenants %q", tenants)
	}
}

// A session that is bound to artifacts imports nothing about others.
func TestImportsInABoundSession(t *testing.T) {
	f := newFixture(t)
	set := attest.SubjectSet([]attest.Digest{artifact})
	token := f.idp.token(map[string]any{"aud": audience + "/?d=" + set.Hex(), "role": "importer"})
	s, err := (&client.Client{URL: f.url}).OpenSession(t.Context(), token, client.SessionRequest{
		Subjects: []client.Subject{{Digest: map[string]string{"sha256": artifact.Hex()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.secretClient(s.Token).AddImport(t.Context(), "public-good", []byte(npmBundle(t))); status(err) != 403 || !strings.Contains(err.Error(), "bound to other artifacts") {
		t.Errorf("about another artifact: %v", err)
	}
	if len(f.imports.all) != 0 {
		t.Error("it was kept")
	}
}
