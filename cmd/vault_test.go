// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"provost/attest"
	"provost/keys/keystest"
)

const vaultService = "https://provost.example.com"

// A vaultDaemon is `provostd serve` with its keys in a real Vault, logged in by
// AppRole under the shipped policies.
type vaultDaemon struct {
	*daemon
	vault  *keystest.VaultServer
	slow   *slowProxy
	token  string
	data   string
	config string // the file, for another process of the same service
}

// An asked is what a test's service has that others have not.
type asked struct {
	tokenTTL time.Duration // of its Vault tokens
	timeout  time.Duration // of a request
	keys     string        // more lines of the configuration's block keys
	more     string        // more lines at its end
	cluster  bool          // Vault has a second node
	// between, if there is one, is put before Vault and returns its own address.
	between func(vault string) string
}

// startWithVault starts a service that keeps a log. more is put at the end of
// the configuration.
func startWithVault(t *testing.T, tokenTTL time.Duration, more ...string) *vaultDaemon {
	t.Helper()
	return startAsked(t, asked{tokenTTL: tokenTTL, timeout: 3 * time.Second, more: strings.Join(more, "")})
}

func startAsked(t *testing.T, ask asked) *vaultDaemon {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	start := keystest.StartVault
	if ask.cluster {
		start = keystest.StartVaultCluster
	}
	v := start(t)
	address := strings.TrimPrefix(v.Address(), "http://")
	if ask.between != nil {
		address = ask.between(address)
	}
	proxy := newSlowProxy(t, address)
	people := newOIDCIssuer(t)
	data := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, ttl time.Duration, policies ...string) string {
		role := v.AppRole(name, ttl, policies...)
		path := filepath.Join(data, name+".yaml")
		config := fmt.Sprintf(`service: %s
listen: 127.0.0.1:0
database: provost.db
request_timeout: %s
keys:
  offline_root: .
  root_certificate: root.pem
  offline_root_recipient: %s
  vault:
    address: http://%s
    approle: {role_id: %q, secret_id_file: %q}
%slog: {directory: log}
issuers:
  - {url: %q, audience: %q, algorithms: [ES256], max_age: 1h, provider: oidc}
access:
  - {issuer: %q, claims: {sub: admin}, tenant: "*", grants: ["attest:sbom", decide, read, "keys:rotate"]}
environments:
  prod:
    builders: [{id: "https://provost.example.com/builders/ci", level: 2}]
    sources: [{repository: "https://github.com/acme/app", refs: [refs/heads/main]}]
%s`, vaultService, ask.timeout, identity.Recipient(), proxy.address, role.RoleID, role.SecretIDFile, ask.keys,
			people.URL, vaultService, people.URL, ask.more)
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	ceremony := write("init", time.Hour, keystest.PolicyInit, keystest.PolicyCA, keystest.PolicyLog, keystest.PolicyToken)
	if out, err := exec.Command(filepath.Join(dir, "provostd"), "init", "--config", ceremony).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	d := &vaultDaemon{vault: v, slow: proxy, token: people.token(t, vaultService), data: data,
		config: write("serve", ask.tokenTTL, keystest.ServePolicies()...)}
	d.daemon = startDaemon(t, nil, "serve", "--config", d.config)
	return d
}

// another starts a second process of the same service: the same Vault,
// database and log directory.
func (d *vaultDaemon) another(t *testing.T) *vaultDaemon {
	t.Helper()
	replica := *d
	replica.daemon = startDaemon(t, nil, "serve", "--config", d.config)
	return &replica
}

const sbomDocument = `{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}`

// sign asks once for an attestation and returns the status and Retry-After.
func (d *vaultDaemon) sign(t *testing.T) (status int, retryAfter string, body []byte) {
	t.Helper()
	artifact, _ := newArtifact()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/attestations/sbom?digest="+artifact.String(), strings.NewReader(sbomDocument))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("the service went away: %v\n%s", err, d.log)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Retry-After"), body
}

