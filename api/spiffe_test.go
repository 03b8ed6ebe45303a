// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

const acme = "spiffe://acme.example"

// spiffeAuth believes acme and others, and lets acme's gate read.
func spiffeAuth(t *testing.T, now func() time.Time, domains ...*spire) *Authenticator {
	t.Helper()
	var issuers []Issuer
	for _, s := range domains {
		issuers = append(issuers, Issuer{URL: s.domain, Provider: identity.SPIFFE, BundleFile: s.file, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 5 * time.Minute})
	}
	return spiffeAuthOf(t, now, nil, issuers...)
}

func spiffeAuthOf(t *testing.T, now func() time.Time, httpClient *http.Client, issuers ...Issuer) *Authenticator {
	t.Helper()
	a, err := NewAuthenticator(issuers, []Rule{
		{Issuer: acme, Claims: map[string]string{"spiffe_id": acme + "/gate"}, Tenant: AllTenants, Grants: []attest.Grant{attest.GrantRead}},
		{Issuer: acme, Claims: map[string]string{"path": "/gate"}, Grants: []attest.Grant{attest.GrantDecide}},
	}, AuthOptions{Now: now, HTTPClient: httpClient, Service: service, Registry: &rows{}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestJWTSVIDs(t *testing.T) {
	s := newSpire(t, acme)
	a := spiffeAuth(t, time.Now, s)
	now := time.Now().Unix()
	for name, token := range map[string]string{
		"as SPIRE makes them":                     s.token(nil),
		"the audience alone":                      s.token(map[string]any{"aud": audience}),
		"an issuer that is not configured":        s.token(map[string]any{"iss": "https://oidc.acme.example"}),
		"the trust domain as issuer":              s.token(map[string]any{"iss": acme}),
		"no iat, and no longer to live than that": s.token(map[string]any{"iat": nil}),
		"claims that say they are another's ID":   s.token(map[string]any{"spiffe_id": acme + "/administrator", "path": "/administrator", "trust_domain": "x"}),
	} {
		for range 2 { // the second time it is remembered
			got, err := jobCaller(t.Context(), a, token)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got.Issuer != acme || got.Subject != acme+"/gate" || got.Tenant != "spiffe://acme.example#gate" || got.Person != "" || got.Build != nil ||
				len(got.Grants) != 1 || len(got.Tenants["spiffe://acme.example#gate"]) != 1 {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
	got, err := jobCaller(t.Context(), a, s.token(map[string]any{"sub": acme + "/gate/2", "spiffe_id": acme + "/gate", "path": "/gate"}))
	if err != nil || len(got.Grants)+len(got.Tenants) != 0 {
		t.Errorf("another workload that claims to be the gate beside its sub: %+v, %v", got, err)
	}

	rsaShort, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	signing, x509Key, short := jose.JSONWebKey{Key: newKey(t), KeyID: "sig", Use: "sig"}, jose.JSONWebKey{Key: s.caKey, KeyID: "x509", Use: "x509-svid"}, jose.JSONWebKey{Key: rsaShort, KeyID: "short", Use: "jwt-svid"}
	useless := jose.JSONWebKey{Key: newKey(t), KeyID: "useless"}
	ca := x509Key.Public()
	ca.Certificates = append(ca.Certificates, s.ca)
	s.publish(signing.Public(), ca, short.Public(), useless.Public())
	other, stranger := newSpire(t, "spiffe://other.example"), newSpire(t, "spiffe://stranger.example")
	certificates := newSpire(t, "spiffe://certificates.example")
	all := []Issuer{{URL: certificates.domain, Provider: identity.SPIFFE, BundleFile: certificates.file}}
	for _, d := range []*spire{s, other} {
		all = append(all, Issuer{URL: d.domain, Provider: identity.SPIFFE, BundleFile: d.file, Audience: audience, Algorithms: []string{"ES256", "RS256"}, MaxAge: 5 * time.Minute})
	}
	a = spiffeAuthOf(t, time.Now, nil, all...)
	if _, err := jobCaller(t.Context(), a, s.token(nil)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	with := func(name string, value any) string { return s.token(map[string]any{name: value}) }
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(s.token(nil), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	shortToken := signWith(t, "RS256", jose.JSONWebKey{Key: rsaShort, KeyID: "short"}, payload)
	for name, token := range map[string]string{
		"another audience":                         with("aud", []string{"https://other.example"}),
		"two audiences":                            with("aud", []string{audience, "https://other.example"}),
		"no audience":                              with("aud", nil),
		"no expiry":                                with("exp", nil),
		"expired":                                  with("exp", now-61),
		"too old":                                  with("iat", now-400),
		"no iat, and longer to live":               s.token(map[string]any{"iat": nil, "exp": now + 400}),
		"an iat in words":                          with("iat", "now"),
		"an iat that is null":                      with("iat", json.RawMessage("null")),
		"issued in the future":                     with("iat", now+90),
		"a key of another use":                     s.tokenBy(signing, nil),
		"a key of no use":                          s.tokenBy(useless, nil),
		"the CA's key, by its id":                  s.tokenBy(x509Key, nil),
		"the CA's key, by the id of the other":     s.tokenBy(jose.JSONWebKey{Key: s.caKey, KeyID: "jwt"}, nil),
		"a short key":                              shortToken,
		"an unknown key":                           s.tokenBy(jose.JSONWebKey{Key: newKey(t), KeyID: "jwt"}, nil),
		"an unknown key id":                        s.tokenBy(jose.JSONWebKey{Key: newKey(t), KeyID: "nobody's"}, nil),
		"another configured domain's workload":     with("sub", other.domain+"/gate"),
		"its workload, in this one's name":         s.token(map[string]any{"sub": other.domain + "/gate", "iss": acme}),
		"this domain's workload, by another's key": other.token(map[string]any{"sub": acme + "/gate"}),
		"the same, in the other's name":            other.token(map[string]any{"sub": acme + "/gate", "iss": other.domain}),
		"a domain that is not configured":          stranger.token(nil),
		"a domain that has certificates alone":     certificates.token(nil),
		"a look-alike":                             s.token(map[string]any{"sub": "spiffe://acme.example.evil/gate"}),
		"the domain in another case":               with("sub", "spiffe://ACME.example/gate"),
		"the domain with a port":                   with("sub", "spiffe://acme.example:443/gate"),
		"the domain itself":                        with("sub", acme),
		"a path that climbs":                       with("sub", acme+"/a/../gate"),
		"a path with a slash at the end":           with("sub", acme+"/gate/"),
		"an escaped path":                          with("sub", acme+"/g%61te"),
		"a sub in the domain's name as issuer":     s.token(map[string]any{"iss": acme, "sub": "gate"}),
		"no sub":                                   with("sub", nil),
		"a sub that is a number":                   with("sub", 1),
	} {
		got, err := jobCaller(t.Context(), a, token)
		if !errors.Is(err, client.ErrUnauthenticated) || got.Subject != "" || len(got.Grants)+len(got.Tenants) != 0 {
			t.Errorf("%s: %+v, %v; want it unauthenticated", name, got, err)
		}
	}
}

// A token of one kind of issuer never becomes one of another by its sub.
func TestSVIDsBesideOIDC(t *testing.T) {
	p, s := newIDP(t), newSpire(t, acme)
	a := spiffeAuthOf(t, p.now, nil,
		Issuer{URL: acme, Provider: identity.SPIFFE, BundleFile: s.file, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 5 * time.Minute},
		Issuer{URL: p.URL, Provider: identity.OIDC, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 5 * time.Minute})
	got, err := jobCaller(t.Context(), a, p.token(map[string]any{"sub": acme + "/gate"}))
	if err != nil || got.Issuer != p.URL || len(got.Grants) != 0 {
		t.Errorf("an OIDC token whose sub is the gate's ID: %+v, %v", got, err)
	}
	for name, token := range map[string]string{
		"signed by the OIDC issuer, without iss": p.token(map[string]any{"sub": acme + "/gate", "iss": nil}),
		"signed by the trust domain, with iss":   s.token(map[string]any{"iss": p.URL}),
	} {
		if got, err := jobCaller(t.Context(), a, token); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestBundlesInFiles(t *testing.T) {
	var offset atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	s := newSpire(t, acme)
	a := spiffeAuth(t, now, s)
	check := func(what, token string, want error) {
		t.Helper()
		if _, err := jobCaller(t.Context(), a, token); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
	}
	fresh := func() string {
		return s.token(map[string]any{"iat": now().Unix(), "exp": now().Unix() + 60})
	}
	check("as it was", fresh(), nil)
	old := s.jwt
	s.jwt = jose.JSONWebKey{Key: newKey(t), KeyID: "second", Use: "jwt-svid"}
	s.publish()
	offset.Add(int64(fileFresh))
	check("rotated", fresh(), nil)
	check("by the key that is gone", s.tokenBy(old, nil), client.ErrUnauthenticated)

	s.write([]byte(`{"keys":[`))
	offset.Add(int64(keysUsable - time.Minute))
	check("damaged, a while ago", fresh(), nil)
	offset.Add(int64(2 * time.Minute))
	check("damaged for an hour", fresh(), attest.ErrUnavailable)
	s.publish()
	offset.Add(int64(refetchEvery))
	check("repaired", fresh(), nil)

	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	offset.Add(int64(keysUsable))
	check("away for an hour", fresh(), attest.ErrUnavailable)
	for name, content := range map[string][]byte{
		"huge":                    append(s.bundle(), bytes.Repeat([]byte(" "), maxKeySet)...),
		"empty":                   nil,
		"without keys":            []byte(`{"keys":[]}`),
		"a key twice":             bytes.Replace(s.bundle(), []byte(`"keys":`), []byte(`"keys":[],"keys":`), 1),
		"of an unknown use":       []byte(strings.ReplaceAll(string(s.bundle()), "-svid", "-other")),
		"a key set of OIDC":       []byte(strings.NewReplacer("jwt-svid", "sig", "x509-svid", "sig").Replace(string(s.bundle()))),
		"a certificate of no CA":  pemOf(s.sign(svidOf(t, acme+"/x"), s.ca, newKey(t), s.caKey)),
		"a private key in PEM":    []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"PEM without certificate": []byte("-----BEGIN nothing"),
	} {
		s.write(content)
		offset.Add(int64(refetchEvery))
		check(name, fresh(), attest.ErrUnavailable)
	}
}

func TestBundleEndpoints(t *testing.T) {
	var offset, asked atomic.Int64
	var handler atomic.Value
	now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		handler.Load().(http.HandlerFunc)(w, r)
	}))
	defer server.Close()
	answer := func(h http.HandlerFunc) { handler.Store(h) }
	s := newSpire(t, acme)
	publish := func() {
		raw := s.bundle()
		answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(raw) })
	}
	issuer := Issuer{URL: acme, Provider: identity.SPIFFE, BundleURL: server.URL, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 5 * time.Minute}
	a := spiffeAuthOf(t, now, &http.Client{Timeout: 300 * time.Millisecond}, issuer)
	check := func(what string, want error, times int64) {
		t.Helper()
		token := s.token(map[string]any{"iat": now().Unix(), "exp": now().Unix() + 60})
		before := asked.Load()
		if _, err := jobCaller(t.Context(), a, token); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
		if got := asked.Load() - before; got != times {
			t.Errorf("%s: asked %d times; want %d", what, got, times)
		}
	}
	away := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	for name, h := range map[string]http.HandlerFunc{
		"unreachable": away,
		"huge":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, neverending(' '), maxKeySet+10) },
		"slow":        func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"elsewhere":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bundle", http.StatusFound) },
		"no bundle":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
	} {
		answer(h)
		offset.Add(int64(retryEvery))
		check(name, attest.ErrUnavailable, 1)
		check(name+", again at once", attest.ErrUnavailable, 0)
	}
	publish()
	offset.Add(int64(retryEvery))
	check("there at last", nil, 1)
	offset.Add(int64(59 * time.Second))
	check("before its refresh hint", nil, 0)
	offset.Add(int64(2 * time.Second))
	check("after its refresh hint", nil, 1)
	s.jwt = jose.JSONWebKey{Key: newKey(t), KeyID: "second", Use: "jwt-svid"}
	publish()
	offset.Add(int64(refetchEvery))
	check("rotated, before the hint: the unknown key has it asked", nil, 1)
	answer(away)
	offset.Add(int64(keysUsable - time.Minute))
	check("away for less than an hour", nil, 1)
	offset.Add(int64(2 * time.Minute))
	check("away for an hour", attest.ErrUnavailable, 1)
}

func TestRefreshHintsAreBounded(t *testing.T) {
	s := newSpire(t, acme)
	for hint, want := range map[string]time.Duration{
		`"spiffe_refresh_hint":60`: time.Minute, `"spiffe_refresh_hint":0`: bundleSoonest, `"spiffe_refresh_hint":-5`: bundleSoonest,
		`"spiffe_refresh_hint":31536000`: bundleLatest, `"x":0`: bundleDefault,
	} {
		got, err := parseBundle(acme, bytes.Replace(s.bundle(), []byte(`"spiffe_refresh_hint":60`), []byte(hint), 1))
		if err != nil || got.fresh != want || len(got.keys) != 1 || len(got.roots) != 1 {
			t.Errorf("%s: %+v, %v; want %s", hint, got, err, want)
		}
	}
}
