// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keystest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/keys"
)

// Policies are the names of the shipped policies, in deploy/vault: one for each
// power.
const (
	PolicySignProvenance = "provost-sign-provenance"
	PolicySignEvidence   = "provost-sign-evidence"
	PolicySignVerdict    = "provost-sign-verdict"
	PolicyCA             = "provost-ca"
	PolicyTimestamp      = "provost-timestamp"
	PolicyLog            = "provost-log"
	PolicyTUF            = "provost-tuf"
	PolicyRotate         = "provost-rotate"
	PolicyRead           = "provost-read"
	PolicyInit           = "provost-init"
	PolicyToken          = "provost-token"
)

// Policies returns the names of all shipped policies.
func Policies() []string {
	return append(ServePolicies(), PolicyRead, PolicyInit)
}

// ServePolicies returns what the service needs in its daily work: not to create
// keys.
func ServePolicies() []string {
	return []string{
		PolicySignProvenance, PolicySignEvidence, PolicySignVerdict,
		PolicyCA, PolicyTimestamp, PolicyLog, PolicyTUF, PolicyRotate, PolicyToken,
	}
}

// Keys returns the names of all keys that the policies are about.
func Keys() []string {
	return []string{
		"provenance", "evidence", "verdict", "issuing-provenance", "issuing-evidence", "issuing-verdict",
		"timestamp", "log", "ctlog", "tuf",
	}
}

// serverDeadline bounds every wait for the server.
const serverDeadline = 30 * time.Second

// A VaultServer is a real Vault server, with file storage in a directory of
// the test, on loopback without TLS. It has the engines and methods transit,
// approle and jwt, and the shipped policies. Its methods fail the test rather
// than return an error.
type VaultServer struct {
	t       testing.TB
	bin     string
	dir     string // configuration, storage, log
	address string
	standby string    // the second node's; "" without one
	process *exec.Cmd // nil when stopped
	unseal  string
	root    string
}

// StartVault starts a server, which ends with the test. The binary is
// $VAULT_BIN, or bin/testbed/vault in the repository. Without one the test is
// skipped, or fails if the environment has CI=true. With -short it is skipped.
func StartVault(t testing.TB) *VaultServer {
	t.Helper()
	return startVault(t, false)
}

// StartVaultCluster starts a server with a second node, which stands by: see
// [VaultServer.Standby] and [VaultServer.StepDown]. It has no audit device. With
// $VAULT_BIN it is skipped: only our own build has two nodes in one process.
func StartVaultCluster(t testing.TB) *VaultServer {
	t.Helper()
	if os.Getenv("VAULT_BIN") != "" {
		t.Skip("NOT TESTED: $VAULT_BIN has no cluster in one process")
	}
	return startVault(t, true)
}

func startVault(t testing.TB, cluster bool) *VaultServer {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: no real Vault")
	}
	repository := repositoryRoot(t)
	bin := os.Getenv("VAULT_BIN")
	if bin == "" {
		bin = filepath.Join(repository, "bin", "testbed", "vault")
	}
	if _, err := os.Stat(bin); err != nil {
		const what = "NOT TESTED: this needs a real Vault: run `make -C deploy/testbed vault`, or set VAULT_BIN (%v)"
		if os.Getenv("CI") == "true" {
			t.Fatalf(what, err)
		}
		t.Skipf(what, err)
	}
	s := &VaultServer{t: t, bin: bin, dir: t.TempDir(), address: freeAddress(t)}
	values := map[string]any{
		"storage":           map[string]any{"file": map[string]any{"path": filepath.Join(s.dir, "storage")}},
		"listener":          map[string]any{"tcp": map[string]any{"address": s.address, "tls_disable": true}},
		"api_addr":          s.Address(),
		"disable_mlock":     true,
		"default_lease_ttl": "768h",
		"max_lease_ttl":     "768h",
	}
	if cluster {
		s.standby = freeAddress(t)
		var nodes []any
		for _, address := range []string{s.address, s.standby} {
			nodes = append(nodes, map[string]any{"tcp": map[string]any{"address": address, "cluster_address": freeAddress(t), "tls_disable": true}})
		}
		values["listener"] = nodes
		values["ha_storage"] = map[string]any{"inmem_ha": map[string]any{}}
	}
	config, err := json.Marshal(values)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.dir, "config.json"), config, 0o600))
	t.Cleanup(s.Stop)
	s.start()
	answer, err := s.client("").Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	must(t, err)
	s.unseal, s.root = answer.Keys[0], answer.RootToken
	s.Unseal()

	root := s.Root()
	must(t, root.Sys().Mount("transit", &api.MountInput{Type: "transit"}))
	must(t, root.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}))
	must(t, root.Sys().EnableAuthWithOptions("jwt", &api.EnableAuthOptions{Type: "jwt"}))
	for _, name := range Policies() {
		s.WritePolicy(name, ShippedPolicy(t, name))
	}
	return s
}

// ShippedPolicy is the text of deploy/vault/<name>.hcl.
func ShippedPolicy(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repositoryRoot(t), "deploy", "vault", name+".hcl"))
	must(t, err)
	return string(text)
}

// Address is the server's URL.
func (s *VaultServer) Address() string { return "http://" + s.address }

// Standby is the URL of the node that stands by at first.
func (s *VaultServer) Standby() string { return "http://" + s.standby }

// StepDown has the active node give up its place to the other.
func (s *VaultServer) StepDown() {
	s.t.Helper()
	client := s.Root()
	if s.Active(s.Standby()) {
		must(s.t, client.SetAddress(s.Standby()))
	}
	must(s.t, client.Sys().StepDown())
}

