// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// A reply is the successful answer of a call.
type reply struct {
	status   int
	location string // of what was made; "" for nothing
	body     any    // encoded as JSON, but [jsontext.Value] and [blob] go out as they are
}

// A blob is an answer that is not JSON.
type blob struct {
	mediaType string
	bytes     []byte
}

// handle makes a handler of one call. It is the only place where a request
// becomes an act, and holds the order: who asks, whether they may at all,
// what they ask, and only then doing it. What is refused for want of authority
// is recorded; what is done is recorded before it, by [audited] or with the
// intent of a signature.
//
// Once the request is read it is carried out even if the client leaves, for at
// most [Config.CallTimeout]: an act that is cancelled half-way leaves an open intent
// behind, which somebody has to explain.
func handle[In any](s *Server, grant attest.Grant, decode func(echo.Context) (In, error),
	act func(context.Context, attest.Caller, In) (reply, error),
) echo.HandlerFunc {
	return handleAny(s, []attest.Grant{grant}, decode, act)
}

// handleAny is [handle] for a call that one of several grants is enough for;
// which of them it takes, the act decides.
func handleAny[In any](s *Server, grants []attest.Grant, decode func(echo.Context) (In, error),
	act func(context.Context, attest.Caller, In) (reply, error),
) echo.HandlerFunc {
	return func(c echo.Context) error {
		caller, err := s.authenticate(c)
		grant := grants[0]
		if err == nil {
			held := slices.IndexFunc(grants, func(g attest.Grant) bool { return caller.Require(g) == nil })
			grant = grants[max(held, 0)]
			err = caller.Require(grant)
		}
		if err != nil {
			return s.refused(c, grant, caller, err)
		}
		in, err := decode(c)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request().Context()), s.timeout)
		defer cancel()
		out, err := act(ctx, caller, in)
		if err != nil {
			return s.refused(c, grant, caller, errors.Join(err, ctx.Err()))
		}
		return out.write(c)
	}
}

// authenticate returns who asks, by the one bearer token of the request, or by
// the client certificate of its connection. What a proxy says of a certificate
// (X-Forwarded-Client-Cert and its like) is not looked at: whoever reaches us
// could say it.
func (s *Server) authenticate(c echo.Context) (attest.Caller, error) {
	if tls := c.Request().TLS; tls != nil && len(tls.PeerCertificates) > 0 {
		if len(c.Request().Header.Values(echo.HeaderAuthorization)) > 0 { // closed: which of two callers it is would be a guess
			return attest.Caller{}, fmt.Errorf("%w: the request is ambiguous: it has a client certificate and an Authorization header; want one of them", client.ErrUnauthenticated)
		}
		caller, err := s.auth.AuthenticateCertificate(c.Request().Context(), tls.PeerCertificates)
		if err != nil {
			return attest.Caller{}, err
		}
		traceOf(c).caller = caller.Issuer + " " + caller.Subject
		caller.Request, caller.Remote = whence(c)
		return caller, nil
	}
	token, err := bearer(c)
	if err != nil {
		return attest.Caller{}, err
	}
	caller, err := s.auth.Authenticate(c.Request().Context(), token)
	if err != nil {
		return attest.Caller{Issuer: caller.Issuer, Subject: caller.Subject}, err
	}
	traceOf(c).caller = caller.Issuer + " " + caller.Subject
	caller.Request, caller.Remote = whence(c)
	return caller, nil
}

// bearer is the one bearer token of the request.
func bearer(c echo.Context) (string, error) {
	values := c.Request().Header.Values(echo.HeaderAuthorization)
	if len(values) != 1 {
		return "", fmt.Errorf("%w: want one Authorization header with a bearer token", client.ErrUnauthenticated)
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", fmt.Errorf("%w: want a bearer token", client.ErrUnauthenticated)
	}
	return token, nil
}

// everywhere asks that the caller holds a grant in every tenant: what it is
// about is not any tenant's own.
func everywhere(caller attest.Caller, g attest.Grant) error {
	if !caller.Within(g).All {
		return fmt.Errorf("%w: the grant %q is held in single tenants alone", attest.ErrDenied, g)
	}
	return nil
}

