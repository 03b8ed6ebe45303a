// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/spdx/tools-golang/json"
)

// SPDXTypePrefix comes before the version in the predicateType of an SPDX 2
// document, as in https://spdx.dev/Document/v2.3.
const SPDXTypePrefix = "https://spdx.dev/Document/v"

var spdxVersions = []string{"2.2", "2.3"}

func spdx(doc []byte, m members) (Format, error) {
	version, ok := strings.CutPrefix(m.text("spdxVersion"), "SPDX-")
	if !ok {
		return Format{}, fmt.Errorf("spdxVersion %.20q: want SPDX-<version>", m.text("spdxVersion"))
	}
	if err := supported("SPDX", version, spdxVersions); err != nil {
		return Format{}, err
	}
	if m.text("SPDXID") != "SPDXRef-DOCUMENT" {
		return Format{}, errors.New(`SPDX without SPDXID "SPDXRef-DOCUMENT"`)
	}
	for _, name := range []string{"name", "dataLicense", "documentNamespace"} { // SPDX 2.3, clause 6
		if m.text(name) == "" {
			return Format{}, fmt.Errorf("SPDX without %s", name)
		}
	}
	if m["creationInfo"].Kind() != '{' {
		return Format{}, errors.New("SPDX without creationInfo")
	}
	if _, err := json.Read(bytes.NewReader(doc)); err != nil {
		return Format{}, fmt.Errorf("does not decode as SPDX %s: %w", version, err)
	}
	return Format{"SPDX", version, SPDXTypePrefix + version}, nil
}
