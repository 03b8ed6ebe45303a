// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"provost/attest"
)

type (
	rootMeta      = metadata.Metadata[metadata.RootType]
	targetsMeta   = metadata.Metadata[metadata.TargetsType]
	snapshotMeta  = metadata.Metadata[metadata.SnapshotType]
	timestampMeta = metadata.Metadata[metadata.TimestampType]
)

// Bounds. Those of metadata are what clients accept: go-tuf's client stops
// reading there, and follows this many roots in one update.
const (
	maxRoot      = 512_000
	maxTimestamp = 16_384
	maxSnapshot  = 2_000_000
	maxTargets   = 5_000_000
	maxRoots     = 256
	maxTarget    = 4 << 20 // one target file
	maxFiles     = 10_000  // target files
	maxOffline   = 16      // offline keys
)

const (
	trustedRootName   = "trusted_root.json"
	signingConfigName = "signing_config.v0.2.json"
	timestampName     = "timestamp.json"
	snapshotKey       = "snapshot.json" // the names of roles within metadata
	targetsKey        = "targets.json"
)

var (
	numbered   = regexp.MustCompile(`^([1-9][0-9]{0,8})\.(root|targets|snapshot)\.json$`)
	targetName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)
)

// A state is what the directory publishes, verified but for expiry: an old
// repository is still the one that was published.
type state struct {
	root *rootMeta
	raw  rawState
	// The rest is verified under root or, if a publication was killed before
	// it replaced the timestamp, under the root before it.
	halfway   bool
	timestamp *timestampMeta
	snapshot  *snapshotMeta
	targets   *targetsMeta
}

type rawState struct{ root, timestamp, snapshot []byte }

// load reads and verifies what is published. It is an [attest.ErrNotFound] if
// nothing is: a first publication is complete with its timestamp. Anything
// that does not verify is an error: nothing is believed by halves.
func load(dir string) (*state, error) {
	s, err := loadOnce(dir)
	if err != nil && !errors.Is(err, attest.ErrNotFound) {
		// Readers do not lock: the timestamp may have been replaced after the
		// roots were read.
		return loadOnce(dir)
	}
	return s, err
}

func loadOnce(dir string) (*state, error) {
	roots, err := loadRoots(dir)
	if err != nil {
		return nil, err
	}
	var s state
	if s.raw.timestamp, err = readBounded(filepath.Join(dir, timestampName), maxTimestamp); err != nil {
		if len(roots) <= 1 && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: nothing is published in %s", attest.ErrNotFound, dir)
		}
		return nil, fmt.Errorf("TUF repository %s: %w", dir, err)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("TUF repository %s: it has a timestamp but no 1.root.json: N.root.json must be kept for ever", dir)
	}
	last := roots[len(roots)-1]
	s.root, s.raw.root = last.meta, last.raw
	err = s.under(dir, s.root)
	if err != nil && len(roots) > 1 && s.under(dir, roots[len(roots)-2].meta) == nil {
		s.halfway = true
		return &s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("TUF repository %s: %w", dir, err)
	}
	return &s, nil
}

// under reads timestamp, snapshot and targets and verifies them under a root.
func (s *state) under(dir string, root *rootMeta) (err error) {
	if s.timestamp, err = parse[metadata.TimestampType](s.raw.timestamp, maxTimestamp); err != nil {
		return err
	}
	if err := root.VerifyDelegate(metadata.TIMESTAMP, s.timestamp); err != nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	version, err := s.metaRaw(dir, s.timestamp.Signed.Meta[snapshotKey], metadata.SNAPSHOT, maxSnapshot, &s.raw.snapshot)
	if err != nil {
		return err
	}
	if s.snapshot, err = parse[metadata.SnapshotType](s.raw.snapshot, maxSnapshot); err != nil {
		return err
	}
	if err := root.VerifyDelegate(metadata.SNAPSHOT, s.snapshot); err != nil {
		return fmt.Errorf("%d.snapshot.json: %w", version, err)
	}
	if s.snapshot.Signed.Version != version {
		return fmt.Errorf("%w: %d.snapshot.json is version %d", attest.ErrInvalid, version, s.snapshot.Signed.Version)
	}
	var raw []byte
	version, err = s.metaRaw(dir, s.snapshot.Signed.Meta[targetsKey], metadata.TARGETS, maxTargets, &raw)
	if err != nil {
		return err
	}
	if s.targets, err = parse[metadata.TargetsType](raw, maxTargets); err != nil {
		return err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, s.targets); err != nil {
		return fmt.Errorf("%d.targets.json: %w", version, err)
	}
	if s.targets.Signed.Version != version {
		return fmt.Errorf("%w: %d.targets.json is version %d", attest.ErrInvalid, version, s.targets.Signed.Version)
	}
	return nil
}

