// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A devLoginServer is the development issuer of people on a port of its own,
// with a clock that tests set.
type devLoginServer struct {
	*httptest.Server
	t     *testing.T
	login *devLogin
	late  time.Duration
}

func newDevLoginServer(t *testing.T) *devLoginServer {
	s := &devLoginServer{t: t, Server: httptest.NewUnstartedServer(nil)}
	dir := t.TempDir()
	issuer, err := openDevIssuer(dir, "http://"+s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if s.login, err = openDevLogin(dir, issuer); err != nil {
		t.Fatal(err)
	}
	again, err := openDevLogin(dir, issuer)
	if err != nil || again.password != s.login.password || len(again.password) < 20 {
		t.Errorf("the password does not stay: %v", err)
	}
	s.login.now = func() time.Time { return time.Now().Add(s.late) }
	s.Config.Handler = s.login
	s.Start()
	t.Cleanup(s.Close)
	return s
}

const testVerifier = "a-verifier-that-has-at-least-forty-three-characters"

const testRedirect = "http://127.0.0.1:9/callback"

// request is an authorization request with changes; "" takes a parameter away.
func (s *devLoginServer) request(changes map[string]string) string {
	sum := sha256.Sum256([]byte(testVerifier))
	q := url.Values{
		"client_id": {s.URL}, "redirect_uri": {testRedirect}, "response_type": {"code"}, "scope": {"openid offline_access"},
		"state": {"the-state"}, "nonce": {"the-nonce"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for name, value := range changes {
		if q.Set(name, value); value == "" {
			q.Del(name)
		}
	}
	return s.login.issuer.URL(devPeople) + "/authorize?" + q.Encode()
}

// send posts a form, and returns the status, where it leads, and the body.
func (s *devLoginServer) send(address string, form url.Values, header http.Header) (int, *url.URL, string) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Host = header.Get("Host")
	req.Header.Del("Host")
	return s.do(req)
}

func (s *devLoginServer) do(req *http.Request) (int, *url.URL, string) {
	s.t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	location, _ := resp.Location()
	return resp.StatusCode, location, string(raw)
}

// own are the headers of a browser that sends the form from its own page.
func (s *devLoginServer) own() http.Header {
	return http.Header{"Origin": {s.URL}, "Sec-Fetch-Site": {"same-origin"}}
}

func (s *devLoginServer) person(name string) url.Values {
	return url.Values{"person": {name}, "password": {s.login.password}, "answer": {"yes"}}
}

// code logs a person in, and returns the code.
func (s *devLoginServer) code() string {
	s.t.Helper()
	status, back, body := s.send(s.request(nil), s.person("reader"), s.own())
	if status != http.StatusSeeOther || back == nil || back.Query().Get("state") != "the-state" ||
		back.Query().Get("iss") != s.login.issuer.URL(devPeople) || back.Query().Get("code") == "" {
		s.t.Fatalf("%d %v\n%s", status, back, body)
	}
	return back.Query().Get("code")
}

// token asks the token endpoint.
func (s *devLoginServer) token(form url.Values) (int, map[string]any) {
	s.t.Helper()
	if !form.Has("client_id") {
		form.Set("client_id", s.URL)
	}
	status, _, body := s.send(s.login.issuer.URL(devPeople)+"/token", form, http.Header{})
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		s.t.Fatalf("%d %s", status, body)
	}
	return status, answer
}

func codeForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {testVerifier}, "redirect_uri": {testRedirect}}
}

func TestDevLoginGivesTokensForACodeOnce(t *testing.T) {
	s := newDevLoginServer(t)
	code := s.code()
	status, answer := s.token(codeForm(code))
	if status != http.StatusOK || answer["id_token"] == "" || answer["access_token"] == "" || answer["token_type"] != "Bearer" {
		t.Fatalf("%d %v", status, answer)
	}
	if status, again := s.token(codeForm(code)); status != http.StatusBadRequest || again["error"] != "invalid_grant" {
		t.Errorf("a replayed code: %d %v", status, again)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {answer["refresh_token"].(string)}}
	status, next := s.token(refresh)
	if status != http.StatusOK || next["id_token"] == "" || next["refresh_token"] == answer["refresh_token"] {
		t.Errorf("%d %v", status, next)
	}
	if status, again := s.token(refresh); status != http.StatusBadRequest || again["error"] != "invalid_grant" {
		t.Errorf("a replayed refresh token: %d %v", status, again)
	}
	revoke := url.Values{"client_id": {s.URL}, "token": {next["refresh_token"].(string)}}
	if status, _, body := s.send(s.login.issuer.URL(devPeople)+"/revoke", revoke, http.Header{}); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	refresh.Set("refresh_token", next["refresh_token"].(string))
	if status, again := s.token(refresh); status != http.StatusBadRequest || again["error"] != "invalid_grant" {
		t.Errorf("a revoked refresh token: %d %v", status, again)
	}
}