// Active reports whether the node at that URL is the active one.
func (s *VaultServer) Active(url string) bool {
	client := s.Root()
	must(s.t, client.SetAddress(url))
	health, err := client.Sys().Health()
	return err == nil && !health.Sealed && !health.Standby
}

// Root is a client that may do everything.
func (s *VaultServer) Root() *api.Client { return s.client(s.root) }

// Client is a client with that token.
func (s *VaultServer) Client(token string) *api.Client { return s.client(token) }

// WritePolicy writes or replaces a policy.
func (s *VaultServer) WritePolicy(name, text string) {
	s.t.Helper()
	must(s.t, s.Root().Sys().PutPolicy(name, text))
}

// Token returns a new token with these policies alone.
func (s *VaultServer) Token(ttl time.Duration, policies ...string) string {
	s.t.Helper()
	secret, err := s.Root().Auth().Token().CreateOrphan(&api.TokenCreateRequest{
		Policies: policies, NoDefaultPolicy: true, TTL: ttl.String(), ExplicitMaxTTL: "0",
	})
	must(s.t, err)
	return secret.Auth.ClientToken
}

// AppRole makes a role whose tokens have these policies alone and live for
// ttl, and returns how to log in.
func (s *VaultServer) AppRole(name string, ttl time.Duration, policies ...string) *keys.AppRole {
	s.t.Helper()
	path := "auth/approle/role/" + name
	s.Write(path, map[string]any{
		"token_policies": policies, "token_no_default_policy": true, "token_ttl": ttl.String(), "token_max_ttl": ttl.String(),
	})
	id, err := s.Root().Logical().Read(path + "/role-id")
	must(s.t, err)
	file := filepath.Join(s.dir, name+".secret-id")
	secret := s.Write(path+"/secret-id", map[string]any{})
	must(s.t, os.WriteFile(file, []byte(secret.Data["secret_id"].(string)+"\n"), 0o600))
	return &keys.AppRole{RoleID: id.Data["role_id"].(string), SecretIDFile: file}
}

// Config is how a keys.Vault reaches the server with an AppRole of these
// policies, and of the one for tokens.
func (s *VaultServer) Config(policies ...string) keys.VaultConfig {
	s.t.Helper()
	policies = append(policies, PolicyToken)
	return keys.VaultConfig{Address: s.Address(), AppRole: s.AppRole("provost-"+strings.ToLower(rand.Text()), time.Hour, policies...)}
}

// Write writes as root.
func (s *VaultServer) Write(path string, body map[string]any) *api.Secret {
	s.t.Helper()
	secret, err := s.Root().Logical().Write(path, body)
	must(s.t, err)
	return secret
}

// Seal seals the server; it answers 503 to everything.
func (s *VaultServer) Seal() {
	s.t.Helper()
	must(s.t, s.Root().Sys().Seal())
}

// Unseal unseals the server and waits until it serves.
func (s *VaultServer) Unseal() {
	s.t.Helper()
	_, err := s.client("").Sys().Unseal(s.unseal)
	must(s.t, err)
	s.poll("serve", func() bool {
		health, err := s.client("").Sys().Health()
		return err == nil && health.Initialized && !health.Sealed && !health.Standby
	})
	if s.standby != "" {
		other := s.client("")
		must(s.t, other.SetAddress(s.Standby()))
		_, err := other.Sys().Unseal(s.unseal)
		must(s.t, err)
		s.poll("stand by", func() bool {
			health, err := other.Sys().Health()
			return err == nil && !health.Sealed && health.Standby
		})
	}
}

// Stop kills the server. Nothing is lost.
func (s *VaultServer) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait() // killed
	s.process = nil
}

// Restart starts a stopped server at the same address and unseals it.
func (s *VaultServer) Restart() {
	s.t.Helper()
	s.start()
	s.Unseal()
}

// start starts the process and waits until it answers, unsealed or not.
func (s *VaultServer) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(s.t, err)
	defer log.Close() // the process has its own
	s.process = exec.Command(s.bin, "server", "-config="+filepath.Join(s.dir, "config.json"))
	s.process.Stdout, s.process.Stderr = log, log
	s.process.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")} // none of our VAULT_… variables
	must(s.t, s.process.Start())
	s.poll("answer", func() bool {
		_, err := s.client("").Sys().SealStatus()
		return err == nil
	})
}

// poll waits until the server does what is asked.
func (s *VaultServer) poll(what string, done func() bool) {
	s.t.Helper()
	if err := Poll(serverDeadline, done); err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		s.t.Fatalf("vault does not %s: %v\n%s", what, err, bytes.TrimSpace(log))
	}
}

// Poll calls done until it is true, for at most that long.
func Poll(within time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s", within)
		}
	}
	return nil
}

func (s *VaultServer) client(token string) *api.Client {
	s.t.Helper()
	client, err := api.NewClient(&api.Config{
		Address: s.Address(), HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Timeout: serverDeadline,
	})
	must(s.t, err)
	client.ClearNamespace()
	client.SetToken(token)
	return client
}

// freeAddress is a loopback address nobody listens on. Vault wants its port
// before it starts, and the same one after a restart.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// repositoryRoot is the directory with go.mod, at or above the test's.
func repositoryRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	must(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			must(t, errors.New("no go.mod above the test"))
		}
		dir = filepath.Dir(dir)
	}
}
