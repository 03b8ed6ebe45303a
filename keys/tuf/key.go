// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"provost/attest"
)

const (
	privateType = "PRIVATE KEY"
	publicType  = "PUBLIC KEY"
	maxKeyFile  = 16 << 10
)

// GenerateKey makes an offline key: its private part as PEM (PKCS #8), or with
// a recipient (age1…) that PEM encrypted to it, and its public part as PEM.
func GenerateKey(recipient string) (private, public []byte, err error) {
	var to age.Recipient
	if recipient != "" {
		if to, err = age.ParseX25519Recipient(recipient); err != nil {
			return nil, nil, fmt.Errorf("%w: age recipient: want age1…: %w", attest.ErrInvalid, err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if public, err = PublicPEM(&key.PublicKey); err != nil {
		return nil, nil, err
	}
	private = pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der})
	if to == nil {
		return private, public, nil
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := w.Write(private); err != nil {
		return nil, nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, nil, fmt.Errorf("encrypt: %w", err)
	}
	return sealed.Bytes(), public, nil
}

// sealedHeader begins every file of age.
const sealedHeader = "age-encryption.org/v1\n"

// Sealed reports whether a key file is encrypted with age.
func Sealed(file []byte) bool { return bytes.HasPrefix(file, []byte(sealedHeader)) }

// OpenKey reads an offline key as GenerateKey wrote it. The identities are the
// text of an age identity file; they are needed if the key is [Sealed]. No
// error quotes a key.
func OpenKey(file []byte, identities string) (crypto.Signer, error) {
	if Sealed(file) {
		ids, err := age.ParseIdentities(bytes.NewReader([]byte(identities)))
		if err != nil {
			return nil, fmt.Errorf("%w: age identity: want a file with AGE-SECRET-KEY-1…", attest.ErrInvalid)
		}
		r, err := age.Decrypt(bytes.NewReader(file), ids...)
		if err != nil {
			return nil, fmt.Errorf("%w: key file: not encrypted to this age identity, or damaged", attest.ErrInvalid)
		}
		if file, err = io.ReadAll(io.LimitReader(r, maxKeyFile)); err != nil {
			return nil, fmt.Errorf("%w: key file: damaged", attest.ErrInvalid)
		}
	}
	block, rest := pem.Decode(file)
	if block == nil || block.Type != privateType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: key file: want one %s, PEM, or that encrypted with age", attest.ErrInvalid, privateType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: key file: want ECDSA P-256", attest.ErrInvalid)
	}
	return key, nil
}

// PublicPEM writes a public key as PEM.
func PublicPEM(key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %w", attest.ErrInvalid, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der}), nil
}

// ParsePublic reads a public key, PEM, which must be ECDSA P-256.
func ParsePublic(file []byte) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode(file)
	if block == nil || block.Type != publicType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: public key file: want one %s, PEM", attest.ErrInvalid, publicType)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: public key file: want ECDSA P-256", attest.ErrInvalid)
	}
	return key, nil
}

// KeyID is the name of a key in TUF metadata: 64 hex digits.
func KeyID(key crypto.PublicKey) (string, error) {
	_, id, err := tufKey(key)
	return id, err
}

func tufKey(public crypto.PublicKey) (*metadata.Key, string, error) {
	p, ok := public.(*ecdsa.PublicKey)
	if !ok || p.Curve != elliptic.P256() {
		return nil, "", fmt.Errorf("%w: key of type %T: want ECDSA P-256", attest.ErrInvalid, public)
	}
	key, err := metadata.KeyFromPublicKey(p)
	if err != nil {
		return nil, "", fmt.Errorf("%w: public key: %w", attest.ErrInvalid, err)
	}
	id, err := key.ID()
	return key, id, err
}

// shortID is how much of a key's ID people are shown.
func shortID(id string) string {
	if len(id) > 16 {
		return id[:16]
	}
	return id
}

// addSignature signs what meta says now and adds the signature, in place of
// an earlier one of the same key.
func addSignature[T metadata.Roles](ctx context.Context, meta *metadata.Metadata[T], key crypto.Signer) error {
	_, id, err := tufKey(key.Public())
	if err != nil {
		return err
	}
	digest, err := signedDigest(meta)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", attest.ErrUnavailable, err)
	}
	sig, err := key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign with key %s: %w", shortID(id), err)
	}
	// What does not verify never stands in metadata: a backend may have signed
	// with another key than it said.
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest, sig) {
		return fmt.Errorf("sign with key %s: the signature does not verify", shortID(id))
	}
	kept := []metadata.Signature{}
	for _, s := range meta.Signatures {
		if s.KeyID != id {
			kept = append(kept, s)
		}
	}
	meta.Signatures = append(kept, metadata.Signature{KeyID: id, Signature: sig})
	return nil
}

// signedDigest is the SHA-256 of what the signatures of meta are over.
func signedDigest[T metadata.Roles](meta *metadata.Metadata[T]) ([]byte, error) {
	payload, err := cjson.EncodeCanonical(meta.Signed)
	if err != nil {
		return nil, fmt.Errorf("%w: metadata: %w", attest.ErrInvalid, err)
	}
	sum := sha256.Sum256(payload)
	return sum[:], nil
}

// signers returns the IDs of the keys among keyIDs that signed meta well.
func signers[T metadata.Roles](keys map[string]*metadata.Key, keyIDs []string, meta *metadata.Metadata[T]) ([]string, error) {
	digest, err := signedDigest(meta)
	if err != nil {
		return nil, err
	}
	var signed []string
	for _, id := range keyIDs {
		key, ok := keys[id]
		if !ok {
			continue
		}
		public, err := key.ToPublicKey()
		if err != nil {
			return nil, fmt.Errorf("%w: key %s: %w", attest.ErrInvalid, shortID(id), err)
		}
		for _, s := range meta.Signatures {
			if p, ok := public.(*ecdsa.PublicKey); ok && s.KeyID == id && ecdsa.VerifyASN1(p, digest, s.Signature) {
				signed = append(signed, id)
			}
		}
	}
	return signed, nil
}
