// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func aBuilder(level int) Builder {
	return Builder{
		Name: "hosted", Issuer: "https://ci.example", Condition: `claims.id == "1"`, BuildType: GitHubWorkflowType, Level: level,
		PredicateTypes: []string{ProvenanceType}, Signer: PowerProvenance, Mode: ModeToken,
	}
}

func person(key string, grants ...Grant) Caller {
	return Caller{Issuer: "https://people.example", Subject: "sub of " + key, Person: key, Grants: grants}
}

// Level 3 takes two people, and nothing else is a way to it.
func TestLevel3TakesTwoPeople(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ada, bob := person("ada", GrantBuilders, GrantApprove), person("bob", GrantApprove)
	two, err := aBuilder(2).Propose(nil, ada, now)
	if err != nil || two.State != BuilderActive {
		t.Fatalf("level 2: %+v, %v; want it active", two, err)
	}
	three, err := aBuilder(3).Propose(&two, ada, now)
	if err != nil || three.State != BuilderProposed {
		t.Fatalf("level 3: %+v, %v; want it proposed", three, err)
	}
	for name, by := range map[string]Caller{
		"the same person":                  ada,
		"the same person by another login": {Issuer: "https://other.example", Subject: "a.lovelace", Person: "ada", Grants: []Grant{GrantApprove}},
		"nobody in particular":             person("", GrantApprove),
		"a person without the grant":       person("carol", GrantBuilders),
		"a person of one tenant":           {Person: "carol", Tenants: map[string][]Grant{"acme": {GrantApprove}}},
	} {
		if got, err := three.Approve(by, now); !errors.Is(err, ErrDenied) || got.State != "" {
			t.Errorf("approved by %s: %+v, %v; want it denied", name, got, err)
		}
	}
	active, err := three.Approve(bob, now)
	if err != nil || active.State != BuilderActive || active.ApprovedBy.Key != "bob" || active.ProposedBy.Key != "ada" {
		t.Fatalf("approved by another: %+v, %v", active, err)
	}
	if _, err := active.Approve(bob, now); !errors.Is(err, ErrConflict) {
		t.Errorf("approved twice: %v", err)
	}

	// What two have agreed on is that very claim. Its description is not.
	words := active
	words.Description = "isolated by virtual machines"
	if got, err := words.Propose(&active, ada, now); err != nil || got.State != BuilderActive || got.ApprovedBy.Key != "bob" {
		t.Errorf("another description: %+v, %v; want it active", got, err)
	}
	for name, change := range map[string]func(*Builder){
		"condition":       func(b *Builder) { b.Condition = `claims.id == "2"` },
		"issuer":          func(b *Builder) { b.Issuer = "https://other.example" },
		"build type":      func(b *Builder) { b.BuildType = "https://t.example/x" },
		"predicate types": func(b *Builder) { b.PredicateTypes = append(b.PredicateTypes, "https://t.example/x") },
		"mode":            func(b *Builder) { b.Mode = ModeControlPlane },
		"repository":      func(b *Builder) { b.Repository = "https://git.example/x" },
		"cross-check":     func(b *Builder) { b.CrossCheck = !b.CrossCheck },
		"id":              func(b *Builder) { b.ID = "https://github.com/x" },
		"name":            func(b *Builder) { b.Name = "other" },
	} {
		changed := active
		changed.PredicateTypes = []string{ProvenanceType}
		change(&changed)
		changed.ApprovedBy, changed.State = bob.Is(), BuilderActive // whatever the request says of itself
		if got, err := changed.Propose(&active, ada, now); err != nil || got.State != BuilderProposed || got.ApprovedBy != (Person{}) {
			t.Errorf("another %s: %+v, %v; want it proposed", name, got, err)
		}
	}
	retired, err := active.Retire(ada, now)
	if err != nil || retired.State != BuilderRetired {
		t.Fatal(err)
	}
	for name, holds := range map[string]*Builder{"nothing": nil, "what was retired": &retired, "what is proposed": &three} {
		if got, err := aBuilder(3).Propose(holds, ada, now); err != nil || got.State != BuilderProposed {
			t.Errorf("level 3 after %s: %+v, %v; want it proposed", name, got, err)
		}
	}
	unbelieved := aBuilder(2)
	unbelieved.State = BuilderUnbelieved
	if got, err := aBuilder(2).Propose(&unbelieved, ada, now); err != nil || got.State != BuilderProposed {
		t.Errorf("in the place of a row that is not believed: %+v, %v; want it proposed", got, err)
	}
	for name, by := range map[string]Caller{
		"a machine":             {Grants: []Grant{GrantBuilders}},
		"one without the grant": person("bob", GrantApprove),
		"one of a tenant":       {Person: "bob", Tenants: map[string][]Grant{"acme": {GrantBuilders}}},
	} {
		if got, err := aBuilder(3).Propose(nil, by, now); !errors.Is(err, ErrDenied) || got.State != "" {
			t.Errorf("proposed by %s: %+v, %v; want it denied", name, got, err)
		}
	}
	if _, err := active.Retire(bob, now); !errors.Is(err, ErrDenied) {
		t.Errorf("retired without the grant: %v", err)
	}
}

