// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// exchanged asks for a session over HTTP, as whoever has a token can.
func (f *fixture) exchanged(token string, subjects ...attest.Digest) (client.Session, error) {
	f.t.Helper()
	var wire []client.Subject
	for _, d := range subjects {
		wire = append(wire, client.Subject{Digest: map[string]string{d.Algorithm(): d.Hex()}})
	}
	return (&client.Client{URL: f.url, HTTP: &http.Client{Timeout: time.Minute}}).OpenSession(f.t.Context(), token, client.SessionRequest{Subjects: wire})
}

// once is exchanged without the client's patience: a 503 is the answer.
func (f *fixture) once(token string) (status int, p client.Problem) {
	return f.ask(http.MethodPost, "/v1/sessions", strings.NewReader(""), "Authorization", "Bearer "+token)
}

// believes has the service believe those issuers, as GitHub's, and give their
// jobs of owner 65 what signers may.
func (f *fixture) believes(httpClient *http.Client, all ...*idp) {
	f.t.Helper()
	var issuers []Issuer
	var rules []Rule
	f.rows.set(func(r *rows) { r.all = nil })
	for n, p := range all {
		issuers = append(issuers, Issuer{URL: p.URL, Audience: audience, Algorithms: []string{"RS256", "ES256"}, MaxAge: 10 * time.Minute, Provider: identity.GitHub})
		rules = append(rules, Rule{Issuer: p.URL, Claims: map[string]string{"repository_owner_id": "65"}, Roles: []attest.Role{attest.RoleSigner, attest.RoleGate}})
		name := []string{"acme", "second"}[n]
		f.rows.set(func(r *rows) { r.all = append(r.all, builderRow(p.URL, name, `claims.repository_owner_id == "65"`)) })
	}
	auth, err := NewAuthenticator(issuers, rules, AuthOptions{Now: f.idp.now, Service: service, Registry: f.rows, Sessions: f.sessions, HTTPClient: httpClient})
	if err != nil {
		f.t.Fatal(err)
	}
	f.auth = auth
}

