// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
	"provost/keys/keystest"
	"provost/verify"
)

const (
	rotationCallers = 64
	rotationFor     = time.Minute
	pausedFor       = 10 * time.Second
	// thought is how long a caller waits at most until it calls again. Without
	// it there would be more bundles than can be verified in the time.
	thought = 100 * time.Millisecond
)

// A load is callers who sign, and what they got.
type load struct {
	client *http.Client
	mu     sync.Mutex
	got    []received
	errs   []error
	worst  time.Duration // that a caller waited
}

func newLoad() *load {
	return &load{client: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: rotationCallers}}}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.got)
}

// sign asks for one attestation, once: what the service does not mend is an
// error.
func (l *load) sign(ctx context.Context, d *vaultDaemon) {
	start := time.Now()
	artifact, _ := newArtifact()
	a, err := func() (got received, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/attestations/sbom?digest="+artifact.String(), strings.NewReader(sbomDocument))
		if err != nil {
			return got, err
		}
		req.Header.Set("Authorization", "Bearer "+d.token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := l.client.Do(req)
		if err != nil {
			return got, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return got, err
		}
		if resp.StatusCode != http.StatusCreated {
			return got, fmt.Errorf("%d after %s: %s", resp.StatusCode, time.Since(start).Round(time.Millisecond), body)
		}
		got.artifact = artifact
		got.Attestation, err = decodeAttestation(body)
		return got, err
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.worst = max(l.worst, time.Since(start))
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err))
		return
	}
	l.got = append(l.got, a)
}

// Two replicas on one Vault, database and log, under load, while the signer is
// rotated by command on either of them, by somebody else in Vault, and while
// one replica is paused: no caller sees an error, and whatever was released is
// believed.
func TestRotationUnderLoad(t *testing.T) {
	scheduled := rotateBySchedule(t) // which takes half a minute, meanwhile
	a := startAsked(t, asked{tokenTTL: time.Hour, timeout: time.Minute, keys: "  retire_after: 2s\n"})
	b := a.another(t)
	replicas := []*vaultDaemon{a, b}

	l := newLoad()
	start := time.Now()
	end := start.Add(rotationFor)
	var callers, others sync.WaitGroup
	for i := range rotationCallers {
		callers.Go(func() {
			for time.Now().Before(end) {
				l.sign(t.Context(), replicas[i%2])
				time.Sleep(rand.N(thought))
			}
		})
	}
	// every does something at intervals, the first time after a part of one.
	every := func(interval, first time.Duration, do func()) {
		others.Go(func() {
			for at := start.Add(first); at.Before(end); at = at.Add(interval) {
				time.Sleep(time.Until(at))
				do()
			}
		})
	}
	rotations, outside := make([]int, 2), 0
	for i, d := range replicas { // by turns: every four seconds in all
		c := d.client(d.token)
		c.HTTP.Timeout = 2 * time.Minute
		every(8*time.Second, time.Duration(2+4*i)*time.Second, func() {
			if _, err := c.Rotate(t.Context(), attest.PowerEvidence); err != nil {
				t.Errorf("rotate by command: %v", err)
			}
			rotations[i]++
		})
	}
	every(7*time.Second, 5*time.Second, func() {
		a.vault.Write("transit/keys/provost-evidence/rotate", nil)
		outside++
	})
	every(rotationFor, rotationFor/3, func() {
		ok(t, b.cmd.Process.Signal(syscall.SIGSTOP))
		time.Sleep(pausedFor)
		ok(t, b.cmd.Process.Signal(syscall.SIGCONT))
	})
	callers.Wait()
	others.Wait()

	for i, err := range l.errs {
		if i == 10 {
			t.Errorf("and %d more", len(l.errs)-i)
			break
		}
		t.Error(err)
	}
	if len(l.errs) > 0 {
		t.Logf("the first replica's log:\n%s\nthe second's:\n%s", failures(a.log), failures(b.log))
	}
	versions := leaves(t, l.got)
	t.Logf("%d bundles of %d key versions in %s, %d rotations by command on each replica and %d by an outsider; the longest wait was %s",
		len(l.got), len(versions), rotationFor, rotations[0], outside, l.worst.Round(time.Millisecond))
	if len(l.got) < 10*rotationCallers || len(versions) < 10 {
		t.Errorf("%d bundles of %d versions: that was no load", len(l.got), len(versions))
	}
	believed(t, a, l.got)

	// What an outsider made last both find out without being told; and what was
	// superseded meanwhile signs no more, whoever has a token.
	a.vault.Write("transit/keys/provost-evidence/rotate", nil)
	latest := vaultKey(t, a, "latest_version")
	var last [2]int
	if err := keystest.Poll(90*time.Second, func() bool {
		for i, d := range replicas {
			_, _, body := d.sign(t)
			got, err := decodeAttestation(body)
			ok(t, err)
			last[i] = got.KeyVersion
		}
		return last[0] == latest && last[1] == latest
	}); err != nil {
		t.Errorf("the replicas sign with versions %v, Vault has %d", last, latest)
	}
	if first := vaultKey(t, a, "min_encryption_version"); first < len(versions)/2 {
		t.Errorf("of %d versions those before %d were retired", latest, first)
	}
	var listed [2][]int
	for i, d := range replicas {
		listed[i] = evidenceVersions(t, d)
	}
	if !slices.Equal(listed[0], listed[1]) || !slices.IsSorted(listed[0]) || len(slices.Compact(slices.Clone(listed[0]))) != len(listed[0]) {
		t.Errorf("versions %v and %v are listed", listed[0], listed[1])
	}
	for v := range versions {
		if !slices.Contains(listed[0], v) {
			t.Errorf("version %d has signed and is not listed", v)
		}
	}
	a.stop()
	b.stop()
	a.mustExplainLog(t)
	t.Run("by schedule", scheduled)
}