func TestBuildersThatAreRefused(t *testing.T) {
	if err := aBuilder(3).Validate(); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*Builder){
		"name":           func(b *Builder) { b.Name = "a/../b" },
		"issuer":         func(b *Builder) { b.Issuer = "" },
		"condition":      func(b *Builder) { b.Condition = strings.Repeat("x", MaxCondition+1) },
		"level 0":        func(b *Builder) { b.Level = 0 },
		"level 4":        func(b *Builder) { b.Level = 4 },
		"mode":           func(b *Builder) { b.Mode = "" },
		"signer":         func(b *Builder) { b.Signer = PowerVerdict },
		"predicateTypes": func(b *Builder) { b.PredicateTypes = nil },
		"listed twice":   func(b *Builder) { b.PredicateTypes = []string{ProvenanceType, ProvenanceType} },
		"URI":            func(b *Builder) { b.BuildType = "mine" },
		"description":    func(b *Builder) { b.Description = "\x1b[2J" },
		"id":             func(b *Builder) { b.ID = "http://x.example" },
		"repository":     func(b *Builder) { b.Repository = "https://x.example/" },
	} {
		b := aBuilder(3)
		change(&b)
		if err := b.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// Each level has its own builder.id: whoever accepts one accepts no other.
func TestBuilderIDs(t *testing.T) {
	const service = "https://provost.example"
	own, theirs := aBuilder(3), aBuilder(3)
	theirs.ID = "https://github.com/acme/w/.github/workflows/b.yml@refs/heads/main"
	for _, c := range []struct {
		b     Builder
		level int
		want  string
	}{
		{own, 3, service + "/builders/hosted"},
		{own, 2, service + "/builders/hosted/level/2"},
		{own, 1, service + "/builders/hosted/level/1"},
		{theirs, 3, theirs.ID},
		{theirs, 2, service + "/builders/hosted/level/2"},
	} {
		if got := c.b.BuilderID(service, c.level); got != c.want {
			t.Errorf("level %d: %s; want %s", c.level, got, c.want)
		}
	}
}

func TestWhatABuilderMayHaveSigned(t *testing.T) {
	c := builder()
	c.Build.Registration = &Registration{Name: "b", PredicateTypes: []string{ProvenanceType}}
	c.Grants = append(c.Grants, GrantSBOM)
	issuer, _, ledger := newTestIssuer(t)
	if _, err := issuer.Issue(t.Context(), c, Request{Subjects: oneSubject, Predicate: Provenance{}}); err != nil {
		t.Error(err)
	}
	before := len(ledger.intents)
	if _, err := issuer.Issue(t.Context(), c, Request{Subjects: oneSubject, Predicate: SBOM{Document: []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6"}`)}}); !errors.Is(err, ErrDenied) || len(ledger.intents) != before {
		t.Errorf("an SBOM of a builder that is registered for provenance alone: %v", err)
	}
}

// What the caller adds is marked, and is nothing that the token has said.
func TestTenantSuppliedDependencies(t *testing.T) {
	issuer, _, _ := newTestIssuer(t)
	digest := map[string]string{"sha256": hexA}
	ask := func(deps ...Resource) (*Build, error) {
		a, err := issuer.Issue(t.Context(), builder(), Request{Subjects: oneSubject, Predicate: Provenance{Dependencies: deps}})
		if err != nil {
			return nil, err
		}
		payload, _, err := OpenUnverified(a.Bundle)
		if err != nil {
			return nil, err
		}
		s, err := ParseStatement(payload)
		if err != nil {
			return nil, err
		}
		return ParseProvenance(s.Predicate)
	}
	b, err := ask(Resource{URI: "pkg:golang/example.com/a@v1", Digest: digest}, Resource{URI: "https://x.example/b", Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Dependencies) != 3 || b.Dependencies[0].TenantSupplied || !b.Dependencies[1].TenantSupplied || !b.Dependencies[2].TenantSupplied {
		t.Errorf("%+v", b.Dependencies)
	}
	if o := b.Origins["/buildDefinition/resolvedDependencies/1"]; o.From != SourceTenant {
		t.Errorf("origin %+v", b.Origins)
	}
	source := builder().Build.Dependencies[0].URI
	for name, d := range map[string]Resource{
		"the source, at another commit": {URI: source, Digest: map[string]string{"gitCommit": strings.Repeat("b", 40)}},
		"no uri":                        {Digest: digest},
		"no scheme":                     {URI: "app", Digest: digest},
		"a space":                       {URI: "https://x.example/a b", Digest: digest},
		"no digest":                     {URI: "https://x.example/c"},
		"a digest in capitals":          {URI: "https://x.example/c", Digest: map[string]string{"sha256": strings.ToUpper(hexA)}},
		"a digest of odd length":        {URI: "https://x.example/c", Digest: map[string]string{"sha256": hexA[1:]}},
		"a long uri":                    {URI: "https://x.example/" + strings.Repeat("x", 3000), Digest: digest},
	} {
		if _, err := ask(d); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want it invalid", name, err)
		}
	}
	if _, err := ask(make([]Resource, MaxDependencies+1)...); !errors.As(err, new(*LimitError)) {
		t.Errorf("too many: %v", err)
	}
}

// A field that nobody answers for is not signed.
func TestOriginsAreComplete(t *testing.T) {
	full := Origins{
		"/buildDefinition/buildType":                            FromRegistry(),
		"/buildDefinition/externalParameters/workflow":          FromToken("ref", "repository"),
		"/buildDefinition/internalParameters/github/event_name": FromToken("event_name"),
		"/buildDefinition/resolvedDependencies/0":               FromToken("sha"),
		"/runDetails/builder/id":                                FromRegistry(),
		"/runDetails/metadata/invocationId":                     FromToken("run_id"),
	}
	b := *builder().Build
	b.Origins = full
	if _, err := b.predicate(); err != nil {
		t.Fatal(err)
	}
	for pointer := range full {
		b.Origins = Origins{}
		for p, o := range full {
			if p != pointer {
				b.Origins[p] = o
			}
		}
		if _, err := b.predicate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "has no origin") {
			t.Errorf("without the origin of %s: %v", pointer, err)
		}
	}
	for name, o := range map[string]Origin{"/buildDefinition/other": FromRegistry(), "/runDetails/builder/id": {From: "me"}, "/buildDefinition/resolvedDependencies/1": FromRegistry()} {
		b.Origins = Origins{name: o}
		for p, o := range full {
			if _, ok := b.Origins[p]; !ok {
				b.Origins[p] = o
			}
		}
		if _, err := b.predicate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("with an origin of %s: %v", name, err)
		}
	}
	b.Origins = nil
	if _, err := b.predicate(); !errors.Is(err, ErrInvalid) {
		t.Errorf("with none: %v", err)
	}
	// A member's name may have what JSON pointers escape.
	b = *builder().Build
	b.ExternalParameters = map[string]any{"a/b~c": "x"}
	b.Origins = full
	if _, err := b.predicate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "/a~1b~0c") {
		t.Errorf("a name with a slash: %v", err)
	}
}
