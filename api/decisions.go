// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

func (s *Server) decide(ctx context.Context, caller attest.Caller, q verify.Question) (reply, error) {
	done := s.metrics.decision()
	d, err := s.gate.Decide(ctx, caller, q)
	done(d, err)
	if err != nil { // closed: an error is no verdict, whatever d says
		return reply{}, err
	}
	body, err := decisionJSON(d)
	return reply{http.StatusOK, "/v1/decisions/" + d.ID, body}, err
}

func (s *Server) decision(ctx context.Context, caller attest.Caller, id string) (reply, error) {
	d, err := s.records.Decision(ctx, id)
	if err == nil && !caller.Within(attest.GrantRead).Has(d.Tenant) {
		err = fmt.Errorf("%w: decision %.40q", attest.ErrNotFound, id) // what is another's is not there
	}
	if err != nil {
		return reply{}, err
	}
	body, err := decisionJSON(d)
	return reply{http.StatusOK, "", body}, err
}

func decodeQuestion(c echo.Context) (verify.Question, error) {
	var wire client.Question
	err := readJSON(c, maxQuestionJSON, &wire)
	return verify.Question{Artifact: wire.Artifact.Digest, Name: wire.Artifact.Name, Environment: wire.Environment, Nonce: wire.Nonce}, err
}

// decisionJSON is a [client.Decision].
func decisionJSON(d attest.Decision) (jsontext.Value, error) {
	vsa := d.VSA
	if vsa == nil {
		vsa = []byte("null")
	}
	return appendWith(make(jsontext.Value, 0, len(vsa)+4096), client.Decision{
		ID: d.ID, Verdict: d.Verdict, Reasons: d.Reasons, Environment: d.Environment,
		Artifact: client.Artifact{Digest: d.Artifact, Name: d.Name}, DecidedAt: d.At,
	}, "vsa", vsa)
}
