// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"fmt"
	"slices"
	"time"

	"provost/attest"
)

// PlanRevocation completes a revocation without recording it, and returns
// beside it the versions whose signatures verifiers will refuse in that
// interval: clients know windows of CAs, not of versions, so these are all that
// the CA of the version has certified. Without a From it begins with the
// version's leaf. Without a To it ends with that leaf, after which nobody
// believes a signature of the version anyway; then, and whenever To is not
// past, the signer goes on under its next CA.
//
// A version that never had a leaf is an [attest.ErrNotFound], and so is a
// signer that does not exist.
func (a *Authority) PlanRevocation(ctx context.Context, r attest.KeyRevocation) (attest.KeyRevocation, []int, error) {
	p, err := attest.ParsePower(string(r.Signer))
	if err != nil {
		return r, nil, err
	}
	now, err := a.refresh(ctx)
	if err != nil {
		return r, nil, err
	}
	leaves := now.certs[string(p)]
	i := slices.IndexFunc(leaves, func(c certified) bool { return c.version == r.Version })
	if i < 0 {
		return r, nil, fmt.Errorf("%w: signer %s has no version %d that ever signed", attest.ErrNotFound, p, r.Version)
	}
	leaf := leaves[i]
	if r.From.IsZero() || r.From.Before(leaf.cert.NotBefore) {
		r.From = leaf.cert.NotBefore
	}
	if r.To.IsZero() || r.To.After(leaf.cert.NotAfter) { // whoever has a copy of the key does without the backend
		r.To = leaf.cert.NotAfter
	}
	r.From, r.To = r.From.UTC().Truncate(time.Second), r.To.UTC().Truncate(time.Second)
	r.At = a.config.Now().UTC()
	if r.ID == "" {
		r.ID = attest.NewID()
	}
	if err := r.Validate(); err != nil {
		return r, nil, err
	}
	var touched []int
	for _, ca := range now.certs[keyIssuing(p)] {
		if !issuedBy(leaf.cert, ca.cert) {
			continue
		}
		for _, l := range leaves {
			if issuedBy(l.cert, ca.cert) {
				touched = append(touched, l.version)
			}
		}
	}
	return r, touched, nil
}

// Revoke records a revocation that [Authority.PlanRevocation] completed. From
// then on the trusted root has a hole, and if the version, or another under the
// same CA, would still sign inside it, the signer is rotated under its next CA,
// and the version taken out of use in the backend.
//
// With an error that is an [IncompleteError] it is recorded nevertheless, and
// what the signer signed is taken back; only what comes after failed, and the
// signer refuses to sign until that is mended. With any other error nothing is
// recorded.
func (a *Authority) Revoke(ctx context.Context, r attest.KeyRevocation) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := a.config.Archive.AppendKeyRevocation(ctx, r); err != nil {
		return fmt.Errorf("record revocation: %w", err)
	}
	s := a.signers[r.Signer]
	if err := s.leave(ctx, r); err != nil {
		return &IncompleteError{err}
	}
	return nil
}

// An IncompleteError says that a revocation was recorded, but that its signer
// could not be brought to sign again.
type IncompleteError struct{ Err error }

func (e *IncompleteError) Error() string {
	return "the revocation is recorded, but the signer cannot go on: " + e.Err.Error()
}
func (e *IncompleteError) Unwrap() error { return e.Err }

// Recorded is for whoever answers a caller and does not know this type.
func (e *IncompleteError) Recorded() bool { return true }

// leave brings the signer to a version that the revocation does not touch.
func (s *signer) leave(ctx context.Context, r attest.KeyRevocation) error {
	if err := s.lock(ctx); err != nil { // closed: stopped, until whoever has the turn adopts what is not revoked
		return s.stop(err)
	}
	defer s.unlock()
	now, err := s.authority.refresh(ctx)
	if err != nil { // closed: what was revoked must not go on for want of a look
		return s.stop(err)
	}
	current := s.current.Load()
	if current.cert != nil && current.refused == nil {
		s.take(now, current.certified) // which stops it at once if it is touched
	}
	if s.current.Load().refused == nil && current.version != r.Version {
		return s.retire(ctx, 0)
	}
	claimed, err := s.claim(ctx)
	if err != nil {
		return err
	}
	if claimed {
		defer s.release(ctx)
		if err := s.makeVersion(ctx); err != nil {
			return err
		}
	} else if err := s.adopt(ctx); err != nil { // another process rotates; what it made is taken at the latest by the next Maintain
		return err
	}
	if now := s.current.Load(); now.refused != nil {
		return now.refused
	}
	// The successor is archived and adopted here: other processes learn of it
	// from the backend's refusal.
	return s.retire(ctx, 0)
}
