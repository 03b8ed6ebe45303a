// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"provost/attest"
)

// Names of the keys that are not signers', in the backend and the archive.
const (
	keyRoot      = "root" // in the archive only
	keyIssuing   = "issuing"
	keyTimestamp = "timestamp"
)

// allKeys are the names of all keys of the backend.
func allKeys() []string {
	names := []string{keyIssuing, keyTimestamp}
	for _, p := range attest.Powers {
		names = append(names, string(p))
	}
	return names
}

// An Archive keeps every certificate for ever. What it has returned survives
// the process being killed. It is not trusted: see [Config.Root].
type Archive interface {
	// Certificates returns all certificates, in any order.
	Certificates(ctx context.Context) ([]attest.Certificate, error)
	// AppendCertificate stores a certificate and returns what is stored under
	// its name and version: the first one wins. An error that may pass wraps
	// [attest.ErrUnavailable].
	AppendCertificate(ctx context.Context, c attest.Certificate) (attest.Certificate, error)
}

// A Config is what an [Authority] stands on.
type Config struct {
	Backend Backend
	Archive Archive
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
	// Root is the SHA-256 of the root certificate's DER: what makes the
	// archive's certificates ours, and not of whoever can write there. Keep it
	// where those cannot. Open refuses without it; the first Init makes it,
	// and [Root] tells it.
	Root attest.Digest
	// Now is the clock; nil for the system's.
	Now func() time.Time
}

