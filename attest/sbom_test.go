// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"strings"
	"testing"
)

const (
	cycloneDXDoc = `{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[{"type":"library","name":"a","version":"1"}]}`
	spdxDoc      = `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"d","dataLicense":"CC0-1.0","documentNamespace":"https://example.com/d","creationInfo":{"creators":["Tool: t"],"created":"2026-01-01T00:00:00Z"},"packages":[]}`
)

var tenant = Caller{Issuer: "https://ci.example", Subject: "job", Grants: []Grant{GrantSBOM}}

func TestSBOMSniffed(t *testing.T) {
	for doc, want := range map[string]string{
		cycloneDXDoc: "https://cyclonedx.org/bom",
		spdxDoc:      "https://spdx.dev/Document/v2.3",
		strings.Replace(spdxDoc, "SPDX-2.3", "SPDX-2.2", 1): "https://spdx.dev/Document/v2.2",
		strings.Replace(cycloneDXDoc, "1.6", "1.7", 1):      "https://cyclonedx.org/bom",
	} {
		c, err := SBOM{[]byte(doc)}.claim(tenant)
		if err != nil || c.predicateType != want || string(c.predicate) != doc {
			t.Errorf("%.60s: %q, %v; want %q", doc, c.predicateType, err, want)
		}
	}
}

func TestSBOMRefused(t *testing.T) {
	var document *DocumentError
	for name, doc := range map[string]string{
		"neither":                  `{"name":"x"}`,
		"both":                     strings.Replace(cycloneDXDoc, "{", `{"spdxVersion":"SPDX-2.3",`, 1),
		"other case":               strings.Replace(strings.Replace(cycloneDXDoc, "bomFormat", "BOMFORMAT", 1), "specVersion", "SPECVERSION", 1),
		"a marker that is null":    strings.Replace(spdxDoc, "{", `{"bomFormat":null,`, 1),
		"component without a name": strings.Replace(cycloneDXDoc, `"name":"a",`, "", 1),
		"nested without a type":    strings.Replace(cycloneDXDoc, `"version":"1"}`, `"version":"1","components":[{"name":"b"}]}`, 1),
		"nonsense components":      strings.Replace(cycloneDXDoc, `{"type":"library","name":"a","version":"1"}`, `{"nonsense":true}`, 1),
		"SPDX without a name":      strings.Replace(spdxDoc, `"name":"d",`, "", 1),
		"SPDX without namespace":   strings.Replace(spdxDoc, "documentNamespace", "documentnamespace", 1),
		"SPDX without creation":    strings.Replace(spdxDoc, "creationInfo", "x", 1),
		"array":                    `[` + cycloneDXDoc + `]`,
		"string":                   `"CycloneDX"`,
		"other bomFormat":          strings.Replace(cycloneDXDoc, "CycloneDX", "cyclonedx", 1),
		"no specVersion":           strings.Replace(cycloneDXDoc, `"specVersion":"1.6",`, "", 1),
		"CycloneDX 9":              strings.Replace(cycloneDXDoc, "1.6", "9.0", 1),
		"SPDX 3":                   strings.Replace(spdxDoc, "SPDX-2.3", "SPDX-3.0", 1),
		"spdxVersion a number":     strings.Replace(spdxDoc, `"SPDX-2.3"`, "2.3", 1),
		"SPDX without SPDXID":      strings.Replace(spdxDoc, `"SPDXID":"SPDXRef-DOCUMENT",`, "", 1),
		"components not an array":  strings.Replace(cycloneDXDoc, `[{"type":"library","name":"a","version":"1"}]`, `"none"`, 1),
		"component name a number":  strings.Replace(cycloneDXDoc, `"name":"a"`, `"name":7`, 1),
		"SPDX packages not a list": strings.Replace(spdxDoc, `"packages":[]`, `"packages":{}`, 1),
	} {
		if _, err := (SBOM{[]byte(doc)}).claim(tenant); !errors.As(err, &document) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want a DocumentError", name, err)
		}
	}
	for name, doc := range map[string]string{
		"empty":         "",
		"truncated":     cycloneDXDoc[:40],
		"duplicate key": strings.Replace(cycloneDXDoc, "{", `{"bomFormat":"CycloneDX",`, 1),
		"not UTF-8":     strings.Replace(cycloneDXDoc, `"a"`, "\"\xc3\x28\"", 1),
		"XML":           `<bom xmlns="http://cyclonedx.org/schema/bom/1.6"/>`,
	} {
		if _, err := (SBOM{[]byte(doc)}).claim(tenant); !errors.Is(err, ErrInvalid) || errors.As(err, &document) {
			t.Errorf("%s: %v; want ErrInvalid and no DocumentError", name, err)
		}
	}
	var limit *LimitError
	if _, err := (SBOM{make([]byte, MaxPredicate+1)}).claim(tenant); !errors.As(err, &limit) {
		t.Errorf("too large: %v; want a LimitError", err)
	}
}

func FuzzSBOM(f *testing.F) {
	f.Add([]byte(cycloneDXDoc))
	f.Add([]byte(spdxDoc))
	f.Add([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.5","metadata":{"tools":{"components":[]}}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := SBOM{doc}.claim(tenant)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if _, err := (Statement{[]Subject{{SHA256: SHA256(nil)}}, c.predicateType, c.predicate}).Encode(); err != nil {
			t.Fatalf("allowed but cannot be said: %v", err)
		}
	})
}
