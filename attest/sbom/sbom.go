// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package sbom tells what bill of materials a JSON document is, one file per
// format. It promises that a document it names decodes as that format with
// the format's own library, and it keeps nothing of what it read.
package sbom

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Format is one kind and version of SBOM.
type Format struct {
	Name          string // "CycloneDX" or "SPDX"
	Version       string // such as "1.6" or "2.3"
	PredicateType string // the in-toto predicateType it is attested under
}

// members are a document's own, by their exact names: the formats' libraries
// match names in any case, so what they read is not what others read.
type members map[string]jsontext.Value

// text is a member's string; "" if it is absent or anything else.
func (m members) text(name string) string {
	var s string
	if m[name].Kind() != '"' || json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return s
}

// Sniff names the format of doc, which must be well-formed JSON. A document of
// no known format, of two at once, of an unsupported version, without what its
// format requires, or that does not decode as what it says is an error.
func Sniff(doc []byte) (Format, error) {
	var m members
	if err := json.Unmarshal(doc, &m); err != nil {
		return Format{}, errors.New("not a JSON object with CycloneDX or SPDX members")
	}
	_, isCycloneDX := m["bomFormat"]
	_, isSPDX := m["spdxVersion"]
	switch {
	case isCycloneDX && isSPDX:
		return Format{}, errors.New("says both bomFormat and spdxVersion")
	case isCycloneDX:
		return cycloneDX(doc, m)
	case isSPDX:
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
