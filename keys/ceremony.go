// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"time"

	"provost/attest"
)

// Life of a later authority, such as the next epoch of an issuing CA:
//
//	Request   on the service   a key version is made, and described in a file
//	Certify   where the offline root is, with no network
//	Import    on the service   the certificate is archived, and so in the trusted root
//	          …the new trusted root is published, and the lead passes
//	          the service uses it

// An AuthorityRequest asks the offline root to certify a key version.
type AuthorityRequest struct {
	Name      string    `json:"name"` // of the key: timestamp, log or issuing-SIGNER
	Version   int       `json:"version"`
	PublicKey []byte    `json:"publicKey"`      // SPKI, DER
	Host      string    `json:"host,omitempty"` // of a log
	NotBefore time.Time `json:"notBefore"`      // first use
}

// ceremonyTime is how long it may take to have a request certified and
// imported: the offline root may lie in a safe.
const ceremonyTime = 24 * time.Hour

// renewable are the authorities that can be certified later. The log of
// certificates has one key for as long as the root lasts.
func renewable() []string {
	return slices.DeleteFunc(authorityKeys(), func(name string) bool { return name == keyCTLog })
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// RequestAuthority makes a version of an authority's key that is not certified
// yet, unless there is one, and returns what to have certified. Its first use
// is the configured lead from now, and a day for the ceremony. A log needs a host, which no other shard
// has.
func RequestAuthority(ctx context.Context, config Config, name, host string) (AuthorityRequest, error) {
	var none AuthorityRequest
	if err := config.complete(); err != nil {
		return none, err
	}
	if !slices.Contains(renewable(), name) {
		return none, fmt.Errorf("%w: authority %.80q: want one of %q", attest.ErrInvalid, name, renewable())
	}
	if isLog := name == keyLog; isLog != hostName.MatchString(host) {
		return none, fmt.Errorf("%w: host %.80q: a log needs one, lower-case, and nothing else has one", attest.ErrInvalid, host)
	}
	archived, err := readArchive(ctx, config)
	if err != nil {
		return none, err
	}
	certs := archived.certs[name]
	if name == keyLog && slices.ContainsFunc(certs, func(c certified) bool { return c.cert.DNSNames[0] == host }) {
		return none, fmt.Errorf("%w: there is a shard for %s already: every shard has a host of its own", attest.ErrConflict, host)
	}
	if _, ok := config.Backend.(Rotator); !ok {
		return none, fmt.Errorf("%w: this key backend cannot make key versions", ErrBackendDenied)
	}
	versions, err := uncertified(ctx, config.Backend, name, certs, 1)
	if err != nil {
		return none, err
	}
	der, err := x509.MarshalPKIXPublicKey(versions[0].Public)
	if err != nil {
		return none, err
	}
	return AuthorityRequest{name, versions[0].Number, der, host, config.Now().Add(config.Lead + ceremonyTime).UTC().Truncate(time.Second)}, nil
}

// CertifyAuthority has the offline root certify a request. rootKey is the file
// that [KeepRootIn] wrote, identity the age identity (AGE-SECRET-KEY-1…) it is
// encrypted to. It needs no backend, no archive and no network.
func CertifyAuthority(r AuthorityRequest, root *x509.Certificate, rootKey []byte, identity string) (attest.Certificate, error) {
	var none attest.Certificate
	parsed, err := x509.ParsePKIXPublicKey(r.PublicKey)
	public, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || r.Version < 1 || !slices.Contains(authorityKeys(), r.Name) || r.NotBefore.IsZero() {
		return none, fmt.Errorf("%w: request: want a name, a version, a P-256 key and a time", attest.ErrInvalid)
	}
	key, err := openRootKey(rootKey, identity)
	if err != nil {
		return none, err
	}
	if !key.PublicKey.Equal(root.PublicKey) {
		return none, fmt.Errorf("%w: the key is not that of the root certificate", attest.ErrInvalid)
	}
	var log *LogConfig
	if r.Host != "" {
		if !hostName.MatchString(r.Host) {
			return none, fmt.Errorf("%w: request: host %.80q", attest.ErrInvalid, r.Host)
		}
		log = &LogConfig{URL: "https://" + r.Host}
	}
	cert, err := issuer{root, key}.certify(r.Name, Version{Number: r.Version, Public: public}, r.NotBefore, log)
	if err != nil {
		return none, err
	}
	if cert == nil {
		return none, fmt.Errorf("%w: request: a log needs a host", attest.ErrInvalid)
	}
	return attest.Certificate{Name: r.Name, Version: r.Version, DER: cert.Raw}, nil
}

// openRootKey decrypts what KeepRootIn wrote.
func openRootKey(sealed []byte, identity string) (*ecdsa.PrivateKey, error) {
	id, err := parseIdentity(identity)
	if err != nil {
		return nil, err
	}
	plain, err := unseal(sealed, id)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	block, _ := pem.Decode(plain)
	if block == nil {
		return nil, fmt.Errorf("%w: root key: no PEM in it", attest.ErrInvalid)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok { // without the parser's words, which might quote the key
		return nil, fmt.Errorf("%w: root key: want an ECDSA key, PKCS #8", attest.ErrInvalid)
	}
	return key, nil
}

// ImportAuthority archives a certificate that the offline root made. It is
// refused unless the pinned root signed it, it is made for what its key is for,
// its key is the backend's of that version, and it begins no earlier than the
// lead from now: a verifier that has the trusted root of yesterday must not
// meet it.
func ImportAuthority(ctx context.Context, config Config, c attest.Certificate) error {
	if err := config.complete(); err != nil {
		return err
	}
	if !slices.Contains(renewable(), c.Name) {
		return fmt.Errorf("%w: authority %.80q: want one of %q", attest.ErrInvalid, c.Name, renewable())
	}
	archived, err := readArchive(ctx, config)
	if err != nil {
		return err
	}
	cert, err := parseCertified(c)
	if err != nil {
		return fmt.Errorf("%w: %w", attest.ErrInvalid, err)
	}
	switch {
	case !issuedBy(cert.cert, archived.root.cert) || !fitness(c.Name)(cert.cert):
		return fmt.Errorf("%w: the certificate is not one of the pinned root for key %s", attest.ErrInvalid, c.Name)
	case cert.cert.NotBefore.Before(config.Now().Add(config.Lead)):
		return fmt.Errorf("%w: the certificate begins at %s: an authority must be known for %s before it is used; request it again",
			attest.ErrInvalid, cert.cert.NotBefore.Format(time.RFC3339), config.Lead)
	}
	versions, err := config.Backend.Versions(ctx, c.Name)
	if err != nil {
		return outward(err)
	}
	if !slices.ContainsFunc(versions, func(v Version) bool { return v.Number == c.Version && v.Public.Equal(cert.public()) }) {
		return fmt.Errorf("%w: the certificate is not of key %s version %d in the key backend", attest.ErrConflict, c.Name, c.Version)
	}
	stored, err := config.Archive.AppendCertificate(ctx, c)
	if err != nil {
		return fmt.Errorf("archive certificate: %w", err)
	}
	if string(stored.DER) != string(c.DER) {
		return fmt.Errorf("%w: key %s version %d has another certificate already", attest.ErrConflict, c.Name, c.Version)
	}
	if c.Name != keyLog {
		return nil
	}
	if config.Log == nil || config.Log.host() != cert.cert.DNSNames[0] {
		return nil // its tree is made by init, once the configuration writes to it
	}
	return createLogs(ctx, config)
}
