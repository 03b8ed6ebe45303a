// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	vault "github.com/hashicorp/vault/api"

	"provost/api"
	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
)

// A vaultIssuer is Vault's own issuer of identity tokens: one that we did not
// write.
type vaultIssuer struct {
	*keystest.VaultServer
	t      *testing.T
	url    string
	login  string // the token of who logged in
	entity string // whose id is the tokens' sub
	last   string // claims of the token before
}

// newVaultIssuer has Vault speak for a job, or a person, with that metadata. Its
// roles are job, whose tokens name the metadata as claims, and elsewhere, whose
// tokens are for somebody else.
func newVaultIssuer(t *testing.T, metadata map[string]string) *vaultIssuer {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	v := &vaultIssuer{VaultServer: keystest.StartVault(t), t: t}
	v.url = v.Address() + "/v1/identity/oidc"
	v.Write("identity/oidc/config", map[string]any{"issuer": v.Address()})
	v.Write("identity/oidc/key/ci", map[string]any{"algorithm": "ES256", "rotation_period": "24h", "verification_ttl": "24h", "allowed_client_ids": "*"})
	var members []string
	for name := range metadata {
		members = append(members, fmt.Sprintf("%q: {{identity.entity.metadata.%s}}", name, name))
	}
	template := "{" + strings.Join(members, ", ") + ` }` // not "}}}"
	for role, audience := range map[string]string{"job": replicated, "elsewhere": "https://elsewhere.example"} {
		v.Write("identity/oidc/role/"+role, map[string]any{"key": "ci", "client_id": audience, "ttl": "30m", "template": template})
	}
	ok(t, v.Root().Sys().EnableAuthWithOptions("userpass", &vault.EnableAuthOptions{Type: "userpass"}))
	mounts, err := v.Root().Sys().ListAuth()
	ok(t, err)
	v.WritePolicy("ci", `path "identity/oidc/token/*" { capabilities = ["read"] }`)
	v.Write("auth/userpass/users/acme-app", map[string]any{"password": "secret", "token_policies": "ci"})
	v.entity = v.Write("identity/entity", map[string]any{"name": "acme-app", "metadata": metadata}).Data["id"].(string)
	v.Write("identity/entity-alias", map[string]any{"name": "acme-app", "canonical_id": v.entity, "mount_accessor": mounts["userpass/"].Accessor})
	session, err := v.Client("").Logical().Write("auth/userpass/login/acme-app", map[string]any{"password": "secret"})
	ok(t, err)
	v.login = session.Auth.ClientToken
	return v
}

// token asks Vault for a token, as the job or person does. No two have the same
// claims: Vault gives no jti, so those of one second are one token.
func (v *vaultIssuer) token(role string) (token string) {
	v.t.Helper()
	ok(v.t, keystest.Poll(10*time.Second, func() bool {
		secret, err := v.Client(v.login).Logical().Read("identity/oidc/token/" + role)
		ok(v.t, err)
		token = secret.Data["token"].(string)
		claims := strings.Split(token, ".")[1]
		defer func() { v.last = claims }()
		return claims != v.last
	}))
	return token
}

// rotate has later tokens signed by a key that Vault had not published: it has
// the next one in its key set already.
func (v *vaultIssuer) rotate() {
	for range 2 {
		v.Write("identity/oidc/key/ci/rotate", map[string]any{"verification_ttl": "24h"})
	}
}

// deleteKey takes away the key of all tokens.
func (v *vaultIssuer) deleteKey() {
	v.t.Helper()
	for _, path := range []string{"role/job", "role/elsewhere", "key/ci"} {
		_, err := v.Root().Logical().Delete("identity/oidc/" + path)
		ok(v.t, err)
	}
}

