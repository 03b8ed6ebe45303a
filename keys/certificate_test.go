// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/digitorus/timestamp"
	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
	"provost/keys"
)

// trusted is what a trusted_root.json says.
type trusted struct {
	json                  []byte
	top, issuing, stamper *x509.Certificate
	root                  *root.TrustedRoot
}

func trustedRoot(t testing.TB, a *keys.Authority) trusted {
	t.Helper()
	raw, err := a.TrustedRoot()
	check(t, err)
	tr, err := root.NewTrustedRootFromJSON(raw)
	check(t, err)
	cas, tsas := tr.FulcioCertificateAuthorities(), tr.TimestampingAuthorities()
	if len(cas) != 6 || len(tsas) != 1 || len(tr.RekorLogs()) != 0 || len(tr.CTLogs()) != 0 { // each signer has a CA and a reserve
		t.Fatalf("trusted root: %d CAs, %s", len(cas), raw)
	}
	tsa := tsas[0].(*root.SigstoreTimestampingAuthority)
	var ca *root.FulcioCertificateAuthority
	for _, c := range cas {
		if f := c.(*root.FulcioCertificateAuthority); ca == nil && strings.Contains(f.Intermediates[0].Subject.CommonName, "provenance issuing CA") {
			ca = f
		}
	}
	if len(ca.Intermediates) != 1 || !ca.Root.Equal(tsa.Root) || tsa.Leaf == nil || ca.URI == tsa.URI {
		t.Fatalf("trusted root: %s", raw)
	}
	return trusted{raw, ca.Root, ca.Intermediates[0], tsa.Leaf, tr}
}

func TestCertificates(t *testing.T) {
	config, _, now := newConfig(t)
	a := newAuthority(t, config)
	tr := trustedRoot(t, a)
	sig, err := signOnce(t.Context(), a, attest.PowerProvenance)
	check(t, err)
	leaf, err := x509.ParseCertificate(sig.Certificate)
	check(t, err)

	for name, cert := range map[string]*x509.Certificate{"root": tr.top, "issuing": tr.issuing, "timestamp": tr.stamper, "leaf": leaf} {
		key, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Curve != elliptic.P256() || cert.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			t.Errorf("%s: not P-256 with SHA-256", name)
		}
		if cert.SerialNumber.BitLen() < 64 || len(cert.SubjectKeyId) != 20 || name != "root" && len(cert.AuthorityKeyId) != 20 {
			t.Errorf("%s: serial %x, SKI %x, AKI %x", name, cert.SerialNumber, cert.SubjectKeyId, cert.AuthorityKeyId)
		}
	}
	day := 24 * time.Hour
	if !tr.top.IsCA || tr.top.MaxPathLen != 1 || tr.top.NotAfter.Sub(tr.top.NotBefore) != 7300*day {
		t.Errorf("root: %v %d %v", tr.top.IsCA, tr.top.MaxPathLen, tr.top.NotAfter)
	}
	if !tr.issuing.IsCA || tr.issuing.MaxPathLen != 0 || !tr.issuing.MaxPathLenZero || tr.issuing.NotAfter.Sub(tr.issuing.NotBefore) != 1095*day ||
		len(tr.issuing.ExtKeyUsage) != 1 || tr.issuing.ExtKeyUsage[0] != x509.ExtKeyUsageCodeSigning {
		t.Errorf("issuing: %v", tr.issuing)
	}
	if diff := cmp.Diff([]string{"Example"}, tr.issuing.Subject.Organization); diff != "" || tr.top.Subject.Organization[0] != "Example" {
		t.Errorf("organization: %s", diff)
	}
	if tr.stamper.IsCA || tr.stamper.KeyUsage != x509.KeyUsageDigitalSignature || !bytes.Equal(tr.stamper.AuthorityKeyId, tr.top.SubjectKeyId) ||
		extension(t, tr.stamper, "2.5.29.37").Critical != true {
		t.Errorf("timestamp: %v", tr.stamper)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.Subject.String() != "" ||
		len(leaf.URIs) != 1 || leaf.URIs[0].String() != identity+"/signers/provenance" || !extension(t, leaf, "2.5.29.17").Critical {
		t.Errorf("leaf: subject %q, names %v", leaf.Subject, leaf.URIs)
	}
	if got := extension(t, leaf, "1.3.6.1.4.1.57264.1.1").Value; string(got) != identity {
		t.Errorf("issuer, raw: %q", got)
	}
	var issuer asn1.RawValue
	if _, err := asn1.Unmarshal(extension(t, leaf, "1.3.6.1.4.1.57264.1.8").Value, &issuer); err != nil ||
		issuer.Tag != asn1.TagUTF8String || string(issuer.Bytes) != identity {
		t.Errorf("issuer, DER: %v %v", issuer, err)
	}
	if want := now.Now().Add(-time.Minute); !leaf.NotBefore.Equal(want) {
		t.Errorf("leaf begins at %s, want %s", leaf.NotBefore, want)
	}
}

func extension(t *testing.T, c *x509.Certificate, oid string) (found struct {
	Critical bool
	Value    []byte
}) {
	t.Helper()
	for _, e := range c.Extensions {
		if e.Id.String() == oid {
			found.Critical, found.Value = e.Critical, e.Value
			return found
		}
	}
	t.Errorf("no extension %s", oid)
	return found
}

