// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// errMediaType: the body is of a kind that is not read.
var errMediaType = errors.New("unsupported media type")

// defaultRetry is what Retry-After says when the error does not know better.
const defaultRetry = 2 * time.Second

// statusGone is for the log and the metrics: the client left before there was
// an answer. Nobody reads the status.
const statusGone = 499

// maxDetail bounds an error's words, in bytes.
const maxDetail = 1000

// problem maps an error to its answer. Kinds that are the caller's carry their
// words; of everything else only the log learns more than the kind. An error
// of several kinds is the first that matches, so that what is our fault or may
// pass is never told as the caller's mistake.
func problem(err error) client.Problem {
	p := client.Problem{Type: "about:blank", Status: http.StatusInternalServerError, Detail: "internal error"}
	var limit *attest.LimitError
	var document *attest.DocumentError
	var grant *attest.GrantError
	var busy *attest.BusyError
	var routing *echo.HTTPError
	switch {
	case errors.Is(err, attest.ErrSelfCheck): // ours, whatever else it wraps
	case errors.Is(err, errTokenSpent):
		p.Type, p.Status, p.Detail = client.TokenSpent, http.StatusUnauthorized, told(err)
	case errors.Is(err, errSessionRequired):
		p.Type, p.Status, p.Detail = client.SessionRequired, http.StatusUnauthorized, told(err)
	case errors.Is(err, client.ErrUnauthenticated):
		p.Status, p.Detail = http.StatusUnauthorized, told(err)
	case errors.As(err, &busy):
		p.Status, p.Detail, p.RetryAfter = http.StatusTooManyRequests, "too many requests are waiting", retryAfter(err)
	case errors.Is(err, attest.ErrUnavailable):
		p.Status, p.Detail = http.StatusServiceUnavailable, "something this depends on cannot be reached now"
		p.RetryAfter = retryAfter(err)
	case errors.As(err, &grant):
		p.Status, p.Detail, p.Grant = http.StatusForbidden, told(err), grant.Missing
	case errors.Is(err, attest.ErrDenied):
		p.Status, p.Detail = http.StatusForbidden, told(err)
	case errors.Is(err, attest.ErrNotFound):
		p.Status, p.Detail = http.StatusNotFound, told(err)
	case errors.Is(err, attest.ErrConflict):
		p.Status, p.Detail = http.StatusConflict, told(err)
	case errors.As(err, &limit) && limit.Unit != "levels": // how deep JSON nests is its shape, not its size
		p.Status, p.Detail, p.Limit, p.Unit = http.StatusRequestEntityTooLarge, told(err), limit.Limit, limit.Unit
	case errors.As(err, &document):
		p.Status, p.Detail = http.StatusUnprocessableEntity, told(err)
	case errors.Is(err, errMediaType):
		p.Status, p.Detail = http.StatusUnsupportedMediaType, told(err)
	case errors.Is(err, attest.ErrInvalid):
		p.Status, p.Detail = http.StatusBadRequest, told(err)
	case errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Detail, p.RetryAfter = http.StatusServiceUnavailable, "it took too long", defaultRetry
	case errors.Is(err, context.Canceled):
		p.Status, p.Detail = statusGone, ""
	case errors.As(err, &routing):
		p.Status, p.Detail = routing.Code, ""
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// told is an error's words without the kind they begin with, and without the
// step that met it: the title says the kind. The log keeps both.
func told(err error) string {
	words := detail(err)
	rest := words
	for _, step := range []string{"judge: ", "append intent: "} {
		rest = strings.TrimPrefix(rest, step)
	}
	for _, kind := range []error{attest.ErrInvalid, attest.ErrDenied, attest.ErrNotFound, attest.ErrConflict} {
		if rest, ok := strings.CutPrefix(rest, kind.Error()+": "); ok {
			return rest
		}
	}
	return words
}

// detail is an error's words, fit for a line of JSON or of the log. They may
// quote what came in, so they have a bound, and no secret that was put there.
func detail(err error) string {
	words := redacted(strings.ToValidUTF8(err.Error(), "�"))
	if len(words) > maxDetail {
		words = strings.ToValidUTF8(words[:maxDetail], "") + "…"
	}
	return words
}

// retryAfter is how long whoever failed asked to wait: of the first error in
// the chain with a method of that name, otherwise [defaultRetry].
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok && e.RetryAfter() > 0 {
		return e.RetryAfter()
	}
	return defaultRetry
}

// writeProblem answers with p. A body that cannot be written is the client's
// loss; there is nobody left to tell.
func writeProblem(w http.ResponseWriter, p client.Problem) {
	h := w.Header()
	h.Set("Content-Type", client.ProblemType)
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatFloat(math.Ceil(p.RetryAfter.Seconds()), 'f', 0, 64))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{"type":"about:blank","status":500}`)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// decodeJSON is [attest.DecodeJSON] with the words of a wire format: where and
// what, but no Go types.
func decodeJSON(body []byte, v any) error {
	err := attest.DecodeJSON(body, v)
	semantic, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case !ok:
		return err
	case errors.Is(err, json.ErrUnknownName):
		return fmt.Errorf("%w: JSON: unknown member %q", attest.ErrInvalid, string(semantic.JSONPointer))
	case errors.Is(err, attest.ErrInvalid) && errors.Is(semantic.Err, attest.ErrInvalid): // a digest says itself what is wrong with it
		return fmt.Errorf("JSON: member %q: %w", string(semantic.JSONPointer), semantic.Err)
	}
	return fmt.Errorf("%w: JSON: member %q: not the type of value wanted here", attest.ErrInvalid, string(semantic.JSONPointer))
}