// Jobs with Vault's identity tokens have provenance signed, whose fields are
// those claims that a mapping names. Rotation in Vault asks for nothing here,
// and a key that is gone speaks for nobody.
func TestVaultIdentityTokensOfJobs(t *testing.T) {
	commit := strings.Repeat("a", 40)
	v := newVaultIssuer(t, map[string]string{
		"repository_id": "74", "repository_owner_id": "65", "repository_url": "https://github.com/acme/app", "ref": "refs/heads/main", "sha": commit,
		"run_url": "https://ci.example/acme/app/runs/1", "event_name": "push", "runner": "hosted",
	})
	s := startServed(t, fmt.Sprintf("  - {url: %q, audience: %q, algorithms: [ES256], max_age: 10m, provider: oidc, mapping: {tenant: [repository_owner_id, repository_id], repository: repository_url, ref: ref, commit: sha, invocation: run_url, internal: [event_name, runner, absent]}}\n", v.url, replicated),
		fmt.Sprintf("  - {issuer: %q, claims: {repository_owner_id: \"65\"}, roles: [signer, gate]}\n", v.url))
	_, err := s.client(s.admin).PutBuilder(t.Context(), "vault", client.BuilderRequest{Issuer: v.url, Condition: `claims.repository_id == "74"`, Level: 2})
	ok(t, err)

	token := v.token("job")
	session, err := exchange(t, s.daemon, token)
	ok(t, err)
	tenant := strings.TrimPrefix(v.url, "http://") + "#65/74"
	if session.Tenant != tenant || session.Level != 2 || session.BuilderID != replicated+"/builders/vault" || session.InvocationID != "https://ci.example/acme/app/runs/1" {
		t.Errorf("%+v; want a session of tenant %s", session, tenant)
	}
	artifact, req := newArtifact()
	made, err := s.client(session.Token).AttestProvenance(t.Context(), req, "")
	ok(t, err)
	build := provenanceOf(t, made.Bundle)
	if want := (map[string]any{"source": map[string]any{"repository": "https://github.com/acme/app", "ref": "refs/heads/main"}}); !cmp.Equal(build.ExternalParameters, want) {
		t.Errorf("external parameters: %s", cmp.Diff(want, build.ExternalParameters))
	}
	if want := (map[string]any{"oidc": map[string]any{"event_name": "push", "runner": "hosted"}}); !cmp.Equal(build.InternalParameters, want) {
		t.Errorf("internal parameters: %s", cmp.Diff(want, build.InternalParameters))
	}
	if want := []attest.Resource{{URI: "git+https://github.com/acme/app@refs/heads/main", Digest: map[string]string{"gitCommit": commit}}}; !cmp.Equal(build.Dependencies, want) {
		t.Errorf("dependencies: %s", cmp.Diff(want, build.Dependencies))
	}
	if want := (attest.Origins{
		"/buildDefinition/buildType":                               attest.FromRegistry(),
		"/runDetails/builder/id":                                   attest.FromRegistry(),
		"/buildDefinition/externalParameters/source/repository":    attest.FromToken("repository_url"),
		"/buildDefinition/externalParameters/source/ref":           attest.FromToken("ref"),
		"/buildDefinition/internalParameters/oidc/event_name":      attest.FromToken("event_name"),
		"/buildDefinition/internalParameters/oidc/runner":          attest.FromToken("runner"),
		"/buildDefinition/resolvedDependencies/0/uri":              attest.FromToken("repository_url", "ref"),
		"/buildDefinition/resolvedDependencies/0/digest/gitCommit": attest.FromToken("sha"),
		"/runDetails/metadata/invocationId":                        attest.FromToken("run_url"),
	}); !cmp.Equal(build.Origins, want) {
		t.Errorf("origins: %s", cmp.Diff(want, build.Origins))
	}
	if page, err := s.client(session.Token).Attestations(t.Context(), artifact, "", "", 0); err != nil || len(page.Attestations) != 1 {
		t.Errorf("%d attestations, %v", len(page.Attestations), err)
	}

	// It has no jti, and is spent nevertheless; as it is it opens no other door.
	mustReplay(t, s.daemon, token)
	for name, bad := range map[string]string{"of another audience": v.token("elsewhere"), "cut short": v.token("job")[:200], "Vault's own": v.login} {
		if _, err := exchange(t, s.daemon, bad); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("a token %s: %v; want 401", name, err)
		}
	}
	if _, err := s.client("").Attestations(t.Context(), artifact, "", "", 0); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("without a token: %v; want 401", err)
	}

	// Vault's key is rotated: what the old one signed is good until it ends, and
	// what the new one signs as soon as we may ask for keys again.
	old := v.token("job")
	v.rotate()
	if waited := keystest.Poll(time.Minute, func() bool {
		_, err = exchange(t, s.daemon, v.token("job"))
		return err == nil
	}); waited != nil {
		t.Errorf("a token from after the rotation: %v", err)
	}
	if _, err := exchange(t, s.daemon, old); err != nil {
		t.Errorf("a token from before the rotation: %v", err)
	}

	// The job's repository is another one: so is its tenant.
	v.Write("identity/entity/id/"+v.entity, map[string]any{"metadata": map[string]string{"repository_id": "75", "repository_owner_id": "65", "repository_url": "https://github.com/acme/app",
		"ref": "refs/heads/main", "sha": commit, "run_url": "https://ci.example/acme/app/runs/2"}})
	other, err := exchange(t, s.daemon, v.token("job"))
	if err != nil || other.Tenant == tenant || other.BuilderID != "" {
		t.Errorf("another repository: %+v, %v", other, err)
	}
	if a, err := s.client(other.Token).Attestation(t.Context(), made.ID); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("another repository reads %s, %v", a.ID, err)
	}
	// What an entity does not have Vault writes as "": that names nobody.
	v.Write("identity/entity/id/"+v.entity, map[string]any{"metadata": map[string]string{"repository_owner_id": "65", "run_url": "https://ci.example/1"}})
	if s, err := exchange(t, s.daemon, v.token("job")); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("a job of no repository: %+v, %v; want 403", s, err)
	}

	// The key is deleted: whoever has not heard of it accepts nothing of it.
	last := v.token("job")
	v.deleteKey()
	s.daemon.stop()
	d := s.start(t)
	if _, err := exchange(t, d, last); !errors.Is(err, client.ErrUnauthenticated) && !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("a token of a key that was deleted: %v", err)
	}
	if _, err := d.client(session.Token).Attestation(t.Context(), made.ID); !errors.Is(err, client.ErrUnauthenticated) && !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("in a session of a token whose key was deleted: %v", err)
	}
	if strings.Contains(d.log.String(), last) {
		t.Error("a token is in the log")
	}
}

