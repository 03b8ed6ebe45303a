// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"strings"
)

const builderPath = "/attestation/builder/v0.1"

// BuilderType is the predicateType of a row of a service's builder registry.
func BuilderType(service string) string { return service + builderPath }

// IsBuilder reports whether statements of a predicateType are rows of a builder
// registry, of whatever service. They say nothing about any artifact.
func IsBuilder(predicateType string) bool {
	service, ok := strings.CutSuffix(predicateType, builderPath)
	return ok && service != ""
}

// A Registered is a row of the builder registry as it is signed before it is
// stored, so that who can write the database cannot add one. It is the service's
// own word: who may ask for it [Builder.Propose], [Builder.Approve] and
// [Builder.Retire] have decided.
type Registered struct {
	Service string
	Builder Builder
}

// Predicate is what is signed of a row: all of it but the attestation's own ID,
// and of what tells people apart a digest.
func (r Registered) Predicate() ([]byte, error) {
	b := r.Builder
	b.Attestation = ""
	for _, p := range []*Person{&b.ProposedBy, &b.ApprovedBy} {
		if p.Key != "" {
			p.Key = SHA256([]byte("person\x00" + p.Key)).String()
		}
	}
	predicate, err := encodeJSON(b)
	if err != nil {
		return nil, fmt.Errorf("%w: builder %s: %w", ErrInvalid, b.Name, err)
	}
	return predicate, nil
}

// Request has the row signed. Its one subject is the row itself.
func (r Registered) Request() (Request, error) {
	predicate, err := r.Predicate()
	if err != nil {
		return Request{}, err
	}
	return Request{Subjects: []Subject{{Name: "builder " + r.Builder.Name, SHA256: SHA256(predicate)}}, Predicate: r}, nil
}

func (r Registered) claim(Caller) (claim, error) {
	if r.Service == "" {
		return claim{}, fmt.Errorf("%w: builder of no service", ErrInvalid)
	}
	if err := r.Builder.Validate(); err != nil {
		return claim{}, err
	}
	predicate, err := r.Predicate()
	return claim{BuilderType(r.Service), predicate, ""}, err
}
