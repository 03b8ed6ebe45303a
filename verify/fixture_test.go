// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"provost/attest"
	"provost/keys"
	"provost/verify"
)

const (
	service      = "https://provost.example"
	builderID    = service + "/builders/github-hosted"
	repository   = "https://github.com/acme/app"
	mainBranch   = "refs/heads/main"
	commitOfMain = "4f2a7c0e9b1d8e3f6a5c4b2d1e0f9a8b7c6d5e4f"
	mediaType    = "application/vnd.dev.sigstore.bundle.v0.3+json"

	cycloneDXDoc = `{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[{"type":"library","name":"zlib","version":"1.3.1"}]}`
	spdxDoc      = `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"app","dataLicense":"CC0-1.0","documentNamespace":"https://example.com/app","creationInfo":{"created":"2026-01-01T00:00:00Z","creators":["Tool: x"]}}`
)

var app = attest.SHA256([]byte("app"))

// scratch is a directory for as long as the tests run.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "provost-verify-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A clock that tests turn.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// An archive is a keys.Archive in memory.
type archive struct {
	mu    sync.Mutex
	certs []attest.Certificate
}

func (a *archive) Certificates(context.Context) ([]attest.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.certs), nil
}

func (a *archive) AppendCertificate(_ context.Context, c attest.Certificate) (attest.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, have := range a.certs {
		if have.Name == c.Name && have.Version == c.Version {
			return have, nil
		}
	}
	a.certs = append(a.certs, c)
	return c, nil
}

func (a *archive) KeyRevocations(context.Context) ([]attest.KeyRevocation, error) { return nil, nil }

func (a *archive) AppendKeyRevocation(context.Context, attest.KeyRevocation) error {
	return errors.New("nothing is revoked here")
}

// Claim and Release implement keys.Leases for one process.
func (a *archive) Claim(context.Context, string, string, time.Time, time.Time) (bool, error) {
	return true, nil
}

func (a *archive) Release(context.Context, string, string) error { return nil }

// A realm is one service's keys, certificates and trusted root, with a real
// key backend.
type realm struct {
	backend   *keys.File
	archive   *archive
	clock     *clock
	authority *keys.Authority
	root      []byte // trusted_root.json
	trust     *verify.Trust
}

func newRealm(name string) *realm {
	ctx := context.Background()
	id := must(age.GenerateX25519Identity())
	r := &realm{
		backend: must(keys.OpenFile(filepath.Join(scratch, name), id.String())),
		archive: &archive{}, clock: &clock{now: time.Now().UTC().Truncate(time.Second)},
	}
	config := keys.Config{
		Backend: r.backend, Archive: r.archive, Leases: r.archive, Identity: service, Organization: "Example",
		SigningWindow: 24 * time.Hour, Now: r.clock.Now,
	}
	must(0, keys.Init(ctx, config, func(root *x509.Certificate, _ []byte) error {
		config.Root = attest.SHA256(root.Raw) // as an operator pins it
		return nil
	}))
	r.authority = must(keys.Open(ctx, config))
	r.root = must(r.authority.TrustedRoot())
	r.trust = must(verify.ParseTrust(r.root))
	return r
}

// ours is the realm that tests believe. The strangers' has the same names and
// other keys.
var (
	ours      = sync.OnceValue(func() *realm { return newRealm("ours") })
	strangers = sync.OnceValue(func() *realm { return newRealm("strangers") })
)

// at runs f at another time.
func (r *realm) at(d time.Duration, f func()) {
	now := r.clock.Now()
	defer r.clock.set(now)
	r.clock.set(now.Add(d))
	f()
}

func (r *realm) issuer(ledger attest.Ledger) *attest.Issuer {
	i := &attest.Issuer{Signers: map[attest.Power]attest.Signer{}, Timestamper: r.authority, Ledger: ledger, Now: r.clock.Now}
	for _, p := range attest.Powers {
		i.Signers[p] = r.authority.Signer(p)
	}
	return i
}

