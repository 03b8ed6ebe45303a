// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// maxSCTs bounds the work one certificate can ask for.
const maxSCTs = 8

// sctSkew is how far the clock of a certificate log may be ahead of a
// timestamp authority's. A leaf is logged before it first signs.
const sctSkew = time.Minute

// refusal names why the engine refused. What it refuses stays refused,
// whatever is found here.
func (t *Trust) refusal(b *bundle.Bundle, err error) *Error {
	at := engineError(err)
	if at.Step != StepCertificate {
		return at
	}
	content, err := b.VerificationContent()
	if err != nil || content.Certificate() == nil {
		return at
	}
	leaf := content.Certificate()
	verified, _, err := verify.VerifySignedTimestamp(b, t.material)
	if err != nil {
		return at
	}
	stamps := make([]verify.TimestampVerificationResult, len(verified))
	for i, v := range verified {
		if named := t.outside(leaf, v.Time); named != nil {
			return named
		}
		stamps[i].Timestamp = v.Time
	}
	if err := t.checkSCTs(leaf, stamps); err != nil {
		return &Error{StepCertificate, err}
	}
	return at
}

// outside names the gap between windows that a trusted time fell into, for a
// leaf that some authority of the trusted root would vouch for in another
// window: its certificates were all valid then, and the root believes none of
// it. nil when it is not for the windows that the leaf is refused.
func (t *Trust) outside(leaf *x509.Certificate, at time.Time) *Error {
	var before, after time.Time // the nearest windows end and begin here
	for _, ca := range t.material.FulcioCertificateAuthorities() {
		f, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		from, to := f.ValidityPeriodStart, f.ValidityPeriodEnd
		ever := *f
		ever.ValidityPeriodStart, ever.ValidityPeriodEnd = time.Time{}, time.Time{}
		if _, err := ever.Verify(leaf, at); err != nil {
			continue
		}
		switch {
		case within(at, from, to):
			return nil
		case at.Before(from):
			if after.IsZero() || from.Before(after) {
				after = from
			}
		case to.After(before):
			before = to
		}
	}
	day := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	var span string
	switch {
	case !before.IsZero() && !after.IsZero():
		span = "from " + day(before) + " to " + day(after)
	case !before.IsZero():
		span = "after " + day(before)
	case !after.IsZero():
		span = "before " + day(after)
	default:
		return nil
	}
	return &Error{StepRevoked, fmt.Errorf("signed at %s, and the trusted root takes back what this authority vouched for %s", day(at), span)}
}

// oidSCTs is the extension that SCTs are embedded in (RFC 6962, section 3.3).
var oidSCTs = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// checkSCTs holds what the engine leaves out of the promises in a leaf, when
// the trusted root names certificate logs. The engine verifies the SCTs of logs
// it knows until one holds, and passes over the others; other clients refuse
// for any that does not. So every SCT must be of a log in the root, each of
// another, made inside that log's window and before the leaf signed, and hold.
func (t *Trust) checkSCTs(leaf *x509.Certificate, stamps []verify.TimestampVerificationResult) error {
	if len(t.material.CTLogs()) == 0 {
		return nil
	}
	scts, err := embeddedSCTs(leaf)
	if err != nil {
		return err
	}
	if len(scts) == 0 || len(scts) > maxSCTs || len(stamps) == 0 {
		return fmt.Errorf("%d SCTs in the certificate: want 1 to %d", len(scts), maxSCTs)
	}
	logs := map[string]bool{}
	for i, sct := range scts {
		id := hex.EncodeToString(sct.LogID.KeyID[:])
		log, ok := t.material.CTLogs()[id]
		at := ct.TimestampToTime(sct.Timestamp).UTC()
		switch {
		case !ok:
			return fmt.Errorf("SCT %d: certificate log %.16s is not in the trust root", i, id)
		case logs[id]:
			return fmt.Errorf("SCT %d: a second of one certificate log", i)
		case !within(at, log.ValidityPeriodStart, log.ValidityPeriodEnd):
			return fmt.Errorf("SCT %d: made at %s, outside the window of its log", i, at.Format(time.RFC3339))
		case at.After(earliest(stamps).Add(sctSkew)):
			return fmt.Errorf("SCT %d: made at %s, after the certificate signed at %s", i, at.Format(time.RFC3339), earliest(stamps).Format(time.RFC3339))
		}
		logs[id] = true
	}
	if len(scts) == 1 {
		return nil // the one that the engine verified
	}
	chains, err := verify.VerifyLeafCertificate(stamps[len(stamps)-1].Timestamp, leaf, t.material)
	if err != nil {
		return err
	}
	return verify.VerifySignedCertificateTimestamp(chains, len(scts), t.material)
}

// embeddedSCTs reads them as the engine does.
func embeddedSCTs(leaf *x509.Certificate) ([]*ct.SignedCertificateTimestamp, error) {
	for _, e := range leaf.Extensions { // crypto/x509 refuses two of one kind
		if !e.Id.Equal(oidSCTs) {
			continue
		}
		var raw []byte
		if rest, err := asn1.Unmarshal(e.Value, &raw); err != nil || len(rest) > 0 {
			return nil, errors.New("the certificate's list of SCTs does not parse")
		}
		var list ctx509.SignedCertificateTimestampList
		if rest, err := tls.Unmarshal(raw, &list); err != nil || len(rest) > 0 {
			return nil, errors.New("the certificate's list of SCTs does not parse")
		}
		return x509util.ParseSCTsFromSCTList(&list)
	}
	return nil, nil
}
