// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"provost/attest"
)

// Claims are the members of a verified token, by name. A member of an object
// is there, too, under the object's name, a dot and its own, such as
// kubernetes.io.namespace.
type Claims map[string]jsontext.Value

// maxClaims bounds the claims of a token, flattened.
const maxClaims = 512

// ParseClaims reads the payload of a token. It refuses what could be read in
// two ways, among it a member whose name is that of a nested one. The error is
// an [attest.ErrInvalid].
func ParseClaims(payload []byte) (Claims, error) {
	var c Claims
	if err := attest.DecodeOpenJSON(payload, &c); err != nil {
		return nil, err
	}
	if c == nil {
		return nil, fmt.Errorf("%w: claims: want an object", attest.ErrInvalid)
	}
	var nested []string
	for name, value := range c {
		if value.Kind() == '{' {
			nested = append(nested, name)
		}
	}
	for len(nested) > 0 {
		name := nested[0]
		nested = nested[1:]
		var inner map[string]jsontext.Value
		if err := json.Unmarshal(c[name], &inner); err != nil {
			return nil, fmt.Errorf("%w: claim %.80q", attest.ErrInvalid, name)
		}
		for member, value := range inner {
			full := name + "." + member
			if _, ok := c[full]; ok {
				return nil, fmt.Errorf("%w: claim %.80q can be read in two ways", attest.ErrInvalid, full)
			}
			if c[full] = value; value.Kind() == '{' {
				nested = append(nested, full)
			}
		}
		if len(c) > maxClaims {
			return nil, &attest.LimitError{What: "claims", Limit: maxClaims, Unit: "claims"}
		}
	}
	return c, nil
}

// Text is a claim that conditions and mappings can read: a string's value, or
// a number's or boolean's JSON text. Anything else is none.
func (c Claims) Text(name string) (string, bool) {
	value := c[name]
	switch value.Kind() {
	case '"':
		var s string
		if err := json.Unmarshal(value, &s); err != nil {
			return "", false
		}
		return s, true
	case '0', 't', 'f':
		return string(value), true
	}
	return "", false
}

// Has reports whether the claim is there and says something: null and the
// empty string do not.
func (c Claims) Has(name string) bool {
	value := string(c[name])
	return value != "" && value != "null" && value != `""`
}

// Shapes of claims that several providers have. Refs follow
// git-check-ref-format; beyond it they exclude nothing, so '@', '#' and '/'
// stand where git allows them.
var (
	shapeRef    = regexp.MustCompile(`^refs/(heads|tags)/[^ ~^:?*\[\\]{1,500}$`)
	shapeCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	shapeNumber = regexp.MustCompile(`^[1-9][0-9]{0,19}$`)
	shapeUUID   = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)
	shapeValue  = regexp.MustCompile(`^.{1,255}$`)
	shapeLong   = regexp.MustCompile(`^.{1,999}$`)
	shapeName   = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}$`) // in a path
	shapeToken  = regexp.MustCompile(`^[A-Za-z0-9._~:+/=-]{1,255}$`)         // jti or iat
)

// plainRef reports whether a ref is a full one that git would accept
// (git-check-ref-format): no part of it can be taken for a path or a revision.
func plainRef(ref string) bool {
	if !shapeRef.MatchString(ref) || strings.Contains(ref, "..") || strings.Contains(ref, "@{") ||
		strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".") {
		return false
	}
	for _, part := range strings.Split(ref, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// plainPath reports whether a repository's path is of at least so many names, none
// of which leads elsewhere.
func plainPath(path string, names int) bool {
	all := strings.Split(path, "/")
	return len(path) < 1000 && len(all) >= names && !slices.ContainsFunc(all, func(name string) bool {
		return name == "." || name == ".." || !shapeName.MatchString(name)
	})
}

// A reader reads claims and keeps the first thing that is wrong with them.
// Their values end on terminals and in logs, so all must be printable.
type reader struct {
	Claims
	err error
}

// match is the claim's text, which must be there and have that shape.
func (r *reader) match(name string, shape *regexp.Regexp) string {
	value, ok := r.Text(name)
	printable := !strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) })
	if r.err == nil && !(ok && printable && shape.MatchString(value)) {
		r.err = notABuild("claim %s is missing or malformed", name)
	}
	return value
}

// oneOf is the claim's text, which must be one of those given.
func (r *reader) oneOf(name string, accepted ...string) string {
	value := r.match(name, shapeValue)
	if r.err == nil && !slices.Contains(accepted, value) {
		r.err = notABuild("%s is %q: builds of %s are attested", name, value, strings.Join(accepted, ", "))
	}
	return value
}

func notABuild(format string, args ...any) error {
	return fmt.Errorf("%w: the token speaks for no build that can be attested: "+format, append([]any{attest.ErrDenied}, args...)...)
}
