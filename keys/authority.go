// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"provost/attest"
)

// Names of the keys that are not signers', in the backend and the archive.
const (
	keyRoot      = "root" // in the archive only
	keyTimestamp = "timestamp"
	keyLog       = "log"   // signs the checkpoints of the transparency log; a version is a shard
	keyCTLog     = "ctlog" // signs SCTs, and the checkpoints of the log of leaf certificates
	keyTUF       = "tuf"   // signs TUF's snapshot and timestamp; in the backend only
)

// keyIssuing names the key of the CA that issues a signer's leaves. A version
// is an epoch: taking back an interval of one touches no other signer, and none
// of the epochs after it.
func keyIssuing(p attest.Power) string { return "issuing-" + string(p) }

// authorityKeys are the keys that the root certifies.
func authorityKeys() []string {
	names := []string{keyTimestamp, keyLog, keyCTLog}
	for _, p := range attest.Powers {
		names = append(names, keyIssuing(p))
	}
	return names
}

// allKeys are the names of all keys of the backend.
func allKeys() []string {
	names := append(authorityKeys(), keyTUF)
	for _, p := range attest.Powers {
		names = append(names, string(p))
	}
	return names
}

// An Archive keeps every certificate and revocation for ever. What it has
// returned survives the process being killed. It is not trusted: see
// [Config.Root].
type Archive interface {
	// Certificates returns all certificates, in any order.
	Certificates(ctx context.Context) ([]attest.Certificate, error)
	// AppendCertificate stores a certificate and returns what is stored under
	// its name and version: the first one wins. An error that may pass wraps
	// [attest.ErrUnavailable].
	AppendCertificate(ctx context.Context, c attest.Certificate) (attest.Certificate, error)
	// KeyRevocations returns all revocations, in the order of storing.
	KeyRevocations(ctx context.Context) ([]attest.KeyRevocation, error)
	// AppendKeyRevocation stores a revocation.
	AppendKeyRevocation(ctx context.Context, r attest.KeyRevocation) error
}

// Leases are how several processes agree who does a thing.
type Leases interface {
	// Claim grants a lease until then, unless another holder has it now. Its
	// own holder extends it.
	Claim(ctx context.Context, name, holder string, now, until time.Time) (bool, error)
	// Release ends a lease of that holder.
	Release(ctx context.Context, name, holder string) error
}

// A Config is what an [Authority] stands on.
type Config struct {
	Backend Backend
	Archive Archive
	Leases  Leases
	// Identity is this service's name in certificates, an https URL without a
	// slash at its end. A signer is Identity + "/signers/" + its name, and
	// the OIDC issuer of its leaves is Identity. It cannot be changed later:
	// the world's policies name it.
	Identity string
	// Organization is the O of the root and of what it signs. Only Init
	// needs it.
	Organization string
	// SigningWindow is how long a key version signs; a minute to a year.
	SigningWindow time.Duration
	// MaxSignatures is how many signatures a key version makes before it is
	// rotated, as far as Signatures counts them; 0 for no such limit.
	MaxSignatures int64
	// Signatures counts what a key version has signed. It is asked at each
	// [Authority.Maintain], and required with MaxSignatures.
	Signatures func(ctx context.Context, p attest.Power, version int) (int64, error)
	// RetireAfter is how long after its successor was adopted a version is
	// taken out of use in the backend, if that is a [Retirer]. It leaves other
	// processes the time to find out; whoever did not is told by the backend.
	// 0 for two minutes; negative for never.
	RetireAfter time.Duration
	// Lead is how long before its first use an authority must be certified, so
	// that every verifier has heard of it; 0 for 48 hours.
	Lead time.Duration
	// Published returns the trusted root that verifiers have been given, to
	// use no authority they do not know; nil when it is not distributed. It
	// returns nil while nothing is published yet, or what was is not to be
	// found: then only the authorities that Init made are used.
	Published func(ctx context.Context) ([]byte, error)
	// Restrict returns what is left of a trusted root when it trusts nothing
	// that clients of the published one do not, and says what it took away. It
	// is required with Published.
	Restrict func(published, trustedRoot []byte, now time.Time) (left []byte, changed []string, err error)
	// Log is the transparency log; nil for none.
	Log *LogConfig
	// Timestamps says whose timestamps a signature gets.
	Timestamps Timestamps
	// Root is the SHA-256 of the root certificate's DER: what makes the
	// archive's certificates ours, and not of whoever can write there. Keep it
	// where those cannot. Open refuses without it; the first Init makes it,
	// and [Root] tells it.
	Root attest.Digest
	// Now is the clock; nil for the system's.
	Now func() time.Time
	// Warn is told what does not stop the service and should be known; nil for
	// nobody.
	Warn func(message string, args ...any)
}

