// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// The media types an SBOM may be sent as. Its format is sniffed; a type that
// names a format must name the one that the document is.
const (
	mimeCycloneDX = "application/vnd.cyclonedx+json"
	mimeSPDX      = "application/spdx+json"
)

// maxIntents is how many open intents are shown.
const maxIntents = 1000

func (s *Server) attest(ctx context.Context, caller attest.Caller, req attest.Request) (reply, error) {
	a, err := s.issue(ctx, caller, req)
	if err != nil {
		return reply{}, err
	}
	body, err := attestationJSON(a)
	return reply{http.StatusCreated, "/v1/attestations/" + a.ID, body}, err
}

func (s *Server) attestation(ctx context.Context, caller attest.Caller, id string) (reply, error) {
	a, err := s.records.Attestation(ctx, id)
	if err == nil && !caller.Within(attest.GrantRead).Has(a.Tenant) {
		err = fmt.Errorf("%w: attestation %.40q", attest.ErrNotFound, id) // what is another's is not there
	}
	if err != nil {
		return reply{}, err
	}
	body, err := attestationJSON(a)
	return reply{http.StatusOK, "", body}, err
}

func (s *Server) attestations(ctx context.Context, caller attest.Caller, q attest.Query) (reply, error) {
	q.In = caller.Within(attest.GrantRead)
	page, next, err := s.page(ctx, q)
	if err != nil {
		return reply{}, err
	}
	body, err := pageJSON(page, next)
	return reply{http.StatusOK, "", body}, err
}

func (s *Server) intents(ctx context.Context, caller attest.Caller, _ struct{}) (reply, error) {
	if err := everywhere(caller, attest.GrantRead); err != nil {
		return reply{}, err
	}
	open, err := s.records.OpenIntents(ctx, maxIntents)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, "", intentsWire(open)}, nil
}

// issue signs, and counts how that went. Of what can go wrong behind the
// issuer, a thing that is not found there is no answer about the request.
func (s *Server) issue(ctx context.Context, caller attest.Caller, req attest.Request) (attest.Attestation, error) {
	done := s.metrics.sign(req.Predicate)
	a, err := s.issuer.Issue(ctx, caller, req)
	done(err)
	if errors.Is(err, attest.ErrNotFound) {
		err = fmt.Errorf("issue: %v", err) // its kind ends here
	}
	return a, err
}

// decodeProvenance reads the subjects. Who built them and how is not asked.
func decodeProvenance(c echo.Context) (attest.Request, error) {
	key, err := idempotencyKey(c)
	if err != nil {
		return attest.Request{}, err
	}
	var wire client.ProvenanceRequest
	if err := readJSON(c, maxProvenanceJSON, &wire); err != nil {
		return attest.Request{}, err
	}
	var p attest.Provenance
	for _, d := range wire.ResolvedDependencies {
		p.Dependencies = append(p.Dependencies, attest.Resource{URI: d.URI, Digest: d.Digest})
	}
	subjects, err := subjects(wire.Subjects)
	return attest.Request{Subjects: subjects, Predicate: p, IdempotencyKey: key}, err
}

// decodeStatement reads a statement that the caller wrote.
func (s *Server) decodeStatement(c echo.Context) (attest.Request, error) {
	key, err := idempotencyKey(c)
	if err != nil {
		return attest.Request{}, err
	}
	if err := onlyQuery(c); err != nil {
		return attest.Request{}, err
	}
	if _, err := mediaType(c, echo.MIMEApplicationJSON, attest.PayloadType); err != nil {
		return attest.Request{}, err
	}
	body, err := readBody(c, attest.MaxStatement)
	if err != nil {
		return attest.Request{}, err
	}
	statement, err := attest.ParseSubmitted(body)
	return attest.Request{
		Subjects:       statement.Subjects,
		Predicate:      attest.Submitted{Service: s.gate.Service, Type: statement.PredicateType, Predicate: statement.Predicate},
		IdempotencyKey: key,
	}, err
}

