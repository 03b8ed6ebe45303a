// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/sigstore/sigstore-go/pkg/root"

	"provost/attest"
	"provost/keys"
	"provost/keys/tuf"
)

// A safe has the root key of a realm.
type safe struct {
	root     *x509.Certificate
	key      []byte
	identity string
}

// ceremony has a request certified and imported.
func (s safe) ceremony(t *testing.T, config keys.Config, name, host string) *x509.Certificate {
	t.Helper()
	r, err := keys.RequestAuthority(t.Context(), config, name, host)
	check(t, err)
	made, err := keys.CertifyAuthority(r, s.root, s.key, s.identity)
	check(t, err)
	check(t, keys.ImportAuthority(t.Context(), config, made))
	cert, err := x509.ParseCertificate(made.DER)
	check(t, err)
	return cert
}

// newSafe initialises a realm whose root key is kept.
func newSafe(t *testing.T, config keys.Config) safe {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	check(t, err)
	dir := t.TempDir()
	keep, err := keys.KeepRootIn(dir, id.Recipient().String())
	check(t, err)
	s := safe{identity: id.String()}
	check(t, keys.Init(t.Context(), config, func(root *x509.Certificate, key []byte) error {
		s.root = root
		return keep(root, key)
	}))
	files, err := filepath.Glob(filepath.Join(dir, "root-*.age"))
	check(t, err)
	s.key, err = os.ReadFile(files[0])
	check(t, err)
	return s
}

// A later authority is in the trusted root at once, and used only when its time
// has come and verifiers have been given it.
func TestLaterAuthorityIsUsedInTime(t *testing.T) {
	config, store, now := newConfig(t)
	published := []byte("nothing of it")
	var given []byte // what verifiers were given; nil for nothing yet
	config.Published = func(context.Context) ([]byte, error) { return given, nil }
	config.Restrict = restrict
	s := newSafe(t, config)
	config = pin(t, config)
	a, err := keys.Open(t.Context(), config)
	check(t, err)
	// stamps reports whether that authority stamps now. (The library's own
	// check of a response knows only the machine's clock.)
	stamps := func(by []byte) bool {
		t.Helper()
		check(t, a.Maintain(t.Context()))
		stamps, err := a.Timestamp(t.Context(), []byte("signature"))
		check(t, err)
		return bytes.Contains(stamps[0], by)
	}
	first := store.find("timestamp").DER
	if !stamps(first) {
		t.Fatal("the first authority does not stamp")
	}
	next := s.ceremony(t, config, "timestamp", "")
	if got := next.NotBefore.Sub(now.Now()); got < 48*time.Hour {
		t.Errorf("first use in %s", got)
	}
	if !stamps(first) {
		t.Error("used before its time")
	}
	text, err := a.TrustedRoot()
	check(t, err)
	if !strings.Contains(string(text), next.NotBefore.Format(time.RFC3339)) {
		t.Error("the trusted root does not name it")
	}
	old := text
	now.advance(next.NotBefore.Sub(now.Now()) + time.Second)
	if stamps(next.Raw) {
		t.Error("used though nothing is published: a directory that is not there tells nobody")
	}
	given = published
	if err := a.Maintain(t.Context()); err == nil { // not even the first is in it: nothing can be used
		if _, err := a.Timestamp(t.Context(), []byte("x")); !errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("an authority that nobody was given: %v", err)
		}
	}
	given = old
	if !stamps(next.Raw) {
		t.Error("not used when its time has come and it is published")
	}
}

