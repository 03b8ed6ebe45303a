// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/sigstore/sigstore-go/pkg/root"
	client "github.com/sigstore/sigstore-go/pkg/tuf"

	"provost/attest"
)

// A bench is a repository with its keys.
type bench struct {
	*Repository
	t       *testing.T
	now     time.Time
	offline []crypto.Signer
	online  *onlineKey
	server  *httptest.Server
	first   []byte // 1.root.json, to which clients are pinned
}

// An onlineKey is what the key backend has.
type onlineKey struct {
	mu       sync.Mutex
	versions []crypto.Signer
}

func (k *onlineKey) signers(context.Context) ([]crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.versions), nil
}

func (k *onlineKey) rotate(t *testing.T) { k.versions = append(k.versions, newKey(t)) }

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Now(), online: &onlineKey{}}
	b.online.rotate(t)
	for range 3 {
		b.offline = append(b.offline, newKey(t))
	}
	b.Repository = b.open(Config{Directory: filepath.Join(t.TempDir(), "tuf"), Online: b.online.signers})
	b.server = httptest.NewServer(b.Handler())
	t.Cleanup(b.server.Close)
	return b
}

func (b *bench) open(c Config) *Repository {
	b.t.Helper()
	r, err := Open(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) publics() (keys []crypto.PublicKey) {
	for _, k := range b.offline {
		keys = append(keys, k.Public())
	}
	return keys
}

// stage stages, and signs with those of the offline keys.
func (b *bench) stage(c Change, signers ...crypto.Signer) *Staged {
	b.t.Helper()
	s, err := b.Stage(b.t.Context(), b.now, c)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, k := range signers {
		if _, err := s.Sign(k); err != nil {
			b.t.Fatal(err)
		}
	}
	return s
}

// publishFirst publishes a first time, under 2 of 3 keys.
func (b *bench) publishFirst(files map[string][]byte) {
	b.t.Helper()
	s := b.stage(Change{Files: files, Add: b.publics(), Threshold: 2}, b.offline[0], b.offline[1])
	if err := b.Publish(b.t.Context(), b.now, s); err != nil {
		b.t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(b.config.Directory, "1.root.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.first = raw
}

// options are those of a client that has nothing but the first root.
func (b *bench) options(cache string) *client.Options {
	return client.DefaultOptions().WithRoot(b.first).WithRepositoryBaseURL(strings.TrimSuffix(b.server.URL+Prefix, "/")).WithCachePath(cache)
}

// follow has a new client of sigstore-go, pinned to the first root, read the
// trusted root.
func (b *bench) follow() (string, error) { return b.followWith(b.t.TempDir()) }

// followWith does so for a client that has a cache.
func (b *bench) followWith(cache string) (string, error) {
	c, err := client.New(b.options(cache))
	if err != nil {
		return "", err
	}
	if _, err := root.GetTrustedRoot(c); err != nil {
		return "", err
	}
	raw, err := c.GetTarget(trustedRootName)
	return string(raw), err
}

func (b *bench) wantFollowed(want []byte) {
	b.t.Helper()
	got, err := b.follow()
	if err != nil {
		b.t.Fatal(err)
	}
	if got != string(want) {
		b.t.Fatal("a client got another trusted root")
	}
	raw, ok, err := Published(b.config.Directory)
	if err != nil || !ok || string(raw) != string(want) {
		b.t.Fatalf("Published: %t %v, or another trusted root", ok, err)
	}
}

// A ca is an authority of a trusted root.
type ca struct {
	name       string
	top, leaf  *x509.Certificate
	start, end time.Time
}

func newCA(t *testing.T, name string, born time.Time) ca {
	t.Helper()
	make := func(template, parent *x509.Certificate, key, by crypto.Signer) *x509.Certificate {
		if parent == nil {
			parent = template
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	template := func(cn string, from time.Time) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotBefore: from, NotAfter: from.Add(5 * 365 * 24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	topKey, key := newKey(t), newKey(t)
	top := make(template(name+" root", born.Add(-365*24*time.Hour)), nil, topKey, topKey)
	leaf := make(template(name, born), top, key, topKey)
	return ca{name: name, top: top, leaf: leaf, start: born}
}

func (c ca) from(start time.Time) ca { c.start = start; return c }

func (c ca) to(end time.Time) ca { c.end = end; return c }

func trusted(t *testing.T, cas ...ca) []byte {
	t.Helper()
	var all []root.CertificateAuthority
	for _, c := range cas {
		all = append(all, &root.FulcioCertificateAuthority{
			Root: c.top, Intermediates: []*x509.Certificate{c.leaf}, URI: "https://" + c.name + ".example",
			ValidityPeriodStart: c.start, ValidityPeriodEnd: c.end,
		})
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, all, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tr.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func files(trusted []byte) map[string][]byte {
	return map[string][]byte{trustedRootName: trusted, "provenance-v1.pem": []byte("PEM\n")}
}

// A client that was pinned to the first root follows new targets, a new root,
// a lost key that was replaced, and a new online key.
func TestClientsFollow(t *testing.T) {
	b := newBench(t)
	one := newCA(t, "one", b.now.Add(-time.Hour))
	root1 := trusted(t, one)
	b.publishFirst(files(root1))
	b.wantFollowed(root1)

	two := newCA(t, "two", b.now.Add(72*time.Hour))
	root2 := trusted(t, one, two)
	if err := b.Publish(t.Context(), b.now, b.stage(Change{Files: files(root2)}, b.offline[2], b.offline[0])); err != nil {
		t.Fatal(err)
	}
	b.wantFollowed(root2)

	// The key of the second holder was lost: the first and the third let a
	// fourth in.
	three := newCA(t, "three", b.now.Add(96*time.Hour))
	root3 := trusted(t, one, two, three)
	lost, err := KeyID(b.offline[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	fourth := newKey(t)
	s := b.stage(Change{Files: files(root3), Remove: []string{lost}, Add: []crypto.PublicKey{fourth.Public()}}, b.offline[0])
	if err := b.Publish(t.Context(), b.now, s); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("published with one signature: %v", err)
	}
	if _, err := s.Sign(fourth); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), b.now, s); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("published without the old threshold: %v", err)
	}
	if _, err := s.Sign(b.offline[2]); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), b.now, s); err != nil {
		t.Fatal(err)
	}
	b.wantFollowed(root3)
	if s, err := b.Stage(t.Context(), b.now, Change{Files: files(root3)}); err != nil {
		t.Fatal(err)
	} else if _, err := s.Sign(b.offline[1]); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("the key that was removed signs: %v", err)
	}

	// All offline keys, their threshold and the online key are replaced at once.
	old := []crypto.Signer{b.offline[0], b.offline[2], fourth}
	var remove []string
	for _, k := range old {
		id, _ := KeyID(k.Public())
		remove = append(remove, id)
	}
	fresh := []crypto.Signer{newKey(t), newKey(t), newKey(t)}
	b.online.rotate(t)
	s = b.stage(Change{
		Files: files(root3), Remove: remove, Add: []crypto.PublicKey{fresh[0].Public(), fresh[1].Public(), fresh[2].Public()},
		Threshold: 3, NewOnline: true,
	}, append(fresh, old[0], old[1])...)
	if err := b.Publish(t.Context(), b.now, s); err != nil {
		t.Fatal(err)
	}
	b.wantFollowed(root3)
	// The old version of the online key is not needed any more.
	b.online.versions = b.online.versions[1:]
	if err := b.Refresh(t.Context(), b.now.Add(4*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.wantFollowed(root3)
	status, err := b.Status()
	if err != nil || status.Roles[0].Version != 3 || status.Threshold != 3 {
		t.Errorf("status %+v, %v", status, err)
	}
}

// The online key is lost: a new root names another, and clients follow.
func TestLostOnlineKey(t *testing.T) {
	b := newBench(t)
	root1 := trusted(t, newCA(t, "one", b.now.Add(-time.Hour)))
	b.publishFirst(files(root1))
	b.online.versions = []crypto.Signer{newKey(t)}
	if err := b.Refresh(t.Context(), b.now.Add(4*24*time.Hour)); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("refreshed with another key: %v", err)
	}
	s := b.stage(Change{Files: files(root1), NewOnline: true}, b.offline[0], b.offline[1])
	if err := b.Publish(t.Context(), b.now, s); err != nil {
		t.Fatal(err)
	}
	b.wantFollowed(root1)
}

func TestPublishRefuses(t *testing.T) {
	b := newBench(t)
	one := newCA(t, "one", b.now.Add(-time.Hour))
	root1 := trusted(t, one)
	first := b.stage(Change{Files: files(root1), Add: b.publics(), Threshold: 2})
	refused := func(name string, want error, words string, staged ...*Staged) {
		t.Helper()
		before := tree(t, b.config.Directory)
		err := b.Publish(t.Context(), b.now, staged...)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %v %q", name, err, want, words)
		}
		if after := tree(t, b.config.Directory); !slices.Equal(before, after) {
			t.Errorf("%s: refused, but something was written: %v, was %v", name, after, before)
		}
	}
	sign := func(s *Staged, keys ...crypto.Signer) *Staged {
		t.Helper()
		c := again(t, s)
		for _, k := range keys {
			if _, err := c.Sign(k); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	os.MkdirAll(filepath.Join(b.config.Directory, "targets"), 0o755)
	os.WriteFile(filepath.Join(b.config.Directory, lockName), nil, 0o600)

	refused("no signature", attest.ErrDenied, "0 of 2 signatures", first)
	refused("one of two signatures", attest.ErrDenied, "1 of 2 signatures", sign(first, b.offline[0]))
	refused("the same key twice", attest.ErrDenied, "1 of 2 signatures", sign(first, b.offline[0], b.offline[0]))
	if _, err := again(t, first).Sign(newKey(t)); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("a stranger signs: %v", err)
	}
	stranger := sign(first, b.offline[0], b.offline[1])
	if err := addSignature(t.Context(), stranger.targets, newKey(t)); err != nil {
		t.Fatal(err)
	}
	refused("a stranger's signature beside good ones", attest.ErrDenied, "does not verify, or the key has no say", stranger)
	online := sign(first, b.offline[0], b.offline[1])
	if err := addSignature(t.Context(), online.root, b.online.versions[0]); err != nil {
		t.Fatal(err)
	}
	refused("the online key signs the root", attest.ErrDenied, "has no say", online)
	damaged := sign(first, b.offline[0], b.offline[1])
	damaged.targets.Signatures[1].Signature[9] ^= 1
	refused("a damaged signature", attest.ErrDenied, "does not verify", damaged)
	swapped := sign(first, b.offline[0], b.offline[1])
	swapped.files[trustedRootName] = trusted(t, newCA(t, "evil", b.now))
	refused("a file that was changed after it was signed", attest.ErrInvalid, "not what the targets say", swapped)
	longer := sign(first, b.offline[0], b.offline[1])
	longer.root.Signed.Expires = longer.root.Signed.Expires.Add(time.Hour)
	refused("a root that was changed after it was signed", attest.ErrDenied, "does not verify", longer)
	lower := sign(first, b.offline[0])
	lower.root.Signed.Roles["targets"].Threshold = 1
	refused("thresholds that differ", attest.ErrInvalid, "same keys and threshold", lower)
	noRoot := sign(first, b.offline[0], b.offline[1])
	delete(noRoot.files, trustedRootName)
	refused("no trusted root", attest.ErrInvalid, "", noRoot)
	refused("nothing", attest.ErrInvalid, "nothing is staged")
	other := b.stage(Change{Files: files(root1), Add: b.publics(), Threshold: 1}, b.offline...)
	refused("two that are not copies of one", attest.ErrConflict, "not copies of one", sign(first, b.offline[0]), other)

	// Copies that were signed apart are as good as one.
	if err := b.Publish(t.Context(), b.now, sign(first, b.offline[0]), sign(first, b.offline[2])); err != nil {
		t.Fatal(err)
	}
	b.first, _ = os.ReadFile(filepath.Join(b.config.Directory, "1.root.json"))
	b.wantFollowed(root1)
	before := tree(t, b.config.Directory)
	if err := b.Publish(t.Context(), b.now, sign(first, b.offline[0], b.offline[1])); err != nil {
		t.Errorf("published again: %v", err)
	}
	if after := tree(t, b.config.Directory); !slices.Equal(before, after) {
		t.Error("published again, and something was written")
	}

	stale := b.stage(Change{Files: files(root1)}, b.offline[0], b.offline[1])
	if err := b.Publish(t.Context(), b.now, b.stage(Change{Files: files(root1), TargetsExpiry: time.Hour}, b.offline[0], b.offline[1])); err != nil {
		t.Fatal(err)
	}
	refused("staged before something else was published", attest.ErrConflict, "stage it again", stale)
	if err := b.Publish(t.Context(), b.now, b.stage(Change{Files: files(root1), NewRoot: true}, b.offline[0], b.offline[1])); err != nil {
		t.Fatal(err)
	}
	refused("the first root again", attest.ErrConflict, "", sign(first, b.offline[0], b.offline[1]))
	expired := b.stage(Change{Files: files(root1), TargetsExpiry: time.Hour}, b.offline[0], b.offline[1])
	b.now = b.now.Add(2 * time.Hour)
	refused("targets that have expired", attest.ErrInvalid, "staged targets expired", expired)
	expired = b.stage(Change{Files: files(root1), NewRoot: true, RootExpiry: time.Hour}, b.offline[0], b.offline[1])
	b.now = b.now.Add(2 * time.Hour)
	refused("a root that has expired", attest.ErrInvalid, "staged root expired", expired)
	b.now = b.now.Add(366 * 24 * time.Hour)
	refused("a published root that has expired", attest.ErrInvalid, "stage a new root", b.stage(Change{Files: files(root1)}, b.offline[0], b.offline[1]))
}

// Names in a trusted root cannot forge what a holder of a key is shown.
func TestDescribeIsPlain(t *testing.T) {
	evil := newCA(t, "one", time.Now())
	evil.name = "a\n  certificate authority https://good\x1b[2K\u202e"
	b := newBench(t)
	s := b.stage(Change{Files: files(trusted(t, evil)), Add: b.publics(), Threshold: 2})
	said := s.Describe()
	if strings.ContainsAny(said, "\x1b\u202e") || strings.Count(said, "\n  certificate authority") != 1 {
		t.Errorf("%q", said)
	}
	if _, err := b.Stage(t.Context(), b.now, Change{Files: files([]byte("{}")), Add: b.publics(), Threshold: 2}); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("staged a trusted root that clients cannot read: %v", err)
	}
}

// again is a copy by way of a file.
func again(t *testing.T, s *Staged) *Staged {
	t.Helper()
	path := filepath.Join(t.TempDir(), "staged.json")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	c, err := ReadStaged(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tree lists every file under dir.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			raw, readErr := os.ReadFile(path)
			names = append(names, fmt.Sprintf("%s %x", path, raw))
			err = readErr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

func trustedOf(t *testing.T, b *bench) []byte {
	t.Helper()
	f, err := b.Targets()
	if err != nil {
		t.Fatal(err)
	}
	return f[trustedRootName]
}

func TestRefresh(t *testing.T) {
	b := newBench(t)
	if err := b.Refresh(t.Context(), b.now); err != nil {
		t.Errorf("nothing is published, nothing is to be done: %v", err)
	}
	if _, ok, err := Published(b.config.Directory); ok || err != nil {
		t.Errorf("published: %t %v", ok, err)
	}
	if _, err := b.Status(); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("status of nothing: %v", err)
	}
	b.publishFirst(files(trusted(t, newCA(t, "one", b.now.Add(-time.Hour)))))
	day := 24 * time.Hour
	last, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		after               time.Duration
		snapshot, timestamp bool // signed again
	}{
		{0, false, false},
		{23 * time.Hour, false, false},
		{day + time.Minute, false, true},
		{day + 2*time.Minute, false, false},
		{day - time.Hour, false, false}, // the clock goes back
		{10 * day, false, true},         // nobody was there for a week
		{10*day + 13*time.Hour, true, true},
		{11 * day, false, false},
		{400 * day, true, true}, // also after everything has expired
	} {
		if err := b.Refresh(t.Context(), b.now.Add(tt.after)); err != nil {
			t.Fatalf("after %s: %v", tt.after, err)
		}
		s, err := b.Status()
		if err != nil {
			t.Fatal(err)
		}
		snapshot, timestamp := s.Roles[2].Version-last.Roles[2].Version, s.Roles[3].Version-last.Roles[3].Version
		if snapshot > 0 != tt.snapshot || timestamp > 0 != tt.timestamp || snapshot < 0 || timestamp < 0 {
			t.Errorf("after %s: snapshot by %d, timestamp by %d, want %t %t", tt.after, snapshot, timestamp, tt.snapshot, tt.timestamp)
		}
		last = s
	}
}

// A backup from before some signatures is put back: clients that saw them go
// on with the next.
func TestRestoredBackup(t *testing.T) {
	b := newBench(t)
	root1 := trusted(t, newCA(t, "one", b.now.Add(-time.Hour)))
	b.now = b.now.Add(-5 * 24 * time.Hour)
	b.publishFirst(files(root1))
	backup, err := os.ReadFile(filepath.Join(b.config.Directory, timestampName))
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	for range 4 {
		b.now = b.now.Add(25 * time.Hour)
		if err := b.Refresh(t.Context(), b.now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.followWith(cache); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.config.Directory, timestampName), backup, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context(), b.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, err := b.followWith(cache); err != nil || got != string(root1) {
		t.Fatal(err)
	}
}

// What clients refuse: a repository put back to an older state, one that
// stands still, one whose files were changed.
func TestClientsRefuse(t *testing.T) {
	b := newBench(t)
	one := newCA(t, "one", b.now.Add(-time.Hour))
	root1 := trusted(t, one)
	b.publishFirst(files(root1))
	old, err := os.ReadFile(filepath.Join(b.config.Directory, timestampName))
	if err != nil {
		t.Fatal(err)
	}
	root2 := trusted(t, one, newCA(t, "two", b.now.Add(72*time.Hour)))
	if err := b.Publish(t.Context(), b.now, b.stage(Change{Files: files(root2)}, b.offline[0], b.offline[1])); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	if got, err := b.followWith(cache); err != nil || got != string(root2) {
		t.Fatal(err)
	}
	fresh, err := os.ReadFile(filepath.Join(b.config.Directory, timestampName))
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, raw []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(b.config.Directory, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(timestampName, old)
	if got, err := b.followWith(cache); err == nil && got != string(root2) {
		t.Error("a client was rolled back")
	}
	put(timestampName, fresh)

	// It stands still: signed so long ago that it has expired.
	frozen := b.open(Config{Directory: b.config.Directory, Online: b.online.signers, SnapshotExpiry: time.Hour, TimestampExpiry: time.Hour})
	b.now = b.now.Add(-3 * time.Hour)
	s := b.stage(Change{Files: files(root2)}, b.offline[0], b.offline[1])
	if err := frozen.Publish(t.Context(), b.now, s); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(3 * time.Hour)
	if _, err := b.followWith(cache); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a client believes an expired timestamp: %v", err)
	}
	if err := b.Refresh(t.Context(), b.now); err != nil {
		t.Fatal(err)
	}
	if _, err := b.followWith(cache); err != nil {
		t.Errorf("signed again: %v", err)
	}

	// Changed files: the client refuses them, and so do we.
	targets, err := filepath.Glob(filepath.Join(b.config.Directory, "targets", "*."+trustedRootName))
	if err != nil || len(targets) != 4 {
		t.Fatal(targets, err)
	}
	for _, path := range targets {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.follow(); err == nil {
		t.Error("a client believes a changed target")
	}
	if _, ok, err := Published(b.config.Directory); ok || err == nil {
		t.Error("Published believes a changed target")
	}
	put("3.targets.json", []byte(`{}`))
	if _, err := b.Status(); err == nil || errors.Is(err, attest.ErrNotFound) {
		t.Errorf("status of changed targets: %v", err)
	}
	if err := os.Remove(filepath.Join(b.config.Directory, "1.root.json")); err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context(), b.now.Add(1000*time.Hour)); err == nil {
		t.Error("refreshed without a root")
	}
}

// helper is the process that a test starts to kill it, or beside another.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TUF_TEST_DIRECTORY"); dir != "" {
		if err := helper(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper publishes the staged file, and kills itself before it writes a file
// of that name; without a staged file it refreshes.
func helper(dir string) error {
	var online []crypto.Signer
	for _, name := range strings.Fields(os.Getenv("TUF_TEST_ONLINE")) {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		key, err := OpenKey(raw, "")
		if err != nil {
			return err
		}
		online = append(online, key)
	}
	r, err := Open(Config{Directory: dir, Online: func(context.Context) ([]crypto.Signer, error) { return online, nil }})
	if err != nil {
		return err
	}
	r.before = func(name string) {
		if kill := os.Getenv("TUF_TEST_KILL"); kill != "" && strings.HasSuffix(name, kill) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	now, err := time.Parse(time.RFC3339, os.Getenv("TUF_TEST_NOW"))
	if err != nil {
		return err
	}
	staged := os.Getenv("TUF_TEST_STAGED")
	if staged == "" {
		return r.Refresh(context.Background(), now)
	}
	s, err := ReadStaged(staged)
	if err != nil {
		return err
	}
	return r.Publish(context.Background(), now, s)
}

// command is that process.
func (b *bench) command(now time.Time, variables ...string) *exec.Cmd {
	b.t.Helper()
	var names []string
	for i, k := range b.online.versions {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			b.t.Fatal(err)
		}
		name := filepath.Join(b.t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der}), 0o600); err != nil {
			b.t.Fatal(err)
		}
		names = append(names, name)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), append(variables, "TUF_TEST_DIRECTORY="+b.config.Directory,
		"TUF_TEST_ONLINE="+strings.Join(names, " "), "TUF_TEST_NOW="+now.Format(time.RFC3339))...)
	return c
}

// Killed before any of its writes, a publication leaves clients with the old
// trusted root or the new one, and is finished when it is published again.
func TestKilledPublication(t *testing.T) {
	type kill struct {
		what, before string
		change       Change
		loseOnline   bool
		want         int // 1: old, 2: new, 0: nothing is published, 3: clients refuse until Refresh
	}
	for _, k := range []kill{
		{"the first", "1.targets.json", Change{}, false, 0},
		{"the first", "snapshot.json", Change{}, false, 0},
		{"the first", "1.root.json", Change{}, false, 0},
		{"the first", "timestamp.json", Change{}, false, 0},
		{"targets", "2.targets.json", Change{}, false, 1},
		{"targets", "snapshot.json", Change{}, false, 1},
		{"targets", "timestamp.json", Change{}, false, 1},
		{"a root", "2.targets.json", Change{NewRoot: true}, false, 1},
		{"a root", "timestamp.json", Change{NewRoot: true}, false, 1},
		{"a root", "2.root.json", Change{NewRoot: true}, false, 2},
		{"an online key", "timestamp.json", Change{NewOnline: true}, false, 1},
		{"an online key", "2.root.json", Change{NewOnline: true}, false, 2},
		{"a lost online key", "2.root.json", Change{NewOnline: true}, true, 1},
		{"a lost online key", "timestamp.json", Change{NewOnline: true}, true, 3},
	} {
		t.Run(k.what+" before "+k.before, func(t *testing.T) {
			b := newBench(t)
			one := newCA(t, "one", b.now.Add(-time.Hour))
			root1, root2 := trusted(t, one), trusted(t, one, newCA(t, "two", b.now.Add(72*time.Hour)))
			k.change.Files = files(root2)
			if k.want == 0 {
				k.change.Add, k.change.Threshold = b.publics(), 2
			} else {
				b.publishFirst(files(root1))
			}
			if k.loseOnline {
				b.online.versions = nil
			}
			if k.change.NewOnline {
				b.online.rotate(t)
			}
			s := b.stage(k.change, b.offline[0], b.offline[1])
			path := filepath.Join(t.TempDir(), "staged.json")
			if err := s.Write(path); err != nil {
				t.Fatal(err)
			}
			out, err := b.command(b.now, "TUF_TEST_STAGED="+path, "TUF_TEST_KILL="+k.before).CombinedOutput()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("not killed: %v\n%s", err, out)
			}
			switch k.want {
			case 0:
				if _, ok, err := Published(b.config.Directory); ok || err != nil {
					t.Fatalf("published %t, %v", ok, err)
				}
			case 1:
				b.wantFollowed(root1)
			case 2:
				b.wantFollowed(root2)
			case 3:
				if raw, ok, err := Published(b.config.Directory); err != nil || !ok || string(raw) != string(root1) {
					t.Fatalf("published %t, %v", ok, err)
				}
				if _, err := b.follow(); err == nil {
					t.Fatal("a client follows a timestamp of the key that was replaced")
				}
				if err := b.Refresh(t.Context(), b.now); err != nil {
					t.Fatal(err)
				}
				b.wantFollowed(root1)
			}
			// Others work on: a refresh, and the same again with more signatures.
			if err := b.Refresh(t.Context(), b.now.Add(25*time.Hour)); err != nil && !k.loseOnline {
				t.Fatal(err)
			}
			if _, err := s.Sign(b.offline[2]); err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(t.Context(), b.now, s); err != nil {
				t.Fatal(err)
			}
			if b.first == nil {
				b.first, _ = os.ReadFile(filepath.Join(b.config.Directory, "1.root.json"))
			}
			b.wantFollowed(root2)
		})
	}
}

func TestTwoProcessesRefresh(t *testing.T) {
	b := newBench(t)
	root1 := trusted(t, newCA(t, "one", b.now.Add(-time.Hour)))
	b.publishFirst(files(root1))
	for day := range 3 {
		before, err := b.Status()
		if err != nil {
			t.Fatal(err)
		}
		now := b.now.Add(time.Duration(day+1) * 25 * time.Hour)
		var group sync.WaitGroup
		for range 3 {
			c := b.command(now)
			group.Go(func() {
				if out, err := c.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		group.Wait()
		after, err := b.Status()
		if err != nil {
			t.Fatal(err)
		}
		// Signed once: a second signature in the same minute would count on.
		if was, is := before.Roles[3].Version, after.Roles[3].Version; is == was || is != now.Unix()/60 {
			t.Errorf("day %d: timestamp %d after %d, want %d", day, is, was, now.Unix()/60)
		}
	}
	b.wantFollowed(root1)

	// One that waits gives up with its context.
	unlock, err := lock(t.Context(), b.config.Directory)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Refresh(ctx, b.now.Add(200*time.Hour)); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("another process writes: %v", err)
	}
}

func TestHandler(t *testing.T) {
	b := newBench(t)
	b.publishFirst(files(trusted(t, newCA(t, "one", b.now.Add(-time.Hour)))))
	dir := b.config.Directory
	for _, name := range []string{"staged.json", "2.root.json.bak", ".new-1", "9.mirrors.json", "targets/plain.pem", "root.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "7.root.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "8.root.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	pems, err := filepath.Glob(filepath.Join(dir, "targets", "*.provenance-v1.pem"))
	if err != nil || len(pems) != 2 {
		t.Fatal(pems, err)
	}
	const forever, ask, never = "public, max-age=31536000, immutable", "no-cache", "no-store"
	for _, tt := range []struct {
		method, path string
		status       int
		caching      string
	}{
		{"GET", "/tuf/1.root.json", 200, forever},
		{"HEAD", "/tuf/1.root.json", 200, forever},
		{"GET", "/tuf/1.targets.json", 200, forever},
		{"GET", "/tuf/timestamp.json", 200, ask},
		{"GET", "/tuf/targets/" + filepath.Base(pems[0]), 200, forever},
		{"GET", "/tuf/targets/" + filepath.Base(pems[1]), 200, forever},
		{"GET", "/tuf/2.root.json", 404, never},
		{"GET", "/tuf/01.root.json", 404, never},
		{"GET", "/tuf/7.root.json", 404, never},
		{"GET", "/tuf/8.root.json", 404, never},
		{"GET", "/tuf/", 404, never},
		{"GET", "/tuf/targets/", 404, never},
		{"GET", "/tuf/targets/plain.pem", 404, never},
		{"GET", "/tuf/staged.json", 404, never},
		{"GET", "/tuf/root.json", 404, never},
		{"GET", "/tuf/.lock", 404, never},
		{"GET", "/tuf/.new-1", 404, never},
		{"GET", "/tuf/2.root.json.bak", 404, never},
		{"GET", "/tuf/9.mirrors.json", 404, never},
		{"GET", "/tuf/../tuf/1.root.json", 404, never},
		{"GET", "/tuf/targets/..%2f1.root.json", 404, never},
		{"GET", "/tuf/%2e%2e/%2e%2e/etc/passwd", 404, never},
		{"GET", "/1.root.json", 404, never},
		{"POST", "/tuf/1.root.json", 405, ""},
		{"DELETE", "/tuf/timestamp.json", 405, ""},
	} {
		req, err := http.NewRequest(tt.method, b.server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = tt.path // as it is, without cleaning
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != tt.status || answer.Header.Get("Cache-Control") != tt.caching {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, answer.StatusCode, answer.Header.Get("Cache-Control"), tt.status, tt.caching)
		}
		if strings.Contains(string(body), "secret") || strings.Contains(string(body), "root:") {
			t.Errorf("%s %s: %s", tt.method, tt.path, body)
		}
	}
}

func TestKeys(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, recipient := range []string{"", identity.Recipient().String()} {
		private, public, err := GenerateKey(recipient)
		if err != nil {
			t.Fatal(err)
		}
		if Sealed(private) != (recipient != "") {
			t.Errorf("recipient %q: sealed %t", recipient, Sealed(private))
		}
		key, err := OpenKey(private, identity.String())
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParsePublic(public)
		if err != nil || !parsed.Equal(key.Public()) {
			t.Errorf("recipient %q: the public part is another: %v", recipient, err)
		}
		for name, ids := range map[string]string{"another": otherIdentity(t), "none": "", "nonsense": "AGE-SECRET-KEY-1"} {
			if _, err := OpenKey(private, ids); recipient != "" && (!errors.Is(err, attest.ErrInvalid) || strings.Contains(err.Error(), "AGE-SECRET-KEY-1A")) {
				t.Errorf("opened with %s identity: %v", name, err)
			}
		}
		for _, bad := range [][]byte{nil, public, append(slices.Clone(private), private...), []byte(sealedHeader)} {
			if _, err := OpenKey(bad, identity.String()); !errors.Is(err, attest.ErrInvalid) {
				t.Errorf("recipient %q: opened %.40q: %v", recipient, bad, err)
			}
		}
	}
	if _, _, err := GenerateKey("age1nobody"); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("encrypted to nobody: %v", err)
	}
}

func otherIdentity(t *testing.T) string {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.String()
}

// FuzzStaged: whatever stands in a staged file, nothing panics, and what is
// accepted is written as it was read.
func FuzzStaged(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	online, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	r, err := Open(Config{Directory: f.TempDir(), Online: func(context.Context) ([]crypto.Signer, error) { return []crypto.Signer{online}, nil }})
	if err != nil {
		f.Fatal(err)
	}
	s, err := r.Stage(f.Context(), time.Now(), Change{Files: files([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)), Add: []crypto.PublicKey{key.Public()}, Threshold: 1})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Sign(key); err != nil {
		f.Fatal(err)
	}
	raw, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"format":"provost-tuf-staged/1","root":{"signed":{"_type":"root","roles":{"root":null}},"signatures":[]},"targets":{"signed":{"_type":"targets","targets":{"a":null}}},"files":{}}`))
	f.Add([]byte(`{"format":"provost-tuf-staged/1","targets":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseStaged(raw)
		if err != nil {
			return
		}
		_ = s.Describe()
		out, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseStaged(out); err != nil {
			t.Fatal(err)
		}
	})
}
