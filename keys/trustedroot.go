// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto/x509"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// trustedRoot writes trusted_root.json (media type v0.1): each issuing CA, and
// each timestamp authority with its leaf first, under one root. Each is
// trusted from its first day; the certificates say until when.
func trustedRoot(identity string, top *x509.Certificate, cas, tsas []certified) ([]byte, error) {
	var issuing []root.CertificateAuthority
	for _, c := range cas {
		issuing = append(issuing, &root.FulcioCertificateAuthority{
			Root:                top,
			Intermediates:       []*x509.Certificate{c.cert},
			ValidityPeriodStart: c.cert.NotBefore,
			URI:                 identity,
		})
	}
	var stamping []root.TimestampingAuthority
	for _, c := range tsas {
		stamping = append(stamping, &root.SigstoreTimestampingAuthority{
			Root:                top,
			Leaf:                c.cert,
			ValidityPeriodStart: c.cert.NotBefore,
			URI:                 identity + "/v1/timestamp",
		})
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, issuing, nil, stamping, nil)
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
