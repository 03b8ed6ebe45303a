// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"provost/attest"
)

// A signer is the [attest.Signer] of one power. It signs with the version it
// has adopted, which is never "the latest" but the newest whose leaf is
// archived. Signing takes no lock; adopting does.
type signer struct {
	authority *Authority
	power     attest.Power
	identity  string
	current   atomic.Pointer[adopted]
	turn      chan struct{} // held while adopting; a channel, so that waiting ends with the context
	checked   sync.Map      // SHA-256 of each leaf that checkLeaf found good
	retired   int           // versions below it do not sign in the backend; owned by who has the turn
}

// adopted is the version that signs, or why none does.
type adopted struct {
	certified
	refused error
}

func newSigner(a *Authority, p attest.Power) *signer {
	s := &signer{authority: a, power: p, identity: a.config.Identity + "/signers/" + string(p), turn: make(chan struct{}, 1)}
	s.current.Store(&adopted{refused: fmt.Errorf("%w: signer %s has adopted no key version", attest.ErrUnavailable, p)})
	return s
}

// Sign implements [attest.Signer]. When the backend says that the adopted
// version may sign no more, it adopts the newest one and signs with that,
// once. It does not verify the signature: the issuer does.
func (s *signer) Sign(ctx context.Context, message []byte) (attest.Signature, error) {
	digest := sha256.Sum256(message)
	current, err := s.valid()
	if err != nil {
		return attest.Signature{}, err
	}
	der, err := s.signWith(ctx, current, digest[:])
	if errors.Is(err, ErrVersion) {
		if current, err = s.replace(ctx, current.version); err != nil {
			return attest.Signature{}, err
		}
		der, err = s.signWith(ctx, current, digest[:])
	}
	if err != nil {
		return attest.Signature{}, fmt.Errorf("signer %s: %w", s.power, outward(err))
	}
	return attest.Signature{Version: current.version, DER: der, Certificate: current.cert.Raw}, nil
}

func (s *signer) signWith(ctx context.Context, c certified, digest []byte) ([]byte, error) {
	return s.authority.config.Backend.Sign(ctx, string(s.power), c.version, digest)
}

// valid returns the adopted version if its leaf is valid now. Outside of it no
// verifier would believe a signature, so none is made.
func (s *signer) valid() (certified, error) {
	current := s.current.Load()
	if current.refused != nil {
		return certified{}, current.refused
	}
	if err := current.checkValid(s.authority.config.Now()); err != nil {
		return certified{}, fmt.Errorf("signer %s: %w", s.power, err)
	}
	return current.certified, nil
}

// replace adopts another version than the one that signs no more.
func (s *signer) replace(ctx context.Context, retired int) (certified, error) {
	if err := s.lock(ctx); err != nil {
		return certified{}, err
	}
	defer s.unlock()
	if current, err := s.valid(); err == nil && current.version != retired {
		return current, nil // somebody did
	}
	if err := s.adopt(ctx); err != nil {
		return certified{}, err
	}
	current, err := s.valid()
	if err == nil && current.version == retired {
		err = fmt.Errorf("%w: signer %s: version %d may not sign any more and there is no newer: rotate it", attest.ErrUnavailable, s.power, retired)
	}
	return current, err
}

// rotate makes a version and adopts it.
func (s *signer) rotate(ctx context.Context) (attest.KeyVersion, error) {
	if err := s.lock(ctx); err != nil {
		return attest.KeyVersion{}, err
	}
	defer s.unlock()
	for {
		claimed, err := s.claim(ctx)
		if err != nil {
			return attest.KeyVersion{}, err
		}
		if claimed {
			break
		}
		select { // another process rotates now; this rotation comes after it
		case <-time.After(leasePoll):
		case <-ctx.Done():
			return attest.KeyVersion{}, fmt.Errorf("%w: signer %s is being rotated by another process: %w", attest.ErrUnavailable, s.power, ctx.Err())
		}
	}
	defer s.release(ctx)
	if err := s.makeVersion(ctx); err != nil {
		return attest.KeyVersion{}, err
	}
	current, err := s.valid()
	if err != nil {
		return attest.KeyVersion{}, err
	}
	return s.keyVersion(s.authority.now.Load(), current, s.authority.config.Now()), nil
}

// How long a process may take over a rotation before another one thinks that
// it died, and how often one that wants to rotate asks again.
const (
	leaseFor  = time.Minute
	leasePoll = 50 * time.Millisecond
)

// claim makes this process the only one that rotates the signer, for a while.
// The machine's own clock is used: all who share the leases share it.
func (s *signer) claim(ctx context.Context) (bool, error) {
	now := time.Now()
	claimed, err := s.authority.config.Leases.Claim(ctx, s.lease(), s.authority.holder, now, now.Add(leaseFor))
	if err != nil { // closed: nobody rotates on a guess
		return false, fmt.Errorf("claim the rotation of signer %s: %w", s.power, err)
	}
	return claimed, nil
}

