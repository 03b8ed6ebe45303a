// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"
)

// certify CA NAME IDENTITY: has the CA of that name, which is made if it is not
// there, certify a client, which is a SPIFFE ID or a common name. The client's
// files are NAME.crt and NAME.key, the CA's CA.pem and, as the bundle of its
// trust domain, CA.json.
func certify(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: certify CA NAME IDENTITY")
	}
	ca, caKey := scriptCA(ts, args[0])
	template := &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if strings.HasPrefix(args[2], "spiffe://") {
		id, err := url.Parse(args[2])
		ts.Check(err)
		template.URIs = []*url.URL{id}
	} else {
		template.Subject = pkix.Name{CommonName: args[2]}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	writePair(ts, args[1]+".crt", args[1]+".key", issue(ts, template, ca, key, caKey), key)
}

func scriptCA(ts *testscript.TestScript, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	if pair, err := tls.LoadX509KeyPair(ts.MkAbs(name+".pem"), ts.MkAbs(name+".key")); err == nil {
		return pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	made := issue(ts, template, template, key, key)
	writePair(ts, name+".pem", name+".key", made, key)
	bundle, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), Certificates: []*x509.Certificate{made}, Use: "x509-svid"}}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name+".json"), bundle, 0o644))
	return made, key
}

func issue(ts *testscript.TestScript, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	ts.Check(err)
	made, err := x509.ParseCertificate(der)
	ts.Check(err)
	return made
}

func writePair(ts *testscript.TestScript, certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// http2 URL CA CLIENT: the service at the URL speaks HTTP/2 with a client that
// has a certificate.
func http2(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: http2 URL CA CLIENT")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[1])))
	pair, err := tls.LoadX509KeyPair(ts.MkAbs(filepath.Clean(args[2]+".crt")), ts.MkAbs(args[2]+".key"))
	ts.Check(err)
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(args[0] + "/v1/keys")
	ts.Check(err)
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s %s", args[0], resp.Proto, resp.Status)
	}
}
