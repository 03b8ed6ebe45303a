// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"provost/api/client"
	"provost/attest"
)

// The tests of this package run the two programs as users do: as processes,
// over HTTP, with signals.

// programs builds both programs once and returns their directory.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "provost-programs-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "./provost", "./provostd")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// A daemon is a running provostd.
type daemon struct {
	t    testing.TB
	cmd  *exec.Cmd
	url  string
	log  *syncBuffer
	done chan struct{} // closed when the process has ended
	err  error         // of Wait, after done
}

// startDaemon runs provostd and waits until it says, on standard output or in
// its log, that it serves.
func startDaemon(t testing.TB, env []string, args ...string) *daemon {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return startCommand(t, env, exec.Command(filepath.Join(dir, "provostd"), args...))
}

// startCommand is startDaemon for a command that becomes provostd.
func startCommand(t testing.TB, env []string, command *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{t: t, log: new(syncBuffer), done: make(chan struct{}), cmd: command}
	d.cmd.Env = append([]string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	serving := make(chan string, 1)
	go func() {
		defer close(d.done)
		for lines := bufio.NewReader(stderr); ; {
			line, err := lines.ReadBytes('\n')
			_, _ = d.log.Write(line)
			var entry struct{ Msg, Address string }
			if json.Unmarshal(line, &entry) == nil && entry.Msg == "serving" {
				serving <- "http://" + entry.Address
			}
			if err != nil {
				break
			}
		}
		d.err = d.cmd.Wait()
	}()
	select {
	case d.url = <-serving:
	case <-d.done:
		t.Fatalf("provostd ended before it served: %v\n%s", d.err, d.log)
	case <-time.After(time.Minute):
		t.Fatalf("provostd does not serve\n%s", d.log)
	}
	return d
}

// startDev runs the development service on a free port.
func startDev(t testing.TB, data string, env []string, args ...string) *daemon {
	t.Helper()
	return startDaemon(t, env, append([]string{"dev", "--data", data, "--listen", "127.0.0.1:0"}, args...)...)
}

// kill is kill -9.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// ended reports whether the process has ended.
func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// stop is SIGTERM; it fails the test if the daemon does not end well.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		if d.err != nil {
			d.t.Errorf("provostd stopped with %v\n%s", d.err, d.log)
		}
	case <-time.After(time.Minute):
		d.t.Fatalf("provostd does not stop\n%s", d.log)
	}
}

// client returns a client with that token.
func (d *daemon) client(token string) *client.Client {
	return &client.Client{
		URL: d.url, HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 300}},
		Token: func(context.Context) (string, error) { return token, nil },
	}
}

// devToken asks the development issuer for a build's token.
func devToken(t testing.TB, data string, args ...string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"dev-token", "--data", data, "--repository", "acme/app", "--ref", "refs/heads/main"}, args...)
	out, err := exec.Command(filepath.Join(dir, "provostd"), args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// adminToken reads the administrator's token from cli.env.
func adminToken(t testing.TB, data string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(data, "cli.env"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "PROVOST_TOKEN=")
	token, _, _ := strings.Cut(rest, "\n")
	return token
}

// An artifact is some content nobody has attested before.
func newArtifact() (attest.Digest, client.ProvenanceRequest) {
	d := attest.SHA256([]byte(rand.Text()))
	return d, client.ProvenanceRequest{Subjects: []client.Subject{{Name: "app", Digest: map[string]string{d.Algorithm(): d.Hex()}}}}
}

// An oidcIssuer is a CI's token issuer.
type oidcIssuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newOIDCIssuer(t testing.TB) *oidcIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &oidcIssuer{key: key}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var answer any = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}}
		if strings.HasSuffix(r.URL.Path, "openid-configuration") {
			answer = map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/jwks"}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(i.Close)
	return i
}

// token mints a person's token for the service.
func (i *oidcIssuer) token(t testing.TB, audience string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": i.URL, "sub": "admin", "aud": audience, "iat": now, "nbf": now, "exp": now + 3600,
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A syncBuffer is a buffer that a process writes while a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func decodeAttestation(body []byte) (a client.Attestation, err error) {
	err = attest.DecodeJSON(body, &a)
	return a, err
}
