// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/vault/api"

	"provost/attest"
)

// A VaultConfig says how to reach HashiCorp Vault (or OpenBao, which speaks
// the same API) and as whom. Nothing is taken from the environment.
type VaultConfig struct {
	Address    string // such as https://vault.example.com:8200; plain http only on loopback
	CACertFile string // PEM of the CAs that may speak for Address; "" for the system's
	Mount      string // of the transit engine; "" for "transit"
	KeyPrefix  string // before each key's name in Vault; "" for "provost-"

	// Exactly one of these is who we are.
	Token     Secret   // for short runs: what expires cannot be replaced
	TokenFile string   // read again when the token in it is refused, as an agent writes it
	AppRole   *AppRole // the daemon's way, with a token_period
	JWT       *JWT     // such as a Kubernetes service account token

	// Deadline bounds one operation, all attempts together, whose context
	// has no deadline of its own; 0 for 20 s, which outlives a failover.
	Deadline time.Duration
	// Observe is told of every operation when it ends: op is one of login,
	// renew, sign, read, create, rotate, retire and audit. Signatures that are
	// made together are one operation. A login that becomes necessary within
	// another operation is part of that one. It may be nil.
	Observe func(op string, took time.Duration, err error)
}

// AppRole logs in at an approle auth method.
type AppRole struct {
	Mount        string // "" for "approle"
	RoleID       string // not a secret by itself
	SecretIDFile string // read at every login
}

// JWT logs in at a jwt auth method.
type JWT struct {
	Mount     string // "" for "jwt"
	Role      string
	TokenFile string // read at every login
}

// A Secret is a string that is not printed or encoded by accident.
type Secret string

func (Secret) String() string   { return "[secret]" }
func (Secret) GoString() string { return "[secret]" }

// MarshalText never writes the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// A Vault is a [Backend], [Rotator] and [Retirer] on Vault's transit engine.
// Which of these it can really be is up to the policies of its token. See
// vault_sign.go for how it signs, vault_call.go for what it does when Vault
// fails.
type Vault struct {
	config  VaultConfig
	client  *api.Client
	session session
	down    downFlag
	queues  queues
	runs    atomic.Int64 // batches so far: part of each item's reference
	// retiring makes what Retire reads and what it then writes one step, in
	// this process.
	retiring sync.Mutex
}

// OpenVault connects and logs in, so that a mistake is found at start. An
// error that may pass wraps [attest.ErrUnavailable]; a refused login is an
// [ErrBackendDenied]. The caller must call Close.
func OpenVault(ctx context.Context, config VaultConfig) (*Vault, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	client, err := newVaultClient(config)
	if err != nil {
		return nil, err
	}
	v := &Vault{config: config, client: client}
	v.session.init()
	if err := v.login(ctx, 0); err != nil {
		return nil, err
	}
	go v.keepSession()
	return v, nil
}

// Close stops what runs in the background. It revokes nothing: the token ends
// with its lease.
func (v *Vault) Close() error {
	v.session.close()
	return nil
}

// keyDocument is what Vault says of a key.
type keyDocument struct {
	Type                 string `json:"type"`
	LatestVersion        int    `json:"latest_version"`
	MinEncryptionVersion int    `json:"min_encryption_version"` // below it nothing is signed; 0: not set
	MinDecryptionVersion int    `json:"min_decryption_version"` // likewise, and old public keys are hidden
	Exportable           bool   `json:"exportable"`
	AllowPlaintextBackup bool   `json:"allow_plaintext_backup"`
	DeletionAllowed      bool   `json:"deletion_allowed"`
	Derived              bool   `json:"derived"`
	Imported             bool   `json:"imported_key"`
	BackupInfo           any    `json:"backup_info"`
	// Keys are the versions; another kind of JSON for another type of key.
	Keys map[string]jsontext.Value `json:"keys"`
}

