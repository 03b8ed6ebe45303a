// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"provost/api/client"
	"provost/attest"
)

// A hinted error says what to type next.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// hint adds what to do next to an error.
func hint(err error, next string) error { return hinted{err, next} }

// hintUnless adds a hint to an error that has none.
func hintUnless(err error, next string) error {
	if errors.As(err, new(hinted)) {
		return err
	}
	return hint(err, next)
}

// next is what to do after an error: its own hint, the one for what it is, or
// the help of the command that it came from.
func next(err error, command string) string {
	var (
		own     hinted
		problem *client.Problem
		call    *url.Error
		cert    *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &own):
		return own.hint
	case errors.As(err, &problem) && problem.Type == client.TokenSpent:
		return "the commands of one job share a session, which is kept in XDG_CACHE_HOME (by default ~/.cache) for 15 minutes: let them write there, as one user; otherwise give each command a fresh token. If you did not use this token, somebody else has: see provost audit list"
	case errors.Is(err, client.ErrUnauthenticated):
		return "get a fresh token for this service: log in again (provost login), or set PROVOST_TOKEN or pass --token-file (for provostd dev: . DIR/cli.env)"
	case errors.As(err, &problem) && problem.Grant != "":
		return fmt.Sprintf("an administrator can grant %q in the service's access table", problem.Grant)
	case errors.Is(err, attest.ErrDenied):
		return nextDenied(err)
	case errors.Is(err, attest.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return "try again; the service's /readyz says what it lacks"
	case errors.As(err, &cert):
		return "is it the right service? If so, name its CA's certificate: --ca ca.pem"
	case errors.As(err, &call):
		return "is the service running? It was looked for at PROVOST_URL=" + origin(call.URL)
	case errors.As(err, &problem) && problem.Status >= 500:
		return "the service's log says more, under the request's id"
	}
	return command + " --help"
}

// nextDenied is what to do after a 403 that names no grant, by what its words
// say.
func nextDenied(err error) string {
	const job = "run it in a CI job: the service's access table says who may do what, and provost builders list whose tokens speak for a build (for provostd dev: --token-file with what provostd dev-token prints)"
	for _, known := range []struct{ words, next string }{
		{"speaks for no", job},
		{"no rule gives", job},
		{"this one has proposed it", "ask somebody else with the role approver"},
		{"matches two builders", "provost builders list shows whose conditions overlap"},
	} {
		if strings.Contains(err.Error(), known.words) {
			return known.next
		}
	}
	return "provost whoami says what you may do"
}

// origin is the part of a URL that PROVOST_URL names.
func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Scheme + "://" + u.Host
}
