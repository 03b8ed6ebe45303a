// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	tiles "github.com/transparency-dev/tessera/client"

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
// call fails, calls act after that many were acknowledged, and returns all of
// them.
func signUntil(t *testing.T, d *daemon, data string, stop <-chan struct{}, acks int, act func()) []received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), crashWithin)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		got  []received
		once sync.Once
	)
	c := newJobs(t, d, data).client()
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
				enough := len(got) >= acks
				mu.Unlock()
				if enough {
					once.Do(func() { act(); cancel() })
				}
			}
		})
	}
	wg.Wait()
	if len(got) < acks {
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

// kill -9 during 200 concurrent signs, several times, each at another moment:
// what was acknowledged is there, verifies and stands in the log; every intent
// without a bundle is listed as such; and every entry of the log that nobody
// was given is recorded and told.
func TestKillDuringSigning(t *testing.T) {
	const host = "provost.localhost"
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
			var got []received
			orphans := 0
			for _, acks := range []int{1, 60, 130, 199, acksToKill} {
				moment := rand.N(15 * time.Millisecond)
				got = append(got, signUntil(t, d, data, nil, acks, func() { time.Sleep(moment); d.kill() })...)
				open := openIntents(t, data)
				d = startDev(t, data, env, "--keys", where)
				checkIntents(t, d, data, got, open)
				told, recorded := checkLog(t, d, data, host)
				t.Logf("killed %s after the %dth answer: %d bundles acknowledged, %d intents open, %d entries logged for nobody",
					moment, acks, len(got), len(open), told)
				if orphans += told; recorded != orphans {
					t.Errorf("%d orphans are recorded, %d were told", recorded, orphans)
				}
			}
			checkReceived(t, d, data, got)
			checkLogged(t, d, data, host, got)

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

// openIntents reads them from the database of a service that does not run.
func openIntents(t *testing.T, data string) []attest.Intent {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), filepath.Join(data, "provost.db"))
	ok(t, err)
	defer db.Close()
	open, err := db.OpenIntents(t.Context(), 100*callers)
	ok(t, err)
	return slices.DeleteFunc(open, func(in attest.Intent) bool { return attest.IsAuditHead(in.PredicateType) })
}

// ofHead tells the intent for the audit log's head, which no caller had: the
// service takes it up again at its next start.
func ofHead(in client.Intent) bool { return attest.IsAuditHead(in.PredicateType) }

// checkLog compares the log of a service that has just started, and signs
// nothing, with its database: every index is an attestation's or a recorded
// orphan, and each orphan has an intent. It returns how many this start told,
// and how many are recorded.
func checkLog(t *testing.T, d *daemon, data, host string) (told, recorded int) {
	t.Helper()
	size, id := logOf(t, d, data, host)
	db, err := store.OpenSQLite(t.Context(), filepath.Join(data, "provost.db"))
	ok(t, err)
	defer db.Close()
	known, err := db.LogIndexes(t.Context(), id, 0, size)
	ok(t, err)
	if int64(len(known)) != size { // they are distinct and in range: as many means all
		t.Errorf("the log has %d entries, the database knows %d of them", size, len(known))
	}
	if head, err := db.LogHead(t.Context(), id); err == nil && head.LogIndex >= size {
		t.Errorf("attestation %s is at %d of a log of %d", head.ID, head.LogIndex, size)
	}
	if strings.Contains(d.log.String(), "behind our back") {
		t.Errorf("an entry that no intent explains:\n%s", d.log)
	}
	orphans, err := db.LogOrphans(t.Context(), 10_000)
	ok(t, err)
	for _, o := range orphans {
		if o.Intent == "" || o.Index >= size {
			t.Errorf("orphan %d of intent %q, of a log of %d", o.Index, o.Intent, size)
		}
	}
	return strings.Count(d.log.String(), "log entry of an open intent"), len(orphans)
}

// logOf is the size that the log's checkpoint says, and the log's ID.
func logOf(t *testing.T, d *daemon, data, host string) (size int64, id string) {
	t.Helper()
	size, err := checkpointSize(data, host)
	ok(t, err)
	text, err := d.client("").TrustedRoot(t.Context())
	ok(t, err)
	trusted, err := root.NewTrustedRootFromJSON(text)
	ok(t, err)
	for found := range trusted.RekorLogs() {
		id = found // there is one shard
	}
	return size, id
}

// checkpointSize is the size that the log's checkpoint says.
func checkpointSize(data, host string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join(data, "log", host, "checkpoint"))
	if err != nil {
		return 0, err
	}
	lines := strings.SplitN(string(raw), "\n", 3)
	if len(lines) != 3 || lines[0] != host {
		return 0, fmt.Errorf("checkpoint %q", raw)
	}
	return strconv.ParseInt(lines[1], 10, 64)
}

// checkLogged reads the log as anybody can, with another's client: the entry at
// each index is the one that the bundle shows.
func checkLogged(t *testing.T, d *daemon, data, host string, got []received) {
	t.Helper()
	size, _ := logOf(t, d, data, host)
	files := tiles.FileFetcher{Root: filepath.Join(data, "log", host)}
	bundles := map[uint64][][]byte{}
	for _, r := range got {
		var b struct {
			VerificationMaterial struct {
				TlogEntries []struct {
					LogIndex          int64  `json:"logIndex,string"`
					CanonicalizedBody []byte `json:"canonicalizedBody"`
				} `json:"tlogEntries"`
			} `json:"verificationMaterial"`
		}
		ok(t, json.Unmarshal(r.Bundle, &b))
		if n := len(b.VerificationMaterial.TlogEntries); n != 1 {
			t.Fatalf("%s: %d log entries", r.ID, n)
		}
		entry := b.VerificationMaterial.TlogEntries[0]
		if entry.LogIndex >= size {
			t.Fatalf("%s: index %d of a log of %d", r.ID, entry.LogIndex, size)
		}
		tile, at := uint64(entry.LogIndex)/256, entry.LogIndex%256
		if bundles[tile] == nil {
			read, err := tiles.GetEntryBundle(t.Context(), files.ReadEntryBundle, tile, uint64(size))
			ok(t, err)
			bundles[tile] = read.Entries
		}
		if !bytes.Equal(bundles[tile][at], entry.CanonicalizedBody) {
			t.Fatalf("%s: the log has another entry at %d", r.ID, entry.LogIndex)
		}
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
	intents := slices.DeleteFunc(listed.Intents, ofHead)
	if len(intents) != len(open) {
		t.Errorf("%d open intents are listed, %d are stored", len(intents), len(open))
	}
	for _, in := range intents {
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
	got := signUntil(t, d, data, stop, acksToKill, func() { close(stop); d.stop() })
	d = startDev(t, data, nil)
	checkReceived(t, d, data, got)
	listed, err := d.client(adminToken(t, data)).Intents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := slices.DeleteFunc(listed.Intents, ofHead); len(left) != 0 {
		t.Errorf("%d intents left open by an orderly stop", len(left))
	}
	if _, err := os.Stat(filepath.Join(data, "provost.db")); err != nil {
		t.Error(err)
	}
}

var allPolicies = keystest.Policies()
