// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/attest"
)

func (f *fixture) records() []attest.AuditRecord {
	f.memory.mu.Lock()
	defer f.memory.mu.Unlock()
	return slices.Clone(f.memory.audit)
}

func (f *fixture) breakAudit(err error) {
	f.memory.mu.Lock()
	defer f.memory.mu.Unlock()
	f.memory.failAudit = err
}

// done is what has been done so far.
func (f *fixture) done() string {
	f.memory.mu.Lock()
	defer f.memory.mu.Unlock()
	f.keys.mu.Lock()
	defer f.keys.mu.Unlock()
	f.rows.mu.Lock()
	defer f.rows.mu.Unlock()
	f.kept.mu.Lock()
	defer f.kept.mu.Unlock()
	f.imports.mu.Lock()
	defer f.imports.mu.Unlock()
	return fmt.Sprint(len(f.imports.all), f.rows.revision, len(f.kept.all), f.kept.revoked, len(f.memory.intents), len(f.memory.attestations), len(f.memory.decisions), len(f.keys.rotated), len(f.keys.revoked))
}

// Every call that changes or signs something is recorded before, with who, what,
// why and from where; and without the record it is not done.
func TestActsAreRecordedBeforeTheyAreDone(t *testing.T) {
	f := newFixture(t)
	made, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, "")
	if err != nil {
		t.Fatal(err)
	}
	key := f.newKey("spare", AllTenants, attest.GrantRead)
	waits := builderRow(f.idp.URL, "waits", `claims.repository_id == "8"`)
	waits.Level, waits.State, waits.Revision, waits.ProposedBy = 3, attest.BuilderProposed, 5, attest.Person{Issuer: "https://people.example", Subject: "bob", Key: "bob"}
	f.rows.set(func(r *rows) { r.all, r.revision = append(r.all, waits), 5 })
	job := map[string]any(nil)
	subject := `{"subjects":[{"digest":{"sha256":"` + artifact.Hex() + `"}}]}`
	covered := map[string]bool{}
	for _, c := range []struct {
		route, path, body, media string
		claims                   map[string]any
		status                   int
		action, object           string
	}{
		{"/v1/attestations/provenance", "", subject, "", job, 201, "attest.provenance", artifact.String()},
		{"/v1/attestations/sbom", "/v1/attestations/sbom?digest=" + artifact.String(), string(cycloneDX), "", job, 201, "attest.sbom", artifact.String()},
		{"/v1/attestations", "", `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + artifact.Hex() + `"}}],"predicateType":"https://cyclonedx.org/bom","predicate":` + string(cycloneDX) + `}`,
			"", map[string]any{"role": "admin"}, 201, "attest.statement", "https://cyclonedx.org/bom " + artifact.String()},
		{"/v1/attestations/:id/revocation", "/v1/attestations/" + made.ID + "/revocation", `{"reason":"x"}`, "", admin, 201, "attestations.revoke", made.ID},
		{"/v1/decisions", "", `{"artifact":{"digest":"` + artifact.String() + `"},"environment":"prod"}`, "", gate, 200, "decide", artifact.String() + " to prod"},
		{"/v1/keys/:signer/rotate", "/v1/keys/evidence/rotate", "", "", admin, 201, "keys.rotate", "signer evidence"},
		{"/v1/keys/:signer/revocations", "/v1/keys/provenance/revocations", `{"version":3,"from":"2026-01-02T03:04:05Z"}`, "", admin, 201, "keys.revoke", "signer provenance version 3 from 2026-01-02T03:04:05Z to -"},
		{"/v1/sessions", "", "", "", nil, 201, "sessions.open", "session "},
		{"PUT /v1/builders/:name", "/v1/builders/new", `{"issuer":"` + f.idp.URL + `","condition":"claims.repository_id == \"9\"","level":1}`, "", admin, 200, "builders.put", `new active level 1 of ` + f.idp.URL + `, condition ` + attest.SHA256([]byte(`claims.repository_id == "9"`)).String() + `: claims.repository_id == "9"`},
		{"/v1/builders/:name/approval", "/v1/builders/waits/approval", `{"revision":5}`, "", f.idp.person("ada"), 200, "builders.approve", "waits active level 3 of " + f.idp.URL},
		{"DELETE /v1/builders/:name", "/v1/builders/new", "", "", admin, 200, "builders.retire", "new retired level 1"},
		{"/v1/apikeys", "", `{"name":"jenkins","grants":["read"],"tenant":"*","expiresIn":60}`, "application/json", f.idp.person("ada"), 201, "apikeys.create", "jenkins in tenant *, expires in 1m0s, grants read"},
		{"DELETE /v1/apikeys/:id", "/v1/apikeys/" + key.ID, "", "", f.idp.person("ada"), 200, "apikeys.revoke", key.ID + " spare"},
		{"/v1/imports", "/v1/imports?root=public-good", npmBundle(t), "", admin, 201, "imports.add", "root public-good bundle " + attest.SHA256([]byte(npmBundle(t))).String()},
		{"/v1/timestamp", "", "query", "application/timestamp-query", admin, 200, "timestamp", "query sha256:"},
	} {
		method, route, ok := strings.Cut(c.route, " ")
		if !ok {
			method, route = http.MethodPost, c.route
		}
		c.route = route
		covered[method+" "+route] = true
		if c.path == "" {
			c.path = c.route
		}
		if c.media == "" && c.body != "" {
			c.media = "application/json"
		}
		token := f.token
		if c.action == "sessions.open" {
			token = f.idp.token
		}
		header := []string{"Authorization", "Bearer " + token(c.claims), "Content-Type", c.media, "X-Request-ID", "id-" + c.action}
		before, n := f.done(), len(f.records())
		f.breakAudit(attest.ErrUnavailable)
		if status, _ := f.ask(method, c.path, strings.NewReader(c.body), header...); status != 503 || f.done() != before || len(f.records()) != n {
			t.Errorf("%s without a record: %d, done %s: want 503, done %s", c.route, status, f.done(), before)
		}
		f.breakAudit(errors.New("corrupt"))
		if status, p := f.ask(method, c.path, strings.NewReader(c.body), header...); status != 503 && status != 500 || f.done() != before || strings.Contains(p.Detail, "corrupt") {
			t.Errorf("%s with a record that is corrupt: %d %+v, done %s", c.route, status, p, f.done())
		}
		f.breakAudit(nil)
		if status, p := f.ask(method, c.path, strings.NewReader(c.body), header...); status != c.status {
			t.Errorf("%s: %d %+v", c.route, status, p)
		}
		records := f.records()
		if len(records) == n {
			t.Errorf("%s: not recorded", c.route)
			continue
		}
		r := records[n]
		if r.Action != c.action || r.Outcome != attest.AuditAllowed || !strings.Contains(r.Object, c.object) || r.Request != "id-"+c.action ||
			r.Remote != "127.0.0.1" || strings.TrimSuffix(r.Issuer, "/people") != f.idp.URL || r.Subject == "" || !strings.HasPrefix(r.Why, "rule ") || r.At.IsZero() {
			t.Errorf("%s: recorded %+v", c.route, r)
		}
	}
	for _, r := range f.echo.Routes() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !covered[r.Method+" "+r.Path] {
			t.Errorf("%s %s: whether it is recorded is not tested", r.Method, r.Path)
		}
	}
	if _, err := attest.VerifyAudit(f.records(), attest.AuditHead{}); err != nil {
		t.Error(err)
	}
}

