// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"provost/attest"
	"provost/keys"
)

// A caKey is a CA whose private key we have.
type caKey struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// keepRoot is a keep for Init that keeps the root.
func keepRoot(t *testing.T, key *caKey) func(*x509.Certificate, []byte) error {
	return func(root *x509.Certificate, text []byte) error {
		block, _ := pem.Decode(text)
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		check(t, err)
		*key = caKey{root, parsed.(*ecdsa.PrivateKey)}
		return nil
	}
}

// again signs what the certificate says, changed, for that public key.
func (ca caKey) again(t *testing.T, der []byte, public any, change func(*x509.Certificate)) []byte {
	t.Helper()
	old, err := x509.ParseCertificate(der)
	check(t, err)
	c := *old
	c.AuthorityKeyId, c.SignatureAlgorithm = nil, 0
	if public == nil {
		public = old.PublicKey
	}
	if change != nil {
		change(&c)
	}
	for _, e := range old.Extensions { // what crypto/x509 does not make again as it was
		if id := e.Id.String(); strings.HasPrefix(id, "1.3.6.") || id == "2.5.29.37" && e.Critical && change == nil {
			c.ExtraExtensions = append(c.ExtraExtensions, e)
		}
	}
	signed, err := x509.CreateCertificate(rand.Reader, &c, ca.cert, public, ca.key)
	check(t, err)
	return signed
}

func (a *archive) find(name string) *attest.Certificate {
	i := slices.IndexFunc(a.certs, func(c attest.Certificate) bool { return c.Name == name })
	return &a.certs[i]
}

// TestOpenBelievesThePinnedRootAlone is somebody who can write the archive,
// and has a whole hierarchy of his own, but no key of ours. The archive is
// refused when the service starts, and when it reads it again.
func TestOpenBelievesThePinnedRootAlone(t *testing.T) {
	mine, evil, _ := newConfig(t)
	var evilRoot caKey
	check(t, keys.Init(t.Context(), mine, keepRoot(t, &evilRoot)))
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)

	add := func(name string, version int, der func(*archive) []byte) func(*testing.T, *archive, caKey) {
		return func(_ *testing.T, a *archive, _ caKey) {
			a.certs = append(a.certs, attest.Certificate{Name: name, Version: version, DER: der(a)})
		}
	}
	evils := func(name string) func(*archive) []byte {
		return func(*archive) []byte { return evil.find(name).DER }
	}
	ours := func(name string) func(*archive) []byte {
		return func(a *archive) []byte { return a.find(name).DER }
	}
	// misused is our root certifying a key of ours for what it is not for.
	misused := func(name string, change func(*x509.Certificate)) func(*testing.T, *archive, caKey) {
		return func(t *testing.T, a *archive, root caKey) {
			a.find(name).DER = root.again(t, a.find(name).DER, nil, change)
		}
	}
	for _, test := range []struct {
		name   string
		change func(*testing.T, *archive, caKey)
		words  string
	}{
		{"another root that certifies our keys, and CAs of version 0", func(t *testing.T, a *archive, _ caKey) {
			a.find("root").DER = evilRoot.cert.Raw
			for _, name := range []string{"issuing-verdict", "timestamp"} {
				a.find(name).DER = evilRoot.again(t, a.find(name).DER, nil, nil)
				a.certs = append(a.certs, attest.Certificate{Name: name, Version: 0, DER: evil.find(name).DER})
			}
		}, "versions begin at 1"},
		{"another root that certifies our keys", func(t *testing.T, a *archive, _ caKey) {
			a.find("root").DER = evilRoot.cert.Raw
			for _, name := range []string{"issuing-verdict", "timestamp"} {
				a.find(name).DER = evilRoot.again(t, a.find(name).DER, nil, nil)
			}
		}, "not the pinned one"},
		{"a second root", add("root", 2, evils("root")), "there are 2"},
		{"our root twice", add("root", 2, ours("root")), "there are 2"},
		{"a CA of version 0", add("issuing-verdict", 0, evils("issuing-verdict")), "versions begin at 1"},
		{"a CA of version -1", add("issuing-verdict", -1, evils("issuing-verdict")), "versions begin at 1"},
		{"a TSA of version 0", add("timestamp", 0, evils("timestamp")), "versions begin at 1"},
		{"a leaf of version 0", add("verdict", 0, evils("verdict")), "versions begin at 1"},
		{"a CA of a very high version", add("issuing-verdict", 1<<40, evils("issuing-verdict")), "pinned root did not sign"},
		{"a TSA of a very high version", add("timestamp", 1<<40, evils("timestamp")), "pinned root did not sign"},
		{"a CA of another key", func(_ *testing.T, a *archive, _ caKey) {
			a.find("issuing-verdict").DER = evil.find("issuing-verdict").DER
		}, "pinned root did not sign"},
		{"a TSA of another key", func(_ *testing.T, a *archive, _ caKey) { a.find("timestamp").DER = evil.find("timestamp").DER }, "pinned root did not sign"},
		{"a leaf by another CA", func(_ *testing.T, a *archive, _ caKey) { a.find("verdict").DER = evil.find("verdict").DER }, "not issued by"},
		{"a leaf by another CA of a very high version", add("verdict", 1<<40, evils("verdict")), "not issued by"},
		{"a leaf by another CA with our key", func(t *testing.T, a *archive, _ caKey) {
			der := a.find("verdict").DER
			a.find("verdict").DER = evilRoot.again(t, der, nil, nil)
		}, "not issued by"},
		{"a leaf by another CA that is named like ours", func(t *testing.T, a *archive, _ caKey) {
			issuing, err := x509.ParseCertificate(a.find("issuing-verdict").DER)
			check(t, err)
			issuing.PublicKey = &stranger.PublicKey
			a.find("verdict").DER = caKey{issuing, stranger}.again(t, a.find("verdict").DER, nil, nil)
		}, "not issued by"},
		{"our CA as a version it is not", add("issuing-verdict", 7, ours("issuing-verdict")), ""},
		{"our TSA as a CA", add("issuing-verdict", 9, ours("timestamp")), "not made for"},
		{"our CA as a TSA", add("timestamp", 2, ours("issuing-verdict")), "not made for"},
		{"our CA as a leaf", add("verdict", 2, ours("issuing-verdict")), ""},
		{"another's leaf", add("verdict", 2, ours("evidence")), "names"},
		{"a name that is no key", add("other", 1, ours("issuing-verdict")), "no such key"},
		{"a version twice", add("issuing-verdict", 1, ours("issuing-verdict")), "there are two"},
		{"no certificate", add("issuing-verdict", 9, func(*archive) []byte { return []byte("x") }), "issuing-verdict version 9"},
		{"a CA that may make CAs", misused("issuing-verdict", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 1, false }), "not made for"},
		{"a CA for anything", misused("issuing-verdict", func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "not made for"},
		{"a CA that is none", misused("issuing-verdict", func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero, c.MaxPathLen = false, false, -1 }), "not made for"},
		{"a TSA that signs code", misused("timestamp", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageCodeSigning}
		}), "not made for"},
		{"a TSA that is a CA", misused("timestamp", func(c *x509.Certificate) { c.IsCA = true }), "not made for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, store, _ := newConfig(t)
			var root caKey
			check(t, keys.Init(t.Context(), config, keepRoot(t, &root)))
			config = pin(t, config)
			running, err := keys.Open(t.Context(), config)
			check(t, err)
			trusted, err := running.TrustedRoot()
			check(t, err)

			test.change(t, store, root)
			a, err := keys.Open(t.Context(), config)
			if a != nil || err == nil || !strings.Contains(err.Error(), test.words) {
				t.Errorf("open: got %v, want %q", err, test.words)
			}
			if err := keys.Init(t.Context(), config, dropRoot); err == nil {
				t.Error("init took it")
			}
			// A version too many of a CA that is ours anyway tells only Open of
			// a backend that was put back.
			if err := running.Maintain(t.Context()); err == nil && test.name != "our CA as a version it is not" {
				t.Error("the running service took it")
			}
			if now, err := running.TrustedRoot(); err != nil || string(now) != string(trusted) {
				t.Errorf("the trusted root changed: %v", err)
			}
		})
	}
}

