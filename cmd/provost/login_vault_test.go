// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"

	"provost/api"
	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
)

// TestLoginAtVault logs a person in at an issuer that we did not write: a real
// Vault as an OpenID Connect provider. The token that comes of it is one that
// the service accepts.
func TestLoginAtVault(t *testing.T) {
	server := keystest.StartVault(t)
	root := server.Root()
	write := func(path string, data map[string]any) map[string]any {
		t.Helper()
		secret, err := root.Logical().Write(path, data)
		if err != nil {
			t.Fatal(err)
		}
		if secret == nil {
			return nil
		}
		return secret.Data
	}
	if err := root.Sys().EnableAuthWithOptions("userpass", &vault.EnableAuthOptions{Type: "userpass"}); err != nil {
		t.Fatal(err)
	}
	mounts, err := root.Sys().ListAuth()
	if err != nil {
		t.Fatal(err)
	}
	write("auth/userpass/users/ada", map[string]any{"password": "lovelace", "token_policies": "login"})
	server.WritePolicy("login", `path "identity/oidc/provider/default/authorize" { capabilities = ["read", "update"] }`)
	entity := write("identity/entity", map[string]any{"name": "ada"})["id"].(string)
	write("identity/entity-alias", map[string]any{"name": "ada", "canonical_id": entity, "mount_accessor": mounts["userpass/"].Accessor})
	write("identity/oidc/client/provost", map[string]any{
		"client_type": "public", "assignments": "allow_all", "redirect_uris": "http://127.0.0.1/callback", "id_token_ttl": "30m",
	})
	registered, err := root.Logical().Read("identity/oidc/client/provost")
	if err != nil {
		t.Fatal(err)
	}
	clientID := registered.Data["client_id"].(string)

	issuer := api.Issuer{
		URL: server.Address() + "/v1/identity/oidc/provider/default", Audience: clientID,
		Algorithms: []string{"RS256"}, MaxAge: time.Hour, Provider: "oidc",
	}
	auth, err := api.NewAuthenticator([]api.Issuer{issuer},
		[]api.Rule{{Issuer: issuer.URL, Claims: map[string]string{"sub": entity}, Tenant: "acme", Roles: []attest.Role{attest.RoleApprover}}}, api.AuthOptions{})
	if err != nil {
		t.Fatal(err)
	}
	settings, err := auth.CheckLogin(api.Login{Issuer: issuer.URL, ClientID: clientID})
	if err != nil {
		t.Fatal(err)
	}
	callers := make(chan attest.Caller, 2)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/login", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(settings) })
	mux.HandleFunc("GET /v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		caller, err := auth.Authenticate(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil {
			t.Error(err)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		callers <- caller
		_ = json.NewEncoder(w).Encode(client.Whoami{Issuer: caller.Issuer, Subject: caller.Subject, Person: caller.Person != ""})
	})
	service := httptest.NewServer(mux)
	t.Cleanup(service.Close)

	env := append(os.Environ(), "PROVOST_URL="+service.URL, "PROVOST_TOKEN=", "XDG_CONFIG_HOME="+t.TempDir())
	login := exec.CommandContext(t.Context(), "provost", "login", "--no-browser")
	login.Env = env
	stderr, err := login.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := login.Start(); err != nil {
		t.Fatal(err)
	}
	printed := ""
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		printed += lines.Text() + "\n"
		if found := openTag.FindStringSubmatch(lines.Text()); found != nil {
			atVault(t, server, found[1])
		}
	}
	if err := login.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	whoami := exec.Command("provost", "whoami")
	whoami.Env = env
	if out, err := whoami.CombinedOutput(); err != nil || !strings.Contains(string(out), "is       a person") {
		t.Errorf("%v\n%s", err, out)
	}
	service.Close()
	close(callers)
	seen := 0
	for c := range callers {
		if seen++; c.Subject != entity || c.Person == "" || c.Require(attest.GrantApprove) != nil {
			t.Errorf("%+v", c)
		}
	}
	if seen != 2 { // login asks, and whoami
		t.Errorf("the service was asked %d times", seen)
	}
}

// atVault does what Vault's page does in a browser: the person logs in to
// Vault, asks it for a code, and takes that to the program.
func atVault(t *testing.T, server *keystest.VaultServer, address string) {
	t.Helper()
	page, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	person := server.Client("")
	session, err := person.Logical().Write("auth/userpass/login/ada", map[string]any{"password": "lovelace"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, server.Address()+"/v1/identity/oidc/provider/default/authorize?"+page.RawQuery, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", session.Auth.ClientToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Code, State string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Code == "" {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	back, err := http.Get(page.Query().Get("redirect_uri") + "?" + url.Values{"code": {answer.Code}, "state": {answer.State}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer back.Body.Close()
	if back.StatusCode != http.StatusOK {
		t.Errorf("%s", back.Status)
	}
}
