// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"provost/attest"
)

// A field is one leaf of a predicate of provenance, and whose word it is.
type field struct {
	Field  string        `json:"field"` // JSON pointer (RFC 6901)
	Value  any           `json:"value"`
	Origin attest.Origin `json:"origin"`
}

// explainBundle lists the fields of a bundle's provenance, in their order of
// names. It verifies nothing. What is no provenance has none.
func explainBundle(bundle []byte) ([]field, error) {
	payload, _, err := attest.OpenUnverified(bundle)
	if err != nil {
		return nil, err
	}
	s, err := attest.ParseStatement(payload)
	if err != nil {
		return nil, err
	}
	return explain(s)
}

// explain lists the fields of a statement's provenance.
func explain(s attest.Statement) ([]field, error) {
	if s.PredicateType != attest.ProvenanceType {
		return nil, nil
	}
	build, err := attest.ParseProvenance(s.Predicate)
	if err != nil {
		return nil, err
	}
	var predicate any
	d := json.NewDecoder(strings.NewReader(string(s.Predicate)))
	d.UseNumber()
	if err := d.Decode(&predicate); err != nil {
		return nil, err
	}
	var fields []field
	leaves("", predicate, func(pointer string, value any) {
		fields = append(fields, field{pointer, value, build.Origins.Of(pointer)})
	})
	slices.SortFunc(fields, func(a, b field) int { return cmp.Compare(a.Field, b.Field) })
	return fields, nil
}

// leaves calls found for everything in v that is neither object nor array, but
// our own extension fields.
func leaves(pointer string, v any, found func(string, any)) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if !strings.HasPrefix(name, "provost_") {
				leaves(pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), value, found)
			}
		}
	case []any:
		for i, value := range v {
			leaves(pointer+"/"+strconv.Itoa(i), value, found)
		}
	default:
		found(pointer, v)
	}
}

func printFields(p printer, fields []field) {
	rows := []string{"  FIELD\tVALUE\tORIGIN"}
	for _, f := range fields {
		origin := f.Origin.String()
		if f.Origin.From == attest.SourceTenant {
			origin = p.paint(red, origin)
		}
		rows = append(rows, fmt.Sprintf("  %s\t%s\t%s", safe(f.Field), safe(fmt.Sprint(f.Value)), safe(origin)))
	}
	p.table(rows...)
}
