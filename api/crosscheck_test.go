// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/api/identity"
	"provost/attest"
)

const checkedSecret = "token-that-must-stay-inside"

// A ciAPI answers as a CI's API does, in the documented shapes. It is strict:
// what is not a read with the service's token fails the test.
type ciAPI struct {
	*httptest.Server
	t      *testing.T
	prefix string // of all paths

	mu      sync.Mutex
	answers map[string]any // by path and query, escaped: JSON, a status, or a handler
	asked   []string
}

func newCIAPI(t *testing.T, prefix string, answers map[string]any) *ciAPI {
	t.Helper()
	a := &ciAPI{t: t, prefix: prefix, answers: answers}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *ciAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sent := r.Header.Get("Authorization") == "Bearer "+checkedSecret && r.Header.Get("X-GitHub-Api-Version") == "2022-11-28" && r.Header.Get("Accept") == "application/vnd.github+json"
	if a.prefix != "" {
		sent = r.Header.Get("PRIVATE-TOKEN") == checkedSecret && r.Header.Get("Authorization") == ""
	}
	if r.Method != http.MethodGet || !sent || strings.Contains(r.RequestURI, checkedSecret) {
		a.t.Errorf("%s %s with headers %v", r.Method, r.RequestURI, r.Header)
	}
	path, ok := strings.CutPrefix(r.RequestURI, a.prefix) // as it was sent
	if !ok {
		a.t.Errorf("%s: want a path below %s", r.RequestURI, a.prefix)
	}
	a.mu.Lock()
	a.asked = append(a.asked, path)
	answer := a.answers[path]
	a.mu.Unlock()
	switch answer := answer.(type) {
	case nil:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Not Found"}`)
	case int:
		w.WriteHeader(answer)
		fmt.Fprint(w, `{"message":"Internal `+checkedSecret+`"}`)
	case func(http.ResponseWriter, *http.Request):
		answer(w, r)
	default:
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			a.t.Error(err)
		}
	}
}

// shape is a documented answer with changes, by path with dots; nil takes away.
func shape(t *testing.T, document string, changes map[string]any) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(document), &all); err != nil {
		t.Fatal(err)
	}
	for path, value := range changes {
		at, names := all, strings.Split(path, ".")
		for _, name := range names[:len(names)-1] {
			at = at[name].(map[string]any)
		}
		last := names[len(names)-1]
		if _, ok := at[last]; !ok {
			t.Fatalf("the answer has no %s", path)
		}
		if at[last] = value; value == nil {
			delete(at, last)
		}
	}
	return all
}

// checkedIssuer is an issuer of a provider whose API is at a URL.
func checkedIssuer(t *testing.T, provider, url string, opts AuthOptions) *issuer {
	t.Helper()
	i := Issuer{URL: "https://ci.example", Provider: provider, CrossCheck: &CrossCheck{URL: url, TokenFile: "/secrets/api"}}
	if err := i.CrossCheck.validate(provider); err != nil {
		t.Fatal(err)
	}
	if opts.Secret == nil {
		opts.Secret = func(file string) (string, error) {
			if file != "/secrets/api" {
				t.Errorf("secret of %s", file)
			}
			return checkedSecret, nil
		}
	}
	i.CrossCheck.Timeout = checkedMaxTimeout // a busy machine is no slow API
	opts.Now = func() time.Time { return time.Unix(1000, 0) }
	return &issuer{Issuer: i, checked: newCheckedAPI(i, opts)}
}

