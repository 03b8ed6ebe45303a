// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"provost/attest"
)

// Bounds of Init: how often it starts over because another one runs, and how
// many versions of a key it makes to find one that nobody certified.
const (
	initAttempts    = 5
	maxVersionsMade = 20
)

// Init is the first start. It creates the keys of the backend, which must be a
// [Rotator]; makes the offline root in memory, which signs the certificates of
// two issuing CAs for each signer (the second is the reserve, for when
// something is taken back from the first), of the timestamp authority and of
// the logs; gives the root's private key
// (PKCS #8, PEM) away to keep; and issues a first leaf for every signer.
// Nothing here ever needs the root key again.
//
// It may be run again at any time, and by several at once: what is there
// stays, what is missing is made. The archived root certificate is what
// commits a hierarchy. If Init ends before it, whatever the reason, the next
// one makes another root, and the key that keep was given before is of no use;
// keep is told whose key it is.
//
// Without a pinned root in the configuration it believes the archive's, or
// makes one; [Root] then tells what to pin. With one it makes no other, and
// refuses an archive that has another or none.
func Init(ctx context.Context, config Config, keep func(root *x509.Certificate, key []byte) error) error {
	if err := config.complete(); err != nil {
		return err
	}
	if config.Organization == "" || len(config.Organization) > 36 { // X.520 bounds the CN made of it to 64
		return fmt.Errorf("%w: organization %.80q: want 1 to 36 bytes", attest.ErrInvalid, config.Organization)
	}
	rotator, ok := config.Backend.(Rotator)
	if !ok {
		return fmt.Errorf("%w: this key backend cannot create keys", ErrBackendDenied)
	}
	pinned := !config.Root.IsZero()
	if pinned { // before anything is made for a service that is not this one
		_, err := readArchive(ctx, config)
		if errors.Is(err, attest.ErrNotFound) {
			return fmt.Errorf("a root is pinned, and init would make another: %w", err)
		}
		if err != nil {
			return err
		}
	}
	for _, name := range allKeys() {
		if err := rotator.Create(ctx, name); err != nil {
			return fmt.Errorf("create key %s: %w", name, err)
		}
	}
	if pinned {
		return firstLeaves(ctx, config)
	}
	for range initAttempts {
		certs, err := parseArchive(ctx, config.Archive)
		if err != nil {
			return err
		}
		if len(certs[keyRoot]) > 0 {
			config.Root = attest.SHA256(certs[keyRoot][0].cert.Raw) // Open refuses a second one
			return firstLeaves(ctx, config)
		}
		if err := newHierarchy(ctx, config, certs, keep); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: others are initialising the same archive all the time", attest.ErrConflict)
}

// firstLeaves has every signer adopt its newest version.
func firstLeaves(ctx context.Context, config Config) error {
	if config.Log != nil {
		if err := createLogs(ctx, config); err != nil {
			return err
		}
	}
	a, err := Open(ctx, config)
	if err != nil {
		return err
	}
	defer a.Close()
	for _, p := range attest.Powers {
		s := a.signers[p]
		if err := s.lock(ctx); err != nil {
			return err
		}
		err := s.adopt(ctx)
		s.unlock()
		if err != nil {
			return fmt.Errorf("first leaf of signer %s: %w", p, err)
		}
	}
	return nil
}

// newHierarchy makes a root and what it signs, and archives them, the root
// last. It returns nil also when another process's hierarchy got in between:
// the caller looks at the archive again.
func newHierarchy(ctx context.Context, config Config, certs map[string][]certified, keep func(*x509.Certificate, []byte) error) error {
	now := config.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root, err := newRoot(config.Organization, key, now)
	if err != nil {
		return err
	}
	var certificates []attest.Certificate
	for _, name := range authorityKeys() {
		versions, err := uncertified(ctx, config.Backend, name, certs[name], epochs(name))
		if err != nil {
			return fmt.Errorf("key %s: %w", name, err)
		}
		for _, v := range versions {
			cert, err := root.certify(name, v, now, config.Log)
			if err != nil {
				return fmt.Errorf("certify key %s: %w", name, err)
			}
			if cert != nil {
				certificates = append(certificates, attest.Certificate{Name: name, Version: v.Number, DER: cert.Raw})
			}
		}
	}
	certificates = append(certificates, attest.Certificate{Name: keyRoot, Version: 1, DER: root.cert.Raw})

	// Given away before it is committed: a root whose key is nowhere could
	// never certify again.
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := keep(root.cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return fmt.Errorf("give the root key away: %w", err)
	}
	for _, c := range certificates {
		stored, err := config.Archive.AppendCertificate(ctx, c)
		if err != nil {
			return fmt.Errorf("archive certificate %s: %w", c.Name, err)
		}
		if string(stored.DER) != string(c.DER) { // another process is at it: do not commit a root that lacks this
			return nil
		}
	}
	return nil
}

// epochs is how many versions of an authority's key Init certifies.
func epochs(key string) int {
	switch key {
	case keyTimestamp, keyLog, keyCTLog:
		return 1
	default:
		return 2
	}
}

// certify makes the certificate of an authority's key; nil for a log that the
// configuration does not have.
func (root issuer) certify(key string, v Version, from time.Time, log *LogConfig) (*x509.Certificate, error) {
	switch {
	case key == keyTimestamp:
		return root.newTimestamp(v.Public, from)
	case key != keyLog && key != keyCTLog:
		return root.newIssuing(strings.TrimPrefix(key, keyIssuing("")), v.Number, v.Public, from)
	case log == nil:
		return nil, nil
	default:
		return root.newLog(log.host(), v.Public, from)
	}
}

// uncertified returns the newest n versions of the key, none of which an
// archived certificate names. One that is named was certified by a root that
// was never committed, and the archive never changes what it has.
func uncertified(ctx context.Context, backend Backend, key string, certs []certified, n int) ([]Version, error) {
	for range maxVersionsMade {
		versions, err := backend.Versions(ctx, key)
		if err != nil {
			return nil, err
		}
		var free []Version
		for _, v := range versions {
			if len(certs) == 0 || v.Number > certs[len(certs)-1].version {
				free = append(free, v)
			}
		}
		if len(free) >= n {
			return free[len(free)-n:], nil
		}
		if err := backend.(Rotator).Rotate(ctx, key); err != nil {
			return nil, fmt.Errorf("make another version, after %d: %w", versions[len(versions)-1].Number, err)
		}
	}
	return nil, fmt.Errorf("%w: made %d versions and all are certified: is this the right key backend?", attest.ErrConflict, maxVersionsMade)
}

// KeepRootIn returns a function for [Init] that writes the root key to the
// directory, which must exist, encrypted to an age recipient (age1…). The file
// is named root-<first 16 hex digits of the certificate's SHA-256>.age, is
// never replaced, and is durable before Init goes on. Take it away.
func KeepRootIn(dir, recipient string) (func(root *x509.Certificate, key []byte) error, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("%w: age recipient: want age1…: %w", attest.ErrInvalid, err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%w: root key directory %s: want a directory that exists", attest.ErrInvalid, dir)
	}
	return func(root *x509.Certificate, key []byte) error {
		sealed, err := seal(key, to)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(root.Raw)
		return writeOnce(filepath.Join(dir, "root-"+hex.EncodeToString(sum[:8])+".age"), sealed)
	}, nil
}
