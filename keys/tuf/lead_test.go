// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"provost/attest"
)

func TestLead(t *testing.T) {
	now := time.Now()
	one, two := newCA(t, "one", now.Add(-time.Hour)), newCA(t, "two", now.Add(49*time.Hour))
	early := newCA(t, "early", now.Add(47*time.Hour))
	published := trusted(t, one.to(now.Add(1000*time.Hour)))
	for _, tt := range []struct {
		name string
		cas  []ca
		ok   bool
	}{
		{"the same", []ca{one}, true},
		{"its window ends earlier", []ca{one.to(now)}, true},
		{"its window ends later", []ca{one.to(now.Add(2000 * time.Hour))}, true},
		{"a hole in its window", []ca{one.to(now.Add(-30 * time.Minute)), one.from(now)}, true},
		{"it begins later", []ca{one.from(now)}, true},
		{"it vanishes", []ca{two}, true},
		{"a new one after the lead", []ca{one, two}, true},
		{"a new one before the lead", []ca{one, early}, false},
		{"a new one now", []ca{one, newCA(t, "now", now)}, false},
		{"a new one whose certificate is after the lead and whose window is not", []ca{one, two.from(now)}, false},
		{"a new one whose window is after the lead and whose certificate is not", []ca{one, early.from(now.Add(49 * time.Hour))}, false},
		{"one that begins earlier than was published", []ca{one.from(now.Add(-2 * time.Hour))}, false},
	} {
		err := checkLead(published, trusted(t, tt.cas...), now, 48*time.Hour)
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, attest.ErrDenied) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := checkLead(published, []byte("{}"), now, 0); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("no trusted root at all: %v", err)
	}

	// The first publication has nobody to warn; the second one has.
	b := newBench(t)
	b.publishFirst(files(trusted(t, one)))
	s := b.stage(Change{Files: files(trusted(t, one, early))}, b.offline[0], b.offline[1])
	if err := b.Publish(t.Context(), b.now, s); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("published too late: %v", err)
	}
	b.wantFollowed(trustedOf(t, b))
	b.Repository = b.open(Config{Directory: b.config.Directory, Online: b.online.signers, Lead: 46 * time.Hour})
	if err := b.Publish(t.Context(), b.now, s); err != nil {
		t.Errorf("with a shorter lead: %v", err)
	}
}

