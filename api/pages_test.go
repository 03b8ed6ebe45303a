// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"provost/attest"
)

// serve is the fixture's service with other tokens and another registry.
func (f *fixture) serve(auth *Authenticator, store BuilderStore) string {
	f.t.Helper()
	s, err := New(Config{
		Issuer: f.issuer, Gate: f.gate, Records: f.memory, Keys: f.keys, Audit: f.memory, Auth: auth, Builders: store, APIKeys: f.kept, Imports: f.imports, Foreign: f.imports.foreign,
		Ready: func(context.Context) map[string]error { return nil }, Log: f.log, Metrics: prometheus.NewRegistry(), Now: f.idp.now,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	f.t.Cleanup(server.Close)
	return server.URL
}

// registry has these rows, as if each had been appended.
func registryOf(all ...attest.Builder) *rows {
	r := &rows{}
	for _, b := range all {
		if _, err := r.AppendBuilder(context.Background(), b, r.revision); err != nil {
			panic(err)
		}
	}
	return r
}

// fetch is an answer: its status, header and body.
func fetch(t *testing.T, method, url, accept string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// pageOf is the page that a URI of the service resolves to at a server.
func pageOf[T any](t *testing.T, server, uri string) (page T) {
	t.Helper()
	path, ok := strings.CutPrefix(uri, service)
	if !ok {
		t.Fatalf("%s is not the service's", uri)
	}
	status, _, body := fetch(t, http.MethodGet, server+path, "application/json")
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", uri, status, body)
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	if status, header, body := fetch(t, http.MethodGet, server+path, "text/html"); status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || !strings.HasSuffix(strings.TrimSpace(body), "</html>") {
		t.Errorf("%s for people: %d %v …%q", uri, status, header, body[max(0, len(body)-40):])
	}
	return page
}

// Every one of our build types has a page, and the example of one is of that one.
func TestBuildTypePages(t *testing.T) {
	f := newFixture(t)
	index := pageOf[buildTypeIndex](t, f.url, service+"/buildtypes")
	if len(index.BuildTypes) != len(attest.BuildTypes)+1 || index.BuildTypes[len(attest.BuildTypes)].URI != attest.GitHubWorkflowType {
		t.Errorf("%+v", index)
	}
	for _, e := range index.BuildTypes[:len(attest.BuildTypes)] {
		page := pageOf[buildTypePage](t, f.url, e.URI)
		build, err := attest.ParseProvenance(page.Example)
		if err != nil || build.BuildType != e.URI || page.URI != e.URI || page.Levels == "" || len(page.Extensions) != 3 || len(page.Parameters) == 0 || len(page.Internal) == 0 {
			t.Errorf("%s: %v, %+v", e.URI, err, page)
		}
	}
	here, err := describeBuildType("https://other.example", attest.BuildTypes[0])
	if err != nil || !strings.Contains(string(here.Example), "https://other.example/builders/acme") || strings.Contains(string(here.Example), service) {
		t.Errorf("at another service the example is of this one: %v", err)
	}
	for _, path := range []string{"/buildtypes/none/v1", "/buildtypes/gitlab-job/v2", "/buildtypes/gitlab-job", "/buildtypes/github/v1", "/buildtypes/../pages.html/v1", "/buildtypes/gitlab-job%2Fx/v1", "/buildtypes/"} {
		if status, _, body := fetch(t, http.MethodGet, f.url+path, ""); status != http.StatusNotFound || strings.Contains(body, "<html") {
			t.Errorf("%s: %d %.80s; want 404", path, status, body)
		}
	}
}

var day = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// aBuilder is a row of the registry with people in it.
func aBuilder(name string, change func(*attest.Builder)) attest.Builder {
	b := builderRow("https://token.actions.githubusercontent.com", name, `claims.repository_id == "74" && claims.runner_environment in ["github-hosted"]`)
	b.ProposedBy = attest.Person{Issuer: "https://login.secret.example", Subject: "alice-secret", Key: "4711-secret"}
	b.ProposedAt = day
	change(&b)
	return b
}

// aHistory has builders in every state.
func aHistory() *rows {
	as := func(state string, level int, condition string) func(*attest.Builder) {
		return func(b *attest.Builder) {
			b.State, b.Level = state, level
			if condition != "" {
				b.Condition = condition
			}
		}
	}
	return registryOf(
		aBuilder("two", as(attest.BuilderActive, 2, "")),
		aBuilder("three", as(attest.BuilderActive, 2, `claims.repository_id == "73"`)),
		aBuilder("three", as(attest.BuilderProposed, 3, "")),
		aBuilder("three", func(b *attest.Builder) {
			b.Level, b.ApprovedAt = 3, day.Add(48*time.Hour)
			b.ApprovedBy = attest.Person{Issuer: "https://login.secret.example", Subject: "bob-secret", Key: "4712-secret"}
		}),
		aBuilder("three", as(attest.BuilderProposed, 3, `claims.repository_id == "waits-secret"`)),
		aBuilder("lowered", as(attest.BuilderActive, 3, "")),
		aBuilder("lowered", as(attest.BuilderActive, 1, "")),
		aBuilder("retired", as(attest.BuilderActive, 2, "")),
		aBuilder("retired", as(attest.BuilderProposed, 3, `claims.repository_id == "waits-secret"`)),
		aBuilder("retired", as(attest.BuilderRetired, 3, `claims.repository_id == "waits-secret"`)),
		aBuilder("again", as(attest.BuilderActive, 2, "")),
		aBuilder("again", as(attest.BuilderRetired, 2, "")),
		aBuilder("again", as(attest.BuilderActive, 1, "")),
		aBuilder("proposed", as(attest.BuilderProposed, 3, "")),
		aBuilder("withdrawn", as(attest.BuilderProposed, 3, "")),
		aBuilder("withdrawn", as(attest.BuilderRetired, 3, "")),
		aBuilder("named", func(b *attest.Builder) {
			b.ID, b.Level = "https://github.com/acme/flows/.github/workflows/b.yml@refs/tags/v1", 2
		}),
		aBuilder("chains", func(b *attest.Builder) {
			b.Mode, b.BuildType, b.Issuer = attest.ModeControlPlane, "https://tekton.dev/chains/v2/slsa", "spiffe://example.org"
		}),
		aBuilder("checked", func(b *attest.Builder) { b.CrossCheck = true }),
	)
}

func TestBuilderPages(t *testing.T) {
	f := newFixture(t)
	server := f.serve(f.auth, aHistory())
	for path, want := range map[string]struct {
		id     string
		level  int
		state  string
		origin string // field and source that are in the table
		says   string // is in the HTML
	}{
		"/builders/two":             {service + "/builders/two", 2, "active", "/buildDefinition/externalParameters/workflow/path token", "repository_id is &#34;74&#34;"},
		"/builders/two/level/1":     {service + "/builders/two/level/1", 1, "active", "/runDetails/builder/id registry", "could not claim more: the builder's own level is 2"},
		"/builders/three":           {service + "/builders/three", 3, "active", "/buildDefinition/resolvedDependencies/<n> tenant", "approved by two people on 2026-01-04"},
		"/builders/three/level/1":   {service + "/builders/three/level/1", 1, "active", "", ""},
		"/builders/three/level/2":   {service + "/builders/three/level/2", 2, "active", "", "SLSA Build L2"},
		"/builders/lowered":         {service + "/builders/lowered", 1, "active", "", "/builders/lowered/level/2"},
		"/builders/lowered/level/2": {service + "/builders/lowered/level/2", 2, "active", "", "own level was higher than it is now"},
		"/builders/lowered/level/1": {service + "/builders/lowered/level/1", 1, "active", "", ""},
		"/builders/retired":         {service + "/builders/retired", 2, "retired", "", "This builder is retired"},
		"/builders/retired/level/1": {service + "/builders/retired/level/1", 1, "retired", "", "This builder is retired"},
		"/builders/again":           {service + "/builders/again", 1, "active", "", ""},
		"/builders/named":           {"https://github.com/acme/flows/.github/workflows/b.yml@refs/tags/v1", 2, "active", "", "which others gave it"},
		"/builders/named/level/1":   {service + "/builders/named/level/1", 1, "active", "", ""},
		"/builders/chains":          {service + "/builders/chains", 2, "active", " control", "control plane submits"},
		"/builders/checked":         {service + "/builders/checked", 2, "active", "/buildDefinition/internalParameters/api api", "must confirm"},
	} {
		page := pageOf[builderPage](t, server, service+path)
		if page.BuilderID != want.id || page.Level != want.level || page.State != want.state || page.LevelMeaning == "" || len(page.Tenant) == 0 ||
			page.Signer != (signerEntry{service + "/signers/provenance", service}) || len(page.History) == 0 || !strings.HasPrefix(page.Page, service+"/builders/") {
			t.Errorf("%s: %+v; want %s at level %d, %s", path, page, want.id, want.level, want.state)
		}
		field, from, _ := strings.Cut(want.origin, " ")
		if want.origin != "" && !slices.ContainsFunc(page.Origins, func(e originEntry) bool { return e.Field == field && string(e.From) == from }) {
			t.Errorf("%s: no origin %s in %+v", path, want.origin, page.Origins)
		}
		_, _, html := fetch(t, http.MethodGet, server+path, "")
		if !strings.Contains(html, want.says) {
			t.Errorf("%s does not say %q:\n%s", path, want.says, html)
		}
		_, _, raw := fetch(t, http.MethodGet, server+path, "application/json")
		if strings.Contains(html+raw, "secret") {
			t.Errorf("%s names people, or what waits for approval:\n%s", path, html)
		}
	}
	for _, path := range []string{
		"/builders/none", "/builders/proposed", "/builders/withdrawn", "/builders/proposed/level/1", "/builders/TWO", "/builders/", "/builders/two/", "/builders/two%2Flevel%2F1", "/builders/..", "/builders/%3Cscript%3E",
		"/builders/two/level/2", "/builders/two/level/0", "/builders/two/level/-1", "/builders/two/level/01", "/builders/two/level/+1", "/builders/two/level/x", "/builders/two/level/1/", "/builders/two/level/",
		"/builders/three/level/3", "/builders/three/level/4", "/builders/retired/level/2", "/builders/none/level/1", "/builders/chains/level/1", "/builders/two/level/9999999999999999999999",
	} {
		if status, _, body := fetch(t, http.MethodGet, server+path, ""); status != http.StatusNotFound || strings.Contains(body, "<") || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %s; want 404", path, status, body)
		}
	}
	index := pageOf[builderIndex](t, server, service+"/builders")
	var names []string
	for _, b := range index.Builders {
		names = append(names, b.Name+" "+b.State)
	}
	if want := []string{"again active", "chains active", "checked active", "lowered active", "named active", "retired retired", "three active", "two active"}; !slices.Equal(names, want) {
		t.Errorf("the index has %v; want %v", names, want)
	}

	three := pageOf[builderPage](t, server, service+"/builders/three")
	if len(three.History) != 2 || three.History[0].Level != 2 || three.History[1].Since != day.Add(48*time.Hour) || three.History[1].TwoPeople != day.Add(48*time.Hour) || !three.History[0].TwoPeople.IsZero() {
		t.Errorf("history %+v", three.History)
	}
	if len(three.Lower) != 2 || three.Lower[1].BuilderID != service+"/builders/three/level/2" {
		t.Errorf("lower levels %+v", three.Lower)
	}
	retired := pageOf[builderPage](t, server, service+"/builders/retired")
	if last := retired.History[len(retired.History)-1]; last.State != "retired" || last.Condition != "" || last.Level != 0 {
		t.Errorf("it ended with %+v", last)
	}
}

// A history is bounded, whoever grows it.
func TestLongHistories(t *testing.T) {
	f := newFixture(t)
	r := &rows{}
	for i := range maxHistory + 5 {
		if _, err := r.AppendBuilder(t.Context(), aBuilder("long", func(b *attest.Builder) { b.ProposedAt = day.AddDate(0, 0, i) }), r.revision); err != nil {
			t.Fatal(err)
		}
	}
	page := pageOf[builderPage](t, f.serve(f.auth, r), service+"/builders/long")
	if len(page.History) != maxHistory || page.Earlier != 5 || page.History[maxHistory-1].Revision != maxHistory+5 {
		t.Errorf("%d revisions, %d before, the last %+v", len(page.History), page.Earlier, page.History[len(page.History)-1])
	}
}

// Whatever an administrator writes is text on the page, and no markup.
func TestPagesEscape(t *testing.T) {
	f := newFixture(t)
	const evil = `</pre></td><script>alert(1)</script><img src=x onerror="alert(2)">{{.Page}}` + "\n" + `'"&`
	server := f.serve(f.auth, registryOf(aBuilder("evil", func(b *attest.Builder) {
		b.Description, b.Issuer, b.Repository = evil, "https://x.example/"+evil, "https://x.example/"+evil
		b.Condition = `claims["<script>a</script>"] == "` + strings.NewReplacer(`"`, `\"`, "\n", `\n`).Replace(evil) + `"`
		b.BuildType, b.PredicateTypes = `javascript:alert(3)//"><script>`, []string{evil}
		b.Mode = attest.ModeControlPlane
	})))
	for _, path := range []string{"/builders/evil", "/builders"} {
		status, header, html := fetch(t, http.MethodGet, server+path, "")
		if status != http.StatusOK || header.Get("Content-Security-Policy") != pagePolicy {
			t.Errorf("%s: %d %v", path, status, header)
		}
		for _, never := range []string{"<script", "<img", "</pre></td>", `href="javascript`, "href=javascript", "map["} {
			if strings.Contains(html, never) {
				t.Errorf("%s has %s:\n%s", path, never, html)
			}
		}
	}
	if _, _, html := fetch(t, http.MethodGet, server+"/builders/evil", ""); !strings.Contains(html, "&lt;script&gt;alert(1)") {
		t.Errorf("the description is not there:\n%s", html)
	}
	if page := pageOf[builderPage](t, server, service+"/builders/evil"); page.Description != evil || len(page.Words) != 1 {
		t.Errorf("%q, %q", page.Description, page.Words)
	}
}

func TestPagesArePublicAndCacheable(t *testing.T) {
	f := newFixture(t)
	server := f.serve(f.auth, aHistory())
	for _, path := range []string{"/builders", "/builders/two", "/builders/two/level/1", "/buildtypes", "/buildtypes/workload/v1"} {
		for accept, want := range map[string]string{
			"": "text/html", "*/*": "text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html",
			"application/json": "application/json", "application/json, text/plain, */*": "application/json", "Application/JSON; q=0.9, text/html;q=0.5": "application/json",
			"application/json;q=0.4, text/html": "text/html", "application/json;q=0": "text/html", "application/json;q=x": "text/html", ";;;,": "text/html", "image/png": "text/html",
		} {
			status, header, body := fetch(t, http.MethodGet, server+path, accept)
			if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), want) || header.Get("Cache-Control") != "public, max-age=60" ||
				header.Get("Vary") != "Accept" || header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'unsafe-inline'") || header.Get("Set-Cookie") != "" {
				t.Errorf("%s as %q: %d %v; want %s", path, accept, status, header, want)
			}
			if strings.Contains(body, "<script") || strings.Contains(body, "http-equiv") {
				t.Errorf("%s has more than text", path)
			}
			length := header.Get("Content-Length")
			status, header, body = fetch(t, http.MethodHead, server+path, accept)
			if status != http.StatusOK || body != "" || !strings.HasPrefix(header.Get("Content-Type"), want) || length != "" && header.Get("Content-Length") != length {
				t.Errorf("HEAD %s as %q: %d %v %q", path, accept, status, header, body)
			}
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if status, _, _ := fetch(t, method, server+path, ""); status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d; want 405", method, path, status)
			}
		}
		if status, _, _ := fetch(t, http.MethodGet, server+path+"?x=1", ""); status != http.StatusBadRequest {
			t.Errorf("%s with a query: %d; want 400", path, status)
		}
	}
	if status, _, _ := fetch(t, http.MethodHead, server+"/builders/none", ""); status != http.StatusNotFound {
		t.Errorf("HEAD of nothing: %d", status)
	}
	// The links of a page lead to pages, whatever the service's path is.
	for _, path := range []string{"/builders", "/builders/three", "/builders/three/level/1", "/buildtypes", "/buildtypes/workload/v1"} {
		_, _, html := fetch(t, http.MethodGet, server+path, "")
		links := regexp.MustCompile(`href="([^"]+)"`).FindAllStringSubmatch(html, -1)
		if len(links) == 0 {
			t.Errorf("%s has no links", path)
		}
		for _, link := range links {
			if strings.HasPrefix(link[1], "https://") {
				continue
			}
			base, _ := http.NewRequest(http.MethodGet, server+path, nil)
			to, err := base.URL.Parse(link[1])
			if err != nil {
				t.Fatal(err)
			}
			if status, _, _ := fetch(t, http.MethodGet, to.String(), ""); status != http.StatusOK {
				t.Errorf("%s links to %s: %d", path, to, status)
			}
		}
	}
}