// issue has a real issuer say something about subjects; app if there are none.
func (r *realm) issue(t testing.TB, ledger attest.Ledger, b *attest.Build, p attest.Predicate, subjects ...attest.Digest) attest.Attestation {
	t.Helper()
	if len(subjects) == 0 {
		subjects = []attest.Digest{app}
	}
	req := attest.Request{Predicate: p}
	for i, s := range subjects {
		req.Subjects = append(req.Subjects, attest.Subject{Name: fmt.Sprintf("app-%d", i), SHA256: s})
	}
	caller := attest.Caller{Issuer: "https://ci.example", Subject: "job", Grants: attest.Grants, Build: b}
	a, err := r.issuer(ledger).Issue(t.Context(), caller, req)
	check(t, err)
	return a
}

// goodBuild is a build of main on an allowed builder.
func goodBuild() *attest.Build {
	return &attest.Build{
		BuilderID: builderID, BuildType: attest.GitHubWorkflowType,
		ExternalParameters: map[string]any{"workflow": map[string]any{"repository": repository, "ref": mainBranch, "path": ".github/workflows/build.yml"}},
		InternalParameters: map[string]any{"github": map[string]any{"event_name": "push"}},
		Dependencies:       []attest.Resource{{URI: "git+" + repository + "@" + mainBranch, Digest: map[string]string{"gitCommit": commitOfMain}}},
		InvocationID:       repository + "/actions/runs/1/attempts/1",
		Origins:            attest.Origins{"": attest.FromRegistry()},
		Registration:       &attest.Registration{Name: "b", PredicateTypes: attest.UsualPredicateTypes()},
	}
}

func (r *realm) provenance(t testing.TB) []byte {
	return r.issue(t, newMemory(t), goodBuild(), attest.Provenance{}).Bundle
}

// statement is a payload that is good; change edits its text.
func statement(predicateType, predicate string) string {
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"app","digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`,
		app.Hex(), predicateType, predicate)
}

// sealed is a bundle of any payload, signed by one of the realm's signers and
// stamped, whether or not an issuer would do that.
func (r *realm) sealed(t testing.TB, p attest.Power, payload string) *protobundle.Bundle {
	t.Helper()
	sig, err := r.authority.Signer(p).Sign(t.Context(), dsse.PAE(attest.PayloadType, []byte(payload)))
	check(t, err)
	return r.assemble(t, []byte(payload), sig)
}

// assemble stamps a signature now and puts the parts together.
func (r *realm) assemble(t testing.TB, payload []byte, sig attest.Signature) *protobundle.Bundle {
	t.Helper()
	stamp, err := r.authority.Timestamp(t.Context(), sig.DER)
	check(t, err)
	return &protobundle.Bundle{
		MediaType: mediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: sig.Certificate}},
			TimestampVerificationData: &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp[0]}},
			},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: attest.PayloadType, Signatures: []*protodsse.Signature{{Sig: sig.DER}},
		}},
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := protojson.Marshal(m)
	check(t, err)
	return raw
}

func decodeBundle(t testing.TB, raw []byte) *protobundle.Bundle {
	t.Helper()
	b := new(protobundle.Bundle)
	check(t, protojson.Unmarshal(raw, b))
	return b
}

// edit changes a bundle, and fails when nothing changed.
func edit(t testing.TB, raw []byte, change func(*protobundle.Bundle)) []byte {
	t.Helper()
	b := decodeBundle(t, raw)
	before := proto.Clone(b)
	change(b)
	if proto.Equal(before, b) {
		t.Fatal("the mutation changed nothing")
	}
	return encode(t, b)
}

// replace changes text in a document, once, and fails when it is not there.
func replace(t testing.TB, raw []byte, old, new string) []byte {
	t.Helper()
	v := jsontext.Value(slices.Clone(raw))
	check(t, v.Compact()) // protojson varies its white space on purpose
	text := string(v)
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in %.300s", old, text)
	}
	return []byte(strings.Replace(text, old, new, 1))
}

// editRoot changes a trusted root.
func editRoot(t testing.TB, raw []byte, change func(*prototrustroot.TrustedRoot)) []byte {
	t.Helper()
	r := new(prototrustroot.TrustedRoot)
	check(t, protojson.Unmarshal(raw, r))
	change(r)
	return encode(t, r)
}

