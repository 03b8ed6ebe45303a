// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"provost/api"
	"provost/attest"
)

// devPersons are the people who can log in at the development issuer, by sub,
// and what each may do.
var devPersons = []struct {
	name   string
	roles  []attest.Role
	grants []attest.Grant
}{
	{name: "admin", grants: attest.Grants},
	{name: "approver", roles: []attest.Role{attest.RoleApprover}},
	{name: "reader", roles: []attest.Role{attest.RoleReader}},
}

// devAccess are the rules of the development service for people.
func devAccess(issuer *devIssuer) (rules []api.Rule) {
	for _, p := range devPersons {
		rules = append(rules, api.Rule{
			Issuer: issuer.URL(devPeople), Claims: map[string]string{"sub": p.name}, Tenant: api.AllTenants, Roles: p.roles, Grants: p.grants,
		})
	}
	return rules
}

// devLoginConfig is how the command line logs in at the development issuer.
// Its client's id is the audience that all development tokens have.
func devLoginConfig(issuer *devIssuer) *api.Login {
	return &api.Login{Issuer: issuer.URL(devPeople), ClientID: issuer.Audience, Scopes: []string{"openid", "offline_access"}}
}

// A devLogin is the part of the development issuer at which people log in: the
// authorization code flow with PKCE, the device flow, and refresh tokens. They
// show that they can read the data directory by the password that is in it;
// so neither a page in the developer's browser nor another user of the machine
// can log in.
//
// What is handed out is kept in memory: a restart ends it.
type devLogin struct {
	issuer   *devIssuer
	password string
	now      func() time.Time

	mu      sync.Mutex
	codes   map[string]devGrant
	devices map[string]*devDevice // by device code
	refresh map[string]devGrant
}

// A devGrant is what a code or a refresh token stands for.
type devGrant struct {
	person, nonce       string
	redirect, challenge string // of a code
	offline             bool   // with a refresh token
	at, expires         time.Time
}

// A devDevice is a device that waits for a person.
type devDevice struct {
	userCode string
	grant    devGrant // without a person until somebody answers
	refused  bool
	polled   time.Time
}

const (
	devPasswordFile   = "login.password"
	devCodeLifetime   = time.Minute
	devDeviceLifetime = 10 * time.Minute
	devTokenLifetime  = time.Hour
	devDeviceInterval = time.Second
	maxDevForm        = 16 << 10 // bytes
	maxDevParameter   = 2048     // bytes
	maxDevLogins      = 1000     // of each kind at once
)

// openDevLogin reads the password from dir, or makes one.
func openDevLogin(dir string, issuer *devIssuer) (*devLogin, error) {
	path := filepath.Join(dir, devPasswordFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		raw = []byte(rand.Text() + "\n")
		err = writeFile(path, raw)
	}
	if err != nil {
		return nil, fmt.Errorf("development login: %w", err)
	}
	password := strings.TrimSpace(string(raw))
	if password == "" { // closed: an empty one would be guessed
		return nil, hint(fmt.Errorf("development login: %s is empty", path), "remove it, and another one is made")
	}
	return &devLogin{
		issuer: issuer, password: password, now: time.Now,
		codes: map[string]devGrant{}, devices: map[string]*devDevice{}, refresh: map[string]devGrant{},
	}, nil
}

