// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// A state is what was last read of the archive.
type state struct {
	archived
	revoked   []attest.KeyRevocation
	own       []byte // the trusted root as the archive has it
	trusted   []byte // what is left of it by what is published
	published []byte // the trusted root that verifiers were given; nil for none
	// distributed says that verifiers are given one, be it not yet.
	distributed bool
	// left are the times in which what is in trusted is believed: see
	// windowsOf. nil when trusted is own.
	left    map[string][]window
	changed []string // what is not left
}

// known reports whether verifiers have been told of an authority: of a log they
// are told the key, of all others the certificate.
func (s *state) known(c certified) bool {
	if !s.distributed {
		return true
	}
	if s.published == nil { // closed: verifiers begin with what Init made; of a later one they cannot have been told
		return !c.cert.NotBefore.After(s.root.cert.NotBefore)
	}
	told := func(der []byte) bool { return bytes.Contains(s.published, base64.StdEncoding.AppendEncode(nil, der)) }
	return told(c.cert.Raw) || told(c.cert.RawSubjectPublicKeyInfo)
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

// restrict has us believe no more than the clients of what is published. The
// archive may: it was put back to before a revocation, or somebody published a
// trusted root without an authority. It is told when it changes.
func (a *Authority) restrict(before, now *state) (err error) {
	now.trusted = now.own
	if now.published == nil {
		if now.distributed && before == nil {
			a.config.Warn("nothing is published by TUF: as it should be before the first publication; after it, put the directory back, or what only that takes back is believed")
		}
		return nil
	}
	now.trusted, now.changed, err = a.config.Restrict(now.published, now.own, a.config.Now())
	if err != nil { // closed: what was read before stays
		return fmt.Errorf("compare with what is published: %w", err)
	}
	if len(now.changed) == 0 {
		return nil
	}
	if before == nil || !slices.Equal(before.changed, now.changed) {
		a.config.Warn("less is published than the database trusts, and only that is believed: publish what is new; or was the database put back to an older state?",
			"not_believed_whole", strings.Join(now.changed, "; "))
	}
	now.left, err = windowsOf(now.trusted)
	return err
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

// issuing returns the CA that issues the leaves of a signer now: the oldest
// epoch that has begun, is known to verifiers, does not end soon, and from which
// no interval is taken back that lasts. Those after it are the reserve. What issues must not depend
// on which process asks, so that all issue under the same.
func (s *state) issuing(p attest.Power, now time.Time) (certified, error) {
	var last certified
	for _, ca := range s.certs[keyIssuing(p)] {
		last = ca
		if now.Before(ca.cert.NotBefore) || ca.cert.NotAfter.Before(now.Add(2*overlap)) || s.holedFrom(ca, now) || !s.known(ca) || !s.publishedFor(ca, now) {
			continue
		}
		return ca, nil
	}
	// closed: a leaf of any other would be believed by nobody, or end at once
	return certified{}, fmt.Errorf("%w: signer %s has no issuing CA that can be used (the newest is epoch %d, %s to %s): certify another with the offline root",
		attest.ErrUnavailable, p, last.version, last.cert.NotBefore.Format(time.RFC3339), last.cert.NotAfter.Format(time.RFC3339))
}

// timestamping returns the newest timestamp authority that has begun.
func (s *state) timestamping(now time.Time) (certified, error) {
	tsas := s.certs[keyTimestamp]
	for i := len(tsas) - 1; i >= 0; i-- {
		if err := tsas[i].checkValid(now); err == nil && s.known(tsas[i]) && s.publishedFor(tsas[i], now) {
			return tsas[i], nil
		}
	}
	// closed: no timestamp
	last := tsas[len(tsas)-1]
	return certified{}, fmt.Errorf("%w: no timestamp authority is valid now and published (the newest is version %d, %s to %s)",
		attest.ErrUnavailable, last.version, last.cert.NotBefore.Format(time.RFC3339), last.cert.NotAfter.Format(time.RFC3339))
}
