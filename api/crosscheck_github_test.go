// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/api/identity"
	"provost/attest"
	"provost/verify"
)

// A run as "Get a workflow run attempt" has it (docs.github.com), of the token
// that githubClaimsOf are of; members that only link elsewhere are left out.
const checkedGitHubAnswer = `{
  "id": 1234567890, "name": "Build", "node_id": "MDEyOldvcmtmbG93IFJ1bjI2OTI4OQ==",
  "check_suite_id": 42, "check_suite_node_id": "MDEwOkNoZWNrU3VpdGU0Mg==",
  "head_branch": "main", "head_sha": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "path": ".github/workflows/build.yml@main", "run_number": 10, "event": "push",
  "display_title": "Update README.md", "status": "in_progress", "conclusion": null, "workflow_id": 159038,
  "url": "https://api.github.com/repos/acme/app/actions/runs/1234567890", "pull_requests": [],
  "created_at": "2020-01-22T19:33:08Z", "updated_at": "2020-01-22T19:33:08Z",
  "actor": {"login": "octocat", "id": 12, "node_id": "MDQ6VXNlcjE=", "type": "User", "site_admin": false},
  "run_attempt": 2,
  "referenced_workflows": [
    {"path": "acme/shared/.github/workflows/deploy.yml@main", "sha": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "ref": "refs/heads/main"},
    {"path": "acme/other/.github/workflows/report.yml@v2", "sha": "cccccccccccccccccccccccccccccccccccccccc", "ref": "refs/tags/v2"},
    {"path": "acme/pinned/.github/workflows/lint.yml@dddddddddddddddddddddddddddddddddddddddd", "sha": "dddddddddddddddddddddddddddddddddddddddd"}
  ],
  "run_started_at": "2020-01-22T19:33:08Z",
  "triggering_actor": {"login": "hubot", "id": 13, "type": "User"},
  "previous_attempt_url": "https://api.github.com/repos/acme/app/actions/runs/1234567890/attempts/1",
  "head_commit": {"id": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "tree_id": "d23f6eedb1e1b9610bbc754ddb5197bfe7271223", "message": "Create linter.yaml", "timestamp": "2020-01-22T19:33:05Z"},
  "repository": {"id": 74, "node_id": "MDEwOlJlcG9zaXRvcnkxMjk2MjY5", "name": "app", "full_name": "acme/app",
    "owner": {"login": "acme", "id": 65, "type": "Organization"}, "private": true, "fork": false},
  "head_repository": {"id": 74, "full_name": "acme/app", "owner": {"login": "acme", "id": 65}, "private": true}
}`

const (
	checkedRepo   = "/repos/acme/app"
	checkedRunURL = checkedRepo + "/actions/runs/1234567890/attempts/2?exclude_pull_requests=true"
	checkedHead   = checkedRepo + "/git/ref/heads/main"
)

var (
	commitA = strings.Repeat("a", 40)
	commitB = strings.Repeat("b", 40)
	commitC = strings.Repeat("c", 40)
)

// checkedObject is the answer to "Get a reference" and "Get a tag".
func checkedObject(ref, kind, sha string) map[string]any {
	return map[string]any{"ref": ref, "node_id": "MDM6UmVm", "url": "https://api.github.com/x", "object": map[string]any{"type": kind, "sha": sha, "url": "https://api.github.com/y"}}
}

// checkedCompare is the answer to "Compare two commits", paged.
func checkedCompare(status string) map[string]any {
	return map[string]any{"status": status, "ahead_by": 0, "behind_by": 3, "total_commits": 0, "commits": []any{}, "base_commit": map[string]any{"sha": commitC}, "merge_base_commit": map[string]any{"sha": commitA}}
}

// checkedGitHubAll are the claims that are confirmed of githubClaimsOf.
var checkedGitHubAll = []string{
	"actor", "actor_id", "event_name", "job_workflow_ref", "job_workflow_sha", "ref", "ref_type", "repository", "repository_id",
	"repository_owner", "repository_owner_id", "run_attempt", "run_id", "run_number", "sha", "workflow_ref", "workflow_sha",
}