// metaRaw reads the metadata file that m names.
func (s *state) metaRaw(dir string, m *metadata.MetaFiles, role string, max int64, raw *[]byte) (version int64, err error) {
	if m == nil {
		return 0, fmt.Errorf("%w: no %s is named", attest.ErrInvalid, role)
	}
	if *raw, err = readBounded(filepath.Join(dir, numberedName(m.Version, role)), max); err != nil {
		return 0, err
	}
	if err := m.VerifyLengthHashes(*raw); err != nil {
		return 0, fmt.Errorf("%s: %w", numberedName(m.Version, role), err)
	}
	return m.Version, nil
}

// target reads a published target file, verified; ErrNotFound if it is not
// among the targets.
func (s *state) target(dir, name string) ([]byte, error) {
	file, ok := s.targets.Signed.Targets[name]
	if !ok {
		return nil, fmt.Errorf("%w: target %s", attest.ErrNotFound, name)
	}
	path := filepath.Join(dir, "targets", hex.EncodeToString(file.Hashes["sha256"])+"."+name)
	data, err := readBounded(path, min(file.Length, maxTarget))
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	if err := file.VerifyLengthHashes(data); err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	return data, nil
}

type publishedRoot struct {
	meta *rootMeta
	raw  []byte
}

// loadRoots reads every root from the first, each verified under the one
// before it. There may be none.
func loadRoots(dir string) ([]publishedRoot, error) {
	last, err := highest(dir, metadata.ROOT)
	if err != nil {
		return nil, err
	}
	if last > maxRoots {
		return nil, fmt.Errorf("TUF repository %s: %d roots: clients follow no more than %d", dir, last, maxRoots)
	}
	var roots []publishedRoot
	for v := int64(1); v <= last; v++ {
		name := numberedName(v, metadata.ROOT)
		raw, err := readBounded(filepath.Join(dir, name), maxRoot)
		if err != nil {
			return nil, fmt.Errorf("TUF repository %s: %w (N.root.json must be kept for ever)", dir, err)
		}
		root, err := parse[metadata.RootType](raw, maxRoot)
		if err != nil {
			return nil, fmt.Errorf("TUF repository %s: %s: %w", dir, name, err)
		}
		if err := checkRoot(root); err != nil {
			return nil, fmt.Errorf("TUF repository %s: %s: %w", dir, name, err)
		}
		err = root.VerifyDelegate(metadata.ROOT, root)
		if v > 1 {
			err = errors.Join(err, roots[v-2].meta.VerifyDelegate(metadata.ROOT, root))
		}
		if root.Signed.Version != v {
			err = errors.Join(err, fmt.Errorf("%w: it is version %d", attest.ErrInvalid, root.Signed.Version))
		}
		if err != nil {
			return nil, fmt.Errorf("TUF repository %s: %s does not follow from the root before it: %w", dir, name, err)
		}
		roots = append(roots, publishedRoot{root, raw})
	}
	return roots, nil
}

// highest returns the highest version of a role for which there is a file,
// whether it is published or not; 0 if there is none.
func highest(dir, role string) (int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var top int64
	for _, e := range entries {
		if m := numbered.FindStringSubmatch(e.Name()); m != nil && m[2] == role {
			version, _ := strconv.ParseInt(m[1], 10, 64) // at most 9 digits
			top = max(top, version)
		}
	}
	return top, nil
}

func numberedName(version int64, role string) string {
	return strconv.FormatInt(version, 10) + "." + role + ".json"
}

// parse reads metadata of one type. A second value, a member that we would
// not write, or one that is there twice, is refused: we read only our own.
func parse[T metadata.Roles](raw []byte, max int) (*metadata.Metadata[T], error) {
	if len(raw) > max {
		return nil, fmt.Errorf("%w: metadata of more than %d bytes", attest.ErrInvalid, max)
	}
	m, err := new(metadata.Metadata[T]).FromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: metadata: %w", attest.ErrInvalid, err)
	}
	again, err := encode(m)
	if err != nil {
		return nil, err
	}
	var was bytes.Buffer
	if err := json.Compact(&was, raw); err != nil || len(m.UnrecognizedFields) > 0 {
		return nil, fmt.Errorf("%w: metadata: not as this program writes it", attest.ErrInvalid)
	}
	var is bytes.Buffer
	if err := json.Compact(&is, again); err != nil || !bytes.Equal(was.Bytes(), is.Bytes()) {
		return nil, fmt.Errorf("%w: metadata: not as this program writes it", attest.ErrInvalid)
	}
	return m, nil
}

// encode is the bytes of metadata as published.
func encode[T metadata.Roles](m *metadata.Metadata[T]) ([]byte, error) {
	raw, err := m.ToBytes(true)
	if err != nil {
		return nil, fmt.Errorf("%w: metadata: %w", attest.ErrInvalid, err)
	}
	return append(raw, '\n'), nil
}

