// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// A tlsService is a fixture behind TLS that asks for client certificates, as
// provostd serves it.
type tlsService struct {
	*httptest.Server
	t *testing.T
	f *fixture
}

func newTLSService(t *testing.T, a *Authenticator) *tlsService {
	t.Helper()
	f := newFixture(t)
	f.auth = a
	server := httptest.NewUnstartedServer(f.Handler())
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return &tlsService{server, t, f}
}

// client presents a certificate, whomever the server says it believes.
func (s *tlsService) client(cert *tls.Certificate) *http.Client {
	transport := s.Client().Transport.(*http.Transport).Clone()
	if cert != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// keys asks for the keys, and returns status and body.
func (s *tlsService) keys(c *http.Client, header ...string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/v1/keys", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.ProtoMajor != 2 {
		s.t.Errorf("it speaks %s", resp.Proto)
	}
	return resp.StatusCode, string(body)
}

func TestX509SVIDs(t *testing.T) {
	s, other := newSpire(t, acme), newSpire(t, "spiffe://other.example")
	lookAlike := newSpire(t, "spiffe://acme.example.evil")
	usurper := newSpire(t, acme) // says it is acme, and is in no bundle
	tokens := newSpire(t, "spiffe://tokens.example")
	alone, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{tokens.jwt.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	tokens.write(alone)
	service := newTLSService(t, spiffeAuth(t, time.Now, s, other, tokens))
	const gate = acme + "/gate"

	for name, cert := range map[string]tls.Certificate{
		"as SPIRE makes them":           s.svid(gate),
		"by an intermediate CA":         s.svidBy(gate, func(*x509.Certificate) {}),
		"with a DNS name":               s.svid(gate, func(c *x509.Certificate) { c.DNSNames = []string{"gate.acme.example"} }),
		"without a subject":             s.svid(gate, func(c *x509.Certificate) { c.Subject = pkix.Name{} }),
		"without an extended key usage": s.svid(gate, func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
	} {
		if status, body := service.keys(service.client(&cert)); status != http.StatusOK || !strings.Contains(body, `"provenance"`) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	cert := s.svid(acme + "/stranger")
	if status, body := service.keys(service.client(&cert)); status != http.StatusForbidden || !strings.Contains(body, `"read"`) {
		t.Errorf("a workload without a rule: %d %s; want 403 naming the grant", status, body)
	}

	chained := s.svidBy(gate, func(*x509.Certificate) {})
	chained.Certificate = chained.Certificate[:1]
	long := s.svid(gate)
	for range maxChain {
		long.Certificate = append(long.Certificate, s.ca.Raw)
	}
	leafKey, overKey := newKey(t), newKey(t)
	leaf := s.sign(svidOf(t, gate), s.ca, leafKey, s.caKey)
	over := s.sign(svidOf(t, gate), leaf, overKey, leafKey)
	selfSigned := s.sign(svidOf(t, gate), nil, leafKey, leafKey)
	in := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	usage := func(u x509.KeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.KeyUsage = u }
	}
	for name, cert := range map[string]tls.Certificate{
		"another CA that claims this domain":       usurper.svid(gate),
		"another domain's CA that claims this one": other.svid(gate),
		"this domain's CA that claims another":     s.svid(other.domain + "/gate"),
		"a look-alike of the domain":               lookAlike.svid(lookAlike.domain + "/gate"),
		"a look-alike, by this domain's CA":        s.svid(lookAlike.domain + "/gate"),
		"a domain that has tokens alone":           tokens.svid(tokens.domain + "/gate"),
		"two SPIFFE IDs":                           s.svid(gate, func(c *x509.Certificate) { c.URIs = uris(t, gate, acme+"/administrator") }),
		"another URI first":                        s.svid(gate, func(c *x509.Certificate) { c.URIs = uris(t, "https://gate.example", gate) }),
		"another URI behind":                       s.svid(gate, func(c *x509.Certificate) { c.URIs = uris(t, gate, "urn:gate") }),
		"the same SPIFFE ID twice":                 s.svid(gate, func(c *x509.Certificate) { c.URIs = uris(t, gate, gate) }),
		"another URI alone":                        s.svid(gate, func(c *x509.Certificate) { c.URIs = uris(t, "https://acme.example/gate") }),
		"no SPIFFE ID":                             s.svid(gate, func(c *x509.Certificate) { c.URIs = nil }),
		"the SPIFFE ID as subject":                 s.svid(gate, func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: gate} }),
		"the SPIFFE ID as DNS name":                s.svid(gate, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{gate} }),
		"the trust domain itself":                  s.svid(acme),
		"a path that climbs":                       s.svid(acme + "/a/../gate"),
		"a path with a slash at the end":           s.svid(gate + "/"),
		"an ID with a query":                       s.svid(gate + "?x"),
		"an ID with a port":                        s.svid("spiffe://acme.example:443/gate"),
		"an ID with a user":                        s.svid("spiffe://gate@acme.example/gate"),
		"expired":                                  s.svid(gate, in(-2*time.Hour, -time.Minute)),
		"valid only in the future":                 s.svid(gate, in(time.Minute, time.Hour)),
		"a CA as leaf":                             s.svid(gate, func(c *x509.Certificate) { c.IsCA = true }),
		"the CA itself":                            certificateOf(s.caKey, s.ca),
		"a leaf that may sign certificates":        s.svid(gate, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign)),
		"a leaf that may sign revocations":         s.svid(gate, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCRLSign)),
		"no digital signature":                     s.svid(gate, usage(x509.KeyUsageKeyAgreement)),
		"no key usage at all":                      s.svid(gate, usage(0)),
		"for servers alone":                        s.svid(gate, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"for something unknown alone": s.svid(gate, func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 2, 3}}
		}),
		"a critical extension that nobody knows": s.svid(gate, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}),
		"by an intermediate CA that is not sent":         chained,
		"by an intermediate CA that has expired":         s.svidBy(gate, in(-2*time.Hour, -time.Minute)),
		"by an intermediate that is no CA":               s.svidBy(gate, func(c *x509.Certificate) { c.IsCA = false }),
		"by an intermediate CA that may not sign for it": s.svidBy(gate, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"other.example"} }),
		"by a leaf":           certificateOf(overKey, over, leaf),
		"self-signed":         certificateOf(leafKey, selfSigned),
		"a chain without end": long,
		"by an intermediate of the other domain, sent along": otherIntermediate(t, s, other, gate),
	} {
		status, body := service.keys(service.client(&cert))
		if status != http.StatusUnauthorized || !strings.Contains(body, "client certificate") {
			t.Errorf("%s: %d %s; want 401", name, status, body)
		}
	}
}

