// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sigstore/sigstore-go/pkg/root"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
	"provost/verify"
	"provost/verify/policy"
)

const (
	service  = "https://provost.example"
	audience = service
	builder  = "https://provost.example/builders/acme"
)

// A fixture is a whole service in memory: real keys, certificates, timestamps,
// trust, policy and issuer; only what it remembers is in memory.
type fixture struct {
	*Server
	t        *testing.T
	url      string
	ca       *testCA
	memory   *memory
	idp      *idp
	logs     *syncBuffer
	reg      *prometheus.Registry
	keys     *testKeys
	rows     *rows
	sessions *sessionsInMemory
	kept     *apiKeysInMemory
	ready    map[string]error
	imports  *importsInMemory
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newTestCA(t), memory: newMemory(t), idp: newIDP(t), logs: &syncBuffer{}, reg: prometheus.NewRegistry(), ready: map[string]error{"store": nil}}
	f.keys = &testKeys{ca: f.ca}
	f.sessions = &sessionsInMemory{audit: f.memory}
	f.kept = &apiKeysInMemory{}
	f.imports = newImports(t)
	f.rows = &rows{all: []attest.Builder{builderRow(f.idp.URL, "acme", `claims.repository == "acme/app"`)}}
	issuer := &attest.Issuer{Signers: map[attest.Power]attest.Signer{}, Timestamper: f.ca, Ledger: f.memory, Now: time.Now}
	for _, p := range attest.Powers {
		issuer.Signers[p] = f.ca.signer(p)
	}
	judge, err := policy.New(map[string]policy.Environment{"prod": {
		Builders: []policy.Builder{{ID: builder, Level: 2}},
		Sources:  []policy.Source{{Repository: "https://github.com/acme/app", Refs: []string{"refs/heads/main"}}},
		SBOM:     policy.SBOMRequired,
	}})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := NewAuthenticator(
		[]Issuer{
			{URL: f.idp.URL, Audience: audience, Algorithms: []string{"RS256", "ES256"}, MaxAge: 10 * time.Minute, Provider: identity.GitHub},
			{URL: f.idp.URL + "/people", Audience: audience, Algorithms: []string{"ES256"}, MaxAge: 10 * time.Minute, Provider: identity.OIDC},
		},
		[]Rule{
			{Issuer: f.idp.URL, Claims: map[string]string{"repository": "acme/app"}, Grants: []attest.Grant{attest.GrantProvenance, attest.GrantSBOM}},
			{Issuer: f.idp.URL, Claims: map[string]string{"repository_owner_id": "65", "role": "importer"}, Grants: []attest.Grant{attest.GrantImport, attest.GrantRead}},
			{Issuer: f.idp.URL, Claims: map[string]string{"repository_owner_id": "65", "role": "gate"}, Tenant: AllTenants, Grants: []attest.Grant{attest.GrantDecide, attest.GrantRead}},
			{Issuer: f.idp.URL, Claims: map[string]string{"repository_owner_id": "65", "role": "admin"}, Tenant: AllTenants, Grants: attest.Grants},
			{Issuer: f.idp.URL + "/people", Claims: map[string]string{"sub": "ada"}, Tenant: AllTenants, Grants: attest.Grants},
			{Issuer: f.idp.URL + "/people", Claims: map[string]string{"sub": "bob"}, Tenant: "acme", Grants: []attest.Grant{attest.GrantAPIKeys, attest.GrantRead, attest.GrantSBOM}},
			{Issuer: f.idp.URL + "/people", Claims: map[string]string{"sub": "eve"}, Tenant: "globex", Grants: []attest.Grant{attest.GrantAPIKeys, attest.GrantRead}},
			{Issuer: f.idp.URL + "/people", Claims: map[string]string{"sub": "eve"}, Tenant: "initech", Grants: []attest.Grant{attest.GrantAPIKeys, attest.GrantDecide}},
		}, AuthOptions{Now: f.idp.now, Service: service, Registry: f.rows, Sessions: f.sessions, APIKeys: f.kept})
	if err != nil {
		t.Fatal(err)
	}
	f.Server, err = New(Config{
		Issuer: issuer,
		Gate: &verify.Gate{Trust: f.ca.trust, Service: service, Version: "test", Evidence: f.memory, Policy: judge,
			Issuer: issuer, Decisions: f.memory, Now: time.Now},
		Records: f.memory, Keys: f.keys, Audit: f.memory, Auth: auth, Builders: f.rows, APIKeys: f.kept, Metrics: f.reg, Now: f.idp.now,
		Imports: f.imports, Foreign: f.imports.foreign,
		Ready: func(context.Context) map[string]error { return f.ready },
		Log:   slog.New(slog.NewJSONHandler(f.logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.Handler())
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// token is the secret of a session of a job with these claims, or its token if
// it gets none.
func (f *fixture) token(claims map[string]any) string {
	token := f.idp.token(claims)
	secret, _, _, err := f.auth.Exchange(f.t.Context(), exchange{token: token})
	if err != nil {
		return token
	}
	return secret
}

// secretClient asks with a session's secret.
func (f *fixture) secretClient(secret string) *client.Client {
	return &client.Client{URL: f.url, Token: func(context.Context) (string, error) { return secret, nil }}
}

// client asks with tokens of these claims.
func (f *fixture) client(claims map[string]any) *client.Client {
	return &client.Client{URL: f.url, Token: func(context.Context) (string, error) { return f.token(claims), nil }}
}

// testCA is a certificate authority and a timestamp authority.
type testCA struct {
	t                *testing.T
	root, tsa        *x509.Certificate
	rootKey, tsaKey  *ecdsa.PrivateKey
	mu               sync.Mutex
	failSign         error
	breakSignature   bool
	beforeSign       func()
	trustedRootError error
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{t: t, rootKey: newKey(t), tsaKey: newKey(t)}
	template := certificate()
	template.Subject = pkix.Name{Organization: []string{"test"}, CommonName: "root"}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	ca.root = ca.create(template, template, &ca.rootKey.PublicKey)
	stamping := certificate()
	stamping.Subject = pkix.Name{Organization: []string{"test"}, CommonName: "tsa"}
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	stamping.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	ca.tsa = ca.create(stamping, ca.root, &ca.tsaKey.PublicKey)
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate() *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func (ca *testCA) create(template, parent *x509.Certificate, public *ecdsa.PublicKey) *x509.Certificate {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.rootKey)
	if err != nil {
		ca.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return parsed
}

func (ca *testCA) trustedRoot() ([]byte, error) {
	if ca.trustedRootError != nil {
		return nil, ca.trustedRootError
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{Root: ca.root, URI: service, ValidityPeriodStart: ca.root.NotBefore}},
		nil,
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{Root: ca.root, Leaf: ca.tsa, URI: service, ValidityPeriodStart: ca.root.NotBefore}},
		nil)
	if err != nil {
		return nil, err
	}
	return r.MarshalJSON()
}

func (ca *testCA) trust() (*verify.Trust, error) {
	raw, err := ca.trustedRoot()
	if err != nil {
		return nil, err
	}
	return verify.ParseTrust(raw)
}

// Timestamp implements [attest.Timestamper].
func (ca *testCA) Timestamp(_ context.Context, signature []byte) ([][]byte, error) {
	hash := sha256.Sum256(signature)
	ts := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: hash[:], Time: time.Now(), Policy: []int{1, 2, 3}, AddTSACertificate: true}
	response, err := ts.CreateResponseWithOpts(ca.tsa, ca.tsaKey, crypto.SHA256)
	return [][]byte{response}, err
}

type testSigner struct {
	ca   *testCA
	key  *ecdsa.PrivateKey
	leaf []byte
}

func (ca *testCA) signer(p attest.Power) *testSigner {
	ca.t.Helper()
	identity := verify.SignerIdentity(service, p)
	san, _ := url.Parse(identity.SAN)
	issuer, err := asn1.MarshalWithParams(identity.Issuer, "utf8")
	if err != nil {
		ca.t.Fatal(err)
	}
	template := certificate()
	template.URIs = []*url.URL{san}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}}
	s := &testSigner{ca: ca, key: newKey(ca.t)}
	s.leaf = ca.create(template, ca.root, &s.key.PublicKey).Raw
	return s
}

