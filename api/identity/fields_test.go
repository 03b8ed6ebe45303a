// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// A variant is a token, or a row, whose build has other fields than another.
type variant struct {
	changes map[string]any
	row     func(*Registered)
}

// fieldVariants are, of every provider, builds that together have every field
// there can be: with all that tokens can say, with all that they must, and the
// alternatives.
func fieldVariants(t *testing.T) map[string]struct {
	sample
	variants []variant
} {
	asked := func(facts ...string) func(*Registered) {
		return func(r *Registered) {
			r.Checked = &Checked{At: time.Unix(1000, 0), By: "ci.example", Level: 3, Facts: map[string]string{}}
			for _, name := range facts {
				r.Checked.Facts[name] = "x"
			}
		}
	}
	without := func(claims ...string) map[string]any {
		all := map[string]any{}
		for _, name := range claims {
			all[name] = nil
		}
		return all
	}
	noRepository := func(r *Registered) { r.Builder.Repository = "" }
	generic := genericSample(t)
	generic.claims = map[string]any{
		"iss": "https://ci.example", "<mapping.repository>": "https://git.example/acme/app", "<mapping.ref>": "refs/heads/main", "<mapping.commit>": commitA,
		"<mapping.invocation>": "https://ci.example/runs/1", "<mapping.internal>": "x", "team": "7",
	}
	mapped := func(change func(*Mapping)) func(*Registered) {
		return func(r *Registered) {
			r.Builder.Repository = "https://git.example/acme/app"
			r.Mapping = &Mapping{
				Tenant: []string{"team"}, Repository: "<mapping.repository>", Ref: "<mapping.ref>", Commit: "<mapping.commit>", Invocation: "<mapping.invocation>",
				Internal: []string{"<mapping.internal>"},
			}
			change(r.Mapping)
		}
	}
	return map[string]struct {
		sample
		variants []variant
	}{
		GitHub: {
			sample{github{}, GitHub, githubRaw(), row(t, github{}, "https://github.com", `claims.repository_id == "74"`)},
			[]variant{
				{map[string]any{"environment": "production", "check_run_id": "99"}, asked("conclusion", "run_started_at", "status", "triggering_actor_id")},
				{without("actor_id", "repository_owner", "repository_visibility"), nil},
				{map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/b.yml@refs/heads/x", "job_workflow_sha": commitB}, nil},
			},
		},
		GitLab: {gitlabSample(t), []variant{
			{nil, asked("pipeline_status", "started_at", "status", "variables")},
			{without("environment", "environment_protected", "job_config", "job_source", "pipeline_id", "project_visibility", "ref_protected", "runner_id", "user_id", "ci_config_ref_uri", "ci_config_sha"), nil},
		}},
		Buildkite: {buildkiteSample(t), []variant{{}, {without("step_key", "build_id", "cluster_id", "queue_id"), nil}, {map[string]any{"build_tag": "v1"}, nil}}},
		CircleCI: {circleciSample(t), []variant{
			{}, {without("oidc.circleci.com/pipeline-definition-id", "oidc.circleci.com/pipeline-id", "oidc.circleci.com/context-ids"), nil},
		}},
		Kubernetes: {kubernetesSample(t), []variant{{}, {without("jti", "kubernetes.io.node"), noRepository}}},
		SPIFFE:     {spiffeSample(t), []variant{{}, {map[string]any{"jti": "77"}, noRepository}}},
		OIDC: {generic, []variant{
			{nil, mapped(func(*Mapping) {})},
			{without("<mapping.internal>"), mapped(func(m *Mapping) { m.Repository = "" })},
			{nil, mapped(func(m *Mapping) { m.Commit, m.Ref = "", "" })},
		}},
	}
}

// githubRaw are claims of a push to main.
func githubRaw() map[string]any {
	return map[string]any{
		"repository": "acme/app", "ref": "refs/heads/main", "sha": commitA, "workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/main",
		"workflow_sha": commitA, "job_workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/main", "job_workflow_sha": commitA, "event_name": "push",
		"repository_id": "74", "repository_owner": "acme", "actor_id": "12", "runner_environment": "github-hosted", "repository_owner_id": "65",
		"repository_visibility": "private", "run_id": "1234567890", "run_attempt": "2",
	}
}

// What the pages and docs/IDENTITY.md say of a provider's fields is what its
// builds have: no field and no origin that is not there, none unsaid, and those
// that are said to be there always are.
func TestFieldsAreThoseOfBuilds(t *testing.T) {
	all := fieldVariants(t)
	for _, name := range Names() {
		p, _ := Lookup(name)
		of, ok := all[name]
		if !ok {
			if got := FieldsOf(p, nil); got != nil || name != MTLS {
				t.Errorf("%s: no builds are tried, and it has the fields %v", name, got)
			}
			continue
		}
		found, times := map[string]attest.Origin{}, map[string]int{}
		for _, v := range of.variants {
			s := of.sample
			if v.row != nil {
				v.row(&s.row)
			}
			for pointer, o := range s.mustBuild(t, v.changes).Origins {
				pointer = strings.ReplaceAll(pointer, "/<mapping.internal>", "/<claim>")
				found[pointer+" "+o.String()] = o
				times[pointer]++
			}
		}
		said, always := map[string]attest.Origin{}, map[string]bool{}
		for _, f := range FieldsOf(p, nil) {
			if f.Origin.From == attest.SourceTenant { // of attest.Provenance: held by its tests
				continue
			}
			if _, twice := said[f.Pointer+" "+f.Origin.String()]; twice || !slices.IsSorted(f.Origin.Names) {
				t.Errorf("%s: %+v is there twice, or in no order", name, f)
			}
			said[f.Pointer+" "+f.Origin.String()] = f.Origin
			always[f.Pointer] = always[f.Pointer] || f.When == ""
		}
		if d := cmp.Diff(slices.Sorted(maps.Keys(said)), slices.Sorted(maps.Keys(found))); d != "" {
			t.Errorf("%s (-said +found):\n%s", name, d)
		}
		for pointer, there := range always {
			if there != (times[pointer] == len(of.variants)) {
				t.Errorf("%s: %s is said to be there always: %v; it is in %d of %d builds", name, pointer, there, times[pointer], len(of.variants))
			}
		}
	}
}

// A mapped issuer's fields are of its own claims.
func TestFieldsOfAMapping(t *testing.T) {
	s := genericSample(t)
	for _, change := range []func(*Mapping){
		func(*Mapping) {},
		func(m *Mapping) { m.Repository = "" },
		func(m *Mapping) { m.Commit = "" },
		func(m *Mapping) { m.Commit, m.Ref = "", "" },
		func(m *Mapping) { m.Repository, m.Internal = "", nil },
	} {
		m := *s.row.Mapping
		change(&m)
		r := s
		r.row.Mapping, r.row.Builder.Repository = &m, "https://git.example/acme/app"
		said := attest.Origins{}
		for _, f := range FieldsOf(generic{}, &m) {
			if f.Origin.From != attest.SourceTenant && f.Pointer != "/buildDefinition/internalParameters/oidc/none" {
				said[f.Pointer] = f.Origin
			}
		}
		if d := cmp.Diff(r.mustBuild(t, nil).Origins, said); d != "" {
			t.Errorf("%+v (-build +said):\n%s", m, d)
		}
	}
}

// The conditions of builders are told in words.
func TestConditionsInWords(t *testing.T) {
	for text, want := range map[string][]string{
		`claims.a == "x"`:                                                              {`a is "x"`},
		`"x" == claims["a/b"]`:                                                         {`a/b is "x"`},
		`claims.a == "x" && claims.b != "y"`:                                           {`a is "x"`, `b is there and is not "y"`},
		`claims.a in ["x", "y"] && has(claims.b)`:                                      {`a is one of "x", "y"`, `b is there`},
		`claims.a == "x" || claims.b == "y" && true`:                                   nil, // true is no claim
		`claims.a == "x" || claims.b == "y"`:                                           {`a is "x", or b is "y"`},
		`!(claims.a == "x") && claims.b == claims.c`:                                   {`not (a is "x")`, `b is the same as c`},
		`claims.a == "x" && (!has(claims.b) || claims.b in ["1"])`:                     {`a is "x"`, `b is not there, or b is one of "1"`},
		`(claims.a == "x" && claims.b == "y") || claims.c == "z"`:                      {`(a is "x", and b is "y"), or c is "z"`},
		`((claims.a == "x" || claims.b == "y") && claims.c == "z") || claims.d == "w"`: {`((a is "x", or b is "y"), and c is "z"), or d is "w"`},
		`!((claims.a == "x" && claims.b == "y") || has(claims.c))`:                     {`not ((a is "x", and b is "y"), or c is there)`},
		`claims.a != claims.b`:                                                         {`a and b are there and are not the same`},
		`claims.a in []`:                                                               nil,
		`"a" in claims && claims.a == "x"`:                                             {`a is there`, `a is "x"`},
		`claims.a == "x\" or <b>"`:                                                     {`a is "x\" or <b>"`},
		`claims[claims.a] == "x"`:                                                      nil, // there are no words for it
	} {
		c, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, c.Words()); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
}