// A shard of the log that was certified is opened by configuration, under a key
// and a host of its own.
func TestAnotherShard(t *testing.T) {
	config, _, _ := newConfig(t)
	var skew time.Duration
	config.Now = func() time.Time { return time.Now().Add(skew) }
	config.Log = &keys.LogConfig{Directory: t.TempDir(), URL: identity + "/log"}
	s := newSafe(t, config)
	config = pin(t, config)
	r := &loggedRealm{t: t, config: config}
	r.open()
	first := r.sign()
	const host = "log2.example.com"
	if _, err := keys.RequestAuthority(t.Context(), config, "log", "provost.example.com"); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("the same host again: %v", err)
	}
	shard := s.ceremony(t, config, "log", host)
	check(t, r.Close())
	r.config.Log = &keys.LogConfig{Directory: config.Log.Directory, URL: "https://" + host + "/log"}
	if _, err := keys.Open(t.Context(), r.config); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("before its time: %v", err)
	}
	skew = time.Until(shard.NotBefore) + time.Minute
	check(t, keys.Init(t.Context(), r.config, dropRoot))
	r.open()
	check(t, r.Maintain(t.Context())) // the leaf has ended meanwhile
	second := r.sign()
	if second.Log == first.Log || second.LogIndex != 0 {
		t.Errorf("logged in %s at %d", second.Log, second.LogIndex)
	}
	for i, b := range []attest.Attestation{first, second} {
		if err := r.believed(b.Bundle); err != nil {
			t.Errorf("bundle %d: %v", i, err)
		}
	}
	// Each is served to those who ask for it by its host.
	for asked, want := range map[string]string{"provost.example.com": "provost.example.com\n1\n", host: host + "\n1\n", "localhost:8080": host + "\n1\n"} {
		w := httptest.NewRecorder()
		q := httptest.NewRequest("GET", "/log/checkpoint", nil)
		q.Host = asked
		r.LogHandlers()["/log/"].ServeHTTP(w, q)
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("asked as %s: %d %q", asked, w.Code, w.Body)
		}
	}
	// The first one closes some time after, and the trusted root says so.
	text, err := r.TrustedRoot()
	check(t, err)
	if end := shard.NotBefore.Add(7 * 24 * time.Hour).Format(time.RFC3339); !strings.Contains(string(text), `"end":"`+end+`"`) {
		t.Errorf("the first shard does not end at %s", end)
	}
	check(t, r.Close())
	r.config.Log = config.Log
	r.open() // still writable
	skew += 8 * 24 * time.Hour
	check(t, r.Maintain(t.Context()))
	if _, err := r.Log().Append(t.Context(), attest.LogEntry{}); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("an entry for a closed shard: %v", err)
	}
	check(t, r.Close())
	if _, err := keys.Open(t.Context(), r.config); !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "was closed") {
		t.Errorf("a closed shard: %v", err)
	}
}

// A revocation counts also while what is published cannot be read, and no
// authority becomes known meanwhile.
func TestRevocationWhilePublishedCannotBeRead(t *testing.T) {
	var broken error
	var given []byte
	r := newLoggedRealm(t, func(c *keys.Config) {
		c.Published = func(context.Context) ([]byte, error) { return given, broken }
		c.Restrict = restrict
	})
	text, err := r.TrustedRoot()
	check(t, err)
	given = text
	check(t, r.Maintain(t.Context()))
	made := r.sign()
	broken = errors.New("a disk that is gone")
	revoke(t, r.Authority, attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1})
	if err := r.believed(made.Bundle); err == nil {
		t.Error("believed after its revocation")
	}
	if again := r.sign(); again.KeyVersion != 2 {
		t.Errorf("goes on with version %d", again.KeyVersion)
	}
	if a, err := keys.Open(t.Context(), r.config); err == nil {
		a.Close()
		t.Error("starts without knowing what is published")
	}
}

// restrict is what the service gives.
func restrict(published, trustedRoot []byte, now time.Time) ([]byte, []string, error) {
	return tuf.Restrict(published, trustedRoot, now, tuf.KeepPublished)
}

// A database that was put back to before a revocation which is published: what
// was revoked is not believed, nor is it when the directory of what is published
// vanishes, and signing goes on with what is.
func TestLostRevocation(t *testing.T) {
	var given []byte
	var told []string
	r := newLoggedRealm(t, func(c *keys.Config) {
		c.Published = func(context.Context) ([]byte, error) { return given, nil }
		c.Restrict = restrict
		c.Warn = func(message string, _ ...any) { told = append(told, message) }
	})
	made := r.sign()
	revoke(t, r.Authority, attest.KeyRevocation{Signer: attest.PowerProvenance, Version: 1})
	text, err := r.TrustedRoot()
	check(t, err)
	given = text
	check(t, r.Maintain(t.Context()))

	check(t, r.Close())
	r.config.Archive = forgetful{r.config.Archive}
	told = nil
	r.open()
	if len(told) != 1 || !strings.Contains(told[0], "older state") {
		t.Errorf("told %q", told)
	}
	for range 2 {
		now, err := r.TrustedRoot()
		check(t, err)
		for _, pair := range [][2][]byte{{text, now}, {now, text}} { // the same but for the order
			if dropped, err := tuf.CheckKept(pair[0], pair[1]); err != nil || len(dropped) > 0 {
				t.Errorf("another trusted root than is published: %q, %v", dropped, err)
			}
		}
		if _, err := tuf.CheckKept(text, r.ToPublish()); err == nil {
			t.Error("the archive has the revocation")
		}
		if err := r.believed(made.Bundle); err == nil {
			t.Error("believed after its revocation")
		}
		if err := r.believed(r.sign().Bundle); err != nil {
			t.Errorf("signed since: %v", err)
		}
		given = nil // the directory is gone
		check(t, r.Maintain(t.Context()))
	}
}

