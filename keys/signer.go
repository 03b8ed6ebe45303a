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
	if err := s.makeVersion(ctx); err != nil {
		return attest.KeyVersion{}, err
	}
	current, err := s.valid()
	if err != nil {
		return attest.KeyVersion{}, err
	}
	return s.keyVersion(current, s.authority.config.Now()), nil
}

// maintain adopts the newest version and makes one if its window has ended.
func (s *signer) maintain(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if err := s.adopt(ctx); err != nil {
		return err
	}
	current := s.current.Load()
	if end := current.cert.NotAfter.Add(-overlap); s.authority.config.Now().Before(end) {
		return nil
	}
	return s.makeVersion(ctx)
}

// makeVersion has the backend make a version and adopts it. The caller holds
// the lock.
func (s *signer) makeVersion(ctx context.Context) error {
	rotator, ok := s.authority.config.Backend.(Rotator)
	if !ok {
		return fmt.Errorf("%w: signer %s: this key backend cannot rotate", ErrBackendDenied, s.power)
	}
	// First whether a leaf can be issued: a version without one is useless.
	if _, err := s.window(); err != nil {
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
	archived, err := readArchive(ctx, a.config)
	if err != nil {
		return err
	}
	leaves, err := s.leaves(archived, archived.certs[keyIssuing])
	if err != nil {
		return err
	}
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
			s.current.Store(&adopted{certified: last})
			return nil
		}
	}
	c, err := s.certify(ctx, newest)
	if err != nil {
		return fmt.Errorf("certify version %d: %w", newest.Number, err)
	}
	s.current.Store(&adopted{certified: c})
	return nil
}

// stop ends signing until a version is adopted again. It returns err.
func (s *signer) stop(err error) error {
	s.current.Store(&adopted{refused: fmt.Errorf("signer %s is stopped: %w", s.power, err)})
	return err
}

// certify issues and archives the version's leaf. If another process was
// faster its leaf is taken.
func (s *signer) certify(ctx context.Context, v Version) (certified, error) {
	a := s.authority
	to, err := s.window()
	if err != nil {
		return certified{}, err
	}
	cert, err := issuer{a.ca.cert, a.pinned(ctx, keyIssuing, a.ca)}.newLeaf(leaf{
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
	if err := s.checkLeaf(c, []certified{a.ca}); err != nil {
		return certified{}, err
	}
	if !c.public().Equal(v.Public) || c.version != v.Number {
		return certified{}, fmt.Errorf("archived leaf of version %d is of another key", v.Number)
	}
	return c, nil
}

// window is when a leaf issued now ends: after the signing window and the
// overlap, but not after the issuing CA.
func (s *signer) window() (time.Time, error) {
	a := s.authority
	now := a.config.Now()
	end := now.Add(a.config.SigningWindow + overlap)
	last := a.ca.cert.NotAfter
	if last.Before(now.Add(2 * overlap)) { // closed: else each leaf would end at once and call for the next
		return time.Time{}, fmt.Errorf("%w: the issuing CA's certificate ends at %s: certify a new one with the offline root",
			attest.ErrUnavailable, last.Format(time.RFC3339))
	}
	if end.After(last) {
		end = last
	}
	return end, nil
}

// leaves returns this signer's archived leaves, ascending, after checking each.
func (s *signer) leaves(archived archived, cas []certified) ([]certified, error) {
	leaves := archived.certs[string(s.power)]
	for _, l := range leaves {
		if err := s.checkLeaf(l, cas); err != nil {
			return nil, err
		}
	}
	return leaves, nil
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
func (s *signer) keyVersion(l certified, now time.Time) attest.KeyVersion {
	v := attest.KeyVersion{Version: l.version, State: attest.KeyRetired, NotBefore: l.cert.NotBefore, NotAfter: l.cert.NotAfter}
	if current := s.current.Load(); current.refused == nil && l.version >= current.version && l.checkValid(now) == nil {
		v.State = attest.KeyActive
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
