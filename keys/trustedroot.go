// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/sigstore-go/pkg/root"

	"provost/attest"
)

// TrustedRoot is the trusted root that [Authority.ToPublish] has under this
// configuration, for whoever only publishes it: it opens no log, so it can
// stand beside a running service.
func TrustedRoot(ctx context.Context, config Config) ([]byte, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	if config.Root.IsZero() {
		return nil, fmt.Errorf("%w: keys: no root pinned: run provostd init, which prints it", attest.ErrInvalid)
	}
	a := &Authority{config: config, signers: make(map[attest.Power]*signer)}
	for _, p := range attest.Powers {
		a.signers[p] = newSigner(a, p)
	}
	now, err := a.refresh(ctx)
	if err != nil {
		return nil, err
	}
	return now.own, nil
}

// trustedRoot writes trusted_root.json (media type v0.1): each issuing CA, with
// a window for every stretch of time that was not taken back; each timestamp
// authority with its leaf first; the logs. Each is trusted from its first day;
// the certificates say until when.
func trustedRoot(config Config, now *state) ([]byte, error) {
	top := now.root.cert
	var issuing []root.CertificateAuthority
	for _, p := range attest.Powers {
		for _, ca := range now.certs[keyIssuing(p)] {
			for _, w := range now.windows(ca) {
				issuing = append(issuing, &root.FulcioCertificateAuthority{
					Root:                top,
					Intermediates:       []*x509.Certificate{ca.cert},
					ValidityPeriodStart: w.from,
					ValidityPeriodEnd:   w.to,
					URI:                 config.Identity,
				})
			}
		}
	}
	var stamping []root.TimestampingAuthority
	for _, c := range now.certs[keyTimestamp] {
		stamping = append(stamping, &root.SigstoreTimestampingAuthority{
			Root:                top,
			Leaf:                c.cert,
			ValidityPeriodStart: c.cert.NotBefore,
			URI:                 config.Identity + "/v1/timestamp",
		})
	}
	for _, o := range config.Timestamps.Outside {
		stamping = append(stamping, o.authority())
	}
	logs, cts := map[string]*root.TransparencyLog{}, map[string]*root.TransparencyLog{}
	if config.Log != nil {
		for _, c := range now.certs[keyLog] {
			addLog(logs, config.Log.url(c), c)
			if end := now.closed(c); !end.IsZero() {
				logs[hex.EncodeToString(logID(c))].ValidityPeriodEnd = end
			}
		}
		if o := config.Log.Outside; o != nil {
			logs[hex.EncodeToString(o.logID)] = &root.TransparencyLog{
				BaseURL: o.config.URL, ID: o.logID, PublicKey: o.config.PublicKey,
				HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256, ValidityPeriodStart: config.Log.OutsideFrom,
			}
		}
		for _, c := range now.certs[keyCTLog] {
			addLog(cts, config.Identity+ctPath, c)
		}
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, issuing, cts, stamping, logs)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	out, err := tr.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	// protojson varies its white space on purpose; the same certificates must
	// give the same bytes, or every copy would look like a change of trust.
	v := jsontext.Value(out)
	if err := v.Canonicalize(); err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return v, nil
}

func addLog(logs map[string]*root.TransparencyLog, url string, c certified) {
	id := logID(c)
	logs[hex.EncodeToString(id)] = &root.TransparencyLog{
		BaseURL: url, ID: id, PublicKey: c.public(),
		HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
		ValidityPeriodStart: c.cert.NotBefore,
	}
}

// shardOverlap is how long a shard may still be written to after its successor
// has begun.
const shardOverlap = 7 * 24 * time.Hour

// closed is when a shard of the log ends: some time after the next one begins.
// The zero time while there is none.
func (s *state) closed(shard certified) time.Time {
	for _, c := range s.certs[keyLog] {
		if c.version > shard.version {
			return c.cert.NotBefore.Add(shardOverlap)
		}
	}
	return time.Time{}
}

// logID is how clients name a log with an ECDSA key: the SHA-256 of its SPKI.
func logID(c certified) []byte {
	id := sha256.Sum256(c.cert.RawSubjectPublicKeyInfo)
	return id[:]
}

