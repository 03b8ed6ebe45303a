// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package rfc3161

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

var (
	imprint = sha256.Sum256([]byte("what was signed"))
	at      = time.Now().UTC().Truncate(time.Second) // the library signs with the time of this machine
	policy  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}
)

// newAuthority makes a timestamp certificate that is valid for an hour around at.
func newAuthority(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x80001), Subject: pkix.Name{CommonName: "timestamps", Organization: []string{"Example"}},
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signWith(key crypto.Signer) func([]byte) ([]byte, error) {
	return func(digest []byte) ([]byte, error) { return key.Sign(rand.Reader, digest, crypto.SHA256) }
}

func create(t testing.TB, r Request, cert *x509.Certificate, key crypto.Signer) []byte {
	t.Helper()
	response, err := Create(r, cert, signWith(key))
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// Another implementation reads what we make, and finds the same members in it
// that it would have made itself.
func TestCreateIsAsTheLibraryMakesIt(t *testing.T) {
	key := newKey(t)
	cert := newAuthority(t, key)
	for name, r := range map[string]Request{
		"usual": {Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1},
		"nonce": {Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1, Nonce: new(big.Int).Lsh(big.NewInt(0xdead), 200)},
		"parts": {Stamp: Stamp{imprint, at.Add(999 * time.Millisecond).In(time.FixedZone("", 3600))}, Policy: policy, Accuracy: 1},
	} {
		t.Run(name, func(t *testing.T) {
			ours, err := timestamp.ParseResponse(create(t, r, cert, key))
			if err != nil {
				t.Fatal(err)
			}
			der, err := (&timestamp.Timestamp{
				HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Time: r.Time.UTC(), Accuracy: time.Second,
				Nonce: r.Nonce, Policy: policy, AddTSACertificate: true,
			}).CreateResponseWithOpts(cert, key, crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := timestamp.ParseResponse(der)
			if err != nil {
				t.Fatal(err)
			}
			if !ours.Time.Equal(at) || !bytes.Equal(ours.HashedMessage, imprint[:]) || !ours.Policy.Equal(policy) || ours.Accuracy != time.Second ||
				(r.Nonce == nil) != (ours.Nonce == nil) || r.Nonce != nil && ours.Nonce.Cmp(r.Nonce) != 0 {
				t.Errorf("the library reads %+v", ours)
			}
			// All but the serial number, the signature and what depends on them is
			// the same, byte for byte.
			a, b := members(t, ours), members(t, theirs)
			for what := range b {
				if !bytes.Equal(a[what], b[what]) {
					t.Errorf("%s\n got %x\nwant %x", what, a[what], b[what])
				}
			}
		})
	}
}

// members are the parts of a token that do not depend on chance.
func members(t *testing.T, ts *timestamp.Timestamp) map[string][]byte {
	t.Helper()
	p7, err := pkcs7.Parse(ts.RawToken)
	if err != nil {
		t.Fatal(err)
	}
	var info []asn1.RawValue
	if _, err := asn1.Unmarshal(p7.Content, &info); err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	for i, v := range info {
		if v.Tag != asn1.TagInteger || len(v.Bytes) < 19 { // not the serial number, and no nonce as large
			m["TSTInfo "+string(rune('0'+i))] = v.FullBytes
		}
	}
	s := p7.Signers[0]
	m["issuer"] = s.IssuerAndSerialNumber.IssuerName.FullBytes
	m["serial"] = s.IssuerAndSerialNumber.SerialNumber.Bytes()
	m["digest algorithm"] = marshal(t, s.DigestAlgorithm)
	m["signature algorithm"] = marshal(t, s.DigestEncryptionAlgorithm)
	m["version"] = marshal(t, s.Version)
	for _, a := range s.AuthenticatedAttributes {
		if !a.Type.Equal(oidMessageDigest) && !a.Type.Equal(oidSigningTime) {
			m["attribute "+a.Type.String()] = a.Value.FullBytes
		}
	}
	return m
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Serial numbers and nonces of every length, and what cannot be said.
func TestCreateNumbers(t *testing.T) {
	key := newKey(t)
	cert := newAuthority(t, key)
	for _, bits := range []uint{0, 1, 7, 8, 9, 15, 16, 63, 64, 127, 128, 255, 256} {
		for _, n := range []*big.Int{new(big.Int).Lsh(big.NewInt(1), bits), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits), big.NewInt(1))} {
			ts, err := timestamp.ParseResponse(create(t, Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1, Nonce: n}, cert, key))
			if err != nil || ts.Nonce.Cmp(n) != 0 {
				t.Errorf("nonce %d: %v, %v", n, ts, err)
			}
			if der, err := asn1.Marshal(n); err != nil || !bytes.Equal(der, bigInteger(n)) {
				t.Errorf("%d is encoded as %x", n, bigInteger(n))
			}
		}
	}
	for length := range 70_000 {
		if length > 300 && length%997 > 2 && length < 65_530 {
			continue
		}
		b := make([]byte, length)
		if der, err := asn1.Marshal(b); err != nil || !bytes.Equal(der, element(4, b)) {
			t.Fatalf("an octet string of %d bytes is encoded otherwise", length)
		}
	}
	for name, change := range map[string]func(*Request){
		"a nonce below zero": func(r *Request) { r.Nonce = big.NewInt(-1) },
		"no accuracy":        func(r *Request) { r.Accuracy = 0 },
		"the year 2050":      func(r *Request) { r.Time = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC) },
		"the year 1949":      func(r *Request) { r.Time = time.Date(1949, 12, 31, 0, 0, 0, 0, time.UTC) },
		"no policy":          func(r *Request) { r.Policy = nil },
	} {
		r := Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1}
		change(&r)
		if _, err := Create(r, cert, signWith(key)); err == nil {
			t.Errorf("%s: stamped", name)
		}
	}
	broken := errors.New("no key")
	if _, err := Create(Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1}, cert, func([]byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("without a signature: %v", err)
	}
}

