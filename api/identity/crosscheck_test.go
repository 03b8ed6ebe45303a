// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// allGitHub are the claims that an API confirms of a run.
func allGitHub() []string {
	return []string{
		"actor_id", "event_name", "ref", "repository", "repository_id", "repository_owner", "repository_owner_id",
		"run_attempt", "run_id", "sha", "workflow_ref",
	}
}

func confirmed(change func(*Checked)) *Checked {
	c := &Checked{At: time.Unix(1000, 0), By: "api.github.com", Confirmed: allGitHub(), Facts: map[string]string{"status": "in_progress"}, Level: 3}
	change(c)
	return c
}

func TestWhatWasCheckedIsInTheBuild(t *testing.T) {
	r := row(t, github{}, "https://github.com", `claims.repository_id == "74"`)
	r.Builder.Level, r.Builder.CrossCheck = 3, true
	r.Checked = confirmed(func(c *Checked) {
		c.Confirmed = slices.DeleteFunc(c.Confirmed, func(name string) bool { return name == "run_attempt" })
	})
	got, err := Register(github{}, githubClaims(t, nil), r)
	if err != nil {
		t.Fatal(err)
	}
	if got.Level != 3 || got.LevelReason != "" || got.BuilderID != service+"/builders/acme" {
		t.Errorf("level %d of %s, because %q", got.Level, got.BuilderID, got.LevelReason)
	}
	by := func(o attest.Origin) attest.Origin { o.VerifiedBy = attest.SourceAPI; return o }
	origins := attest.Origins{
		"/buildDefinition/resolvedDependencies/0/digest/gitCommit":      by(attest.FromToken("sha")),
		"/buildDefinition/externalParameters/workflow/path":             by(attest.FromToken("ref", "repository", "workflow_ref")),
		"/buildDefinition/internalParameters/github/runner_environment": attest.FromToken("runner_environment"),                  // not asked
		"/runDetails/metadata/invocationId":                             attest.FromToken("repository", "run_attempt", "run_id"), // one of three not confirmed
		"/runDetails/builder/id":                                        attest.FromRegistry(),
		"/buildDefinition/internalParameters/api":                       {From: attest.SourceAPI, Names: []string{"status"}},
	}
	for pointer, want := range origins {
		if diff := cmp.Diff(want, got.Origins[pointer]); diff != "" {
			t.Errorf("%s: %s", pointer, diff)
		}
	}
	want := map[string]any{"host": "api.github.com", "asked_at": "1970-01-01T00:16:40Z", "status": "in_progress"}
	if diff := cmp.Diff(want, got.InternalParameters["api"]); diff != "" {
		t.Error(diff)
	}
}

func TestLevelsThatAreLeft(t *testing.T) {
	for name, c := range map[string]struct {
		row     int // the builder's level
		asks    bool
		checked *Checked
		level   int
		says    string
	}{
		"confirmed":                            {3, true, confirmed(func(*Checked) {}), 3, ""},
		"not asked":                            {3, true, nil, 2, "was not asked"},
		"unreachable":                          {3, true, confirmed(func(c *Checked) { c.Level, c.Problem = 2, "the API could not be reached" }), 2, "could not be reached"},
		"failed":                               {3, true, confirmed(func(c *Checked) { c.Level, c.Problem = 1, "the run has failed" }), 1, "has failed"},
		"failed, of a builder at level 2":      {2, true, confirmed(func(c *Checked) { c.Level, c.Problem = 1, "the run has failed" }), 1, "has failed"},
		"unreachable, of a builder at level 2": {2, true, confirmed(func(c *Checked) { c.Level, c.Problem = 2, "the API could not be reached" }), 2, "could not be reached"},
		"not asked, of a builder at level 1":   {1, true, nil, 1, "was not asked"},
		"nobody wants it":                      {3, false, nil, 3, ""},
		"a zero Checked":                       {3, true, &Checked{}, 1, "confirmed nothing"},
		"a negative level":                     {3, true, confirmed(func(c *Checked) { c.Level = -5 }), 1, "confirmed nothing"},
		"a level that there is not":            {3, true, confirmed(func(c *Checked) { c.Level = 9 }), 3, ""},
		"failed, where the row does not ask":   {3, false, confirmed(func(c *Checked) { c.Level, c.Problem = 1, "the run has failed" }), 3, ""},
	} {
		r := row(t, github{}, "https://github.com", `claims.repository_id == "74"`)
		r.Builder.Level, r.Builder.CrossCheck, r.Checked = c.row, c.asks, c.checked
		got, err := Register(github{}, githubClaims(t, nil), r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Level != c.level || !strings.Contains(got.LevelReason, c.says) || (c.says == "") != (got.LevelReason == "") {
			t.Errorf("%s: level %d, because %q; want %d, because %q", name, got.Level, got.LevelReason, c.level, c.says)
		}
		if want := r.Builder.BuilderID(service, c.level); got.BuilderID != want {
			t.Errorf("%s: builder %s; want %s", name, got.BuilderID, want)
		}
		if c.checked == nil {
			if _, ok := got.InternalParameters["api"]; ok {
				t.Errorf("%s: the API is quoted", name)
			}
		} else if c.checked.Problem != "" && got.InternalParameters["api"].(map[string]any)["problem"] != c.checked.Problem {
			t.Errorf("%s: what the API did not confirm is not in the build: %v", name, got.InternalParameters["api"])
		}
	}
}

// A build that is at a lower level already keeps its reason.
func TestApplyKeepsAReason(t *testing.T) {
	before := &attest.Build{
		Level: 2, LevelReason: "the runner is shared", InternalParameters: map[string]any{"x": "y"},
		Origins: attest.Origins{"/a": attest.FromToken("sha")},
	}
	kept := *before
	kept.InternalParameters, kept.Origins = maps.Clone(before.InternalParameters), maps.Clone(before.Origins)
	r := attest.Builder{Level: 3, CrossCheck: true}
	got := confirmed(func(c *Checked) { c.Level, c.Problem = 1, "the run has failed" }).Apply(before, r)
	if got.Level != 1 || got.LevelReason != "the runner is shared; the run has failed" {
		t.Errorf("level %d, because %q", got.Level, got.LevelReason)
	}
	if got = (*Checked)(nil).Apply(before, r); got.Level != 2 || got.LevelReason != "the runner is shared; the CI's API was not asked" {
		t.Errorf("not asked: level %d, because %q", got.Level, got.LevelReason)
	}
	if diff := cmp.Diff(&kept, before); diff != "" {
		t.Errorf("the build that was given changed: %s", diff)
	}
}

// It is kept with a session.
func TestCheckedSurvivesJSON(t *testing.T) {
	want := confirmed(func(c *Checked) { c.At, c.Level, c.Problem = c.At.UTC(), 2, "the API could not be reached" })
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Checked
	if err := attest.DecodeJSON(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Error(diff)
	}
}