func (r reply) write(c echo.Context) error {
	if b, ok := r.body.(blob); ok {
		c.Response().Header().Set("Cache-Control", "no-store")
		return c.Blob(r.status, b.mediaType, b.bytes)
	}
	body, ok := r.body.(jsontext.Value)
	if !ok {
		var err error
		if body, err = json.Marshal(r.body, json.Deterministic(true)); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
	}
	if r.location != "" {
		c.Response().Header().Set(echo.HeaderLocation, r.location)
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Blob(r.status, echo.MIMEApplicationJSON, body)
}

// none decodes a request that carries nothing but its path.
func none(c echo.Context) (struct{}, error) {
	if err := onlyQuery(c); err != nil {
		return struct{}{}, err
	}
	_, err := readBody(c, 0)
	return struct{}{}, err
}

// readBody reads the whole body, at most limit bytes. More is an
// [attest.LimitError], told by Content-Length before anything is read.
func readBody(c echo.Context, limit int64) ([]byte, error) {
	req := c.Request()
	tooLarge := &attest.LimitError{What: "body", Limit: limit, Unit: "bytes"}
	if req.ContentLength > limit {
		return nil, tooLarge
	}
	if encoding := req.Header.Get(echo.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return nil, fmt.Errorf("%w: Content-Encoding: want none", errMediaType)
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), req.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge
	}
	if err != nil { // the connection ended or stalled; its words name addresses
		return nil, fmt.Errorf("%w: the body ended before its end", attest.ErrInvalid)
	}
	return body, nil
}

// readJSON reads a JSON body of at most limit bytes into v, strictly.
func readJSON(c echo.Context, limit int64, v any) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	if _, err := mediaType(c, echo.MIMEApplicationJSON); err != nil {
		return err
	}
	body, err := readBody(c, limit)
	if err != nil {
		return err
	}
	return decodeJSON(body, v)
}

// mediaType returns the body's type, which must be one of those given, in
// UTF-8; "" when the request does not say.
func mediaType(c echo.Context, accepted ...string) (string, error) {
	values := c.Request().Header.Values(echo.HeaderContentType)
	if len(values) == 0 {
		return "", nil
	}
	parsed, params, err := mime.ParseMediaType(values[0])
	if parsed == echo.MIMEApplicationForm { // curl says so unasked; no form is read here
		return "", nil
	}
	charset := params["charset"]
	if err != nil || len(values) != 1 || !slices.Contains(accepted, parsed) || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", fmt.Errorf("%w: Content-Type: want %s", errMediaType, strings.Join(accepted, " or "))
	}
	return parsed, nil
}

// onlyQuery refuses query parameters beyond those named, and any given twice:
// a misspelt one would silently select something else.
func onlyQuery(c echo.Context, names ...string) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w: query string: want name=value&…", attest.ErrInvalid)
	}
	for name, values := range query {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%w: unknown query parameter %.80q", attest.ErrInvalid, name)
		}
		if len(values) > 1 {
			return fmt.Errorf("%w: query parameter %q is given %d times", attest.ErrInvalid, name, len(values))
		}
	}
	return nil
}

// param is a path parameter as it was meant, which the router leaves escaped
// when the path has escapes that matter.
func param(c echo.Context, name string) (string, error) {
	if c.Request().URL.RawPath == "" {
		return c.Param(name), nil
	}
	value, err := url.PathUnescape(c.Param(name))
	if err != nil {
		return "", fmt.Errorf("%w: path: %q is not escaped well", attest.ErrInvalid, name)
	}
	return value, nil
}

// idempotencyKey is the caller's key for this request; "" for none.
func idempotencyKey(c echo.Context) (string, error) {
	values := c.Request().Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || values[0] == "" || len(values[0]) > attest.MaxIdempotencyKey {
		return "", fmt.Errorf("%w: Idempotency-Key: want one of 1 to %d bytes", attest.ErrInvalid, attest.MaxIdempotencyKey)
	}
	return values[0], nil
}
