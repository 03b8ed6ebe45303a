// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"provost/attest"
)

// stagedFormat is the first member of a staged file.
const stagedFormat = "provost-tuf-staged/1"

// maxStaged is the largest staged file, in bytes.
const maxStaged = 64 << 20

// A Staged is a publication on its way: new targets, with or without a new
// root, that gather the signatures of offline keys. It travels as one file.
// Whoever carries it can damage it but not make it say what was not signed.
type Staged struct {
	previous *rootMeta // the root published when it was staged; nil for the first
	root     *rootMeta // nil if the root stays
	targets  *targetsMeta
	files    map[string][]byte
}

// stagedFile is a Staged as it is written.
type stagedFile struct {
	Format   string            `json:"format"`
	Previous json.RawMessage   `json:"previous,omitempty"`
	Root     json.RawMessage   `json:"root,omitempty"`
	Targets  json.RawMessage   `json:"targets"`
	Files    map[string][]byte `json:"files"`
}

// ReadStaged reads a staged file. What it returns is consistent in itself:
// the files are those that the targets name, clients can read them, and every
// signature verifies and counts. That it may be published is for [Repository.Publish] to say.
func ReadStaged(path string) (*Staged, error) {
	raw, err := readBounded(path, maxStaged)
	if err != nil {
		return nil, err
	}
	s, err := parseStaged(raw)
	if err != nil {
		return nil, fmt.Errorf("staged file %s: %w", path, err)
	}
	return s, nil
}

func parseStaged(raw []byte) (*Staged, error) {
	var f stagedFile
	if err := attest.DecodeJSON(raw, &f); err != nil || f.Format != stagedFormat {
		return nil, fmt.Errorf("%w: not what provostd tuf stage wrote", attest.ErrInvalid)
	}
	s := &Staged{files: f.Files}
	var err error
	if f.Previous != nil {
		if s.previous, err = parse[metadata.RootType](f.Previous, maxRoot); err != nil {
			return nil, fmt.Errorf("root before: %w", err)
		}
	}
	if f.Root != nil {
		if s.root, err = parse[metadata.RootType](f.Root, maxRoot); err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
	}
	if s.targets, err = parse[metadata.TargetsType](f.Targets, maxTargets); err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	return s, s.check()
}

// check is what ReadStaged promises.
func (s *Staged) check() error {
	if s.previous == nil && s.root == nil {
		return fmt.Errorf("%w: staged: it has no root", attest.ErrInvalid)
	}
	if s.previous != nil {
		if err := checkRoot(s.previous); err != nil {
			return fmt.Errorf("root before: %w", err)
		}
		if err := s.previous.VerifyDelegate(metadata.ROOT, s.previous); err != nil {
			return fmt.Errorf("%w: root before: %w", attest.ErrInvalid, err)
		}
	}
	if s.root != nil {
		if err := checkRoot(s.root); err != nil {
			return err
		}
		if before := s.previousVersion(); s.root.Signed.Version != before+1 {
			return fmt.Errorf("%w: staged root %d does not follow root %d", attest.ErrInvalid, s.root.Signed.Version, before)
		}
	}
	if err := checkTargets(s.targets, s.files); err != nil {
		return err
	}
	if _, err := readAuthorities(s.files[trustedRootName]); err != nil {
		return err
	}
	if raw, ok := s.files[signingConfigName]; ok {
		if _, err := root.NewSigningConfigFromJSON(raw); err != nil {
			return fmt.Errorf("%w: %s: %w", attest.ErrInvalid, signingConfigName, err)
		}
	}
	for _, n := range s.Needs() {
		if n.err != nil {
			return n.err
		}
	}
	if s.root != nil {
		if err := s.strangers("root", s.root.Signatures, signed(s.root, s.governing())); err != nil {
			return err
		}
	}
	return s.strangers("targets", s.targets.Signatures, signed(s.targets, s.governing()))
}

// strangers refuses a signature that does not verify or whose key has no say:
// clients would not count it, and whoever made it thinks they do.
func (s *Staged) strangers(what string, signatures []metadata.Signature, good []string) error {
	for _, sig := range signatures {
		if !slices.Contains(good, sig.KeyID) || len(sig.UnrecognizedFields) > 0 {
			return fmt.Errorf("%w: staged %s: the signature of key %s does not verify, or the key has no say here", attest.ErrDenied, what, shortID(sig.KeyID))
		}
	}
	return nil
}

// signed returns the offline keys of the roots that signed meta well.
func signed[T metadata.Roles](meta *metadata.Metadata[T], roots []*rootMeta) []string {
	var all []string
	for _, root := range roots {
		ids, err := signers(root.Signed.Keys, root.Signed.Roles[metadata.ROOT].KeyIDs, meta)
		if err == nil {
			all = append(all, ids...)
		}
	}
	return all
}