func (c *Config) complete() error {
	u, err := url.Parse(c.Identity)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Host != strings.ToLower(u.Host) || u.User != nil ||
		u.String() != c.Identity || strings.ContainsAny(c.Identity, "?#") || strings.HasSuffix(c.Identity, "/") {
		return fmt.Errorf("%w: identity %.200q: want https://host, lower-case, without a slash at the end", attest.ErrInvalid, c.Identity)
	}
	if c.SigningWindow < time.Minute || c.SigningWindow > 366*24*time.Hour {
		return fmt.Errorf("%w: signing window %s: want a minute to a year", attest.ErrInvalid, c.SigningWindow)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// An Authority signs: for each [attest.Power] statements, and timestamps. It
// is an [attest.Timestamper]. It is safe for concurrent use, and several
// processes may run one each on the same backend and archive.
type Authority struct {
	config  Config
	root    *x509.Certificate
	ca, tsa certified
	signers map[attest.Power]*signer
	trusted []byte
	probe   probe
}

// A certified is a key version with its certificate.
type certified struct {
	version int
	cert    *x509.Certificate
}

func (c certified) public() *ecdsa.PublicKey {
	public, _ := c.cert.PublicKey.(*ecdsa.PublicKey) // parseCertified looked
	return public
}

// Open opens what [Init] made under the pinned root. It refuses when there is
// nothing, when the archive has another root or anything that this one's
// hierarchy does not explain, and when archive and backend do not agree on
// every public key that both know: one of them is then not what it was. It
// writes nothing.
func Open(ctx context.Context, config Config) (*Authority, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	if config.Root.IsZero() {
		return nil, fmt.Errorf("%w: keys: no root pinned: run provostd init, which prints it", attest.ErrInvalid)
	}
	archived, err := readArchive(ctx, config)
	if err != nil {
		return nil, err
	}
	cas, tsas := archived.certs[keyIssuing], archived.certs[keyTimestamp]
	if len(cas) == 0 || len(tsas) == 0 {
		return nil, fmt.Errorf("%w: the root certified no issuing or no timestamp key: the archive has lost certificates", attest.ErrConflict)
	}
	a := &Authority{config: config, root: archived.root.cert, signers: make(map[attest.Power]*signer)}
	a.probe.turn = make(chan struct{}, 1)
	if a.ca, err = a.agreeing(ctx, keyIssuing, cas); err != nil {
		return nil, err
	}
	if a.tsa, err = a.agreeing(ctx, keyTimestamp, tsas); err != nil {
		return nil, err
	}
	if a.trusted, err = trustedRoot(config.Identity, a.root, cas, tsas); err != nil {
		return nil, err
	}
	for _, p := range attest.Powers {
		s := newSigner(a, p)
		leaves, err := s.leaves(archived, cas)
		if err != nil {
			return nil, err
		}
		if len(leaves) > 0 {
			newest, err := a.agreeing(ctx, string(p), leaves)
			if err != nil {
				return nil, err
			}
			s.current.Store(&adopted{certified: newest})
		}
		a.signers[p] = s
	}
	return a, nil
}

// agreeing returns the newest of a key's certified versions, after comparing
// each with the backend's public key.
func (a *Authority) agreeing(ctx context.Context, key string, certs []certified) (certified, error) {
	versions, err := a.config.Backend.Versions(ctx, key)
	if errors.Is(err, attest.ErrNotFound) {
		return certified{}, fmt.Errorf("%w: key %s is certified but the key backend has none: "+
			"is this the right one, and was it restored? (%v)", attest.ErrConflict, key, err)
	}
	if err != nil {
		return certified{}, err
	}
	return newestAgreeing(key, certs, versions)
}

func newestAgreeing(key string, certs []certified, versions []Version) (certified, error) {
	newest := certs[len(certs)-1]
	if last := versions[len(versions)-1].Number; newest.version > last {
		return certified{}, fmt.Errorf("%w: %s version %d is certified but the key backend ends at version %d: "+
			"it was put back to an older state", attest.ErrConflict, key, newest.version, last)
	}
	for _, v := range versions {
		for _, c := range certs {
			if c.version == v.Number && !c.public().Equal(v.Public) {
				return certified{}, fmt.Errorf("%w: %s version %d has another public key in the key backend than in its certificate: "+
					"the backend is not the one that was certified", attest.ErrConflict, key, v.Number)
			}
		}
	}
	return newest, nil
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
// is the same bytes every time, until Init certifies another CA. The caller
// must not change them.
func (a *Authority) TrustedRoot() ([]byte, error) { return a.trusted, nil }

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
	for _, p := range attest.Powers {
		if err := a.signers[p].maintain(ctx); err != nil {
			errs = append(errs, fmt.Errorf("maintain signer %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// Keys returns all signers with every version that ever had a leaf, ascending.
func (a *Authority) Keys(ctx context.Context) ([]attest.Key, error) {
	archived, err := readArchive(ctx, a.config)
	if err != nil {
		return nil, err
	}
	now := a.config.Now()
	keys := make([]attest.Key, 0, len(attest.Powers))
	for _, p := range attest.Powers {
		s := a.signers[p]
		leaves, err := s.leaves(archived, archived.certs[keyIssuing])
		if err != nil {
			return nil, err
		}
		key := attest.Key{Signer: p, Identity: s.identity}
		for _, l := range leaves {
			key.Versions = append(key.Versions, s.keyVersion(l, now))
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

// Ready reports whether every signer, the timestamp authority and the issuing
// CA, without which signers cannot rotate and so will end, can sign now: it has
// each of them sign a constant and checks the signature. Callers within a
// second share one answer.
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
	for _, p := range attest.Powers {
		current, err := a.signers[p].valid()
		if err != nil {
			return err
		}
		if _, err := a.pinned(ctx, string(p), current).Sign(nil, digest[:], nil); err != nil {
			return fmt.Errorf("signer %s: %w", p, outward(err))
		}
	}
	for _, k := range []struct {
		who, key string
		certified
	}{{"timestamp authority", keyTimestamp, a.tsa}, {"issuing CA", keyIssuing, a.ca}} {
		if err := k.checkValid(a.config.Now()); err != nil {
			return fmt.Errorf("%s: %w", k.who, err)
		}
		if _, err := a.pinned(ctx, k.key, k.certified).Sign(nil, digest[:], nil); err != nil {
			return fmt.Errorf("%s: %w", k.who, outward(err))
		}
	}
	return nil
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