func TestTrustedRootIsDeterministic(t *testing.T) {
	config, _, _ := newConfig(t)
	a := newAuthority(t, config)
	before, err := a.TrustedRoot()
	check(t, err)
	_, err = a.Rotate(t.Context(), attest.PowerVerdict)
	check(t, err)
	again, err := keys.Open(t.Context(), pin(t, config))
	check(t, err)
	after, err := again.TrustedRoot()
	check(t, err)
	if !bytes.Equal(before, after) || bytes.ContainsAny(before, "\n\t ") && !json.Valid(before) {
		t.Errorf("trusted root changed:\n%s\n%s", before, after)
	}
}

func TestTimestamp(t *testing.T) {
	config, _, now := newConfig(t)
	a := newAuthority(t, config)
	response, err := a.Timestamp(t.Context(), []byte("signature"))
	check(t, err)
	ts, err := timestamp.ParseResponse(response[0])
	check(t, err)
	imprint := sha256.Sum256([]byte("signature"))
	if !ts.Time.Equal(now.Now()) || ts.Accuracy != time.Second || !bytes.Equal(ts.HashedMessage, imprint[:]) || len(ts.Certificates) != 1 || ts.Nonce != nil {
		t.Errorf("timestamp: %+v", ts)
	}
}

func TestKeepRootIn(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	check(t, err)
	dir := t.TempDir()
	keep, err := keys.KeepRootIn(dir, id.Recipient().String())
	check(t, err)
	config, _, _ := newConfig(t)
	check(t, keys.Init(t.Context(), config, keep))
	check(t, keys.Init(t.Context(), config, keep)) // gives nothing away again
	a, err := keys.Open(t.Context(), pin(t, config))
	check(t, err)
	top := trustedRoot(t, a).top
	sum := sha256.Sum256(top.Raw)
	files := entries(t, dir)
	if len(files) != 1 || files[0].Name() != "root-"+hex.EncodeToString(sum[:8])+".age" {
		t.Fatalf("files: %v", files)
	}
	f, err := os.Open(filepath.Join(dir, files[0].Name()))
	check(t, err)
	defer f.Close()
	plain, err := age.Decrypt(f, id)
	check(t, err)
	text, err := io.ReadAll(plain)
	check(t, err)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	check(t, err)
	if !key.(*ecdsa.PrivateKey).PublicKey.Equal(top.PublicKey) {
		t.Error("it is not the root's key")
	}

	if _, err := keys.KeepRootIn(dir, "age1nonsense"); err == nil {
		t.Error("took a recipient that is none")
	}
	if _, err := keys.KeepRootIn(filepath.Join(dir, "missing"), id.Recipient().String()); err == nil {
		t.Error("took a directory that does not exist")
	}
}

// TestBundle has attest.Issuer sign with an authority, rotates, and lets
// sigstore-go believe both bundles from one trusted root, and nothing else.
func TestBundle(t *testing.T) {
	config, _, _ := newConfig(t)
	config.Now = nil // the bundles are verified at their own time
	a := newAuthority(t, config)
	signers := make(map[attest.Power]attest.Signer)
	for _, p := range attest.Powers {
		signers[p] = a.Signer(p)
	}
	issuer := &attest.Issuer{Signers: signers, Timestamper: a, Ledger: ledger{}, Now: time.Now}
	artifact := []byte("artifact")
	caller := attest.Caller{Issuer: "https://ci.example.com", Subject: "s", Grants: []attest.Grant{attest.GrantProvenance},
		Build: &attest.Build{BuilderID: "https://ci.example.com/b", BuildType: "https://ci.example.com/t", ExternalParameters: map[string]any{"a": "b"}, Origins: attest.Origins{"": attest.FromRegistry()},
			Registration: &attest.Registration{Name: "b", PredicateTypes: attest.UsualPredicateTypes()}}}
	var bundles [][]byte
	for range 2 {
		got, err := issuer.Issue(t.Context(), caller, attest.Request{
			Subjects: []attest.Subject{{Name: "artifact", SHA256: attest.SHA256(artifact)}}, Predicate: attest.Provenance{},
		})
		check(t, err)
		bundles = append(bundles, got.Bundle)
		_, err = a.Rotate(t.Context(), attest.PowerProvenance)
		check(t, err)
	}

	believe := func(a *keys.Authority, raw []byte, san, oidcIssuer string) error {
		verifier, err := verify.NewVerifier(trustedRoot(t, a).root, verify.WithSignedTimestamps(1))
		check(t, err)
		var b bundle.Bundle
		check(t, b.UnmarshalJSON(raw))
		id, err := verify.NewShortCertificateIdentity(oidcIssuer, "", san, "")
		check(t, err)
		_, err = verifier.Verify(&b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(artifact)), verify.WithCertificateIdentity(id)))
		return err
	}
	other, _, _ := newConfig(t)
	stranger := newAuthority(t, other)
	san := identity + "/signers/provenance"
	for i, raw := range bundles {
		if err := believe(a, raw, san, identity); err != nil {
			t.Errorf("bundle %d: %v", i, err)
		}
		if err := believe(a, raw, identity+"/signers/verdict", identity); err == nil {
			t.Error("believed as another signer's")
		}
		if err := believe(a, raw, san, "https://other.example.com"); err == nil {
			t.Error("believed as another issuer's")
		}
		if err := believe(stranger, raw, san, identity); err == nil {
			t.Error("believed under another root")
		}
	}
	if !strings.Contains(string(bundles[0]), "v0.3") {
		t.Error("not a bundle v0.3")
	}
}

// ledger stores nothing.
type ledger struct{}

func (ledger) AppendIntent(_ context.Context, i attest.Intent) (string, *attest.Attestation, error) {
	return i.ID, nil, nil
}
func (ledger) AppendAttestation(_ context.Context, a attest.Attestation) (attest.Attestation, error) {
	return a, nil
}
