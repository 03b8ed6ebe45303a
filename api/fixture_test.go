// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
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
	"fmt"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sigstore/sigstore-go/pkg/root"

	"provost/api/client"
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
	t      *testing.T
	url    string
	ca     *testCA
	memory *memory
	idp    *idp
	logs   *syncBuffer
	reg    *prometheus.Registry
	keys   *testKeys
	ready  map[string]error
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newTestCA(t), memory: newMemory(t), idp: newIDP(t), logs: &syncBuffer{}, reg: prometheus.NewRegistry(), ready: map[string]error{"store": nil}}
	f.keys = &testKeys{ca: f.ca}
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
		[]Issuer{{URL: f.idp.URL, Audience: audience, Algorithms: []string{"RS256", "ES256"}, MaxAge: 10 * time.Minute, Provider: ProviderGitHub}},
		[]Rule{
			{Issuer: f.idp.URL, Claims: map[string]string{"repository": "acme/app"}, Builder: &BuilderRow{ID: builder},
				Grants: []attest.Grant{attest.GrantProvenance, attest.GrantSBOM}},
			{Issuer: f.idp.URL, Claims: map[string]string{"role": "gate"}, Grants: []attest.Grant{attest.GrantDecide, attest.GrantRead}},
			{Issuer: f.idp.URL, Claims: map[string]string{"role": "admin"}, Grants: attest.Grants},
		}, AuthOptions{Now: f.idp.now})
	if err != nil {
		t.Fatal(err)
	}
	f.Server, err = New(Config{
		Issuer: issuer,
		Gate: &verify.Gate{Trust: f.ca.trust, Service: service, Version: "test", Evidence: f.memory, Policy: judge,
			Issuer: issuer, Decisions: f.memory, Now: time.Now},
		Records: f.memory, Keys: f.keys, Auth: auth, Metrics: f.reg, Now: f.idp.now,
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

// client asks with tokens of these claims.
func (f *fixture) client(claims map[string]any) *client.Client {
	return &client.Client{URL: f.url, Token: func(context.Context) (string, error) { return f.idp.token(claims), nil }}
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

func newKey(t *testing.T) *ecdsa.PrivateKey {
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
func (ca *testCA) Timestamp(_ context.Context, signature []byte) ([]byte, error) {
	hash := sha256.Sum256(signature)
	ts := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: hash[:], Time: time.Now(), Policy: []int{1, 2, 3}, AddTSACertificate: true}
	return ts.CreateResponseWithOpts(ca.tsa, ca.tsaKey, crypto.SHA256)
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

func (k *testKeys) TrustedRoot() ([]byte, error) { return k.ca.trustedRoot() }

// memory is a strict ledger: a breach of the contract fails the test.
type memory struct {
	t            *testing.T
	mu           sync.Mutex
	intents      []attest.Intent
	byKey        map[string]string
	attestations []attest.Attestation
	decisions    map[string]attest.Decision
	fail         error
	queries      int
}

func newMemory(t *testing.T) *memory {
	return &memory{t: t, byKey: map[string]string{}, decisions: map[string]attest.Decision{}}
}

func (m *memory) set(change func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *memory) AppendIntent(ctx context.Context, in attest.Intent) (string, *attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.fail, ctx.Err()); err != nil {
		return "", nil, err
	}
	if in.CallerIssuer == "" || in.CallerSubject == "" {
		m.t.Errorf("intent of nobody: %+v", in)
	}
	if in.IdempotencyKey != "" {
		scoped := fmt.Sprint(in.CallerIssuer, "\x00", in.CallerSubject, "\x00", in.IdempotencyKey)
		if id, ok := m.byKey[scoped]; ok {
			i := slices.IndexFunc(m.intents, func(i attest.Intent) bool { return i.ID == id })
			if m.intents[i].Payload != in.Payload {
				return "", nil, fmt.Errorf("%w: the Idempotency-Key was used for something else", attest.ErrConflict)
			}
			for _, a := range m.attestations {
				if a.ID == id {
					return id, &a, nil
				}
			}
			return id, nil, nil
		}
		m.byKey[scoped] = in.ID
	}
	m.intents = append(m.intents, in)
	return in.ID, nil, nil
}

func (m *memory) AppendAttestation(ctx context.Context, a attest.Attestation) (attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.fail, ctx.Err()); err != nil {
		return attest.Attestation{}, err
	}
	if !slices.ContainsFunc(m.intents, func(i attest.Intent) bool { return i.ID == a.ID }) {
		m.t.Errorf("attestation %s without an intent", a.ID)
	}
	for _, first := range m.attestations {
		if first.ID == a.ID {
			return first, nil
		}
	}
	a.Seq = int64(len(m.attestations) + 1)
	m.attestations = append(m.attestations, a)
	return a, nil
}

func (m *memory) Attestation(_ context.Context, id string) (attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.attestations {
		if a.ID == id {
			return a, m.fail
		}
	}
	return attest.Attestation{}, cmp.Or(m.fail, fmt.Errorf("%w: attestation %s", attest.ErrNotFound, id))
}

func (m *memory) Attestations(_ context.Context, q attest.Query) (found []attest.Attestation, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queries++
	if q.Limit < 1 {
		m.t.Errorf("query with limit %d", q.Limit)
	}
	for _, a := range m.attestations {
		about := slices.ContainsFunc(a.Subjects, func(s attest.Subject) bool { return s.SHA256 == q.Artifact || s.SHA512 == q.Artifact })
		if about && a.Seq > q.After && len(found) < q.Limit &&
			(q.PredicateType == "" || a.PredicateType == q.PredicateType) && a.PredicateType != q.NotPredicateType {
			found = append(found, a)
		}
	}
	return found, m.fail
}

func (m *memory) OpenIntents(_ context.Context, limit int) (open []attest.Intent, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.intents {
		if !slices.ContainsFunc(m.attestations, func(a attest.Attestation) bool { return a.ID == i.ID }) && len(open) < limit {
			open = append(open, i)
		}
	}
	return open, m.fail
}

func (m *memory) AppendDecision(ctx context.Context, d attest.Decision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.decisions[d.ID]; ok {
		m.t.Errorf("decision %s twice", d.ID)
	}
	m.decisions[d.ID] = d
	return cmp.Or(m.fail, ctx.Err())
}

func (m *memory) Decision(_ context.Context, id string) (attest.Decision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.decisions[id]
	if !ok {
		return d, fmt.Errorf("%w: decision %s", attest.ErrNotFound, id)
	}
	return d, m.fail
}

// syncBuffer is a log that tests can read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