// Each attempt at a code spends it.
func TestDevLoginRefusesACode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*devLoginServer, url.Values)
		status int
		want   string
	}{
		{"with another verifier", func(_ *devLoginServer, f url.Values) { f.Set("code_verifier", testVerifier+"x") }, 400, "invalid_grant"},
		{"with no verifier", func(_ *devLoginServer, f url.Values) { f.Del("code_verifier") }, 400, "invalid_grant"},
		{"with the challenge for a verifier", func(_ *devLoginServer, f url.Values) {
			sum := sha256.Sum256([]byte(testVerifier))
			f.Set("code_verifier", base64.RawURLEncoding.EncodeToString(sum[:]))
		}, 400, "invalid_grant"},
		{"for another redirect", func(_ *devLoginServer, f url.Values) { f.Set("redirect_uri", "http://127.0.0.1:10/callback") }, 400, "invalid_grant"},
		{"after a minute", func(s *devLoginServer, _ url.Values) { s.late = devCodeLifetime + time.Second }, 400, "invalid_grant"},
		{"that it did not give", func(_ *devLoginServer, f url.Values) { f.Set("code", "other") }, 400, "invalid_grant"},
		{"as a refresh token", func(_ *devLoginServer, f url.Values) {
			f.Set("grant_type", "refresh_token")
			f.Set("refresh_token", f.Get("code"))
		}, 400, "invalid_grant"},
		{"of another client", func(_ *devLoginServer, f url.Values) { f.Set("client_id", "other") }, 401, "invalid_client"},
		{"for a grant that there is not", func(_ *devLoginServer, f url.Values) { f.Set("grant_type", "password") }, 400, "unsupported_grant_type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newDevLoginServer(t)
			code := s.code()
			form := codeForm(code)
			tt.change(s, form)
			if status, answer := s.token(form); status != tt.status || answer["error"] != tt.want || answer["id_token"] != nil {
				t.Errorf("%d %v", status, answer)
			}
			if form.Get("code") != code || tt.want != "invalid_grant" || form.Get("grant_type") != "authorization_code" {
				return
			}
			if status, answer := s.token(codeForm(code)); status != http.StatusBadRequest {
				t.Errorf("a second attempt: %d %v", status, answer)
			}
		})
	}
}

// What could lead a code to somebody else is not answered there.
func TestDevLoginRefusesARequest(t *testing.T) {
	s := newDevLoginServer(t)
	for _, tt := range []struct {
		name    string
		changes map[string]string
		want    string // the error that goes back to the program; "" for none
	}{
		{"back to another machine", map[string]string{"redirect_uri": "http://192.0.2.1:80/callback"}, ""},
		{"back to a name", map[string]string{"redirect_uri": "http://localhost:80/callback"}, ""},
		{"back to a name that looks like this machine", map[string]string{"redirect_uri": "http://127.0.0.1.evil.example:80/"}, ""},
		{"back with a user", map[string]string{"redirect_uri": "http://127.0.0.1:80@evil.example:80/"}, ""},
		{"back to a script", map[string]string{"redirect_uri": "javascript://127.0.0.1:80/%0aalert(1)"}, ""},
		{"back to nowhere", map[string]string{"redirect_uri": ""}, ""},
		{"of another client", map[string]string{"client_id": "other"}, ""},
		{"without PKCE", map[string]string{"code_challenge": "", "code_challenge_method": ""}, "invalid_request"},
		{"with the verifier for a challenge", map[string]string{"code_challenge_method": "plain"}, "invalid_request"},
		{"for a token in the address", map[string]string{"response_type": "id_token"}, "unsupported_response_type"},
		{"that is not of OpenID Connect", map[string]string{"scope": "profile"}, "invalid_scope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, back, body := s.send(s.request(tt.changes), s.person("admin"), s.own())
			if tt.want == "" {
				if status != http.StatusBadRequest || back != nil {
					t.Errorf("%d %v %s", status, back, body)
				}
				return
			}
			if status != http.StatusSeeOther || back.Query().Get("error") != tt.want || back.Query().Has("code") {
				t.Errorf("%d %v", status, back)
			}
		})
	}
}

