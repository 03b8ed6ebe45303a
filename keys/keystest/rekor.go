// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keystest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"provost/keys"
)

// A RekorServer is a real Rekor v2 server on POSIX storage, in a directory of
// the test, on loopback without TLS.
type RekorServer struct {
	t       testing.TB
	address string
	key     *ecdsa.PrivateKey
	process *exec.Cmd
}

// rekorOrigin is the origin of its checkpoints.
const rekorOrigin = "rekor.example.com"

// StartRekor starts a server, which ends with the test, at its fastest: it
// publishes a checkpoint every 100 ms, which is the shortest that it accepts,
// and batches for 10 ms. More flags are appended. The binary is $REKOR_BIN, or
// bin/testbed/rekor-server in the repository. Without one the test is skipped,
// or fails if the environment has CI=true. With -short it is skipped.
func StartRekor(t testing.TB, flags ...string) *RekorServer {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: no real Rekor")
	}
	bin := os.Getenv("REKOR_BIN")
	if bin == "" {
		bin = filepath.Join(repositoryRoot(t), "bin", "testbed", "rekor-server")
	}
	if _, err := os.Stat(bin); err != nil {
		const what = "NOT TESTED: this needs a real Rekor v2: run `make -C deploy/testbed rekor`, or set REKOR_BIN (%v)"
		if os.Getenv("CI") == "true" {
			t.Fatalf(what, err)
		}
		t.Skipf(what, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	s := &RekorServer{t: t, address: freeAddress(t), key: key}
	_, port, err := net.SplitHostPort(s.address)
	must(t, err)
	_, grpcPort, err := net.SplitHostPort(freeAddress(t))
	must(t, err)
	_, metricsPort, err := net.SplitHostPort(freeAddress(t))
	must(t, err)
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	defer log.Close() // the process has its own
	s.process = exec.Command(bin, append([]string{"serve",
		"--http-port", port, "--grpc-port", grpcPort, "--http-metrics-port", metricsPort,
		"--hostname", rekorOrigin, "--storage-dir", filepath.Join(dir, "storage"), "--signer-filepath", file,
		"--checkpoint-interval", "100ms", "--batch-max-age", "10ms", "--log-level", "warn"}, flags...)...)
	s.process.Stdout, s.process.Stderr = log, log
	s.process.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	must(t, s.process.Start())
	t.Cleanup(s.Stop)
	if err := Poll(serverDeadline, func() bool {
		resp, err := http.Get("http://" + s.address + "/healthz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}); err != nil {
		words, _ := os.ReadFile(log.Name())
		t.Fatalf("rekor does not answer: %v\n%s", err, bytes.TrimSpace(words))
	}
	return s
}

// Config is how keys.Rekor reaches the server.
func (s *RekorServer) Config() keys.RekorConfig {
	return keys.RekorConfig{URL: "http://" + s.address, Origin: rekorOrigin, PublicKey: &s.key.PublicKey}
}

// Stop kills the server.
func (s *RekorServer) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait() // killed
	s.process = nil
}