func TestCrossCheckOfGitHub(t *testing.T) {
	answers := map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, nil), checkedHead: checkedObject("refs/heads/main", "commit", commitA)}
	api := newCIAPI(t, "", answers)
	got, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
	checkedWant{level: 3}.hold(t, "a push", got, err)
	if t.Failed() {
		return
	}
	if diff := cmp.Diff(checkedGitHubAll, got.Confirmed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"status": "in_progress", "run_started_at": "2020-01-22T19:33:08Z", "triggering_actor_id": "13"}, got.Facts); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(api.asked, []string{checkedRunURL, checkedHead}) {
		t.Errorf("asked %q", api.asked)
	}
}

func TestCrossChecksOfGitHub(t *testing.T) {
	const compare = checkedRepo + "/compare/"
	head := func(sha string) map[string]any { return checkedObject("refs/heads/main", "commit", sha) }
	onTag := map[string]any{"ref": "refs/tags/v1", "ref_type": "tag", "workflow_ref": "acme/app/.github/workflows/build.yml@refs/tags/v1", "job_workflow_ref": "acme/app/.github/workflows/build.yml@refs/tags/v1"}
	tagRun := map[string]any{"head_branch": "v1", "path": ".github/workflows/build.yml"}
	with := func(base map[string]any, name string, value any) map[string]any {
		m := maps.Clone(base)
		m[name] = value
		return m
	}
	const tagURL = checkedRepo + "/git/ref/tags/v1"
	page := "?per_page=1&page=2"
	for name, c := range map[string]struct {
		run     map[string]any // changes of the answer
		claims  map[string]any // changes of the token
		answers map[string]any // beside the run and the branch at the token's commit; nil for none
		want    checkedWant
	}{
		"a workflow's path with its whole ref": {run: map[string]any{"path": ".github/workflows/build.yml@refs/heads/main"}, want: checkedWant{level: 3}},
		"a workflow's path alone":              {run: map[string]any{"path": ".github/workflows/build.yml"}, want: checkedWant{level: 3}},
		"succeeded":                            {run: map[string]any{"status": "completed", "conclusion": "success"}, want: checkedWant{level: 3}},

		"failed":          {run: map[string]any{"status": "completed", "conclusion": "failure"}, want: checkedWant{problem: "has not succeeded", level: 1}},
		"cancelled":       {run: map[string]any{"status": "completed", "conclusion": "cancelled"}, want: checkedWant{problem: "has not succeeded", level: 1}},
		"timed out":       {run: map[string]any{"status": "completed", "conclusion": "timed_out"}, want: checkedWant{problem: "has not succeeded", level: 1}},
		"ended somehow":   {run: map[string]any{"status": "completed", "conclusion": nil}, want: checkedWant{problem: "has not succeeded", level: 1}},
		"without status":  {run: map[string]any{"status": nil}, want: checkedWant{problem: "how the run fares", level: 2}},
		"an odd status":   {run: map[string]any{"status": "<b>"}, want: checkedWant{problem: "how the run fares", level: 2}},
		"without actor":   {run: map[string]any{"actor": nil}, want: checkedWant{problem: "does not say actor_id", level: 2}},
		"without branch":  {run: map[string]any{"head_branch": nil}, want: checkedWant{problem: "does not say ref", level: 2}},
		"without path":    {run: map[string]any{"path": nil}, want: checkedWant{problem: "does not say workflow_ref", level: 2}},
		"started by hand": {run: map[string]any{"event": "workflow_dispatch"}, claims: map[string]any{"event_name": "workflow_dispatch"}, want: checkedWant{problem: "does not say the run's inputs", level: 2}},

		"another commit":            {run: map[string]any{"head_sha": commitB}, want: checkedWant{denied: "another sha"}},
		"a repository made anew":    {run: map[string]any{"repository.id": 75}, want: checkedWant{denied: "another repository_id"}},
		"an owner of the same name": {run: map[string]any{"repository.owner.id": 66}, want: checkedWant{denied: "another repository_owner_id"}},
		"another repository":        {run: map[string]any{"repository.full_name": "acme/app2"}, want: checkedWant{denied: "another repository"}},
		"another run":               {run: map[string]any{"id": 1234567891}, want: checkedWant{denied: "another run_id"}},
		"another attempt":           {run: map[string]any{"run_attempt": 3}, want: checkedWant{denied: "another run_attempt"}},
		"another event":             {run: map[string]any{"event": "pull_request_target"}, want: checkedWant{denied: "another event_name"}},
		"another actor":             {run: map[string]any{"actor.id": 14}, want: checkedWant{denied: "another actor_id"}},
		"another branch":            {run: map[string]any{"head_branch": "Main"}, want: checkedWant{denied: "another ref"}},
		"another workflow":          {run: map[string]any{"path": ".github/workflows/other.yml@main"}, want: checkedWant{denied: "another workflow_ref"}},
		"a workflow of another ref": {run: map[string]any{"path": ".github/workflows/build.yml@dev"}, want: checkedWant{denied: "another workflow_ref"}},
		"a failed run of another":   {run: map[string]any{"status": "completed", "conclusion": "failure", "head_sha": commitB}, want: checkedWant{denied: "another sha"}},

		"earlier on the branch":     {answers: map[string]any{checkedHead: head(commitC), compare + commitC + "..." + commitA + page: checkedCompare("behind")}, want: checkedWant{level: 3}},
		"beside the branch":         {answers: map[string]any{checkedHead: head(commitC), compare + commitC + "..." + commitA + page: checkedCompare("diverged")}, want: checkedWant{problem: "not on the branch", level: 1}},
		"not on the branch yet":     {answers: map[string]any{checkedHead: head(commitC), compare + commitC + "..." + commitA + page: checkedCompare("ahead")}, want: checkedWant{problem: "not on the branch", level: 1}},
		"of no common history":      {answers: map[string]any{checkedHead: head(commitC)}, want: checkedWant{problem: "not on the branch", level: 1}},
		"an unknown comparison":     {answers: map[string]any{checkedHead: head(commitC), compare + commitC + "..." + commitA + page: checkedCompare("similar")}, want: checkedWant{problem: "about the branch is not understood", level: 2}},
		"no comparison":             {answers: map[string]any{checkedHead: head(commitC), compare + commitC + "..." + commitA + page: 500}, want: checkedWant{problem: "fails", level: 2}},
		"the branch is gone":        {answers: map[string]any{}, want: checkedWant{problem: "the ref is not there", level: 1}},
		"the branch is not shown":   {answers: map[string]any{checkedHead: 403}, want: checkedWant{problem: "does not show the ref", level: 2}},
		"a branch that begins so":   {answers: map[string]any{checkedHead: checkedObject("refs/heads/main2", "commit", commitA)}, want: checkedWant{problem: "about the ref is not understood", level: 2}},
		"a branch at no commit":     {answers: map[string]any{checkedHead: checkedObject("refs/heads/main", "tree", commitA)}, want: checkedWant{problem: "about the ref is not understood", level: 2}},
		"a branch at a way up":      {answers: map[string]any{checkedHead: checkedObject("refs/heads/main", "commit", "../../x")}, want: checkedWant{problem: "about the ref is not understood", level: 2}},
		"failed, and not on it":     {run: map[string]any{"status": "completed", "conclusion": "failure"}, answers: map[string]any{}, want: checkedWant{problem: "has not succeeded; the API says that the ref is not there", level: 1}},
		"by hand, branch not shown": {run: map[string]any{"event": "workflow_dispatch"}, claims: map[string]any{"event_name": "workflow_dispatch"}, answers: map[string]any{checkedHead: 500}, want: checkedWant{problem: "inputs; the API fails", level: 2}},

		"a tag":               {run: tagRun, claims: onTag, answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "commit", commitA)}, want: checkedWant{level: 3}},
		"an annotated tag":    {run: tagRun, claims: onTag, answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "tag", commitB), checkedRepo + "/git/tags/" + commitB: checkedObject("", "commit", commitA)}, want: checkedWant{level: 3}},
		"a tag of a tag":      {run: tagRun, claims: onTag, answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "tag", commitB), checkedRepo + "/git/tags/" + commitB: checkedObject("", "tag", commitC), checkedRepo + "/git/tags/" + commitC: checkedObject("", "commit", commitA)}, want: checkedWant{level: 3}},
		"a tag of itself":     {run: tagRun, claims: onTag, answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "tag", commitB), checkedRepo + "/git/tags/" + commitB: checkedObject("", "tag", commitB)}, want: checkedWant{problem: "about the ref is not understood", level: 2}},
		"a tag without its":   {run: tagRun, claims: onTag, answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "tag", commitB)}, want: checkedWant{problem: "the tag's commit", level: 2}},
		"a tag that moved":    {run: tagRun, claims: onTag, answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "commit", commitC)}, want: checkedWant{problem: "the tag is at another commit", level: 1}},
		"a branch like a tag": {run: tagRun, claims: onTag, answers: map[string]any{checkedRepo + "/git/ref/heads/v1": checkedObject("refs/heads/v1", "commit", commitA)}, want: checkedWant{problem: "the ref is not there", level: 1}},
		"a tag called branch": {run: tagRun, claims: with(onTag, "ref_type", "branch"), answers: map[string]any{tagURL: checkedObject("refs/tags/v1", "commit", commitA)}, want: checkedWant{denied: "another ref_type"}},

		"a reusable workflow":          {claims: map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/deploy.yml@refs/heads/main", "job_workflow_sha": commitB}, want: checkedWant{level: 3}},
		"a reusable one at a tag":      {claims: map[string]any{"job_workflow_ref": "acme/other/.github/workflows/report.yml@refs/tags/v2", "job_workflow_sha": commitC}, want: checkedWant{level: 3}},
		"a reusable one by its commit": {claims: map[string]any{"job_workflow_ref": "acme/pinned/.github/workflows/lint.yml@" + strings.Repeat("d", 40), "job_workflow_sha": strings.Repeat("d", 40)}, want: checkedWant{level: 3}},
		"a reusable one, elsewhere":    {claims: map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/deploy.yml@refs/heads/main", "job_workflow_sha": commitC}, want: checkedWant{problem: "does not list the reusable workflow", level: 2}},
		"a reusable one, not listed":   {claims: map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/other.yml@refs/heads/main", "job_workflow_sha": commitB}, want: checkedWant{problem: "does not list the reusable workflow", level: 2}},
		"a tag like its branch":        {claims: map[string]any{"job_workflow_ref": "acme/shared/.github/workflows/deploy.yml@refs/tags/main", "job_workflow_sha": commitB}, want: checkedWant{problem: "does not list the reusable workflow", level: 2}},

		"no run id":          {claims: map[string]any{"run_id": nil}, want: checkedWant{denied: "run_id is missing"}},
		"no repository id":   {claims: map[string]any{"repository_id": nil}, want: checkedWant{denied: "repository_id is missing"}},
		"of a pull request":  {claims: map[string]any{"ref": "refs/pull/1/merge", "workflow_ref": "acme/app/.github/workflows/build.yml@refs/pull/1/merge", "job_workflow_ref": "acme/app/.github/workflows/build.yml@refs/pull/1/merge"}, run: map[string]any{"path": ".github/workflows/build.yml"}, want: checkedWant{denied: "on no branch or tag"}},
		"of half a commit":   {claims: map[string]any{"sha": "aaaa"}, run: map[string]any{"head_sha": "aaaa"}, want: checkedWant{denied: "on no branch or tag"}},
		"an owner of a path": {claims: map[string]any{"repository": "../app"}, want: checkedWant{problem: "cannot be asked for the run", level: 2}},
		"a path above":       {claims: map[string]any{"repository": "acme/.."}, want: checkedWant{problem: "cannot be asked for the run", level: 2}},
		"a run of a path":    {claims: map[string]any{"run_id": "../../x"}, want: checkedWant{problem: "does not show the run", level: 2}},
	} {
		answers := map[string]any{checkedHead: head(commitA)}
		if c.answers != nil {
			answers = c.answers
		}
		answers[checkedRunURL] = shape(t, checkedGitHubAnswer, c.run)
		api := newCIAPI(t, "", answers)
		got, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), c.claims))
		c.want.hold(t, name, got, err)
		aboutRef := func(words string) bool { return got != nil && strings.Contains(got.Problem, words) }
		if slices.ContainsFunc([]string{"the ref", "the branch", "the tag", "does not say ref"}, aboutRef) && slices.Contains(got.Confirmed, "ref") {
			t.Errorf("%s: the ref is confirmed, and %s", name, got.Problem)
		}
	}
}

