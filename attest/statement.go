// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	intoto "github.com/in-toto/attestation/go/v1"
)

// PayloadType is the DSSE payload type of every envelope issued or believed
// (in-toto attestation spec v1, envelope.md).
const PayloadType = "application/vnd.in-toto+json"

// A Subject is one artifact that a statement is about. Matching is by digest
// only; the name is a label for people.
type Subject struct {
	Name   string
	SHA256 Digest // always present
	SHA512 Digest // zero when absent
}

// A Statement is an in-toto Statement v1. The in-toto Go binding is not used
// for it: its protojson output is not byte-stable, reads numbers as floats,
// and its Validate accepts v0.1 and any spelling of a digest.
type Statement struct {
	Subjects      []Subject
	PredicateType string
	Predicate     []byte // JSON object
}

// wireStatement is the JSON of a Statement, in the order it is written.
type wireStatement struct {
	Type          string         `json:"_type"`
	Subject       []wireSubject  `json:"subject"`
	PredicateType string         `json:"predicateType"`
	Predicate     jsontext.Value `json:"predicate"`
}

type wireSubject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"`
}

// Encode returns the statement's bytes: what is hashed, signed and stored. It
// returns an [ErrInvalid] for a statement that [ParseStatement] would refuse.
func (s Statement) Encode() ([]byte, error) {
	wire := wireStatement{Type: intoto.StatementTypeUri, PredicateType: s.PredicateType, Predicate: s.Predicate}
	for _, sub := range s.Subjects {
		digest := map[string]string{AlgSHA256: sub.SHA256.Hex()}
		if !sub.SHA512.IsZero() {
			digest[AlgSHA512] = sub.SHA512.Hex()
		}
		wire.Subject = append(wire.Subject, wireSubject{sub.Name, digest})
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	payload, err := encodeJSON(wire)
	if err != nil {
		return nil, fmt.Errorf("%w: encode statement: %w", ErrInvalid, err)
	}
	return payload, nil
}

// ParseStatement reads a verified payload. It refuses what other parsers might
// read differently: any _type but Statement v1, no subject, a subject without
// sha256, a digest that is not lower-case hex of the right length, one
// subject listed twice, duplicate keys. Digest algorithms other than sha256 and sha512
// and unknown members are ignored (in-toto attestation spec v1, parsing rules). The
// error is an [ErrInvalid].
func ParseStatement(payload []byte) (Statement, error) {
	if len(payload) > MaxStatement {
		return Statement{}, &LimitError{What: "statement", Limit: MaxStatement, Unit: "bytes"}
	}
	var wire wireStatement
	if err := DecodeOpenJSON(payload, &wire); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	if wire.Type != intoto.StatementTypeUri {
		return Statement{}, fmt.Errorf("%w: statement _type %.80q: want %s", ErrInvalid, wire.Type, intoto.StatementTypeUri)
	}
	s := Statement{PredicateType: wire.PredicateType, Predicate: wire.Predicate}
	if len(wire.Subject) > MaxSubjects {
		return Statement{}, &LimitError{What: "subjects", Limit: MaxSubjects, Unit: "subjects"}
	}
	for i, ws := range wire.Subject {
		sub, err := ParseSubject(ws.Name, ws.Digest)
		if err != nil {
			return Statement{}, fmt.Errorf("subject %d: %w", i, err)
		}
		s.Subjects = append(s.Subjects, sub)
	}
	if err := s.validate(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

// ParseSubject makes a Subject of a name and a digest set. sha256 is required,
// sha512 accepted, other algorithms ignored.
func ParseSubject(name string, digests map[string]string) (Subject, error) {
	sub := Subject{Name: name}
	value, ok := digests[AlgSHA256]
	if !ok {
		return Subject{}, fmt.Errorf("%w: digest: sha256 is required", ErrInvalid)
	}
	var err error
	if sub.SHA256, err = NewDigest(AlgSHA256, value); err != nil {
		return Subject{}, err
	}
	if value, ok := digests[AlgSHA512]; ok {
		if sub.SHA512, err = NewDigest(AlgSHA512, value); err != nil {
			return Subject{}, err
		}
	}
	return sub, nil
}

// About returns the subject whose digest is d, compared by d's algorithm.
func (s Statement) About(d Digest) (Subject, bool) {
	for _, sub := range s.Subjects {
		if !d.IsZero() && (sub.SHA256 == d || sub.SHA512 == d) {
			return sub, true
		}
	}
	return Subject{}, false
}

func (s Statement) validate() error {
	if err := validateSubjects(s.Subjects); err != nil {
		return err
	}
	if err := validateTypeURI(s.PredicateType); err != nil {
		return err
	}
	if len(s.Predicate) > MaxPredicate {
		return &LimitError{What: "predicate", Limit: MaxPredicate, Unit: "bytes"}
	}
	if p := jsontext.Value(s.Predicate); len(s.Predicate) == 0 || p.Kind() != '{' {
		return fmt.Errorf("%w: predicate: want a JSON object", ErrInvalid)
	}
	return nil
}

func validateSubjects(subjects []Subject) error {
	if len(subjects) == 0 {
		return fmt.Errorf("%w: statement has no subject", ErrInvalid)
	}
	if len(subjects) > MaxSubjects {
		return &LimitError{What: "subjects", Limit: MaxSubjects, Unit: "subjects"}
	}
	seen := make(map[Subject]bool, len(subjects))
	for i, sub := range subjects {
		if sub.SHA256.Algorithm() != AlgSHA256 {
			return fmt.Errorf("%w: subject %d: digest: sha256 is required", ErrInvalid, i)
		}
		if seen[sub] {
			return fmt.Errorf("%w: subject %d: %s is listed twice", ErrInvalid, i, sub.SHA256)
		}
		seen[sub] = true
		if len(sub.Name) > MaxSubjectName {
			return &LimitError{What: "subject name", Limit: MaxSubjectName, Unit: "bytes"}
		}
		if !utf8.ValidString(sub.Name) || strings.ContainsFunc(sub.Name, isControl) {
			return fmt.Errorf("%w: subject %d: name has control characters or is not UTF-8", ErrInvalid, i)
		}
	}
	return nil
}

// isControl keeps terminal escapes and line breaks out of names that are
// printed to people and logs.
func isControl(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }

// validateTypeURI asks for an absolute URI with lower-case scheme and
// authority (in-toto attestation spec v1, field_types.md).
func validateTypeURI(uri string) error {
	scheme, rest, ok := strings.Cut(uri, "://")
	host, _, _ := strings.Cut(rest, "/")
	if !ok || scheme == "" || host == "" || scheme != strings.ToLower(scheme) || host != strings.ToLower(host) ||
		len(uri) > 512 || strings.ContainsFunc(uri, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
		return fmt.Errorf("%w: predicateType %.80q: want a URI with lower-case scheme and authority", ErrInvalid, uri)
	}
	return nil
}