// A window is a stretch of time, both ends included; without a to it does not
// end.
type window struct{ from, to time.Time }

// holes are the intervals taken back from a CA, in order, none touching
// another: those of every version whose leaf it issued. Clients know windows
// of CAs alone, so within them everything that the CA vouches for is taken
// back.
func (s *state) holes(ca certified) []window {
	var holes []window
	for _, r := range s.revoked {
		for _, leaf := range s.certs[string(r.Signer)] {
			if leaf.version == r.Version && issuedBy(leaf.cert, ca.cert) {
				holes = append(holes, window{r.From, r.To})
			}
		}
	}
	slices.SortFunc(holes, func(a, b window) int { return cmp.Or(a.from.Compare(b.from), a.to.Compare(b.to)) })
	var merged []window
	for _, h := range holes {
		if n := len(merged); n > 0 && !h.from.After(merged[n-1].to.Add(time.Second)) {
			if h.to.After(merged[n-1].to) {
				merged[n-1].to = h.to
			}
			continue
		}
		merged = append(merged, h)
	}
	return merged
}

// windows is what is left of a CA's time without its holes. Times are whole
// seconds; a timestamp with a fraction that falls between two is in neither,
// which is a no.
func (s *state) windows(ca certified) []window {
	var left []window
	from := ca.cert.NotBefore
	for _, h := range s.holes(ca) {
		if h.from.After(from) {
			left = append(left, window{from, h.from.Add(-time.Second)})
		}
		if next := h.to.Add(time.Second); next.After(from) {
			from = next
		}
	}
	if !from.After(ca.cert.NotAfter) {
		left = append(left, window{from: from})
	}
	return left
}

// holedFrom reports whether an interval is taken back from the CA that has not
// ended yet: what it issues now would be believed by nobody.
func (s *state) holedFrom(ca certified, now time.Time) bool {
	return slices.ContainsFunc(s.holes(ca), func(h window) bool { return !h.to.Before(now.Truncate(time.Second)) })
}

// believed reports whether verifiers believe now what the leaf signs.
func (s *state) believed(leaf certified, p attest.Power, now time.Time) bool {
	for _, ca := range s.certs[keyIssuing(p)] {
		if issuedBy(leaf.cert, ca.cert) {
			return !s.holedFrom(ca, now) && s.publishedFor(ca, now)
		}
	}
	return false
}

// publishedFor reports whether what is published lets an authority be believed
// at that time, as far as it takes anything away from what the archive says.
func (s *state) publishedFor(c certified, at time.Time) bool {
	return s.publishedIn(string(c.cert.Raw), at)
}

func (s *state) publishedIn(windows string, at time.Time) bool {
	return s.left == nil || slices.ContainsFunc(s.left[windows], func(w window) bool {
		return !at.Before(w.from) && (w.to.IsZero() || !at.After(w.to))
	})
}

// logWindows stands before the ID of a log, among what windowsOf returns.
const logWindows = "log "

// windowsOf reads from a trusted root in which times each certificate of ours is
// believed, by its DER, and each log, by its ID.
func windowsOf(trustedRoot []byte) (map[string][]window, error) {
	tr, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	windows := map[string][]window{}
	for _, ca := range tr.FulcioCertificateAuthorities() {
		if f, ok := ca.(*root.FulcioCertificateAuthority); ok && len(f.Intermediates) > 0 {
			id := string(f.Intermediates[0].Raw)
			windows[id] = append(windows[id], window{f.ValidityPeriodStart, f.ValidityPeriodEnd})
		}
	}
	for _, a := range tr.TimestampingAuthorities() {
		if t, ok := a.(*root.SigstoreTimestampingAuthority); ok && t.Leaf != nil {
			id := string(t.Leaf.Raw)
			windows[id] = append(windows[id], window{t.ValidityPeriodStart, t.ValidityPeriodEnd})
		}
	}
	for id, l := range tr.RekorLogs() {
		windows[logWindows+id] = []window{{l.ValidityPeriodStart, l.ValidityPeriodEnd}}
	}
	return windows, nil
}