// otherIntermediate is a leaf that this domain's name is in, by the other
// domain's CA, with this domain's CA in the chain, too.
func otherIntermediate(t *testing.T, s, other *spire, id string) tls.Certificate {
	c := other.svid(id)
	c.Certificate = append(c.Certificate, other.ca.Raw, s.ca.Raw)
	return c
}

func TestCertificatesAndTokens(t *testing.T) {
	s := newSpire(t, acme)
	service := newTLSService(t, spiffeAuth(t, time.Now, s))
	cert := s.svid(acme + "/gate")
	certified, bare := service.client(&cert), service.client(nil)

	if status, body := service.keys(bare, "Authorization", "Bearer "+s.token(nil)); status != http.StatusUnauthorized || !strings.Contains(body, "session-required") {
		t.Errorf("a token alone, which is good for a session: %d %s", status, body)
	}
	for name, value := range map[string]string{"a good token": "Bearer " + s.token(nil), "another's token": "Bearer " + s.token(map[string]any{"sub": acme + "/x"}), "no token": ""} {
		if status, body := service.keys(certified, "Authorization", value); status != http.StatusUnauthorized || !strings.Contains(body, "ambiguous") {
			t.Errorf("a certificate and %s: %d %s", name, status, body)
		}
	}
	// What a proxy says about a certificate is anybody's word.
	encoded := strings.ReplaceAll(string(pemOf(s.sign(svidOf(t, acme+"/gate"), s.ca, newKey(t), s.caKey))), "\n", "%0A")
	for _, header := range []string{"X-Forwarded-Client-Cert", "Client-Cert", "X-SSL-Client-Cert", "Ssl-Client-Cert", "X-Client-Cert", "X-SSL-Client-S-DN"} {
		if status, body := service.keys(bare, header, `By=spiffe://acme.example;URI=spiffe://acme.example/gate;Cert="`+encoded+`"`); status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", header, status, body)
		}
	}
	// Who asks by certificate stands in the log.
	service.keys(certified)
	if !strings.Contains(service.f.logs.String(), acme+" "+acme+"/gate") {
		t.Error("the log does not say who asked")
	}
}

