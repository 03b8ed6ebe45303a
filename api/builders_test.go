// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// A builder is registered by exact values alone: whatever would match more than
// them is refused, over HTTP as in the configuration.
func TestBuildersMatchedByMoreThanValues(t *testing.T) {
	f := newFixture(t)
	c := f.client(admin)
	const workflow = "acme/app/.github/workflows/build.yml@refs/heads/"
	for name, condition := range map[string]string{
		"a prefix":                   `claims.job_workflow_ref.startsWith("` + workflow + `")`,
		"a prefix beside an owner":   `claims.repository_owner_id == "65" && claims.job_workflow_ref.startsWith("` + workflow + `")`,
		"a suffix":                   `claims.job_workflow_ref.endsWith("@refs/heads/main")`,
		"a part":                     `claims.job_workflow_ref.contains("acme/app")`,
		"a pattern":                  `claims.job_workflow_ref.matches("^` + workflow + `.*")`,
		"a pattern as a function":    `matches(claims.job_workflow_ref, "^` + workflow + `")`,
		"a slice":                    `claims.job_workflow_ref.substring(0, 8) == "acme/app"`,
		"a split":                    `claims.job_workflow_ref.split("@")[0] == "acme/app/.github/workflows/build.yml"`,
		"a range":                    `claims.job_workflow_ref >= "` + workflow + `"`,
		"a value that is made":       `claims.job_workflow_ref == "` + workflow + `" + claims.ref_name`,
		"two claims alike":           `claims.job_workflow_ref == claims.workflow_ref`,
		"another case":               `claims.repository.lowerAscii() == "acme/app"`,
		"all but one":                `claims.repository != "evil/app"`,
		"all but one, turned":        `!(claims.repository == "evil/app")`,
		"a claim that is there":      `has(claims.repository)`,
		"any":                        `true`,
		"one of two ors":             `claims.repository_id == "74" || claims.ref == "refs/heads/main"`,
		"any by a condition":         `claims.ref == "x" ? true : true`,
		"some member":                `claims.exists(name, name == "repository_id")`,
		"nobody's":                   ``,
		"an expression that goes on": `claims.repository_id == "74") || (true`,
	} {
		b, err := c.PutBuilder(t.Context(), "prefix", client.BuilderRequest{Issuer: f.idp.URL, Condition: condition, Level: 1})
		if status(err) != 400 || b.Name != "" {
			t.Errorf("%s: %s, %v; want 400", name, b.State, err)
		}
	}
	for name, id := range map[string]string{
		"another workflow":            "https://github.com/acme/other/.github/workflows/build.yml@refs/heads/main",
		"a workflow without its ref":  "https://github.com/acme/app/.github/workflows/build.yml",
		"what the workflow begins":    "https://github.com/acme/app/.github/workflows/build.yml@refs/heads/mai",
		"what begins as the workflow": "https://github.com/acme/app/.github/workflows/build.yml@refs/heads/main2",
		"another server":              "https://github.com.evil.example/acme/app/.github/workflows/build.yml@refs/heads/main",
	} {
		_, err := c.PutBuilder(t.Context(), "prefix", client.BuilderRequest{Issuer: f.idp.URL, ID: id, Level: 1,
			Condition: `claims.job_workflow_ref == "acme/app/.github/workflows/build.yml@refs/heads/main"`})
		if status(err) != 400 {
			t.Errorf("the builder.id of %s: %v; want 400", name, err)
		}
	}
	if got, err := c.Builders(t.Context()); err != nil || len(got.Builders) != 1 {
		t.Errorf("%d builders are registered, %v", len(got.Builders), err)
	}
	// A value that looks like a pattern is one value: it matches itself alone.
	if _, err := c.PutBuilder(t.Context(), "acme", client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository == "acme/*"`, Level: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, ""); status(err) != 403 {
		t.Errorf("acme/app at the builder of acme/*: %v; want 403", err)
	}
}

// A people's issuer, and a client of each person who has a token of it.
type people struct {
	*idp
	f *fixture
}

func (p people) client(claims map[string]any) *client.Client {
	p.f.t.Helper()
	now := p.now().Unix()
	all := map[string]any{"iss": p.URL, "sub": "somebody", "aud": audience, "iat": now, "exp": now + 300}
	for name, value := range claims {
		all[name] = value
	}
	payload, err := json.Marshal(all)
	if err != nil {
		p.f.t.Fatal(err)
	}
	return p.f.secretClient(p.sign("ES256", "ec", payload))
}

// newPeople is a service with two issuers of people, who are told apart by
// that claim, and may all administer and approve; and one whose people no claim
// tells apart.
func newPeople(t *testing.T, claim string) (f *fixture, one, two people) {
	t.Helper()
	f = newFixture(t)
	one, two = people{newIDP(t), f}, people{newIDP(t), f}
	issuers := []Issuer{{URL: f.idp.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 10 * time.Minute, Provider: identity.GitHub}}
	rules := []Rule{{Issuer: f.idp.URL, Claims: map[string]string{"repository_owner_id": "65"}, Tenant: AllTenants, Grants: attest.Grants}}
	for _, p := range []people{one, two} {
		issuers = append(issuers, Issuer{URL: p.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Hour, Provider: identity.OIDC, PersonClaim: claim})
		rules = append(rules, Rule{Issuer: p.URL, Claims: map[string]string{"staff": "true"}, Tenant: AllTenants, Roles: []attest.Role{attest.RoleAdministrator, attest.RoleApprover}})
	}
	auth, err := NewAuthenticator(issuers, rules, AuthOptions{Now: f.idp.now, Service: service, Registry: f.rows, Sessions: f.sessions})
	if err != nil {
		t.Fatal(err)
	}
	f.auth = auth
	return f, one, two
}

// Raising a builder to level 3 takes two people, who are two by the claim that
// says who somebody is, however it is written and wherever they log in.
func TestLevelThreeTakesTwoPeople(t *testing.T) {
	f, one, two := newPeople(t, "employee")
	who := func(sub string, employee any) map[string]any {
		c := map[string]any{"sub": sub, "staff": true}
		if employee != nil {
			c["employee"] = employee
		}
		return c
	}
	request := client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_id == "74"`, Level: 3}
	proposed, err := one.client(who("ada", "E-0042")).PutBuilder(t.Context(), "isolated", request)
	if err != nil || proposed.State != attest.BuilderProposed {
		t.Fatalf("proposed: %+v, %v", proposed, err)
	}
	agree := func(c *client.Client) (attest.Builder, error) {
		return c.ApproveBuilder(t.Context(), "isolated", client.Approval{Revision: proposed.Revision})
	}
	for name, c := range map[string]*client.Client{
		"the same, at once":                   one.client(who("ada", "E-0042")),
		"the same with another subject":       one.client(who("ada-admin", "E-0042")),
		"the same at the other issuer":        two.client(who("lovelace", "E-0042")),
		"the same in another case":            two.client(who("lovelace", "e-0042")),
		"the same between spaces":             two.client(who("lovelace", "  E-0042\t")),
		"the same between other spaces":       two.client(who("lovelace", "\u00a0e-0042\u2003\n")),
		"one without the claim":               two.client(who("nobody", nil)),
		"one whose claim is empty":            two.client(who("nobody", "")),
		"one whose claim is white space":      two.client(who("nobody", " \t ")),
		"one whose claim is a list":           two.client(who("nobody", []string{"E-0043"})),
		"one whose claim is null":             two.client(map[string]any{"sub": "nobody", "staff": true, "employee": nil}),
		"a job, which is nobody":              f.client(nil),
		"a job that says who it is":           f.client(map[string]any{"employee": "E-0043"}),
		"one who may not approve":             two.client(map[string]any{"sub": "x", "employee": "E-0044"}),
		"the same, whose subject is a number": one.client(map[string]any{"sub": "E-0099", "staff": true, "employee": "E-0042"}),
	} {
		if b, err := agree(c); status(err) != 403 || b.State != "" {
			t.Errorf("%s agrees: %s, %v; want 403", name, b.State, err)
		}
	}
	for name, c := range map[string]*client.Client{"one without the claim": one.client(who("ada", nil)), "a job": f.client(nil)} {
		if b, err := c.PutBuilder(t.Context(), "other", request); status(err) != 403 {
			t.Errorf("%s proposes: %s, %v; want 403", name, b.State, err)
		}
	}
	if got, err := f.rows.BuilderHistory(t.Context(), "isolated"); err != nil || len(got) != 1 || got[0].State != attest.BuilderProposed {
		t.Fatalf("after all that: %+v, %v", got, err)
	}
	approved, err := agree(two.client(who("grace", "E-0043")))
	if err != nil || approved.State != attest.BuilderActive || approved.Level != 3 || approved.ProposedBy.Subject != "ada" || approved.ApprovedBy.Subject != "grace" {
		t.Errorf("another: %+v, %v", approved, err)
	}
	// What tells them apart is told to nobody, and stands in no record or log.
	all, err := one.client(who("ada", "E-0042")).Builders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said, _ := json.Marshal(all)
	records, _ := json.Marshal(f.records())
	for _, number := range []string{"E-0042", "e-0042", "E-0043", "e-0043"} {
		if strings.Contains(string(said), number) || strings.Contains(string(records), number) || strings.Contains(f.logs.String(), number) {
			t.Errorf("%s is told", number)
		}
	}
}