// ServeHTTP serves the issuer of people. Whoever asks must have called it by
// its own name: a page whose name was made to lead here reads nothing.
func (d *devLogin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if "http://"+r.Host != d.issuer.Base {
		http.Error(w, "this is "+d.issuer.Base, http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxDevForm)
	w.Header().Set("Cache-Control", "no-store")
	switch path := strings.TrimPrefix(r.URL.Path, "/dev/issuer/"+devPeople); r.Method + " " + path {
	case "GET /.well-known/openid-configuration":
		d.discovery(w)
	case "GET /authorize", "POST /authorize":
		d.authorize(w, r)
	case "POST /token":
		d.token(w, r)
	case "POST /device_authorization":
		d.deviceAuthorization(w, r)
	case "GET /device", "POST /device":
		d.device(w, r)
	case "POST /revoke":
		d.revoke(w, r)
	default:
		d.issuer.ServeHTTP(w, r) // the keys
	}
}

func (d *devLogin) discovery(w http.ResponseWriter) {
	base := d.issuer.URL(devPeople)
	devJSON(w, http.StatusOK, map[string]any{
		"issuer": base, "jwks_uri": base + "/jwks",
		"authorization_endpoint":                         base + "/authorize",
		"token_endpoint":                                 base + "/token",
		"device_authorization_endpoint":                  base + "/device_authorization",
		"revocation_endpoint":                            base + "/revoke",
		"id_token_signing_alg_values_supported":          []string{"ES256"},
		"response_types_supported":                       []string{"code"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token", grantDeviceCode},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"scopes_supported":                               []string{"openid", "offline_access"},
		"subject_types_supported":                        []string{"public"},
		"authorization_response_iss_parameter_supported": true,
	})
}

// authorize shows the form, and answers it. What cannot be sent back to the
// client safely is told to the person.
func (d *devLogin) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for _, values := range q {
		if len(values) != 1 || len(values[0]) > maxDevParameter {
			http.Error(w, "a parameter is there twice, or is too long", http.StatusBadRequest)
			return
		}
	}
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Scheme != "http" || !isLoopbackAddress(redirect.Hostname()) || redirect.Port() == "" ||
		redirect.User != nil || redirect.RawQuery != "" || redirect.Fragment != "" {
		http.Error(w, "redirect_uri: want http://127.0.0.1:PORT/path", http.StatusBadRequest)
		return
	}
	if q.Get("client_id") != d.issuer.Audience {
		http.Error(w, "client_id: there is one client, "+d.issuer.Audience, http.StatusBadRequest)
		return
	}
	back := func(name, value string) {
		answer := url.Values{name: {value}, "iss": {d.issuer.URL(devPeople)}}
		if state := q.Get("state"); state != "" {
			answer.Set("state", state)
		}
		redirect.RawQuery = answer.Encode()
		http.Redirect(w, r, redirect.String(), http.StatusSeeOther)
	}
	scopes := strings.Fields(q.Get("scope"))
	switch {
	case q.Get("response_type") != "code":
		back("error", "unsupported_response_type")
		return
	case !slices.Contains(scopes, "openid"):
		back("error", "invalid_scope")
		return
	case q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43: // RFC 7636: a client without PKCE is none of ours
		back("error", "invalid_request")
		return
	}
	page := devPage{Client: q.Get("client_id"), Person: q.Get("login_hint")}
	person, answered := d.person(w, r, page)
	switch {
	case !answered:
	case person == "":
		back("error", "access_denied")
	default:
		code, err := keep(d, d.codes, devGrant{
			person: person, nonce: q.Get("nonce"), redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"),
			offline: slices.Contains(scopes, "offline_access"), at: d.now(), expires: d.now().Add(devCodeLifetime),
		})
		if err != nil {
			back("error", "temporarily_unavailable")
			return
		}
		back("code", code)
	}
}

// person shows the form, or reads it when it was sent. It reports whether the
// person answered; "" is a no.
func (d *devLogin) person(w http.ResponseWriter, r *http.Request, page devPage) (person string, answered bool) {
	if r.Method == http.MethodGet {
		page.show(w, http.StatusOK)
		return "", false
	}
	if !d.sameOrigin(r) {
		http.Error(w, "this form is sent from its own page alone", http.StatusForbidden)
		return "", false
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, "this form is damaged", http.StatusBadRequest)
		return "", false
	}
	if r.PostForm.Get("answer") == "no" {
		return "", true
	}
	page.Person = r.PostForm.Get("person")
	if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("password")), []byte(d.password)) != 1 {
		page.Problem = "That is not the password."
		page.show(w, http.StatusForbidden)
		return "", false
	}
	for _, p := range devPersons {
		if p.name == page.Person {
			return p.name, true
		}
	}
	page.Problem = "Nobody is called that."
	page.show(w, http.StatusBadRequest)
	return "", false
}

// sameOrigin reports whether a browser says that one of our own pages sent
// this. Browsers send Origin with every POST; what does not is refused.
func (d *devLogin) sameOrigin(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") == d.issuer.Base && (site == "" || site == "same-origin")
}

// tokens answers a grant with tokens. A refresh token is good once.
func (d *devLogin) tokens(w http.ResponseWriter, g devGrant) {
	now := d.now()
	t := devToken{Audience: d.issuer.Audience, Lifetime: devTokenLifetime}
	access, err := d.issuer.finish(d.issuer.people(g.person), t, now)
	if err != nil {
		devError(w, http.StatusInternalServerError, "server_error")
		return
	}
	claims := d.issuer.people(g.person)
	sum := sha256.Sum256([]byte(access))
	claims["auth_time"], claims["at_hash"] = g.at.Unix(), base64.RawURLEncoding.EncodeToString(sum[:16]) // OIDC Core, section 3.1.3.6
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	id, err := d.issuer.finish(claims, t, now)
	if err != nil {
		devError(w, http.StatusInternalServerError, "server_error")
		return
	}
	answer := map[string]any{"token_type": "Bearer", "access_token": access, "id_token": id, "expires_in": int(devTokenLifetime.Seconds())}
	if g.offline {
		next := devGrant{person: g.person, offline: true, at: g.at, expires: now.Add(devAdminLifetime)}
		if answer["refresh_token"], err = keep(d, d.refresh, next); err != nil {
			devError(w, http.StatusServiceUnavailable, "temporarily_unavailable")
			return
		}
	}
	devJSON(w, http.StatusOK, answer)
}

// keep keeps a grant under a new secret.
func keep(d *devLogin, in map[string]devGrant, g devGrant) (secret string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, old := range in {
		if d.now().After(old.expires) {
			delete(in, name)
		}
	}
	if len(in) >= maxDevLogins {
		return "", errors.New("too many logins at once")
	}
	secret = rand.Text()
	in[secret] = g
	return secret, nil
}

// take returns what a secret stands for, once.
func (d *devLogin) take(from map[string]devGrant, secret string) (devGrant, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, ok := from[secret]
	delete(from, secret)
	return g, ok && !d.now().After(g.expires)
}

func isLoopbackAddress(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func devJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// devError is RFC 6749, section 5.2.
func devError(w http.ResponseWriter, status int, code string) {
	devJSON(w, status, map[string]string{"error": code})
}