func TestParse(t *testing.T) {
	key := newKey(t)
	cert := newAuthority(t, key)
	for _, nonce := range []*big.Int{nil, big.NewInt(7)} {
		response := create(t, Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1, Nonce: nonce}, cert, key)
		var p Parser
		for range 2 { // the second time the certificate is known
			if stamp, err := p.Parse(response); err != nil || stamp != (Stamp{imprint, at}) {
				t.Errorf("Parse = %+v, %v", stamp, err)
			}
		}
		if p.cert.Load() == nil {
			t.Error("the certificate is not known")
		}
		if stamp, err := quick(response, cert); err != nil || stamp != (Stamp{imprint, at}) {
			t.Errorf("the quick way: %+v, %v", stamp, err)
		}
	}
}

// quick is Parse when the certificate is known, or an error.
func quick(response []byte, cert *x509.Certificate) (Stamp, error) {
	s, ok := split(response)
	if !ok || !bytes.Equal(s.cert, cert.Raw) {
		return Stamp{}, errShape
	}
	return s.verify(cert)
}

// An authority of another make is read by the library.
func TestParseOtherShapes(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ts := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Time: at, Policy: policy, AddTSACertificate: true}
	cert := newAuthority(t, key)
	response, err := ts.CreateResponseWithOpts(cert, key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quick(response, cert); !errors.Is(err, errShape) {
		t.Errorf("the quick way: %v, want errShape", err)
	}
	var p Parser
	if stamp, err := p.Parse(response); err != nil || stamp != (Stamp{imprint, at}) {
		t.Errorf("Parse = %+v, %v", stamp, err)
	}
	ts.HashAlgorithm, ts.HashedMessage = crypto.SHA512, make([]byte, 64)
	if response, err = ts.CreateResponseWithOpts(cert, key, crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(response); err == nil {
		t.Error("SHA-512 was accepted")
	}
}

func TestParseRefuses(t *testing.T) {
	key, other := newKey(t), newKey(t)
	cert := newAuthority(t, key)
	good := Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1}
	bare := good
	bare.Bare = true
	late := good
	late.Time = at.Add(2 * time.Hour)
	for name, response := range map[string][]byte{
		"nothing":                       nil,
		"another key":                   create(t, good, cert, other),
		"no certificate":                create(t, bare, cert, key),
		"outside the certificate":       create(t, late, cert, key),
		"trailing data":                 append(create(t, good, cert, key), 0),
		"cut short":                     create(t, good, cert, key)[:200],
		"a certificate of another name": bytes.Replace(create(t, good, cert, key), []byte("timestamps"), []byte("timestamqs"), 1),
	} {
		var p Parser
		for range 2 { // unknown, and known
			if stamp, err := p.Parse(response); err == nil {
				t.Errorf("%s: accepted: %+v", name, stamp)
			}
			p.cert.Store(cert)
		}
	}
}

// Whatever bit is wrong, what we still accept the library accepts too, and both
// read the same.
func TestParseAcceptsNoMoreThanTheLibrary(t *testing.T) {
	key := newKey(t)
	cert := newAuthority(t, key)
	response := create(t, Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1, Nonce: big.NewInt(9)}, cert, key)
	for i := range response {
		for bit := range 8 {
			mutated := bytes.Clone(response)
			mutated[i] ^= 1 << bit
			compare(t, mutated, cert)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := newKey(f)
	cert := newAuthority(f, key)
	r := Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1}
	f.Add(create(f, r, cert, key))
	r.Nonce = big.NewInt(7)
	f.Add(create(f, r, cert, key))
	r.Bare = true
	f.Add(create(f, r, cert, key))
	f.Fuzz(func(t *testing.T, response []byte) { compare(t, response, cert) })
}

func compare(t *testing.T, response []byte, cert *x509.Certificate) {
	t.Helper()
	stamp, err := quick(response, cert)
	if err != nil {
		return
	}
	theirs, err := timestamp.ParseResponse(response)
	switch {
	case err != nil:
		t.Errorf("we accept what the library refuses: %v: %x", err, response)
	case !theirs.Time.Equal(stamp.Time) || !bytes.Equal(theirs.HashedMessage, stamp.Imprint[:]) || theirs.HashAlgorithm != crypto.SHA256:
		t.Errorf("we read %+v, the library %+v: %x", stamp, theirs, response)
	}
}

// The ratio of one timestamp's making and checking to the library's.
func BenchmarkStamp(b *testing.B) {
	key := newKey(b)
	cert := newAuthority(b, key)
	der := make([]byte, 0, 72)
	der, _ = ecdsa.SignASN1(rand.Reader, key, imprint[:])
	null := func([]byte) ([]byte, error) { return der, nil }
	b.Run("Create", func(b *testing.B) {
		for b.Loop() {
			Create(Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1}, cert, null)
		}
	})
	response := create(b, Request{Stamp: Stamp{imprint, at}, Policy: policy, Accuracy: 1}, cert, key)
	b.Run("Parse", func(b *testing.B) {
		for b.Loop() {
			if _, err := quick(response, cert); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			if _, err := timestamp.ParseResponse(response); err != nil {
				b.Fatal(err)
			}
		}
	})
}
