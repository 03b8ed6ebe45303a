// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/transparency-dev/tessera"

	"provost/attest"
	"provost/keys/tile"
)

// Where the logs are below the service's URL.
const (
	logPath = "/log"
	ctPath  = "/ct"
)

// A LogConfig is the embedded transparency log, and with it the one of leaf
// certificates.
type LogConfig struct {
	// Directory has a directory for each shard, named by its host, and "ct"
	// for the log of leaf certificates.
	Directory string
	// URL is where the shard that is written to can be read, an https URL
	// without a slash at its end. Clients take its host for the log's name, so
	// every shard has a host of its own.
	URL string
	// Outside takes the entries in place of our own log; nil for our own. The
	// log of leaf certificates is ours in any case.
	Outside *Rekor
	// OutsideFrom is since when verifiers believe Outside.
	OutsideFrom time.Time
	// Witnesses cosign every checkpoint of the transparency log before it is
	// used; nil for none.
	Witnesses *tessera.WitnessGroup
}

func (c *LogConfig) complete() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Hostname() != strings.ToLower(u.Hostname()) || u.User != nil ||
		u.String() != c.URL || strings.ContainsAny(c.URL, "?#") || strings.HasSuffix(c.URL, "/") {
		return fmt.Errorf("%w: log url %.200q: want https://host, lower-case, without a slash at the end", attest.ErrInvalid, c.URL)
	}
	if c.Directory == "" {
		return fmt.Errorf("%w: log: want a directory", attest.ErrInvalid)
	}
	return nil
}

// host is the name of the shard that is written to: what clients make of its
// URL, and the origin of its checkpoints.
func (c *LogConfig) host() string {
	u, _ := url.Parse(c.URL) // complete looked
	return u.Hostname()
}

// url is where a shard can be read.
func (c *LogConfig) url(shard certified) string {
	host := shard.cert.DNSNames[0] // isLog looked
	if host == c.host() {
		return c.URL
	}
	return "https://" + host + logPath
}

// A shard is the transparency log under one key.
type shard struct {
	key  certified
	tree *tile.Log
	ends func() time.Time // when it is closed; the zero time for not yet
	now  func() time.Time
}

// shardOf is the shard that the configuration writes to: the newest certified
// for its host.
func shardOf(config Config, logs []certified) (certified, error) {
	for i := len(logs) - 1; i >= 0; i-- {
		if logs[i].cert.DNSNames[0] == config.Log.host() {
			return logs[i], nil
		}
	}
	return certified{}, fmt.Errorf("%w: the root certified no log key for %s: open a shard for it (provostd authority request log)", attest.ErrNotFound, config.Log.host())
}

// treeConfig is how a tree under one of our keys is kept.
func (a *Authority) treeConfig(dir, origin, key string, c certified) tile.Config {
	verifier := noteVerifier{origin, c}
	return tile.Config{
		Dir: dir, Origin: origin, Verifier: verifier,
		Sign: func(ctx context.Context, body []byte) ([]byte, error) {
			digest := sha256.Sum256(body)
			der, err := a.pinned(ctx, key, c).Sign(nil, digest[:], nil)
			if err != nil { // closed: no signature, no checkpoint
				return nil, outward(err)
			}
			hash := logID(c)[:4]
			return fmt.Appendf(nil, "%s\n— %s %s\n", body, origin, base64.StdEncoding.EncodeToString(append(hash, der...))), nil
		},
	}
}

// logTree is the tree of the shard that is written to.
func (a *Authority) logTree(key certified) tile.Config {
	c := a.treeConfig(filepath.Join(a.config.Log.Directory, a.config.Log.host()), a.config.Log.host(), keyLog, key)
	c.Witnesses = a.config.Log.Witnesses
	return c
}

// createLogs makes the trees that are not there. It is for Init alone: a
// directory that is missing later was lost.
func createLogs(ctx context.Context, config Config) error {
	archived, err := readArchive(ctx, config)
	if err != nil {
		return err
	}
	a := &Authority{config: config}
	key, err := shardOf(config, archived.certs[keyLog])
	if err != nil {
		return err
	}
	if err := tile.Create(ctx, a.logTree(key)); err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	if err := tile.Create(ctx, a.ctTree(archived.certs[keyCTLog][0])); err != nil {
		return fmt.Errorf("create log of certificates: %w", err)
	}
	return nil
}