// Of a run that is not there nothing is signed, if the API would show it.
func TestCrossCheckOfARunThatIsNotThere(t *testing.T) {
	repository := func(id int) map[string]any {
		return map[string]any{"id": id, "name": "app", "full_name": "acme/app", "owner": map[string]any{"login": "acme", "id": 65}, "private": true}
	}
	for name, c := range map[string]struct {
		repository any
		want       checkedWant
	}{
		"the repository is shown":         {repository(74), checkedWant{denied: "there is no such run"}},
		"one that was made anew is shown": {repository(75), checkedWant{denied: "another repository_id"}},
		"the repository is not shown":     {nil, checkedWant{problem: "does not show the run", level: 2}},
		"the API fails":                   {500, checkedWant{problem: "fails", level: 2}},
		"the token is not taken":          {401, checkedWant{problem: "refuses the service's token", level: 2}},
	} {
		api := newCIAPI(t, "", map[string]any{checkedRepo: c.repository})
		got, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
		c.want.hold(t, name, got, err)
	}
}

// A branch may have every character that means something in a URL.
func TestCrossCheckEscapesGitHubRefs(t *testing.T) {
	for branch, path := range map[string]string{
		"feature/x":   "heads/feature/x",
		"a#b":         "heads/a%23b",
		"a%2e%2e%2fb": "heads/a%252e%252e%252fb",
		"a%b":         "heads/a%25b",
		"a@b":         "heads/a@b",
		"a?b=c&d":     "heads/a%3Fb=c&d",
		"a...b":       "heads/a...b",
		"ünïcode":     "heads/%C3%BCn%C3%AFcode",
		"a+b;c":       "heads/a+b%3Bc",
		"a/../b":      "",
		"..":          "",
		"a//b":        "",
		"./a":         "",
	} {
		ref := "refs/heads/" + branch
		workflow := "acme/app/.github/workflows/build.yml@" + ref
		answers := map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, map[string]any{"head_branch": branch, "path": ".github/workflows/build.yml"})}
		want := checkedWant{problem: "cannot be asked for the ref", level: 2}
		if path != "" {
			want = checkedWant{level: 3}
			answers[checkedRepo+"/git/ref/"+path] = checkedObject(ref, "commit", commitA)
		}
		api := newCIAPI(t, "", answers)
		got, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{}).crossCheck(t.Context(),
			checkedClaims(t, githubClaimsOf(), map[string]any{"ref": ref, "workflow_ref": workflow, "job_workflow_ref": workflow}))
		want.hold(t, branch, got, err)
		if len(api.asked) > 2 || path == "" && len(api.asked) > 1 {
			t.Errorf("%s: asked %q", branch, api.asked)
		}
	}
}

