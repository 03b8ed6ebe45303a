// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
	"provost/verify"
)

// The disk under the database fills up for real: a small tmpfs in a mount
// namespace. Signing answers 503, nothing that was acknowledged is lost, and
// when there is room again the service goes on by itself.
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers")
	}
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: this needs a mount namespace, which is not to be had here: %v %s", err, out)
	}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	people := newOIDCIssuer(t)
	data := t.TempDir()
	disk := filepath.Join(data, "disk")
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{disk, filepath.Join(data, "keys")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`service: %s
listen: 127.0.0.1:0
database: disk/provost.db
keys:
  offline_root: .
  root_certificate: root.pem
  offline_root_recipient: %s
  file: {directory: keys, identity_env: KEYRING}
issuers:
  - {url: %q, audience: %q, algorithms: [ES256], max_age: 1h, provider: oidc}
access:
  - {issuer: %q, claims: {sub: admin}, tenant: "*", grants: ["attest:sbom", decide, read]}
environments:
  prod:
    builders: [{id: "https://provost.example.com/builders/ci", level: 2}]
    sources: [{repository: "https://github.com/acme/app", refs: [refs/heads/main]}]
`, vaultService, identity.Recipient(), people.URL, vaultService, people.URL)
	file := filepath.Join(data, "provost.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `mount -t tmpfs -o size=8m tmpfs "$1" && "$2" init --config "$3" >&2 && exec "$2" serve --config "$3"`
	started := startCommand(t, []string{"KEYRING=" + identity.String()},
		exec.Command("unshare", "-rm", "sh", "-c", script, "sh", disk, filepath.Join(dir, "provostd"), file))
	d := &vaultDaemon{daemon: started, token: people.token(t, vaultService)}
	c := d.client(d.token)

	var got []client.Attestation
	acknowledge := func() error {
		status, _, body := d.sign(t)
		if status != http.StatusCreated {
			return fmt.Errorf("%d %s", status, body)
		}
		a, err := decodeAttestation(body)
		got = append(got, a)
		return err
	}
	for range 20 {
		if err := acknowledge(); err != nil {
			t.Fatal(err)
		}
	}

	// Fill what is left. The namespace's disk is reached through /proc.
	filler := fmt.Sprintf("/proc/%d/root%s/filler", d.cmd.Process.Pid, disk)
	if err := fill(filler); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk did not fill: %v", err)
	}
	refused := 0
	for range 200 { // room in the log that SQLite already has may serve a few
		if status, retry, body := d.sign(t); status == http.StatusServiceUnavailable {
			refused++
			if retry == "" || bytes.Contains(body, []byte(disk)) || bytes.Contains(body, []byte("bundle")) {
				t.Fatalf("Retry-After %q: %s", retry, body)
			}
			if refused == 5 {
				break
			}
		} else if status != http.StatusCreated {
			t.Fatalf("with the disk full: %d %s\n%s", status, body, d.log)
		}
	}
	if refused == 0 {
		t.Fatal("the disk is full, and 200 signatures were acknowledged")
	}
	if d.ready(t) != http.StatusServiceUnavailable {
		t.Error("/readyz does not tell")
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.mustRecover(t)
	root, err := c.TrustedRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trust, err := verify.ParseTrust(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		kept, err := c.Attestation(t.Context(), r.ID)
		if err != nil || !bytes.Equal(kept.Bundle, r.Bundle) {
			t.Fatalf("acknowledged %s: now %v", r.ID, err)
		}
		subject, err := subjectOf(kept.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Verify(kept.Bundle, verify.Expect{Artifact: subject}); err != nil {
			t.Fatalf("acknowledged %s does not verify: %v", r.ID, err)
		}
	}
	if err := keystest.Poll(10*time.Second, func() bool { return d.ready(t) == http.StatusOK }); err != nil {
		t.Error(err)
	}
}

// fill writes until there is no room.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 4096)
	_, _ = rand.Read(block)
	for range 1 << 20 {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func subjectOf(bundle []byte) (attest.Digest, error) {
	var b struct {
		DSSEEnvelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := attest.DecodeOpenJSON(bundle, &b); err != nil {
		return attest.Digest{}, err
	}
	s, err := attest.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return attest.Digest{}, err
	}
	return s.Subjects[0].SHA256, nil
}
