// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"provost/api/client"
	"provost/attest"
)

// count sums the samples of a counter whose label has that value; all of them
// when label is "".
func (f *fixture) count(t *testing.T, name, label, value string) (sum float64) {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			match := label == ""
			for _, l := range m.GetLabel() {
				match = match || l.GetName() == label && l.GetValue() == value
			}
			if match {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestAServerNeedsAllItsParts(t *testing.T) {
	if _, err := New(Config{}); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("New of nothing: %v", err)
	}
}

func TestEveryRouteIsDocumentedAndTheReverse(t *testing.T) {
	f := newFixture(t)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string                 `yaml:"operationId"`
			Security    *[]map[string][]string `yaml:"security"`
			Responses   map[string]any         `yaml:"responses"`
		} `yaml:"paths"`
		Components map[string]map[string]any `yaml:"components"`
	}
	if err := yaml.Unmarshal(openapiYAML, &doc); err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for path, calls := range doc.Paths {
		for method, call := range calls {
			documented[strings.ToUpper(method)+" "+path] = true
			if call.OperationID == "" || len(call.Responses) == 0 {
				t.Errorf("%s %s: no operationId or no responses", method, path)
			}
			// What the document calls public is, and nothing else.
			req, _ := http.NewRequest(strings.ToUpper(method), f.url+path, nil)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if public := call.Security != nil && len(*call.Security) == 0; public == (resp.StatusCode == 401) {
				t.Errorf("%s %s: public is %v, and without a token it is %d", method, path, public, resp.StatusCode)
			}
		}
	}
	routes := map[string]bool{}
	for _, r := range f.echo.Routes() {
		routes[r.Method+" "+regexp.MustCompile(`:(\w+)`).ReplaceAllString(r.Path, "{$1}")] = true
	}
	for r := range routes {
		if !documented[r] {
			t.Errorf("%s is not documented", r)
		}
	}
	for d := range documented {
		if !routes[d] {
			t.Errorf("%s is documented and not served", d)
		}
	}
	for _, ref := range regexp.MustCompile(`\$ref: "#/components/(\w+)/(\w+)"`).FindAllStringSubmatch(string(openapiYAML), -1) {
		if doc.Components[ref[1]][ref[2]] == nil {
			t.Errorf("%s points nowhere", ref[0])
		}
	}
}

func TestHealth(t *testing.T) {
	f := newFixture(t)
	c := &client.Client{URL: f.url}
	if r, err := c.Ready(t.Context()); err != nil || r.Status != "ready" || r.Checks["store"] != "ok" {
		t.Errorf("%+v, %v", r, err)
	}
	f.ready = map[string]error{"store": nil, "keys": errors.New("dial 10.0.0.1: no route")}
	f.idp.advance(readyFor)
	r, err := c.Ready(t.Context())
	if err != nil || r.Status != "not ready" || r.Checks["keys"] != "failing" || r.Checks["store"] != "ok" {
		t.Errorf("%+v, %v", r, err)
	}
	if !strings.Contains(f.logs.String(), "10.0.0.1") {
		t.Error("why is not in the log")
	}
	for path, want := range map[string]string{
		"/healthz":      `{"status":"ok"}`,
		"/readyz":       `"keys":"failing"`,
		"/metrics":      "provost_http_requests_total{",
		"/openapi.yaml": "openapi: 3.1",
	} {
		resp, err := http.Get(f.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), want) || strings.Contains(string(body), "10.0.0.1") {
			t.Errorf("%s: %d %.200s; want %s", path, resp.StatusCode, body, want)
		}
	}
}

