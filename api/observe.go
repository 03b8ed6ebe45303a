// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"provost/attest"
)

// A trace is what is known of a request beyond itself.
type trace struct {
	id     string
	caller string // issuer and subject of the verified token; "" before there is one
}

const traceKey = "provost.trace"

// traceOf returns the request's trace; [Server.observe] has made it.
func traceOf(c echo.Context) *trace {
	t, _ := c.Get(traceKey).(*trace)
	return t
}

// requestID is the shape of an incoming X-Request-ID that is taken over.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// observe stands around every request: it gives it an id, answers its errors
// and panics, counts and logs it.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		t := &trace{id: c.Request().Header.Get(echo.HeaderXRequestID)}
		if !requestID.MatchString(t.id) {
			t.id = attest.NewID()
		}
		c.Set(traceKey, t)
		h := c.Response().Header()
		h.Set(echo.HeaderXRequestID, t.id)
		h.Set("X-Content-Type-Options", "nosniff")

		err := s.guard(next, c)
		cut := err != nil && c.Response().Committed
		if err != nil && !cut {
			p := problem(err)
			p.RequestID = t.id
			writeProblem(c.Response(), p)
		}
		if errors.Is(err, attest.ErrSelfCheck) {
			s.metrics.selfCheck.Inc()
			s.log.Error("ALARM: an own signature does not verify", "request_id", t.id, "error", detail(err))
		}
		s.account(c, err, time.Since(start))
		if cut { // half an answer must not look like a whole one
			panic(http.ErrAbortHandler)
		}
		return nil
	}
}

// guard turns a panic, a fault of this program, into an internal error.
func (s *Server) guard(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			s.log.Error("panic", "request_id", traceOf(c).id, "error", detail(err), "stack", string(debug.Stack()))
		}
	}()
	return next(c)
}

// methods are those that get a label of their own; a caller can send any word.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

// maxPath bounds the path in a log line, in bytes.
const maxPath = 256

// account counts and logs a request that was answered. The query string is not
// logged, nor is any header or body, and a line has a bound.
func (s *Server) account(c echo.Context, err error, took time.Duration) {
	req, status := c.Request(), c.Response().Status
	route, method := c.Path(), req.Method
	if !s.routes[route] {
		route = "none"
	}
	if !slices.Contains(methods, method) {
		method = "other"
	}
	s.metrics.request(route, method, status, took)

	remote, _, _ := net.SplitHostPort(req.RemoteAddr)
	t, path := traceOf(c), redacted(req.URL.Path)
	attrs := []slog.Attr{
		slog.String("request_id", t.id), slog.String("method", method), slog.String("path", path[:min(len(path), maxPath)]),
		slog.String("route", route), slog.Int("status", status), slog.Float64("seconds", took.Seconds()),
		slog.Int64("bytes", c.Response().Size), slog.String("remote", remote), slog.String("caller", t.caller),
	}
	level := slog.LevelInfo
	if err != nil {
		attrs = append(attrs, slog.String("error", detail(err)))
		switch {
		case status == http.StatusServiceUnavailable:
			level = slog.LevelWarn
		case status >= http.StatusInternalServerError:
			level = slog.LevelError
		}
	}
	s.log.LogAttrs(req.Context(), level, "request", attrs...)
}
