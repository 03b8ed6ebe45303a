// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"provost/attest"
)

// memory is a strict ledger: a breach of the contract fails the test.
type memory struct {
	t            *testing.T
	mu           sync.Mutex
	intents      []attest.Intent
	byKey        map[string]string
	attestations []attest.Attestation
	decisions    map[string]attest.Decision
	fail         error
	queries      int
	audit        []attest.AuditRecord
	failAudit    error
}

func newMemory(t *testing.T) *memory {
	return &memory{t: t, byKey: map[string]string{}, decisions: map[string]attest.Decision{}}
}

func (m *memory) AppendIntent(ctx context.Context, in attest.Intent) (string, *attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.fail, ctx.Err()); err != nil {
		return "", nil, err
	}
	if in.CallerIssuer == "" || in.CallerSubject == "" {
		m.t.Errorf("intent of nobody: %+v", in)
	}
	if in.IdempotencyKey != "" {
		scoped := fmt.Sprint(in.CallerIssuer, "\x00", in.CallerSubject, "\x00", in.IdempotencyKey)
		if id, ok := m.byKey[scoped]; ok {
			i := slices.IndexFunc(m.intents, func(i attest.Intent) bool { return i.ID == id })
			if m.intents[i].Payload != in.Payload || m.intents[i].Tenant != in.Tenant {
				return "", nil, fmt.Errorf("%w: the Idempotency-Key was used for something else", attest.ErrConflict)
			}
			for _, a := range m.attestations {
				if a.ID == id {
					return id, &a, nil
				}
			}
			return id, nil, nil
		}
		m.byKey[scoped] = in.ID
	}
	if in.Audit != nil {
		if m.failAudit != nil {
			return "", nil, m.failAudit
		}
		m.chain(*in.Audit)
	}
	m.intents = append(m.intents, in)
	return in.ID, nil, nil
}

// chain appends a record; the lock is held.
func (m *memory) chain(r attest.AuditRecord) attest.AuditRecord {
	if err := r.Validate(); err != nil {
		m.t.Errorf("audit record: %v", err)
	}
	var head attest.AuditHead
	if n := len(m.audit); n > 0 {
		head = m.audit[n-1].Head()
	}
	m.audit = append(m.audit, r.Chain(head))
	return m.audit[len(m.audit)-1]
}

func (m *memory) AppendAudit(ctx context.Context, r attest.AuditRecord) (attest.AuditRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.failAudit, ctx.Err()); err != nil {
		return attest.AuditRecord{}, err
	}
	return m.chain(r), nil
}

func (m *memory) AuditRecords(_ context.Context, after int64, limit int) ([]attest.AuditRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := m.audit[min(after, int64(len(m.audit))):]
	return slices.Clone(rest[:min(limit, len(rest))]), m.failAudit
}

func (m *memory) SignedAuditHead(context.Context) (attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range slices.Backward(m.attestations) {
		if attest.IsAuditHead(a.PredicateType) {
			return a, m.failAudit
		}
	}
	return attest.Attestation{}, cmp.Or(m.failAudit, fmt.Errorf("%w: signed audit head", attest.ErrNotFound))
}

func (m *memory) AppendAttestation(ctx context.Context, a attest.Attestation) (attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.fail, ctx.Err()); err != nil {
		return attest.Attestation{}, err
	}
	i := slices.IndexFunc(m.intents, func(i attest.Intent) bool { return i.ID == a.ID })
	if i < 0 {
		m.t.Errorf("attestation %s without an intent", a.ID)
		return attest.Attestation{}, attest.ErrNotFound
	}
	a.Tenant = m.intents[i].Tenant
	for _, first := range m.attestations {
		if first.ID == a.ID {
			return first, nil
		}
	}
	for _, in := range m.intents {
		if in.ID == a.ID {
			a.Tenant = in.Tenant
		}
	}
	a.Seq = int64(len(m.attestations) + 1)
	m.attestations = append(m.attestations, a)
	return a, nil
}

func (m *memory) Attestation(_ context.Context, id string) (attest.Attestation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.attestations {
		if a.ID == id {
			return a, m.fail
		}
	}
	return attest.Attestation{}, cmp.Or(m.fail, fmt.Errorf("%w: attestation %s", attest.ErrNotFound, id))
}

func (m *memory) Attestations(_ context.Context, q attest.Query) (found []attest.Attestation, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queries++
	if q.Limit < 1 {
		m.t.Errorf("query with limit %d", q.Limit)
	}
	for _, a := range m.attestations {
		about := slices.ContainsFunc(a.Subjects, func(s attest.Subject) bool { return s.SHA256 == q.Artifact || s.SHA512 == q.Artifact })
		if about && q.In.Has(a.Tenant) && a.Seq > q.After && len(found) < q.Limit &&
			(q.PredicateType == "" || a.PredicateType == q.PredicateType) && a.PredicateType != q.NotPredicateType {
			found = append(found, a)
		}
	}
	return found, m.fail
}

func (m *memory) OpenIntents(_ context.Context, limit int) (open []attest.Intent, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.intents {
		if !slices.ContainsFunc(m.attestations, func(a attest.Attestation) bool { return a.ID == i.ID }) && len(open) < limit {
			open = append(open, i)
		}
	}
	return open, m.fail
}

func (m *memory) SignedBy(_ context.Context, q attest.SignedQuery) (found []attest.Attestation, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.attestations {
		if a.Signer == q.Signer && a.Seq > q.After && len(found) < q.Limit && !a.SignedAt.Before(q.From) && !a.SignedAt.After(q.To) &&
			(q.Version == 0 || q.Version == a.KeyVersion) {
			a.Bundle = nil
			found = append(found, a)
		}
	}
	return found, m.fail
}

func (m *memory) Decisions(_ context.Context, artifact attest.Digest, _ string, limit int) (found []attest.Decision, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.decisions {
		if d.Artifact == artifact && len(found) < limit {
			found = append(found, d)
		}
	}
	return found, m.fail
}

func (m *memory) AppendDecision(ctx context.Context, d attest.Decision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.decisions[d.ID]; ok {
		m.t.Errorf("decision %s twice", d.ID)
	}
	m.decisions[d.ID] = d
	return cmp.Or(m.fail, ctx.Err())
}

func (m *memory) Decision(_ context.Context, id string) (attest.Decision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.decisions[id]
	if !ok {
		return d, fmt.Errorf("%w: decision %s", attest.ErrNotFound, id)
	}
	return d, m.fail
}

// syncBuffer is a log that tests can read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