// Sign implements [attest.Signer].
func (s *testSigner) Sign(ctx context.Context, message []byte) (attest.Signature, error) {
	s.ca.mu.Lock()
	before, fail, broken := s.ca.beforeSign, s.ca.failSign, s.ca.breakSignature
	s.ca.mu.Unlock()
	if before != nil {
		before()
	}
	if err := cmp.Or(fail, ctx.Err()); err != nil {
		return attest.Signature{}, err
	}
	if broken {
		message = append(message, '!')
	}
	hash := sha256.Sum256(message)
	der, err := ecdsa.SignASN1(rand.Reader, s.key, hash[:])
	return attest.Signature{Version: 1, DER: der, Certificate: s.leaf}, err
}

func (ca *testCA) set(change func(*testCA)) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	change(ca)
}

type testKeys struct {
	ca      *testCA
	mu      sync.Mutex
	rotated []attest.Power
	revoked []attest.KeyRevocation
	fail    error
}

func (k *testKeys) Keys(context.Context) ([]attest.Key, error) {
	return []attest.Key{{Signer: attest.PowerProvenance, Identity: service + "/signers/provenance", Versions: []attest.KeyVersion{
		{Version: 1, State: attest.KeyRetired, NotBefore: time.Unix(1000, 0).UTC(), NotAfter: time.Unix(2000, 0).UTC()},
		{Version: 2, State: attest.KeyActive, NotBefore: time.Unix(2000, 0).UTC(), NotAfter: time.Unix(3000, 0).UTC()},
	}}}, k.fail
}