// A connection outlives neither the CA behind its certificate nor the
// certificate itself.
func TestCertificatesOnOldConnections(t *testing.T) {
	var offset atomic.Int64
	s := newSpire(t, acme)
	service := newTLSService(t, spiffeAuth(t, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }, s))
	check := func(what string, c *http.Client, want int) {
		t.Helper()
		if status, body := service.keys(c); status != want || strings.Contains(body, s.file) {
			t.Errorf("%s: %d %s; want %d", what, status, body, want)
		}
	}
	first := s.svid(acme + "/gate")
	old := service.client(&first)
	check("the first", old, http.StatusOK)

	next := newSpire(t, acme)
	s.ca, s.caKey = next.ca, next.caKey
	s.publish()
	offset.Add(int64(fileFresh))
	check("its CA is gone", old, http.StatusUnauthorized)
	short := s.svid(acme+"/gate", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now(), time.Now().Add(30*time.Minute) })
	renewed, brief := s.svid(acme+"/gate"), service.client(&short)
	check("by the new CA", service.client(&renewed), http.StatusOK)
	check("not for long", brief, http.StatusOK)

	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	offset.Add(int64(50 * time.Minute))
	check("expired", brief, http.StatusUnauthorized)
	check("the bundle is away for less than an hour", service.client(&renewed), http.StatusOK)
	offset.Add(int64(11 * time.Minute))
	check("the bundle is away for an hour", service.client(&renewed), http.StatusServiceUnavailable)
}

