// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"crypto"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A tufServer is a TUF repository over HTTP with one key.
type tufServer struct {
	t       testing.TB
	dir     string
	url     string
	key     ed25519.PrivateKey
	version int64
}

func newTUF(t testing.TB) *tufServer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	ok(t, err)
	r := &tufServer{t: t, dir: t.TempDir(), key: key}
	server := httptest.NewServer(http.FileServer(http.Dir(r.dir)))
	t.Cleanup(server.Close)
	r.url = server.URL
	root := metadata.Root(time.Now().AddDate(1, 0, 0))
	root.Signed.ConsistentSnapshot = true
	public, err := metadata.KeyFromPublicKey(key.Public())
	ok(t, err)
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		ok(t, root.Signed.AddKey(public, role))
	}
	r.write(root, "1.root.json")
	return r
}

// root is the file that clients begin with.
func (r *tufServer) root() string { return filepath.Join(r.dir, "1.root.json") }

func (r *tufServer) write(m interface {
	Sign(signature.Signer) (*metadata.Signature, error)
	ToFile(string, bool) error
}, name string) {
	r.t.Helper()
	signer, err := signature.LoadSigner(r.key, crypto.Hash(0))
	ok(r.t, err)
	_, err = m.Sign(signer)
	ok(r.t, err)
	ok(r.t, m.ToFile(filepath.Join(r.dir, name), false))
}

// publish replaces the targets.
func (r *tufServer) publish(targets map[string][]byte) {
	r.t.Helper()
	r.version++
	expires := time.Now().AddDate(0, 1, 0)
	all := metadata.Targets(expires)
	ok(r.t, os.MkdirAll(filepath.Join(r.dir, "targets"), 0o755))
	for name, raw := range targets {
		info, err := metadata.TargetFile().FromBytes(name, raw, "sha256")
		ok(r.t, err)
		all.Signed.Targets[name] = info
		ok(r.t, os.WriteFile(filepath.Join(r.dir, "targets", info.Hashes["sha256"].String()+"."+name), raw, 0o644))
	}
	all.Signed.Version = r.version
	r.write(all, fmt.Sprintf("%d.targets.json", r.version))
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = r.version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(r.version)
	r.write(snapshot, fmt.Sprintf("%d.snapshot.json", r.version))
	stamp := metadata.Timestamp(expires)
	stamp.Signed.Version = r.version
	stamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.version)
	r.write(stamp, "timestamp.json")
}
