// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
	"provost/verify"
)

// factsOf are the facts that a policy gets to see of what was found.
func (r *realm) factsOf(t *testing.T, m *memory) (facts verify.Facts) {
	t.Helper()
	g := r.gate(m)
	g.Policy = judge(func(f verify.Facts) (verify.Judgement, error) {
		facts = f
		return verify.Judgement{Required: []string{"a"}, Evaluated: []string{"a"}, Policy: app}, nil
	})
	_, err := g.Decide(t.Context(), asker, prod("app"))
	check(t, err)
	return facts
}

// What a build says of its source, and what is believed of it.
func TestSource(t *testing.T) {
	r := ours()
	type workflow = map[string]any
	good := verify.Source{Repository: repository, Ref: mainBranch, Commit: commitOfMain}
	without := func(change func(*verify.Source)) verify.Source {
		s := good
		change(&s)
		return s
	}
	noCommit := without(func(s *verify.Source) { s.Commit = "" })
	dependency := func(uri, commit string) attest.Resource {
		return attest.Resource{URI: uri, Digest: map[string]string{"gitCommit": commit}}
	}
	source := "git+" + repository + "@" + mainBranch
	other := "0000000000000000000000000000000000000000"
	for _, c := range []struct {
		name    string
		change  func(*attest.Build)
		want    verify.Source
		unknown []string
	}{
		{"as it should be", func(*attest.Build) {}, good, nil},
		{"a parameter beside the workflow", func(b *attest.Build) { b.ExternalParameters["inputs"] = "x" }, good, []string{"inputs"}},
		{"a parameter of the workflow", func(b *attest.Build) { b.ExternalParameters["workflow"].(workflow)["inputs"] = workflow{"a": "b"} }, good, []string{"workflow.inputs"}},
		{"both, and two of them", func(b *attest.Build) {
			b.ExternalParameters["z"], b.ExternalParameters["a"] = nil, 1
			b.ExternalParameters["workflow"].(workflow)["x"] = true
		}, good, []string{"a", "workflow.x", "z"}},
		{"an empty parameter", func(b *attest.Build) { b.ExternalParameters["inputs"] = "" }, good, []string{"inputs"}},
		{"the workflow in another case", func(b *attest.Build) {
			b.ExternalParameters["Workflow"] = b.ExternalParameters["workflow"]
			delete(b.ExternalParameters, "workflow")
		}, verify.Source{}, []string{"Workflow"}},
		{"no path", func(b *attest.Build) { delete(b.ExternalParameters["workflow"].(workflow), "path") }, good, nil},
		{"a repository that is a list", func(b *attest.Build) {
			b.ExternalParameters["workflow"].(workflow)["repository"] = []any{repository}
		}, verify.Source{Ref: mainBranch}, []string{"workflow.repository"}},
		{"a ref that is a number", func(b *attest.Build) { b.ExternalParameters["workflow"].(workflow)["ref"] = 1 }, verify.Source{Repository: repository}, []string{"workflow.ref"}},
		{"a path that is an object", func(b *attest.Build) { b.ExternalParameters["workflow"].(workflow)["path"] = workflow{} }, good, []string{"workflow.path"}},
		{"a workflow that is text", func(b *attest.Build) { b.ExternalParameters["workflow"] = repository }, verify.Source{}, []string{"workflow"}},
		{"parameters whose names read like paths", func(b *attest.Build) {
			b.ExternalParameters["workflow.ref"] = "refs/heads/x"
			b.ExternalParameters["workflow"].(workflow)["a.b"] = "x"
		}, good, []string{"workflow.a.b", "workflow.ref"}},
		{"no workflow", func(b *attest.Build) { b.ExternalParameters = map[string]any{} }, verify.Source{}, nil},
		{"another build type", func(b *attest.Build) { b.BuildType = "https://builds.example/v1" }, verify.Source{}, []string{"workflow"}},
		{"a build type that begins alike", func(b *attest.Build) { b.BuildType += "2"; b.ExternalParameters["a"] = "b" }, verify.Source{}, []string{"a", "workflow"}},

		{"no dependency", func(b *attest.Build) { b.Dependencies = nil }, noCommit, nil},
		{"a dependency on another ref", func(b *attest.Build) { b.Dependencies[0].URI = "git+" + repository + "@refs/heads/x" }, noCommit, nil},
		{"a dependency on another repository", func(b *attest.Build) { b.Dependencies[0].URI = "git+" + repository + "-evil@" + mainBranch }, noCommit, nil},
		{"a dependency that begins alike", func(b *attest.Build) { b.Dependencies[0].URI += "/x" }, noCommit, nil},
		{"a dependency that is not git", func(b *attest.Build) { b.Dependencies[0].URI = repository + "@" + mainBranch }, noCommit, nil},
		{"a dependency with another digest", func(b *attest.Build) {
			b.Dependencies[0].Digest = map[string]string{"sha256": app.Hex(), "sha1": commitOfMain}
		}, noCommit, nil},
		{"the source after another dependency", func(b *attest.Build) {
			b.Dependencies = append([]attest.Resource{dependency("git+https://github.com/acme/lib@"+mainBranch, other)}, b.Dependencies...)
		}, good, nil},
		{"the source before another dependency", func(b *attest.Build) {
			b.Dependencies = append(b.Dependencies, dependency("git+https://github.com/acme/lib@"+mainBranch, other))
		}, good, nil},
		{"the source twice", func(b *attest.Build) { b.Dependencies = append(b.Dependencies, b.Dependencies[0]) }, good, nil},
		{"the source twice, of two commits", func(b *attest.Build) { b.Dependencies = append(b.Dependencies, dependency(source, other)) }, noCommit, nil},
		{"the source twice, once without a commit", func(b *attest.Build) {
			b.Dependencies = append(b.Dependencies, attest.Resource{URI: source, Digest: map[string]string{"sha1": other}})
		}, noCommit, nil},
		{"a ref with an @ in it", func(b *attest.Build) {
			from(repository, "refs/heads/release@2")(b)
		}, without(func(s *verify.Source) { s.Ref = "refs/heads/release@2" }), nil},
		{"a repository with an @ that moves the ref", func(b *attest.Build) {
			b.ExternalParameters["workflow"].(workflow)["repository"] = repository + "@refs/heads"
			b.ExternalParameters["workflow"].(workflow)["ref"] = "main"
		}, verify.Source{Repository: repository + "@refs/heads", Ref: "main"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			a := r.built(m, c.change)
			facts := r.factsOf(t, m)
			if len(facts.Provenance) != 1 || facts.Provenance[0].Attestation != a.ID {
				t.Fatalf("provenance %+v", facts.Provenance)
			}
			got := facts.Provenance[0]
			if diff := cmp.Diff(c.want, got.Source); diff != "" {
				t.Errorf("source (-want +got):\n%s", diff)
			}
			if c.unknown == nil {
				c.unknown = []string{} // never null in the policy's input
			}
			if diff := cmp.Diff(c.unknown, got.UnknownParameters); diff != "" {
				t.Errorf("unknown parameters (-want +got):\n%s", diff)
			}
		})
	}
}