// release ends the claim. If that fails it ends by itself.
func (s *signer) release(ctx context.Context) {
	_ = s.authority.config.Leases.Release(context.WithoutCancel(ctx), s.lease(), s.authority.holder)
}

func (s *signer) lease() string { return "rotate/" + string(s.power) }

// maintain adopts the newest version, makes one if the window of that has
// ended, and takes those before it out of use.
func (s *signer) maintain(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if err := s.adopt(ctx); err != nil {
		return err
	}
	due, err := s.due(ctx)
	if err != nil {
		return err
	}
	if !due {
		return s.retire(ctx, s.authority.config.RetireAfter)
	}
	claimed, err := s.claim(ctx)
	if err != nil || !claimed { // another process rotates; its version is adopted the next time
		return err
	}
	defer s.release(ctx)
	if err := s.adopt(ctx); err != nil {
		return err
	}
	// Another process may just have done it: of all replicas one rotates.
	if due, err = s.due(ctx); err != nil || !due {
		return err
	}
	return s.makeVersion(ctx)
}

// due reports whether the signer must rotate: because of the age of its
// version, of how much that has signed, or because nobody believes it any more.
func (s *signer) due(ctx context.Context) (bool, error) {
	c := s.authority.config
	current := s.current.Load()
	if current.cert == nil {
		return false, nil // adopt has said why
	}
	if current.refused != nil || !c.Now().Before(current.cert.NotAfter.Add(-overlap)) {
		return true, nil
	}
	if c.MaxSignatures == 0 {
		return false, nil
	}
	n, err := c.Signatures(ctx, s.power, current.version)
	if err != nil {
		return false, fmt.Errorf("count signatures of signer %s: %w", s.power, err)
	}
	return n >= c.MaxSignatures, nil
}

// retire takes the versions before the adopted one out of use in the backend,
// once that is old enough for other processes to have adopted it too. From
// then on even a stolen token cannot sign with them.
func (s *signer) retire(ctx context.Context, after time.Duration) error {
	c := s.authority.config
	retirer, ok := c.Backend.(Retirer)
	current := s.current.Load()
	if !ok || after < 0 || current.refused != nil || current.version <= max(s.retired, 1) ||
		c.Now().Before(current.cert.NotBefore.Add(backdate+after)) {
		return nil
	}
	if err := retirer.Retire(ctx, string(s.power), current.version); err != nil {
		return fmt.Errorf("retire versions of signer %s before %d: %w", s.power, current.version, outward(err))
	}
	s.retired = current.version
	return nil
}

// makeVersion has the backend make a version and adopts it. The caller holds
// the lock.
func (s *signer) makeVersion(ctx context.Context) error {
	rotator, ok := s.authority.config.Backend.(Rotator)
	if !ok {
		return fmt.Errorf("%w: signer %s: this key backend cannot rotate", ErrBackendDenied, s.power)
	}
	// First whether a leaf can be issued: a version without one is useless.
	if _, _, err := s.window(s.authority.now.Load()); err != nil {
		return err
	}
	before, err := s.authority.config.Backend.Versions(ctx, string(s.power))
	if err != nil {
		return outward(err)
	}
	if err := rotator.Rotate(ctx, string(s.power)); err != nil {
		return outward(err)
	}
	if err := s.adopt(ctx); err != nil {
		return err
	}
	if now := s.current.Load().version; now <= before[len(before)-1].Number {
		return fmt.Errorf("%w: signer %s: the key backend said it rotated, and still has version %d", attest.ErrSelfCheck, s.power, now)
	}
	return nil
}

// adopt makes the backend's newest version the one that signs: it issues its
// leaf unless there is one, archives it, and only then switches. When it
// fails, also because the archive is not what it was, signing goes on as
// before, except that a key which is not fit, or not the one that was
// certified, stops. The caller holds the lock.
func (s *signer) adopt(ctx context.Context) error {
	a := s.authority
	// The archive first: whatever version has a leaf there, the backend then
	// has. The other way round, what another process does in between would
	// look like a backend put back to an older state.
	now, err := a.refresh(ctx)
	if err != nil {
		return err
	}
	leaves := now.certs[string(s.power)]
	versions, err := a.config.Backend.Versions(ctx, string(s.power))
	if errors.Is(err, ErrDegraded) {
		return s.stop(err)
	}
	if err != nil {
		return outward(err)
	}
	newest := versions[len(versions)-1]
	if len(leaves) > 0 {
		if _, err := newestAgreeing(string(s.power), leaves, versions); err != nil {
			return s.stop(outward(err))
		}
		if last := leaves[len(leaves)-1]; last.version == newest.Number {
			s.take(now, last)
			return nil
		}
	}
	c, err := s.certify(ctx, now, newest)
	if err != nil {
		return fmt.Errorf("certify version %d: %w", newest.Number, err)
	}
	s.take(now, c)
	return nil
}