// A countedRows counts what is read of a registry.
type countedRows struct {
	*rows
	lists, histories int
}

func (c *countedRows) Builders(ctx context.Context) ([]attest.Builder, int64, error) {
	c.lists++
	return c.rows.Builders(ctx)
}

func (c *countedRows) BuilderHistory(ctx context.Context, name string) ([]attest.Builder, error) {
	c.histories++
	return c.rows.BuilderHistory(ctx, name)
}

// Strangers who ask cost no reading, and are shown nothing that is not so any
// more.
func TestPagesAreOfTheRegistryAsItIs(t *testing.T) {
	f := newFixture(t)
	at := time.Now()
	f.Server.now = func() time.Time { return at }
	counted := &countedRows{rows: aHistory()}
	f.Server.builders = counted
	for i := range 100 {
		fetch(t, http.MethodGet, f.url+"/builders/two", "")
		fetch(t, http.MethodGet, f.url+fmt.Sprint("/builders/made-up-", i), "")
	}
	if counted.lists != 1 || counted.histories != 1 {
		t.Errorf("the registry was read %d times, and %d histories", counted.lists, counted.histories)
	}
	if _, err := counted.AppendBuilder(t.Context(), aBuilder("two", func(b *attest.Builder) { b.State = attest.BuilderRetired }), counted.revision); err != nil {
		t.Fatal(err)
	}
	at = at.Add(registryFresh)
	if page := pageOf[builderPage](t, f.url, service+"/builders/two"); page.State != "retired" {
		t.Errorf("it is %s", page.State)
	}
	for _, broken := range []error{fmt.Errorf("%w: database at 10.0.0.1", attest.ErrUnavailable), fmt.Errorf("row 7 of db.internal is damaged")} {
		counted.set(func(r *rows) { r.fail = broken })
		at = at.Add(registryFresh)
		lists := counted.lists
		for _, path := range []string{"/builders/two", "/builders", "/builders/none"} {
			if status, header, body := fetch(t, http.MethodGet, f.url+path, ""); status < 500 || strings.Contains(body, "10.0.0.1") || strings.Contains(body, "damaged") || header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s while the registry cannot be read: %d %v %s", path, status, header, body)
			}
		}
		if counted.lists != lists+1 {
			t.Errorf("a registry that cannot be read is asked %d times", counted.lists-lists)
		}
	}
	counted.set(func(r *rows) { r.fail = nil })
	at = at.Add(registryFresh)
	if page := pageOf[builderPage](t, f.url, service+"/builders/two"); page.State != "retired" {
		t.Errorf("it is %s", page.State)
	}
}
