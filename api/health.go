// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"provost/api/client"
)

// readiness keeps the last answer for a while, so that asking often does not
// become load on what is asked about.
type readiness struct {
	check func(context.Context) map[string]error
	log   *slog.Logger
	now   func() time.Time

	mu   sync.Mutex
	at   time.Time
	last client.Readiness
}

// readyFor is how long an answer holds, readyTimeout how long finding one may
// take.
const (
	readyFor     = time.Second
	readyTimeout = 5 * time.Second
)

// answer runs the checks, at most once at a time. Why one fails is for the log
// alone.
func (r *readiness) answer(ctx context.Context) client.Readiness {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := r.now().Sub(r.at); r.last.Status != "" && age >= 0 && age < readyFor {
		return r.last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	answer := client.Readiness{Status: "ready", Checks: map[string]string{}}
	for name, err := range r.check(ctx) {
		answer.Checks[name] = "ok"
		if err != nil {
			answer.Status, answer.Checks[name] = "not ready", "failing"
			r.log.Warn("not ready", "check", name, "error", detail(err))
		}
	}
	r.last, r.at = answer, r.now()
	return answer
}

func (s *Server) readyz(c echo.Context) error {
	answer := s.ready.answer(c.Request().Context())
	status := http.StatusOK
	if answer.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	return reply{status: status, body: answer}.write(c)
}

// healthz says that the process serves, and nothing of what it needs.
func (s *Server) healthz(c echo.Context) error {
	return reply{status: http.StatusOK, body: map[string]string{"status": "ok"}}.write(c)
}

func (s *Server) openapi(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "public, max-age=300")
	return c.Blob(http.StatusOK, "application/yaml", openapiYAML)
}
