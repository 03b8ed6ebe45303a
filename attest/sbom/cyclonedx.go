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

func cycloneDX(doc []byte, m members) (Format, error) {
	if got := m.text("bomFormat"); got != cyclonedx.BOMFormat {
		return Format{}, fmt.Errorf("bomFormat %.20q: want %q", got, cyclonedx.BOMFormat)
	}
	version := m.text("specVersion")
	if err := supported("CycloneDX", version, cycloneDXVersions); err != nil {
		return Format{}, err
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(doc), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return Format{}, fmt.Errorf("does not decode as CycloneDX %s: %w", version, err)
	}
	if bom.Components != nil {
		if err := checkComponents(*bom.Components); err != nil {
			return Format{}, err
		}
	}
	return Format{"CycloneDX", version, CycloneDXType}, nil
}

// checkComponents asks for what the schema requires of every component, at any
// depth: a type and a name.
func checkComponents(components []cyclonedx.Component) error {
	for _, c := range components {
		if c.Type == "" || c.Name == "" {
			return errors.New("CycloneDX component without type or name")
		}
		if c.Components != nil {
			if err := checkComponents(*c.Components); err != nil {
				return err
			}
		}
	}
	return nil
}