func checkedClaims(t *testing.T, claims, changes map[string]any) identity.Claims {
	t.Helper()
	all := map[string]any{}
	for name, value := range claims {
		all[name] = value
	}
	for name, value := range changes {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.ParseClaims(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A checkedWant is what a check must come to.
type checkedWant struct {
	denied  string // is in the refusal; "" for none
	problem string // is in the problem; "" for none
	level   int
}

// hold checks what came of a check, and that it gives nothing away.
func (want checkedWant) hold(t *testing.T, name string, got *identity.Checked, err error) {
	t.Helper()
	raw, _ := json.Marshal(got)
	if words := string(raw) + fmt.Sprint(err); strings.Contains(words, checkedSecret) || strings.Contains(words, "/secrets") || strings.Contains(words, "127.0.0.1:") && got == nil {
		t.Errorf("%s: it gives away what is inside: %s", name, words)
	}
	if want.denied != "" {
		if got != nil || !errors.Is(err, attest.ErrDenied) || !strings.Contains(err.Error(), want.denied) {
			t.Errorf("%s: %s, %v; want it denied, saying %q", name, raw, err, want.denied)
		}
		return
	}
	if err != nil || got == nil {
		t.Errorf("%s: %s, %v; want an answer", name, raw, err)
		return
	}
	if got.Level != want.level || !strings.Contains(got.Problem, want.problem) || (want.problem == "") != (got.Problem == "") {
		t.Errorf("%s: level %d, problem %q; want %d, %q", name, got.Level, got.Problem, want.level, want.problem)
	}
	if !slices.IsSorted(got.Confirmed) || !got.At.Equal(time.Unix(1000, 0)) || got.By == "" {
		t.Errorf("%s: %s", name, raw)
	}
}

// Whatever the API does, it is never silence, and never a way up.
func TestCrossCheckOfAnAPIThatFails(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed, with headers %v", r.Header)
	}))
	defer elsewhere.Close()
	const run = "/repos/acme/app/actions/runs/1234567890/attempts/2?exclude_pull_requests=true"
	limited := func(status int, name, value string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(name, value)
			w.WriteHeader(status)
		}
	}
	body := func(s string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
	}
	for name, c := range map[string]struct {
		answer any
		says   string
	}{
		"500":                     {500, "the API fails"},
		"503":                     {503, "the API fails"},
		"401":                     {401, "refuses the service's token"},
		"403":                     {403, "does not show the run"},
		"403 of the rate limit":   {limited(403, "X-RateLimit-Remaining", "0"), "rate limit"},
		"403 of a second limit":   {limited(403, "Retry-After", "60"), "rate limit"},
		"429":                     {429, "rate limit"},
		"400":                     {400, "refuses the question"},
		"204":                     {204, "not understood"},
		"a redirect":              {limited(301, "Location", elsewhere.URL), "points elsewhere"},
		"a temporary one":         {limited(307, "Location", elsewhere.URL), "points elsewhere"},
		"HTML":                    {body("<html>"), "not understood"},
		"nothing":                 {body(""), "not understood"},
		"another type":            {body(`{"id":"x"}`), "not understood"},
		"a member twice":          {body(`{"id":1,"id":2}`), "not understood"},
		"an array":                {body(`[]`), "not understood"},
		"too deep":                {body(strings.Repeat("[", 10000)), "not understood"},
		"a huge answer":           {body(`{"x":"` + strings.Repeat("a", checkedMaxAnswer) + `"}`), "too large"},
		"the end of a connection": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "could not be reached"},
		"an empty object":         {body(`{}`), "does not say run_id"},
		"null":                    {body(`null`), "does not say run_id"},
	} {
		api := newCIAPI(t, "", map[string]any{run: c.answer})
		got, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
		checkedWant{problem: c.says, level: 2}.hold(t, name, got, err)
		if got != nil && len(got.Confirmed) > 0 {
			t.Errorf("%s: confirms %v", name, got.Confirmed)
		}
	}

	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	got, err := checkedIssuer(t, identity.GitHub, gone.URL, AuthOptions{}).crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
	checkedWant{problem: "could not be reached", level: 2}.hold(t, "nobody there", got, err)

	slow := newCIAPI(t, "", map[string]any{run: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	i := checkedIssuer(t, identity.GitHub, slow.URL, AuthOptions{})
	i.checked.Timeout = 50 * time.Millisecond
	got, err = i.crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
	checkedWant{problem: "did not answer in time", level: 2}.hold(t, "a slow one", got, err)

	drips := newCIAPI(t, "", map[string]any{run: func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"id":`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}})
	i = checkedIssuer(t, identity.GitHub, drips.URL, AuthOptions{})
	i.checked.Timeout = 50 * time.Millisecond
	got, err = i.crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
	checkedWant{problem: "did not answer in time", level: 2}.hold(t, "one that does not end", got, err)

	for name, secret := range map[string]func(string) (string, error){
		"no file":      func(string) (string, error) { return "", errors.New("open /secrets/api: no such file") },
		"an empty one": func(string) (string, error) { return "", nil },
		"two lines":    func(string) (string, error) { return checkedSecret + "\nX-Other: a", nil },
	} {
		api := newCIAPI(t, "", nil)
		got, err := checkedIssuer(t, identity.GitHub, api.URL, AuthOptions{Secret: secret}).crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
		checkedWant{problem: "the ", level: 2}.hold(t, name, got, err)
		if len(api.asked) > 0 {
			t.Errorf("%s: asked %q", name, api.asked)
		}
	}
	if got, err := (&issuer{}).crossCheck(t.Context(), nil); got != nil || err != nil {
		t.Errorf("not configured: %+v, %v", got, err)
	}
}

// The token is read at each check, so that a new one counts at once.
func TestCrossCheckReadsANewToken(t *testing.T) {
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	n := 0
	i := checkedIssuer(t, identity.GitHub, server.URL, AuthOptions{Secret: func(string) (string, error) { n++; return fmt.Sprint("token-", n), nil }})
	for range 2 {
		if got, err := i.crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil)); err != nil || got.Level != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if !slices.Equal(sent, []string{"Bearer token-1", "Bearer token-2"}) {
		t.Errorf("sent %q", sent)
	}
}

// Many checks at once do not become many requests at once.
func TestCrossChecksAreBounded(t *testing.T) {
	var mu sync.Mutex
	var now, most int
	full, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		if now == checkedAtOnce {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		<-release
		mu.Lock()
		now--
		mu.Unlock()
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	i := checkedIssuer(t, identity.GitHub, server.URL, AuthOptions{})
	var all sync.WaitGroup
	for range 4 * checkedAtOnce {
		all.Go(func() {
			if got, err := i.crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil)); err != nil || got.Problem == "" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	<-full
	// Who finds no place in time says so.
	waiting := checkedIssuer(t, identity.GitHub, server.URL, AuthOptions{})
	waiting.checked.places, waiting.checked.Timeout = i.checked.places, 20*time.Millisecond
	got, err := waiting.crossCheck(t.Context(), checkedClaims(t, githubClaimsOf(), nil))
	checkedWant{problem: "too many checks are under way", level: 2}.hold(t, "no place", got, err)
	close(release)
	all.Wait()
	if most != checkedAtOnce {
		t.Errorf("%d requests at once; want %d", most, checkedAtOnce)
	}
}

func TestCrossCheckConfigurationThatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, provider string
		check          CrossCheck
		says           string // "" for none
	}{
		{"github.com", "github", CrossCheck{URL: "https://api.github.com", TokenFile: "t"}, ""},
		{"a GitHub Enterprise Server", "github", CrossCheck{URL: "https://ghes.example/api/v3", TokenFile: "t"}, ""},
		{"ghe.com", "github", CrossCheck{URL: "https://api.acme.ghe.com", TokenFile: "t", Timeout: 30 * time.Second}, ""},
		{"GitLab", "gitlab", CrossCheck{URL: "https://gitlab.example/api/v4", TokenFile: "t"}, ""},
		{"GitLab below a path", "gitlab", CrossCheck{URL: "https://example.com/gitlab/api/v4", TokenFile: "t"}, ""},
		{"this machine", "gitlab", CrossCheck{URL: "http://127.0.0.1:1/api/v4", TokenFile: "t"}, ""},

		{"a provider without one", "oidc", CrossCheck{URL: "https://x.example", TokenFile: "t"}, "providers github and gitlab"},
		{"no URL", "github", CrossCheck{TokenFile: "t"}, "cross_check.url"},
		{"http", "github", CrossCheck{URL: "http://api.github.com", TokenFile: "t"}, "want https"},
		{"a slash at the end", "github", CrossCheck{URL: "https://api.github.com/", TokenFile: "t"}, "cross_check.url"},
		{"a password", "github", CrossCheck{URL: "https://a:b@api.github.com", TokenFile: "t"}, "cross_check.url"},
		{"a query", "github", CrossCheck{URL: "https://api.github.com?x", TokenFile: "t"}, "cross_check.url"},
		{"the pages of GitLab", "gitlab", CrossCheck{URL: "https://gitlab.example", TokenFile: "t"}, "/api/v4"},
		{"no token", "github", CrossCheck{URL: "https://api.github.com"}, "token_file"},
		{"for ever", "github", CrossCheck{URL: "https://api.github.com", TokenFile: "t", Timeout: time.Minute}, "at most 30s"},
		{"no time", "github", CrossCheck{URL: "https://api.github.com", TokenFile: "t", Timeout: -1}, "at most 30s"},
	} {
		err := c.check.validate(c.provider)
		if c.says == "" {
			if err != nil || c.check.Timeout == 0 {
				t.Errorf("%s: %v, timeout %s", c.name, err, c.check.Timeout)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", c.name, err, c.says)
		}
	}
	i := []Issuer{{URL: "https://ghes.example/_services/token", Audience: audience, Algorithms: []string{"RS256"}, MaxAge: time.Minute, Provider: identity.GitHub, CrossCheck: &CrossCheck{URL: "https://ghes.example/api/v3"}}}
	if _, err := NewAuthenticator(i, nil, AuthOptions{}); !errors.Is(err, attest.ErrInvalid) || !strings.Contains(err.Error(), "token_file") {
		t.Errorf("an issuer without a token: %v", err)
	}
	i[0].CrossCheck.TokenFile = "t"
	a, err := NewAuthenticator(i, nil, AuthOptions{})
	if err != nil || a.issuers[i[0].URL].checked.Timeout != checkedTimeout || i[0].CrossCheck.Timeout != 0 {
		t.Errorf("a good one: %v", err)
	}
}