// What was revoked stays revoked, and nothing that was published vanishes
// without being asked for.
func TestKept(t *testing.T) {
	now := time.Now()
	one, two := newCA(t, "one", now.Add(-time.Hour)), newCA(t, "two", now.Add(-time.Hour))
	holed := []ca{one.to(now.Add(-30 * time.Minute)), one.from(now.Add(-10 * time.Minute)), two}
	published := trusted(t, holed...)
	for _, tt := range []struct {
		name    string
		cas     []ca
		dropped int
		lost    bool
	}{
		{"the same", holed, 0, false},
		{"a new one", append([]ca{newCA(t, "three", now)}, holed...), 0, false},
		{"a larger hole", []ca{one.to(now.Add(-40 * time.Minute)), one.from(now), two}, 0, false},
		{"another hole", []ca{one.to(now.Add(-30 * time.Minute)), one.from(now.Add(-10 * time.Minute)).to(now), two}, 0, false},
		{"without what lies before the hole", []ca{one.from(now.Add(-10 * time.Minute)), two}, 0, false},
		{"no hole", []ca{one, two}, 0, true},
		{"a smaller hole", []ca{one.to(now.Add(-20 * time.Minute)), one.from(now.Add(-10 * time.Minute)), two}, 0, true},
		{"a hole that ends earlier", []ca{one.to(now.Add(-30 * time.Minute)), one.from(now.Add(-11 * time.Minute)), two}, 0, true},
		{"a window in the hole", append([]ca{one.from(now.Add(-20 * time.Minute)).to(now.Add(-19 * time.Minute))}, holed...), 0, true},
		{"an earlier start", append([]ca{two.from(now.Add(-2 * time.Hour))}, holed...), 0, true},
		{"one vanishes", holed[:2], 1, false},
		{"all vanish", []ca{newCA(t, "three", now)}, 3, false},
		{"one vanishes and another has no hole", []ca{one}, 0, true},
	} {
		dropped, err := CheckKept(published, trusted(t, tt.cas...))
		if tt.lost != errors.Is(err, attest.ErrConflict) || !tt.lost && err != nil || len(dropped) != tt.dropped {
			t.Errorf("%s: %q, %v", tt.name, dropped, err)
		}
	}
	for _, bad := range [][2][]byte{{[]byte("{}"), published}, {published, []byte("{}")}} {
		if _, err := CheckKept(bad[0], bad[1]); err == nil {
			t.Errorf("compared with %s: accepted", bad)
		}
	}

	b := newBench(t)
	b.publishFirst(files(published))
	if _, err := b.Stage(t.Context(), b.now, Change{Files: files(trusted(t, one, two))}); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("a lost revocation is staged: %v", err)
	}
	if _, err := b.Stage(t.Context(), b.now, Change{Files: files(trusted(t, holed[:2]...))}); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("an authority is dropped: %v", err)
	}
	permissive := b.open(Config{Directory: b.config.Directory, Online: b.online.signers, AllowDropped: true})
	if _, err := permissive.Stage(t.Context(), b.now, Change{Files: files(trusted(t, one, two))}); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("a lost revocation is staged where authorities may be dropped: %v", err)
	}
	s, err := permissive.Stage(t.Context(), b.now, Change{Files: files(trusted(t, holed[:2]...))})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range b.offline {
		if _, err := s.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	// What was staged elsewhere is looked at again.
	if err := b.Publish(t.Context(), b.now, s); !errors.Is(err, attest.ErrDenied) {
		t.Errorf("published: %v", err)
	}
	if err := permissive.Publish(t.Context(), b.now, s); err != nil {
		t.Errorf("published where it is allowed: %v", err)
	}
}