func TestMachines(t *testing.T) {
	s, other := newSpire(t, acme), newSpire(t, "spiffe://other.example")
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const ours, theirs = "mtls://machines", "mtls://others"
	rule := func(issuer string, g attest.Grant, claims ...string) Rule {
		r := Rule{Issuer: issuer, Claims: map[string]string{}, Tenant: AllTenants, Grants: []attest.Grant{g}}
		for i := 0; i < len(claims); i += 2 {
			r.Claims[claims[i]] = claims[i+1]
		}
		return r
	}
	a, err := NewAuthenticator([]Issuer{
		{URL: ours, Provider: identity.MTLS, CAFile: write("ours.pem", pemOf(s.ca))},
		{URL: theirs, Provider: identity.MTLS, CAFile: write("theirs.pem", pemOf(other.ca))},
		{URL: acme, Provider: identity.SPIFFE, BundleFile: other.file}, // its CA is not that of the machines
	}, []Rule{
		rule(ours, attest.GrantRead, "sub", "CN=gate,O=Acme"),
		rule(ours, attest.GrantDecide, "dns", "gate.acme.example"),
		rule(ours, attest.GrantSBOM, "uri", "urn:gate"),
		rule(theirs, attest.GrantRotate, "sub", "CN=gate,O=Acme"),
	}, AuthOptions{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(c tls.Certificate) (attest.Caller, error) {
		var chain []*x509.Certificate
		for _, raw := range c.Certificate {
			link, err := x509.ParseCertificate(raw)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, link)
		}
		return a.AuthenticateCertificate(t.Context(), chain)
	}
	named := func(changes ...func(*x509.Certificate)) []func(*x509.Certificate) {
		return append([]func(*x509.Certificate){func(c *x509.Certificate) {
			c.URIs, c.Subject, c.DNSNames = nil, pkix.Name{CommonName: "gate", Organization: []string{"Acme"}}, []string{"gate.acme.example"}
		}}, changes...)
	}

	got, err := ask(s.svid(acme, named()...))
	if err != nil || got.Issuer != ours || got.Subject != "CN=gate,O=Acme" || got.Person != "" || got.Tenant != "" ||
		len(got.Grants) != 2 || got.Require(attest.GrantRead) != nil || got.Require(attest.GrantDecide) != nil {
		t.Errorf("a machine: %+v, %v", got, err)
	}
	got, err = ask(s.svid(acme, named(func(c *x509.Certificate) { c.Subject, c.URIs = pkix.Name{}, uris(t, "urn:gate") })...))
	if err != nil || !strings.HasPrefix(got.Subject, "fingerprint:") || got.Require(attest.GrantSBOM) != nil || got.Require(attest.GrantDecide) != nil {
		t.Errorf("a machine without a subject: %+v, %v", got, err)
	}
	if got, err = ask(other.svid(acme, named()...)); err != nil || got.Issuer != theirs || len(got.Grants) != 1 {
		t.Errorf("the same subject of another issuer: %+v, %v", got, err)
	}
	// What is not one name, or not this one, is nothing that a rule names.
	for name, change := range map[string]func(*x509.Certificate){
		"two DNS names": func(c *x509.Certificate) {
			c.Subject, c.DNSNames = pkix.Name{CommonName: "x"}, []string{"gate.acme.example", "x.acme.example"}
		},
		"two common names, the last of them ours": func(c *x509.Certificate) {
			c.DNSNames = nil
			c.RawSubject, _ = asn1.Marshal(pkix.RDNSequence{
				{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Acme"}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "x"}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "gate"}},
			})
		},
		"a subject that is written like ours": func(c *x509.Certificate) { c.DNSNames, c.Subject = nil, pkix.Name{CommonName: "gate,O=Acme"} },
	} {
		if got, err := ask(s.svid(acme, named(change)...)); err != nil || len(got.Grants)+len(got.Tenants) != 0 {
			t.Errorf("%s: %+v, %v; want a caller without grants", name, got, err)
		}
	}
	for name, c := range map[string]tls.Certificate{
		"a SPIFFE ID, which is the trust domain's": s.svid(acme+"/gate", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "gate", Organization: []string{"Acme"}} }),
		"a SPIFFE ID behind another URI":           s.svid(acme, named(func(c *x509.Certificate) { c.URIs = uris(t, "urn:gate", acme+"/gate") })...),
		"a SPIFFE ID in capitals":                  s.svid(acme, named(func(c *x509.Certificate) { c.URIs = uris(t, "SPIFFE://acme.example/gate") })...),
		"a CA of nobody":                           newSpire(t, acme).svid(acme, named()...),
		"for servers alone":                        s.svid(acme, named(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })...),
		"a CA":                                     s.svid(acme, named(func(c *x509.Certificate) { c.IsCA = true })...),
		"no digital signature":                     s.svid(acme, named(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })...),
		"expired":                                  s.svid(acme, named(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Now() })...),
	} {
		if got, err := ask(c); !errors.Is(err, client.ErrUnauthenticated) || got.Issuer != "" || len(got.Grants) != 0 {
			t.Errorf("%s: %+v, %v; want it unauthenticated", name, got, err)
		}
	}
	write("theirs.pem", pemOf(other.ca, s.ca))
	if a, err = NewAuthenticator([]Issuer{
		{URL: ours, Provider: identity.MTLS, CAFile: filepath.Join(dir, "ours.pem")}, {URL: theirs, Provider: identity.MTLS, CAFile: filepath.Join(dir, "theirs.pem")},
	}, nil, AuthOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(s.svid(acme, named()...)); !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("certified by the CA of two issuers: %+v, %v", got, err)
	}
	if err := os.Remove(filepath.Join(dir, "theirs.pem")); err != nil {
		t.Fatal(err)
	}
	if a, err = NewAuthenticator([]Issuer{
		{URL: ours, Provider: identity.MTLS, CAFile: filepath.Join(dir, "ours.pem")}, {URL: theirs, Provider: identity.MTLS, CAFile: filepath.Join(dir, "theirs.pem")},
	}, nil, AuthOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(s.svid(acme, named()...)); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("one of two CAs cannot be read: %+v, %v", got, err)
	}
}