// Versions implements [Backend]. It refuses a key that was imported, can be
// exported, backed up in the clear or deleted, or was backed up.
func (v *Vault) Versions(ctx context.Context, key string) ([]Version, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	doc, err := v.read(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := doc.checkFit(); err != nil {
		return nil, fmt.Errorf("key %s: %w", key, err)
	}
	versions, err := doc.versions()
	if err != nil { // closed: an answer that makes no sense names no key
		return nil, fmt.Errorf("key %s: %w: %w", key, attest.ErrSelfCheck, err)
	}
	return versions, nil
}

func (v *Vault) read(ctx context.Context, key string) (*keyDocument, error) {
	var doc keyDocument
	if err := v.call(ctx, request{op: "read", path: v.path("keys", key), answer: &doc}); err != nil {
		return nil, fmt.Errorf("read key %s: %w", key, err)
	}
	return &doc, nil
}

func (d *keyDocument) checkFit() error {
	for _, flaw := range []struct {
		found bool
		what  string
	}{
		{d.Type != "ecdsa-p256", fmt.Sprintf("its type is %.40q, want ecdsa-p256", d.Type)},
		{d.Exportable, "it is exportable"},
		{d.AllowPlaintextBackup, "it allows plaintext backups"},
		{d.DeletionAllowed, "it may be deleted: set deletion_allowed=false"},
		{d.Derived, "it is a derivation key"},
		{d.Imported, "it was imported: it existed outside of Vault"},
		{d.BackupInfo != nil, "a backup of it was taken"},
	} {
		if flaw.found {
			return fmt.Errorf("%w: %s", ErrDegraded, flaw.what)
		}
	}
	return nil
}

func (d *keyDocument) versions() ([]Version, error) {
	byNumber := make(map[int]Version, len(d.Keys))
	for name, document := range d.Keys {
		var k struct {
			PublicKey    string    `json:"public_key"`
			CreationTime time.Time `json:"creation_time"`
		}
		if err := attest.DecodeOpenJSON(document, &k); err != nil {
			return nil, fmt.Errorf("version %.20q: %v", name, err)
		}
		number, err := strconv.Atoi(name)
		if err != nil || number < 1 || number > d.LatestVersion {
			return nil, fmt.Errorf("version %.20q of %d", name, d.LatestVersion)
		}
		block, rest := pem.Decode([]byte(k.PublicKey))
		if block == nil || len(strings.TrimSpace(string(rest))) > 0 {
			return nil, fmt.Errorf("version %d: public key is not one PEM block", number)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := parsed.(*ecdsa.PublicKey)
		if err != nil || !ok || public.Curve != elliptic.P256() {
			return nil, fmt.Errorf("version %d: public key is not ECDSA P-256", number)
		}
		byNumber[number] = Version{number, public, k.CreationTime.UTC()}
	}
	if _, ok := byNumber[d.LatestVersion]; !ok {
		return nil, fmt.Errorf("version %d, the latest, is missing", d.LatestVersion)
	}
	versions := make([]Version, 0, len(byNumber))
	for _, number := range slices.Sorted(maps.Keys(byNumber)) {
		versions = append(versions, byNumber[number])
	}
	return versions, nil
}

// Create implements [Rotator]. Vault answers a create of an existing key with
// success whatever the key is, so what is there is looked at before and after.
func (v *Vault) Create(ctx context.Context, key string) error {
	if _, err := v.Versions(ctx, key); !errors.Is(err, attest.ErrNotFound) {
		return err // exists and is fit, or cannot be told, or is not fit
	}
	err := v.call(ctx, request{op: "create", path: v.path("keys", key), body: map[string]any{"type": "ecdsa-p256"}})
	if err != nil {
		return fmt.Errorf("create key %s: %w", key, err)
	}
	_, err = v.Versions(ctx, key)
	return err
}

// Rotate implements [Rotator].
func (v *Vault) Rotate(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := v.call(ctx, request{op: "rotate", path: v.path("keys", key, "rotate"), body: map[string]any{}}); err != nil {
		return fmt.Errorf("rotate key %s: %w", key, err)
	}
	return nil
}

// retireAttempts is how often Retire looks whether what it wrote stands.
const retireAttempts = 3

// Retire implements [Retirer] by min_encryption_version, the one setting of a
// key that the policies let us change.
//
// BUG(provost): Vault has no compare-and-set. Of two processes that retire up
// to different versions at the same moment, the one that wrote first sees the
// lower number and writes its own again, unless it looked before the other one
// wrote. Then the lower number stands until the next Retire.
func (v *Vault) Retire(ctx context.Context, key string, first int) error {
	if err := checkKey(key); err != nil {
		return err
	}
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	v.retiring.Lock()
	defer v.retiring.Unlock()
	for range retireAttempts {
		doc, err := v.read(ctx, key)
		if err != nil {
			return err
		}
		if first < 1 || first > doc.LatestVersion { // closed: above the latest nothing would sign
			return fmt.Errorf("%w: retire %s below version %d of %d", ErrVersion, key, first, doc.LatestVersion)
		}
		if first == 1 || doc.MinEncryptionVersion >= first {
			return nil
		}
		// Vault wants it no lower than min_decryption_version, below which
		// nothing signs either.
		err = v.call(ctx, request{op: "retire", path: v.path("keys", key, "config"),
			body: map[string]any{"min_encryption_version": max(first, doc.MinDecryptionVersion)}})
		if err != nil {
			return fmt.Errorf("retire %s below version %d: %w", key, first, err)
		}
	}
	return fmt.Errorf("%w: retire %s below version %d: somebody lowers it again", attest.ErrConflict, key, first)
}

// path is a path under the transit mount: an operation, a key, more.
func (v *Vault) path(operation, key string, more ...string) string {
	return strings.Join(append([]string{v.config.Mount, operation, v.config.KeyPrefix + key}, more...), "/")
}
