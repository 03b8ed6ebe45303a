// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// Bounds on what is told of a revocation. All attestations are counted, up to
// maxCounted; more than are listed are said to be.
const (
	maxRevocationJSON = 8 << 10 // bytes
	maxListed         = 1000    // attestations
	maxArtifacts      = 1000
	maxCounted        = 1_000_000
	signedPage        = 1000
	decisionsLooked   = 1000 // of each artifact, newest first; of more it is said that there are
)

// A revocation that was asked for.
type revocation struct {
	attest.KeyRevocation
	dryRun bool
}

func decodeRevocation(c echo.Context) (revocation, error) {
	signer, err := param(c, "signer")
	if err != nil {
		return revocation{}, err
	}
	p, err := attest.ParsePower(signer)
	if err != nil {
		return revocation{}, err
	}
	var wire client.RevocationRequest
	if err := readJSON(c, maxRevocationJSON, &wire); err != nil {
		return revocation{}, err
	}
	if len(wire.Reason) > attest.MaxReason {
		return revocation{}, &attest.LimitError{What: "reason", Limit: attest.MaxReason, Unit: "bytes"}
	}
	return revocation{attest.KeyRevocation{Signer: p, Version: wire.Version, From: wire.From, To: wire.To, Reason: wire.Reason}, wire.DryRun}, nil
}

// A revokedAttestation is one that is to be taken back by a statement.
type revokedAttestation struct {
	id, reason, idempotencyKey string
}

func decodeRevokeAttestation(c echo.Context) (r revokedAttestation, err error) {
	if r.id, err = pathID(c); err != nil {
		return r, err
	}
	if r.idempotencyKey, err = idempotencyKey(c); err != nil {
		return r, err
	}
	var wire client.AttestationRevocation
	err = readJSON(c, maxRevocationJSON, &wire)
	r.reason = wire.Reason
	return r, err
}

// revokeAttestation signs a statement that takes back a single attestation. It
// names no time of its own: the timestamp has one, and a request that is sent
// again must say the same.
func (s *Server) revokeAttestation(ctx context.Context, caller attest.Caller, r revokedAttestation) (reply, error) {
	a, err := s.records.Attestation(ctx, r.id)
	if err == nil && !caller.Within(attest.GrantRevoke).Has(a.Tenant) {
		err = fmt.Errorf("%w: attestation %.40q", attest.ErrNotFound, r.id) // what is another's is not there
	}
	if err != nil {
		return reply{}, err
	}
	req, err := attest.Revoke(s.gate.Service, a, r.reason, time.Time{})
	if err != nil {
		return reply{}, fmt.Errorf("own attestation: %v", err) // its kind ends here: no caller made it
	}
	if err := attest.ValidateReason(r.reason); err != nil {
		return reply{}, err
	}
	req.IdempotencyKey = r.idempotencyKey
	return s.attest(ctx, caller, req)
}

func decodeImpact(c echo.Context) (attest.KeyRevocation, error) {
	var r attest.KeyRevocation
	if err := onlyQuery(c, "version", "from", "to"); err != nil {
		return r, err
	}
	signer, err := param(c, "signer")
	if err != nil {
		return r, err
	}
	if r.Signer, err = attest.ParsePower(signer); err != nil {
		return r, err
	}
	if r.Version, err = strconv.Atoi(c.QueryParam("version")); err != nil {
		return r, fmt.Errorf("%w: query parameter version: want a number", attest.ErrInvalid)
	}
	for name, field := range map[string]*time.Time{"from": &r.From, "to": &r.To} {
		text := c.QueryParam(name)
		if text == "" {
			continue
		}
		if *field, err = time.Parse(time.RFC3339, text); err != nil {
			return r, fmt.Errorf("%w: query parameter %s: want an RFC 3339 time", attest.ErrInvalid, name)
		}
	}
	return r, nil
}

// revoke records a revocation. What it touches is found before: afterwards the
// answer must not fail, for what is recorded is recorded.
func (s *Server) revoke(ctx context.Context, caller attest.Caller, r revocation) (reply, error) {
	if err := everywhere(caller, attest.GrantRevokeKeys); err != nil {
		return reply{}, err
	}
	r.By = caller.Issuer + " " + caller.Subject
	planned, touched, err := s.keys.PlanRevocation(ctx, r.KeyRevocation)
	if err != nil {
		return reply{}, err
	}
	answer, err := s.revocation(ctx, planned, touched)
	if err != nil {
		return reply{}, err
	}
	if r.dryRun {
		return reply{status: http.StatusOK, body: answer}, nil
	}
	err = s.keys.Revoke(ctx, planned)
	var incomplete interface {
		error
		Recorded() bool
	}
	switch {
	case errors.As(err, &incomplete) && incomplete.Recorded():
		s.log.Error("revocation recorded, but its signer cannot go on", "signer", planned.Signer, "version", planned.Version, "error", detail(err))
		answer.Warning = "it is recorded, but signer " + string(planned.Signer) + " cannot sign any more: see the service's log"
	case err != nil: // closed: not recorded, and said so
		return reply{}, err
	}
	s.log.Warn("key version revoked", "id", planned.ID, "signer", planned.Signer, "version", planned.Version,
		"from", planned.From, "to", planned.To, "by", planned.By)
	answer.ID, answer.RecordedAt = planned.ID, planned.At
	return reply{status: http.StatusCreated, body: answer}, nil
}

