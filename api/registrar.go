// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"provost/attest"
	"provost/verify"
)

// A Registrar is the builder registry as it is believed: every row is signed
// before it is stored, and verified after it is read. So whoever can write the
// database can take rows away, and bring back older ones, but add none.
type Registrar struct {
	Service string
	Store   BuilderStore
	Records Records
	Issuer  *attest.Issuer
	Trust   func() (*verify.Trust, error) // as it is now

	mu       sync.Mutex
	trust    *verify.Trust // the one that believed is of
	believed map[attest.Digest]error
}

// Builders returns the rows of the store. A row that is not believed has the
// state [attest.BuilderUnbelieved]. An error is never an empty answer.
func (r *Registrar) Builders(ctx context.Context) ([]attest.Builder, int64, error) {
	rows, revision, err := r.Store.Builders(ctx)
	if err != nil {
		return nil, 0, err
	}
	for i := range rows {
		err := r.believe(ctx, rows[i])
		if errors.Is(err, attest.ErrUnavailable) { // closed, and it may pass
			return nil, 0, err
		}
		if err != nil {
			rows[i].State = attest.BuilderUnbelieved
		}
	}
	return rows, revision, nil
}

// believe verifies a row, once as long as the trust root is the same.
func (r *Registrar) believe(ctx context.Context, row attest.Builder) error {
	trust, err := r.Trust()
	if err != nil {
		return fmt.Errorf("%w: trust root: %v", attest.ErrUnavailable, err)
	}
	said := attest.Registered{Service: r.Service, Builder: row}
	predicate, err := said.Predicate()
	if err != nil {
		return err
	}
	key := attest.SHA256(append(predicate, row.Attestation...))
	r.mu.Lock()
	if r.trust != trust {
		r.trust, r.believed = trust, map[attest.Digest]error{}
	}
	known, ok := r.believed[key]
	r.mu.Unlock()
	if ok {
		return known
	}
	a, err := r.Records.Attestation(ctx, row.Attestation)
	switch {
	case errors.Is(err, attest.ErrNotFound): // closed: it was signed before it was stored
		return fmt.Errorf("builder %s revision %d is not signed", row.Name, row.Revision)
	case err != nil: // closed, and it may pass
		return fmt.Errorf("%w: builder %s: %v", attest.ErrUnavailable, row.Name, err)
	}
	err = trust.VerifyBuilder(a.Bundle, said)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trust == trust {
		r.believed[key] = err
	}
	return err
}

// AppendBuilder signs a row and stores it if the registry is still at that
// revision; otherwise it is an [attest.ErrConflict]. What was signed and not
// stored holds nowhere.
func (r *Registrar) AppendBuilder(ctx context.Context, b attest.Builder, revision int64) (attest.Builder, error) {
	b.Revision = revision + 1
	req, err := attest.Registered{Service: r.Service, Builder: b}.Request()
	if err != nil {
		return attest.Builder{}, err
	}
	signed, err := r.Issuer.Issue(ctx, attest.Caller{Issuer: r.Service, Subject: "builder registry"}, req)
	if err != nil { // closed: not signed, not stored
		return attest.Builder{}, fmt.Errorf("sign builder %s: %w", b.Name, err)
	}
	b.Attestation = signed.ID
	return r.Store.AppendBuilder(ctx, b, revision)
}

// BuilderHistory returns every row that there ever was of a name.
func (r *Registrar) BuilderHistory(ctx context.Context, name string) ([]attest.Builder, error) {
	return r.Store.BuilderHistory(ctx, name)
}
