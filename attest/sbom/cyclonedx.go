// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/CycloneDX/cyclonedx-go"
)

// CycloneDXType is the bare URI: what cosign's --type cyclonedx and in-toto
// use. The version stands inside the document.
const CycloneDXType = "https://cyclonedx.org/bom"

var cycloneDXVersions = []string{"1.2", "1.3", "1.4", "1.5", "1.6", "1.7"}

func cycloneDX(doc []byte, m markers) (Format, error) {
	if *m.BOMFormat != cyclonedx.BOMFormat {
		return Format{}, fmt.Errorf("bomFormat %.20q: want %q", *m.BOMFormat, cyclonedx.BOMFormat)
	}
	if m.SpecVersion == nil {
		return Format{}, errors.New("CycloneDX without specVersion")
	}
	if err := supported("CycloneDX", *m.SpecVersion, cycloneDXVersions); err != nil {
		return Format{}, err
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(doc), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return Format{}, fmt.Errorf("does not decode as CycloneDX %s: %w", *m.SpecVersion, err)
	}
	return Format{"CycloneDX", *m.SpecVersion, CycloneDXType}, nil
}
