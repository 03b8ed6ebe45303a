// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"provost/attest"
)

// Imports is where the gate looks for what others signed.
type Imports interface {
	// ImportedAbout returns what q selects, in the order of storing. An error
	// is never an empty answer.
	ImportedAbout(ctx context.Context, q attest.ImportedQuery) ([]attest.Imported, error)
}

// An ImportedFact is one bundle of others that was believed again now. It is no
// provenance and no SBOM of ours, and the shipped policy asks for none.
type ImportedFact struct {
	Import        string    `json:"import"` // its id
	Root          string    `json:"root"`   // the foreign root that it was verified against
	PredicateType string    `json:"predicateType"`
	Issuer        string    `json:"issuer"` // of the identity that signed
	SAN           string    `json:"san"`
	SignedAt      time.Time `json:"signedAt"` // trusted time, UTC
}

// gatherImported adds to the facts what others signed about the artifact, each
// verified against its root as it is now: what was believed when it was
// imported may not be any more. What is not believed is kept as a reason. It
// fails when anything cannot be read, a configured root included, and when
// there is more than a decision reads.
//
// Nothing here is set aside for its tenant: what it says is the word of those
// who signed it, whoever carried it here. It counts neither as evidence that
// was found nor as an input of the verdict.
func (g *Gate) gatherImported(ctx context.Context, f *finding, in attest.Tenants) error {
	if g.Imports == nil || g.Foreign == nil {
		return nil
	}
	roots := map[string]*ForeignTrust{} // one for all, however it changes meanwhile; nil for none
	q := attest.ImportedQuery{Artifact: f.facts.Artifact, In: in, Limit: evidencePage}
	for {
		page, err := g.Imports.ImportedAbout(ctx, q)
		if err != nil {
			return fmt.Errorf("imported bundles: %w", err)
		}
		for _, i := range page {
			if i.Seq <= q.After { // closed, as for attestations
				return fmt.Errorf("imported bundle %s is out of order", i.ID)
			}
			q.After = i.Seq
			f.imports++
			if f.size += len(i.Bundle); f.tooMuch() {
				return errTooMuch
			}
			root, known := roots[i.Root]
			if !known {
				root, err = g.Foreign(i.Root)
				if err != nil && !errors.Is(err, attest.ErrNotFound) { // closed: it may be the one that no longer believes it
					return fmt.Errorf("foreign root %s: %w", i.Root, err)
				}
				roots[i.Root] = root
			}
			f.believeImported(root, i)
		}
		if len(page) < evidencePage {
			return nil
		}
	}
}

// believeImported verifies one bundle, and keeps what it says or the reason why
// not.
func (f *finding) believeImported(root *ForeignTrust, i attest.Imported) {
	err := fmt.Errorf("no foreign root is called %q any more", i.Root)
	var v *Foreign
	if root != nil {
		v, err = root.Verify(i.Bundle)
	}
	if err == nil {
		if _, ok := v.statement.About(f.facts.Artifact); !ok {
			err = &Error{StepSubject, fmt.Errorf("the statement is not about %s", f.facts.Artifact)}
		}
	}
	if err != nil {
		f.refused = append(f.refused, attest.Reason{
			Rule: "evidence.imported", Severity: attest.SeverityInfo,
			Message: fmt.Sprintf("imported bundle %s is not believed: %s", i.ID, err),
		})
		return
	}
	f.facts.Imported = append(f.facts.Imported, ImportedFact{
		Import: i.ID, Root: v.root, PredicateType: v.statement.PredicateType,
		Issuer: v.identity.Issuer, SAN: v.identity.SAN, SignedAt: v.signedAt,
	})
}
