// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// Nothing of one tenant is there for another, whether it has another name, or
// the same one again: a repository that was deleted and made anew has new ids.
func TestTokensOfOtherTenants(t *testing.T) {
	f := newFixture(t)
	f.believes(nil, f.idp)
	in := func(changes map[string]any) *client.Client {
		t.Helper()
		s, err := f.exchanged(f.idp.token(changes))
		if err != nil {
			t.Fatal(err)
		}
		return f.secretClient(s.Token)
	}
	own := in(nil)
	made, err := own.AttestProvenance(t.Context(), oneDigest, "one-key")
	if err != nil {
		t.Fatal(err)
	}
	about := client.Artifact{Digest: artifact}
	bom, err := own.AttestSBOM(t.Context(), about, []byte(cycloneDX), "another-key")
	if err != nil {
		t.Fatal(err)
	}
	question := client.Question{Artifact: about, Environment: "prod"}
	decided, err := own.Decide(t.Context(), question)
	if err != nil || decided.Verdict != attest.VerdictPass {
		t.Fatalf("its own tenant: %s %v, %v", decided.Verdict, decided.Reasons, err)
	}
	for name, changes := range map[string]map[string]any{
		"another repository": {"repository": "acme/other", "repository_id": "75",
			"workflow_ref": "acme/other/.github/workflows/build.yml@refs/heads/main", "job_workflow_ref": "acme/other/.github/workflows/build.yml@refs/heads/main"},
		"the repository made again": {"repository_id": "76"},
	} {
		c := in(changes)
		if page, err := c.Attestations(t.Context(), artifact, "", "", 0); err != nil || len(page.Attestations) != 0 || page.Next != "" {
			t.Errorf("%s: lists %d attestations, %v", name, len(page.Attestations), err)
		}
		for _, id := range []string{made.ID, bom.ID} {
			if a, err := c.Attestation(t.Context(), id); status(err) != 404 || a.Bundle != nil {
				t.Errorf("%s: an attestation: %v; want 404", name, err)
			}
		}
		if d, err := c.Decision(t.Context(), decided.ID); status(err) != 404 || d.VSA != nil || d.Verdict != attest.VerdictError {
			t.Errorf("%s: a decision: %+v, %v; want 404", name, d, err)
		}
		if d, err := c.Decide(t.Context(), question); err != nil || d.Verdict != attest.VerdictNoEvidence {
			t.Errorf("%s: its own question: %s %v, %v; want %s", name, d.Verdict, d.Reasons, err, attest.VerdictNoEvidence)
		}
		if a, err := c.AttestSBOM(t.Context(), about, []byte(cycloneDX), "another-key"); err == nil && a.ID == bom.ID {
			t.Errorf("%s: a retry is answered with the other's attestation", name)
		}
	}
	// Renamed, it is who it was.
	renamed := in(map[string]any{"repository": "acme/renamed", "workflow_ref": "acme/renamed/.github/workflows/build.yml@refs/heads/main",
		"job_workflow_ref": "acme/renamed/.github/workflows/build.yml@refs/heads/main"})
	if a, err := renamed.Attestation(t.Context(), made.ID); err != nil || a.ID != made.ID {
		t.Errorf("renamed: %v", err)
	}
}

