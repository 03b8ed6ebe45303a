// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

type waiting time.Duration

func (w waiting) Error() string             { return "wait" }
func (w waiting) Is(target error) bool      { return target == attest.ErrUnavailable }
func (w waiting) RetryAfter() time.Duration { return time.Duration(w) }

func TestProblems(t *testing.T) {
	secret := errors.New("secret")
	for _, c := range []struct {
		name   string
		err    error
		want   int
		detail string
	}{
		{"a limit", &attest.LimitError{What: "subjects", Limit: 7, Unit: "subjects"}, 413, "subjects: more than 7 subjects"},
		{"a limit inside", fmt.Errorf("x: %w", &attest.LimitError{What: "body", Limit: 7, Unit: "bytes"}), 413, "x: body: more than 7 bytes"},
		{"a depth", &attest.LimitError{What: "JSON nesting", Limit: 64, Unit: "levels"}, 400, "JSON nesting: more than 64 levels"},
		{"a document", &attest.DocumentError{What: "SBOM", Err: errors.New("is not one")}, 422, "SBOM: is not one"},
		{"an invalid one", fmt.Errorf("%w: x", attest.ErrInvalid), 400, "x"},
		{"a stranger", unauthenticated("x"), 401, "unauthenticated: x"},
		{"a missing grant", fmt.Errorf("x: %w", &attest.GrantError{Missing: "read"}), 403, `x: grant "read" is missing`},
		{"a denial", fmt.Errorf("%w: x", attest.ErrDenied), 403, "x"},
		{"nothing there", fmt.Errorf("%w: x", attest.ErrNotFound), 404, "x"},
		{"a conflict", fmt.Errorf("%w: x", attest.ErrConflict), 409, "x"},
		{"a kind behind its step", fmt.Errorf("judge: %w: x", attest.ErrNotFound), 404, "x"},
		{"a refusal on the way to the ledger", fmt.Errorf("append intent: %w: x", attest.ErrDenied), 403, "x"},
		{"a kind behind another step", fmt.Errorf("y: %w: x", attest.ErrNotFound), 404, "y: not found: x"},
		{"a step without a kind", fmt.Errorf("judge: %w", &attest.GrantError{Missing: "read"}), 403, `judge: grant "read" is missing`},
		{"a kind twice", fmt.Errorf("%w: %w: x", attest.ErrInvalid, attest.ErrInvalid), 400, "invalid: x"},
		{"a kind alone", attest.ErrNotFound, 404, "not found"},
		{"a media type", fmt.Errorf("%w: x", errMediaType), 415, "unsupported media type: x"},
		{"an outage", fmt.Errorf("%w: %w", secret, attest.ErrUnavailable), 503, "something this depends on cannot be reached now"},
		{"an outage of a thing not found", fmt.Errorf("%w: %w", attest.ErrNotFound, attest.ErrUnavailable), 503, "something this depends on cannot be reached now"},
		{"a deadline", fmt.Errorf("%w: %w", secret, context.DeadlineExceeded), 503, "it took too long"},
		{"a client that left", context.Canceled, 499, ""},
		{"an alarm", fmt.Errorf("%w: %w", attest.ErrSelfCheck, attest.ErrInvalid), 500, "internal error"},
		{"anything else", secret, 500, "internal error"},
		{"no route", echo.ErrNotFound, 404, ""},
		{"no method", echo.ErrMethodNotAllowed, 405, ""},
		{"words that are not UTF-8", fmt.Errorf("%w: \xff", attest.ErrInvalid), 400, "�"},
	} {
		p := problem(c.err)
		if p.Status != c.want || p.Detail != c.detail {
			t.Errorf("%s: %d %q; want %d %q", c.name, p.Status, p.Detail, c.want, c.detail)
		}
	}
	if p := problem(fmt.Errorf("%w: %s", attest.ErrInvalid, strings.Repeat("é", 5000))); len(p.Detail) > maxDetail+5 {
		t.Errorf("a detail of %d bytes", len(p.Detail))
	}
	for err, want := range map[error]string{waiting(90 * time.Second): "90", waiting(1500 * time.Millisecond): "2", waiting(0): "2", attest.ErrUnavailable: "2"} {
		w := httptest.NewRecorder()
		writeProblem(w, problem(fmt.Errorf("x: %w", err)))
		if got := w.Header().Get("Retry-After"); got != want || w.Code != 503 || w.Header().Get("Content-Type") != client.ProblemType {
			t.Errorf("%v: %d, Retry-After %q; want %s", err, w.Code, got, want)
		}
	}
}
