// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

const testService = "https://provost.example"

func TestRevocationTypes(t *testing.T) {
	if got := RevocationType(testService); got != "https://provost.example/attestation/revocation/v0.1" || !IsRevocation(got) || PowerFor(got) != PowerVerdict {
		t.Errorf("%s, %t, signed by %s", got, IsRevocation(got), PowerFor(got))
	}
	for _, other := range []string{"", revocationPath, "https://provost.example/attestation/revocation/v0.2", RevocationType(testService) + "/", VSAType} {
		if IsRevocation(other) {
			t.Errorf("%q is taken for a revocation", other)
		}
	}
}

// What the issuer signs takes back what it was asked to, whatever becomes of
// the bundle.
func TestRevoke(t *testing.T) {
	l := newTestLedger(t)
	s := newTestSigner(t, l)
	i := &Issuer{Signers: map[Power]Signer{PowerEvidence: s, PowerVerdict: s}, Timestamper: s, Ledger: l, Now: time.Now}
	caller := Caller{Issuer: "https://idp.example", Subject: "responder", Grants: []Grant{GrantSBOM, GrantRevoke}}
	subjects := []Subject{{Name: "app", SHA256: SHA256([]byte("app"))}, {Name: "lib", SHA256: SHA256([]byte("lib"))}}
	sbom := SBOM{Document: []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}`)}
	a, err := i.Issue(t.Context(), caller, Request{Subjects: subjects, Predicate: sbom})
	if err != nil {
		t.Fatal(err)
	}
	again, err := i.Issue(t.Context(), caller, Request{Subjects: subjects, Predicate: sbom})
	if err != nil {
		t.Fatal(err)
	}

	request, err := Revoke(testService, a, "built by a stolen job", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Issue(t.Context(), Caller{Grants: []Grant{GrantSBOM, GrantDecide}}, request); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "attestations:revoke") {
		t.Errorf("without the grant: %v", err)
	}
	r, err := i.Issue(t.Context(), caller, request)
	if err != nil {
		t.Fatal(err)
	}
	if r.PredicateType != RevocationType(testService) || r.Signer != PowerVerdict || len(r.Subjects) != 2 || r.Subjects[1] != subjects[1] {
		t.Errorf("issued %+v", r)
	}
	payload, _, err := OpenUnverified(r.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	statement, err := ParseStatement(payload)
	if err != nil {
		t.Fatal(err)
	}
	said, err := ParseRevocation(testService, statement.Predicate)
	if err != nil || said.Service != testService || said.Reason != "built by a stolen job" || len(said.Revoked) != 1 || said.Revoked[0].ID != a.ID || said.RevokedAt.IsZero() {
		t.Fatalf("%+v, %v", said, err)
	}
	name := func(a Attestation) Revoked {
		payload, signature, err := OpenUnverified(a.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		return NameOf(payload, signature)
	}
	if !said.Revoked[0].Names(name(a)) {
		t.Error("it does not name what it takes back")
	}
	if said.Revoked[0].Names(name(again)) || said.Revoked[0].Names(name(r)) || said.Revoked[0].Names(Revoked{ID: a.ID}) || (Revoked{}).Names(Revoked{}) {
		t.Error("it names another")
	}
	if _, err := Revoke(testService, Attestation{ID: "x", Bundle: []byte("garbage")}, "", time.Now()); !errors.Is(err, ErrInvalid) {
		t.Errorf("what cannot be named: %v", err)
	}
	if request, err := Revoke(testService, a, "", time.Time{}); err != nil {
		t.Error(err)
	} else if c, err := request.Predicate.claim(caller); err != nil || strings.Contains(string(c.predicate), "revokedAt") {
		t.Errorf("without a time: %s, %v", c.predicate, err)
	}
}

// (r, n-s) of a signature (r, s) is the same signature for every verifier.
func TestSignatureDigest(t *testing.T) {
	s := newTestSigner(t, newTestLedger(t))
	s.ledger.intents["x"] = Intent{}
	for range 8 {
		sig, err := s.Sign(t.Context(), dsse.PAE(PayloadType, []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig.DER, &rs); err != nil {
			t.Fatal(err)
		}
		rs.S.Sub(elliptic.P256().Params().N, rs.S)
		other, err := asn1.Marshal(rs)
		if err != nil {
			t.Fatal(err)
		}
		if string(other) == string(sig.DER) || SignatureDigest(other) != SignatureDigest(sig.DER) {
			t.Error("the other form has another digest")
		}
	}
	seen := map[Digest]string{}
	for _, der := range []string{"", "x", "\x30\x00", "\x30\x06\x02\x01\x01\x02\x01\x00", "\x30\x06\x02\x01\x01\x02\x01\xff", "\x30\x06\x02\x01\x01\x02\x01\x01\x00", strings.Repeat("x", 100)} {
		d := SignatureDigest([]byte(der))
		if d != SHA256([]byte(der)) || seen[d] != "" {
			t.Errorf("%q, which is no signature: %s", der, d)
		}
		seen[d] = der
	}
}

func TestRevocationRefuses(t *testing.T) {
	digest := map[string]string{"sha256": strings.Repeat("a", 64)}
	good := func() Revocation {
		return Revocation{Service: testService, Revoked: []Revoked{{ID: "id", Message: digest, Signature: digest}}, Reason: "x"}
	}
	caller := Caller{Grants: Grants}
	if _, err := good().claim(caller); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, change := range map[string]func(*Revocation){
		"nothing taken back":     func(r *Revocation) { r.Revoked = nil },
		"too much taken back":    func(r *Revocation) { r.Revoked = make([]Revoked, MaxRevoked+1) },
		"no id":                  func(r *Revocation) { r.Revoked[0].ID = "" },
		"an id over two lines":   func(r *Revocation) { r.Revoked[0].ID = "a\nb" },
		"no message":             func(r *Revocation) { r.Revoked[0].Message = nil },
		"no signature":           func(r *Revocation) { r.Revoked[0].Signature = nil },
		"a digest in capitals":   func(r *Revocation) { r.Revoked[0].Signature = map[string]string{"sha256": strings.Repeat("A", 64)} },
		"another algorithm":      func(r *Revocation) { r.Revoked[0].Message = map[string]string{"sha512": strings.Repeat("a", 128)} },
		"too long a reason":      func(r *Revocation) { r.Reason = strings.Repeat("x", MaxReason+1) },
		"a reason that is drawn": func(r *Revocation) { r.Reason = "\x1b[2J" },
		"a reason not in UTF-8":  func(r *Revocation) { r.Reason = "\xff" },
	} {
		r := good()
		change(&r)
		if c, err := r.claim(caller); !errors.Is(err, ErrInvalid) || len(c.predicate) > 0 {
			t.Errorf("%s: %s, %v; want ErrInvalid", name, c.predicate, err)
		}
	}
}

func FuzzParseRevocation(f *testing.F) {
	d := strings.Repeat("a", 64)
	f.Add([]byte(`{"revoked":[{"id":"x","message":{"sha256":"` + d + `"},"signature":{"sha256":"` + d + `"}}],"reason":"x","revokedAt":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"revoked":[{"id":"x"}]}`))
	f.Add([]byte(`{"revoked":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRevocation(testService, data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		for _, n := range r.Revoked {
			if !n.Names(n) || n.ID == "" {
				t.Fatalf("believed: %+v", r)
			}
		}
		if len(r.Revoked) == 0 {
			t.Fatal("takes nothing back")
		}
	})
}