// What two have agreed on is what one of them had read: the proposal of that
// revision, and no later one.
func TestAProposalThatChanged(t *testing.T) {
	f, one, two := newPeople(t, "employee")
	ada, grace := one.client(map[string]any{"sub": "ada", "staff": true, "employee": "1"}), two.client(map[string]any{"sub": "grace", "staff": true, "employee": "2"})
	request := client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_id == "74"`, Level: 3}
	read, err := ada.PutBuilder(t.Context(), "isolated", request)
	if err != nil {
		t.Fatal(err)
	}
	request.Condition = `claims.repository_id in ["74", "666"]`
	later, err := ada.PutBuilder(t.Context(), "isolated", request)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := grace.ApproveBuilder(t.Context(), "isolated", client.Approval{Revision: read.Revision}); status(err) != 409 {
		t.Errorf("what was read: %+v, %v; want 409", b, err)
	}
	if b, err := grace.ApproveBuilder(t.Context(), "isolated", client.Approval{Revision: later.Revision}); err != nil || b.Condition != request.Condition {
		t.Errorf("what stands there: %+v, %v", b, err)
	}
}

// A builder that is retired has nothing signed any more, in sessions that are
// open neither, until another one speaks for its tokens.
func TestARetiredBuilderHasNothingSigned(t *testing.T) {
	f := newFixture(t)
	job, administrator := f.secretClient(f.token(nil)), f.client(admin)
	about := client.Artifact{Digest: artifact}
	sbom := func(c *client.Client) error {
		_, err := c.AttestSBOM(t.Context(), about, []byte(cycloneDX), "")
		return err
	}
	if _, err := job.AttestProvenance(t.Context(), oneDigest, ""); err != nil {
		t.Fatal(err)
	}
	if err := sbom(job); err != nil {
		t.Fatal(err)
	}
	made := len(f.memory.attestations)
	if b, err := administrator.RetireBuilder(t.Context(), "acme"); err != nil || b.State != attest.BuilderRetired {
		t.Fatalf("%+v, %v", b, err)
	}
	for name, c := range map[string]*client.Client{"the open session": job, "a new one": f.client(nil)} {
		if _, err := c.AttestProvenance(t.Context(), oneDigest, ""); status(err) != 403 {
			t.Errorf("%s, provenance: %v; want 403", name, err)
		}
		if err := sbom(c); status(err) != 403 || !strings.Contains(err.Error(), "builder acme is retired") {
			t.Errorf("%s, an SBOM: %v; want 403", name, err)
		}
	}
	if len(f.memory.attestations) != made {
		t.Errorf("%d attestations were made", len(f.memory.attestations)-made)
	}
	if _, err := administrator.RetireBuilder(t.Context(), "acme"); status(err) != 404 {
		t.Errorf("retired again: %v; want 404", err)
	}
	// Who is granted something and was never of a builder has it still.
	if err := sbom(administrator); err != nil {
		t.Errorf("one of no builder: %v", err)
	}
	if _, err := administrator.PutBuilder(t.Context(), "acme2", client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_id == "74" && claims.repository == "acme/app"`, Level: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := job.AttestProvenance(t.Context(), oneDigest, ""); err != nil {
		t.Errorf("when another builder speaks for it: %v", err)
	}
}

