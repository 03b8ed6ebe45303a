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

// A field is one leaf of a predicate of provenance, or of the subjects of its
// statement, and whose word it is.
type field struct {
	Field  string        `json:"field"` // JSON pointer (RFC 6901) into the predicate; /subject/… into the statement
	Value  any           `json:"value"`
	Origin attest.Origin `json:"origin"`
}

// A claimedLevel is the SLSA build level that provenance claims, and why it is
// not its builder's own; 0 and "" where none is claimed.
type claimedLevel struct {
	Level       int    `json:"level,omitempty"`
	LevelReason string `json:"levelReason,omitempty"`
}

// rows are those of a table: none where no level is claimed.
func (l claimedLevel) rows() []string {
	switch {
	case l.Level == 0:
		return nil
	case l.LevelReason == "":
		return []string{fmt.Sprintf("  level\t%d", l.Level)}
	}
	return []string{fmt.Sprintf("  level\t%d: %s", l.Level, safe(l.LevelReason))}
}

// openBundle reads the level that a bundle's provenance claims, and lists its
// fields. It verifies nothing. What is no provenance has none.
func openBundle(bundle []byte) (level claimedLevel, fields []field, err error) {
	payload, _, err := attest.OpenUnverified(bundle)
	if err != nil {
		return level, nil, err
	}
	s, err := attest.ParseStatement(payload)
	if err != nil || s.PredicateType != attest.ProvenanceType {
		return level, nil, err
	}
	b, err := attest.ParseProvenance(s.Predicate)
	if err != nil {
		return level, nil, err
	}
	fields, err = explain(s, b)
	return claimedLevel{b.Level, b.LevelReason}, fields, err
}

// explain lists the fields of a statement of provenance, which is of that build,
// in their order of names, its subjects last: they are the word of whoever asked.
func explain(s attest.Statement, build *attest.Build) ([]field, error) {
	var predicate any
	d := json.NewDecoder(strings.NewReader(string(s.Predicate)))
	d.UseNumber()
	if err := d.Decode(&predicate); err != nil {
		return nil, err
	}
	var fields []field
	attest.Leaves(predicate, func(pointer string, value any) {
		fields = append(fields, field{pointer, value, build.Origins.Of(pointer)})
	})
	// The level has no origin of its own: the service writes it, after the
	// builder's row and what the token and the CI's API could bear out.
	if registry := attest.FromRegistry(); build.Level > 0 {
		fields = append(fields, field{"/runDetails/metadata/provost_level", build.Level, registry})
		if build.LevelReason != "" {
			fields = append(fields, field{"/runDetails/metadata/provost_levelReason", build.LevelReason, registry})
		}
	}
	slices.SortFunc(fields, func(a, b field) int { return cmp.Compare(a.Field, b.Field) })
	return append(fields, subjectFields(s.Subjects)...), nil
}

// subjectFields are the names and digests of what was built.
func subjectFields(subjects []attest.Subject) (fields []field) {
	tenant := attest.Origin{From: attest.SourceTenant}
	for i, s := range subjects {
		pointer := "/subject/" + strconv.Itoa(i)
		if s.Name != "" {
			fields = append(fields, field{pointer + "/name", s.Name, tenant})
		}
		fields = append(fields, field{pointer + "/digest/sha256", s.SHA256.Hex(), tenant})
		if !s.SHA512.IsZero() {
			fields = append(fields, field{pointer + "/digest/sha512", s.SHA512.Hex(), tenant})
		}
	}
	return fields
}

func printFields(p printer, fields []field) {
	rows := []string{"  FIELD\tVALUE\tORIGIN"}
	for _, f := range fields {
		origin := f.Origin.String()
		if f.Origin.From == attest.SourceTenant {
			origin = p.paint(red, origin)
		}
		value, ok := f.Value.(string)
		if !ok { // of JSON: it has a text there
			text, _ := json.Marshal(f.Value)
			value = string(text)
		}
		rows = append(rows, fmt.Sprintf("  %s\t%s\t%s", safe(f.Field), safe(value), safe(origin)))
	}
	p.table(rows...)
}
