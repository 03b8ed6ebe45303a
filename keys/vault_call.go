// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/vault/api"

	"provost/attest"
)

// Life of a call:
//
//	try with the session's token
//	  answered                     → decode, done
//	  token refused                → log in again, once, and try again
//	  denied, version, not found   → that is the answer
//	  not Vault's JSON             → try once more, then unavailable
//	  sealed, down, slow, quota …  → wait and try again until the deadline
//
// Trying a sign again is harmless: an ECDSA signature that was lost on the way
// is one nobody has. Trying a rotate again may make two versions; see
// [Rotator].

// A request is one call of Vault's API.
type request struct {
	op          string        // for Observe
	path        string        // below /v1/
	body        any           // sent with PUT; nil to GET
	answer      any           // where "data" is decoded; nil if it does not matter
	auth        *grantedToken // where "auth" is decoded
	correlation string        // what it is for, in Vault's audit log; "" for nothing in particular
	noted       func(*fault)  // told of each attempt: why it failed, or nil; it may be nil itself
}

// grantedToken is what a login or renewal gives.
type grantedToken struct {
	Token     string `json:"client_token"`
	Lease     int64  `json:"lease_duration"` // seconds; 0: for ever
	Renewable bool   `json:"renewable"`
}

const (
	firstWait = 50 * time.Millisecond
	maxWait   = time.Second
)

// downFlag remembers that a call gave up on Vault, so that the callers behind
// it need not wait for as long: while it is set there is one attempt per call.
// The first answer clears it.
type downFlag struct{ atomic.Bool }

// call performs a request with the session's token.
func (v *Vault) call(ctx context.Context, r request) error {
	loggedIn := false
	return v.persist(ctx, r.op, func(ctx context.Context) (f *fault) {
		if r.noted != nil {
			defer func() { r.noted(f) }()
		}
		token, generation := v.session.current()
		f = v.try(ctx, token, r)
		if f == nil || f.kind != faultToken || loggedIn {
			return f
		}
		if f := v.relogin(ctx, generation); f != nil {
			return f
		}
		loggedIn = true
		token, _ = v.session.current()
		return v.try(ctx, token, r)
	})
}

// persist attempts until there is an answer, or none can be had in time.
func (v *Vault) persist(ctx context.Context, op string, attempt func(context.Context) *fault) (err error) {
	defer v.observe(op, time.Now(), &err)
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	deadline, _ := ctx.Deadline()
	garbled := 0
	for n := 0; ; n++ {
		f := attempt(ctx)
		if f == nil {
			v.down.Store(false)
			return nil
		}
		if ctx.Err() != nil { // keep the real reason beside the deadline
			if !time.Now().Before(deadline) { // and not a caller who left
				v.down.Store(true)
			}
			return &UnavailableError{f.retryAfter, errors.Join(ctx.Err(), f.err)}
		}
		if !f.passes() {
			v.down.Store(false)
			return f.final()
		}
		if f.kind == faultGarbled {
			garbled++
		}
		wait := max(backoff(n), f.retryAfter)
		if garbled > 1 || v.down.Load() || time.Until(deadline) < wait {
			v.down.Store(true)
			return &UnavailableError{f.retryAfter, f.err}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// bounded gives ctx the configured deadline, if it has none of its own.
func (v *Vault) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, v.config.Deadline)
}

func (v *Vault) observe(op string, start time.Time, err *error) {
	if v.config.Observe != nil {
		v.config.Observe(op, time.Since(start), *err)
	}
}

// backoff is the wait after attempt n: 50 ms · 2^n up to 1 s, jittered by half
// so that many callers do not come back at once.
func backoff(n int) time.Duration {
	wait := min(firstWait<<min(n, 10), maxWait)
	return wait/2 + rand.N(wait/2)
}

// try performs a request once.
func (v *Vault) try(ctx context.Context, token string, r request) *fault {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var got answer
	client := v.client.
		WithRequestCallbacks(func(q *api.Request) {
			q.ClientToken = token
			if r.correlation != "" {
				q.Headers.Set("X-Correlation-ID", r.correlation)
			}
		}).
		WithResponseCallbacks(got.capture)
	var err error
	if r.body == nil {
		_, err = client.Logical().ReadRawWithContext(ctx, r.path)
	} else {
		var body []byte
		if body, err = json.Marshal(r.body); err == nil {
			_, err = client.Logical().WriteRawWithContext(ctx, r.path, body)
		}
	}
	f := got.fault(err)
	if f == nil {
		f = got.decode(r)
	}
	if f != nil && token != "" { // an answer that quotes our request must not get it into a log
		f.err = redacted(f.err, token)
	}
	return f
}

// answer is what came back. We read it, and the library does not: it takes an
// empty answer, or JSON with something behind it, for success.
type answer struct {
	status     int // 0: nothing came back
	body       []byte
	err        error // of reading the body
	retryAfter time.Duration
}

func (a *answer) capture(resp *api.Response) {
	a.status = resp.StatusCode
	a.body, a.err = io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(a.body))
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		a.retryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
}

// fault judges an answer by its status; nil for a success with a whole body.
func (a *answer) fault(err error) *fault {
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted): // a mistake in the configuration, or somebody in between
		return &fault{kind: faultRefused, err: err}
	case a.status == 0: // no connection, reset, timeout
		if err == nil {
			err = errors.New("no answer")
		}
		return &fault{kind: faultRetry, err: err}
	case a.err != nil:
		return &fault{kind: faultRetry, err: fmt.Errorf("read answer: %w", a.err)}
	case a.status == 200 || a.status == 204:
		return nil
	}
	var refusal struct {
		Errors []string `json:"errors"`
	}
	if attest.DecodeOpenJSON(a.body, &refusal) == nil {
		return judge(a.status, strings.Join(refusal.Errors, "; "), a.retryAfter)
	}
	// An error page or redirect of something that is not Vault. Its status
	// says whether to try again, but it cannot say that a key does not exist.
	f := judge(a.status, "", a.retryAfter)
	if f.kind == faultMissing {
		f.kind = faultRefused
	}
	return f
}

// decode reads a successful answer.
func (a *answer) decode(r request) *fault {
	if len(a.body) == 0 {
		if r.answer == nil && r.auth == nil {
			return nil
		}
		return &fault{kind: faultGarbled, err: fmt.Errorf("answer %d without a body", a.status)}
	}
	var envelope struct {
		Data member `json:"data"`
		Auth member `json:"auth"`
	}
	envelope.Data.into = r.answer
	if r.auth != nil {
		envelope.Auth.into = r.auth
	}
	// One pass, which also refuses what [attest.CheckJSON] does, but for deep
	// nesting: there the decoder's own bound holds. An answer is no stranger's.
	err := json.Unmarshal(a.body, &envelope)
	if err == nil && (envelope.Data.missing() || envelope.Auth.missing()) {
		err = errors.New("an object is missing")
	}
	if err != nil { // %v: a bad answer of Vault is not a bad request of our caller
		return &fault{kind: faultGarbled, err: fmt.Errorf("answer is not Vault's: %v", err)}
	}
	return nil
}

// A member is an object that must be there if somebody wants it: null, and
// nothing, decode into anything without a word.
type member struct {
	into any // nil: nobody does
	seen bool
}

func (m *member) missing() bool { return m.into != nil && !m.seen }

// UnmarshalJSONFrom decodes in the pass that reads the answer.
func (m *member) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if m.into == nil || d.PeekKind() != '{' {
		return d.SkipValue()
	}
	m.seen = true
	return json.UnmarshalDecode(d, m.into)
}
