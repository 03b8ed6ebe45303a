// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package sbom tells what bill of materials a JSON document is, one file per
// format. It promises that a document it names decodes as that format with
// the format's own library, and it keeps nothing of what it read.
package sbom

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// A Format is one kind and version of SBOM.
type Format struct {
	Name          string // "CycloneDX" or "SPDX"
	Version       string // such as "1.6" or "2.3"
	PredicateType string // the in-toto predicateType it is attested under
}

// markers are the members that say what a document is.
type markers struct {
	BOMFormat   *string `json:"bomFormat"`
	SpecVersion *string `json:"specVersion"`
	SPDXVersion *string `json:"spdxVersion"`
	SPDXID      *string `json:"SPDXID"`
}

// Sniff names the format of doc, which must be well-formed JSON. A document of
// no known format, of two at once, of an unsupported version, or that does not
// decode as what it says is an error.
func Sniff(doc []byte) (Format, error) {
	var m markers
	if err := json.Unmarshal(doc, &m); err != nil {
		return Format{}, fmt.Errorf("not a JSON object with CycloneDX or SPDX members: %w", err)
	}
	switch {
	case m.BOMFormat != nil && m.SPDXVersion != nil:
		return Format{}, errors.New("says both bomFormat and spdxVersion")
	case m.BOMFormat != nil:
		return cycloneDX(doc, m)
	case m.SPDXVersion != nil:
		return spdx(doc, m)
	}
	return Format{}, errors.New("neither CycloneDX (bomFormat) nor SPDX (spdxVersion) JSON")
}

func supported(name, version string, versions []string) error {
	if !slices.Contains(versions, version) {
		return fmt.Errorf("%s version %.20q: supported are %v", name, version, versions)
	}
	return nil
}