// Every refusal for want of authority is recorded, and stays one when it cannot
// be.
func TestRefusalsAreRecorded(t *testing.T) {
	f := newFixture(t)
	subject := `{"subjects":[{"digest":{"sha256":"` + artifact.Hex() + `"}}]}`
	forged := f.idp.token(admin)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	for _, c := range []struct {
		name, path, body, authorization string
		status                          int
		action, object, why             string
		known                           bool
	}{
		{"no token", "/v1/keys/verdict/rotate", "", "", 401, "keys.rotate", "POST /v1/keys/verdict/rotate", "Authorization", false},
		{"another scheme", "/v1/keys/verdict/rotate", "", "Basic c2VjcmV0OnNlY3JldA==", 401, "keys.rotate", "", "bearer", false},
		{"a forged token", "/v1/keys/verdict/rotate", "", "Bearer " + forged, 401, "keys.rotate", "", "", false},
		{"a token of nobody", "/v1/keys/verdict/rotate", "", "Bearer not-a-token-at-all", 401, "keys.rotate", "", "JWT", false},
		{"a missing grant", "/v1/keys/verdict/rotate", "", "Bearer " + f.token(gate), 403, "keys.rotate", "", `grant "keys:rotate" is missing`, true},
		{"no grant at all", "/v1/sessions", "", "Bearer " + f.idp.token(map[string]any{"repository": "none"}), 403, "sessions.open", "", "no rule gives this token anything", true},
		{"no build", "/v1/attestations/provenance", subject, "Bearer " + f.token(admin), 403, "attest.provenance", "", "", true},
		{"a path with escapes", "/v1/keys/%1b%5b2J%0a/rotate", "", "", 401, "keys.rotate", "POST /v1/keys/\ufffd[2J\ufffd/rotate", "", false},
	} {
		header := []string{"Authorization", c.authorization, "Content-Type", "application/json", "X-Request-ID", "trace"}
		before, n := f.done(), len(f.records())
		f.breakAudit(attest.ErrUnavailable)
		if status, _ := f.ask(http.MethodPost, c.path, strings.NewReader(c.body), header...); status != 503 || f.done() != before {
			t.Errorf("%s, which cannot be recorded: %d: want 503", c.name, status)
		}
		f.breakAudit(nil)
		if status, p := f.ask(http.MethodPost, c.path, strings.NewReader(c.body), header...); status != c.status {
			t.Errorf("%s: %d %+v: want %d", c.name, status, p, c.status)
		}
		records := f.records()[n:]
		if len(records) != 1 || f.done() != before {
			t.Fatalf("%s: %d records", c.name, len(records))
		}
		r := records[0]
		if r.Action != c.action || r.Outcome != attest.AuditRefused || !strings.Contains(r.Object, c.object) || !strings.Contains(r.Why, c.why) || r.Why == "" ||
			r.Request != "trace" || r.Remote != "127.0.0.1" || (r.Subject != "") != c.known || (r.Issuer != "") != c.known {
			t.Errorf("%s: recorded %+v", c.name, r)
		}
		secret := strings.TrimPrefix(strings.TrimPrefix(c.authorization, "Bearer "), "Basic ")
		if said := fmt.Sprintf("%+v", r); secret != "" && strings.Contains(said, secret[len(secret)/2:]) {
			t.Errorf("%s: the token stands in %s", c.name, said)
		}
	}
}

