// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Source is whose word a field of provenance is.
type Source string

// The sources.
const (
	SourceToken    Source = "token"    // a claim of the verified token
	SourceAPI      Source = "api"      // the CI's own API, asked by the service
	SourceRegistry Source = "registry" // the builder registry
	SourceControl  Source = "control"  // a registered builder control plane, which submitted it
	SourceTenant   Source = "tenant"   // whoever runs the build
)

// Sources are all sources there are.
var Sources = []Source{SourceToken, SourceAPI, SourceRegistry, SourceControl, SourceTenant}

// An Origin says where one field of provenance comes from.
type Origin struct {
	From Source `json:"from"`
	// Names are the claims it was made of, or the members of the API's answer;
	// sorted, may be empty.
	Names []string `json:"names,omitempty"`
	// VerifiedBy is SourceAPI for a field that the CI's API confirmed; "" when
	// nobody was asked.
	VerifiedBy Source `json:"verifiedBy,omitempty"`
}

// FromToken is the origin of a field made of claims.
func FromToken(claims ...string) Origin {
	slices.Sort(claims)
	return Origin{From: SourceToken, Names: claims}
}

// FromRegistry is the origin of a field that the builder registry says.
func FromRegistry() Origin { return Origin{From: SourceRegistry} }

func (o Origin) String() string {
	if o.From == "" {
		return "not recorded"
	}
	s := string(o.From)
	if len(o.Names) > 0 {
		s += " " + strings.Join(o.Names, ", ")
	}
	if o.VerifiedBy != "" {
		s += ", verified by " + string(o.VerifiedBy)
	}
	return s
}

// Origins are the origins of the fields of one predicate, by JSON pointer (RFC
// 6901). An entry holds for everything below it that has none of its own.
type Origins map[string]Origin

// Of returns the origin of the field at a JSON pointer: its own, or that of the
// nearest field above it that has one; the zero Origin when none has.
func (o Origins) Of(pointer string) Origin {
	for {
		if origin, ok := o[pointer]; ok {
			return origin
		}
		i := strings.LastIndexByte(pointer, '/')
		if i < 0 {
			return Origin{}
		}
		pointer = pointer[:i]
	}
}

// extensionPrefix begins the names of the fields that are ours in provenance
// (SLSA v1.2 provenance, "Extension fields": vendor and underscore).
const extensionPrefix = "provost_"

// complete returns an error unless every leaf of the predicate has an origin,
// and every origin a field: what nobody answers for is not signed.
func (o Origins) complete(predicate any) error {
	left := maps.Clone(o)
	if missing, ok := o.cover("", false, predicate, left); !ok {
		return fmt.Errorf("%w: provenance: field %s has no origin", ErrInvalid, missing)
	}
	for pointer := range left {
		return fmt.Errorf("%w: provenance: the origin of %s is of no field", ErrInvalid, pointer)
	}
	for pointer, origin := range o {
		if !slices.Contains(Sources, origin.From) {
			return fmt.Errorf("%w: provenance: the origin of %s is none", ErrInvalid, pointer)
		}
	}
	return nil
}

// cover strikes from left the origins of v and of all below it, and returns
// the first leaf that has none.
func (o Origins) cover(pointer string, covered bool, v any, left Origins) (missing string, ok bool) {
	_, here := o[pointer]
	delete(left, pointer)
	covered = covered || here
	all := members(v)
	if len(all) == 0 {
		return pointer, covered
	}
	for _, m := range all {
		if missing, ok := o.cover(pointer+"/"+pointerEscape(m.name), covered, m.value, left); !ok {
			return missing, false
		}
	}
	return "", true
}

// Leaves calls found for every leaf of a decoded predicate, in no order, with its
// JSON pointer (RFC 6901): for what is neither object nor array, and for an empty
// one. Our extension fields are left out; they have no origins.
func Leaves(predicate any, found func(pointer string, value any)) { leaves("", predicate, found) }

func leaves(pointer string, v any, found func(string, any)) {
	all := members(v)
	if len(all) == 0 && pointer != "" {
		found(pointer, v)
	}
	for _, m := range all {
		leaves(pointer+"/"+pointerEscape(m.name), m.value, found)
	}
}

// A member is what stands directly in an object or array.
type member struct {
	name  string
	value any
}

// members are those of v, in no order, without our extension fields; none for
// a leaf.
func members(v any) (all []member) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if !strings.HasPrefix(name, extensionPrefix) {
				all = append(all, member{name, value})
			}
		}
	case map[string]string:
		for name, value := range v {
			all = append(all, member{name, value})
		}
	case []any:
		for i, value := range v {
			all = append(all, member{strconv.Itoa(i), value})
		}
	case []map[string]any:
		for i, value := range v {
			all = append(all, member{strconv.Itoa(i), value})
		}
	}
	return all
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// pointerEscape is a member's name in a JSON pointer.
func pointerEscape(name string) string { return pointerEscaper.Replace(name) }
