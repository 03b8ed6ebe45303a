// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
	"provost/keys"
)

// A loggedRealm is an authority with a log, and an issuer on it. It runs on the
// machine's clock, but for what tests add to it.
type loggedRealm struct {
	t       *testing.T
	config  keys.Config
	archive *archive
	*keys.Authority
	issuer *attest.Issuer
}

var loggedArtifact = []byte("artifact")

func newLoggedRealm(t *testing.T, change ...func(*keys.Config)) *loggedRealm {
	t.Helper()
	config, store, now := newConfig(t)
	now.real = true
	config.Log = &keys.LogConfig{Directory: t.TempDir(), URL: identity + "/log"}
	for _, c := range change {
		c(&config)
	}
	check(t, keys.Init(t.Context(), config, dropRoot))
	r := &loggedRealm{t: t, config: pin(t, config), archive: store}
	r.open()
	return r
}

func (r *loggedRealm) open() {
	r.t.Helper()
	a, err := keys.Open(r.t.Context(), r.config)
	check(r.t, err)
	r.t.Cleanup(func() { a.Close() })
	r.Authority = a
	signers := make(map[attest.Power]attest.Signer)
	for _, p := range attest.Powers {
		signers[p] = a.Signer(p)
	}
	r.issuer = &attest.Issuer{Signers: signers, Timestamper: a, Log: a.Log(), Ledger: ledger{}, Now: time.Now}
}

func (r *loggedRealm) sign() attest.Attestation {
	r.t.Helper()
	caller := attest.Caller{Issuer: "https://ci.example.com", Subject: "s", Grants: []attest.Grant{attest.GrantProvenance},
		Build: &attest.Build{BuilderID: "https://ci.example.com/b", BuildType: "https://ci.example.com/t", ExternalParameters: map[string]any{"a": "b"}, Origins: attest.Origins{"": attest.FromRegistry()},
			Registration: &attest.Registration{Name: "b", PredicateTypes: attest.UsualPredicateTypes()}}}
	a, err := r.issuer.Issue(r.t.Context(), caller, attest.Request{
		Subjects: []attest.Subject{{Name: "artifact", SHA256: attest.SHA256(loggedArtifact)}}, Predicate: attest.Provenance{},
	})
	check(r.t, err)
	return a
}

// believed asks sigstore-go with every threshold at one and nothing insecure.
func (r *loggedRealm) believed(raw []byte) error {
	r.t.Helper()
	text, err := r.TrustedRoot()
	check(r.t, err)
	tr, err := root.NewTrustedRootFromJSON(text)
	check(r.t, err)
	v, err := verify.NewVerifier(tr, verify.WithSignedTimestamps(1), verify.WithTransparencyLog(1), verify.WithSignedCertificateTimestamps(1))
	check(r.t, err)
	var b bundle.Bundle
	check(r.t, b.UnmarshalJSON(raw))
	id, err := verify.NewShortCertificateIdentity(identity, "", identity+"/signers/provenance", "")
	check(r.t, err)
	_, err = v.Verify(&b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(loggedArtifact)), verify.WithCertificateIdentity(id)))
	return err
}

// With a log, what is signed verifies with every threshold at one: log entry,
// timestamp, SCT. So does what older versions signed.
func TestLoggedBundleNeedsNoFlags(t *testing.T) {
	r := newLoggedRealm(t)
	var bundles []attest.Attestation
	for range 3 {
		bundles = append(bundles, r.sign())
		_, err := r.Rotate(t.Context(), attest.PowerProvenance)
		check(t, err)
	}
	for i, b := range bundles {
		if b.LogIndex != int64(i) || len(b.Log) != 64 || b.KeyVersion != i+1 {
			t.Errorf("bundle %d: index %d in %q, key version %d", i, b.LogIndex, b.Log, b.KeyVersion)
		}
		if err := r.believed(b.Bundle); err != nil {
			t.Errorf("bundle %d: %v", i, err)
		}
	}
	check(t, r.Ready(t.Context()))
}

// The logs are served to everybody, and every leaf stands in one.
func TestLogsAreServed(t *testing.T) {
	r := newLoggedRealm(t)
	r.sign()
	handlers := r.LogHandlers()
	for path, lines := range map[string]string{"/log/checkpoint": "provost.example.com\n1\n", "/ct/checkpoint": "provost.example.com/ct\n3\n"} {
		w := httptest.NewRecorder()
		handlers[path[:strings.Index(path[1:], "/")+2]].ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), lines) {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
}

// records are what a store knows of the log.
type records struct {
	head    attest.Attestation
	known   map[int64]bool
	intents map[attest.Digest]string
	orphans []attest.LogOrphan
	fail    error
}