func subjects(wire []client.Subject) ([]attest.Subject, error) {
	if len(wire) > attest.MaxSubjects {
		return nil, &attest.LimitError{What: "subjects", Limit: attest.MaxSubjects, Unit: "subjects"}
	}
	var out []attest.Subject
	for i, w := range wire {
		for alg := range w.Digest {
			if alg != attest.AlgSHA256 && alg != attest.AlgSHA512 {
				return nil, fmt.Errorf("%w: subject %d: digest algorithm %.20q: want sha256, and sha512 beside it", attest.ErrInvalid, i, alg)
			}
		}
		sub, err := attest.ParseSubject(w.Name, w.Digest)
		if err != nil {
			return nil, fmt.Errorf("subject %d: %w", i, err)
		}
		out = append(out, sub)
	}
	return out, nil // none at all is refused where statements are made
}

// decodeSBOM reads a bill of materials and the digest of what it is about.
func decodeSBOM(c echo.Context) (attest.Request, error) {
	key, err := idempotencyKey(c)
	if err != nil {
		return attest.Request{}, err
	}
	if err := onlyQuery(c, "digest", "name"); err != nil {
		return attest.Request{}, err
	}
	digest, err := attest.ParseDigest(c.QueryParam("digest"))
	if err != nil {
		return attest.Request{}, fmt.Errorf("query parameter digest: %w", err)
	}
	if digest.Algorithm() != attest.AlgSHA256 {
		return attest.Request{}, fmt.Errorf("%w: query parameter digest: want sha256", attest.ErrInvalid)
	}
	media, err := mediaType(c, echo.MIMEApplicationJSON, mimeCycloneDX, mimeSPDX)
	if err != nil {
		return attest.Request{}, err
	}
	document, err := readBody(c, attest.MaxPredicate)
	if err != nil {
		return attest.Request{}, err
	}
	return attest.Request{
		Subjects:       []attest.Subject{{Name: c.QueryParam("name"), SHA256: digest}},
		Predicate:      attest.SBOM{Document: document},
		IdempotencyKey: key,
	}, checkLabel(media, document)
}

// checkLabel refuses a document of another format than the Content-Type says.
// One that is not JSON at all is left to the issuer's words.
func checkLabel(media string, document []byte) error {
	if media != mimeCycloneDX && media != mimeSPDX {
		return nil
	}
	var markers struct {
		CycloneDX jsontext.Value `json:"bomFormat"`
		SPDX      jsontext.Value `json:"spdxVersion"`
	}
	if attest.DecodeOpenJSON(document, &markers) != nil {
		return nil
	}
	if media == mimeCycloneDX && markers.CycloneDX == nil || media == mimeSPDX && markers.SPDX == nil {
		return &attest.DocumentError{What: "SBOM", Err: fmt.Errorf("is not the %s that Content-Type says", media)}
	}
	return nil
}

// decodeQuery reads which attestations are asked for.
func decodeQuery(c echo.Context) (attest.Query, error) {
	if err := onlyQuery(c, "predicateType", "after", "limit"); err != nil {
		return attest.Query{}, err
	}
	raw, err := param(c, "digest")
	if err != nil {
		return attest.Query{}, err
	}
	q := attest.Query{PredicateType: c.QueryParam("predicateType"), Limit: defaultPage}
	if q.Artifact, err = attest.ParseDigest(raw); err != nil {
		return attest.Query{}, err
	}
	if after := c.QueryParam("after"); after != "" {
		if q.After, err = strconv.ParseInt(after, 10, 64); err != nil || q.After < 0 {
			return attest.Query{}, fmt.Errorf("%w: query parameter after: want the next of an earlier page", attest.ErrInvalid)
		}
	}
	if limit := c.QueryParam("limit"); limit != "" {
		if q.Limit, err = strconv.Atoi(limit); err != nil || q.Limit < 1 || q.Limit > maxPage {
			return attest.Query{}, fmt.Errorf("%w: query parameter limit: want 1 to %d", attest.ErrInvalid, maxPage)
		}
	}
	return q, nil
}

