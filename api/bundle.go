// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"provost/api/identity"
	"provost/attest"
)

// How soon a bundle is read again. What its publisher hints at is held between
// the first two; the third is for a bundle without a hint.
const (
	bundleSoonest = refetchEvery
	bundleLatest  = keysFresh
	bundleDefault = 5 * time.Minute
	fileFresh     = refetchEvery // of a file, which costs nothing to read
)

// maxRoots bounds the certificates of one bundle.
const maxRoots = 256

// keySetOf is where an issuer's keys come from: discovery, a trust domain's
// bundle, or a file of certificates. Nothing is read yet.
func keySetOf(i Issuer, client *http.Client, now func() time.Time) *keySet {
	s := &keySet{now: now}
	switch {
	case i.CAFile != "":
		s.fetch = func(context.Context) (authorities, error) {
			raw, err := readFile(i.CAFile)
			if err != nil {
				return authorities{}, err
			}
			roots, err := parseCertificates(raw)
			return authorities{roots: roots, fresh: fileFresh}, err
		}
	case i.BundleFile != "":
		s.fetch = func(context.Context) (authorities, error) {
			raw, err := readFile(i.BundleFile)
			if err != nil {
				return authorities{}, err
			}
			got, err := parseBundle(i.URL, raw)
			got.fresh = fileFresh
			return got, err
		}
	case i.BundleURL != "":
		s.fetch = func(ctx context.Context) (authorities, error) {
			raw, err := download(ctx, client, i.BundleURL)
			if err != nil {
				return authorities{}, err
			}
			return parseBundle(i.URL, raw)
		}
	default:
		s.fetch = discovery{i.URL, client}.fetch
	}
	return s
}

// readFile reads a file of at most maxKeySet bytes.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: want a regular file", name)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeySet+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxKeySet {
		return nil, &attest.LimitError{What: "bundle", Limit: maxKeySet, Unit: "bytes"}
	}
	return raw, nil
}

// parseBundle reads the bundle of a trust domain: a SPIFFE bundle, or PEM
// certificates, which are for X509-SVIDs alone. A key of it signs what its use
// says and nothing else; keys of other uses are ignored. A bundle without
// anything to believe is an error, and so is a certificate that is no CA's.
func parseBundle(domain string, raw []byte) (authorities, error) {
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")) {
		roots, err := parseCertificates(raw)
		return authorities{roots: roots, fresh: bundleDefault}, err
	}
	if err := attest.CheckJSON(raw); err != nil {
		return authorities{}, fmt.Errorf("bundle: %w", err)
	}
	td, err := spiffeid.TrustDomainFromString(domain)
	if err != nil {
		return authorities{}, err
	}
	bundle, err := spiffebundle.Parse(td, raw)
	if err != nil {
		return authorities{}, fmt.Errorf("bundle: %w", err)
	}
	got := authorities{roots: bundle.X509Authorities(), fresh: bundleDefault}
	if err := checkRoots(got.roots); err != nil {
		return authorities{}, err
	}
	for kid, key := range bundle.JWTAuthorities() {
		if usableKey(key) {
			got.keys = append(got.keys, jose.JSONWebKey{Key: key, KeyID: kid})
		}
	}
	if len(got.keys)+len(got.roots) == 0 {
		return authorities{}, errors.New("bundle: no usable key")
	}
	if hint, ok := bundle.RefreshHint(); ok {
		got.fresh = min(max(hint, bundleSoonest), bundleLatest)
	}
	return got, nil
}

// parseCertificates reads PEM certificates of CAs, at least one.
func parseCertificates(raw []byte) (roots []*x509.Certificate, err error) {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificates: a %.40q is among them", block.Type)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		roots = append(roots, root)
	}
	if len(roots) == 0 {
		return nil, errors.New("certificates: none in PEM")
	}
	return roots, checkRoots(roots)
}

// checkRoots refuses certificates of others than CAs: what stands among the
// roots is believed as it is.
func checkRoots(roots []*x509.Certificate) error {
	if len(roots) > maxRoots {
		return &attest.LimitError{What: "certificates", Limit: maxRoots, Unit: "certificates"}
	}
	for _, root := range roots {
		if !root.BasicConstraintsValid || !root.IsCA {
			return errors.New("bundle: a certificate that is no CA's")
		}
	}
	return nil
}

// validateCertified checks an issuer of the providers that have certificates:
// its name, and where its authorities are.
func (i *Issuer) validateCertified(provider identity.Provider) error {
	if i.ServerURL != "" || i.PersonClaim != "" || i.Mapping != nil {
		return errors.New("server_url, person_claim and mapping go with other providers")
	}
	if i.Provider == identity.MTLS {
		switch {
		case !mtlsName.MatchString(i.URL):
			return errors.New("url: want mtls:// and a name of 1 to 63 lower-case letters, digits and '-'")
		case i.CAFile == "" || i.BundleFile != "" || i.BundleURL != "":
			return errors.New("want ca_file, and no bundle")
		case i.Audience != "" || len(i.Algorithms) > 0 || i.MaxAge != 0:
			return errors.New("audience, algorithms and max_age are of tokens: provider mtls has none")
		}
		return nil
	}
	td, err := spiffeid.TrustDomainFromString(i.URL)
	if err != nil || i.URL != td.IDString() { // what would not compare byte for byte
		return fmt.Errorf("url: want spiffe:// and the name of a trust domain, such as spiffe://acme.example")
	}
	if i.CAFile != "" || (i.BundleFile == "") == (i.BundleURL == "") {
		return errors.New("want exactly one of bundle_file and bundle_url")
	}
	if i.BundleURL != "" {
		if err := checkURL(i.BundleURL); err != nil {
			return fmt.Errorf("bundle_url: %w", err)
		}
	}
	if i.Audience == "" && len(i.Algorithms) == 0 && i.MaxAge == 0 {
		return nil // certificates alone: no algorithm, no token
	}
	return i.validateTokens(provider)
}