// A keyOf is a key version of a realm as a crypto.Signer, to make certificates
// that no authority would.
type keyOf struct {
	r    *realm
	key  string
	cert *x509.Certificate
}

// ca is the realm's issuing CA.
func (r *realm) ca(t testing.TB) keyOf {
	t.Helper()
	for _, c := range r.archive.certs {
		if c.Name == "issuing-provenance" && c.Version == 1 {
			cert, err := x509.ParseCertificate(c.DER)
			check(t, err)
			return keyOf{r, c.Name, cert}
		}
	}
	t.Fatal("no issuing CA")
	return keyOf{}
}

func (k keyOf) Public() crypto.PublicKey { return k.cert.PublicKey }

func (k keyOf) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k.r.backend.Sign(context.Background(), k.key, 1, digest)
}

// A memory is a ledger, the evidence and the decisions of one test. It is
// strict: it fails the test when the contract is broken. It can lie: fail is
// asked before every call, and may have the call done and yet fail.
type memory struct {
	t            testing.TB
	intents      map[string]attest.Intent
	attestations []attest.Attestation
	decisions    []attest.Decision
	fail         func(call string) (anyway bool, err error)
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, intents: map[string]attest.Intent{}, fail: func(string) (bool, error) { return false, nil }}
}

// failing makes one call fail, after doing what it should if anyway.
func (m *memory) failing(call string, anyway bool, err error) {
	m.fail = func(c string) (bool, error) {
		if c == call {
			return anyway, err
		}
		return false, nil
	}
}

func (m *memory) AppendIntent(_ context.Context, in attest.Intent) (string, *attest.Attestation, error) {
	if _, ok := m.intents[in.ID]; ok || in.ID == "" {
		m.t.Errorf("intent %q appended twice or without an ID", in.ID)
	}
	anyway, err := m.fail("intent")
	if err == nil || anyway {
		m.intents[in.ID] = in
	}
	return in.ID, nil, err
}

func (m *memory) AppendAttestation(_ context.Context, a attest.Attestation) (attest.Attestation, error) {
	if _, ok := m.intents[a.ID]; !ok {
		m.t.Errorf("attestation %s without an intent", a.ID)
	}
	anyway, err := m.fail("attestation")
	if err == nil || anyway {
		m.attestations = append(m.attestations, a)
	}
	if err != nil {
		return attest.Attestation{}, err
	}
	return a, nil
}

func (m *memory) Attestations(_ context.Context, q attest.Query) ([]attest.Attestation, error) {
	if q.Limit <= 0 || q.Artifact.IsZero() {
		m.t.Errorf("query without a limit or an artifact: %+v", q)
	}
	if _, err := m.fail("evidence"); err != nil {
		return nil, err
	}
	var found []attest.Attestation
	for i, a := range m.attestations {
		if a.Seq = int64(i + 1); a.Seq <= q.After {
			continue
		}
		about := slices.ContainsFunc(a.Subjects, func(s attest.Subject) bool { return s.SHA256 == q.Artifact || s.SHA512 == q.Artifact })
		if about && a.PredicateType != q.NotPredicateType && (q.PredicateType == "" || a.PredicateType == q.PredicateType) && len(found) < q.Limit {
			found = append(found, a)
		}
	}
	return found, nil
}

func (m *memory) AppendDecision(_ context.Context, d attest.Decision) error {
	if signed := d.VSA != nil && d.VSAID != ""; signed == (d.Verdict == attest.VerdictError) {
		m.t.Errorf("decision %s: verdict %s, VSA %q of %d bytes", d.ID, d.Verdict, d.VSAID, len(d.VSA))
	}
	anyway, err := m.fail("decision")
	if err == nil || anyway {
		m.decisions = append(m.decisions, d)
	}
	return err
}

// wantRefused asserts that nothing was believed, and where it failed.
func wantRefused(t testing.TB, v *verify.Verified, err error, want verify.Step) {
	t.Helper()
	if v != nil {
		t.Error("an error came with something believed, or without an error")
	}
	var at *verify.Error
	if !errors.As(err, &at) {
		t.Fatalf("%v; want an error at step %q", err, want)
	}
	if at.Step != want {
		t.Errorf("refused at %q; want %q: %v", at.Step, want, err)
	}
}
