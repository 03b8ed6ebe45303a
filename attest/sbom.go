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
	if len(s.Document) > MaxPredicate {
		return claim{}, &LimitError{What: "SBOM", Limit: MaxPredicate, Unit: "bytes"}
	}
	if err := CheckJSON(s.Document); err != nil {
		return claim{}, fmt.Errorf("SBOM: %w", err)
	}
	format, err := sbom.Sniff(s.Document)
	if err != nil {
		return claim{}, &DocumentError{What: "SBOM", Err: err}
	}
	tenant, err := c.Home(GrantSBOM)
	return claim{format.PredicateType, s.Document, tenant}, err
}
