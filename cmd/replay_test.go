// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"provost/api/client"
	"provost/attest"
)

const replicated = "https://provost.example.com"

// job mints the token of a GitHub Actions run of acme/app, with changes.
func (i *oidcIssuer) job(t testing.TB, audience string, changes map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "k"}}, nil)
	ok(t, err)
	now, sha := time.Now().Unix(), strings.Repeat("a", 40)
	claims := map[string]any{
		"iss": i.URL, "sub": "repo:acme/app:ref:refs/heads/main", "aud": audience, "iat": now, "nbf": now, "exp": now + 300, "jti": rand.Text(),
		"repository": "acme/app", "repository_id": "74", "repository_owner": "acme", "repository_owner_id": "65", "repository_visibility": "private",
		"ref": "refs/heads/main", "ref_type": "branch", "sha": sha, "event_name": "push", "actor_id": "12",
		"workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/main", "workflow_sha": sha,
		"job_workflow_ref": "acme/app/.github/workflows/build.yml@refs/heads/main", "job_workflow_sha": sha,
		"run_id": "1", "run_attempt": "1", "runner_environment": "github-hosted",
	}
	maps.Copy(claims, changes)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	ok(t, err)
	return token
}

// A served is `provostd serve` with its keys in files, and the issuer of the
// jobs whose tokens it accepts.
type served struct {
	*daemon
	ci     *oidcIssuer
	config string
	admin  string // the administrator's token
}