func (d *vaultDaemon) ready(t *testing.T) int {
	t.Helper()
	resp, err := http.Get(d.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// mustRecover waits until the service signs and is ready again, by itself.
func (d *vaultDaemon) mustRecover(t *testing.T) {
	t.Helper()
	if err := keystest.Poll(time.Minute, func() bool {
		status, _, _ := d.sign(t)
		return status == http.StatusCreated
	}); err != nil {
		t.Fatalf("does not sign again: %v\n%s", err, d.log)
	}
	if err := keystest.Poll(time.Minute, func() bool { return d.ready(t) == http.StatusOK }); err != nil {
		t.Fatalf("is not ready again: %v", err)
	}
}

// mustRefuse asks for a signature while something is wrong: there is none, the
// answer is of the right class and leaks nothing, and /readyz tells.
func (d *vaultDaemon) mustRefuse(t *testing.T, what string, temporary bool) {
	t.Helper()
	status, retry, body := d.sign(t)
	switch {
	case temporary && (status != http.StatusServiceUnavailable || retry == ""):
		t.Errorf("%s: %d, Retry-After %q: want 503 with Retry-After\n%s", what, status, retry, body)
	case !temporary && status != http.StatusInternalServerError:
		t.Errorf("%s: %d: want 500\n%s", what, status, body)
	}
	for _, leak := range []string{"vault", "Vault", "transit", "permission", "hvs.", "bundle"} {
		if strings.Contains(string(body), leak) {
			t.Errorf("%s: the answer says %q: %s", what, leak, body)
		}
	}
	if err := keystest.Poll(30*time.Second, func() bool { return d.ready(t) == http.StatusServiceUnavailable }); err != nil {
		t.Errorf("%s: /readyz does not tell: %v", what, err)
	}
}

// Every way in which Vault fails: nothing is signed half, the answer says
// whether to try again, /readyz tells, and when Vault is back so is the service.
func TestVaultFaults(t *testing.T) {
	d := startWithVault(t, time.Hour)
	d.mustRecover(t)
	take := func(policy string) (begin, mend func()) {
		return func() { d.vault.WritePolicy(policy, `path "none" { capabilities = ["read"] }`) },
			func() { d.vault.WritePolicy(policy, keystest.ShippedPolicy(t, policy)) }
	}
	type fault struct {
		name        string
		begin, mend func()
		temporary   bool
	}
	faults := []fault{
		{name: "sealed", begin: d.vault.Seal, mend: d.vault.Unseal, temporary: true},
		{name: "unreachable", begin: d.vault.Stop, mend: d.vault.Restart, temporary: true},
		{name: "slow", begin: func() { d.slow.delay.Store(int64(5 * time.Second)) }, mend: func() { d.slow.delay.Store(0) }, temporary: true},
		// One call in half a minute, and that one is spent by the first who asks.
		{name: "over quota", temporary: true,
			begin: func() {
				d.vault.Write("sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
				d.vault.Write("sys/quotas/rate-limit/sign", map[string]any{"path": "transit/sign/provost-evidence", "rate": 1, "interval": "30s"})
				_, _, _ = d.sign(t)
			},
			mend: func() {
				if _, err := d.vault.Root().Logical().Delete("sys/quotas/rate-limit/sign"); err != nil {
					t.Fatal(err)
				}
			}},
	}
	for _, policy := range []string{keystest.PolicySignEvidence, keystest.PolicyTimestamp, keystest.PolicyLog} {
		begin, mend := take(policy)
		faults = append(faults, fault{name: "without " + policy, begin: begin, mend: mend})
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			fault.begin()
			d.mustRefuse(t, fault.name, fault.temporary)
			fault.mend()
			d.mustRecover(t)
		})
	}

	// What a signature does not need stops no signature, and is told.
	for policy, fails := range map[string]struct{ rotation, ready bool }{
		keystest.PolicyCA:             {rotation: true, ready: true},
		keystest.PolicyRotate:         {rotation: true},
		keystest.PolicySignProvenance: {ready: true},
		keystest.PolicySignVerdict:    {ready: true},
		keystest.PolicyTUF:            {},
	} {
		t.Run("without "+policy, func(t *testing.T) {
			begin, mend := take(policy)
			begin()
			if status, _, body := d.sign(t); status != http.StatusCreated {
				t.Errorf("%d: want 201\n%s", status, body)
			}
			if fails.ready {
				if err := keystest.Poll(30*time.Second, func() bool { return d.ready(t) == http.StatusServiceUnavailable }); err != nil {
					t.Errorf("/readyz does not tell: %v", err)
				}
			}
			if fails.rotation {
				if _, err := d.client(d.token).Rotate(t.Context(), attest.PowerEvidence); err == nil {
					t.Error("rotated nevertheless")
				}
				if status, _, body := d.sign(t); status != http.StatusCreated {
					t.Errorf("after a rotation that failed: %d: want 201\n%s", status, body)
				}
			}
			mend()
			d.mustRecover(t)
			if _, err := d.client(d.token).Rotate(t.Context(), attest.PowerEvidence); err != nil {
				t.Errorf("rotate with the policy back: %v", err)
			}
			d.mustRecover(t)
		})
	}
	if strings.Contains(d.log.String(), "hvs.") {
		t.Error("a Vault token stands in the log")
	}
	d.mustExplainLog(t)
	d.stop()
}

// mustExplainLog: what was refused was released to nobody, neither by an answer
// nor by what is stored: every entry of the log that no attestation has is an
// open intent's, and a restart tells each of them.
func (d *vaultDaemon) mustExplainLog(t *testing.T) {
	t.Helper()
	again := d.another(t)
	_, _ = checkLog(t, again.daemon, d.data, "provost.example.com")
	again.stop()
}

// The active node steps down under load, twice, while the service keeps to the
// address of one: a standby forwards, and while there is no active node the
// service waits. No caller sees an error.
func TestVaultStandby(t *testing.T) {
	d := startAsked(t, asked{tokenTTL: time.Hour, timeout: time.Minute, cluster: true})
	d.mustRecover(t)
	l := newLoad()
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range rotationCallers {
		callers.Go(func() {
			for ctx.Err() == nil {
				l.sign(t.Context(), d)
			}
		})
	}
	grows := func() {
		t.Helper()
		n := l.count()
		if err := keystest.Poll(time.Minute, func() bool { return l.count() >= n+2*rotationCallers }); err != nil {
			t.Errorf("does not sign: %v\n%s", err, failures(d.log))
		}
	}
	grows()
	for _, active := range []string{d.vault.Standby(), d.vault.Address()} {
		d.vault.StepDown()
		if err := keystest.Poll(time.Minute, func() bool { return d.vault.Active(active) }); err != nil {
			t.Fatalf("%s does not become active: %v", active, err)
		}
		grows()
	}
	stop()
	callers.Wait()
	for _, err := range l.errs {
		t.Error(err)
	}
	t.Logf("%d bundles, the longest wait was %s", len(l.got), l.worst.Round(time.Millisecond))
	believed(t, d, l.got)
	d.stop()
	d.mustExplainLog(t)
}

// A token that runs out in mid-run is replaced by logging in again, without an
// error to anybody.
func TestVaultTokenExpiresInMidRun(t *testing.T) {
	d := startWithVault(t, 3*time.Second)
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		if status, _, body := d.sign(t); status != http.StatusCreated {
			t.Fatalf("after %s: %d %s\n%s", time.Since(start), status, body, d.log)
		}
	}
}