// openLogs opens the logs for writing.
func (a *Authority) openLogs(ctx context.Context, now *state) error {
	key, err := shardOf(a.config, now.certs[keyLog])
	if err != nil {
		return err
	}
	if begins := key.cert.NotBefore; a.config.Now().Before(begins) || !now.known(key) { // closed: verifiers do not know it yet
		return fmt.Errorf("%w: the log at %s may be written to from %s on, and once it is published: write to the one before it until then",
			attest.ErrUnavailable, a.config.Log.host(), begins.Format(time.RFC3339))
	}
	if end := now.closed(key); !end.IsZero() && a.config.Now().After(end) { // closed: verifiers take nothing of it any more
		return fmt.Errorf("%w: the log at %s was closed at %s: write to its successor",
			attest.ErrUnavailable, a.config.Log.host(), end.Format(time.RFC3339))
	}
	tree, err := tile.Open(ctx, a.logTree(key))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	a.log = &shard{key, tree, func() time.Time { return a.now.Load().closed(key) }, a.config.Now}
	for _, c := range now.certs[keyLog] { // the others can be read for ever
		host := c.cert.DNSNames[0]
		dir := filepath.Join(a.config.Log.Directory, host)
		if _, err := os.Stat(dir); c.version == key.version || errors.Is(err, fs.ErrNotExist) {
			continue // itself; or not opened yet, or kept elsewhere
		}
		tree, err := tile.Open(ctx, a.treeConfig(dir, host, keyLog, c))
		if err != nil {
			return fmt.Errorf("open log %s: %w", host, err)
		}
		a.shards = append(a.shards, &shard{key: c, tree: tree})
	}
	ct := now.certs[keyCTLog][0]
	if tree, err = tile.Open(ctx, a.ctTree(ct)); err != nil {
		return fmt.Errorf("open log of certificates: %w", err)
	}
	a.ct = &ctLog{authority: a, key: ct, tree: tree}
	return a.ct.checkNewest(ctx, now)
}

// Log is the transparency log; nil when there is none.
func (a *Authority) Log() attest.Log {
	if a.log == nil {
		return nil
	}
	if outside := a.config.Log.Outside; outside != nil {
		return believedLog{outside, a, hex.EncodeToString(outside.logID)}
	}
	return believedLog{a.log, a, hex.EncodeToString(logID(a.log.key))}
}

// A believedLog takes entries only as long as verifiers believe it.
type believedLog struct {
	attest.Log
	authority *Authority
	id        string // hex
}

func (l believedLog) Append(ctx context.Context, e attest.LogEntry) (*protorekor.TransparencyLogEntry, error) {
	if !l.authority.now.Load().publishedIn(logWindows+l.id, l.authority.config.Now()) { // closed: verifiers would refuse the entry
		return nil, fmt.Errorf("%w: the log is not published yet, or was ended there: publish it, or write to its successor", attest.ErrUnavailable)
	}
	return l.Log.Append(ctx, e)
}

// Append implements [attest.Log].
func (s *shard) Append(ctx context.Context, e attest.LogEntry) (*protorekor.TransparencyLogEntry, error) {
	if end := s.ends(); !end.IsZero() && s.now().After(end) { // closed: verifiers would refuse the entry
		return nil, fmt.Errorf("%w: the log was closed at %s: write to its successor", attest.ErrUnavailable, end.Format(time.RFC3339))
	}
	body := e.Body()
	done, err := s.tree.Append(ctx, func(uint64) []byte { return body })
	if err != nil { // closed: without a proof nothing is released
		return nil, err
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex:          int64(done.Index),
		LogId:             &protocommon.LogId{KeyId: logID(s.key)},
		KindVersion:       &protorekor.KindVersion{Kind: attest.LogKind, Version: attest.LogVersion},
		CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: int64(done.Index), RootHash: done.Root, TreeSize: int64(done.Size), Hashes: done.Proof,
			Checkpoint: &protorekor.Checkpoint{Envelope: string(done.Checkpoint)},
		},
	}, nil
}

// LogHandlers serve the logs, by the path below which each stands: to
// everybody, for what they say is said to all.
func (a *Authority) LogHandlers() map[string]http.Handler {
	if a.log == nil {
		return nil
	}
	return map[string]http.Handler{
		logPath + "/": http.StripPrefix(logPath, a.shardHandler()),
		ctPath + "/":  http.StripPrefix(ctPath, a.ct.tree.Handler()),
	}
}

// shardHandler serves the shard of the host that is asked; the one that is
// written to, when it is no shard's.
func (a *Authority) shardHandler() http.Handler {
	open := a.log.tree.Handler()
	others := map[string]http.Handler{}
	for _, s := range a.shards {
		others[s.key.cert.DNSNames[0]] = s.tree.Handler()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, ok := others[(&url.URL{Host: r.Host}).Hostname()]; ok {
			h.ServeHTTP(w, r)
			return
		}
		open.ServeHTTP(w, r)
	})
}

// A noteVerifier verifies signed notes (c2sp.org/signed-note) by the one key,
// in the way that Rekor v2 signs with ECDSA: the key hash is the beginning of
// the SHA-256 of the SPKI.
type noteVerifier struct {
	name string
	key  certified
}

func (v noteVerifier) Name() string { return v.name }

func (v noteVerifier) KeyHash() uint32 {
	id := logID(v.key)
	return uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
}

func (v noteVerifier) Verify(message, signature []byte) bool {
	digest := sha256.Sum256(message)
	return ecdsa.VerifyASN1(v.key.public(), digest[:], signature)
}