// An issuer's name is its bytes. What means the same to a URL parser, a browser
// or a reader is another issuer, whoever has signed: here it is our issuer
// itself, so that nothing but the name is wrong.
func TestIssuersThatLookLikeOurs(t *testing.T) {
	f := newFixture(t)
	stranger := newIDP(t)
	u, err := url.Parse(f.idp.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	for name, iss := range map[string]any{
		"a slash at the end":           f.idp.URL + "/",
		"two":                          f.idp.URL + "//",
		"a dot as its path":            f.idp.URL + "/.",
		"a path":                       f.idp.URL + "/acme",
		"a path that leads back":       f.idp.URL + "/acme/..",
		"an empty query":               f.idp.URL + "?",
		"a query":                      f.idp.URL + "?a=b",
		"an empty fragment":            f.idp.URL + "#",
		"a scheme in another case":     "HTTP://" + u.Host,
		"another scheme":               "https://" + u.Host,
		"no scheme":                    u.Host,
		"a scheme left out":            "//" + u.Host,
		"a user":                       "http://ci@" + u.Host,
		"a user and a password":        "http://ci:secret@" + u.Host,
		"our host as the user":         "http://" + u.Host + "@" + stranger.Listener.Addr().String(),
		"our host as a password":       "http://x:" + u.Host + "@" + stranger.Listener.Addr().String(),
		"our host before a backslash":  "http://" + u.Host + `\@` + stranger.Listener.Addr().String(),
		"an empty user":                "http://@" + u.Host,
		"no port":                      "http://" + host,
		"an empty port":                "http://" + host + ":",
		"another port":                 "http://" + host + ":1",
		"a port with a zero before it": "http://" + host + ":0" + port,
		"another name of the host":     "http://localhost:" + port,
		"another spelling of it":       "http://127.1:" + port,
		"it as a number":               "http://2130706433:" + port,
		"it in IPv6":                   "http://[::ffff:127.0.0.1]:" + port,
		"the host with a dot":          "http://" + host + ".:" + port,
		"the host escaped":             "http://%31%32%37.0.0.1:" + port,
		"a host that begins like ours": "http://" + host + ".evil.example:" + port,
		"a host that ends like ours":   "http://evil." + host + ":" + port,
		"full-width digits":            "http://１２７.0.0.1:" + port,
		"a full stop of another kind":  "http://127。0.0.1:" + port,
		"a space before":               " " + f.idp.URL,
		"a line feed after":            f.idp.URL + "\n",
		"a NUL after":                  f.idp.URL + "\x00",
		"a zero-width space":           f.idp.URL + "\u200b",
		"itself in a list":             []string{f.idp.URL},
		"itself in an object":          map[string]any{"url": f.idp.URL},
		"nothing":                      "",
		"null":                         json.RawMessage("null"),
	} {
		s, err := f.exchanged(f.idp.token(map[string]any{"iss": iss}))
		if status(err) != 401 || s.Token != "" {
			t.Errorf("%s: %v; want 401", name, err)
		}
		if said := err.Error(); strings.Contains(said, "evil") || strings.Contains(said, port) {
			t.Errorf("%s: the answer quotes the token: %s", name, said)
		}
	}
	if asked := stranger.timesAsked(); asked != 0 {
		t.Errorf("a stranger was asked for keys %d times", asked)
	}
	if _, err := f.exchanged(f.idp.token(nil)); err != nil {
		t.Errorf("the issuer itself: %v", err)
	}
}

// An issuer speaks for itself alone: what another one that we believe has
// signed in its name is refused.
func TestIssuersDoNotSpeakForEachOther(t *testing.T) {
	f := newFixture(t)
	other := newIDP(t)
	f.believes(nil, f.idp, other)
	other.set(func(p *idp) { p.keys[1].KeyID = "rsa2" }) // the key itself both have, in these tests
	for name, token := range map[string]string{
		"with a key id that both have":    other.token(map[string]any{"iss": f.idp.URL}),
		"with a key id that one has":      other.tokenBy("RS256", "rsa2", map[string]any{"iss": f.idp.URL}),
		"with both names, one in a list":  other.token(map[string]any{"iss": []string{f.idp.URL, other.URL}}),
		"with both names, one in the sub": f.idp.token(map[string]any{"iss": other.URL, "sub": f.idp.URL}),
	} {
		if s, err := f.exchanged(token); status(err) != 401 || s.Token != "" {
			t.Errorf("%s: %v; want 401", name, err)
		}
	}
	one, err := f.exchanged(f.idp.token(nil))
	if err != nil {
		t.Fatal(err)
	}
	two, err := f.exchanged(other.token(nil))
	if err != nil {
		t.Fatal(err)
	}
	if one.Tenant == two.Tenant || one.BuilderID == two.BuilderID {
		t.Errorf("the same ids at two issuers: tenants %s and %s, builders %s and %s", one.Tenant, two.Tenant, one.BuilderID, two.BuilderID)
	}
	// One that has the other's jti has not spent the other's token.
	jti := map[string]any{"jti": "the same"}
	for _, p := range []*idp{f.idp, other} {
		if _, err := f.exchanged(p.token(jti)); err != nil {
			t.Errorf("one jti at two issuers: %v", err)
		}
	}
}

// Keys that say they are for something else check nothing, and a secret that an
// issuer has published is no key.
func TestKeysOfOtherAlgorithms(t *testing.T) {
	secret := []byte(strings.Repeat("k", 32))
	for name, c := range map[string]struct {
		keys  func(good []jose.JSONWebKey) []any
		token func(p *idp) string
		want  int
	}{
		"a key of alg none": {
			func(good []jose.JSONWebKey) []any { return []any{good[0], with(good[1], "alg", "none")} },
			func(p *idp) string { return p.tokenBy("RS256", "rsa", nil) }, 401},
		"a key of alg HS256": {
			func(good []jose.JSONWebKey) []any { return []any{good[0], with(good[1], "alg", "HS256")} },
			func(p *idp) string { return p.tokenBy("RS256", "rsa", nil) }, 401},
		"a key of another algorithm than the token's": {
			func(good []jose.JSONWebKey) []any { return []any{good[0], with(good[1], "alg", "PS256")} },
			func(p *idp) string { return p.tokenBy("RS256", "rsa", nil) }, 401},
		"a key for encryption": {
			func(good []jose.JSONWebKey) []any { return []any{good[0], with(good[1], "use", "enc")} },
			func(p *idp) string { return p.tokenBy("RS256", "rsa", nil) }, 401},
		"a published secret": {
			func(good []jose.JSONWebKey) []any {
				return []any{good[0], map[string]any{"kty": "oct", "kid": "rsa", "alg": "HS256", "k": base64.RawURLEncoding.EncodeToString(secret)}}
			},
			func(p *idp) string {
				payload, _ := json.Marshal(p.claims())
				return signWith(p.t, "HS256", secret, payload)
			}, 401},
		"a published secret, and alg none": {
			func(good []jose.JSONWebKey) []any {
				return []any{good[0], map[string]any{"kty": "oct", "kid": "ec", "alg": "none", "k": ""}}
			},
			func(p *idp) string { return forge(p.token(nil), `{"alg":"none","kid":"ec"}`) }, 401},
		"a key that was published whole": {
			func(good []jose.JSONWebKey) []any { return []any{good[1], with(good[0], "d", "AQAB")} },
			func(p *idp) string { return p.token(nil) }, 401},
		"the issuer's own keys": {
			func(good []jose.JSONWebKey) []any { return []any{good[0], good[1]} },
			func(p *idp) string { return p.tokenBy("RS256", "rsa", nil) }, 201},
		"nothing but secrets": {
			func([]jose.JSONWebKey) []any {
				return []any{map[string]any{"kty": "oct", "kid": "ec", "k": base64.RawURLEncoding.EncodeToString(secret)}}
			},
			func(p *idp) string { return p.token(nil) }, 503},
	} {
		f := newFixture(t)
		var good []jose.JSONWebKey
		for _, k := range f.idp.keys {
			good = append(good, k.Public())
		}
		f.idp.set(func(p *idp) {
			p.jwks = func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]any{"keys": c.keys(good)})
			}
		})
		if got, p := f.once(c.token(f.idp)); got != c.want {
			t.Errorf("%s: %d %s; want %d", name, got, p.Detail, c.want)
		}
	}
}