// A stolen token is worth nothing once its job has used it, which is told; before
// that it is a session, unless it is bound: then it is one about the job's
// artifacts.
func TestStolenTokens(t *testing.T) {
	mine, evil := attest.SHA256([]byte("mine")), attest.SHA256([]byte("evil"))
	bound := map[string]any{"aud": audience + "/?d=" + attest.SubjectSet([]attest.Digest{mine}).Hex()}
	of := func(d attest.Digest) client.ProvenanceRequest {
		return client.ProvenanceRequest{Subjects: []client.Subject{{Digest: map[string]string{"sha256": d.Hex()}}}}
	}
	used := func(f *fixture) (allowed, refused int) {
		for _, r := range f.records() {
			switch {
			case r.Action != "sessions.open":
			case r.Outcome == attest.AuditAllowed:
				allowed++
			case strings.Contains(r.Why, "used already") && r.Subject == "repo:acme/app:ref:refs/heads/main" && r.Remote != "":
				refused++
			}
		}
		return allowed, refused
	}

	t.Run("after its job, unbound", func(t *testing.T) {
		f := newFixture(t)
		token := f.idp.token(nil)
		job, err := f.exchanged(token)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := f.exchanged(token); status(err) != 401 || s.Token != "" {
			t.Errorf("the thief's session: %v; want 401", err)
		}
		if _, err := f.secretClient(job.Token).AttestProvenance(t.Context(), of(mine), ""); err != nil {
			t.Errorf("the job: %v", err)
		}
		if allowed, refused := used(f); allowed != 1 || refused != 1 {
			t.Errorf("%d sessions and %d replays are recorded; want one of each", allowed, refused)
		}
	})
	t.Run("before its job, unbound", func(t *testing.T) {
		f := newFixture(t)
		token := f.idp.token(nil)
		if _, err := f.exchanged(token); err != nil {
			t.Fatal(err)
		}
		if s, err := f.exchanged(token); status(err) != 401 || s.Token != "" {
			t.Errorf("the job's session: %v; want 401, by which it knows", err)
		}
		if allowed, refused := used(f); allowed != 1 || refused != 1 {
			t.Errorf("%d sessions and %d replays are recorded; want one of each", allowed, refused)
		}
	})
	t.Run("before its job, bound", func(t *testing.T) {
		f := newFixture(t)
		token := f.idp.token(bound)
		for name, subjects := range map[string][]attest.Digest{"other artifacts": {evil}, "more artifacts": {mine, evil}, "none": nil} {
			if s, err := f.exchanged(token, subjects...); status(err) != 403 || s.Token != "" {
				t.Errorf("with %s: %v; want 403", name, err)
			}
		}
		thief, err := f.exchanged(token, mine) // it was not spent by that
		if err != nil {
			t.Fatal(err)
		}
		c := f.secretClient(thief.Token)
		if _, err := c.AttestProvenance(t.Context(), of(evil), ""); status(err) != 403 {
			t.Errorf("provenance of another artifact: %v; want 403", err)
		}
		if _, err := c.AttestSBOM(t.Context(), client.Artifact{Digest: evil}, []byte(cycloneDX), ""); status(err) != 403 {
			t.Errorf("an SBOM of another artifact: %v; want 403", err)
		}
		if len(f.memory.intents) != 0 {
			t.Errorf("%d intents", len(f.memory.intents))
		}
		if _, err := c.AttestProvenance(t.Context(), of(mine), ""); err != nil { // what the job would have said
			t.Errorf("provenance of the job's artifact: %v", err)
		}
	})
	t.Run("after its job, bound", func(t *testing.T) {
		f := newFixture(t)
		token := f.idp.token(bound)
		if _, err := f.exchanged(token, mine); err != nil {
			t.Fatal(err)
		}
		for name, subjects := range map[string][]attest.Digest{"the same artifacts": {mine}, "others": {evil}} {
			if s, err := f.exchanged(token, subjects...); status(err) != 401 && status(err) != 403 || s.Token != "" {
				t.Errorf("with %s: %v", name, err)
			}
		}
	})
}

