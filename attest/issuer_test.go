// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// testSigner is a real key with a real leaf. Its faults are what a key backend
// could do wrong.
type testSigner struct {
	t       *testing.T
	ledger  *testLedger
	key     *ecdsa.PrivateKey
	leaf    []byte
	fail    error
	mutate  func(*Signature)
	signed  int
	stampAt time.Time // of the timestamps it makes; zero for now
	stamp   func([]byte) []byte
}

func newTestSigner(t *testing.T, ledger *testLedger) *testSigner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	san, _ := url.Parse("https://provost.example/signers/test")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "t"}, URIs: []*url.URL{san},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &testSigner{t: t, ledger: ledger, key: key, leaf: leaf}
}

func (s *testSigner) Sign(_ context.Context, message []byte) (Signature, error) {
	if len(s.ledger.intents) == 0 {
		s.t.Error("asked to sign before an intent was stored")
	}
	s.signed++
	if s.fail != nil {
		return Signature{}, s.fail
	}
	hash := sha256.Sum256(message)
	der, err := ecdsa.SignASN1(rand.Reader, s.key, hash[:])
	sig := Signature{Version: 3, DER: der, Certificate: s.leaf}
	if s.mutate != nil {
		s.mutate(&sig)
	}
	return sig, err
}

func (s *testSigner) Timestamp(_ context.Context, signature []byte) ([][]byte, error) {
	hash := sha256.Sum256(signature)
	leaf, err := x509.ParseCertificate(s.leaf)
	if err != nil {
		return nil, err
	}
	at := s.stampAt
	if at.IsZero() {
		at = time.Now()
	}
	ts := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: hash[:], Time: at, Policy: []int{1, 2, 3}, AddTSACertificate: true}
	der, err := ts.CreateResponseWithOpts(leaf, s.key, crypto.SHA256)
	if s.stamp != nil {
		der = s.stamp(der)
	}
	return [][]byte{der}, err
}

// testLedger is strict: it fails the test when the contract is broken. It can
// lie as disks do: fail and yet have stored.
type testLedger struct {
	t             *testing.T
	intents       map[string]Intent
	attestations  map[string]Attestation
	byKey         map[string]string
	failIntent    error
	failAppend    error
	appendAnyway  bool
	appendedCalls int
}

func newTestLedger(t *testing.T) *testLedger {
	return &testLedger{t: t, intents: map[string]Intent{}, attestations: map[string]Attestation{}, byKey: map[string]string{}}
}

func (l *testLedger) AppendIntent(_ context.Context, in Intent) (string, *Attestation, error) {
	if l.failIntent != nil {
		return "", nil, l.failIntent
	}
	if in.IdempotencyKey != "" {
		scoped := fmt.Sprint(in.CallerIssuer, "\x00", in.CallerSubject, "\x00", in.IdempotencyKey)
		if id, ok := l.byKey[scoped]; ok {
			if l.intents[id].Payload != in.Payload || l.intents[id].Tenant != in.Tenant {
				return "", nil, fmt.Errorf("%w: used for something else", ErrConflict)
			}
			if a, ok := l.attestations[id]; ok {
				return id, &a, nil
			}
			return id, nil, nil
		}
		l.byKey[scoped] = in.ID
	}
	l.intents[in.ID] = in
	return in.ID, nil, nil
}

func (l *testLedger) AppendAttestation(_ context.Context, a Attestation) (Attestation, error) {
	l.appendedCalls++
	if _, ok := l.intents[a.ID]; !ok {
		l.t.Errorf("attestation %s without an intent", a.ID)
	}
	if first, ok := l.attestations[a.ID]; ok {
		return first, nil
	}
	if l.failAppend == nil || l.appendAnyway {
		l.attestations[a.ID] = a
	}
	if l.failAppend != nil {
		return Attestation{}, l.failAppend
	}
	return a, nil
}

func newTestIssuer(t *testing.T) (*Issuer, *testSigner, *testLedger) {
	t.Helper()
	ledger := newTestLedger(t)
	signer := newTestSigner(t, ledger)
	return &Issuer{
		Signers:     map[Power]Signer{PowerProvenance: signer, PowerEvidence: signer, PowerVerdict: signer},
		Timestamper: signer, Ledger: ledger, Now: time.Now,
	}, signer, ledger
}

