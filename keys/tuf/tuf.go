// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package tuf is how the trust root travels: a TUF repository in a directory,
// which cosign, sigstore-go and sigstore-js follow.
//
//	N.root.json  N.targets.json  N.snapshot.json  timestamp.json
//	targets/<sha256>.<name>  targets/<sha512>.<name>
//
// Root and targets are signed by a threshold of offline keys, in a ceremony:
// [Repository.Stage] prepares a file, [Staged.Sign] adds a signature to it,
// [Repository.Publish] publishes it. Snapshot and timestamp are signed by one
// online key and signed again before they expire, by [Repository.Refresh].
//
// Invariants:
//
//   - Nothing is published that a client which follows the repository would
//     refuse; Publish asks the client's own code.
//   - A client that reads at any moment, also while a publication is written
//     or after it was killed, finds the old or the new trust, whole.
//   - A numbered file never changes, and no N.root.json is ever removed.
//   - An authority is in the published trusted root for [Config.Lead] before
//     it may be used, so that no client is surprised by what it made.
//   - What does not verify is an error, never an absence.
//
// The underlying library logs to a global logger that discards everything;
// this package leaves it alone.
package tuf

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"provost/attest"
)

// What [Config] and [Change] default to.
const (
	DefaultLead            = 48 * time.Hour
	DefaultSnapshotExpiry  = 21 * 24 * time.Hour
	DefaultTimestampExpiry = 7 * 24 * time.Hour
	DefaultTargetsExpiry   = 182 * 24 * time.Hour
	DefaultRootExpiry      = 365 * 24 * time.Hour

	maxExpiry = 5 * 366 * 24 * time.Hour
)

// resignAfter is how old a timestamp becomes before it is signed again.
const resignAfter = 24 * time.Hour

// A Config is what a [Repository] stands on.
type Config struct {
	// Directory is made if it does not exist. Its file system must have
	// flock, link and rename.
	Directory string
	// Online returns the versions of the online key, the newest last. The root
	// says which one signs. It may be nil where nothing is to be signed.
	Online func(ctx context.Context) ([]crypto.Signer, error)
	// Lead is how long an authority must be published before it may be used.
	// Default 48h.
	Lead time.Duration
	// WithoutLeadUnsafe lets authorities be used at once. It is for
	// development, where no client has to learn of them in time, and for
	// authorities that others run, which have begun already.
	WithoutLeadUnsafe bool
	// AllowDropped lets a publication drop an authority that is published.
	AllowDropped bool
	// SnapshotExpiry and TimestampExpiry are how long those are good without
	// the service. Defaults 21 and 7 days.
	SnapshotExpiry, TimestampExpiry time.Duration
}

// A Repository is a TUF repository in a directory. It is safe for concurrent
// use, and several processes of one machine may have one each.
type Repository struct {
	config Config
	before func(name string) // of writing metadata; tests kill themselves here
}

// Open returns the repository, of which nothing need be published yet. It
// reads nothing.
func Open(c Config) (*Repository, error) {
	if c.Directory == "" {
		return nil, fmt.Errorf("%w: TUF repository: no directory", attest.ErrInvalid)
	}
	if c.Lead == 0 {
		c.Lead = DefaultLead
	}
	if c.SnapshotExpiry == 0 {
		c.SnapshotExpiry = DefaultSnapshotExpiry
	}
	if c.TimestampExpiry == 0 {
		c.TimestampExpiry = DefaultTimestampExpiry
	}
	if c.Lead < 0 || c.SnapshotExpiry < time.Hour || c.TimestampExpiry < time.Hour ||
		c.SnapshotExpiry > maxExpiry || c.TimestampExpiry > c.SnapshotExpiry {
		return nil, fmt.Errorf("%w: TUF repository: want a lead of no less than 0, and 1h <= timestamp expiry <= snapshot expiry", attest.ErrInvalid)
	}
	if c.Online == nil {
		c.Online = func(context.Context) ([]crypto.Signer, error) { return nil, nil }
	}
	return &Repository{config: c}, nil
}