func (k *testKeys) Rotate(_ context.Context, p attest.Power) (attest.KeyVersion, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return attest.KeyVersion{}, k.fail
	}
	k.rotated = append(k.rotated, p)
	return attest.KeyVersion{Version: 1 + len(k.rotated), State: attest.KeyActive, NotBefore: time.Unix(3000, 0).UTC(), NotAfter: time.Unix(4000, 0).UTC()}, nil
}

func (k *testKeys) PlanRevocation(_ context.Context, r attest.KeyRevocation) (attest.KeyRevocation, []int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Version != 3 {
		return r, nil, fmt.Errorf("%w: signer %s has no version %d", attest.ErrNotFound, r.Signer, r.Version)
	}
	if r.From.IsZero() {
		r.From = time.Unix(1000, 0).UTC()
	}
	if r.To.IsZero() {
		r.To = time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	}
	r.ID, r.At = "revocation", time.Unix(5000, 0).UTC()
	return r, []int{2, 3}, r.Validate()
}

func (k *testKeys) Revoke(_ context.Context, r attest.KeyRevocation) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail == nil || errors.As(k.fail, new(recordedError)) {
		k.revoked = append(k.revoked, r)
	}
	return k.fail
}

// A recordedError is of a revocation that was recorded nevertheless.
type recordedError struct{}

func (recordedError) Error() string  { return "cannot rotate" }
func (recordedError) Recorded() bool { return true }

func (k *testKeys) TimestampQuery(_ context.Context, query []byte) ([]byte, error) {
	if string(query) != "query" {
		return nil, fmt.Errorf("%w: timestamp request", attest.ErrInvalid)
	}
	return []byte("response"), nil
}

func (k *testKeys) TrustedRoot() ([]byte, error) { return k.ca.trustedRoot() }