// take makes a version the one that signs, unless what it signs now is taken
// back already.
func (s *signer) take(now *state, leaf certified) {
	next := &adopted{certified: leaf}
	if !now.believed(leaf, s.power, s.authority.config.Now()) { // closed: nobody would believe it
		next.refused = fmt.Errorf("%w: signer %s: what version %d signs now is revoked: rotate it", attest.ErrUnavailable, s.power, leaf.version)
	}
	s.current.Store(next)
}

// stop ends signing until a version is adopted again. It returns err.
func (s *signer) stop(err error) error {
	s.current.Store(&adopted{refused: fmt.Errorf("signer %s is stopped: %w", s.power, err)})
	return err
}

// certify issues and archives the version's leaf. If another process was
// faster its leaf is taken.
func (s *signer) certify(ctx context.Context, now *state, v Version) (certified, error) {
	a := s.authority
	ca, to, err := s.window(now)
	if err != nil {
		return certified{}, err
	}
	cert, err := a.issue(ctx, issuer{ca.cert, a.pinned(ctx, keyIssuing(s.power), ca)}, leaf{
		identity: s.identity, oidcIssuer: a.config.Identity, public: v.Public,
		from: a.config.Now().Add(-backdate), to: to,
	})
	if err != nil {
		return certified{}, outward(err)
	}
	stored, err := a.config.Archive.AppendCertificate(ctx, attest.Certificate{Name: string(s.power), Version: v.Number, DER: cert.Raw})
	if err != nil {
		return certified{}, fmt.Errorf("archive leaf: %w", err)
	}
	c, err := parseCertified(stored)
	if err != nil {
		return certified{}, err
	}
	if err := s.checkLeaf(c, now.certs[keyIssuing(s.power)]); err != nil {
		return certified{}, err
	}
	if !c.public().Equal(v.Public) || c.version != v.Number {
		return certified{}, fmt.Errorf("archived leaf of version %d is of another key", v.Number)
	}
	return c, nil
}

// issue makes a leaf, logged and with the log's promise in it where there is a
// log of leaves.
func (a *Authority) issue(ctx context.Context, ca issuer, l leaf) (*x509.Certificate, error) {
	if a.ct == nil {
		return ca.newLeaf(l)
	}
	return a.ct.issue(ctx, ca, l)
}

// window is the CA that issues a leaf now, and when that ends: after the
// signing window and the overlap, but not after the CA.
func (s *signer) window(read *state) (certified, time.Time, error) {
	a := s.authority
	now := a.config.Now()
	ca, err := read.issuing(s.power, now)
	if err != nil { // closed: also, each leaf would end at once and call for the next
		return certified{}, time.Time{}, err
	}
	end := now.Add(a.config.SigningWindow + overlap)
	if last := ca.cert.NotAfter; end.After(last) {
		end = last
	}
	return ca, end, nil
}

// checkLeaves checks every leaf of this signer's.
func (s *signer) checkLeaves(archived archived) error {
	for _, l := range archived.certs[string(s.power)] {
		if err := s.checkLeaf(l, archived.certs[keyIssuing(s.power)]); err != nil {
			return err
		}
	}
	return nil
}

// checkLeaf reports whether one of our CAs issued the leaf to this signer.
func (s *signer) checkLeaf(l certified, cas []certified) error {
	sum := sha256.Sum256(l.cert.Raw)
	if _, ok := s.checked.Load(sum); ok { // there are many, and they never change
		return nil
	}
	if len(l.cert.URIs) != 1 || l.cert.URIs[0].String() != s.identity {
		return fmt.Errorf("archived leaf of %s version %d names %v, not %s: has the configured identity changed?",
			s.power, l.version, l.cert.URIs, s.identity)
	}
	if !slices.ContainsFunc(cas, func(ca certified) bool { return issuedBy(l.cert, ca.cert) }) {
		return fmt.Errorf("archived leaf of %s version %d was not issued by an issuing CA of the pinned root", s.power, l.version)
	}
	if !isEnd(l.cert, x509.ExtKeyUsageCodeSigning) {
		return fmt.Errorf("archived leaf of %s version %d is not for code signing alone", s.power, l.version)
	}
	s.checked.Store(sum, nil)
	return nil
}

// keyVersion describes a leaf. What is newer than the adopted version was
// adopted by another process, and signs there.
func (s *signer) keyVersion(read *state, l certified, now time.Time) attest.KeyVersion {
	v := attest.KeyVersion{Version: l.version, State: attest.KeyRetired, NotBefore: l.cert.NotBefore, NotAfter: l.cert.NotAfter}
	if current := s.current.Load(); current.refused == nil && l.version >= current.version && l.checkValid(now) == nil {
		v.State = attest.KeyActive
	}
	if slices.ContainsFunc(read.revoked, func(r attest.KeyRevocation) bool { return r.Signer == s.power && r.Version == l.version }) {
		v.State = attest.KeyRevoked
	}
	return v
}

func (s *signer) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: signer %s: %w", attest.ErrUnavailable, s.power, ctx.Err())
	}
}

func (s *signer) unlock() { <-s.turn }