func (r *records) LogHead(context.Context, string) (attest.Attestation, error) {
	if r.head.ID == "" {
		return r.head, attest.ErrNotFound
	}
	return r.head, r.fail
}

func (r *records) LogIndexes(_ context.Context, _ string, from, to int64) (found []int64, err error) {
	for i := from; i < to; i++ {
		if r.known[i] {
			found = append(found, i)
		}
	}
	return found, r.fail
}

func (r *records) IntentOfMessage(_ context.Context, m attest.Digest) (attest.Intent, error) {
	if id, ok := r.intents[m]; ok {
		return attest.Intent{ID: id}, nil
	}
	return attest.Intent{}, attest.ErrNotFound
}

func (r *records) AppendLogOrphan(_ context.Context, o attest.LogOrphan) error {
	r.orphans = append(r.orphans, o)
	return r.fail
}

// What was logged and never stored is found and told; so is what nobody meant
// to sign.
func TestReconcileTellsOrphans(t *testing.T) {
	r := newLoggedRealm(t)
	var all []attest.Attestation
	for range 4 {
		all = append(all, r.sign())
	}
	payload, _, err := attest.OpenUnverified(all[1].Bundle)
	check(t, err)
	meant := attest.NameOf(payload, nil).Message["sha256"]
	message, err := attest.NewDigest("sha256", meant)
	check(t, err)
	// Four times the same statement: index 1 and 3 are not stored, and one
	// intent explains both.
	rec := &records{head: all[2], known: map[int64]bool{0: true, 2: true}, intents: map[attest.Digest]string{message: "one"}}
	orphans, err := r.Reconcile(t.Context(), rec)
	check(t, err)
	if len(orphans) != 2 || orphans[0].Index != 1 || orphans[1].Index != 3 || orphans[0].Intent != "one" || len(rec.orphans) != 2 {
		t.Errorf("orphans %+v, recorded %+v", orphans, rec.orphans)
	}
	rec = &records{known: map[int64]bool{0: true, 1: true, 2: true}}
	if orphans, err = r.Reconcile(t.Context(), rec); err != nil || len(orphans) != 1 || orphans[0].Intent != "" {
		t.Errorf("an entry of nobody's: %+v, %v", orphans, err)
	}
	rec = &records{head: all[2], fail: attest.ErrUnavailable}
	if _, err = r.Reconcile(t.Context(), rec); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("records that cannot be read: %v", err)
	}
}

// While the service runs an entry is an orphan when nobody can be about to store
// it any more: not one that was logged a moment ago.
func TestSettle(t *testing.T) {
	var skew time.Duration
	r := newLoggedRealm(t, func(c *keys.Config) {
		c.Now = func() time.Time { return time.Now().Add(skew) }
	})
	r.sign()
	rec := &records{known: map[int64]bool{0: true}}
	settle := func(later time.Duration, want ...int64) {
		t.Helper()
		skew += later
		orphans, err := r.Settle(t.Context(), rec)
		check(t, err)
		var got []int64
		for _, o := range orphans {
			got = append(got, o.Index)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %s: orphans %v, want %v", later, got, want)
		}
	}
	_, err := r.Reconcile(t.Context(), rec)
	check(t, err)
	r.sign()
	r.sign()
	settle(0)
	rec.known[2] = true
	r.sign() // 3
	settle(4 * time.Minute)
	settle(time.Minute, 1)
	settle(0)
	rec.fail = attest.ErrUnavailable // it is told again when it can be recorded
	skew += 4 * time.Minute
	if _, err := r.Settle(t.Context(), rec); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("cannot be recorded: %v", err)
	}
	rec.fail = nil
	settle(0, 3)
	settle(time.Hour)
}

// A log that is older than what was released is not continued.
func TestReconcileRefusesAnOlderLog(t *testing.T) {
	r := newLoggedRealm(t)
	r.sign()
	check(t, r.Close())
	old := filepath.Join(t.TempDir(), "copy")
	check(t, os.CopyFS(old, os.DirFS(r.config.Log.Directory)))
	r.open()
	r.sign()
	last := r.sign()
	check(t, r.Close())
	r.config.Log = &keys.LogConfig{Directory: old, URL: r.config.Log.URL}
	r.open()
	rec := &records{head: last}
	if _, err := r.Reconcile(t.Context(), rec); !errors.Is(err, attest.ErrConflict) || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("an older copy: %v", err)
	}
	// Nor one of the same length with other entries.
	r.sign()
	r.sign()
	if _, err := r.Reconcile(t.Context(), rec); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("another history: %v", err)
	}
}