// A page in the developer's browser cannot log in, nor can whoever has not
// read the data directory.
func TestDevLoginIsNotSilent(t *testing.T) {
	s := newDevLoginServer(t)
	for _, tt := range []struct {
		name   string
		header http.Header
		form   url.Values
		status int
	}{
		{"another page", http.Header{"Origin": {"http://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, s.person("admin"), 403},
		{"a page on another port", http.Header{"Origin": {"http://127.0.0.1:1"}, "Sec-Fetch-Site": {"same-site"}}, s.person("admin"), 403},
		{"a page in a frame without an origin", http.Header{"Origin": {"null"}}, s.person("admin"), 403},
		{"a page that hides where it is", http.Header{}, s.person("admin"), 403},
		{"a browser that says otherwise", http.Header{"Origin": {s.URL}, "Sec-Fetch-Site": {"cross-site"}}, s.person("admin"), 403},
		{"a page whose name was made to lead here", http.Header{"Host": {"evil.example"}, "Origin": {"http://evil.example"}, "Sec-Fetch-Site": {"same-origin"}}, s.person("admin"), 421},
		{"nobody's password", s.own(), url.Values{"person": {"admin"}, "answer": {"yes"}}, 403},
		{"another password", s.own(), url.Values{"person": {"admin"}, "password": {s.login.password + "x"}, "answer": {"yes"}}, 403},
		{"a person that there is not", s.own(), s.person("root"), 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, back, body := s.send(s.request(nil), tt.form, tt.header); status != tt.status || back != nil {
				t.Errorf("%d %v %s", status, back, body)
			}
		})
	}
	if len(s.login.codes) != 0 {
		t.Errorf("%d codes were made", len(s.login.codes))
	}
	t.Run("a hint chooses and does not log in", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodGet, s.request(map[string]string{"login_hint": "approver"}), nil)
		if err != nil {
			t.Fatal(err)
		}
		status, back, body := s.do(req)
		if status != http.StatusOK || back != nil || !strings.Contains(body, "<option selected>approver</option>") {
			t.Errorf("%d %v %s", status, back, body)
		}
	})
	t.Run("a page asks the token endpoint", func(t *testing.T) {
		form := codeForm(s.code())
		form.Set("client_id", s.URL)
		if status, _, body := s.send(s.login.issuer.URL(devPeople)+"/token", form, http.Header{"Origin": {s.URL}}); status != http.StatusForbidden {
			t.Errorf("%d %s", status, body)
		}
	})
}

func TestDevLoginOfADevice(t *testing.T) {
	s := newDevLoginServer(t)
	base := s.login.issuer.URL(devPeople)
	begin := func() (deviceCode, userCode string) {
		t.Helper()
		form := url.Values{"client_id": {s.URL}, "scope": {"openid"}}
		status, _, body := s.send(base+"/device_authorization", form, http.Header{})
		var answer struct {
			DeviceCode string `json:"device_code"`
			UserCode   string `json:"user_code"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		return answer.DeviceCode, answer.UserCode
	}
	poll := func(deviceCode, want string) map[string]any {
		t.Helper()
		status, answer := s.token(url.Values{"grant_type": {grantDeviceCode}, "device_code": {deviceCode}})
		if got, _ := answer["error"].(string); got != want || (status == http.StatusOK) != (want == "") {
			t.Errorf("%d %v, want %q", status, answer, want)
		}
		return answer
	}
	answer := func(userCode, say string, header http.Header, want int) {
		t.Helper()
		form := s.person("approver")
		form.Set("user_code", userCode)
		form.Set("answer", say)
		if status, _, body := s.send(base+"/device", form, header); status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
	device, user := begin()
	poll(device, "authorization_pending")
	poll(device, "slow_down")
	s.late += devDeviceInterval
	answer(user, "yes", http.Header{"Origin": {"http://evil.example"}}, 403)
	poll(device, "authorization_pending")
	answer(strings.ToLower(strings.ReplaceAll(user, "-", " ")), "yes", s.own(), 200) // as people type
	answer(user, "yes", s.own(), 400)                                                // answered
	if got := poll(device, ""); got["id_token"] == nil || got["refresh_token"] != nil {
		t.Errorf("%v", got)
	}
	poll(device, "invalid_grant") // once
	poll("other", "invalid_grant")

	device, user = begin()
	answer(user, "no", s.own(), 200)
	poll(device, "access_denied")

	device, user = begin()
	s.late += devDeviceLifetime + time.Second
	answer(user, "yes", s.own(), 400)
	poll(device, "expired_token")
}