// What is left of a trusted root by what is published: for each authority the
// times in which both trust it.
func TestRestrict(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	at := func(minutes int) time.Time { return now.Add(time.Duration(minutes) * time.Minute) }
	one, two := newCA(t, "one", at(-60)), newCA(t, "two", at(-60))
	begun, later := newCA(t, "begun", at(-10)), newCA(t, "later", at(60))
	published := trusted(t, one.to(at(-30)), one.from(at(-10)), two)
	for _, tt := range []struct {
		name      string
		own, want []ca
		wantAll   []ca // with keepNew; nil for the same
		changed   int
	}{
		{name: "the same", own: []ca{one.to(at(-30)), one.from(at(-10)), two}},
		{name: "a larger hole", own: []ca{one.to(at(-40)), one.from(at(-5)), two}},
		{name: "a hole is lost", own: []ca{one, two}, want: []ca{one.to(at(-30)), one.from(at(-10)), two}, changed: 1},
		{name: "another hole", own: []ca{one.to(at(-50)), one.from(at(-40)), two}, want: []ca{one.to(at(-50)), one.from(at(-40)).to(at(-30)), one.from(at(-10)), two}, changed: 1},
		{name: "a hole is lost and there is an end", own: []ca{one.to(at(-20)), two}, want: []ca{one.to(at(-30)), two}, changed: 1},
		{name: "all of it lies in the hole", own: []ca{one.from(at(-25)).to(at(-20)), two}, want: []ca{two}, changed: 1},
		{name: "an earlier start", own: []ca{two.from(at(-70))}, want: []ca{two}, changed: 1},
		{name: "one that has not begun", own: []ca{two, later}},
		{name: "one that has begun and is not published", own: []ca{two, begun}, want: []ca{two}, changed: 1, wantAll: []ca{two, begun}},
	} {
		own := trusted(t, tt.own...)
		for _, keepNew := range []Keep{KeepComing, KeepNew} {
			want, changed := tt.want, tt.changed
			if keepNew == KeepNew && tt.wantAll != nil {
				want, changed = tt.wantAll, 0
			}
			left, told, err := Restrict(published, own, now, keepNew)
			if err != nil || len(told) != changed {
				t.Errorf("%s, %d: changed %q, %v", tt.name, keepNew, told, err)
				continue
			}
			if changed == 0 && !bytes.Equal(left, own) {
				t.Errorf("%s, %d: it is not returned as it was", tt.name, keepNew)
			}
			if want == nil {
				want = tt.own
			}
			if got, exp := windowsIn(t, left), windowsIn(t, trusted(t, want...)); !slices.Equal(got, exp) {
				t.Errorf("%s, %d:\n got %q\nwant %q", tt.name, keepNew, got, exp)
			}
			if _, err := CheckKept(published, left); err != nil { // so it may be published
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
	if left, told, err := Restrict(published, trusted(t, two, later), now, KeepPublished); err != nil || len(told) != 1 ||
		!slices.Equal(windowsIn(t, left), windowsIn(t, trusted(t, two))) {
		t.Errorf("one that has not begun, and is not published: %q, %v", told, err)
	}
	for _, bad := range [][2][]byte{{[]byte("{}"), published}, {published, []byte("{}")}} {
		if _, _, err := Restrict(bad[0], bad[1], now, KeepNew); err == nil {
			t.Error("what is no trusted root is restricted")
		}
	}
}

// Who is told of no log asks for no entries: a log is ended, and never dropped.
func TestRestrictKeepsLogs(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	one := newCA(t, "one", now.Add(-time.Hour))
	logged := func(end time.Time) []byte {
		t.Helper()
		key, err := x509.MarshalPKIXPublicKey(one.leaf.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		id := sha256.Sum256(key)
		logs := map[string]*root.TransparencyLog{hex.EncodeToString(id[:]): {
			BaseURL: "https://log.example.com", ID: id[:], PublicKey: one.leaf.PublicKey, HashFunc: crypto.SHA256,
			SignatureHashFunc: crypto.SHA256, ValidityPeriodStart: now.Add(-time.Hour), ValidityPeriodEnd: end,
		}}
		tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: one.top, Intermediates: []*x509.Certificate{one.leaf}, URI: "https://one.example", ValidityPeriodStart: one.start,
		}}, logs, nil, logs)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := tr.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	own := logged(time.Time{})
	for name, tt := range map[string]struct {
		published []byte
		keep      Keep
		end       time.Time
		logs      int
	}{
		"dropped":            {trusted(t, one), KeepPublished, time.Unix(0, 0), 2},
		"ended":              {logged(now), KeepPublished, now, 2},
		"published as it is": {own, KeepPublished, time.Time{}, 2},
		// It would be published with that window, for ever.
		"never published, to stage": {trusted(t, one), KeepComing, time.Time{}, 0},
		"ended, to stage":           {logged(now), KeepComing, now, 2},
		"new, to stage":             {trusted(t, one), KeepNew, time.Time{}, 2},
	} {
		left, _, err := Restrict(tt.published, own, now, tt.keep)
		if err != nil {
			t.Fatal(err)
		}
		authorities, err := readAuthorities(left)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, a := range authorities {
			if a.log() {
				if n++; !a.end.Equal(tt.end) {
					t.Errorf("%s: %s", name, a)
				}
			}
		}
		if n != tt.logs {
			t.Errorf("%s: %d logs are left", name, n)
		}
	}
	b := newBench(t)
	b.publishFirst(files(own))
	permissive := b.open(Config{Directory: b.config.Directory, Online: b.online.signers, AllowDropped: true})
	if _, err := permissive.Stage(t.Context(), b.now, Change{Files: files(trusted(t, one))}); !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), "end its window") {
		t.Errorf("the logs are dropped: %v", err)
	}
}

// windowsIn are the windows of a trusted root, sorted.
func windowsIn(t *testing.T, raw []byte) (all []string) {
	t.Helper()
	authorities, err := readAuthorities(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range authorities {
		all = append(all, a.String())
	}
	slices.Sort(all)
	return all
}