// A token that is revoked is replaced too.
func TestVaultTokenRevoked(t *testing.T) {
	d := startWithVault(t, time.Hour)
	d.mustRecover(t)
	d.vault.Write("sys/leases/revoke-prefix/auth/approle", nil)
	if status, _, body := d.sign(t); status != http.StatusCreated {
		t.Fatalf("after its token was revoked: %d %s\n%s", status, body, d.log)
	}
}

// `config check` proves the configuration on the running Vault, and sees a
// policy that grants too much.
func TestConfigCheckOnVault(t *testing.T) {
	d := startWithVault(t, time.Hour)
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	check := func() (string, error) {
		out, err := exec.Command(filepath.Join(dir, "provostd"), "config", "check", "--config", filepath.Join(d.data, "serve.yaml")).CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil {
		t.Errorf("under the shipped policies: %v\n%s", err, out)
	}
	d.vault.WritePolicy(keystest.PolicySignEvidence, keystest.ShippedPolicy(t, keystest.PolicySignEvidence)+`
path "transit/export/*" { capabilities = ["read"] }`)
	if out, err := check(); err == nil || !strings.Contains(out, "export") {
		t.Errorf("with export granted: %v\n%s", err, out)
	}
}

// A slowProxy passes bytes on after a delay.
type slowProxy struct {
	address string
	delay   atomic.Int64 // nanoseconds
}

func newSlowProxy(t *testing.T, to string) *slowProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &slowProxy{address: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.carry(in, to)
		}
	}()
	return p
}

// carry waits before each piece that goes in; what comes out is not delayed.
func (p *slowProxy) carry(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { _, _ = io.Copy(in, out); in.Close() }()
	for buffer := make([]byte, 32<<10); ; {
		n, err := in.Read(buffer)
		if n > 0 {
			time.Sleep(time.Duration(p.delay.Load()))
			if _, err := out.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
