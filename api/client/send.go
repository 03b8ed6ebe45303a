// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"provost/attest"
)

// Bounds on what one call may cost.
const (
	maxAttempts = 4
	firstPause  = 500 * time.Millisecond
	maxPause    = 30 * time.Second // a longer Retry-After ends the retrying
	maxResponse = MaxPage + 4<<20  // a page and the words around its bundles
	maxProblem  = 64 << 10

	// Timeout of a whole call, unless HTTP has another.
	Timeout = 2 * time.Minute
)

// A call is one request and what it expects.
type call struct {
	method, path   string
	query          url.Values
	contentType    string
	body           []byte
	idempotencyKey string
	want           int
	alsoWant       int
	retry          bool   // the call is safe to repeat, such as by an idempotency key
	public         bool   // needs no token, so none is sent
	token          string // is sent instead of the client's; "" for the client's
}

// errUnsent marks what failed before anything was sent, and would again.
var errUnsent = errors.New("not sent")

// do sends k and decodes the answer into out.
func (c *Client) do(ctx context.Context, k call, out any) error {
	_, raw, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	if err := attest.DecodeOpenJSON(raw, out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", k.method, k.path, err)
	}
	return nil
}

// send sends k, again if it may. Errors are a [*Problem] for every answer of
// another status, otherwise what kept the answer from coming.
func (c *Client) send(ctx context.Context, k call) (status int, raw []byte, err error) {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		status, raw, err = c.sendOnce(ctx, k)
		if err == nil || !k.retry || attempt == maxAttempts || ctx.Err() != nil {
			return status, raw, err
		}
		wait, ok := mayPass(err, pause)
		if !ok || wait > maxPause {
			return status, raw, err
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return status, raw, err
		}
		select {
		case <-ctx.Done():
			return status, raw, err
		case <-time.After(wait):
		}
		pause *= 2
	}
}

// mayPass reports whether an error may be gone after a while: a connection
// that broke, or an answer that says so.
func mayPass(err error, pause time.Duration) (wait time.Duration, ok bool) {
	if problem, isProblem := errors.AsType[*Problem](err); isProblem {
		return max(problem.RetryAfter, pause), errors.Is(problem, attest.ErrUnavailable)
	}
	return pause, !errors.Is(err, errUnsent) && !errors.Is(err, attest.ErrInvalid)
}

// sendOnce sends k, in a session if the service asks for one.
func (c *Client) sendOnce(ctx context.Context, k call) (int, []byte, error) {
	if k.public || k.token != "" || c.Certified {
		return c.sendAs(ctx, k)
	}
	if c.Token == nil {
		return 0, nil, fmt.Errorf("%s %s: %w: %w: no token", k.method, k.path, errUnsent, ErrUnauthenticated)
	}
	if _, err := c.target(k); err != nil { // before a token is asked for
		return 0, nil, fmt.Errorf("%s %s: %w: %w", k.method, k.path, errUnsent, err)
	}
	token, err := c.Token(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w: token: %w", k.method, k.path, errUnsent, err)
	}
	kept, inSession := c.kept(token)
	k.token = token
	if inSession {
		k.token = kept.Token
	}
	status, raw, err := c.sendAs(ctx, k)
	p, isProblem := errors.AsType[*Problem](err)
	switch {
	case !isProblem || p.Status != http.StatusUnauthorized:
		return status, raw, err
	case inSession: // it has ended; the token may be good for another, if it is a new one
	case p.Type != SessionRequired:
		return status, raw, err
	}
	s, err := c.open(ctx, token, kept.Token)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: open session: %w", errUnsent, err)
	}
	k.token = s.Token
	return c.sendAs(ctx, k)
}

func (c *Client) sendAs(ctx context.Context, k call) (int, []byte, error) {
	req, err := c.request(ctx, k)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w: %w", k.method, k.path, errUnsent, err)
	}
	resp, err := c.http().Do(req)
	if err != nil {
		return 0, nil, err // net/http names the method and the URL
	}
	defer resp.Body.Close()
	wanted := resp.StatusCode == k.want || resp.StatusCode == k.alsoWant
	limit := int64(maxResponse)
	if !wanted {
		limit = maxProblem
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: answer: %w", k.method, k.path, err)
	}
	if !wanted {
		return resp.StatusCode, nil, problem(resp, raw)
	}
	if int64(len(raw)) > limit {
		return 0, nil, fmt.Errorf("%s %s: %w", k.method, k.path, &attest.LimitError{What: "answer", Limit: limit, Unit: "bytes"})
	}
	return resp.StatusCode, raw, nil
}

// target is where a call goes, if a token may go there.
func (c *Client) target(k call) (string, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return "", fmt.Errorf("%w: service URL %.200q: want scheme://host", attest.ErrInvalid, c.URL)
	}
	switch {
	case base.Scheme == "https" || base.Scheme == "http" && Loopback(base.Hostname()):
	case base.Scheme != "http":
		return "", fmt.Errorf("%w: service URL %.200q: want https", attest.ErrInvalid, c.URL)
	case k.public: // no secret goes out, but what comes back is believed
		return "", fmt.Errorf("%w: service URL %.200q: %w: over http anybody on the way could answer", attest.ErrInvalid, c.URL, ErrInsecure)
	default:
		return "", fmt.Errorf("%w: service URL %.200q: %w: a token is sent over https alone, or to this machine", attest.ErrInvalid, c.URL, ErrInsecure)
	}
	target := strings.TrimSuffix(c.URL, "/") + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	return target, nil
}

// request builds a request, with a token where one is needed.
func (c *Client) request(ctx context.Context, k call) (*http.Request, error) {
	target, err := c.target(k)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, bytes.NewReader(k.body))
	if err != nil {
		return nil, err
	}
	version := c.Version
	if version == "" {
		version = "devel"
	}
	req.Header.Set("User-Agent", "provost/"+version)
	req.Header.Set("Accept", "application/json")
	if k.contentType != "" {
		req.Header.Set("Content-Type", k.contentType)
	}
	if k.idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", k.idempotencyKey)
	}
	if !k.public && !c.Certified {
		req.Header.Set("Authorization", "Bearer "+k.token)
	}
	return req, nil
}

// http is the caller's client without its redirects: a redirect could carry
// the token elsewhere, and none of the calls has one.
func (c *Client) http() *http.Client {
	client := http.Client{Timeout: Timeout}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// problem is the error of an answer that was not expected. What is no
// problem+json, from a proxy perhaps, becomes a Problem of its status.
func problem(resp *http.Response, raw []byte) *Problem {
	p := &Problem{}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != ProblemType || attest.DecodeOpenJSON(raw, p) != nil || p.Status != resp.StatusCode {
		p = &Problem{Type: "about:blank", Title: http.StatusText(resp.StatusCode), Status: resp.StatusCode,
			Detail: "the answer is not from Provost, or is damaged", RequestID: resp.Header.Get("X-Request-ID")}
	}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// Loopback reports whether a host, without a port, is this machine by its name
// alone; nothing is resolved.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", attest.ErrInvalid, err)
	}
	return body, nil
}
