// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// An Authority is one entry of a trusted root, for people to read.
type Authority struct {
	Kind        string    `json:"kind"` // "certificate authority", "timestamp authority", "log" or "certificate log"
	URI         string    `json:"uri"`
	ValidFrom   time.Time `json:"validFrom,omitzero"` // what it says between these is believed
	ValidTo     time.Time `json:"validTo,omitzero"`   // zero: with no end
	Subject     string    `json:"subject,omitempty"`
	NotBefore   time.Time `json:"notBefore,omitzero"` // of its own certificate
	NotAfter    time.Time `json:"notAfter,omitzero"`
	Fingerprint string    `json:"sha256"` // of its certificate, or the log's ID
}

// Authorities lists whom t believes.
func (t *Trust) Authorities() []Authority {
	if t == nil || t.material == nil {
		return nil
	}
	var all []Authority
	for _, ca := range t.material.FulcioCertificateAuthorities() {
		if f, ok := ca.(*root.FulcioCertificateAuthority); ok {
			signs := f.Root
			if len(f.Intermediates) > 0 {
				signs = f.Intermediates[0]
			}
			all = append(all, describe("certificate authority", f.URI, f.ValidityPeriodStart, f.ValidityPeriodEnd, signs))
		}
	}
	for _, ta := range t.material.TimestampingAuthorities() {
		if s, ok := ta.(*root.SigstoreTimestampingAuthority); ok {
			signs := s.Leaf
			if signs == nil {
				signs = s.Root
			}
			all = append(all, describe("timestamp authority", s.URI, s.ValidityPeriodStart, s.ValidityPeriodEnd, signs))
		}
	}
	all = append(all, describeLogs("log", t.material.RekorLogs())...)
	return append(all, describeLogs("certificate log", t.material.CTLogs())...)
}

// describeLogs lists logs by the time from which they are believed.
func describeLogs(kind string, known map[string]*root.TransparencyLog) (logs []Authority) {
	for _, l := range known {
		logs = append(logs, Authority{Kind: kind, URI: l.BaseURL, ValidFrom: l.ValidityPeriodStart, ValidTo: l.ValidityPeriodEnd, Fingerprint: hex.EncodeToString(l.ID)})
	}
	slices.SortFunc(logs, func(a, b Authority) int {
		return cmp.Or(a.ValidFrom.Compare(b.ValidFrom), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	return logs
}

func describe(kind, uri string, from, to time.Time, c *x509.Certificate) Authority {
	a := Authority{Kind: kind, URI: uri, ValidFrom: from, ValidTo: to}
	if c != nil {
		a.Subject, a.NotBefore, a.NotAfter = c.Subject.String(), c.NotBefore, c.NotAfter
		a.Fingerprint = fmt.Sprintf("%x", sha256.Sum256(c.Raw))
	}
	return a
}
