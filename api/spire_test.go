// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A spire is the authority of a trust domain: a CA, and a key for JWT-SVIDs.
type spire struct {
	t      *testing.T
	domain string // a SPIFFE ID without a path
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	jwt    jose.JSONWebKey // private
	file   string          // its bundle
}

func newSpire(t *testing.T, domain string) *spire {
	t.Helper()
	s := &spire{t: t, domain: domain, caKey: newKey(t), file: filepath.Join(t.TempDir(), "bundle.json")}
	s.jwt = jose.JSONWebKey{Key: newKey(t), KeyID: "jwt", Use: "jwt-svid"}
	s.ca = s.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: domain}, URIs: uris(t, domain), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, s.caKey, s.caKey)
	s.publish()
	return s
}

// sign makes a certificate of a template, valid for a day unless that says
// otherwise; self-signed without a parent.
func (s *spire) sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	s.t.Helper()
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// svid is a certificate of this CA for a SPIFFE ID, as SPIRE makes them, with
// changes.
func (s *spire) svid(id string, changes ...func(*x509.Certificate)) tls.Certificate {
	key := newKey(s.t)
	return certificateOf(key, s.sign(svidOf(s.t, id, changes...), s.ca, key, s.caKey))
}

// svidBy is a certificate by an intermediate CA, which the chain has.
func (s *spire) svidBy(id string, change func(*x509.Certificate)) tls.Certificate {
	key, middleKey := newKey(s.t), newKey(s.t)
	middle := &x509.Certificate{Subject: pkix.Name{CommonName: "middle"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	change(middle)
	made := s.sign(middle, s.ca, middleKey, s.caKey)
	return certificateOf(key, s.sign(svidOf(s.t, id), made, key, middleKey), made)
}

func svidOf(t *testing.T, id string, changes ...func(*x509.Certificate)) *x509.Certificate {
	template := &x509.Certificate{
		Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}, URIs: uris(t, id), BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, change := range changes {
		change(template)
	}
	return template
}

func certificateOf(key *ecdsa.PrivateKey, chain ...*x509.Certificate) tls.Certificate {
	c := tls.Certificate{PrivateKey: key}
	for _, link := range chain {
		c.Certificate = append(c.Certificate, link.Raw)
	}
	return c
}

func uris(t *testing.T, all ...string) (parsed []*url.URL) {
	t.Helper()
	for _, raw := range all {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, u)
	}
	return parsed
}

// bundle is the domain's SPIFFE bundle.
func (s *spire) bundle(more ...jose.JSONWebKey) []byte {
	s.t.Helper()
	raw, err := json.Marshal(map[string]any{
		"spiffe_sequence": 1, "spiffe_refresh_hint": 60,
		"keys": append([]jose.JSONWebKey{{Key: s.ca.PublicKey, Certificates: []*x509.Certificate{s.ca}, Use: "x509-svid"}, s.jwt.Public()}, more...),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

// publish writes the bundle.
func (s *spire) publish(more ...jose.JSONWebKey) { s.write(s.bundle(more...)) }

func (s *spire) write(raw []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.file, raw, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func pemOf(all ...*x509.Certificate) (out []byte) {
	for _, c := range all {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// token is a JWT-SVID of the domain's gate, as SPIRE makes them, with changes;
// nil takes a claim away.
func (s *spire) token(changes map[string]any) string { return s.tokenBy(s.jwt, changes) }

func (s *spire) tokenBy(key jose.JSONWebKey, changes map[string]any) string {
	s.t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{"sub": s.domain + "/gate", "aud": []string{audience}, "iat": now, "exp": now + 300}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	return signWith(s.t, "ES256", jose.JSONWebKey{Key: key.Key, KeyID: key.KeyID}, payload)
}