// A workflow's path and its ref may both have an '@': the provenance says each
// whole, and a builder that pins one is not met by what merely reads alike.
func TestWorkflowRefsWithAnAt(t *testing.T) {
	f := newFixture(t)
	claims := func(path, ref string) map[string]any {
		return map[string]any{"ref": ref, "workflow_ref": "acme/app/" + path + "@" + ref, "job_workflow_ref": "acme/app/" + path + "@" + ref}
	}
	for _, c := range []struct{ path, ref string }{
		{".github/workflows/build@v1.yml", "refs/heads/main"},
		{".github/workflows/build.yml", "refs/heads/fix@2"},
		{".github/workflows/a@b@c.yml", "refs/tags/v1.0@rc"},
		{".github/workflows/build.yml", "refs/heads/x@refs/heads/main"},
	} {
		s, err := f.exchanged(f.idp.token(claims(c.path, c.ref)))
		if err != nil {
			t.Errorf("%s at %s: %v", c.path, c.ref, err)
			continue
		}
		a, err := f.secretClient(s.Token).AttestProvenance(t.Context(), oneDigest, "")
		if err != nil {
			t.Errorf("%s at %s: %v", c.path, c.ref, err)
			continue
		}
		payload, _, err := attest.OpenUnverified(a.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		var statement struct {
			Predicate struct {
				BuildDefinition struct {
					ExternalParameters struct {
						Workflow struct{ Ref, Repository, Path string } `json:"workflow"`
					} `json:"externalParameters"`
				} `json:"buildDefinition"`
			} `json:"predicate"`
		}
		if err := json.Unmarshal(payload, &statement); err != nil {
			t.Fatal(err)
		}
		if got := statement.Predicate.BuildDefinition.ExternalParameters.Workflow; got.Path != c.path || got.Ref != c.ref || got.Repository != "https://github.com/acme/app" {
			t.Errorf("%s at %s: %+v", c.path, c.ref, got)
		}
	}

	const pinned = "acme/app/.github/workflows/build.yml@refs/heads/main"
	f.rows.set(func(r *rows) {
		b := builderRow(f.idp.URL, "pinned", `claims.job_workflow_ref == "`+pinned+`"`)
		b.ID = "https://github.com/" + pinned
		r.all, r.revision = []attest.Builder{b}, 9
	})
	f.idp.advance(registryFresh)
	for name, changes := range map[string]map[string]any{
		"a branch that ends like the pinned one": claims(".github/workflows/build.yml", "refs/heads/evil@refs/heads/main"),
		"a branch that begins like it":           claims(".github/workflows/build.yml", "refs/heads/main@evil"),
		"a path that begins like it":             claims(".github/workflows/build.yml@refs/heads/main/evil.yml", "refs/heads/main"),
		"a workflow that has it in its path":     claims(".github/workflows/build.yml@refs/heads/main.yml", "refs/heads/main"),
	} {
		s, err := f.exchanged(f.idp.token(changes))
		if err == nil {
			_, err = f.secretClient(s.Token).AttestProvenance(t.Context(), oneDigest, "")
		}
		if status(err) != 403 || s.BuilderID != "" {
			t.Errorf("%s: %s, %v; want 403", name, s.BuilderID, err)
		}
	}
	if s, err := f.exchanged(f.idp.token(nil)); err != nil || s.BuilderID != "https://github.com/"+pinned {
		t.Errorf("the pinned workflow: %s, %v", s.BuilderID, err)
	}
}

// A merge request from a fork runs what its author wrote, with the project's
// name on it. GitLab shows it in two ways, and neither has a session.
func TestForksMergeRequests(t *testing.T) {
	f := newFixture(t)
	p := newIDP(t)
	var job ciJob
	for _, j := range ciJobs() {
		if j.provider == identity.GitLab {
			job = j
		}
	}
	accepted, builder := Issuer{URL: p.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 2 * time.Hour, Provider: identity.GitLab}, builderRow(p.URL, "gitlab", job.condition)
	builder.BuildType = service + "/buildtypes/gitlab-job/v1"
	job.change(&accepted, &builder)
	// Both projects have rules and a builder: the fork's owner has, too.
	other := builderRow(p.URL, "fork", `claims.project_path == "evil/app"`)
	other.BuildType = builder.BuildType
	f.rows.set(func(r *rows) { r.all = []attest.Builder{builder, other} })
	auth, err := NewAuthenticator([]Issuer{accepted}, []Rule{
		{Issuer: p.URL, Claims: map[string]string{"project_path": "acme/app"}, Roles: []attest.Role{attest.RoleSigner}},
		{Issuer: p.URL, Claims: map[string]string{"project_path": "evil/app"}, Roles: []attest.Role{attest.RoleSigner}},
		{Issuer: p.URL, Claims: map[string]string{"job_project_path": "acme/app"}, Roles: []attest.Role{attest.RoleSigner}},
	}, AuthOptions{Now: f.idp.now, Service: service, Registry: f.rows, Sessions: f.sessions})
	if err != nil {
		t.Fatal(err)
	}
	f.auth = auth
	token := func(changes map[string]any) string {
		now := f.idp.now().Unix()
		claims := map[string]any{"iss": p.URL, "sub": "project_path:acme/app:ref_type:branch:ref:main", "aud": audience, "iat": now, "nbf": now, "exp": now + 300}
		maps.Copy(claims, job.claims)
		maps.Copy(claims, changes)
		for name, value := range claims {
			if value == nil {
				delete(claims, name)
			}
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		return p.sign("ES256", "ec", payload)
	}
	fork := map[string]any{ // project_* are the fork's, job_project_* the project's whose runners and variables it has
		"project_id": "666", "project_path": "evil/app", "namespace_id": "665", "namespace_path": "evil",
		"job_project_id": "20", "job_namespace_id": "72", "job_project_path": "acme/app", "job_namespace_path": "acme",
		"ci_config_ref_uri": "gitlab.example/evil/app//.gitlab-ci.yml@refs/heads/main", "pipeline_source": "merge_request_event",
	}
	older := map[string]any{"job_project_id": nil, "job_namespace_id": nil, "job_project_path": nil, "job_namespace_path": nil} // before 18.4
	with := func(all ...map[string]any) map[string]any {
		sum := map[string]any{}
		for _, m := range all {
			maps.Copy(sum, m)
		}
		return sum
	}
	for name, changes := range map[string]map[string]any{
		"in the project's pipeline":                       fork,
		"in the project's pipeline, as a push":            with(fork, map[string]any{"pipeline_source": "push"}),
		"in a child of that pipeline":                     with(fork, map[string]any{"pipeline_source": "parent_pipeline"}),
		"the two told apart by id alone":                  with(fork, map[string]any{"job_project_path": nil, "job_namespace_path": nil, "job_namespace_id": nil}),
		"the two told apart by path alone":                with(fork, map[string]any{"job_project_id": nil, "job_namespace_id": nil, "job_namespace_path": nil, "pipeline_source": "push"}),
		"before there was a claim for it":                 with(fork, older),
		"of a branch of the project itself":               {"pipeline_source": "merge_request_event"},
		"of a merge train":                                {"pipeline_source": "merge_request_event", "ref_path": "refs/merge-requests/1/train"},
		"with the merge request's ref":                    {"pipeline_source": "external_pull_request_event", "ref_path": "refs/merge-requests/1/head"},
		"with the merge request's ref, said to be a push": {"ref_path": "refs/merge-requests/1/head", "ref": "refs/merge-requests/1/head"},
	} {
		s, err := f.exchanged(token(changes))
		if status(err) != 403 || s.Token != "" {
			t.Errorf("%s: %+v, %v; want 403", name, s, err)
		}
	}
	for name, changes := range map[string]map[string]any{"": nil, ", before 18.4": older} {
		if s, err := f.exchanged(token(changes)); err != nil || !strings.HasSuffix(s.Tenant, "#72/20") {
			t.Errorf("a push to the project%s: %+v, %v", name, s, err)
		}
	}
}

// A clock that is ten minutes off, at the issuer, in either direction: its
// tokens are from the future, or too old; by less than the leeway they are
// neither.
func TestAnIssuersClockIsOff(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		off    time.Duration
		want   int
		says   string
		change map[string]time.Duration // of single claims, from the issuer's now
	}{
		"ten minutes ahead":                            {10 * time.Minute, 401, "not valid yet", nil},
		"ten minutes ahead, without nbf":               {10 * time.Minute, 401, "in the future", map[string]time.Duration{"nbf": -1}},
		"ten minutes ahead, and iat is written back":   {10 * time.Minute, 401, "not valid yet", map[string]time.Duration{"iat": -10 * time.Minute}},
		"ten minutes behind":                           {-10 * time.Minute, 401, "expired", nil},
		"ten minutes behind, with a token of an hour":  {-10*time.Minute - time.Second, 401, "issued more than 10m0s ago", map[string]time.Duration{"exp": time.Hour}},
		"an hour behind, with a token of a day":        {-time.Hour, 401, "issued more than 10m0s ago", map[string]time.Duration{"exp": 24 * time.Hour}},
		"half a minute ahead":                          {30 * time.Second, 201, "", nil},
		"half a minute behind":                         {-30 * time.Second, 201, "", nil},
		"nine minutes behind, with a token of an hour": {-9 * time.Minute, 201, "", map[string]time.Duration{"exp": time.Hour}},
	} {
		now := f.idp.now().Add(c.off)
		claims := map[string]any{"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
		for claim, by := range c.change {
			if claims[claim] = now.Add(by).Unix(); by < 0 && claim == "nbf" {
				claims[claim] = nil
			}
		}
		got, p := f.once(f.idp.token(claims))
		if got != c.want || !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: %d %s; want %d, %q", name, got, p.Detail, c.want, c.says)
		}
	}
	// Ours going back opens nothing that has ended: a session that is from our
	// future is none.
	s, err := f.exchanged(f.idp.token(nil))
	if err != nil {
		t.Fatal(err)
	}
	f.idp.advance(-10 * time.Minute)
	if _, err := f.auth.Authenticate(context.Background(), s.Token); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a session from the future: %v", err)
	}
}