func TestMetricsOfRequests(t *testing.T) {
	f := newFixture(t)
	if _, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, ""); err != nil {
		t.Fatal(err)
	}
	f.post("/v1/attestations/provenance", `{}`)
	for i := range 20 { // no caller makes up labels
		f.ask(http.MethodGet, fmt.Sprint("/made/up/", i), nil)
		f.ask(fmt.Sprint("MADEUP", i), "/healthz", nil)
	}
	for _, c := range []struct {
		name, label, value string
		want               float64
	}{
		{"provost_signs_total", "result", "ok", 1},
		{"provost_signs_total", "result", "invalid", 1},
		{"provost_signs_total", "signer", "provenance", 2},
		{"provost_http_requests_total", "status", "201", 1},
		{"provost_http_requests_total", "route", "/v1/attestations/provenance", 2},
		{"provost_http_requests_total", "method", "other", 20},
		{"provost_http_requests_total", "route", "none", 20},
		{"provost_http_requests_total", "route", "/healthz", 20},
		{"provost_self_check_failures_total", "", "", 0},
	} {
		if got := f.count(t, c.name, c.label, c.value); got != c.want {
			t.Errorf("%s{%s=%q} is %v; want %v", c.name, c.label, c.value, got, c.want)
		}
	}
	reg := prometheus.NewRegistry()
	observe := VaultObserver(reg)
	observe("sign", time.Millisecond, nil)
	observe("sign", time.Millisecond, fmt.Errorf("x: %w", attest.ErrUnavailable))
	if got := (&fixture{reg: reg}).count(t, "provost_vault_calls_total", "result", "unavailable"); got != 1 {
		t.Errorf("%v calls counted as unavailable", got)
	}
}

func TestAFailedSelfCheckIsAnAlarm(t *testing.T) {
	f := newFixture(t)
	f.ca.set(func(ca *testCA) { ca.breakSignature = true })
	_, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, "")
	if status(err) != 500 || !strings.Contains(err.Error(), "internal error") || strings.Contains(err.Error(), "leaf") {
		t.Errorf("%v; want 500 without detail", err)
	}
	if n := f.count(t, "provost_self_check_failures_total", "", ""); n != 1 {
		t.Errorf("counted %v times", n)
	}
	if n := f.count(t, "provost_signs_total", "result", "self_check"); n != 1 {
		t.Errorf("counted as a result %v times", n)
	}
	if logs := f.logs.String(); !strings.Contains(logs, `"level":"ERROR","msg":"ALARM`) {
		t.Errorf("no alarm in %s", logs)
	}
	if len(f.memory.attestations) != 0 {
		t.Error("it was stored")
	}
}

func TestPanics(t *testing.T) {
	f := newFixture(t)
	f.ca.set(func(ca *testCA) { ca.beforeSign = func() { panic("secret of the backend") } })
	_, err := f.client(nil).AttestProvenance(t.Context(), oneDigest, "")
	if status(err) != 500 || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v; want 500 without detail", err)
	}
	if logs := f.logs.String(); !strings.Contains(logs, "secret of the backend") || !strings.Contains(logs, "goroutine") {
		t.Error("the log does not say what and where")
	}
	// After the answer began, there is only breaking it off.
	f.echo.GET("/half", func(c echo.Context) error {
		_, _ = io.WriteString(c.Response(), "half an answer")
		c.Response().Flush()
		panic("now")
	})
	resp, err := http.Get(f.url + "/half")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks like a whole one")
	}
}

