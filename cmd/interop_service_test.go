// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
)

// devIdentity is what every development service calls itself.
const devIdentity = "https://provost.localhost"

// fromService is a development service that signs everything, with the first
// version of each key, then with the second, then with the third.
func fromService(t *testing.T) *issued {
	t.Helper()
	i := new(issued)
	stranger := startService(t)
	i.root = stranger.trustedRoot(t)
	i.foreign = stranger.attest(t)[0]
	stranger.stop()

	d := startService(t)
	var last time.Time
	for v := range versions {
		if v > 0 {
			// Timestamps carry whole seconds: no two versions share one.
			ok(t, keystest.Poll(time.Minute, func() bool { return time.Now().Truncate(time.Second).After(last) }))
			for _, power := range attest.Powers {
				if _, err := d.admin.Rotate(t.Context(), power); err != nil {
					t.Fatal(err)
				}
			}
		}
		for k, s := range d.attest(t) {
			if s.version != v+1 && s.version != 0 {
				t.Fatalf("%s was signed by key version %d, want %d", kinds[k], s.version, v+1)
			}
			i.samples[k][v], last = s, time.Now()
		}
	}
	file := filepath.Join(t.TempDir(), "trusted_root.json")
	tell := func() {
		ok(t, os.WriteFile(file, d.trustedRoot(t), 0o644))
		i.trust = trusted{file: file, mirror: d.url + "/tuf", root: filepath.Join(d.data, "tuf", "1.root.json")}
	}
	tell()
	i.revoke = func() {
		at := i.samples[0][1].signedAt.Format(time.RFC3339)
		d.provost(t, "keys", "revoke", "provenance", "--version", strconv.Itoa(i.samples[0][1].version), "--from", at, "--to", at)
		d.stop() // a development service publishes its trust root when it starts
		d.start(t)
		tell()
	}
	return i
}

// A devDaemon is a development service, and who asks it.
type devDaemon struct {
	*daemon
	data         string
	build, admin *client.Client
	artifact     attest.Digest
}

func startService(t *testing.T) *devDaemon {
	t.Helper()
	artifact, _ := newArtifact()
	d := &devDaemon{data: t.TempDir(), artifact: artifact}
	d.start(t)
	return d
}

// start starts it, also again.
func (d *devDaemon) start(t *testing.T) {
	t.Helper()
	d.daemon = startDev(t, d.data, nil)
	d.build, d.admin = d.client(devToken(t, d.data)), d.client(adminToken(t, d.data))
}

// attest has everything signed about the artifact: in the order of kinds.
func (d *devDaemon) attest(t *testing.T) (all [3]sample) {
	t.Helper()
	sampled := func(k int, power attest.Power, a client.Attestation) {
		all[k] = sample{
			bundle: a.Bundle, artifact: d.artifact, identity: devIdentity + "/signers/" + string(power), issuer: devIdentity,
			predicateType: a.PredicateType, version: a.KeyVersion, signedAt: a.SignedAt,
		}
	}
	name := map[string]string{d.artifact.Algorithm(): d.artifact.Hex()}
	a, err := d.build.AttestProvenance(t.Context(), client.ProvenanceRequest{Subjects: []client.Subject{{Name: "app", Digest: name}}}, "")
	ok(t, err)
	sampled(0, attest.PowerProvenance, a)
	a, err = d.build.AttestSBOM(t.Context(), client.Artifact{Digest: d.artifact, Name: "app"}, []byte(sbomDocument), "")
	ok(t, err)
	sampled(1, attest.PowerEvidence, a)
	decision, err := d.admin.Decide(t.Context(), client.Question{Artifact: client.Artifact{Digest: d.artifact}, Environment: "prod"})
	ok(t, err)
	if decision.Verdict != attest.VerdictPass {
		t.Fatalf("the gate says %s: %v", decision.Verdict, decision.Reasons)
	}
	sampled(2, attest.PowerVerdict, client.Attestation{Bundle: decision.VSA, PredicateType: attest.VSAType})
	return all
}

func (d *devDaemon) trustedRoot(t *testing.T) []byte {
	t.Helper()
	raw, err := d.admin.TrustedRoot(t.Context())
	ok(t, err)
	return raw
}

// provost runs the command line as the administrator.
func (d *devDaemon) provost(t *testing.T, args ...string) {
	t.Helper()
	dir, err := programs()
	ok(t, err)
	c := exec.CommandContext(t.Context(), filepath.Join(dir, "provost"), args...)
	c.Env = []string{"PROVOST_URL=" + d.url, "PROVOST_TOKEN=" + adminToken(t, d.data), "PATH=" + os.Getenv("PATH")}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("provost %v: %w\n%s", args, err, out))
	}
}

// TestInteropVault has the clients judge what a service signs whose keys are
// in a real Vault: they cannot tell it from another.
func TestInteropVault(t *testing.T) {
	d := startWithVault(t, time.Hour)
	c := d.client(d.token)
	artifact, _ := newArtifact()
	var samples []sample
	var asked []question
	for v, version := range versions {
		if v > 0 {
			if _, err := c.Rotate(t.Context(), attest.PowerEvidence); err != nil {
				t.Fatal(err)
			}
		}
		a, err := c.AttestSBOM(t.Context(), client.Artifact{Digest: artifact}, []byte(sbomDocument), "")
		ok(t, err)
		if a.KeyVersion != v+1 {
			t.Fatalf("signed by key version %d, want %d", a.KeyVersion, v+1)
		}
		s := sample{bundle: a.Bundle, artifact: artifact, identity: vaultService + "/signers/evidence", issuer: vaultService, predicateType: a.PredicateType}
		samples = append(samples, s)
		asked = append(asked, question{name: "SBOM, " + version + " key version", good: true, given: s})
	}
	for _, m := range mutations {
		q := question{name: m.name, given: samples[2]}
		q.given.bundle = mutate(t, m, samples[2].bundle, samples[0].bundle)
		asked = append(asked, q)
	}
	raw, err := c.TrustedRoot(t.Context())
	ok(t, err)
	new(matrix).run(t, "vault", newTrusted(t)(raw), asked)
}