// Our own build types are read by the table that their pages show, those of the
// gate's own service alone.
func TestSourceOfOwnBuildTypes(t *testing.T) {
	r := ours()
	type object = map[string]any
	const step = "build"
	good := verify.Source{Repository: repository, Ref: mainBranch, Commit: commitOfMain}
	none := verify.Source{}
	buildkite := func(change func(*attest.Build)) func(*attest.Build) {
		return func(b *attest.Build) {
			b.BuildType = attest.BuildTypeURI(service, attest.BuildkiteJob)
			b.ExternalParameters = object{"source": object{"repository": repository, "ref": mainBranch}, "job": object{"step": step}}
			change(b)
		}
	}
	source := func(b *attest.Build) object { return b.ExternalParameters["source"].(object) }
	for _, c := range []struct {
		name    string
		change  func(*attest.Build)
		want    verify.Source
		unknown []string
	}{
		{"as it should be", func(*attest.Build) {}, good, nil},
		{"without what is optional", func(b *attest.Build) { delete(b.ExternalParameters, "job") }, good, nil},
		{"a parameter that only another type has", func(b *attest.Build) {
			b.ExternalParameters["job"].(object)["configuration"] = ".gitlab-ci.yml"
		}, good, []string{"job.configuration"}},
		{"the type that has it", func(b *attest.Build) {
			b.BuildType = attest.BuildTypeURI(service, attest.GitLabJob)
			b.ExternalParameters["job"] = object{"configuration": ".gitlab-ci.yml"}
		}, good, nil},
		{"the type of another service", func(b *attest.Build) {
			b.BuildType = attest.BuildTypeURI("https://provost.example.evil", attest.BuildkiteJob)
		}, none, []string{"job", "source"}},
		{"another version of the type", func(b *attest.Build) { b.BuildType = service + "/buildtypes/buildkite-job/v2" }, none, []string{"job", "source"}},
		{"a type that there is not", func(b *attest.Build) { b.BuildType = attest.BuildTypeURI(service, "hudson-job") }, none, []string{"job", "source"}},
		{"GitHub's layout", func(b *attest.Build) {
			b.ExternalParameters = object{"workflow": object{"repository": repository, "ref": mainBranch, "path": "x"}}
		}, none, []string{"workflow"}},
		{"a parameter beside", func(b *attest.Build) { b.ExternalParameters["variables"] = object{"A": "b"} }, good, []string{"variables"}},
		{"an empty object beside", func(b *attest.Build) { b.ExternalParameters["variables"] = object{} }, good, []string{"variables"}},
		{"a parameter of the source", func(b *attest.Build) { source(b)["directory"] = "x" }, good, []string{"source.directory"}},
		{"a parameter below one", func(b *attest.Build) { b.ExternalParameters["job"] = object{"step": object{"key": "x"}} }, good, []string{"job.step"}},
		{"a name that reads like a path", func(b *attest.Build) {
			b.ExternalParameters["source.ref"] = "refs/heads/x"
		}, good, []string{"source.ref"}},
		{"a source that is text", func(b *attest.Build) { b.ExternalParameters["source"] = repository }, none, []string{"source"}},
		{"a repository that is a list", func(b *attest.Build) { source(b)["repository"] = []any{repository} }, verify.Source{Ref: mainBranch}, []string{"source.repository"}},
		{"a ref that is nothing", func(b *attest.Build) { source(b)["ref"] = nil }, verify.Source{Repository: repository}, []string{"source.ref"}},
		{"no dependency", func(b *attest.Build) { b.Dependencies = nil }, verify.Source{Repository: repository, Ref: mainBranch}, nil},
		{"a dependency on another ref", func(b *attest.Build) { b.Dependencies[0].URI += "x" }, verify.Source{Repository: repository, Ref: mainBranch}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(t)
			r.built(m, buildkite(c.change))
			got := r.factsOf(t, m).Provenance[0]
			if c.unknown == nil {
				c.unknown = []string{}
			}
			if diff := cmp.Diff(c.want, got.Source); diff != "" {
				t.Errorf("source (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.unknown, got.UnknownParameters); diff != "" {
				t.Errorf("unknown parameters (-want +got):\n%s", diff)
			}
		})
	}
}

