// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"provost/attest"
)

// metrics count what was done. Every label has few values, none of which a
// caller can make up.
type metrics struct {
	signs           *prometheus.CounterVec
	signSeconds     prometheus.Histogram
	decisions       *prometheus.CounterVec
	decisionSeconds prometheus.Histogram
	requests        *prometheus.CounterVec
	requestSeconds  prometheus.Histogram
	selfCheck       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		signs:           counter("provost_signs_total", "Requests to sign, by signer and result.", "signer", "result"),
		signSeconds:     histogram("provost_sign_seconds", "How long issuing an attestation took."),
		decisions:       counter("provost_decisions_total", "Questions judged, by verdict; a question that could not be judged is an ERROR.", "verdict"),
		decisionSeconds: histogram("provost_decision_seconds", "How long a decision took."),
		requests:        counter("provost_http_requests_total", "HTTP requests, by route, method and status.", "route", "method", "status"),
		requestSeconds:  histogram("provost_http_seconds", "How long a request took, reading and writing included."),
		selfCheck: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "provost_self_check_failures_total",
			Help: "Own signatures or timestamps that did not verify. Anything but 0 is an alarm.",
		}),
	}
	return m, register(reg, m.signs, m.signSeconds, m.decisions, m.decisionSeconds, m.requests, m.requestSeconds, m.selfCheck)
}

// sign starts the clock of one request to sign; the function returned stops it.
func (m *metrics) sign(p attest.Predicate) func(error) {
	signer := attest.PowerEvidence
	switch p.(type) {
	case attest.Provenance:
		signer = attest.PowerProvenance
	case attest.Revocation:
		signer = attest.PowerVerdict
	}
	start := time.Now()
	return func(err error) {
		m.signs.WithLabelValues(string(signer), result(err)).Inc()
		m.signSeconds.Observe(time.Since(start).Seconds())
	}
}

// decision is [metrics.sign] for a question. A question that was itself at
// fault is not counted: there was nothing to judge.
func (m *metrics) decision() func(attest.Decision, error) {
	start := time.Now()
	return func(d attest.Decision, err error) {
		m.decisionSeconds.Observe(time.Since(start).Seconds())
		switch {
		case errors.Is(err, attest.ErrInvalid), errors.Is(err, attest.ErrDenied), errors.Is(err, attest.ErrNotFound):
		case err != nil:
			m.decisions.WithLabelValues(attest.VerdictError.String()).Inc()
		default:
			m.decisions.WithLabelValues(d.Verdict.String()).Inc()
			if d.VSAID != "" {
				m.signs.WithLabelValues(string(attest.PowerVerdict), result(nil)).Inc()
			}
		}
	}
}

func (m *metrics) request(route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.requestSeconds.Observe(took.Seconds())
}

// VaultObserver registers the metrics of calls to the key backend and returns
// what counts one call: the operation, one of a few fixed names, how long it
// took and how it ended. What it returns may be called concurrently. It panics
// when called twice for one registry.
func VaultObserver(reg prometheus.Registerer) func(op string, took time.Duration, err error) {
	calls := counter("provost_vault_calls_total", "Calls to the key backend, by operation and result.", "op", "result")
	seconds := histogram("provost_vault_call_seconds", "How long a call to the key backend took.")
	reg.MustRegister(calls, seconds)
	return func(op string, took time.Duration, err error) {
		calls.WithLabelValues(op, result(err)).Inc()
		seconds.Observe(took.Seconds())
	}
}

// ExpiryObserver registers the metric of when things end that must be renewed
// before, and returns what sets it. what is one of a few fixed names. It panics
// when called twice for one registry.
func ExpiryObserver(reg prometheus.Registerer) func(what string, at time.Time) {
	ends := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "provost_expiry_timestamp_seconds",
		Help: "When a certificate or a TUF role ends, in seconds since 1970. Alert before.",
	}, []string{"what"})
	reg.MustRegister(ends)
	return func(what string, at time.Time) { ends.WithLabelValues(what).Set(float64(at.Unix())) }
}

// result is the kind of an error as a label. What alarms and what may pass
// come before what a caller did wrong.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	for _, kind := range []struct {
		err  error
		name string
	}{
		{attest.ErrSelfCheck, "self_check"},
		{attest.ErrUnavailable, "unavailable"},
		{attest.ErrDenied, "denied"},
		{attest.ErrConflict, "conflict"},
		{attest.ErrNotFound, "not_found"},
		{attest.ErrInvalid, "invalid"},
	} {
		if errors.Is(err, kind.err) {
			return kind.name
		}
	}
	return "error"
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// histogram reaches from a signature in memory to the longest call allowed.
func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help,
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}})
}

func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