// What was checked is signed, and says so field by field.
func TestCrossCheckedProvenance(t *testing.T) {
	f := newFixture(t)
	api := newCIAPI(t, "", map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, nil), checkedHead: checkedObject("refs/heads/main", "commit", commitA)})
	claims := checkedClaims(t, githubClaimsOf(), nil)
	checked, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{}).crossCheck(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	provider, _ := identity.Lookup(identity.GitHub)
	row := builderRow(f.idp.URL, "acme", `claims.repository_id == "74"`)
	row.Level, row.CrossCheck = 3, true
	build, err := identity.Register(provider, claims, identity.Registered{Service: service, ServerURL: "https://github.com", Builder: row, Checked: checked})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := f.issuer.Issue(t.Context(), attest.Caller{Issuer: f.idp.URL, Subject: "x", Grants: []attest.Grant{attest.GrantProvenance}, Build: build},
		attest.Request{Subjects: []attest.Subject{{Name: "app", SHA256: artifact}}, Predicate: attest.Provenance{}})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := f.ca.trust()
	if err != nil {
		t.Fatal(err)
	}
	believed, err := trust.Verify(signed.Bundle, verify.Expect{Artifact: artifact, PredicateType: attest.ProvenanceType})
	if err != nil {
		t.Fatal(err)
	}
	got, err := attest.ParseProvenance(believed.Statement().Predicate)
	if err != nil {
		t.Fatal(err)
	}
	if o := got.Origins["/buildDefinition/resolvedDependencies/0/digest/gitCommit"]; o.VerifiedBy != attest.SourceAPI || got.Level != 3 || got.BuilderID != builder {
		t.Errorf("level %d of %s, the commit from %s", got.Level, got.BuilderID, o)
	}
	said, _ := got.InternalParameters["api"].(map[string]any)
	if said["status"] != "in_progress" || said["triggering_actor_id"] != "13" || said["host"] == "" {
		t.Errorf("the API's part is %v", said)
	}
}