// with is a key with another member.
func with(k jose.JSONWebKey, name, value string) map[string]any {
	raw, _ := k.MarshalJSON()
	var all map[string]any
	_ = json.Unmarshal(raw, &all)
	all[name] = value
	return all
}

// An issuer whose keys cannot be had, or not from itself, is answered with 503,
// without a word about where they were looked for; and what was stored of it is
// nothing.
func TestKeysThatCannotBeHad(t *testing.T) {
	const away = "http://198.51.100.7/jwks" // nobody's (RFC 5737)
	elsewhere := newIDP(t)
	document := func(issuer, jwks string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": jwks})
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
	}
	for name, change := range map[string]func(*idp){
		"discovery that leads elsewhere":   func(p *idp) { p.discovery = redirect(elsewhere.URL + "/.well-known/openid-configuration") },
		"keys that are led elsewhere":      func(p *idp) { p.jwks = redirect(elsewhere.URL + "/jwks") },
		"keys that are led in a circle":    func(p *idp) { p.jwks = redirect("/jwks") },
		"the document of another issuer":   func(p *idp) { p.discovery = document(elsewhere.URL, elsewhere.URL+"/jwks") },
		"a document with a slash more":     func(p *idp) { p.discovery = document(p.URL+"/", p.URL+"/jwks") },
		"keys over http from another host": func(p *idp) { p.discovery = document(p.URL, away) },
		"keys from a file":                 func(p *idp) { p.discovery = document(p.URL, "file:///etc/passwd") },
		"keys with a password": func(p *idp) {
			p.discovery = document(p.URL, strings.Replace(p.URL, "http://", "http://a:b@", 1)+"/jwks")
		},
		"keys from a host that looks like us": func(p *idp) { p.discovery = document(p.URL, "http://127.0.0.1.evil.example/jwks") },
		"no address of keys":                  func(p *idp) { p.discovery = document(p.URL, "") },
		"a huge document": func(p *idp) {
			p.discovery = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, neverending(' '), 2*maxKeySet) }
		},
		"huge keys": func(p *idp) {
			p.jwks = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, neverending(' '), 2*maxKeySet) }
		},
		"an issuer that hangs up": func(p *idp) { p.jwks = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } },
		"an issuer that is gone":  func(p *idp) { go p.CloseClientConnections(); p.Listener.Close() },
		"keys whose members are there twice": func(p *idp) {
			p.jwks = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[],"keys":[]}`) }
		},
		"an answer that is no success": func(p *idp) {
			p.jwks = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }
		},
		"a document that is deep beyond bound": func(p *idp) {
			p.jwks = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `{"keys":`+strings.Repeat("[", 5000))
			}
		},
	} {
		f := newFixture(t)
		token := f.idp.token(nil)
		f.idp.set(change)
		got, p := f.once(token)
		if got != 503 {
			t.Errorf("%s: %d %s; want 503", name, got, p.Detail)
		}
		for _, leak := range []string{"127.0.0.1", "198.51.100", "evil", "passwd", token} {
			if strings.Contains(p.Detail, leak) {
				t.Errorf("%s: the answer says %q", name, leak)
			}
		}
		if len(f.sessions.all) != 0 {
			t.Errorf("%s: a session is stored", name)
		}
	}
	if asked := elsewhere.timesAsked(); asked != 0 {
		t.Errorf("somebody else was asked for keys %d times", asked)
	}
}

// An issuer that takes its time holds up those alone whose keys are not known:
// neither the jobs of another issuer nor its own with a known key.
func TestASlowIssuerHoldsUpNobodyElse(t *testing.T) {
	f := newFixture(t)
	other := newIDP(t)
	f.believes(nil, f.idp, other)
	if _, err := f.exchanged(f.idp.token(nil)); err != nil { // its keys are known
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	var begin, end sync.Once
	letGo := func() { end.Do(func() { close(release) }) }
	defer letGo()
	left := make(chan struct{})
	f.idp.set(func(p *idp) {
		p.jwks = func(w http.ResponseWriter, r *http.Request) {
			begin.Do(func() { close(entered) })
			select {
			case <-release:
			case <-r.Context().Done():
			}
			close(left)
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	f.idp.advance(keysFresh) // due to be asked again
	first := make(chan error, 1)
	go func() { // the first to notice asks, and waits
		_, err := f.exchanged(f.idp.token(map[string]any{"run_id": "1"}))
		first <- err
	}()
	<-entered
	for name, token := range map[string]string{
		"of another issuer":            other.token(map[string]any{"iat": f.idp.now().Unix(), "exp": f.idp.now().Unix() + 300, "nbf": nil}),
		"of the issuer, its key known": f.idp.token(map[string]any{"run_id": "2"}),
	} {
		if _, err := f.exchanged(token); err != nil {
			t.Errorf("a token %s: %v", name, err)
		}
		select {
		case <-left:
			t.Errorf("a token %s waited for the slow issuer", name)
		default:
		}
	}
	letGo()
	if err := <-first; err != nil { // what it held serves on
		t.Errorf("the one that asked: %v", err)
	}
}
