// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"provost/attest"
)

// Audit configures the audit log.
type Audit struct {
	// HeadEvery is how often the head of the audit log is signed and put into
	// the transparency log, if it has moved. Default 1h, at least 1m. What was
	// recorded after the last signed head can be cut off unseen by whoever can
	// write the database.
	HeadEvery time.Duration `yaml:"head_every"`
}

const (
	defaultHeadEvery = time.Hour
	minHeadEvery     = time.Minute
)

func (a Audit) validate() error {
	if a.HeadEvery < minHeadEvery {
		return fmt.Errorf("audit.head_every %s: want at least %s", a.HeadEvery, minHeadEvery)
	}
	return nil
}

// checkAudit asks whether the audit log still has the record that was signed
// as its head last, and returns that head; the zero one when none was signed.
//
// Closed: if it has not, somebody has cut the log off or made it anew, or the
// database is a mixture of two. Then the service does not start, and signs no
// head that would hide it. What the database says of the signed head is enough
// for that, believed or not: it is for people to find out which of the two was
// changed, and a key that was taken back must not keep the service from
// starting.
func (s *service) checkAudit(ctx context.Context) (signedHead, error) {
	signed, err := s.lastSignedHead(ctx)
	if errors.Is(err, attest.ErrNotFound) {
		return signedHead{}, nil
	}
	if err != nil {
		return signedHead{}, fmt.Errorf("audit log: %w", err)
	}
	records, err := s.store.AuditRecords(ctx, signed.head.Seq-1, 1)
	if err != nil {
		return signedHead{}, fmt.Errorf("audit log: %w", err)
	}
	if len(records) == 1 && records[0].Hash == signed.head.Hash {
		if _, err := attest.VerifyAudit(records, attest.AuditHead{Seq: signed.head.Seq - 1, Hash: records[0].Previous}); err == nil {
			return signed, nil
		}
	}
	s.log.Error("ALARM: the audit log has lost records that its signed head has: was the database changed behind our back?",
		"seq", signed.head.Seq, "hash", signed.head.Hash.String(), "attestation", signed.id)
	return signedHead{}, fmt.Errorf("the audit log has lost record %d, which attestation %s has as its head: restore the database that has it", signed.head.Seq, signed.id)
}

// A signedHead is what the database has as the head that was signed last.
type signedHead struct {
	head attest.AuditHead // not verified
	id   string
	at   time.Time
}

// lastSignedHead returns an [attest.ErrNotFound] when no head was signed.
func (s *service) lastSignedHead(ctx context.Context) (signedHead, error) {
	a, err := s.store.SignedAuditHead(ctx)
	if err != nil {
		return signedHead{}, err
	}
	payload, _, err := attest.OpenUnverified(a.Bundle)
	if err != nil {
		return signedHead{}, fmt.Errorf("signed head %s: %w", a.ID, err)
	}
	said, err := attest.ParseStatement(payload)
	if err != nil {
		return signedHead{}, fmt.Errorf("signed head %s: %w", a.ID, err)
	}
	head, err := attest.ParseAuditHead(s.config.Service, said.Predicate)
	if err != nil {
		return signedHead{}, fmt.Errorf("signed head %s: %w", a.ID, err)
	}
	return signedHead{head, a.ID, a.SignedAt}, nil
}

// signAuditHead has the head of the audit log signed, if it has moved and the
// last signature is old enough; at start, if it has moved. Several processes
// come to one signature. What fails is logged and tried again.
func (s *service) signAuditHead(ctx context.Context, now time.Time, atStart bool) {
	if err := s.auditHead(ctx, now, atStart); err != nil && ctx.Err() == nil {
		s.log.Error("sign the audit log's head", "error", err.Error())
	}
}

func (s *service) auditHead(ctx context.Context, now time.Time, atStart bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.RequestTimeout)
	defer cancel()
	if err := s.server.FlushAudit(ctx, false); err != nil {
		return err
	}
	signed, err := s.checkAudit(ctx) // before the head is read, which other processes move on
	if err != nil {
		return err
	}
	head, err := s.store.AuditHead(ctx)
	if err != nil {
		return err
	}
	if head.Seq <= signed.head.Seq || !atStart && now.Sub(signed.at) < s.config.Audit.HeadEvery {
		return nil
	}
	head.Service = s.config.Service
	_, err = s.issuer.Issue(ctx, attest.Caller{Issuer: s.config.Service, Subject: "audit log"}, head.Request())
	return err
}

// endAudit records, when the service stops, which refusals have no record yet.
func (s *service) endAudit() {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.RequestTimeout)
	defer cancel()
	if err := s.server.FlushAudit(ctx, true); err != nil {
		s.log.Error("refusals that have no record", "error", err.Error())
	}
}