// decodeID reads an identifier. What cannot be one names nothing.
func decodeID(c echo.Context) (string, error) {
	if _, err := none(c); err != nil {
		return "", err
	}
	return pathID(c)
}

// pathID is the id in the path.
func pathID(c echo.Context) (string, error) {
	id, err := param(c, "id")
	if err != nil || !identifier.MatchString(id) {
		return "", fmt.Errorf("%w: nothing has such an id", attest.ErrNotFound)
	}
	return id, nil
}

// page reads one page: at most q.Limit attestations and [client.MaxPage] bytes
// of bundles, though always one. It asks the store for few at a time, so that
// large bundles are not all in memory before the bound is seen.
func (s *Server) page(ctx context.Context, q attest.Query) (page []attest.Attestation, next string, err error) {
	limit, size := q.Limit, 0
	for largest := firstGuess; ; {
		q.Limit = max(1, min(limit+1-len(page), (client.MaxPage-size)/largest))
		found, err := s.records.Attestations(ctx, q)
		if err != nil {
			return nil, "", err
		}
		for _, a := range found {
			size += len(a.Bundle)
			largest = max(largest, len(a.Bundle))
			if len(page) == limit || len(page) > 0 && size > client.MaxPage {
				return page, strconv.FormatInt(page[len(page)-1].Seq, 10), nil
			}
			page, q.After = append(page, a), a.Seq
		}
		if len(found) < q.Limit { // the store has no more
			return page, "", nil
		}
	}
}

// attestationJSON is a [client.Attestation].
func attestationJSON(a attest.Attestation) (jsontext.Value, error) {
	return appendWith(make(jsontext.Value, 0, len(a.Bundle)+512), client.Attestation{
		ID: a.ID, PredicateType: a.PredicateType, SignedAt: a.SignedAt, Signer: a.Signer, KeyVersion: a.KeyVersion,
	}, "bundle", a.Bundle)
}

// pageJSON is a [client.Page].
func pageJSON(page []attest.Attestation, next string) (jsontext.Value, error) {
	out := jsontext.Value(`{"attestations":[`)
	for i, a := range page {
		if i > 0 {
			out = append(out, ',')
		}
		item, err := attestationJSON(a)
		if err != nil {
			return nil, err
		}
		out = append(out, item...)
	}
	out = append(out, ']')
	if next != "" {
		out = append(out, `,"next":`+strconv.Quote(next)...)
	}
	return append(out, '}'), nil
}

// appendWith appends the JSON object v with one more member, whose value is
// raw byte for byte: an encoder would change the white space of a bundle, and
// with it the digest that verdicts name.
func appendWith(dst jsontext.Value, v any, name string, raw []byte) (jsontext.Value, error) {
	object, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	dst = append(dst, object[:len(object)-1]...) // all but the brace
	dst = append(dst, `,"`+name+`":`...)
	return append(append(dst, raw...), '}'), nil
}

func intentsWire(open []attest.Intent) client.Intents {
	out := client.Intents{Intents: []client.Intent{}}
	for _, i := range open {
		w := client.Intent{ID: i.ID, At: i.At, Signer: i.Signer, PredicateType: i.PredicateType}
		for _, sub := range i.Subjects {
			digest := map[string]string{attest.AlgSHA256: sub.SHA256.Hex()}
			if !sub.SHA512.IsZero() {
				digest[attest.AlgSHA512] = sub.SHA512.Hex()
			}
			w.Subjects = append(w.Subjects, client.Subject{Name: sub.Name, Digest: digest})
		}
		out.Intents = append(out.Intents, w)
	}
	return out
}