// TestInitUnderAPin: a pin is never replaced.
func TestInitUnderAPin(t *testing.T) {
	config, store, _ := newConfig(t)
	if root, err := keys.Root(t.Context(), store); !errors.Is(err, attest.ErrNotFound) || !root.IsZero() {
		t.Errorf("root of nothing: %v, %v", root, err)
	}
	check(t, keys.Init(t.Context(), config, dropRoot))
	config = pin(t, config)
	if want := attest.SHA256(store.find("root").DER); config.Root != want {
		t.Errorf("root %s, want %s", config.Root, want)
	}
	never := func(*x509.Certificate, []byte) error {
		t.Error("made another root")
		return nil
	}
	check(t, keys.Init(t.Context(), config, never))

	other, empty, _ := newConfig(t)
	other.Root = config.Root
	if err := keys.Init(t.Context(), other, never); !errors.Is(err, attest.ErrNotFound) || !strings.Contains(err.Error(), "would make another") {
		t.Errorf("init of an empty archive: %v", err)
	}
	if _, err := other.Backend.Versions(t.Context(), "issuing-verdict"); !errors.Is(err, attest.ErrNotFound) || len(empty.certs) > 0 {
		t.Errorf("it made something: %v, %v", err, empty.names())
	}
	other.Root = attest.Digest{}
	check(t, keys.Init(t.Context(), other, dropRoot))
	other.Root = config.Root
	if err := keys.Init(t.Context(), other, never); err == nil || !strings.Contains(err.Error(), "not the pinned one") {
		t.Errorf("init of another's archive: %v", err)
	}
}
