// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"provost/api/client"
	"provost/attest"
	"provost/keys/keystest"
	"provost/store"
	"provost/verify"
)

// A received bundle is one that a client was given.
type received struct {
	artifact attest.Digest
	client.Attestation
}

const (
	callers     = 200
	acksToKill  = 300
	crashWithin = 2 * time.Minute
)

// signUntil has callers sign different artifacts until stop is closed or a
// call fails, calls act after acks were received, and returns all of them.
func signUntil(t *testing.T, d *daemon, token string, stop <-chan struct{}, act func()) []received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), crashWithin)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		got  []received
		once sync.Once
	)
	c := d.client(token)
	for range callers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				artifact, req := newArtifact()
				a, err := c.AttestProvenance(ctx, req, "")
				if err != nil {
					return // not acknowledged
				}
				mu.Lock()
				got = append(got, received{artifact, a})
				enough := len(got) >= acksToKill
				mu.Unlock()
				if enough {
					once.Do(func() { act(); cancel() })
				}
			}
		})
	}
	wg.Wait()
	if len(got) < acksToKill {
		t.Fatalf("only %d signatures were acknowledged\n%s", len(got), d.log)
	}
	return got
}

// checkReceived asks the service for every bundle that was acknowledged, and
// verifies it.
func checkReceived(t *testing.T, d *daemon, data string, got []received) {
	t.Helper()
	c := d.client(adminToken(t, data))
	raw, err := c.TrustedRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trust, err := verify.ParseTrust(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		kept, err := c.Attestation(t.Context(), r.ID)
		if err != nil || !bytes.Equal(kept.Bundle, r.Bundle) {
			t.Fatalf("acknowledged %s: now %v", r.ID, err)
		}
		if _, err := trust.Verify(kept.Bundle, verify.Expect{Artifact: r.artifact, PredicateType: attest.ProvenanceType}); err != nil {
			t.Fatalf("acknowledged %s does not verify: %v", r.ID, err)
		}
	}
}

// kill -9 during 200 concurrent signs: what was acknowledged is there and
// verifies, and every intent without a bundle is listed as such.
func TestKillDuringSigning(t *testing.T) {
	for _, where := range []string{"file", "vault"} {
		t.Run(where, func(t *testing.T) {
			if testing.Short() {
				t.Skip("starts real servers")
			}
			var env []string
			if where == "vault" {
				v := keystest.StartVault(t)
				env = []string{"VAULT_ADDR=" + v.Address(), "VAULT_TOKEN=" + v.Token(time.Hour, allPolicies...)}
			}
			data := t.TempDir()
			d := startDev(t, data, env, "--keys", where)
			stop := make(chan struct{})
			got := signUntil(t, d, devToken(t, data), stop, d.kill)

			db, err := store.OpenSQLite(t.Context(), filepath.Join(data, "provost.db"))
			if err != nil {
				t.Fatal(err)
			}
			open, err := db.OpenIntents(t.Context(), 10*callers)
			if err != nil {
				t.Fatal(err)
			}
			_ = db.Close()

			d = startDev(t, data, env, "--keys", where)
			checkReceived(t, d, data, got)
			checkIntents(t, d, data, got, open)
			t.Logf("%d bundles acknowledged before the kill, %d intents left open", len(got), len(open))

			// It goes on where it was: the same keys, new signatures.
			artifact, req := newArtifact()
			a, err := d.client(devToken(t, data)).AttestProvenance(t.Context(), req, "")
			if err != nil || a.KeyVersion != 1 {
				t.Fatalf("after the restart: key version %d, %v", a.KeyVersion, err)
			}
			checkReceived(t, d, data, []received{{artifact, a}})
			d.stop()
		})
	}
}

// checkIntents compares what the service lists as open with what the store
// holds, and with what was acknowledged.
func checkIntents(t *testing.T, d *daemon, data string, got []received, open []attest.Intent) {
	t.Helper()
	c := d.client(adminToken(t, data))
	listed, err := c.Intents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{}
	for _, r := range got {
		acknowledged[r.ID] = true
	}
	if len(listed.Intents) != len(open) {
		t.Errorf("%d open intents are listed, %d are stored", len(listed.Intents), len(open))
	}
	for _, in := range listed.Intents {
		if acknowledged[in.ID] {
			t.Errorf("intent %s was acknowledged and is listed as open", in.ID)
		}
		if _, err := c.Attestation(t.Context(), in.ID); !errors.Is(err, attest.ErrNotFound) {
			t.Errorf("intent %s is listed as open and has a bundle: %v", in.ID, err)
		}
	}
}

// SIGTERM during signing: every request that was begun gets its answer, and
// nothing is left open.
func TestStopFinishesWhatIsInFlight(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers")
	}
	data := t.TempDir()
	d := startDev(t, data, nil)
	stop := make(chan struct{})
	got := signUntil(t, d, devToken(t, data), stop, func() { close(stop); d.stop() })
	d = startDev(t, data, nil)
	checkReceived(t, d, data, got)
	listed, err := d.client(adminToken(t, data)).Intents(t.Context())
	if err != nil || len(listed.Intents) != 0 {
		t.Errorf("%d intents left open by an orderly stop, %v", len(listed.Intents), err)
	}
	if _, err := os.Stat(filepath.Join(data, "provost.db")); err != nil {
		t.Error(err)
	}
}

var allPolicies = keystest.Policies()