// Rows that somehow have a builder's id, too, do not keep it from being retired.
func TestASharedIDKeepsNoneFromBeingRetired(t *testing.T) {
	f := newFixture(t)
	const id = "https://ci.example/acme"
	f.rows.set(func(r *rows) {
		twin := builderRow("https://elsewhere.example", "twin", `claims.repository_id == "1"`)
		r.all[0].ID, twin.ID = id, id
		r.all = append(r.all, twin)
	})
	if b, err := f.client(admin).RetireBuilder(t.Context(), "acme"); err != nil || b.State != attest.BuilderRetired {
		t.Errorf("retire one of two with an id: %+v, %v", b, err)
	}
}

// A proposal that is withdrawn takes nothing from anybody: it never held.
func TestAWithdrawnProposal(t *testing.T) {
	f, one, _ := newPeople(t, "")
	ada := one.client(map[string]any{"sub": "ada", "staff": true})
	if _, err := ada.PutBuilder(t.Context(), "wide", client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_owner_id == "65"`, Level: 3}); err != nil {
		t.Fatal(err)
	}
	if b, err := ada.RetireBuilder(t.Context(), "wide"); err != nil || b.State != attest.BuilderRetired {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := f.client(map[string]any{"repository": "acme/other", "repository_id": "75"}).AttestSBOM(t.Context(), client.Artifact{Digest: artifact}, []byte(cycloneDX), ""); err != nil {
		t.Errorf("a job that it would have been of: %v", err)
	}
	// One that waits beside a row that holds goes with it, and what held is what is retired.
	if _, err := ada.PutBuilder(t.Context(), "acme", client.BuilderRequest{Issuer: f.idp.URL, Condition: `claims.repository_id == "666"`, Level: 3}); err != nil {
		t.Fatal(err)
	}
	if b, err := ada.RetireBuilder(t.Context(), "acme"); err != nil || b.Condition != `claims.repository == "acme/app"` {
		t.Errorf("%+v, %v; want the row that held", b, err)
	}
	rows, _, err := f.rows.Builders(t.Context())
	if err != nil || slices.ContainsFunc(rows, func(b attest.Builder) bool { return b.State != attest.BuilderRetired }) {
		t.Errorf("%+v, %v; want all retired", rows, err)
	}
	if _, err := f.client(nil).AttestSBOM(t.Context(), client.Artifact{Digest: artifact}, []byte(cycloneDX), ""); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("a job of what held: %v; want 403", err)
	}
}
