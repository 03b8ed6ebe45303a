// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"provost/attest"
)

// openTestService is a development service that serves nobody.
func openTestService(t *testing.T, c Config) *service {
	t.Helper()
	s, err := openService(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func testServiceConfig(t *testing.T) Config {
	t.Helper()
	data, base := t.TempDir(), "http://127.0.0.1:1"
	issuer, err := openDevIssuer(data, base)
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := devIdentity(filepath.Join(data, "keyring.key"))
	if err != nil {
		t.Fatal(err)
	}
	c := dev{log: true}.config(data, "127.0.0.1:1", issuer)
	c.Keys.OfflineRootRecipient, c.TUF = recipient, nil
	if c.defaults(); c.validate() != nil {
		t.Fatal(c.validate())
	}
	if err := initialise(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// The head is signed when it has moved and the last signature is old enough, by
// one of several processes; and it goes into the transparency log.
func TestAuditHeadIsSigned(t *testing.T) {
	c := testServiceConfig(t)
	s, other := openTestService(t, c), openTestService(t, c)
	ctx := t.Context()
	record := func() attest.AuditHead {
		t.Helper()
		r, err := s.store.AppendAudit(ctx, attest.Caller{}.Allowed("read", "x", time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		return r.Head()
	}
	signed := func(s *service, now time.Time, atStart bool) int64 {
		t.Helper()
		if err := s.auditHead(ctx, now, atStart); err != nil {
			t.Fatal(err)
		}
		h, err := s.lastSignedHead(ctx)
		if err != nil && !errors.Is(err, attest.ErrNotFound) {
			t.Fatal(err)
		}
		return h.head.Seq
	}
	now := time.Now()
	if got := signed(s, now, true); got != 0 {
		t.Errorf("of nothing: head %d is signed", got)
	}
	record()
	if got := signed(s, now, false); got != 1 {
		t.Errorf("the first: head %d is signed", got)
	}
	head := record()
	if got := signed(s, now.Add(c.Audit.HeadEvery/2), false); got != 1 {
		t.Errorf("before its time: head %d is signed", got)
	}
	if got := signed(s, now, true); got != 2 {
		t.Errorf("at start: head %d is signed", got)
	}
	a, err := s.store.SignedAuditHead(ctx)
	if err != nil || a.Log == "" || a.Signer != attest.PowerVerdict {
		t.Errorf("signed by %s in log %q, %v", a.Signer, a.Log, err)
	}
	trust, err := s.trust()
	if err != nil {
		t.Fatal(err)
	}
	head.Service = c.Service
	if got, _, err := trust.VerifyAuditHead(a.Bundle); err != nil || got != head {
		t.Errorf("the head says %+v, %v: want %+v", got, err, head)
	}
	for _, s := range []*service{s, other, other} { // it has not moved since, and signing it is no record
		if got := signed(s, now.Add(24*time.Hour), true); got != 2 {
			t.Errorf("signed again: %d", got)
		}
	}
	if again, err := s.store.SignedAuditHead(ctx); err != nil || again.ID != a.ID {
		t.Errorf("another attestation: %s, %v", again.ID, err)
	}
	record()
	if got := signed(other, now.Add(2*c.Audit.HeadEvery), false); got != 3 {
		t.Errorf("in its time: head %d is signed", got)
	}

	// What cannot be signed now is signed later.
	record()
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.auditHead(done, now, true); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("when the store is away: %v", err)
	}
	if got := signed(s, now, true); got != 4 {
		t.Errorf("later: head %d is signed", got)
	}
}
