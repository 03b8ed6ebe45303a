// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
)

// everything is what a daemon that rotates its own signers needs.
var everything = keystest.ServePolicies()

func openVault(t testing.TB, config keys.VaultConfig) *keys.Vault {
	t.Helper()
	v, err := keys.OpenVault(t.Context(), config)
	check(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

// signVault has a constant signed by version 1 of the provenance key.
func signVault(t testing.TB, v *keys.Vault) error {
	t.Helper()
	signature, err := v.Sign(t.Context(), "provenance", 1, make([]byte, 32))
	if (err == nil) != (len(signature) > 0) {
		t.Errorf("%d bytes with error %v", len(signature), err)
	}
	return err
}

// vaultWithKeys starts a server that has all keys.
func vaultWithKeys(t testing.TB) *keystest.VaultServer {
	t.Helper()
	server := keystest.StartVault(t)
	v := openVault(t, server.Config(keystest.PolicyInit))
	for _, key := range keystest.Keys() {
		check(t, v.Create(t.Context(), key))
	}
	return server
}

func TestVault(t *testing.T) {
	server := keystest.StartVault(t)
	v := openVault(t, server.Config(keystest.PolicySignProvenance, keystest.PolicySignVerdict, keystest.PolicyRotate, keystest.PolicyInit))
	keystest.Backend(t, func(t *testing.T) keystest.Full {
		for _, key := range []string{"provenance", "verdict"} {
			path := "transit/keys/provost-" + key
			secret, err := server.Root().Logical().Read(path)
			check(t, err)
			if secret == nil {
				continue
			}
			server.Write(path+"/config", map[string]any{"deletion_allowed": true})
			_, err = server.Root().Logical().Delete(path)
			check(t, err)
		}
		return v
	})
}

// TestVaultAuthority runs a whole authority on Vault: a ceremony initialises,
// and the daemon then has no right to create keys.
func TestVaultAuthority(t *testing.T) {
	server := keystest.StartVault(t)
	config, store, _ := newConfig(t)
	config.Backend = openVault(t, server.Config(keystest.PolicyInit, keystest.PolicyCA))
	check(t, keys.Init(t.Context(), config, dropRoot))

	daemon := openVault(t, server.Config(everything...))
	config.Backend = daemon
	a, err := keys.Open(t.Context(), pin(t, config))
	check(t, err)
	check(t, a.Ready(t.Context()))
	for _, p := range attest.Powers {
		_, err := a.Rotate(t.Context(), p)
		check(t, err)
		if sig, err := signOnce(t.Context(), a, p); err != nil || sig.Version != 2 {
			t.Errorf("%s: version %d, %v", p, sig.Version, err)
		}
	}
	_, err = a.Timestamp(t.Context(), []byte("signature"))
	check(t, err)

	// Version 2 is retired behind our back: version 3 takes over by itself.
	server.Write("transit/keys/provost-evidence/rotate", nil)
	server.Write("transit/keys/provost-evidence/config", map[string]any{"min_encryption_version": 3})
	if sig, err := signOnce(t.Context(), a, attest.PowerEvidence); err != nil || sig.Version != 3 {
		t.Errorf("after retiring: version %d, %v", sig.Version, err)
	}
	// Old public keys become invisible: the archive still has them.
	server.Write("transit/keys/provost-evidence/config", map[string]any{"min_decryption_version": 3})
	a, err = keys.Open(t.Context(), pin(t, config))
	check(t, err)
	all, err := a.Keys(t.Context())
	check(t, err)
	if len(all[1].Versions) != 3 || store.names()["evidence"] != 3 {
		t.Errorf("evidence: %v", all[1].Versions)
	}
}

// TestVaultSelfAudit: what serves is in order, each thing that is too little or
// too much is found, and looking for it changes nothing.
func TestVaultSelfAudit(t *testing.T) {
	server := vaultWithKeys(t)
	audit := func(v *keys.Vault) []string {
		t.Helper()
		found, err := v.SelfAudit(t.Context())
		check(t, err)
		return found
	}
	state := func() map[string]any {
		all := make(map[string]any)
		for _, key := range keystest.Keys() {
			secret, err := server.Root().Logical().Read("transit/keys/provost-" + key)
			check(t, err)
			all[key] = secret.Data
		}
		return all
	}
	before := state()
	daemon := openVault(t, server.Config(everything...))
	if found := audit(daemon); len(found) > 0 {
		t.Errorf("the shipped policies allow too much or too little: %q", found)
	}

	for _, missing := range []struct {
		policy string
		found  []string
	}{
		{keystest.PolicyRotate, []string{
			"transit/keys/provost-evidence/config: lacks update", "transit/keys/provost-evidence/rotate: lacks update",
			"transit/keys/provost-provenance/config: lacks update", "transit/keys/provost-provenance/rotate: lacks update",
			"transit/keys/provost-verdict/config: lacks update", "transit/keys/provost-verdict/rotate: lacks update",
		}},
		{keystest.PolicyTimestamp, []string{"transit/keys/provost-timestamp: lacks read", "transit/sign/provost-timestamp: lacks update"}},
		{keystest.PolicyTUF, []string{"transit/keys/provost-tuf: lacks read", "transit/sign/provost-tuf: lacks update"}},
		{keystest.PolicyLog, []string{
			"transit/keys/provost-ctlog: lacks read", "transit/keys/provost-log: lacks read",
			"transit/sign/provost-ctlog: lacks update", "transit/sign/provost-log: lacks update",
		}},
	} {
		without := slices.DeleteFunc(slices.Clone(everything), func(policy string) bool { return policy == missing.policy })
		if diff := cmp.Diff(missing.found, audit(openVault(t, server.Config(without...)))); diff != "" {
			t.Errorf("without %s: %s", missing.policy, diff)
		}
	}
	found := audit(openVault(t, server.Config())) // may only log in
	if len(found) != 10+10+3+3 || !slices.Contains(found, "transit/sign/provost-issuing-verdict: lacks update") {
		t.Errorf("a token that may nothing: %q", found)
	}

	const sign, config = "transit/sign/provost-log", "transit/keys/provost-verdict/config"
	rules := func(required, allowed, denied string) string {
		return fmt.Sprintf(`path %q { capabilities = ["update"]
			required_parameters = [%s]
			allowed_parameters = { %s }
			denied_parameters = { %s } }`, sign, required, allowed, denied)
	}
	const (
		both    = `"key_version", "prehashed"`
		pinned  = `"key_version" = ["1*", "2*"]`
		hashed  = `"prehashed" = [true]`
		as      = `"hash_algorithm" = ["sha2-256"], "marshaling_algorithm" = ["asn1"]`
		inputs  = `"input" = [], "batch_input" = []`
		nothing = `"key_version" = [""], "prehashed" = [""]`
	)
	join := func(parts ...string) string { return strings.Join(parts, ", ") }
	for _, extra := range []struct {
		name, policy, text string
		found              []string
	}{
		{"export", keystest.PolicyRead, `path "transit/export/signing-key/provost-tuf" { capabilities = ["read"] }`,
			[]string{"transit/export/signing-key/provost-tuf: read"}},
		{"write policies", keystest.PolicyRead, `path "sys/policies/acl/*" { capabilities = ["create", "update"] }`,
			[]string{"sys/policies/acl/provost-token: create update"}},
		{"create keys", keystest.PolicyRead, `path "transit/keys/provost-log" { capabilities = ["read", "update"] }`,
			[]string{"transit/keys/provost-log: read update"}},
		{"rotate the timestamp key", keystest.PolicyRead, `path "transit/keys/provost-timestamp/rotate" { capabilities = ["update"] }`,
			[]string{"transit/keys/provost-timestamp/rotate: update"}},
		{"configure what it rotates not", keystest.PolicyRead,
			`path "transit/keys/provost-tuf/config" { capabilities = ["update"] allowed_parameters = { "min_encryption_version" = [] } }`,
			[]string{"transit/keys/provost-tuf/config: update"}},
		{"configure anything", keystest.PolicyRotate, `path "` + config + `" { capabilities = ["update"] }`,
			[]string{
				config + ": may set allow_plaintext_backup", config + ": may set auto_rotate_period", config + ": may set deletion_allowed",
				config + ": may set exportable", config + ": may set exportable while it retires", config + ": may set min_decryption_version",
			}},
		{"configure more, if it retires", keystest.PolicyRead, `path "` + config + `" { capabilities = ["update"] allowed_parameters = { "*" = [] } }`,
			[]string{config + ": may set exportable while it retires"}},
		{"hide old public keys", keystest.PolicyRotate, strings.Replace(keystest.ShippedPolicy(t, keystest.PolicyRotate),
			`path "transit/keys/provost-verdict/config" {
  capabilities        = ["update"]
  required_parameters = ["min_encryption_version"]
  allowed_parameters  = {`, `path "transit/keys/provost-verdict/config" {
  capabilities        = ["update"]
  allowed_parameters  = { "min_decryption_version" = []`, 1),
			[]string{config + ": may set min_decryption_version"}},
		{"sign anyhow", keystest.PolicyLog, `path "` + sign + `" { capabilities = ["update"] }`, []string{
			sign + ": may sign a batch without key_version", sign + ": may sign in another form",
			sign + ": may sign what is not hashed", sign + ": may sign with another hash",
			sign + `: may sign with key_version ""`, sign + `: may sign with key_version "0"`,
			sign + ": may sign with key_version 0", sign + ": may sign with key_version null",
			sign + `: may sign with prehashed ""`, sign + ": may sign without key_version", sign + ": may sign without prehashed",
		}},
		{"no version", keystest.PolicyLog, rules(`"prehashed"`, join(pinned, hashed, as, inputs), nothing),
			[]string{sign + ": may sign a batch without key_version", sign + ": may sign without key_version"}},
		{"the empty version", keystest.PolicyLog, rules(both, join(pinned, hashed, as, inputs), `"prehashed" = [""]`),
			[]string{sign + `: may sign with key_version ""`}},
		{"any version", keystest.PolicyLog, rules(both, join(`"key_version" = []`, hashed, as, inputs), nothing),
			[]string{sign + `: may sign with key_version "0"`, sign + ": may sign with key_version 0", sign + ": may sign with key_version null"}},
		{"the empty prehashed", keystest.PolicyLog, rules(both, join(pinned, hashed, as, inputs), `"key_version" = [""]`),
			[]string{sign + `: may sign with prehashed ""`}},
		{"no prehashed", keystest.PolicyLog, rules(`"key_version"`, join(pinned, hashed, as, inputs), nothing),
			[]string{sign + `: may sign without prehashed`}},
		{"any form", keystest.PolicyLog, rules(both, join(pinned, hashed, inputs, `"hash_algorithm" = [], "marshaling_algorithm" = []`), nothing),
			[]string{sign + ": may sign in another form", sign + ": may sign with another hash"}},
		{"batches of certificates", keystest.PolicyCA, strings.Replace(keystest.ShippedPolicy(t, keystest.PolicyCA), `"input"`, `"batch_input" = []
    "input"`, 1), []string{"transit/sign/provost-issuing-provenance: may sign a batch"}},
	} {
		t.Run("may "+extra.name, func(t *testing.T) {
			server.WritePolicy(extra.policy, extra.text)
			defer server.WritePolicy(extra.policy, keystest.ShippedPolicy(t, extra.policy))
			found := audit(openVault(t, server.Config(append([]string{keystest.PolicyRead}, everything...)...)))
			// Replacing provost-log takes the other log's key away.
			found = slices.DeleteFunc(found, func(line string) bool { return strings.Contains(line, "lacks") })
			if diff := cmp.Diff(extra.found, found); diff != "" {
				t.Error(diff)
			}
		})
	}
	root := openVault(t, keys.VaultConfig{Address: server.Address(), Token: keys.Secret(server.Root().Token())})
	for _, want := range []string{"transit/keys/provost-verdict/config: may set exportable", "sys/remount: root", sign + ": may sign without key_version"} {
		if found := audit(root); !slices.Contains(found, want) {
			t.Errorf("root: %q not in %q", want, found)
		}
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("the audit changed keys: %s", diff)
	}
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := daemon.SelfAudit(ctx); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("without Vault: %v", err)
	}
}

func TestVaultRefusesDegradedKeys(t *testing.T) {
	server := keystest.StartVault(t)
	v := openVault(t, server.Config(keystest.PolicySignProvenance, keystest.PolicyInit))
	const path = "transit/keys/provost-provenance"
	for _, test := range []struct {
		name           string
		create, config map[string]any
		words          string
	}{
		{"deletable", nil, map[string]any{"deletion_allowed": true}, "deletion_allowed"},
		{"exportable", map[string]any{"exportable": true}, nil, "exportable"},
		{"exportable later", nil, map[string]any{"exportable": true}, "exportable"},
		{"with plaintext backups", nil, map[string]any{"allow_plaintext_backup": true}, "plaintext backups"},
		{"of another type", map[string]any{"type": "ed25519"}, nil, "ed25519"},
		{"for derivation", map[string]any{"type": "aes256-gcm96", "derived": true}, nil, "aes256-gcm96"},
	} {
		t.Run(test.name, func(t *testing.T) {
			create := map[string]any{"type": "ecdsa-p256"}
			for k, v := range test.create {
				create[k] = v
			}
			server.Write(path, create)
			if test.config != nil {
				server.Write(path+"/config", test.config)
			}
			for what, call := range map[string]func() error{
				"versions": func() error { _, err := v.Versions(t.Context(), "provenance"); return err },
				"create":   func() error { return v.Create(t.Context(), "provenance") },
			} {
				if err := call(); !errors.Is(err, keys.ErrDegraded) || !strings.Contains(err.Error(), test.words) {
					t.Errorf("%s: %v", what, err)
				}
			}
			server.Write(path+"/config", map[string]any{"deletion_allowed": true})
			_, err := server.Root().Logical().Delete(path)
			check(t, err)
		})
	}
}

func TestVaultIgnoresTheEnvironment(t *testing.T) {
	server := vaultWithKeys(t)
	config := server.Config(keystest.PolicySignProvenance)
	for _, name := range []string{"VAULT_ADDR", "VAULT_AGENT_ADDR", "VAULT_PROXY_ADDR", "HTTP_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	t.Setenv("VAULT_TOKEN", "wrong")
	t.Setenv("VAULT_NAMESPACE", "wrong")
	t.Setenv("VAULT_HEADERS", `{"X-Wrong":"wrong"}`)
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	check(t, signVault(t, openVault(t, config)))
}

func TestVaultTLS(t *testing.T) {
	server := vaultWithKeys(t)
	target, err := url.Parse(server.Address())
	check(t, err)
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // it logs the handshake we refuse
	front.StartTLS()
	defer front.Close()
	config := server.Config(keystest.PolicySignProvenance)
	config.Address = front.URL
	if _, err := keys.OpenVault(t.Context(), config); err == nil || errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("believed an unknown CA: %v", err)
	}
	config.CACertFile = filepath.Join(t.TempDir(), "ca.pem")
	check(t, os.WriteFile(config.CACertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600))
	check(t, signVault(t, openVault(t, config)))
}

func TestVaultJWT(t *testing.T) {
	server := vaultWithKeys(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	check(t, err)
	server.Write("auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), "bound_issuer": "https://cluster",
	})
	server.Write("auth/jwt/role/provost", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": "system:serviceaccount:provost:provost",
		"token_policies": []string{keystest.PolicySignProvenance, keystest.PolicyToken}, "token_no_default_policy": true,
	})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	check(t, err)
	file := filepath.Join(t.TempDir(), "token")
	write := func(subject string) string {
		raw, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: "https://cluster", Audience: jwt.Audience{"vault"}, Subject: subject,
			Expiry: jwt.NewNumericDate(time.Now().Add(time.Minute)), IssuedAt: jwt.NewNumericDate(time.Now())}).Serialize()
		check(t, err)
		check(t, os.WriteFile(file, []byte(raw+"\n"), 0o600))
		return raw
	}
	config := keys.VaultConfig{Address: server.Address(), JWT: &keys.JWT{Role: "provost", TokenFile: file}}
	write("system:serviceaccount:provost:provost")
	check(t, signVault(t, openVault(t, config)))
	raw := write("system:serviceaccount:default:default")
	if _, err := keys.OpenVault(t.Context(), config); !errors.Is(err, keys.ErrBackendDenied) || strings.Contains(err.Error(), raw) {
		t.Errorf("another subject: %v", err)
	}
}