func (s *Staged) previousVersion() int64 {
	if s.previous == nil {
		return 0
	}
	return s.previous.Signed.Version
}

// governing are the roots whose offline keys must sign: the one before and
// the new one, both of them if both are there. So targets verify for clients
// on either side of a new root, and no order of writing shows a client
// anything that it must refuse.
func (s *Staged) governing() []*rootMeta {
	var roots []*rootMeta
	if s.previous != nil {
		roots = append(roots, s.previous)
	}
	if s.root != nil {
		roots = append(roots, s.root)
	}
	return roots
}

// Write writes the staged file, whole or not at all.
func (s *Staged) Write(path string) error {
	raw, err := s.encode()
	if err != nil {
		return err
	}
	return replace(path, raw, 0o644)
}

func (s *Staged) encode() ([]byte, error) {
	f := stagedFile{Format: stagedFormat, Files: s.files}
	var err error
	if s.previous != nil {
		if f.Previous, err = encode(s.previous); err != nil {
			return nil, err
		}
	}
	if s.root != nil {
		if f.Root, err = encode(s.root); err != nil {
			return nil, err
		}
	}
	if f.Targets, err = encode(s.targets); err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return nil, err
	}
	if len(raw) >= maxStaged {
		return nil, fmt.Errorf("%w: staged: more than %d bytes", attest.ErrInvalid, maxStaged)
	}
	return append(raw, '\n'), nil
}

// A Need says whose signatures something staged needs.
type Need struct {
	What      string // such as "root 2"
	By        string // whose threshold, such as "root 1"
	Threshold int
	Signed    []string // key IDs
	Missing   []string // key IDs that have not signed; enough of them must
	err       error
}

// Met reports whether there are signatures enough.
func (n Need) Met() bool { return n.err == nil && len(n.Signed) >= n.Threshold }

// String says it in a line.
func (n Need) String() string {
	line := fmt.Sprintf("%s, by the keys of %s: %d of %d signatures", n.What, n.By, min(len(n.Signed), n.Threshold), n.Threshold)
	if n.Met() {
		return line
	}
	short := make([]string, len(n.Missing))
	for i, id := range n.Missing {
		short[i] = shortID(id)
	}
	return fmt.Sprintf("%s, %d missing from %s", line, n.Threshold-len(n.Signed), strings.Join(short, " "))
}

// Needs returns whose signatures are needed, and are there.
func (s *Staged) Needs() []Need {
	var needs []Need
	for _, root := range s.governing() {
		if s.root != nil {
			needs = append(needs, need(fmt.Sprintf("root %d", s.root.Signed.Version), root, s.root))
		}
		needs = append(needs, need(fmt.Sprintf("targets %d", s.targets.Signed.Version), root, s.targets))
	}
	return needs
}

func need[T metadata.Roles](what string, by *rootMeta, meta *metadata.Metadata[T]) Need {
	role := by.Signed.Roles[metadata.ROOT] // the same as targets: checkRoot
	n := Need{What: what, By: fmt.Sprintf("root %d", by.Signed.Version), Threshold: role.Threshold}
	n.Signed, n.err = signers(by.Signed.Keys, role.KeyIDs, meta)
	for _, id := range role.KeyIDs {
		if !slices.Contains(n.Signed, id) {
			n.Missing = append(n.Missing, id)
		}
	}
	return n
}

// Sign adds the signatures of an offline key to everything that it has a say
// in, and says what that was. A key that has none is refused with
// [attest.ErrDenied]; signing again changes nothing but the signature.
func (s *Staged) Sign(key crypto.Signer) (what []string, err error) {
	id, err := KeyID(key.Public())
	if err != nil {
		return nil, err
	}
	may := slices.ContainsFunc(s.governing(), func(r *rootMeta) bool {
		return slices.Contains(r.Signed.Roles[metadata.ROOT].KeyIDs, id)
	})
	if !may {
		return nil, fmt.Errorf("%w: key %s is no offline key of this repository", attest.ErrDenied, shortID(id))
	}
	ctx := context.Background() // the key is in memory
	if s.root != nil {
		if err := addSignature(ctx, s.root, key); err != nil {
			return nil, err
		}
		what = append(what, fmt.Sprintf("root %d", s.root.Signed.Version))
	}
	if err := addSignature(ctx, s.targets, key); err != nil {
		return nil, err
	}
	return append(what, fmt.Sprintf("targets %d", s.targets.Signed.Version)), nil
}