func TestRequestIDsAndTheLog(t *testing.T) {
	f := newFixture(t)
	id := func(sent string) string {
		req, _ := http.NewRequest(http.MethodGet, f.url+"/v1/keys?token=hidden", nil)
		req.Header.Set("X-Request-ID", sent)
		req.Header.Set("Authorization", "Bearer hidden-too")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("X-Request-ID")
	}
	if got := id("trace-1.A_b"); got != "trace-1.A_b" {
		t.Errorf("a sane id became %q", got)
	}
	for _, sent := range []string{"", "a b", "a\tb", strings.Repeat("a", 65), `"><script>`} {
		if got := id(sent); got == sent || !identifier.MatchString(got) {
			t.Errorf("%q became %q; want a new one", sent, got)
		}
	}
	_, _ = f.client(nil).AttestProvenance(t.Context(), oneDigest, "")
	logs := f.logs.String()
	for _, want := range []string{`"request_id":"trace-1.A_b"`, `"status":401`, `"path":"/v1/keys"`, `"route":"/v1/keys"`,
		`"caller":"` + f.idp.URL + ` repo:acme/app:ref:refs/heads/main"`, `"remote":"127.0.0.1"`} {
		if !strings.Contains(logs, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, secret := range []string{"hidden", artifact.Hex(), "Bearer"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// Nobody fills the log by asking.
func TestLogLinesAreBounded(t *testing.T) {
	f := newFixture(t)
	f.post("/v1/decisions", `{"`+strings.Repeat("a", 10_000)+`":1}`)
	f.ask(http.MethodGet, "/"+strings.Repeat("b", 10_000), nil)
	f.idp.set(func(p *idp) {
		p.discovery = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, strings.Repeat("c", 100_000))
		}
		p.offset += 2 * time.Hour
	})
	f.ask(http.MethodGet, "/v1/keys", nil)
	lines := strings.Split(strings.TrimSpace(f.logs.String()), "\n")
	if len(lines) != 3 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if len(line) > 3*maxDetail {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}

func TestConcurrentRequests(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			digest := attest.SHA256(fmt.Append(nil, i%4))
			req := client.ProvenanceRequest{Subjects: []client.Subject{{Digest: map[string]string{"sha256": digest.Hex()}}}}
			if _, err := f.client(nil).AttestProvenance(t.Context(), req, ""); err != nil {
				t.Error(err)
			}
			if d, err := f.client(gate).Decide(t.Context(), client.Question{Artifact: client.Artifact{Digest: digest}, Environment: "prod"}); err != nil || d.Verdict != attest.VerdictDeny {
				t.Error(d.Verdict, err)
			}
			if p, err := f.client(gate).Attestations(t.Context(), digest, attest.ProvenanceType, "", 1); err != nil || len(p.Attestations) != 1 {
				t.Error(p, err)
			}
		})
	}
	wg.Wait()
	if n := f.count(t, "provost_signs_total", "result", "ok"); n != 32 {
		t.Errorf("%v signatures counted; want 32", n)
	}
}

// A request under way when the server is shut down completes, and so does one
// whose client has left: what was begun is finished and stored.
func TestShutdownAndLeavingClients(t *testing.T) {
	f := newFixture(t)
	server := f.HTTPServer("")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	signing, release := make(chan struct{}, 2), make(chan struct{})
	f.ca.set(func(ca *testCA) { ca.beforeSign = func() { signing <- struct{}{}; <-release } })
	ask := f.client(nil)
	ask.URL = "http://" + listener.Addr().String()
	answer := make(chan error, 1)
	go func() {
		_, err := ask.AttestProvenance(t.Context(), oneDigest, "stays")
		answer <- err
	}()
	leaving, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := ask.AttestProvenance(leaving, oneDigest, "leaves")
		left <- err
	}()
	<-signing
	<-signing
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the client that left got %v", err)
	}
	down := make(chan error, 1)
	go func() { down <- server.Shutdown(context.WithoutCancel(t.Context())) }()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve returned %v", err)
	}
	select {
	case err := <-down:
		t.Fatalf("shut down with requests under way: %v", err)
	default:
	}
	close(release)
	if err := <-answer; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if n := len(f.memory.attestations); n != 2 {
		t.Errorf("%d attestations stored; want both", n)
	}
}

func TestTimeouts(t *testing.T) {
	s := newFixture(t).HTTPServer("127.0.0.1:0")
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.IdleTimeout <= 0 || s.WriteTimeout <= s.ReadTimeout+defaultCallTimeout || s.MaxHeaderBytes < 2*maxToken {
		t.Errorf("%+v", s)
	}
}

// A slow backend ends in a 503, not in a connection that hangs.
func TestErrorsAfterTheDeadline(t *testing.T) {
	if p := problem(errors.Join(errors.New("x"), context.DeadlineExceeded)); p.Status != 503 || p.RetryAfter <= 0 {
		t.Errorf("%+v", p)
	}
}