// rotateBySchedule has two replicas of another service sign until a rotation is
// due. The test that it returns sees that one of them rotated when the time
// came, and the other followed.
func rotateBySchedule(t *testing.T) func(*testing.T) {
	t.Helper()
	const most = 200
	a := startAsked(t, asked{tokenTTL: time.Hour, timeout: 30 * time.Second, keys: fmt.Sprintf("  max_signatures: %d\n", most)})
	b := a.another(t)
	l := newLoad()
	var callers sync.WaitGroup
	for i := range rotationCallers {
		callers.Go(func() {
			for range 4 {
				l.sign(t.Context(), []*vaultDaemon{a, b}[i%2])
			}
		})
	}
	callers.Wait()
	return func(t *testing.T) {
		for _, d := range []*vaultDaemon{a, b} { // each has looked at least once when it signs with the second version
			if err := keystest.Poll(90*time.Second, func() bool {
				l.sign(t.Context(), d)
				time.Sleep(500 * time.Millisecond)
				return l.got[len(l.got)-1].KeyVersion != 1
			}); err != nil {
				t.Errorf("has not rotated, or not followed: %v", err)
			}
		}
		if err := errors.Join(l.errs...); err != nil {
			t.Error(err)
		}
		signed := map[int]int{}
		for _, r := range l.got {
			signed[r.KeyVersion]++
		}
		t.Logf("signatures by version: %v", signed)
		if len(signed) != 2 || signed[1] < most || signed[2] == 0 {
			t.Errorf("signatures by version: %v: want at least %d of the first and some of the second", signed, most)
		}
		if versions := evidenceVersions(t, b); !slices.Equal(versions, []int{1, 2}) {
			t.Errorf("versions %v", versions)
		}
		if latest := vaultKey(t, a, "latest_version"); latest != 2 {
			t.Errorf("Vault's latest version is %d", latest)
		}
		believed(t, a, l.got)
	}
}

// believed has every bundle judged by our verifier, and every fiftieth by
// sigstore-go with all thresholds at one.
func believed(t *testing.T, d *vaultDaemon, got []received) {
	t.Helper()
	text, err := d.client("").TrustedRoot(t.Context())
	ok(t, err)
	trust, err := verify.ParseTrust(text)
	ok(t, err)
	trusted, err := root.NewTrustedRootFromJSON(text)
	ok(t, err)
	engine, err := sigstore.NewVerifier(trusted, sigstore.WithSignedTimestamps(1), sigstore.WithTransparencyLog(1), sigstore.WithSignedCertificateTimestamps(1))
	ok(t, err)
	who, err := sigstore.NewShortCertificateIdentity(vaultService, "", vaultService+"/signers/evidence", "")
	ok(t, err)
	foreign := func(r received) error {
		var b bundle.Bundle
		if err := b.UnmarshalJSON(r.Bundle); err != nil {
			return err
		}
		_, err := engine.Verify(&b, sigstore.NewPolicy(sigstore.WithArtifactDigest(r.artifact.Algorithm(), r.artifact.Bytes()), sigstore.WithCertificateIdentity(who)))
		return err
	}
	const workers = 4
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < len(got); i += workers {
				r := got[i]
				if _, err := trust.Verify(r.Bundle, verify.Expect{Artifact: r.artifact, PredicateType: r.PredicateType}); err != nil {
					t.Errorf("%s, of version %d: %v", r.ID, r.KeyVersion, err)
				}
				if i%50 == 0 {
					if err := foreign(r); err != nil {
						t.Errorf("%s, of version %d, to sigstore-go: %v", r.ID, r.KeyVersion, err)
					}
				}
			}
		})
	}
	all.Wait()
}

// leaves returns the leaf of each key version that signed; every bundle of one
// version must show the same, and no two versions share one.
func leaves(t *testing.T, got []received) map[int][]byte {
	t.Helper()
	of, whose := map[int][]byte{}, map[string]int{}
	for _, r := range got {
		var b bundle.Bundle
		ok(t, b.UnmarshalJSON(r.Bundle))
		leaf := b.GetVerificationMaterial().GetCertificate().GetRawBytes()
		if first, seen := of[r.KeyVersion]; !seen {
			of[r.KeyVersion] = leaf
		} else if !bytes.Equal(first, leaf) {
			t.Fatalf("version %d has two leaves", r.KeyVersion)
		}
		if v, seen := whose[string(leaf)]; seen && v != r.KeyVersion {
			t.Fatalf("versions %d and %d have one leaf", v, r.KeyVersion)
		}
		whose[string(leaf)] = r.KeyVersion
	}
	return of
}

func evidenceVersions(t *testing.T, d *vaultDaemon) (versions []int) {
	t.Helper()
	all, err := d.client(d.token).Keys(t.Context())
	ok(t, err)
	for _, k := range all.Keys {
		if k.Signer == attest.PowerEvidence {
			for _, v := range k.Versions {
				versions = append(versions, v.Version)
			}
		}
	}
	return versions
}

// vaultKey is a number that Vault says of the key evidence.
func vaultKey(t *testing.T, d *vaultDaemon, name string) int {
	t.Helper()
	secret, err := d.vault.Root().Logical().Read("transit/keys/provost-evidence")
	ok(t, err)
	n, err := strconv.Atoi(fmt.Sprint(secret.Data[name]))
	ok(t, err)
	return n
}

// failures is what a service logged, without the requests that went well.
func failures(log *syncBuffer) string {
	var lines []string
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, `"status":20`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "")
}
