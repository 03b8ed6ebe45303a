// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/digitorus/timestamp"

	"provost/attest"
	"provost/attest/rfc3161"
)

// oidPolicy is the policy timestamps are made under: the one of Sigstore's own
// timestamp authority, which promises no more than that the clock was read.
var oidPolicy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}

// accuracy of our timestamps, in seconds: they carry whole ones.
const accuracy = 1

// Timestamp implements [attest.Timestamper]: our own authority's, those outside,
// or both, as the configuration says. All are asked at once, and as many must
// answer as it asks for; what others answer too is returned as well.
func (a *Authority) Timestamp(ctx context.Context, signature []byte) ([][]byte, error) {
	imprint := sha256.Sum256(signature)
	c := a.config.Timestamps
	var ask []func() ([]byte, error)
	if !c.NotOwn {
		// The issuer verifies what it gets, by the certificate that is in it.
		ask = append(ask, func() ([]byte, error) { return a.stamp(ctx, StampRequest{Imprint: imprint}, pinned.unverified) })
	}
	if len(c.Outside) > 0 {
		var back func()
		ctx, back = attest.Away(ctx)
		defer back()
	}
	now, read := a.config.Now(), a.now.Load()
	for _, o := range c.Outside {
		// One that is not published yet, or not any more: its stamp would have
		// every verifier refuse the whole bundle.
		if read.publishedFor(certified{cert: o.Chain[0]}, now) {
			ask = append(ask, func() ([]byte, error) { return o.stamp(ctx, signature, now) })
		}
	}
	need := c.Threshold
	if need == 0 { // all
		need = max(len(ask), 1)
	}
	if len(ask) < need { // closed
		return nil, fmt.Errorf("%w: %d timestamp authorities are published, %d must stamp", attest.ErrUnavailable, len(ask), need)
	}
	if len(ask) == 1 { // the usual case, without goroutines
		response, err := ask[0]()
		if err != nil {
			return nil, err
		}
		return [][]byte{response}, nil
	}
	responses, errs := make([][]byte, len(ask)), make([]error, len(ask))
	var wg sync.WaitGroup
	for i, f := range ask {
		wg.Go(func() { responses[i], errs[i] = f() })
	}
	wg.Wait()
	responses = slices.DeleteFunc(responses, func(r []byte) bool { return r == nil })
	if len(responses) < need { // closed: a bundle with fewer is not made
		return nil, fmt.Errorf("%w: %d of %d timestamp authorities answered, %d must: %w",
			attest.ErrUnavailable, len(responses), len(ask), need, errors.Join(errs...))
	}
	if err := errors.Join(errs...); err != nil {
		a.config.Warn("a timestamp authority did not answer; enough others did", "error", err.Error())
	}
	return responses, nil
}

// A StampRequest asks our own timestamp authority for a timestamp.
type StampRequest struct {
	Imprint [sha256.Size]byte // SHA-256 of what is stamped
	Nonce   *big.Int          // comes back; nil for none
	Bare    bool              // without the authority's certificate in the response
}

// Stamp returns a timestamp of our own authority: a DER TimeStampResp with its
// certificate and the time of this process's clock, rounded down to the
// second. It verified its own signature before returning it. Outside the
// certificate's validity it fails closed with an [attest.ErrUnavailable].
//
// Whoever can have anything stamped can make a stolen signing key's signature
// look timely: give this to no one who need not have it.
func (a *Authority) Stamp(ctx context.Context, r StampRequest) ([]byte, error) {
	return a.stamp(ctx, r, func(p pinned) crypto.Signer { return p })
}

func (a *Authority) stamp(ctx context.Context, r StampRequest, signer func(pinned) crypto.Signer) ([]byte, error) {
	now := a.config.Now().UTC()
	tsa, err := a.now.Load().timestamping(now)
	if err != nil {
		return nil, err
	}
	sign := signer(a.pinned(ctx, keyTimestamp, tsa))
	response, err := rfc3161.Create(rfc3161.Request{
		Stamp: rfc3161.Stamp{Imprint: r.Imprint, Time: now}, Policy: oidPolicy, Accuracy: accuracy, Nonce: r.Nonce, Bare: r.Bare,
	}, tsa.cert, func(digest []byte) ([]byte, error) { return sign.Sign(nil, digest, crypto.SHA256) })
	if err != nil {
		return nil, fmt.Errorf("timestamp: %w", outward(err))
	}
	return response, nil
}

// TimestampQuery answers an RFC 3161 request (DER) with our own authority's
// response. The hash must be SHA-256, and no other policy may be asked for. A
// request that is not one is an [attest.ErrInvalid].
func (a *Authority) TimestampQuery(ctx context.Context, query []byte) ([]byte, error) {
	r, err := timestamp.ParseRequest(query)
	if err != nil {
		return nil, fmt.Errorf("%w: timestamp request: want RFC 3161 DER", attest.ErrInvalid)
	}
	if r.HashAlgorithm != crypto.SHA256 || len(r.HashedMessage) != sha256.Size {
		return nil, fmt.Errorf("%w: timestamp request: want a SHA-256 imprint", attest.ErrInvalid)
	}
	if len(r.TSAPolicyOID) > 0 && !r.TSAPolicyOID.Equal(oidPolicy) {
		return nil, fmt.Errorf("%w: timestamp request: the only policy is %s", attest.ErrInvalid, oidPolicy)
	}
	if r.Nonce != nil && (r.Nonce.Sign() < 0 || r.Nonce.BitLen() > maxNonceBits) {
		return nil, fmt.Errorf("%w: timestamp request: nonce below zero or of more than %d bits", attest.ErrInvalid, maxNonceBits)
	}
	return a.Stamp(ctx, StampRequest{Imprint: [sha256.Size]byte(r.HashedMessage), Nonce: r.Nonce, Bare: !r.Certificates})
}

// maxNonceBits bounds what a response repeats.
const maxNonceBits = 256

// checkValid reports, as an attest.ErrUnavailable, that a certificate is not
// valid now.
func (c certified) checkValid(now time.Time) error {
	if now.Before(c.cert.NotBefore) || now.After(c.cert.NotAfter) {
		return fmt.Errorf("%w: the certificate of version %d is valid from %s to %s, and it is %s", attest.ErrUnavailable, c.version,
			c.cert.NotBefore.Format(time.RFC3339), c.cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
