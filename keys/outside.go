// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/timestamp-authority/v2/pkg/verification"

	"provost/attest"
)

// A Timestamps says whose timestamps a signature gets. The zero value is our
// own authority alone.
type Timestamps struct {
	NotOwn  bool // our own authority is not asked
	Outside []*OutsideAuthority
	// Threshold is how many must answer; 0 for all that verifiers believe: one
	// outside that is not published yet is not asked.
	Threshold int
}

func (t Timestamps) asked() int {
	if t.NotOwn {
		return len(t.Outside)
	}
	return len(t.Outside) + 1
}

func (t Timestamps) complete() error {
	for i, o := range t.Outside {
		for _, other := range t.Outside[:i] { // one must not count as two
			if len(o.Chain) > 0 && len(other.Chain) > 0 && o.Chain[0].Equal(other.Chain[0]) {
				return fmt.Errorf("%w: the leaf of timestamp authority %.200q is named twice", attest.ErrInvalid, o.URL)
			}
		}
		u, err := url.Parse(o.URL)
		if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) || len(o.Chain) == 0 {
			return fmt.Errorf("%w: timestamp authority %.200q: want https://host, and its certificates", attest.ErrInvalid, o.URL)
		}
	}
	if t.asked() == 0 || t.Threshold < 0 || t.Threshold > t.asked() {
		return fmt.Errorf("%w: timestamps: %d authorities and a threshold of %d", attest.ErrInvalid, t.asked(), t.Threshold)
	}
	return nil
}

// An OutsideAuthority is an RFC 3161 timestamp authority that others run.
type OutsideAuthority struct {
	// URL is where it answers by HTTP (RFC 3161, section 3.4).
	URL string
	// Chain are its certificates, the leaf that stamps first, the root last.
	// Verifiers get them in the trusted root, so a timestamp of another leaf
	// is refused.
	Chain []*x509.Certificate
	// Client asks it; nil for one with a timeout.
	Client *http.Client
}

// Bounds on an outside authority.
const (
	outsideTimeout = 5 * time.Second
	maxResponse    = 64 << 10 // bytes
	maxClockSkew   = time.Minute
)

var outsideClient = &http.Client{
	Timeout:       outsideTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// stamp asks for a timestamp and checks that it is what was asked for, of the
// leaf that is configured. What is not is an alarm, and nothing else that the
// authority does is trusted.
func (o *OutsideAuthority) stamp(ctx context.Context, message []byte, now time.Time) ([]byte, error) {
	imprint := sha256.Sum256(message)
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	query, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, err
	}
	response, err := o.ask(ctx, query)
	if err != nil { // closed: no timestamp
		return nil, fmt.Errorf("%w: timestamp authority %s: %w", attest.ErrUnavailable, o.URL, err)
	}
	ts, err := timestamp.ParseResponse(response)
	if err != nil {
		return nil, fmt.Errorf("%w: timestamp authority %s: %v", attest.ErrUnavailable, o.URL, err)
	}
	if !bytes.Equal(ts.HashedMessage, imprint[:]) || ts.Nonce == nil || ts.Nonce.Cmp(nonce) != 0 {
		return nil, fmt.Errorf("%w: timestamp authority %s answered another request", attest.ErrSelfCheck, o.URL)
	}
	// The library verified by some certificate in the response: what counts is
	// whether it holds by the configured ones, as verifiers will ask.
	if _, err := verification.VerifyTimestampResponse(response, bytes.NewReader(message), verification.VerifyOpts{
		TSACertificate: o.Chain[0], Intermediates: o.Chain[1:max(len(o.Chain)-1, 1)], Roots: o.Chain[len(o.Chain)-1:], Nonce: nonce,
	}); err != nil {
		return nil, fmt.Errorf("%w: timestamp authority %s: it is not the configured one: %v", attest.ErrSelfCheck, o.URL, err)
	}
	if off := ts.Time.Sub(now); off > maxClockSkew || off < -maxClockSkew {
		return nil, fmt.Errorf("%w: timestamp authority %s says that it is %s, and it is %s", attest.ErrSelfCheck, o.URL,
			ts.Time.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return response, nil
}

func (o *OutsideAuthority) ask(ctx context.Context, query []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/timestamp-query")
	client := o.Client
	if client == nil {
		client = outsideClient
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("it answers %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err == nil && len(body) > maxResponse {
		err = errors.New("answer too long")
	}
	return body, err
}

// authority is how the trusted root names it.
func (o *OutsideAuthority) authority() root.TimestampingAuthority {
	last := len(o.Chain) - 1
	a := &root.SigstoreTimestampingAuthority{Root: o.Chain[last], Leaf: o.Chain[0], ValidityPeriodStart: o.Chain[0].NotBefore, URI: o.URL}
	if last > 0 {
		a.Intermediates = o.Chain[1:last]
	}
	return a
}