// merge joins the signatures of copies of one staged file that were signed
// apart. Copies that do not say the same are an [attest.ErrConflict].
func merge(copies []*Staged) (*Staged, error) {
	if len(copies) == 0 || copies[0] == nil {
		return nil, fmt.Errorf("%w: nothing is staged", attest.ErrInvalid)
	}
	first, err := copies[0].encode()
	if err != nil {
		return nil, err
	}
	all, err := parseStaged(first) // a copy that is ours
	if err != nil {
		return nil, err
	}
	for _, c := range copies[1:] {
		if c == nil || !all.same(c) {
			return nil, fmt.Errorf("%w: these staged files are not copies of one", attest.ErrConflict)
		}
		if all.root != nil {
			all.root.Signatures = union(all.root.Signatures, c.root.Signatures)
		}
		all.targets.Signatures = union(all.targets.Signatures, c.targets.Signatures)
	}
	return all, all.check()
}

// same reports whether two staged files say the same, whoever signed them.
func (s *Staged) same(o *Staged) bool {
	return sameSigned(s.previous, o.previous) && sameSigned(s.root, o.root) && sameSigned(s.targets, o.targets)
}

func sameSigned[T metadata.Roles](a, b *metadata.Metadata[T]) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, errX := signedDigest(a)
	y, errY := signedDigest(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func union(a, b []metadata.Signature) []metadata.Signature {
	for _, sig := range b {
		if !slices.ContainsFunc(a, func(s metadata.Signature) bool { return s.KeyID == sig.KeyID }) {
			a = append(a, sig)
		}
	}
	return a
}

// Describe says, for people, what a signature here would say.
func (s *Staged) Describe() string {
	var b strings.Builder
	if s.root != nil {
		fmt.Fprintf(&b, "root %d, until %s\n", s.root.Signed.Version, when(s.root.Signed.Expires))
		describeKeys(&b, s.root, s.previous)
	}
	fmt.Fprintf(&b, "targets %d, until %s\n", s.targets.Signed.Version, when(s.targets.Signed.Expires))
	names := make([]string, 0, len(s.files))
	for name := range s.files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(&b, "  %s  sha256:%s  %d bytes\n", name, hex.EncodeToString(s.targets.Signed.Targets[name].Hashes["sha256"]), len(s.files[name]))
	}
	b.WriteString("trusted root\n")
	authorities, _ := readAuthorities(s.files[trustedRootName]) // check has read them
	for _, a := range authorities {
		fmt.Fprintf(&b, "  %s\n", a)
	}
	return b.String()
}