func (s *Server) impact(ctx context.Context, caller attest.Caller, r attest.KeyRevocation) (reply, error) {
	if err := everywhere(caller, attest.GrantRead); err != nil {
		return reply{}, err
	}
	planned, touched, err := s.keys.PlanRevocation(ctx, r)
	if err != nil {
		return reply{}, err
	}
	answer, err := s.revocation(ctx, planned, touched)
	return reply{status: http.StatusOK, body: answer}, err
}

// revocation finds what a revocation touches: what any of the versions under
// the same CA signed in the interval, and where it was let in. A read that
// fails is an error, never a shorter list.
func (s *Server) revocation(ctx context.Context, r attest.KeyRevocation, versions []int) (client.Revocation, error) {
	answer := client.Revocation{Signer: r.Signer, Version: r.Version, From: r.From, To: r.To, Impact: client.Impact{
		Versions: versions, Attestations: []client.Attestation{}, Artifacts: []client.Subject{}, Environments: []client.Environment{}, Total: map[string]int{},
	}}
	im := &answer.Impact
	artifacts := map[attest.Digest]attest.Subject{}
	counted := 0
	for q := (attest.SignedQuery{Signer: r.Signer, From: r.From, To: r.To, Limit: signedPage}); ; {
		page, err := s.records.SignedBy(ctx, q)
		if err != nil {
			return answer, err
		}
		for _, a := range page {
			q.After = a.Seq
			if !slices.Contains(versions, a.KeyVersion) {
				continue
			}
			counted++
			im.Total[a.PredicateType]++
			if len(im.Attestations) == maxListed {
				im.Truncated = true
			} else {
				im.Attestations = append(im.Attestations, client.Attestation{
					ID: a.ID, PredicateType: a.PredicateType, SignedAt: a.SignedAt, Signer: a.Signer, KeyVersion: a.KeyVersion,
				})
			}
			for _, sub := range a.Subjects {
				if len(artifacts) < maxArtifacts {
					artifacts[sub.SHA256] = sub
				} else if _, ok := artifacts[sub.SHA256]; !ok {
					im.Truncated = true
				}
			}
		}
		if len(page) < signedPage {
			break
		}
		if counted >= maxCounted {
			im.Truncated = true
			break
		}
	}
	digests := slices.SortedFunc(maps.Keys(artifacts), func(a, b attest.Digest) int { return strings.Compare(a.Hex(), b.Hex()) })
	for _, d := range digests {
		im.Artifacts = append(im.Artifacts, client.Subject{Name: artifacts[d].Name, Digest: map[string]string{d.Algorithm(): d.Hex()}})
		if err := s.whereItIs(ctx, d, im); err != nil {
			return answer, err
		}
	}
	return answer, nil
}

// whereItIs adds the environments whose newest passing decision let the
// artifact in.
func (s *Server) whereItIs(ctx context.Context, artifact attest.Digest, im *client.Impact) error {
	decisions, err := s.records.Decisions(ctx, artifact, "", decisionsLooked)
	if err != nil {
		return err
	}
	if len(decisions) == decisionsLooked {
		im.Truncated = true
	}
	seen := map[string]bool{}
	for _, d := range decisions { // newest first
		if d.Verdict != attest.VerdictPass || seen[d.Environment] {
			continue
		}
		seen[d.Environment] = true
		im.Environments = append(im.Environments, client.Environment{Environment: d.Environment, Artifact: artifact, Decision: d.ID, DecidedAt: d.At})
	}
	return nil
}

// maxTimestampQuery is the largest RFC 3161 request read, in bytes; a real one
// has about a hundred.
const maxTimestampQuery = 4 << 10

func decodeTimestamp(c echo.Context) ([]byte, error) {
	if err := onlyQuery(c); err != nil {
		return nil, err
	}
	if _, err := mediaType(c, "application/timestamp-query"); err != nil {
		return nil, err
	}
	return readBody(c, maxTimestampQuery)
}

// timestamp answers by RFC 3161, section 3.4.
func (s *Server) timestamp(ctx context.Context, _ attest.Caller, query []byte) (reply, error) {
	response, err := s.keys.TimestampQuery(ctx, query)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, body: blob{"application/timestamp-reply", response}}, nil
}