// What a build itself names is told apart, and is never its source: a job whose
// token names no commit could choose one.
func TestTenantSuppliedDependencies(t *testing.T) {
	r, m := ours(), newMemory(t)
	b := goodBuild()
	b.Dependencies, b.Level, b.LevelReason = nil, 1, "the token names no commit"
	source := attest.Resource{URI: "git+" + repository + "@" + mainBranch, Digest: map[string]string{"gitCommit": commitOfMain}}
	other := attest.Resource{URI: "pkg:generic/tool", Digest: map[string]string{"sha256": app.Hex()}}
	r.issue(t, m, b, attest.Provenance{Dependencies: []attest.Resource{source, other}})
	got := r.factsOf(t, m).Provenance[0]
	if want := (verify.Source{Repository: repository, Ref: mainBranch}); got.Source != want {
		t.Errorf("source %+v; want %+v", got.Source, want)
	}
	if diff := cmp.Diff([]string{source.URI, other.URI}, got.TenantSupplied); diff != "" || got.Level != 1 {
		t.Errorf("level %d, supplied (-want +got):\n%s", got.Level, diff)
	}
}

// The document that rules read: its names are stable, and only what was
// believed stands in it.
func TestFacts(t *testing.T) {
	r, m := ours(), newMemory(t)
	p := r.built(m, nil)
	s := r.listed(m)
	x := r.issue(t, m, nil, attest.SBOM{Document: []byte(spdxDoc)})
	m.found(attest.ProvenanceType, []byte("garbage"))
	now := r.clock.Now()
	facts := r.factsOf(t, m)

	var got map[string]any
	check(t, json.Unmarshal(must(json.Marshal(facts)), &got))
	window := func(raw []byte, more map[string]any) map[string]any {
		v, err := r.trust.Verify(raw, verify.Expect{Artifact: app})
		check(t, err)
		from, to := v.Window()
		more["signedAt"], more["notBefore"], more["notAfter"] = now.Format(time.RFC3339), from.Format(time.RFC3339), to.Format(time.RFC3339)
		return more
	}
	want := map[string]any{
		"now": now.Format(time.RFC3339), "artifact": app.String(),
		"provenance": []any{window(p.Bundle, map[string]any{
			"attestation": p.ID, "builderId": builderID, "buildType": attest.GitHubWorkflowType,
			"invocationId":      repository + "/actions/runs/1/attempts/1",
			"source":            map[string]any{"repository": repository, "ref": mainBranch, "commit": commitOfMain},
			"unknownParameters": []any{}, "level": 0.0, "tenantSupplied": []any{},
		})},
		"imported": []any{},
		"sboms": []any{
			window(s.Bundle, map[string]any{"attestation": s.ID, "predicateType": "https://cyclonedx.org/bom"}),
			window(x.Bundle, map[string]any{"attestation": x.ID, "predicateType": "https://spdx.dev/Document/v2.3"}),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}

	none := must(json.Marshal(r.factsOf(t, newMemory(t))))
	check(t, json.Unmarshal(none, &got))
	if diff := cmp.Diff([]any{[]any{}, []any{}, []any{}}, []any{got["provenance"], got["sboms"], got["imported"]}); diff != "" {
		t.Errorf("facts of nothing are never null (-want +got):\n%s", diff)
	}
}
