// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"provost/attest"
)

// maxKeyFile is the largest key file read, in bytes; a real one has about 500.
const maxKeyFile = 16 << 10

// A File is a [Backend], [Rotator] and [Retirer] in a directory: the embedded
// default.
// Each key version is one file, <key>.v<version>.age, encrypted with age
// (age-encryption.org/v1). Key name and version stand inside the encryption, so
// a file that was renamed or copied over another is noticed. Files are written
// once, whole or not at all, and never again; several processes may share the
// directory. A version is retired by a second file, <key>.v<version>.retired,
// which nobody removes.
//
// Encryption protects a copied disk or backup. It does not protect from who
// can read the identity or the memory of this process: that is what Vault is
// for.
type File struct {
	dir      string
	identity *age.X25519Identity

	mu   sync.Mutex
	open map[fileKey]*openKey // decrypted versions
}

type fileKey struct {
	key     string
	version int
}

type openKey struct {
	private *ecdsa.PrivateKey
	created time.Time
}

// sealedKey is what a key file encrypts.
type sealedKey struct {
	Key     string    `json:"key"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	PKCS8   []byte    `json:"pkcs8"`
}

// OpenFile opens the directory, and makes it if it does not exist. The
// identity is an age secret key (AGE-SECRET-KEY-1…), or the content of a file
// that age-keygen wrote; new files are encrypted to its public part.
//
// It opens every key at once, so that a wrong identity or a damaged file is
// found at start and not when somebody wants a signature. It refuses a
// directory or file that group or others can access. Nothing is repaired.
func OpenFile(dir, identity string) (*File, error) {
	id, err := parseIdentity(identity)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("key directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("key directory: %w", err)
	}
	if err := checkPrivate(dir, info); err != nil {
		return nil, err
	}
	f := &File{dir: dir, identity: id, open: make(map[fileKey]*openKey)}
	files, err := f.list()
	if err != nil {
		return nil, err
	}
	for _, k := range files {
		if _, err := f.load(k); err != nil {
			return nil, err
		}
	}
	if err := removeStale(dir); err != nil {
		return nil, fmt.Errorf("key directory: %w", err)
	}
	return f, nil
}

// parseIdentity reads the one line that is not empty or a comment.
func parseIdentity(text string) (*age.X25519Identity, error) {
	var found []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%w: age identity: want one AGE-SECRET-KEY-1…, found %d", attest.ErrInvalid, len(found))
	}
	id, err := age.ParseX25519Identity(found[0])
	if err != nil { // without the words of age, which might quote the key
		return nil, fmt.Errorf("%w: age identity: want one AGE-SECRET-KEY-1…", attest.ErrInvalid)
	}
	return id, nil
}

// Sign implements [Backend].
func (f *File) Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error) {
	if err := errors.Join(checkKey(key), checkDigest(digest)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &UnavailableError{Err: err}
	}
	k, err := f.load(fileKey{key, version})
	if errors.Is(err, fs.ErrNotExist) {
		if versions, err := f.Versions(ctx, key); err != nil || len(versions) == 0 {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %s version %d", ErrVersion, key, version)
	}
	if err != nil {
		return nil, err
	}
	switch retired, err := f.retired(fileKey{key, version}); {
	case err != nil: // closed: perhaps it is
		return nil, err
	case retired:
		return nil, fmt.Errorf("%w: %s version %d is retired", ErrVersion, key, version)
	}
	return ecdsa.SignASN1(rand.Reader, k.private, digest)
}

// Versions implements [Backend]. It sees what other processes made.
func (f *File) Versions(ctx context.Context, key string) ([]Version, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &UnavailableError{Err: err}
	}
	files, err := f.list()
	if err != nil {
		return nil, err
	}
	var versions []Version
	for _, name := range files {
		if name.key != key {
			continue
		}
		k, err := f.load(name)
		if err != nil {
			return nil, err
		}
		versions = append(versions, Version{name.version, &k.private.PublicKey, k.created})
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("%w: key %s", attest.ErrNotFound, key)
	}
	return versions, nil
}

// Create implements [Rotator].
func (f *File) Create(ctx context.Context, key string) error {
	if _, err := f.Versions(ctx, key); !errors.Is(err, attest.ErrNotFound) {
		return err // exists, or cannot be told
	}
	err := f.add(fileKey{key, 1})
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was first
	}
	return err
}

// Rotate implements [Rotator].
func (f *File) Rotate(ctx context.Context, key string) error {
	for {
		versions, err := f.Versions(ctx, key)
		if err != nil {
			return err
		}
		err = f.add(fileKey{key, versions[len(versions)-1].Number + 1})
		if !errors.Is(err, fs.ErrExist) { // else another process took that number
			return err
		}
	}
}

// Retire implements [Retirer]: one durable file for each version, from the
// oldest on, so that no process can take another's back.
func (f *File) Retire(ctx context.Context, key string, first int) error {
	versions, err := f.Versions(ctx, key)
	if err != nil {
		return err
	}
	if latest := versions[len(versions)-1].Number; first < 1 || first > latest { // closed: above the latest nothing would sign
		return fmt.Errorf("%w: retire %s below version %d of %d", ErrVersion, key, first, latest)
	}
	for _, v := range versions {
		name := fileKey{key, v.Number}
		if v.Number >= first {
			break
		}
		if retired, err := f.retired(name); err != nil || retired {
			if err != nil {
				return err
			}
			continue
		}
		if err := writeOnce(f.retiredPath(name), nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("retire %s version %d: %w", key, v.Number, err)
		}
	}
	return nil
}

// retired reports whether any process retired the version. It looks each time.
func (f *File) retired(name fileKey) (bool, error) {
	_, err := os.Lstat(f.retiredPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f *File) retiredPath(name fileKey) string {
	return strings.TrimSuffix(f.path(name), ".age") + ".retired"
}

// add makes the version's key and file. It never replaces a file: if there is
// one the error is an fs.ErrExist.
func (f *File) add(name fileKey) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(sealedKey{name.key, name.version, time.Now().UTC().Truncate(time.Second), der})
	if err != nil {
		return err
	}
	sealed, err := seal(plain, f.identity.Recipient())
	if err != nil {
		return err
	}
	return writeOnce(f.path(name), sealed)
}

// load returns the version's key, from memory if it was read before. Without
// the file the error is an fs.ErrNotExist.
func (f *File) load(name fileKey) (*openKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k, ok := f.open[name]; ok {
		return k, nil
	}
	k, err := f.read(name)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", f.path(name), err)
	}
	f.open[name] = k
	return k, nil
}

func (f *File) read(name fileKey) (*openKey, error) {
	sealed, err := readPrivate(f.path(name))
	if err != nil {
		return nil, err
	}
	plain, err := unseal(sealed, f.identity)
	if err != nil {
		return nil, err
	}
	var k sealedKey
	if err := attest.DecodeJSON(plain, &k); err != nil {
		return nil, fmt.Errorf("damaged: not a key of this program") // the error might quote the key
	}
	if k.Key != name.key || k.Version != name.version {
		return nil, fmt.Errorf("it holds %s version %d: it was renamed or copied over another", k.Key, k.Version)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	private, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: want ECDSA P-256", ErrDegraded)
	}
	return &openKey{private, k.Created}, nil
}

// list names the key files of the directory, by key and then version.
func (f *File) list() ([]fileKey, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("key directory: %w", err)
	}
	var names []fileKey
	for _, e := range entries {
		m := keyFileName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		version, err := strconv.Atoi(m[2])
		if err != nil {
			return nil, fmt.Errorf("key directory: %s: %w", e.Name(), err)
		}
		names = append(names, fileKey{m[1], version})
	}
	slices.SortFunc(names, func(a, b fileKey) int {
		if a.key != b.key {
			return strings.Compare(a.key, b.key)
		}
		return a.version - b.version
	})
	return names, nil
}

var keyFileName = regexp.MustCompile(`^([a-z][a-z0-9-]{0,62})\.v([1-9][0-9]{0,8})\.age$`)

func (f *File) path(name fileKey) string {
	return filepath.Join(f.dir, fmt.Sprintf("%s.v%d.age", name.key, name.version))
}
