// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"provost/attest"
)

func token(context.Context) (string, error) { return "secret-token", nil }

// serve answers the calls of one test, and says how many there were.
func serve(t *testing.T, answer http.HandlerFunc) (*Client, *atomic.Int32) {
	t.Helper()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return &Client{URL: server.URL + "/", Token: token, Version: "1.2.3"}, &calls
}

func fail(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", ProblemType)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

const signed = `{"id":"x","predicateType":"t","signedAt":"2026-01-02T03:04:05Z","signer":"provenance","keyVersion":2,"bundle":{ "a" : [1, 2] },"later":"ignored"}`

var digest = attest.SHA256([]byte("x"))

func TestWhatIsSent(t *testing.T) {
	var seen *http.Request
	var body []byte
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, signed)
	})
	a, err := c.AttestSBOM(t.Context(), Artifact{Digest: digest, Name: "a b&c"}, []byte("{}"), "key")
	if err != nil {
		t.Fatal(err)
	}
	if a.ID != "x" || a.KeyVersion != 2 || string(a.Bundle) != `{ "a" : [1, 2] }` {
		t.Errorf("answer %+v with bundle %s; want the bundle byte for byte", a, a.Bundle)
	}
	for name, want := range map[string]string{"Authorization": "Bearer secret-token", "Idempotency-Key": "key", "User-Agent": "provost/1.2.3", "Content-Type": "application/json"} {
		if got := seen.Header.Get(name); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	if seen.URL.Path != "/v1/attestations/sbom" || seen.URL.Query().Get("digest") != digest.String() || seen.URL.Query().Get("name") != "a b&c" || string(body) != "{}" {
		t.Errorf("sent %s with %s", seen.URL, body)
	}
	if _, err := c.AttestProvenance(t.Context(), ProvenanceRequest{}, ""); err != nil || len(seen.Header.Get("Idempotency-Key")) < 20 {
		t.Errorf("without a key one is made: %v, %q", err, seen.Header.Get("Idempotency-Key"))
	}
}

func TestSigningIsRetried(t *testing.T) {
	var keys []string
	answers := []func(http.ResponseWriter){
		func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			fail(w, 503, `{"type":"about:blank","title":"Service Unavailable","status":503}`)
		},
		func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }, // the connection breaks
		func(w http.ResponseWriter) { w.WriteHeader(201); _, _ = io.WriteString(w, signed) },
	}
	c, calls := serve(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		answers[len(keys)-1](w)
	})
	start := time.Now()
	if a, err := c.AttestProvenance(t.Context(), ProvenanceRequest{}, ""); err != nil || a.ID != "x" {
		t.Fatalf("%+v, %v", a, err)
	}
	if calls.Load() != 3 || len(slices.Compact(keys)) != 1 {
		t.Errorf("%d calls with keys %v; want 3 with one key", calls.Load(), keys)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("Retry-After was not honoured: %s", took)
	}
}

func TestWhatIsNotRetried(t *testing.T) {
	problem := func(status int, retryAfter string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", retryAfter)
			p, _ := json.Marshal(Problem{Status: status, Title: "x"})
			fail(w, status, string(p))
		}
	}
	sign := func(ctx context.Context, c *Client) error {
		_, err := c.AttestProvenance(ctx, ProvenanceRequest{}, "k")
		return err
	}
	decide := func(ctx context.Context, c *Client) error { _, err := c.Decide(ctx, Question{}); return err }
	rotate := func(ctx context.Context, c *Client) error {
		_, err := c.Rotate(ctx, attest.PowerEvidence)
		return err
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		call   func(context.Context, *Client) error
		want   error
	}{
		{"a refusal", problem(400, ""), sign, attest.ErrInvalid},
		{"a denial", problem(403, ""), sign, attest.ErrDenied},
		{"a token that is not accepted", problem(401, ""), sign, ErrUnauthenticated},
		{"a conflict", problem(409, ""), sign, attest.ErrConflict},
		{"a fault", problem(500, ""), sign, nil},
		{"a wait beyond patience", problem(503, "3600"), sign, attest.ErrUnavailable},
		{"a wait beyond the deadline", problem(503, "5"), sign, attest.ErrUnavailable},
		{"a decision", problem(503, "0"), decide, attest.ErrUnavailable},
		{"a rotation", problem(503, "0"), rotate, attest.ErrUnavailable},
	} {
		client, calls := serve(t, c.answer)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		err := c.call(ctx, client)
		cancel()
		if _, ok := errors.AsType[*Problem](err); !ok || c.want != nil && !errors.Is(err, c.want) || calls.Load() != 1 {
			t.Errorf("%s: %v after %d calls; want a problem after one", c.name, err, calls.Load())
		}
	}
}