func TestVaultConfigRefuses(t *testing.T) {
	token := keys.VaultConfig{Address: "http://127.0.0.1:8200", Token: "x"}
	with := func(change func(*keys.VaultConfig)) keys.VaultConfig {
		c := token
		change(&c)
		return c
	}
	for name, c := range map[string]keys.VaultConfig{
		"nothing":              {},
		"no address":           with(func(c *keys.VaultConfig) { c.Address = "" }),
		"no scheme":            with(func(c *keys.VaultConfig) { c.Address = "127.0.0.1:8200" }),
		"http beyond loopback": with(func(c *keys.VaultConfig) { c.Address = "http://vault.example.com:8200" }),
		"a password":           with(func(c *keys.VaultConfig) { c.Address = "https://u:p@vault.example.com" }),
		"no credential":        with(func(c *keys.VaultConfig) { c.Token = "" }),
		"two credentials":      with(func(c *keys.VaultConfig) { c.TokenFile = "/x" }),
		"half an AppRole":      with(func(c *keys.VaultConfig) { c.Token = ""; c.AppRole = &keys.AppRole{RoleID: "x"} }),
		"half a JWT":           with(func(c *keys.VaultConfig) { c.Token = ""; c.JWT = &keys.JWT{Role: "x"} }),
	} {
		if _, err := keys.OpenVault(t.Context(), c); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	c := keys.VaultConfig{Token: "hvs.secret"}
	encoded, err := json.Marshal(c.Token)
	check(t, err)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %q %s", c, c, c.Token, c.Token), string(encoded)} {
		if strings.Contains(s, "hvs") {
			t.Error(s)
		}
	}
}