// The API is asked when the token is exchanged, and the session keeps what it
// said. Silence is a lower level under another id, contradiction is no session.
func TestExchangeAsksTheAPI(t *testing.T) {
	p := newIDP(t)
	row := builderRow(p.URL, "acme", `claims.repository_id == "74"`)
	row.Level, row.CrossCheck = 3, true
	api := newCIAPI(t, "", nil)
	sessions := &sessionsInMemory{}
	a, err := NewAuthenticator(
		[]Issuer{{URL: p.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, Provider: identity.GitHub, CrossCheck: &CrossCheck{URL: api.URL, TokenFile: "token"}}},
		[]Rule{{Issuer: p.URL, Claims: map[string]string{"repository_id": "74"}, Roles: []attest.Role{attest.RoleSigner}}},
		AuthOptions{Now: p.now, Service: service, Registry: &rows{all: []attest.Builder{row}}, Sessions: sessions, Secret: func(string) (string, error) { return checkedSecret, nil }})
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, nil), checkedHead: checkedObject("refs/heads/main", "commit", commitA)}
	failed := map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, map[string]any{"status": "completed", "conclusion": "failure"}), checkedHead: good[checkedHead]}
	for _, c := range []struct {
		name    string
		answers map[string]any
		id      string
		level   int
	}{
		{"it confirms", good, builder, 3},
		{"it fails", map[string]any{checkedRunURL: 500}, builder + "/level/2", 2},
		{"the run has failed", failed, builder + "/level/1", 1},
	} {
		api.mu.Lock()
		api.answers = c.answers
		api.mu.Unlock()
		secret, _, _, err := a.Exchange(t.Context(), exchange{token: p.token(nil)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		api.mu.Lock()
		asked := len(api.asked)
		api.answers = nil
		api.mu.Unlock()
		a.open = openSessions{} // as on another replica, or after a restart
		caller, err := a.Authenticate(t.Context(), secret)
		if err != nil || caller.Build == nil || caller.Build.BuilderID != c.id || caller.Build.Level != c.level || (caller.Build.LevelReason == "") != (c.level == 3) {
			t.Errorf("%s: %+v, %v; want level %d of %s", c.name, caller.Build, err, c.level, c.id)
		}
		if len(api.asked) != asked {
			t.Errorf("%s: the API was asked again in the session", c.name)
		}
	}
	api.mu.Lock()
	api.answers = map[string]any{checkedRunURL: shape(t, checkedGitHubAnswer, map[string]any{"head_sha": commitB}), checkedHead: good[checkedHead]}
	api.mu.Unlock()
	before := len(sessions.all)
	if secret, _, _, err := a.Exchange(t.Context(), exchange{token: p.token(nil)}); !errors.Is(err, attest.ErrDenied) || secret != "" || len(sessions.all) != before {
		t.Errorf("the API says another commit: %q, %v; want it denied and nothing stored", secret, err)
	}
}