// Published returns the trusted root that the repository in dir publishes,
// verified under the repository's own root and whatever has expired. It is not
// ok if nothing is published yet. An authority that is not in it must not be
// used; with an error none must that was not used before.
func Published(dir string) (trustedRoot []byte, ok bool, err error) {
	s, err := load(dir)
	if errors.Is(err, attest.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	raw, err := s.target(dir, trustedRootName)
	return raw, err == nil, err
}

// Targets returns the published target files, verified; [attest.ErrNotFound]
// if nothing is published.
func (r *Repository) Targets() (map[string][]byte, error) {
	s, err := load(r.config.Directory)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name := range s.targets.Signed.Targets {
		if files[name], err = s.target(r.config.Directory, name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// A Status is what is published, and until when.
type Status struct {
	Roles     []RoleStatus // root, targets, snapshot, timestamp
	Threshold int          // of the offline keys
	Offline   []string     // their IDs
	Online    string       // the online key's ID
}

// A RoleStatus is a role's metadata. When it has expired every client refuses
// the repository.
type RoleStatus struct {
	Role    string
	Version int64
	Expires time.Time
}

// Status returns what is published; [attest.ErrNotFound] if nothing is.
func (r *Repository) Status() (Status, error) {
	s, err := load(r.config.Directory)
	if err != nil {
		return Status{}, err
	}
	role := s.root.Signed.Roles[metadata.ROOT]
	return Status{
		Roles: []RoleStatus{
			{metadata.ROOT, s.root.Signed.Version, s.root.Signed.Expires},
			{metadata.TARGETS, s.targets.Signed.Version, s.targets.Signed.Expires},
			{metadata.SNAPSHOT, s.snapshot.Signed.Version, s.snapshot.Signed.Expires},
			{metadata.TIMESTAMP, s.timestamp.Signed.Version, s.timestamp.Signed.Expires},
		},
		Threshold: role.Threshold,
		Offline:   slices.Clone(role.KeyIDs),
		Online:    s.root.Signed.Roles[metadata.TIMESTAMP].KeyIDs[0],
	}, nil
}

// Refresh signs the timestamp again if it is a day old or has less than half
// of its life left, and before it the snapshot if that has less than half of
// its own. It is to be called every few minutes, by every process of the
// service: one of them does it. It returns nil when there is nothing to do,
// also because nothing is published. After an error clients go on with what is
// there until it expires: see [Repository.Status].
func (r *Repository) Refresh(ctx context.Context, now time.Time) error {
	dir := r.config.Directory
	if s, err := load(dir); errors.Is(err, attest.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	} else if snapshot, timestamp := r.due(s, now); !snapshot && !timestamp {
		return nil
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := load(dir) // another process may have been first
	if err != nil {
		return err
	}
	snapshot, timestamp := r.due(s, now)
	if !snapshot && !timestamp {
		return nil
	}
	if err := removeStale(dir); err != nil {
		return err
	}
	if s.halfway { // the targets that clients see must be the new root's too
		if err := s.root.VerifyDelegate(metadata.TARGETS, s.targets); err != nil {
			return fmt.Errorf("TUF repository %s: a publication was killed: publish its staged file again: %w", dir, err)
		}
	}
	online, err := r.online(ctx, s.root)
	if err != nil {
		return err
	}
	next := &publication{timestamp: s.timestamp}
	if snapshot {
		if next.snapshot, err = r.nextSnapshot(s.snapshot.Signed.Meta[targetsKey], now); err != nil {
			return err
		}
	}
	if err := r.signOnline(ctx, next, s, now, online); err != nil {
		return err
	}
	if next.snapshot != nil {
		if err := writeOnce(filepath.Join(dir, numberedName(next.snapshot.Signed.Version, metadata.SNAPSHOT)), next.snapshotRaw); err != nil {
			return err
		}
	}
	return replace(filepath.Join(dir, timestampName), next.timestampRaw, 0o644)
}

// due reports which of the two has to be signed again.
func (r *Repository) due(s *state, now time.Time) (snapshot, timestamp bool) {
	if s.halfway {
		return true, true
	}
	snapshot = s.snapshot.Signed.Expires.Sub(now) < r.config.SnapshotExpiry/2
	keep := max(r.config.TimestampExpiry/2, r.config.TimestampExpiry-resignAfter)
	return snapshot, snapshot || s.timestamp.Signed.Expires.Sub(now) < keep
}

// online returns the version of the online key that a root names.
func (r *Repository) online(ctx context.Context, root *rootMeta) (crypto.Signer, error) {
	signers, err := r.config.Online(ctx)
	if err != nil {
		return nil, fmt.Errorf("online key: %w", err)
	}
	want := root.Signed.Roles[metadata.TIMESTAMP].KeyIDs[0]
	for _, s := range signers {
		if _, id, err := tufKey(s.Public()); err == nil && id == want {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w %s of root %d", errNoOnlineKey, shortID(want), root.Signed.Version)
}

// errNoOnlineKey: the backend does not have the key that a root names.
var errNoOnlineKey = fmt.Errorf("%w: the key backend does not have online key", attest.ErrConflict)

// A publication is what is to be written. A nil snapshot stays what it is.
type publication struct {
	snapshot  *snapshotMeta
	timestamp *timestampMeta

	snapshotRaw, timestampRaw []byte
}

// versionAfter is a version above the last one, and above every one that was
// made before now and lost: after an old backup was put back, clients that saw
// more go on. It counts minutes.
func versionAfter(last int64, now time.Time) int64 { return max(last+1, now.Unix()/60) }

// nextSnapshot is a snapshot above all that there are files of.
func (r *Repository) nextSnapshot(targets *metadata.MetaFiles, now time.Time) (*snapshotMeta, error) {
	last, err := highest(r.config.Directory, metadata.SNAPSHOT)
	if err != nil {
		return nil, err
	}
	next := metadata.Snapshot(expiry(now, r.config.SnapshotExpiry))
	next.Signed.Version = versionAfter(last, now)
	next.Signed.Meta = map[string]*metadata.MetaFiles{targetsKey: targets}
	return next, nil
}

// signOnline makes the next timestamp for the publication's snapshot, or the
// published one, and signs what is new with all the online keys given.
func (r *Repository) signOnline(ctx context.Context, p *publication, s *state, now time.Time, online ...crypto.Signer) (err error) {
	next := metadata.Timestamp(expiry(now, r.config.TimestampExpiry))
	next.Signed.Version = versionAfter(0, now)
	if s != nil {
		next.Signed.Version = versionAfter(s.timestamp.Signed.Version, now)
		next.Signed.Meta = s.timestamp.Signed.Meta
	}
	if p.snapshot != nil {
		for _, key := range online {
			if err := addSignature(ctx, p.snapshot, key); err != nil {
				return err
			}
		}
		if p.snapshotRaw, err = encode(p.snapshot); err != nil {
			return err
		}
		next.Signed.Meta = map[string]*metadata.MetaFiles{snapshotKey: metaFile(p.snapshot.Signed.Version, p.snapshotRaw)}
	}
	for _, key := range online {
		if err := addSignature(ctx, next, key); err != nil {
			return err
		}
	}
	p.timestamp = next
	p.timestampRaw, err = encode(next)
	return err
}

// metaFile is what metadata say about other metadata.
func metaFile(version int64, raw []byte) *metadata.MetaFiles {
	d := describeFile(raw)
	return &metadata.MetaFiles{Version: version, Length: d.Length, Hashes: metadata.Hashes{"sha256": d.Hashes["sha256"]}}
}

// makeDirectories makes what is missing of the directory.
func makeDirectories(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "targets"), 0o755); err != nil {
		return err
	}
	return errors.Join(syncDirectory(dir), syncDirectory(filepath.Dir(dir)))
}

// targetPaths are the names under which clients ask for a target file.
func targetPaths(dir, name string, f *metadata.TargetFiles) []string {
	return []string{
		filepath.Join(dir, "targets", hex.EncodeToString(f.Hashes["sha256"])+"."+name),
		filepath.Join(dir, "targets", hex.EncodeToString(f.Hashes["sha512"])+"."+name),
	}
}