func TestCertifiedIssuersThatAreRefused(t *testing.T) {
	spiffe := func(change func(*Issuer)) Issuer {
		i := Issuer{URL: acme, Provider: identity.SPIFFE, BundleFile: "bundle.json", Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute}
		change(&i)
		return i
	}
	machines := func(change func(*Issuer)) Issuer {
		i := Issuer{URL: "mtls://machines", Provider: identity.MTLS, CAFile: "ca.pem"}
		change(&i)
		return i
	}
	for _, good := range []Issuer{
		spiffe(func(*Issuer) {}), machines(func(*Issuer) {}),
		spiffe(func(i *Issuer) { i.BundleFile, i.BundleURL = "", "https://spire.acme.example/bundle" }),
		spiffe(func(i *Issuer) { i.Audience, i.Algorithms, i.MaxAge = "", nil, 0 }),
	} {
		if _, err := NewAuthenticator([]Issuer{good}, nil, AuthOptions{}); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for name, bad := range map[string]Issuer{
		"a trust domain in capitals":       spiffe(func(i *Issuer) { i.URL = "spiffe://ACME.example" }),
		"a trust domain without a scheme":  spiffe(func(i *Issuer) { i.URL = "acme.example" }),
		"a trust domain over https":        spiffe(func(i *Issuer) { i.URL = "https://acme.example" }),
		"a trust domain with a slash":      spiffe(func(i *Issuer) { i.URL += "/" }),
		"a workload as trust domain":       spiffe(func(i *Issuer) { i.URL += "/gate" }),
		"no bundle":                        spiffe(func(i *Issuer) { i.BundleFile = "" }),
		"two bundles":                      spiffe(func(i *Issuer) { i.BundleURL = "https://spire.acme.example/bundle" }),
		"a bundle over http":               spiffe(func(i *Issuer) { i.BundleFile, i.BundleURL = "", "http://spire.acme.example/bundle" }),
		"a trust domain with a CA":         spiffe(func(i *Issuer) { i.CAFile = "ca.pem" }),
		"tokens without an audience":       spiffe(func(i *Issuer) { i.Audience = "" }),
		"tokens without an algorithm":      spiffe(func(i *Issuer) { i.Algorithms = nil }),
		"tokens of any age":                spiffe(func(i *Issuer) { i.MaxAge = 0 }),
		"tokens of more than ten minutes":  spiffe(func(i *Issuer) { i.MaxAge = 11 * time.Minute }),
		"HMAC":                             spiffe(func(i *Issuer) { i.Algorithms = []string{"HS256"} }),
		"people in a trust domain":         spiffe(func(i *Issuer) { i.PersonClaim = "sub" }),
		"a server of a trust domain":       spiffe(func(i *Issuer) { i.ServerURL = "https://acme.example" }),
		"machines without a CA":            machines(func(i *Issuer) { i.CAFile = "" }),
		"machines with a bundle":           machines(func(i *Issuer) { i.BundleFile = "bundle.json" }),
		"machines of another scheme":       machines(func(i *Issuer) { i.URL = "https://machines" }),
		"machines with a path":             machines(func(i *Issuer) { i.URL += "/x" }),
		"machines with tokens":             machines(func(i *Issuer) { i.Audience = audience }),
		"people among machines":            machines(func(i *Issuer) { i.PersonClaim = "sub" }),
		"an OIDC issuer with a bundle":     {URL: "https://ci.example", Provider: identity.OIDC, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, BundleFile: "x"},
		"an OIDC issuer of a trust domain": {URL: acme, Provider: identity.OIDC, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute},
		"an OIDC issuer with a CA":         {URL: "https://ci.example", Provider: identity.OIDC, Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, CAFile: "x"},
	} {
		if _, err := NewAuthenticator([]Issuer{bad}, nil, AuthOptions{}); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s: %v; want it invalid", name, err)
		}
	}
	for name, r := range map[string]Rule{
		"every workload":             {Issuer: acme, Claims: map[string]string{"trust_domain": "acme.example"}, Grants: []attest.Grant{attest.GrantRead}},
		"machines in no tenant":      {Issuer: "mtls://machines", Claims: map[string]string{"sub": "CN=gate"}, Grants: []attest.Grant{attest.GrantRead}},
		"machines by no claim named": {Issuer: "mtls://machines", When: "has(claims.sub)", Tenant: AllTenants, Grants: []attest.Grant{attest.GrantRead}},
	} {
		if _, err := NewAuthenticator([]Issuer{spiffe(func(*Issuer) {}), machines(func(*Issuer) {})}, []Rule{r}, AuthOptions{}); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("a rule for %s: %v; want it invalid", name, err)
		}
	}
}