func TestWhereATokenMayGo(t *testing.T) {
	sent := false
	never := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { sent = true; return nil, errors.New("sent") })}
	for _, url := range []string{
		"http://provost.example", "http://10.0.0.1", "http://localhost.evil.example", "http://127.0.0.1.evil.example",
		"http://127.0.0.1@evil.example", "ftp://localhost", "provost.example", "", "https://", "https://x.example?y", "https://x.example#y", "http://[::2]",
	} {
		c := &Client{URL: url, Token: token, HTTP: never}
		if _, err := c.Keys(t.Context()); !errors.Is(err, attest.ErrInvalid) || sent {
			t.Errorf("%q: %v, sent %v; want it refused", url, err, sent)
		}
	}
	for _, url := range []string{"https://provost.example", "http://127.0.0.1:1", "http://localhost", "http://[::1]:8080"} {
		sent = false
		if _, err := (&Client{URL: url, Token: token, HTTP: never}).Keys(t.Context()); err == nil || !sent {
			t.Errorf("%q: %v; want it sent", url, err)
		}
	}
	sent = false
	if _, err := (&Client{URL: "https://x.example", HTTP: never}).Keys(t.Context()); !errors.Is(err, ErrUnauthenticated) || sent {
		t.Errorf("without a token: %v", err)
	}
	failing := func(context.Context) (string, error) { return "", errors.New("no OIDC here") }
	if _, err := (&Client{URL: "https://x.example", HTTP: never, Token: failing}).AttestProvenance(t.Context(), ProvenanceRequest{}, ""); err == nil || !strings.Contains(err.Error(), "no OIDC here") || sent {
		t.Errorf("with a token that cannot be had: %v", err)
	}
	// What is public carries no token; its answer needs TLS all the same.
	sent = false
	for _, url := range []string{"http://provost.example", "http://10.0.0.1", "http://localhost.evil.example"} {
		public := &Client{URL: url, HTTP: never}
		_, err := public.TrustedRoot(t.Context())
		_, err2 := public.Ready(t.Context())
		_, err3 := (&Client{URL: url, Token: token, HTTP: never}).Keys(t.Context())
		for _, err := range []error{err, err2, err3} {
			if !errors.Is(err, ErrInsecure) || !errors.Is(err, attest.ErrInvalid) || sent {
				t.Errorf("%q: %v, sent %v; want it refused as insecure", url, err, sent)
			}
		}
	}
	if _, err := (&Client{URL: "ftp://localhost", HTTP: never}).Ready(t.Context()); !errors.Is(err, attest.ErrInvalid) || errors.Is(err, ErrInsecure) || sent {
		t.Errorf("over ftp: %v", err)
	}
	public := &Client{URL: "https://provost.example", Token: token, HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a token was sent")
		}
		return nil, errors.New("sent")
	})}}
	if _, err := public.TrustedRoot(t.Context()); err == nil {
		t.Error("an error became a root")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnswersThatAreNone(t *testing.T) {
	elsewhere, visits := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"verdict":"PASS"}`) })
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		status int // of the problem; 0 for another error
	}{
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, http.StatusFound},
		{"another success", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(202)
			_, _ = io.WriteString(w, `{"verdict":"PASS"}`)
		}, 202},
		{"a page of a proxy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); _, _ = io.WriteString(w, "<html>") }, 502},
		{"a problem of another status", func(w http.ResponseWriter, _ *http.Request) { fail(w, 500, `{"status":200,"title":"OK"}`) }, 500},
		{"a problem without an end", func(w http.ResponseWriter, _ *http.Request) {
			fail(w, 500, `{"title":"`+strings.Repeat("a", 2*maxProblem))
		}, 500},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `PASS`) }, 0},
		{"half of it", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"verdict":"PASS"`) }, 0},
		{"two verdicts", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"verdict":"DENY","verdict":"PASS"}`)
		}, 0},
		{"a verdict nobody knows", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"verdict":"MAYBE"}`) }, 0},
		{"a verdict, then nonsense", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"verdict":"PASS","reasons":7}`)
		}, 0},
		{"more than anybody wants", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"verdict":"PASS","x":"`)
			chunk := []byte(strings.Repeat("a", 1<<20))
			for range maxResponse>>20 + 1 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, 0},
	} {
		client, _ := serve(t, c.answer)
		d, err := client.Decide(t.Context(), Question{})
		p, isProblem := errors.AsType[*Problem](err)
		if err == nil || d.Verdict != attest.VerdictError || isProblem != (c.status != 0) || isProblem && p.Status != c.status {
			t.Errorf("%s: %v, %v; want an ERROR", c.name, d.Verdict, err)
		}
	}
	if visits.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestReadyWhenItIsNot(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		_, _ = io.WriteString(w, `{"status":"not ready","checks":{"keys":"failing"}}`)
	})
	if r, err := c.Ready(t.Context()); err != nil || r.Checks["keys"] != "failing" {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzProblem holds that of all answers only a whole one of the wanted status
// is a success, and that what is made of the rest is bounded by it.
func FuzzProblem(f *testing.F) {
	for _, body := range []string{
		``, `null`, `{}`, `[]`, `<html>`, "\xff", `{"verdict":"PASS"}`, `{"verdict":"PASS","vsa":null}`, `{"verdict":"DENY","verdict":"PASS"}`, `{"verdict":"PASS","reasons":7}`,
		`{"type":"about:blank","title":"Forbidden","status":403,"detail":"x","request_id":"y","grant":"read"}`, `{"status":200}`,
		`{"status":413,"limit":9223372036854775807,"unit":"bytes"}`, `{"status":413,"limit":1e999}`, `{"status":503,"title":"` + "\x1b[2J" + `"}`,
	} {
		for _, status := range []uint16{100, 101, 200, 201, 204, 302, 400, 401, 403, 404, 409, 413, 500, 503, 999} {
			f.Add(status, ProblemType, "1", []byte(body))
		}
		f.Add(uint16(503), "application/problem+json; charset=utf-8", "-1", []byte(body))
		f.Add(uint16(503), "text/html;;", "18446744073709551615", []byte(body))
	}
	f.Fuzz(func(t *testing.T, status uint16, contentType, retryAfter string, body []byte) {
		code := 100 + int(status)%900
		c := &Client{URL: "https://provost.example", Token: token, HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: code, Request: r, Body: io.NopCloser(bytes.NewReader(body)),
				Header: http.Header{"Content-Type": {contentType}, "Retry-After": {retryAfter}}}, nil
		})}}
		check := func(err error, wanted ...int) {
			t.Helper()
			p, isProblem := errors.AsType[*Problem](err)
			switch {
			case !slices.Contains(wanted, code) && (!isProblem || p.Status != code || p.RetryAfter < 0):
				t.Errorf("%d with %q: %v; want a problem of that status", code, body, err)
			case slices.Contains(wanted, code) && isProblem:
				t.Errorf("%d with %q: problem %v", code, body, err)
			case err != nil && len(err.Error()) > 8*len(body)+1000:
				t.Errorf("%d with %q: an error of %d bytes", code, body, len(err.Error()))
			}
			if isProblem && code < 400 && (errors.Is(p, ErrUnauthenticated) || errors.Is(p, attest.ErrUnavailable)) {
				t.Errorf("%d is %v", code, p)
			}
		}
		d, err := c.Decide(t.Context(), Question{})
		if check(err, 200); err != nil && d.Verdict != attest.VerdictError {
			t.Errorf("%d with %q: %v, and the verdict is %v", code, body, err, d.Verdict)
		}
		_, err = c.Rotate(t.Context(), attest.PowerVerdict)
		check(err, 201)
		_, err = c.TrustedRoot(t.Context())
		check(err, 200)
		_, err = c.Ready(t.Context())
		check(err, 200, 503)
	})
}