// checkRoot refuses a root that this program would not make, whoever signed
// it: root and targets have the same offline keys and threshold, snapshot and
// timestamp one online key that is none of them, and every key is ECDSA P-256
// under its own name.
func checkRoot(root *rootMeta) error {
	s := &root.Signed
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: root: "+format, append([]any{attest.ErrInvalid}, args...)...)
	}
	if s.Version < 1 || !s.ConsistentSnapshot || s.SpecVersion != metadata.SPECIFICATION_VERSION || len(s.UnrecognizedFields) > 0 || len(s.Roles) != 4 {
		return bad("not as this program makes it")
	}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		r := s.Roles[role]
		if r == nil || len(r.UnrecognizedFields) > 0 {
			return bad("role %s: not as this program makes it", role)
		}
		if !slices.IsSorted(r.KeyIDs) || len(slices.Compact(slices.Clone(r.KeyIDs))) != len(r.KeyIDs) {
			return bad("role %s: a key stands twice, or keys are not in order", role)
		}
	}
	offline, targets, online, timestamp := s.Roles[metadata.ROOT], s.Roles[metadata.TARGETS], s.Roles[metadata.SNAPSHOT], s.Roles[metadata.TIMESTAMP]
	if offline.Threshold < 1 || offline.Threshold > len(offline.KeyIDs) || len(offline.KeyIDs) > maxOffline {
		return bad("threshold %d of %d keys: want 1 to %d keys and no more than there are", offline.Threshold, len(offline.KeyIDs), maxOffline)
	}
	if !slices.Equal(offline.KeyIDs, targets.KeyIDs) || offline.Threshold != targets.Threshold {
		return bad("root and targets must have the same keys and threshold")
	}
	if !slices.Equal(online.KeyIDs, timestamp.KeyIDs) || len(online.KeyIDs) != 1 || online.Threshold != 1 || timestamp.Threshold != 1 {
		return bad("snapshot and timestamp must have the one online key")
	}
	if slices.Contains(offline.KeyIDs, online.KeyIDs[0]) {
		return bad("the online key must not be an offline key")
	}
	if len(s.Keys) != len(offline.KeyIDs)+1 {
		return bad("a key that has no role, or a role without its key")
	}
	for _, id := range append(slices.Clone(offline.KeyIDs), online.KeyIDs...) {
		key := s.Keys[id]
		if key == nil || len(key.UnrecognizedFields) > 0 {
			return bad("key %s is missing, or not as this program makes it", shortID(id))
		}
		public, err := key.ToPublicKey()
		if err != nil {
			return bad("key %s: %v", shortID(id), err)
		}
		if p, ok := public.(*ecdsa.PublicKey); !ok || p.Curve != elliptic.P256() {
			return bad("key %s: want ECDSA P-256", shortID(id))
		}
		if _, own, err := tufKey(public); err != nil || own != id {
			return bad("key %s stands under a name that is not its own", shortID(id))
		}
	}
	return nil
}

// checkTargets refuses targets that this program would not make, and files
// that are not exactly what they name.
func checkTargets(targets *targetsMeta, files map[string][]byte) error {
	s := &targets.Signed
	if s.Version < 1 || s.Delegations != nil || len(s.UnrecognizedFields) > 0 || s.SpecVersion != metadata.SPECIFICATION_VERSION {
		return fmt.Errorf("%w: targets: not as this program makes them", attest.ErrInvalid)
	}
	if len(s.Targets) != len(files) {
		return fmt.Errorf("%w: targets: %d are named and %d are there", attest.ErrInvalid, len(s.Targets), len(files))
	}
	if err := checkFiles(files); err != nil {
		return err
	}
	for name, data := range files {
		want := describeFile(data)
		got := s.Targets[name]
		if got == nil || got.Custom != nil || len(got.UnrecognizedFields) > 0 || got.Length != want.Length || len(got.Hashes) != 2 ||
			!bytes.Equal(got.Hashes["sha256"], want.Hashes["sha256"]) || !bytes.Equal(got.Hashes["sha512"], want.Hashes["sha512"]) {
			return fmt.Errorf("%w: target %s is not what the targets say", attest.ErrInvalid, name)
		}
	}
	return nil
}

func checkFiles(files map[string][]byte) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%w: %d target files: want no more than %d", attest.ErrInvalid, len(files), maxFiles)
	}
	if files[trustedRootName] == nil {
		return fmt.Errorf("%w: target files: want %s among them", attest.ErrInvalid, trustedRootName)
	}
	for name, data := range files {
		if !targetName.MatchString(name) {
			return fmt.Errorf("%w: target %.120q: want a name of lower-case letters, digits, dots, dashes and underscores", attest.ErrInvalid, name)
		}
		if len(data) == 0 || len(data) > maxTarget {
			return fmt.Errorf("%w: target %s has %d bytes: want 1 to %d", attest.ErrInvalid, name, len(data), maxTarget)
		}
	}
	return nil
}

// describeFile is what targets say about a file. It has both hashes, as
// clients may choose either for the name under which they ask for it.
func describeFile(data []byte) *metadata.TargetFiles {
	short, long := sha256.Sum256(data), sha512.Sum512(data)
	return &metadata.TargetFiles{
		Length: int64(len(data)),
		Hashes: metadata.Hashes{"sha256": short[:], "sha512": long[:]},
	}
}