// Reads that are allowed, and what is wrong otherwise, are not recorded.
func TestWhatIsNotRecorded(t *testing.T) {
	f := newFixture(t)
	for path, want := range map[string]int{
		"/v1/keys": 200, "/v1/audit": 200, "/v1/decisions/none": 404, "/v1/audit?limit=0": 400, "/v1/audit?after=-1": 400, "/v1/audit?after=x": 400,
		"/v1/audit?limit=1001": 400, "/v1/audit?refused=true": 400, "/healthz": 200, "/v1/nothing": 404,
	} {
		if status, p := f.ask(http.MethodGet, path, nil); status != want {
			t.Errorf("%s: %d %+v: want %d", path, status, p, want)
		}
	}
	if status, _ := f.post("/v1/attestations/provenance", "{}", "Content-Type", "application/json", "Authorization", "Bearer "+f.token(nil)); status != 400 {
		t.Errorf("no subject: %d", status)
	}
	if got := f.records(); len(got) != 0 {
		t.Errorf("recorded %+v", got)
	}
}

// Strangers cannot fill the disk: beyond the first of a minute they are counted
// into one record. Who holds a grant is always named.
func TestRefusalsOfStrangersAreCounted(t *testing.T) {
	f := newFixture(t)
	f.idp.advance(time.Now().Truncate(time.Minute).Add(time.Minute).Sub(f.idp.now())) // the beginning of a minute
	stranger := func() {
		t.Helper()
		if status, _ := f.post("/v1/keys/verdict/rotate", "", "Authorization", ""); status != 401 {
			t.Fatalf("a stranger: %d", status)
		}
	}
	for range strangersSingly + 7 {
		stranger()
	}
	nobody := f.idp.token(map[string]any{"repository": "none"})
	if status, _ := f.post("/v1/sessions", "", "Authorization", "Bearer "+nobody); status != 403 {
		t.Errorf("a token that no rule knows: %d", status)
	}
	f.breakAudit(attest.ErrUnavailable) // what is counted is refused all the same
	stranger()
	f.breakAudit(nil)
	if n := len(f.records()); n != strangersSingly {
		t.Errorf("%d records of one minute: want %d", n, strangersSingly)
	}
	if status, _ := f.post("/v1/keys/verdict/rotate", "", "Authorization", "Bearer "+f.token(gate)); status != 403 {
		t.Errorf("a gate: %d", status)
	}
	if err := f.FlushAudit(t.Context(), false); err != nil || len(f.records()) != strangersSingly+1 {
		t.Errorf("in the minute: %v, %d records: want that of the gate", err, len(f.records()))
	}
	f.idp.advance(time.Minute)
	f.breakAudit(attest.ErrUnavailable)
	if err := f.FlushAudit(t.Context(), false); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("flush that fails: %v", err)
	}
	f.breakAudit(nil)
	stranger() // the number comes first
	records := f.records()[strangersSingly+1:]
	if len(records) != 2 || records[0].Action != "refusals" || records[0].Object != "9" || !strings.HasPrefix(records[0].Why, "refused 9 more ") ||
		records[1].Action != "keys.rotate" {
		t.Fatalf("after the minute: %+v", records)
	}
	for range strangersSingly {
		stranger()
	}
	if err := f.FlushAudit(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	all := f.records()
	if last := all[len(all)-1]; last.Object != "1" {
		t.Errorf("at the end: %+v", last)
	}
	if err := f.FlushAudit(t.Context(), true); err != nil || len(f.records()) != len(all) {
		t.Errorf("once more: %v, %d records", err, len(f.records()))
	}
}