// publishing has verifiers be given that trusted root, at a time by so much later.
func publishing(given *[]byte, skew *time.Duration) func(*keys.Config) {
	return func(c *keys.Config) {
		c.Published = func(context.Context) ([]byte, error) { return *given, nil }
		c.Restrict = restrict
		c.Now = func() time.Time { return time.Now().Add(*skew) }
	}
}

// Who takes a CA out of what is published, or ends it there, has it signed and
// believed for no more here either.
func TestAuthorityTakenBackByPublication(t *testing.T) {
	for name, change := range map[string]func(own []byte, ca string) []byte{
		"dropped": func(own []byte, ca string) []byte { return without(t, own, ca, false) },
		"ended":   func(own []byte, ca string) []byte { return without(t, own, ca, true) },
	} {
		t.Run(name, func(t *testing.T) {
			var given []byte
			var skew time.Duration
			r := newLoggedRealm(t, publishing(&given, &skew))
			skew = 10 * time.Second // after the second in which everything began
			made := r.sign()
			issuers := issuersOf(t, r.ToPublish())
			given = change(r.ToPublish(), issuers[0])
			check(t, r.Maintain(t.Context()))
			if err := r.believed(made.Bundle); err == nil {
				t.Error("what it vouched for is believed")
			}
			check(t, r.Maintain(t.Context()))
			if _, err := r.Rotate(t.Context(), attest.PowerProvenance); err != nil {
				t.Fatal(err)
			}
			if err := r.believed(r.sign().Bundle); err != nil {
				t.Errorf("signed since, by the reserve: %v", err)
			}
		})
	}
}

// So it is with a timestamp authority: nothing is stamped that nobody believes.
func TestTimestampAuthorityTakenBackByPublication(t *testing.T) {
	var given []byte
	var skew time.Duration
	r := newLoggedRealm(t, publishing(&given, &skew))
	skew = 10 * time.Second
	made := r.sign()
	given = bytes.Replace(r.ToPublish(), []byte(`/v1/timestamp","validFor":{`), []byte(`/v1/timestamp","validFor":{"end":"2026-01-01T00:00:00Z",`), 1)
	given = regexp.MustCompile(`("end":"2026-01-01T00:00:00Z",)"start":"[^"]*"`).ReplaceAll(given, []byte(`$1"start":"2025-01-01T00:00:00Z"`))
	if bytes.Equal(given, r.ToPublish()) {
		t.Fatal("nothing was taken back")
	}
	check(t, r.Maintain(t.Context()))
	if err := r.believed(made.Bundle); err == nil {
		t.Error("what it stamped is believed")
	}
	if _, err := r.Timestamp(t.Context(), []byte("signature")); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("it stamps: %v", err)
	}
}

// And with the log: it takes no entry that nobody believes.
func TestLogTakenBackByPublication(t *testing.T) {
	var given []byte
	r := newLoggedRealm(t, publishing(&given, new(time.Duration)))
	r.sign()
	given = r.ToPublish()
	check(t, r.Maintain(t.Context()))
	if _, err := r.Log().Append(t.Context(), attest.LogEntry{}); err != nil {
		t.Errorf("published as it is: %v", err)
	}
	var all map[string]any
	check(t, json.Unmarshal(given, &all))
	delete(all, "tlogs")
	given, _ = json.Marshal(all)
	check(t, r.Maintain(t.Context()))
	if _, err := r.Log().Append(t.Context(), attest.LogEntry{}); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("not published: %v", err)
	}
	trusted, err := r.TrustedRoot()
	check(t, err)
	if tr, err := root.NewTrustedRootFromJSON(trusted); err != nil || len(tr.RekorLogs()) != 1 {
		t.Errorf("the trusted root names no log, and so asks for no entries: %v", err)
	}
}