func builder() Caller {
	return Caller{
		Issuer: "https://ci.example", Subject: "job", Grants: []Grant{GrantProvenance},
		Build: &Build{
			BuilderID: "https://provost.example/builders/b", BuildType: GitHubWorkflowType,
			ExternalParameters: map[string]any{"workflow": map[string]any{"repository": "https://github.com/acme/app", "ref": "refs/heads/main", "path": "w.yml"}},
			InternalParameters: map[string]any{"github": map[string]any{"event_name": "push"}},
			Dependencies:       []Resource{{"git+https://github.com/acme/app@refs/heads/main", map[string]string{"gitCommit": strings.Repeat("a", 40)}, false}},
			InvocationID:       "https://github.com/acme/app/actions/runs/1/attempts/1",
			Origins:            Origins{"": FromRegistry()},
			Registration:       &Registration{Name: "b", PredicateTypes: UsualPredicateTypes()},
		},
	}
}

var oneSubject = []Subject{{Name: "app", SHA256: SHA256([]byte("app"))}}

func TestIssueProvenance(t *testing.T) {
	issuer, _, ledger := newTestIssuer(t)
	a, err := issuer.Issue(t.Context(), builder(), Request{Subjects: oneSubject, Predicate: Provenance{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := ledger.attestations[a.ID]; !ok {
		t.Error("released but not stored")
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(a.Bundle); err != nil {
		t.Fatal(err)
	}
	if !b.MinVersion("v0.3") || b.GetDsseEnvelope().GetSignatures()[0].GetKeyid() != "" {
		t.Error("not a v0.3 bundle with an empty keyid")
	}
	s, err := ParseStatement(b.GetDsseEnvelope().GetPayload())
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseProvenance(s.Predicate)
	if err != nil {
		t.Fatal(err)
	}
	if got.BuilderID != builder().Build.BuilderID || got.Dependencies[0].Digest["gitCommit"] == "" || a.KeyVersion != 3 || a.PredicateType != ProvenanceType {
		t.Errorf("issued %+v, said %+v", a, got)
	}
}

// Nothing is released, whatever fails; and what fails says how.
func TestIssueFailsClosed(t *testing.T) {
	for name, c := range map[string]struct {
		fault   func(*Issuer, *testSigner, *testLedger)
		want    error
		signs   int // calls to Sign
		appends int // calls to AppendAttestation
	}{
		"intent cannot be stored": {func(_ *Issuer, _ *testSigner, l *testLedger) { l.failIntent = ErrUnavailable }, ErrUnavailable, 0, 0},
		"no signer":               {func(i *Issuer, _ *testSigner, _ *testLedger) { i.Signers = nil }, nil, 0, 0},
		"signer unavailable":      {func(_ *Issuer, s *testSigner, _ *testLedger) { s.fail = ErrUnavailable }, ErrUnavailable, 1, 0},
		"signature flipped": {func(_ *Issuer, s *testSigner, _ *testLedger) {
			s.mutate = func(g *Signature) { g.DER[len(g.DER)-1] ^= 1 }
		}, ErrSelfCheck, 1, 0},
		"signature of another version": {func(_ *Issuer, s *testSigner, l *testLedger) {
			other := newTestSigner(s.t, l)
			s.mutate = func(g *Signature) { g.Certificate = other.leaf }
		}, ErrSelfCheck, 1, 0},
		"no signature": {func(_ *Issuer, s *testSigner, _ *testLedger) { s.mutate = func(g *Signature) { g.DER = nil } }, ErrSelfCheck, 1, 0},
		"leaf is garbage": {func(_ *Issuer, s *testSigner, _ *testLedger) {
			s.mutate = func(g *Signature) { g.Certificate = []byte("x") }
		}, ErrSelfCheck, 1, 0},
		"timestamp flipped": {func(_ *Issuer, s *testSigner, _ *testLedger) {
			s.stamp = func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
		}, ErrSelfCheck, 1, 0},
		"timestamp missing":  {func(_ *Issuer, s *testSigner, _ *testLedger) { s.stamp = func([]byte) []byte { return nil } }, ErrSelfCheck, 1, 0},
		"leaf expired":       {func(_ *Issuer, s *testSigner, _ *testLedger) { s.stampAt = time.Now().Add(2 * time.Hour) }, ErrUnavailable, 1, 0},
		"leaf not yet valid": {func(_ *Issuer, s *testSigner, _ *testLedger) { s.stampAt = time.Now().Add(-time.Hour) }, ErrUnavailable, 1, 0},
		"timestamp over something else": {func(_ *Issuer, s *testSigner, _ *testLedger) {
			other, _ := s.Timestamp(context.Background(), []byte("else"))
			s.stamp = func([]byte) []byte { return other[0] }
		}, ErrSelfCheck, 1, 0},
		"bundle cannot be stored":         {func(_ *Issuer, _ *testSigner, l *testLedger) { l.failAppend = ErrUnavailable }, ErrUnavailable, 1, 1},
		"bundle stored but not confirmed": {func(_ *Issuer, _ *testSigner, l *testLedger) { l.failAppend, l.appendAnyway = ErrUnavailable, true }, ErrUnavailable, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			issuer, signer, ledger := newTestIssuer(t)
			c.fault(issuer, signer, ledger)
			a, err := issuer.Issue(t.Context(), builder(), Request{Subjects: oneSubject, Predicate: Provenance{}})
			if err == nil || a.Bundle != nil || a.ID != "" {
				t.Fatalf("released %q, %v", a.ID, err)
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v; want %v", err, c.want)
			}
			if signer.signed != c.signs || ledger.appendedCalls != c.appends {
				t.Errorf("%d signatures, %d appends; want %d, %d", signer.signed, ledger.appendedCalls, c.signs, c.appends)
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	person := Caller{Issuer: "https://people.example", Subject: "p", Grants: Grants}
	for name, c := range map[string]struct {
		caller Caller
		req    Request
		want   error
	}{
		"nobody":             {Caller{}, Request{Subjects: oneSubject, Predicate: Provenance{}}, ErrDenied},
		"nobody, an SBOM":    {Caller{}, Request{Subjects: oneSubject, Predicate: SBOM{[]byte(cycloneDXDoc)}}, ErrDenied},
		"not a build":        {person, Request{Subjects: oneSubject, Predicate: Provenance{}}, ErrDenied},
		"no subject":         {builder(), Request{Predicate: Provenance{}}, ErrInvalid},
		"zero digest":        {builder(), Request{Subjects: []Subject{{Name: "x"}}, Predicate: Provenance{}}, ErrInvalid},
		"too many subjects":  {builder(), Request{Subjects: make([]Subject, 10_000), Predicate: Provenance{}}, ErrInvalid},
		"key too long":       {builder(), Request{Subjects: oneSubject, Predicate: Provenance{}, IdempotencyKey: strings.Repeat("k", 256)}, ErrInvalid},
		"key with newline":   {builder(), Request{Subjects: oneSubject, Predicate: Provenance{}, IdempotencyKey: "a\nb"}, ErrInvalid},
		"a VSA that is none": {person, Request{Subjects: oneSubject, Predicate: VSA{}}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			issuer, signer, ledger := newTestIssuer(t)
			if _, err := issuer.Issue(t.Context(), c.caller, c.req); !errors.Is(err, c.want) {
				t.Errorf("%v; want %v", err, c.want)
			}
			if signer.signed != 0 || len(ledger.intents) != 0 {
				t.Error("a refused request left something behind")
			}
		})
	}
}

func TestIssueIdempotent(t *testing.T) {
	issuer, signer, _ := newTestIssuer(t)
	req := Request{Subjects: oneSubject, Predicate: Provenance{}, IdempotencyKey: "k1"}
	first, err := issuer.Issue(t.Context(), builder(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := issuer.Issue(t.Context(), builder(), req)
	if err != nil || again.ID != first.ID || string(again.Bundle) != string(first.Bundle) || signer.signed != 1 {
		t.Errorf("retried: %s, %v after %d signatures; want the first answer", again.ID, err, signer.signed)
	}
	req.Subjects = []Subject{{SHA256: SHA256([]byte("other"))}}
	if _, err := issuer.Issue(t.Context(), builder(), req); !errors.Is(err, ErrConflict) {
		t.Errorf("same key, other subject: %v; want ErrConflict", err)
	}
}

// A request that failed half-way can be retried with its key.
func TestIssueRetriedAfterFailure(t *testing.T) {
	issuer, signer, ledger := newTestIssuer(t)
	req := Request{Subjects: oneSubject, Predicate: Provenance{}, IdempotencyKey: "k1"}
	signer.fail = ErrUnavailable
	if _, err := issuer.Issue(t.Context(), builder(), req); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	signer.fail = nil
	a, err := issuer.Issue(t.Context(), builder(), req)
	if err != nil || len(ledger.intents) != 1 || ledger.intents[a.ID].ID == "" {
		t.Errorf("%+v, %v with %d intents; want the first intent finished", a, err, len(ledger.intents))
	}
}

func TestVSAValidate(t *testing.T) {
	good := VSA{
		Verifier: Verifier{ID: "https://v.example"}, TimeVerified: time.Now(), ResourceURI: "pkg:generic/a",
		Policy: PolicyRef{URI: "https://v.example/policies/prod"}, VerificationResult: VSAPassed, VerifiedLevels: []string{"SLSA_BUILD_LEVEL_2"},
	}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*VSA){
		"no verifier":            func(v *VSA) { v.Verifier.ID = "" },
		"no resource":            func(v *VSA) { v.ResourceURI = "" },
		"no policy":              func(v *VSA) { v.Policy.URI = "" },
		"no time":                func(v *VSA) { v.TimeVerified = time.Time{} },
		"no result":              func(v *VSA) { v.VerificationResult = "" },
		"PASS is not PASSED":     func(v *VSA) { v.VerificationResult = "PASS" },
		"no levels":              func(v *VSA) { v.VerifiedLevels = nil },
		"passed with FAILED":     func(v *VSA) { v.VerifiedLevels = []string{VSAFailed} },
		"failed with a level":    func(v *VSA) { v.VerificationResult = VSAFailed },
		"two levels of a track":  func(v *VSA) { v.VerifiedLevels = []string{"SLSA_BUILD_LEVEL_1", "SLSA_BUILD_LEVEL_2"} },
		"input without a digest": func(v *VSA) { v.InputAttestations = []InputAttestation{{URI: "https://a"}} },
		"passed among the levels": func(v *VSA) {
			v.VerificationResult, v.VerifiedLevels = VSAFailed, []string{VSAFailed, "SLSA_BUILD_LEVEL_1"}
		},
	} {
		v := good
		change(&v)
		if err := v.validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
		}
	}
}

// The members of a VSA are those of the spec, and extensions whose names are
// URIs, at the top level; nothing else.
func TestVSAMembers(t *testing.T) {
	const extension = "https://v.example/vsa/verdict"
	v := VSA{
		Verifier: Verifier{ID: "https://v.example", Version: map[string]string{"provost": "1"}}, TimeVerified: time.Unix(1700000000, 0).UTC(),
		ResourceURI: "pkg:generic/a", Policy: PolicyRef{URI: "https://v.example/policies/prod", Digest: map[string]string{"sha256": hexA}},
		InputAttestations:  []InputAttestation{{URI: "https://v.example/a", Digest: map[string]string{"sha256": hexA}}},
		VerificationResult: VSAPassed, VerifiedLevels: []string{"SLSA_BUILD_LEVEL_2"}, SLSAVersion: "1.2",
		Extension: map[string]any{extension: "PASS"},
	}
	c, err := v.claim(Caller{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"verifier":{"id":"https://v.example","version":{"provost":"1"}},"timeVerified":"2023-11-14T22:13:20Z",` +
		`"resourceUri":"pkg:generic/a","policy":{"uri":"https://v.example/policies/prod","digest":{"sha256":"` + hexA + `"}},` +
		`"inputAttestations":[{"uri":"https://v.example/a","digest":{"sha256":"` + hexA + `"}}],"verificationResult":"PASSED",` +
		`"verifiedLevels":["SLSA_BUILD_LEVEL_2"],"slsaVersion":"1.2","` + extension + `":"PASS"}`
	if string(c.predicate) != want {
		t.Errorf("got  %s\nwant %s", c.predicate, want)
	}
	back, err := ParseVSA(c.predicate)
	if err != nil || back.Extension[extension] != "PASS" {
		t.Errorf("read back %+v, %v", back.Extension, err)
	}
}

func TestVerdictZeroIsError(t *testing.T) {
	var v Verdict
	if v != VerdictError || v.String() != "ERROR" || Verdict(99).String() != "ERROR" || Verdict(-1).String() != "ERROR" {
		t.Error("an unset or unknown verdict is not ERROR")
	}
	v = VerdictPass
	if err := v.UnmarshalText([]byte("pass")); err == nil || v != VerdictError {
		t.Errorf("an unknown name left %v, %v", v, err)
	}
}