func describeKeys(b *strings.Builder, root, before *rootMeta) {
	role, online := root.Signed.Roles[metadata.ROOT], root.Signed.Roles[metadata.TIMESTAMP]
	fmt.Fprintf(b, "  %d of these offline keys must sign\n", role.Threshold)
	var was []string
	wasOnline := ""
	if before != nil {
		was = before.Signed.Roles[metadata.ROOT].KeyIDs
		wasOnline = before.Signed.Roles[metadata.TIMESTAMP].KeyIDs[0]
		if t := before.Signed.Roles[metadata.ROOT].Threshold; t != role.Threshold {
			fmt.Fprintf(b, "    (until now %d)\n", t)
		}
	}
	note := func(isNew bool) string {
		if before != nil && isNew {
			return "  NEW"
		}
		return ""
	}
	for _, id := range role.KeyIDs {
		fmt.Fprintf(b, "    %s%s\n", id, note(!slices.Contains(was, id)))
	}
	for _, id := range was {
		if !slices.Contains(role.KeyIDs, id) {
			fmt.Fprintf(b, "    %s  REMOVED\n", id)
		}
	}
	fmt.Fprintf(b, "  the service's online key\n    %s%s\n", online.KeyIDs[0], note(online.KeyIDs[0] != wasOnline))
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// A Change is what to stage.
type Change struct {
	// Files are all target files, by name; trusted_root.json is among them.
	Files map[string][]byte
	// TargetsExpiry is how long the targets are good. Default half a year.
	TargetsExpiry time.Duration
	// RootExpiry is how long a new root is good. Default a year.
	RootExpiry time.Duration
	// NewRoot stages a new root even if it changes nothing but its expiry.
	NewRoot bool
	// Add and Remove are offline keys, PEM and IDs. The first publication
	// adds all of them.
	Add    []crypto.PublicKey
	Remove []string
	// Threshold is how many offline keys must sign; 0 leaves it. The first
	// publication needs it.
	Threshold int
	// NewOnline names the newest version of the online key in the new root.
	// The first publication does in any case.
	NewOnline bool
}

// Stage prepares a publication. The first makes the root; later ones have a
// new root only where the change asks for it. Targets are always new.
func (r *Repository) Stage(ctx context.Context, now time.Time, c Change) (*Staged, error) {
	if c.TargetsExpiry == 0 {
		c.TargetsExpiry = DefaultTargetsExpiry
	}
	if c.RootExpiry == 0 {
		c.RootExpiry = DefaultRootExpiry
	}
	if c.TargetsExpiry < time.Hour || c.RootExpiry < time.Hour || c.TargetsExpiry > maxExpiry || c.RootExpiry > maxExpiry {
		return nil, fmt.Errorf("%w: expiry: want 1h to %s", attest.ErrInvalid, maxExpiry)
	}
	if err := checkFiles(c.Files); err != nil {
		return nil, err
	}
	published, err := load(r.config.Directory)
	if err != nil && !errors.Is(err, attest.ErrNotFound) {
		return nil, err
	}
	s := &Staged{files: c.Files}
	targets := metadata.Targets(expiry(now, c.TargetsExpiry))
	if published != nil {
		s.previous = published.root
		before, err := published.target(r.config.Directory, trustedRootName)
		if err != nil {
			return nil, err
		}
		if err := checkDropped(before, c.Files[trustedRootName], r.config.AllowDropped); err != nil { // Publish looks again
			return nil, err
		}
	}
	// Above all files that are there, published or not: a numbered name never
	// changes what it means.
	last, err := highest(r.config.Directory, metadata.TARGETS)
	if err != nil {
		return nil, err
	}
	targets.Signed.Version = last + 1
	for name, data := range c.Files {
		targets.Signed.Targets[name] = describeFile(data)
	}
	s.targets = targets
	if s.previous == nil || c.NewRoot || c.NewOnline || c.Threshold != 0 || len(c.Add)+len(c.Remove) > 0 {
		if s.root, err = r.newRoot(ctx, s.previous, now, c); err != nil {
			return nil, err
		}
	}
	return s, s.check()
}

// newRoot is the root after a change.
func (r *Repository) newRoot(ctx context.Context, before *rootMeta, now time.Time, c Change) (*rootMeta, error) {
	root := metadata.Root(expiry(now, c.RootExpiry))
	s := &root.Signed
	threshold, online := c.Threshold, ""
	keys := map[string]*metadata.Key{}
	if before != nil {
		s.Version = before.Signed.Version + 1
		if s.Version > maxRoots {
			return nil, fmt.Errorf("%w: root %d: clients follow no more than %d", attest.ErrInvalid, s.Version, maxRoots)
		}
		role := before.Signed.Roles[metadata.ROOT]
		if threshold == 0 {
			threshold = role.Threshold
		}
		for _, id := range role.KeyIDs {
			keys[id] = before.Signed.Keys[id]
		}
		online = before.Signed.Roles[metadata.TIMESTAMP].KeyIDs[0]
		s.Keys[online] = before.Signed.Keys[online]
	}
	for _, id := range c.Remove {
		if keys[id] == nil {
			return nil, fmt.Errorf("%w: remove key %s: it is no offline key of this repository", attest.ErrInvalid, shortID(id))
		}
		delete(keys, id)
	}
	for _, public := range c.Add {
		key, id, err := tufKey(public)
		if err != nil {
			return nil, err
		}
		if keys[id] != nil {
			return nil, fmt.Errorf("%w: add key %s: it is there already", attest.ErrInvalid, shortID(id))
		}
		keys[id] = key
	}
	if before == nil || c.NewOnline {
		signers, err := r.config.Online(ctx)
		if err != nil {
			return nil, fmt.Errorf("online key: %w", err)
		}
		if len(signers) == 0 {
			return nil, fmt.Errorf("%w: online key: the key backend has none", attest.ErrNotFound)
		}
		key, id, err := tufKey(signers[len(signers)-1].Public())
		if err != nil {
			return nil, err
		}
		if id == online {
			return nil, fmt.Errorf("%w: online key: its newest version is the one in root %d: rotate it first", attest.ErrInvalid, before.Signed.Version)
		}
		delete(s.Keys, online)
		online = id
		s.Keys[id] = key
	}
	ids := make([]string, 0, len(keys))
	for id, key := range keys {
		ids = append(ids, id)
		s.Keys[id] = key
	}
	slices.Sort(ids)
	for _, role := range []string{metadata.ROOT, metadata.TARGETS} {
		s.Roles[role] = &metadata.Role{KeyIDs: ids, Threshold: threshold}
	}
	for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		s.Roles[role] = &metadata.Role{KeyIDs: []string{online}, Threshold: 1}
	}
	return root, nil
}

// expiry is a time as TUF writes it.
func expiry(now time.Time, life time.Duration) time.Time {
	return now.Add(life).UTC().Truncate(time.Second)
}

// WriteNew is [Staged.Write] for a file that must not be there.
func (s *Staged) WriteNew(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is there already", attest.ErrConflict, filepath.Base(path))
	}
	return s.Write(path)
}