// issuersOf are the raw bytes, in base64, of the CAs of provenance.
func issuersOf(t *testing.T, trustedRoot []byte) (all []string) {
	t.Helper()
	tr, err := root.NewTrustedRootFromJSON(trustedRoot)
	check(t, err)
	for _, ca := range tr.FulcioCertificateAuthorities() {
		if c := ca.(*root.FulcioCertificateAuthority).Intermediates[0]; strings.Contains(c.Subject.CommonName, "provenance") {
			all = append(all, base64.StdEncoding.EncodeToString(c.Raw))
		}
	}
	if len(all) < 2 {
		t.Fatalf("%d CAs of provenance", len(all))
	}
	return all
}

// without is a trusted root in which a CA is missing, or has ended before it
// vouched for anything.
func without(t *testing.T, trustedRoot []byte, ca string, ended bool) []byte {
	t.Helper()
	var all map[string]any
	check(t, json.Unmarshal(trustedRoot, &all))
	var left []any
	for _, e := range all["certificateAuthorities"].([]any) {
		entry := e.(map[string]any)
		raw, err := json.Marshal(entry)
		check(t, err)
		if strings.Contains(string(raw), ca) {
			if !ended {
				continue
			}
			window := entry["validFor"].(map[string]any)
			window["end"] = window["start"]
		}
		left = append(left, entry)
	}
	all["certificateAuthorities"] = left
	raw, err := json.Marshal(all)
	check(t, err)
	return raw
}

// A forgetful archive was put back to before the revocations.
type forgetful struct{ keys.Archive }

func (forgetful) KeyRevocations(context.Context) ([]attest.KeyRevocation, error) { return nil, nil }

func TestImportRefuses(t *testing.T) {
	config, _, _ := newConfig(t)
	s := newSafe(t, config)
	config = pin(t, config)
	other, _, _ := newConfig(t)
	strangers := newSafe(t, other)
	r, err := keys.RequestAuthority(t.Context(), config, "issuing-verdict", "")
	check(t, err)
	certify := func(s safe, change func(*keys.AuthorityRequest)) attest.Certificate {
		t.Helper()
		r := r
		change(&r)
		made, err := keys.CertifyAuthority(r, s.root, s.key, s.identity)
		check(t, err)
		return made
	}
	as := func(c attest.Certificate, name string, version int) attest.Certificate {
		return attest.Certificate{Name: name, Version: version, DER: c.DER}
	}
	good := certify(s, func(*keys.AuthorityRequest) {})
	for name, c := range map[string]attest.Certificate{
		"another root's":            certify(strangers, func(*keys.AuthorityRequest) {}),
		"one that begins now":       certify(s, func(r *keys.AuthorityRequest) { r.NotBefore = config.Now() }),
		"one that begins too early": certify(s, func(r *keys.AuthorityRequest) { r.NotBefore = config.Now().Add(47 * time.Hour) }),
		"a TSA as a CA":             as(certify(s, func(r *keys.AuthorityRequest) { r.Name = "timestamp" }), "issuing-verdict", good.Version),
		"a CA as a TSA":             as(good, "timestamp", 1),
		"a CA as a log":             as(good, "log", 1),
		"another version":           as(good, good.Name, 1),
		"a version that is not":     as(good, good.Name, 99),
		"version 0":                 as(good, good.Name, 0),
		"another signer's":          as(good, "issuing-evidence", good.Version),
		"a leaf's name":             as(good, "verdict", 1),
		"the root's name":           as(good, "root", 1),
		"no certificate":            {Name: good.Name, Version: good.Version, DER: []byte("x")},
	} {
		if err := keys.ImportAuthority(t.Context(), config, c); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	check(t, keys.ImportAuthority(t.Context(), config, good))
	check(t, keys.ImportAuthority(t.Context(), config, good))
	again := certify(s, func(r *keys.AuthorityRequest) { r.NotBefore = r.NotBefore.Add(time.Hour) })
	if err := keys.ImportAuthority(t.Context(), config, again); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("another certificate of the same version: %v", err)
	}
}
