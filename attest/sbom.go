// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"

	"provost/attest/sbom"
)

// An SBOM asks for an attestation that carries a software bill of materials.
type SBOM struct {
	Document []byte // CycloneDX or SPDX JSON; sniffed
}

func (s SBOM) claim(c Caller) (claim, error) {
	if err := c.Require(GrantSBOM); err != nil {
		return claim{}, err
	}
	predicateType, err := s.check()
	if err != nil {
		return claim{}, err
	}
	tenant, err := c.Home(GrantSBOM)
	return claim{predicateType, s.Document, tenant}, err
}

// check returns the predicateType of the document's format.
func (s SBOM) check() (string, error) {
	if len(s.Document) > MaxPredicate {
		return "", &LimitError{What: "SBOM", Limit: MaxPredicate, Unit: "bytes"}
	}
	if err := CheckJSON(s.Document); err != nil {
		return "", fmt.Errorf("SBOM: %w", err)
	}
	format, err := sbom.Sniff(s.Document)
	if err != nil {
		return "", &DocumentError{What: "SBOM", Err: err}
	}
	return format.PredicateType, nil
}