// provenanceOf is the provenance that is signed in a bundle.
func provenanceOf(t *testing.T, bundle []byte) *attest.Build {
	t.Helper()
	payload, _, err := attest.OpenUnverified(bundle)
	ok(t, err)
	var statement struct {
		Predicate json.RawMessage `json:"predicate"`
	}
	ok(t, json.Unmarshal(payload, &statement))
	build, err := attest.ParseProvenance(statement.Predicate)
	ok(t, err)
	return build
}

// People with Vault's identity tokens do what they are granted, without a
// session, and speak for no build.
func TestVaultIdentityTokensOfPeople(t *testing.T) {
	v := newVaultIssuer(t, map[string]string{"employee": "E-0042", "team": "platform"})
	s := startServed(t, fmt.Sprintf("  - {url: %q, audience: %q, algorithms: [ES256], max_age: 1h, provider: oidc, person_claim: employee}\n", v.url, replicated),
		fmt.Sprintf("  - {issuer: %q, claims: {sub: %q}, tenant: \"*\", roles: [administrator]}\n  - {issuer: %q, claims: {team: platform}, tenant: \"*\", roles: [signer]}\n", v.url, v.entity, v.url))
	person := s.client(v.token("job"))
	who, err := person.Whoami(t.Context())
	if err != nil || !who.Person || who.Subject != v.entity || who.Issuer != v.url {
		t.Errorf("%+v, %v", who, err)
	}
	isolated := client.BuilderRequest{Issuer: s.ci.URL, Condition: `claims.repository_id == "74"`, Level: 3}
	if b, err := person.PutBuilder(t.Context(), "isolated", isolated); err != nil || b.State != attest.BuilderProposed || b.ProposedBy.Key != "" {
		t.Errorf("propose a builder: %+v, %v", b, err)
	}
	artifact, req := newArtifact()
	if _, err := person.AttestProvenance(t.Context(), req, ""); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("provenance of no build: %v; want 403", err)
	}
	if _, err := person.AttestSBOM(t.Context(), client.Artifact{Digest: artifact}, []byte(sbomDocument), ""); err != nil {
		t.Errorf("an SBOM: %v", err)
	}
	if session, err := exchange(t, s.daemon, v.token("job")); !errors.Is(err, attest.ErrInvalid) || session.Token != "" {
		t.Errorf("a person's session: %v; want 400", err)
	}
	if _, err := s.client(v.token("elsewhere")).Whoami(t.Context()); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a token of another audience: %v; want 401", err)
	}
	// Who has no such claim is nobody who could be told from another.
	v.Write("identity/entity/id/"+v.entity, map[string]any{"metadata": map[string]string{"team": "platform"}})
	nobody := s.client(v.token("job"))
	if _, err := nobody.PutBuilder(t.Context(), "isolated", isolated); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("nobody proposes: %v; want 403", err)
	}
	s.daemon.stop()
}

// A key that was deleted in Vault is believed no longer than keys are kept, and
// then neither are tokens that were accepted before.
func TestAVaultKeyThatIsDeleted(t *testing.T) {
	v := newVaultIssuer(t, map[string]string{"team": "platform"})
	now := time.Now()
	auth, err := api.NewAuthenticator([]api.Issuer{{URL: v.url, Audience: replicated, Algorithms: []string{"ES256"}, MaxAge: time.Hour, Provider: "oidc"}},
		[]api.Rule{{Issuer: v.url, Claims: map[string]string{"team": "platform"}, Tenant: "acme", Roles: []attest.Role{attest.RoleReader}}},
		api.AuthOptions{Now: func() time.Time { return now }, HTTPClient: http.DefaultClient})
	ok(t, err)
	token := v.token("job")
	caller, err := auth.Authenticate(t.Context(), token)
	if err != nil || caller.Subject != v.entity || !cmp.Equal(caller.Tenants, map[string][]attest.Grant{"acme": {attest.GrantRead}}) {
		t.Errorf("%+v, %v", caller, err)
	}
	v.deleteKey()
	now = now.Add(11 * time.Minute)
	if caller, err := auth.Authenticate(t.Context(), token); err == nil || len(caller.Tenants) != 0 {
		t.Errorf("after its key was deleted: %+v, %v", caller, err)
	}
}
