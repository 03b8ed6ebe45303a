// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"provost/attest"
)

// Publish publishes what was staged; several files must be copies of one,
// signed apart. It refuses, and changes nothing, when a threshold is not met,
// when something was published since, when anything has expired, when clients
// would refuse it for another reason, and when an authority begins too early
// ([Config.Lead]; the first publication has nobody to warn), when a revocation
// is lost, and when an authority is ([Config.AllowDropped]).
//
// When it is killed, clients find the old trust or the new one; published
// again, it finishes. What is published already is left as it is.
//
// The order of writing, each step durable before the next:
//
//	target files · N.targets.json · N.snapshot.json    nobody is pointed at them
//	timestamp.json                                     the new targets, under either root
//	N.root.json                                        the new root
//
// That the targets and the online signatures hold under the old and the new
// root is why no step can be seen as a mixture. Only where the old online key
// is lost the root goes before the timestamp: then clients refuse everything
// between these two steps, and a killed Publish is finished by Refresh.
func (r *Repository) Publish(ctx context.Context, now time.Time, copies ...*Staged) error {
	staged, err := merge(copies)
	if err != nil {
		return err
	}
	for _, n := range staged.Needs() {
		if !n.Met() {
			return fmt.Errorf("%w: %s", attest.ErrDenied, n)
		}
	}
	dir := r.config.Directory
	if err := makeDirectories(dir); err != nil {
		return err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := errors.Join(removeStale(dir), removeStale(filepath.Join(dir, "targets"))); err != nil {
		return err
	}
	published, err := load(dir)
	if errors.Is(err, attest.ErrNotFound) {
		published, err = nil, nil
	}
	if err != nil {
		return err
	}
	done, err := r.mayPublish(published, staged, now)
	if err != nil || done {
		return err
	}
	return r.write(ctx, published, staged, now)
}

// mayPublish refuses what must not be published. It is done if all of it is.
func (r *Repository) mayPublish(published *state, staged *Staged, now time.Time) (done bool, err error) {
	if published == nil {
		if staged.previous != nil {
			return false, fmt.Errorf("%w: it was staged upon root %d, and nothing is published here: is this the right directory?", attest.ErrConflict, staged.previous.Signed.Version)
		}
	} else {
		switch {
		case staged.root != nil && sameSigned(staged.root, published.root): // killed after the root, or published
		case staged.previous == nil || !sameSigned(staged.previous, published.root):
			return false, fmt.Errorf("%w: the root published now is %d, not the one it was staged upon: stage it again", attest.ErrConflict, published.root.Signed.Version)
		}
		is, was := staged.targets.Signed.Version, published.targets.Signed.Version
		switch {
		case sameSigned(staged.targets, published.targets): // killed after the timestamp, or published
			done = !published.halfway && (staged.root == nil || sameSigned(staged.root, published.root))
		case is <= was:
			return false, fmt.Errorf("%w: targets %d are published, and staged are %d: stage it again", attest.ErrConflict, was, is)
		}
	}
	if done {
		return true, nil
	}
	if staged.root != nil && !staged.root.Signed.Expires.After(now) {
		return false, fmt.Errorf("%w: staged root expired at %s", attest.ErrInvalid, when(staged.root.Signed.Expires))
	}
	if staged.root == nil && !published.root.Signed.Expires.After(now) {
		return false, fmt.Errorf("%w: root %d expired at %s: stage a new root", attest.ErrInvalid, published.root.Signed.Version, when(published.root.Signed.Expires))
	}
	if !staged.targets.Signed.Expires.After(now) {
		return false, fmt.Errorf("%w: staged targets expired at %s", attest.ErrInvalid, when(staged.targets.Signed.Expires))
	}
	if published == nil {
		return false, nil
	}
	before, err := published.target(r.config.Directory, trustedRootName)
	if err != nil {
		return false, err
	}
	if err := checkDropped(before, staged.files[trustedRootName], r.config.AllowDropped); err != nil || r.config.WithoutLeadUnsafe {
		return false, err
	}
	return false, checkLead(before, staged.files[trustedRootName], now, r.config.Lead)
}

// write signs what is signed online, has the client's code check everything,
// and writes it.
func (r *Repository) write(ctx context.Context, published *state, staged *Staged, now time.Time) error {
	dir := r.config.Directory
	targetsRaw, err := reuse(dir, staged.targets, staged.targets.Signed.Version, metadata.TARGETS)
	if err != nil {
		return err
	}
	root := staged.root
	if root == nil {
		root = published.root
	}
	newest, err := r.online(ctx, root)
	if err != nil {
		return err
	}
	online := []crypto.Signer{newest}
	rootLast := false
	if published != nil && staged.root != nil && !published.halfway {
		old, err := r.online(ctx, published.root)
		switch {
		case errors.Is(err, errNoOnlineKey): // lost: see Publish
		case err != nil:
			return err
		default:
			rootLast = true
			if !newest.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(old.Public()) {
				online = append(online, old)
			}
		}
	}
	p := new(publication)
	if p.snapshot, err = r.nextSnapshot(metaFile(staged.targets.Signed.Version, targetsRaw), now); err != nil {
		return err
	}
	if err := r.signOnline(ctx, p, published, now, online...); err != nil {
		return err
	}
	rootRaw, err := reuse(dir, root, root.Signed.Version, metadata.ROOT)
	if err != nil {
		return err
	}
	if err := asClient(published, rootRaw, targetsRaw, p, now); err != nil {
		return fmt.Errorf("%w: clients would refuse it: %w", attest.ErrInvalid, err)
	}
	if rootLast { // clients who have not seen the new root follow as well
		written, err := parse[metadata.TargetsType](targetsRaw, maxTargets)
		if err != nil {
			return err
		}
		err = errors.Join(published.root.VerifyDelegate(metadata.TARGETS, written),
			published.root.VerifyDelegate(metadata.SNAPSHOT, p.snapshot), published.root.VerifyDelegate(metadata.TIMESTAMP, p.timestamp))
		if err != nil {
			return fmt.Errorf("%w: clients of root %d would refuse it: %w", attest.ErrInvalid, published.root.Signed.Version, err)
		}
	}

	for name, data := range staged.files {
		for _, path := range targetPaths(dir, name, staged.targets.Signed.Targets[name]) {
			if err := writeOnce(path, data); err != nil {
				return err
			}
		}
	}
	targets := step{numberedName(staged.targets.Signed.Version, metadata.TARGETS), targetsRaw}
	snapshot := step{numberedName(p.snapshot.Signed.Version, metadata.SNAPSHOT), p.snapshotRaw}
	timestamp := step{timestampName, p.timestampRaw}
	newRoot := step{numberedName(root.Signed.Version, metadata.ROOT), rootRaw}
	steps := []step{targets, snapshot, newRoot, timestamp}
	if rootLast {
		steps = []step{targets, snapshot, timestamp, newRoot}
	}
	for _, s := range steps {
		if r.before != nil {
			r.before(s.name)
		}
		if s.name == timestampName {
			err = replace(filepath.Join(dir, s.name), s.data, 0o644)
		} else {
			err = writeOnce(filepath.Join(dir, s.name), s.data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A step of a publication writes a file.
type step struct {
	name string
	data []byte
}

// reuse encodes metadata or, if an earlier Publish got as far as writing the
// same under another set of signatures, takes that: what is written stays.
func reuse[T metadata.Roles](dir string, m *metadata.Metadata[T], version int64, role string) ([]byte, error) {
	name := numberedName(version, role)
	raw, err := readBounded(filepath.Join(dir, name), maxTargets)
	if errors.Is(err, fs.ErrNotExist) {
		return encode(m)
	}
	if err != nil {
		return nil, err
	}
	there, err := parse[T](raw, maxTargets)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if !sameSigned(there, m) {
		return nil, fmt.Errorf("%w: %s is there with another content: stage it again", attest.ErrConflict, name)
	}
	return raw, nil
}

// asClient follows the publication as a client does that has what was
// published before.
func asClient(published *state, rootRaw, targetsRaw []byte, p *publication, now time.Time) error {
	before := rootRaw
	if published != nil {
		before = published.raw.root
	}
	client, err := trustedmetadata.New(before)
	if err != nil {
		return err
	}
	client.RefTime = now
	if published != nil {
		next, err := parse[metadata.RootType](rootRaw, maxRoot)
		if err != nil {
			return err
		}
		if next.Signed.Version > client.Root.Signed.Version {
			if _, err := client.UpdateRoot(rootRaw); err != nil {
				return err
			}
		}
		// What the client has may have expired or be under the old online
		// key; then it forgets it, and errs here.
		_, _ = client.UpdateTimestamp(published.raw.timestamp)
	}
	if _, err := client.UpdateTimestamp(p.timestampRaw); err != nil {
		return err
	}
	if published != nil {
		_, _ = client.UpdateSnapshot(published.raw.snapshot, true)
	}
	if _, err := client.UpdateSnapshot(p.snapshotRaw, false); err != nil {
		return err
	}
	_, err = client.UpdateTargets(targetsRaw)
	return err
}