func TestAuditLogIsRead(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		if _, err := f.client(admin).Rotate(t.Context(), attest.PowerEvidence); err != nil {
			t.Fatal(err)
		}
	}
	c := f.client(admin)
	first, err := c.Audit(t.Context(), "", 3)
	if err != nil || len(first.Records) != 3 || first.Next != "3" || first.Head != nil {
		t.Fatalf("%+v, %v", first, err)
	}
	head := first.Records[2].Head()
	head.Service = service
	signed, err := f.issuer.Issue(t.Context(), attest.Caller{Issuer: service, Subject: "audit log"}, head.Request())
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Audit(t.Context(), first.Next, 3)
	if err != nil || len(second.Records) != 2 || second.Next != "" || second.Head == nil || second.Head.ID != signed.ID || string(second.Head.Bundle) != string(signed.Bundle) {
		t.Fatalf("%+v, %v", second, err)
	}
	if got, err := attest.VerifyAudit(slices.Concat(first.Records, second.Records), attest.AuditHead{}); err != nil || got.Seq != 5 {
		t.Errorf("as the client reads them: %+v, %v", got, err)
	}
	if end, err := c.Audit(t.Context(), "5", 0); err != nil || len(end.Records) != 0 || end.Next != "" {
		t.Errorf("after the end: %+v, %v", end, err)
	}
	if _, err := f.client(gate).Audit(t.Context(), "", 0); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("without the grant: %v", err)
	}
	caller := attest.Caller{Tenants: map[string][]attest.Grant{"acme": {attest.GrantAudit}}}
	if _, err := f.auditLog(t.Context(), caller, auditQuery{limit: 1}); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("with the grant in one tenant: %v", err)
	}
	f.breakAudit(attest.ErrUnavailable)
	if p, err := c.Audit(t.Context(), "", 0); !errors.Is(err, attest.ErrUnavailable) || len(p.Records) != 0 {
		t.Errorf("a store that is away: %+v, %v", p, err)
	}
}

var _ Audit = (*memory)(nil)

// The client reads what the service writes, whatever the texts are.
func TestAuditTextsTravel(t *testing.T) {
	f := newFixture(t)
	r := attest.Caller{Subject: "<é&\u2028\"\\>"}.Refused("read", "𝔘", "\ufffd", time.Now())
	if _, err := f.memory.AppendAudit(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	page, err := f.client(admin).Audit(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.VerifyAudit(page.Records, attest.AuditHead{}); err != nil || page.Records[0] != f.records()[0] {
		t.Errorf("read %+v, %v", page.Records, err)
	}
}