// startServed starts a service of one builder. issuers and access are more lines
// of those tables of its configuration.
func startServed(t *testing.T, issuers, access string) *served {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	data, ci, people := t.TempDir(), newOIDCIssuer(t), newOIDCIssuer(t)
	identity, err := age.GenerateX25519Identity()
	ok(t, err)
	write := func(name, text string) string {
		path := filepath.Join(data, name)
		ok(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	write("keyring.key", identity.String()+"\n")
	s := &served{ci: ci, config: write("provost.yaml", fmt.Sprintf(`service: %s
listen: 127.0.0.1:0
database: provost.db
keys:
  offline_root: .
  root_certificate: root.pem
  offline_root_recipient: %s
  file: {directory: keys, identity_file: keyring.key}
log: {directory: log}
issuers:
  - {url: %q, audience: %q, algorithms: [ES256], max_age: 10m, provider: github}
  - {url: %q, audience: %q, algorithms: [ES256], max_age: 1h, provider: oidc, person_claim: sub}
%saccess:
  - {issuer: %q, claims: {repository_owner_id: "65"}, roles: [signer, gate]}
  - {issuer: %q, claims: {sub: admin}, tenant: "*", roles: [administrator, gate]}
%senvironments:
  prod:
    builders: [{id: "%s/builders/ci", level: 2}]
    sources: [{repository: "https://github.com/acme/app", refs: [refs/heads/main]}]
`, replicated, identity.Recipient(), ci.URL, replicated, people.URL, replicated, issuers, ci.URL, people.URL, access, replicated))}
	dir, err := programs()
	ok(t, err)
	if out, err := exec.Command(filepath.Join(dir, "provostd"), "init", "--config", s.config).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	s.start(t)
	s.admin = people.token(t, replicated)
	_, err = s.client(s.admin).PutBuilder(t.Context(), "ci",
		client.BuilderRequest{Issuer: ci.URL, Condition: `claims.repository_owner_id == "65"`, Level: 2})
	ok(t, err)
	return s
}

// start runs a process of the service; another one may run already.
func (s *served) start(t *testing.T) *daemon {
	t.Helper()
	s.daemon = startDaemon(t, nil, "serve", "--config", s.config)
	return s.daemon
}

// exchange spends a token.
func exchange(t *testing.T, d *daemon, token string) (client.Session, error) {
	return d.client("").OpenSession(t.Context(), token, client.SessionRequest{})
}

// mustReplay sends a spent token again: it is refused as one.
func mustReplay(t *testing.T, d *daemon, token string) {
	t.Helper()
	if s, err := exchange(t, d, token); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "used already") || s.Token != "" {
		t.Errorf("a spent token: %v; want 401, used already", err)
	}
}

// A token is spent when its session was answered, whatever happens to the
// process then; and the session goes on.
func TestTokensStaySpentAcrossRestarts(t *testing.T) {
	s := startServed(t, "", "")
	d := s.daemon
	type opened struct{ token, secret string }
	var all []opened
	for name, changes := range map[string]map[string]any{"with a jti": nil, "without": {"jti": ""}} {
		token := s.ci.job(t, replicated, changes)
		session, err := exchange(t, d, token)
		d.kill() // -9, right after the 201
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, opened{token, session.Token})
		d = s.start(t)
		for _, o := range all {
			mustReplay(t, d, o.token)
			_, req := newArtifact()
			if _, err := d.client(o.secret).AttestProvenance(t.Context(), req, ""); err != nil {
				t.Errorf("%s: in its session, after kill -9: %v", name, err)
			}
		}
	}
	d.stop()
	d = s.start(t)
	for _, o := range all {
		mustReplay(t, d, o.token)
	}
	for _, secret := range []string{all[0].secret, all[0].token} {
		if strings.Contains(d.log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

// Ten thousand jobs, 256 of them at any moment: each gets one session of its
// own, and kill -9 after the last answer takes none and frees no token.
func TestTenThousandSessions(t *testing.T) {
	s := startServed(t, "", "")
	const jobs, callers = 10_000, 256
	type opened struct{ token, secret string }
	var (
		all  = make([]opened, jobs)
		wait sync.WaitGroup
		work = make(chan int)
	)
	for range callers {
		wait.Go(func() {
			for n := range work {
				session, err := exchange(t, s.daemon, all[n].token)
				if err != nil {
					t.Errorf("job %d: %v", n, err)
				}
				all[n].secret = session.Token
			}
		})
	}
	for n := range all {
		all[n].token = s.ci.job(t, replicated, map[string]any{"run_id": fmt.Sprint(1000 + n)})
		work <- n
	}
	close(work)
	wait.Wait()
	s.daemon.kill()
	d := s.start(t)
	secrets := map[string]bool{}
	for n, o := range all {
		secrets[o.secret] = true
		if n%50 != 0 {
			continue
		}
		if _, err := d.client(o.secret).Whoami(t.Context()); err != nil {
			t.Errorf("session %d, after kill -9: %v", n, err)
		}
		mustReplay(t, d, o.token)
	}
	if len(secrets) != jobs || secrets[""] {
		t.Errorf("%d sessions for %d jobs", len(secrets), jobs)
	}
}

// Two processes on one database and log: a token that both get at the same
// moment becomes one session, which both know, and whose statements both count.
func TestTokensAreSpentOnceAcrossReplicas(t *testing.T) {
	s := startServed(t, "", "")
	replicas := []*daemon{s.daemon, s.start(t)}
	const tokens, each = 40, 3 // of each token as many at each replica
	var last client.Session
	at := -1 // where the last session was opened
	for n := range tokens {
		token := s.ci.job(t, replicated, map[string]any{"run_id": fmt.Sprint(1000 + n)})
		var (
			wait     sync.WaitGroup
			mu       sync.Mutex
			sessions = map[string]bool{}
		)
		begin := make(chan struct{})
		for i, d := range replicas {
			for range each {
				wait.Go(func() {
					<-begin
					session, err := exchange(t, d, token)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						sessions[session.Token] = true
						last, at = session, i
					case !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "used already"):
						t.Errorf("replica %d: %v", i, err)
					}
				})
			}
		}
		close(begin)
		wait.Wait()
		if len(sessions) != 1 {
			t.Fatalf("token %d: %d sessions; want 1", n, len(sessions))
		}
	}

	// The last session works at the other replica, and one count holds for both.
	there, here := replicas[1-at], replicas[at]
	if last.Statements != attest.SessionStatements {
		t.Errorf("a session of %d statements", last.Statements)
	}
	artifact, req := newArtifact()
	first, err := there.client(last.Token).AttestProvenance(t.Context(), req, "")
	if err != nil {
		t.Fatalf("at the other replica: %v", err)
	}
	if page, err := here.client(last.Token).Attestations(t.Context(), artifact, "", "", 0); err != nil || len(page.Attestations) != 1 || page.Attestations[0].ID != first.ID {
		t.Errorf("read at the first replica: %+v, %v", page, err)
	}
	var (
		wait                 sync.WaitGroup
		mu                   sync.Mutex
		signed, turned, sent = 1, 0, 0
		work, toEach         = make(chan *client.Client), attest.SessionStatements/2 + 10
	)
	for range 8 {
		wait.Go(func() {
			for c := range work {
				_, req := newArtifact()
				_, err := c.AttestProvenance(t.Context(), req, "")
				mu.Lock()
				switch {
				case err == nil:
					signed++
				case errors.Is(err, attest.ErrDenied) && strings.Contains(err.Error(), "no statement left"):
					turned++
				default:
					t.Errorf("in the session: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	for one, other := here.client(last.Token), there.client(last.Token); toEach > 0; toEach-- {
		work <- one
		work <- other
		sent += 2
	}
	close(work)
	wait.Wait()
	if signed != attest.SessionStatements || turned != sent+1-signed {
		t.Errorf("%d statements in one session, %d refused; want %d", signed, turned, attest.SessionStatements)
	}
	for _, d := range replicas {
		d.stop()
	}
}

// A repository that was deleted and made again under its name has a new id: it
// is another tenant, to which nothing of the old one's is there, and for which
// nothing of it speaks.
func TestARecreatedRepositoryIsAnotherTenant(t *testing.T) {
	s := startServed(t, "", "")
	in := func(id string) *client.Client {
		session, err := exchange(t, s.daemon, s.ci.job(t, replicated, map[string]any{"repository_id": id}))
		ok(t, err)
		return s.client(session.Token)
	}
	const key = "one-and-the-same-key"
	artifact, req := newArtifact()
	old := in("74")
	made, err := old.AttestProvenance(t.Context(), req, key)
	ok(t, err)
	about := client.Artifact{Digest: artifact, Name: "app"}
	bom, err := old.AttestSBOM(t.Context(), about, []byte(sbomDocument), key+"-sbom")
	ok(t, err)
	question := client.Question{Artifact: about, Environment: "prod"}
	decided, err := old.Decide(t.Context(), question)
	if err != nil || decided.Verdict != attest.VerdictPass {
		t.Fatalf("the repository itself: %s %v, %v", decided.Verdict, decided.Reasons, err)
	}

	again := in("75")
	if page, err := again.Attestations(t.Context(), artifact, "", "", 0); err != nil || len(page.Attestations) != 0 {
		t.Errorf("%d attestations of the old repository are listed, %v", len(page.Attestations), err)
	}
	for _, id := range []string{made.ID, bom.ID} {
		if a, err := again.Attestation(t.Context(), id); !errors.Is(err, attest.ErrNotFound) || a.Bundle != nil {
			t.Errorf("the old repository's attestation: %v; want 404", err)
		}
	}
	if d, err := again.Decision(t.Context(), decided.ID); !errors.Is(err, attest.ErrNotFound) || d.VSA != nil {
		t.Errorf("the old repository's decision: %v; want 404", err)
	}
	if d, err := again.Decide(t.Context(), question); err != nil || d.Verdict != attest.VerdictNoEvidence {
		t.Errorf("its own question: %s, %v; want %s", d.Verdict, err, attest.VerdictNoEvidence)
	}
	// Issuer, subject, key and words are the old one's, and yet it is no retry.
	if a, err := again.AttestSBOM(t.Context(), about, []byte(sbomDocument), key+"-sbom"); !errors.Is(err, attest.ErrConflict) || a.Bundle != nil {
		t.Errorf("with the old repository's key: %s, %v; want a conflict", a.ID, err)
	}
	// What is the old one's is there for it still, and nothing else.
	if page, err := old.Attestations(t.Context(), artifact, attest.ProvenanceType, "", 0); err != nil || len(page.Attestations) != 1 {
		t.Errorf("the old repository reads %d of its provenance, %v", len(page.Attestations), err)
	}
}