const (
	defaultRetireAfter = 2 * time.Minute
	defaultLead        = 48 * time.Hour
)

func (c *Config) complete() error {
	u, err := url.Parse(c.Identity)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Host != strings.ToLower(u.Host) || u.User != nil ||
		u.String() != c.Identity || strings.ContainsAny(c.Identity, "?#") || strings.HasSuffix(c.Identity, "/") {
		return fmt.Errorf("%w: identity %.200q: want https://host, lower-case, without a slash at the end", attest.ErrInvalid, c.Identity)
	}
	if c.SigningWindow < time.Minute || c.SigningWindow > 366*24*time.Hour {
		return fmt.Errorf("%w: signing window %s: want a minute to a year", attest.ErrInvalid, c.SigningWindow)
	}
	if c.MaxSignatures < 0 || c.MaxSignatures > 0 && c.Signatures == nil {
		return fmt.Errorf("%w: at most %d signatures: want 0 or more, and somebody who counts", attest.ErrInvalid, c.MaxSignatures)
	}
	if c.Lead < 0 {
		return fmt.Errorf("%w: lead %s: want 0 or more", attest.ErrInvalid, c.Lead)
	}
	if c.Published != nil && c.Restrict == nil {
		return fmt.Errorf("%w: what is published must be compared: want Restrict", attest.ErrInvalid)
	}
	if err := c.Timestamps.complete(); err != nil {
		return err
	}
	if c.Log != nil {
		if err := c.Log.complete(); err != nil {
			return err
		}
	}
	if c.RetireAfter == 0 {
		c.RetireAfter = defaultRetireAfter
	}
	if c.Lead == 0 {
		c.Lead = defaultLead
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Warn == nil {
		c.Warn = func(string, ...any) {}
	}
	return nil
}

// An Authority signs: for each [attest.Power] statements, and timestamps. It
// is an [attest.Timestamper]. It is safe for concurrent use, and several
// processes may run one each on the same backend and archive.
type Authority struct {
	config  Config
	holder  string // names this process in leases
	signers map[attest.Power]*signer
	now     atomic.Pointer[state]
	reading sync.Mutex // held by refresh, so that what was read first is never what counts last
	log     *shard     // the shard that is open for writing; nil without a log
	shards  []*shard
	ct      *ctLog // nil without a log
	probe   probe
	// settling is touched by Reconcile and Settle alone.
	settling settling
}

// Open opens what [Init] made under the pinned root. It refuses when there is
// nothing, when the archive has another root or anything that this one's
// hierarchy does not explain, and when archive and backend do not agree on
// every public key that both know: one of them is then not what it was. The
// caller must call Close.
func Open(ctx context.Context, config Config) (*Authority, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	if config.Root.IsZero() {
		return nil, fmt.Errorf("%w: keys: no root pinned: run provostd init, which prints it", attest.ErrInvalid)
	}
	a := &Authority{config: config, holder: attest.NewID(), signers: make(map[attest.Power]*signer)}
	a.probe.turn = make(chan struct{}, 1)
	for _, p := range attest.Powers {
		a.signers[p] = newSigner(a, p)
	}
	now, err := a.refresh(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range attest.Powers {
		s := a.signers[p]
		if leaves := now.certs[string(p)]; len(leaves) > 0 {
			newest, err := a.agreeing(ctx, string(p), leaves)
			if err != nil {
				return nil, err
			}
			s.take(now, newest)
		}
	}
	if config.Log != nil {
		if err := a.openLogs(ctx, now); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	return a, nil
}

// Close ends what the authority has open. What is under way is completed.
func (a *Authority) Close() error {
	var err error
	if a.log != nil {
		err = a.log.tree.Close()
	}
	for _, s := range a.shards {
		err = errors.Join(err, s.tree.Close())
	}
	if a.ct != nil {
		err = errors.Join(err, a.ct.tree.Close())
	}
	return err
}

// refresh reads the archive, and makes it what verifiers are told from now on.
// When it fails what was read before stays.
func (a *Authority) refresh(ctx context.Context) (*state, error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	archived, err := readArchive(ctx, a.config)
	if err != nil {
		return nil, err
	}
	if a.config.Log == nil && len(archived.certs[keyLog]) > 0 { // closed: verifiers ask for entries from now on
		return nil, fmt.Errorf("%w: this service has a transparency log, and the configuration names none: it cannot be turned off", attest.ErrConflict)
	}
	before := a.now.Load()
	for _, name := range authorityKeys() {
		certs := archived.certs[name]
		if before != nil && len(certs) == len(before.certs[name]) { // certificates never change
			continue
		}
		if len(certs) > 0 {
			if _, err := a.agreeing(ctx, name, certs); err != nil {
				return nil, err
			}
		} else if a.config.Log != nil || name != keyLog && name != keyCTLog {
			return nil, fmt.Errorf("%w: the root certified no %s key: the archive has lost certificates, or the configuration names what was not made", attest.ErrConflict, name)
		}
	}
	for _, p := range attest.Powers {
		if err := a.signers[p].checkLeaves(archived); err != nil {
			return nil, err
		}
	}
	revoked, err := a.config.Archive.KeyRevocations(ctx)
	if err != nil {
		return nil, fmt.Errorf("read revocations: %w", err)
	}
	now := &state{archived: archived, revoked: revoked, distributed: a.config.Published != nil}
	if now.own, err = trustedRoot(a.config, now); err != nil {
		return nil, err
	}
	if now.distributed {
		now.published, err = a.config.Published(ctx)
		switch {
		case err != nil && before == nil:
			return nil, fmt.Errorf("read what is published: %w", err)
		case err != nil: // closed: no authority becomes known, and revocations count as ever
			now.published = before.published
			a.config.Warn("what is published cannot be read: no new authority is used", "error", err.Error())
		case now.published == nil && before != nil && before.published != nil: // closed, as above
			now.published = before.published
			a.config.Warn("what was published is gone: is the directory still there? No new authority is used")
		}
	}
	if err := a.restrict(before, now); err != nil {
		return nil, err
	}
	a.now.Store(now)
	return now, nil
}

// Signer returns the signer of that power. It always returns one; for anything
// not in [attest.Powers], one that never signs.
func (a *Authority) Signer(p attest.Power) attest.Signer {
	if s, ok := a.signers[p]; ok {
		return s
	}
	return newSigner(a, p)
}

// TrustedRoot returns trusted_root.json, all that a verifier needs to have. It
// is the same bytes every time, until another authority is certified or an
// interval revoked: which other processes see at their next
// [Authority.Maintain]. The caller must not change them. It trusts nothing that
// clients of what is published do not.
func (a *Authority) TrustedRoot() ([]byte, error) { return a.now.Load().trusted, nil }

// ToPublish returns the trusted root as the archive has it, whatever is
// published: see [TrustedRoot].
func (a *Authority) ToPublish() []byte { return a.now.Load().own }

// Rotate makes a new version of the signer's key, a leaf for it, archives the
// leaf, and only then signs with it; signing goes on meanwhile. Other
// processes adopt the version at their next [Authority.Maintain]. When it
// fails nothing changes for signing, and a new version may be left in the
// backend, which the next Maintain adopts.
func (a *Authority) Rotate(ctx context.Context, p attest.Power) (attest.KeyVersion, error) {
	p, err := attest.ParsePower(string(p))
	if err != nil {
		return attest.KeyVersion{}, err
	}
	return a.signers[p].rotate(ctx)
}

// Maintain adopts key versions that somebody else made, and rotates signers
// whose signing window has ended. It is to be called every minute or so, and
// does for every signer what can be done: the error joins what could not.
func (a *Authority) Maintain(ctx context.Context) error {
	var errs []error
	if _, err := a.refresh(ctx); err != nil {
		return err
	}
	for _, p := range attest.Powers {
		if err := a.signers[p].maintain(ctx); err != nil {
			errs = append(errs, fmt.Errorf("maintain signer %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// Keys returns all signers with every version that ever had a leaf, ascending.
func (a *Authority) Keys(ctx context.Context) ([]attest.Key, error) {
	read, err := a.refresh(ctx)
	if err != nil {
		return nil, err
	}
	now := a.config.Now()
	keys := make([]attest.Key, 0, len(attest.Powers))
	for _, p := range attest.Powers {
		s := a.signers[p]
		key := attest.Key{Signer: p, Identity: s.identity}
		for _, l := range read.certs[string(p)] {
			key.Versions = append(key.Versions, s.keyVersion(read, l, now))
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// pinned is a signer with a certified version of a key.
func (a *Authority) pinned(ctx context.Context, key string, c certified) pinned {
	return pinned{ctx, a.config.Backend, key, c.version, c.public()}
}

// probeFor is how long [Authority.Ready] believes what it found.
const probeFor = time.Second

// probeDigest is what Ready signs: no statement has it, since what is signed
// for a statement begins with "DSSEv1", and no certificate: DER begins with 0x30.
func probeDigest() [sha256.Size]byte { return sha256.Sum256([]byte("provost: readiness probe")) }

type probe struct {
	turn chan struct{}
	at   time.Time
	err  error
}

// Ready reports whether every signer, the timestamp authority, the logs and the
// issuing CA, without which signers cannot rotate and so will end, can sign now:
// it has each of them sign a constant and checks the signature. The logs'
// directories must take a file. Callers within a second share one answer.
func (a *Authority) Ready(ctx context.Context) error {
	select {
	case a.probe.turn <- struct{}{}:
		defer func() { <-a.probe.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", attest.ErrUnavailable, ctx.Err())
	}
	// The clock of this machine: this is about load, not about validity.
	if !a.probe.at.IsZero() && time.Since(a.probe.at) < probeFor {
		return a.probe.err
	}
	a.probe.err = a.ready(ctx)
	a.probe.at = time.Now()
	return a.probe.err
}

func (a *Authority) ready(ctx context.Context) error {
	digest := probeDigest()
	now := a.now.Load()
	for _, p := range attest.Powers {
		current, err := a.signers[p].valid()
		if err != nil {
			return err
		}
		if _, err := a.pinned(ctx, string(p), current).Sign(nil, digest[:], nil); err != nil {
			return fmt.Errorf("signer %s: %w", p, outward(err))
		}
		ca, err := now.issuing(p, a.config.Now())
		if err != nil {
			return err
		}
		if _, err := a.pinned(ctx, keyIssuing(p), ca).Sign(nil, digest[:], nil); err != nil {
			return fmt.Errorf("issuing CA of %s: %w", p, outward(err))
		}
	}
	tsa, err := now.timestamping(a.config.Now())
	if err != nil {
		return err
	}
	if _, err := a.pinned(ctx, keyTimestamp, tsa).Sign(nil, digest[:], nil); err != nil {
		return fmt.Errorf("timestamp authority: %w", outward(err))
	}
	if a.log == nil {
		return nil
	}
	if _, err := a.pinned(ctx, keyLog, a.log.key).Sign(nil, digest[:], nil); err != nil {
		return fmt.Errorf("log: %w", outward(err))
	}
	if _, err := a.pinned(ctx, keyCTLog, a.ct.key).Sign(nil, digest[:], nil); err != nil {
		return fmt.Errorf("log of certificates: %w", outward(err))
	}
	if err := a.log.tree.Ready(); err != nil {
		return err
	}
	return a.ct.tree.Ready()
}

// Expiries are the ends of what is in use, by name: "signer NAME" for the leaf,
// "issuing NAME" for the newest CA of a signer, and "timestamp" for the newest
// timestamp authority. Leaves are renewed by the service; the others need the
// offline root (see [RequestAuthority]).
func (a *Authority) Expiries() map[string]time.Time {
	now := a.now.Load()
	ends := map[string]time.Time{}
	last := func(name, key string) {
		if certs := now.certs[key]; len(certs) > 0 {
			ends[name] = certs[len(certs)-1].cert.NotAfter
		}
	}
	for _, p := range attest.Powers {
		if current := a.signers[p].current.Load(); current.cert != nil {
			ends["signer "+string(p)] = current.cert.NotAfter
		}
		last("issuing "+string(p), keyIssuing(p))
	}
	last("timestamp", keyTimestamp)
	return ends
}

// outward is an error of the backend as the callers of an Authority may see
// it: what is not found or invalid there is no fault of who asked here.
func outward(err error) error {
	for _, kind := range []error{attest.ErrNotFound, attest.ErrInvalid, attest.ErrDenied, attest.ErrConflict} {
		if errors.Is(err, kind) && !errors.Is(err, attest.ErrUnavailable) {
			return fmt.Errorf("key backend: %v", err)
		}
	}
	return err
}
