// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/digitorus/timestamp"

	"provost/attest"
)

// oidPolicy is the policy timestamps are made under: the one of Sigstore's own
// timestamp authority, which promises no more than that the clock was read.
var oidPolicy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}

// accuracy of our timestamps: they carry whole seconds.
const accuracy = time.Second

// Timestamp implements [attest.Timestamper]. The response carries the
// authority's certificate, and the time of this process's clock, rounded down
// to the second. It verified its own signature before returning it. Outside
// the certificate's validity it fails closed with an [attest.ErrUnavailable].
func (a *Authority) Timestamp(ctx context.Context, signature []byte) ([][]byte, error) {
	now := a.config.Now().UTC()
	if err := a.tsa.checkValid(now); err != nil {
		return nil, fmt.Errorf("timestamp authority: %w", err)
	}
	imprint := sha256.Sum256(signature)
	response, err := (&timestamp.Timestamp{
		HashAlgorithm:     crypto.SHA256,
		HashedMessage:     imprint[:],
		Time:              now,
		Accuracy:          accuracy,
		Policy:            oidPolicy,
		AddTSACertificate: true,
	}).CreateResponseWithOpts(a.tsa.cert, a.pinned(ctx, keyTimestamp, a.tsa), crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("timestamp: %w", outward(err))
	}
	return [][]byte{response}, nil
}

// checkValid reports, as an attest.ErrUnavailable, that a certificate is not
// valid now.
func (c certified) checkValid(now time.Time) error {
	if now.Before(c.cert.NotBefore) || now.After(c.cert.NotAfter) {
		return fmt.Errorf("%w: the certificate of version %d is valid from %s to %s, and it is %s", attest.ErrUnavailable, c.version,
			c.cert.NotBefore.Format(time.RFC3339), c.cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
