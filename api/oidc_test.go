// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// testAuth accepts tokens of p that are ten minutes old at most, and gives
// those of acme/app everything.
func testAuth(t *testing.T, p *idp, httpClient *http.Client) *Authenticator {
	t.Helper()
	a, err := NewAuthenticator(
		[]Issuer{{URL: p.URL, Audience: audience, Algorithms: []string{"RS256", "ES256"}, MaxAge: 10 * time.Minute, Provider: identity.GitHub}},
		[]Rule{{Issuer: p.URL, Claims: map[string]string{"repository": "acme/app"}, Grants: attest.Grants}},
		AuthOptions{Now: p.now, HTTPClient: httpClient, Service: service, Registry: &rows{all: []attest.Builder{builderRow(p.URL, "acme", `claims.repository == "acme/app"`)}}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTokensThatAreAccepted(t *testing.T) {
	p := newIDP(t)
	a := testAuth(t, p, nil)
	now := p.now().Unix()
	for name, token := range map[string]string{
		"ES256":                       p.token(nil),
		"RS256":                       p.tokenBy("RS256", "rsa", nil),
		"the audience in an array":    p.token(map[string]any{"aud": []string{audience}}),
		"without nbf":                 p.token(map[string]any{"nbf": nil}),
		"a clock half a minute ahead": p.token(map[string]any{"iat": now + 30, "nbf": now + 30, "exp": now + 330}),
		"expired half a minute ago":   p.token(map[string]any{"exp": now - 30}),
		"times with a fraction":       p.token(map[string]any{"iat": float64(now) - 0.5}),
	} {
		caller, err := jobCaller(t.Context(), a, token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if caller.Issuer != p.URL || caller.Subject != "repo:acme/app:ref:refs/heads/main" || caller.Build == nil || !cmp.Equal(caller.Tenants[caller.Tenant], attest.Grants) {
			t.Errorf("%s: caller %+v", name, caller)
		}
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	p := newIDP(t)
	a := testAuth(t, p, nil)
	now := p.now().Unix()
	good := p.token(nil)
	parts := strings.Split(good, ".")
	stranger := newIDP(t)
	claims, _ := json.Marshal(p.claims())
	public, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	with := func(name string, value any) string { return p.token(map[string]any{name: value}) }
	headerWith := func(member string) string {
		return forge(good, `{"alg":"ES256","kid":"ec","typ":"JWT",`+member+`}`)
	}

	for _, c := range []struct{ name, token string }{
		{"nothing", ""},
		{"garbage", "garbage"},
		{"three parts of garbage", "a.b.c"},
		{"one part cut off", parts[0] + "." + parts[1]},
		{"a truncated signature", good[:len(good)-10]},
		{"a truncated payload", parts[0] + "." + parts[1][:len(parts[1])-9] + "." + parts[2]},
		{"an empty signature", parts[0] + "." + parts[1] + "."},
		{"a fourth part", good + "." + parts[2]},
		{"padding", parts[0] + "." + parts[1] + "." + parts[2] + "=="},
		{"white space", good + " "},
		{"the JSON form", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`},
		{"more than 16 KiB", with("padding", strings.Repeat("a", maxToken))},
		{"another's claims under this signature", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), "acme/app", "evil/app", 1))) + "." + parts[2]},

		{"an unknown issuer", stranger.token(nil)},
		{"an unknown issuer that says it is ours", stranger.token(map[string]any{"iss": p.URL})},
		{"the issuer with a slash at the end", with("iss", p.URL+"/")},
		{"the issuer in another case", with("iss", strings.Replace(p.URL, "http", "HTTP", 1))},
		{"an issuer that begins like ours", with("iss", p.URL+".evil.example")},
		{"no issuer", with("iss", nil)},
		{"an issuer that is a number", with("iss", 1)},

		{"another audience", with("aud", "https://other.example")},
		{"the audience with a slash", with("aud", audience+"/")},
		{"two audiences", with("aud", []string{audience, "https://other.example"})},
		{"our audience twice", with("aud", []string{audience, audience})},
		{"no audience", with("aud", nil)},
		{"no audience in an array", with("aud", []string{})},

		{"no alg", forge(good, `{"kid":"ec"}`)},
		{"alg none", forge(good, `{"alg":"none","kid":"ec"}`)},
		{"alg none without a signature", strings.TrimSuffix(forge(good, `{"alg":"none","kid":"ec"}`), parts[2])},
		{"alg NoNe", forge(good, `{"alg":"NoNe","kid":"ec"}`)},
		{"HS256 with the public key as its secret", signWith(t, "HS256", publicPEM, claims)},
		{"HS256 with the modulus as its secret", signWith(t, "HS256", rsaKey().N.Bytes(), claims)},
		{"an algorithm this issuer may not use", p.tokenBy("PS256", "rsa", nil)},
		{"RS256 with the EC key's id", signWith(t, "RS256", jose.JSONWebKey{Key: rsaKey(), KeyID: "ec"}, claims)},
		{"a key of the same id that is not the issuer's", signWith(t, "ES256", jose.JSONWebKey{Key: newKey(t), KeyID: "ec"}, claims)},
		{"an unknown key id", signWith(t, "ES256", jose.JSONWebKey{Key: newKey(t), KeyID: "nobody's"}, claims)},
		{"no key id", signWith(t, "RS256", rsaKey(), claims)},
		{"another type of token", forge(good, `{"alg":"ES256","kid":"ec","typ":"logout+jwt"}`)},
		{"a critical header", headerWith(`"crit":["x"],"x":1`)},
		{"an unencoded payload", headerWith(`"b64":false`)},
		{"a key in the header", headerWith(`"jwk":{}`)},
		{"a key's URL in the header", headerWith(`"jku":"` + stranger.URL + `/jwks"`)},
		{"a certificate's URL in the header", headerWith(`"x5u":"` + stranger.URL + `"`)},
		{"a certificate in the header", headerWith(`"x5c":[]`)},
		{"one header twice", forge(good, `{"alg":"none","alg":"ES256","kid":"ec"}`)},

		{"expired", with("exp", now-61)},
		{"no expiry", with("exp", nil)},
		{"an expiry in words", with("exp", "tomorrow")},
		{"an expiry beyond all time", p.sign("ES256", "ec", []byte(strings.Replace(string(claims), fmt.Sprint(now+300), "1e300", 1)))},
		{"issued in the future", with("iat", now+90)},
		{"valid only in the future", with("nbf", now+90)},
		{"an nbf in words", with("nbf", "now")},
		{"no iat", with("iat", nil)},
		{"not expired, and yet too old", p.token(map[string]any{"iat": now - 601, "exp": now + 3600})},

		{"one claim twice", p.sign("ES256", "ec", append([]byte(`{"repository":"evil/app",`), claims[1:]...))},
		{"claims that are not UTF-8", p.sign("ES256", "ec", []byte("{\"iss\":\""+p.URL+"\",\"x\":\"\xff\"}"))},
		{"claims that are an array", p.sign("ES256", "ec", []byte(`[]`))},
		{"claims that are null", p.sign("ES256", "ec", []byte(`null`))},
		{"deep claims", p.sign("ES256", "ec", []byte(`{"iss":"`+p.URL+`","x":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`}`))},
		{"no subject", with("sub", nil)},
		{"an endless subject", with("sub", strings.Repeat("a", 2000))},
	} {
		caller, err := jobCaller(t.Context(), a, c.token)
		if !errors.Is(err, client.ErrUnauthenticated) || errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("%s: %v; want it unauthenticated", c.name, err)
			continue
		}
		if len(caller.Grants) != 0 || len(caller.Tenants) != 0 || caller.Build != nil || caller.Person != "" || len(caller.Subject) > maxSubject {
			t.Errorf("%s: refused, and yet the caller is %+v", c.name, caller)
		}
		if len(parts[2]) > 0 && strings.Contains(err.Error(), parts[2]) {
			t.Errorf("%s: the error quotes the token", c.name)
		}
	}
	// Whatever was in them, the keys were asked for once.
	if asked := p.timesAsked(); asked != 1 {
		t.Errorf("the issuer was asked for keys %d times", asked)
	}
	if asked := stranger.timesAsked(); asked != 0 {
		t.Errorf("a stranger was asked for keys %d times", asked)
	}
}

func TestKeysOfTheIssuer(t *testing.T) {
	refuse := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	accepted := func(t *testing.T, a *Authenticator, token string) {
		t.Helper()
		if _, err := jobCaller(t.Context(), a, token); err != nil {
			t.Errorf("a good token: %v", err)
		}
	}
	refused := func(t *testing.T, a *Authenticator, token string, kind error) {
		t.Helper()
		if _, err := jobCaller(t.Context(), a, token); !errors.Is(err, kind) {
			t.Errorf("error %v; want %v", err, kind)
		}
	}

	t.Run("unreachable, then recovered", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		p.set(func(p *idp) { p.jwks = refuse })
		token := p.token(nil)
		for range 5 {
			refused(t, a, token, attest.ErrUnavailable)
		}
		if asked := p.timesAsked(); asked != 1 {
			t.Errorf("asked %d times in a moment", asked)
		}
		p.set(func(p *idp) { p.jwks = nil })
		p.advance(3 * time.Second)
		accepted(t, a, token)
	})
	t.Run("discovery is down or about somebody else", func(t *testing.T) {
		for _, answer := range []string{"", `{`, `{"issuer":"https://other.example","jwks_uri":"https://other.example"}`, `{"issuer":"ISS","jwks_uri":"http://other.example/jwks"}`, `{"issuer":"ISS"}`} {
			p := newIDP(t)
			a := testAuth(t, p, nil)
			p.set(func(p *idp) {
				p.discovery = func(w http.ResponseWriter, _ *http.Request) {
					_, _ = io.WriteString(w, strings.Replace(answer, "ISS", p.URL, 1))
				}
			})
			refused(t, a, p.token(nil), attest.ErrUnavailable)
		}
	})
	t.Run("no redirect is followed", func(t *testing.T) {
		p, elsewhere := newIDP(t), newIDP(t)
		a := testAuth(t, p, nil)
		p.set(func(p *idp) {
			p.jwks = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL+"/jwks", http.StatusFound)
			}
		})
		refused(t, a, p.token(nil), attest.ErrUnavailable)
		if elsewhere.timesAsked() != 0 {
			t.Error("the redirect was followed")
		}
	})
	t.Run("keys that are no answer", func(t *testing.T) {
		for name, answer := range map[string]http.HandlerFunc{
			"huge":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, neverending(' '), maxKeySet+10) },
			"not JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
			"empty":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
			"symmetric": func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","kid":"ec","k":"AAAA"}]}`)
			},
			"cut short": func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(w, `{"keys":[`)
			},
		} {
			p := newIDP(t)
			a := testAuth(t, p, nil)
			p.set(func(p *idp) { p.jwks = answer })
			if _, err := jobCaller(t.Context(), a, p.token(nil)); !errors.Is(err, attest.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("slow", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, &http.Client{Timeout: 100 * time.Millisecond})
		p.set(func(p *idp) { p.jwks = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() } })
		refused(t, a, p.token(nil), attest.ErrUnavailable)
	})
	t.Run("the client leaves while keys are fetched", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, &http.Client{Timeout: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		p.set(func(p *idp) { p.jwks = func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() } })
		if _, err := jobCaller(ctx, a, p.token(nil)); !errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("rotated at the issuer", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		old := p.token(nil)
		accepted(t, a, old)
		p.set(func(p *idp) {
			p.keys = []jose.JSONWebKey{{Key: newKey(t), KeyID: "new", Algorithm: "ES256"}}
		})
		p.advance(refetchEvery)
		accepted(t, a, p.tokenBy("ES256", "new", nil))
		refused(t, a, old, client.ErrUnauthenticated) // its key is gone
		if asked := p.timesAsked(); asked != 2 {
			t.Errorf("asked %d times; want 2", asked)
		}
	})
	t.Run("a key replaced under its own id: what the old one signed is not remembered", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		old := p.token(nil)
		accepted(t, a, old)
		accepted(t, a, old) // remembered
		p.set(func(p *idp) {
			for i := range p.keys {
				p.keys[i].Key = newKey(t)
				p.keys[i].Algorithm = "ES256"
			}
		})
		p.advance(keysFresh)
		refused(t, a, old, client.ErrUnauthenticated)
	})
	t.Run("a remembered token still runs out", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		old := p.token(nil)
		accepted(t, a, old)
		p.advance(11 * time.Minute)
		refused(t, a, old, client.ErrUnauthenticated)
	})
	t.Run("a key taken away stops counting in time", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		stolen := p.keys[0]
		accepted(t, a, p.token(nil))
		p.set(func(p *idp) { p.keys = p.keys[1:] })
		p.advance(keysFresh)
		payload, _ := json.Marshal(p.claims())
		refused(t, a, signWith(t, "ES256", jose.JSONWebKey{Key: stolen.Key, KeyID: "ec"}, payload), client.ErrUnauthenticated)
	})
	t.Run("known keys serve for a while when the issuer is away", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		accepted(t, a, p.token(nil))
		p.set(func(p *idp) { p.jwks = refuse })
		p.advance(keysUsable - time.Minute)
		accepted(t, a, p.token(nil))
		p.advance(2 * time.Minute)
		refused(t, a, p.token(nil), attest.ErrUnavailable)
	})
	t.Run("invented key ids do not make the issuer be asked", func(t *testing.T) {
		p := newIDP(t)
		a := testAuth(t, p, nil)
		payload, _ := json.Marshal(p.claims())
		stranger := newKey(t)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				refused(t, a, signWith(t, "ES256", jose.JSONWebKey{Key: stranger, KeyID: fmt.Sprint("invented", i)}, payload), client.ErrUnauthenticated)
			})
		}
		wg.Wait()
		if asked := p.timesAsked(); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		p.advance(refetchEvery)
		for i := range 10 {
			refused(t, a, signWith(t, "ES256", jose.JSONWebKey{Key: stranger, KeyID: fmt.Sprint("invented", i)}, payload), client.ErrUnauthenticated)
		}
		if asked := p.timesAsked(); asked != 2 {
			t.Errorf("asked %d times after a while", asked)
		}
	})
}

func TestAuthenticationOverHTTP(t *testing.T) {
	f := newFixture(t)
	get := func(authorization ...string) (*http.Response, client.Problem) {
		req, _ := http.NewRequest(http.MethodGet, f.url+"/v1/keys", nil)
		req.Header["Authorization"] = authorization
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		var p client.Problem
		_ = json.Unmarshal(raw, &p)
		return resp, p
	}
	good := f.token(admin)
	for name, header := range map[string][]string{
		"none":      nil,
		"two":       {"Bearer " + good, "Bearer " + good},
		"basic":     {"Basic " + good},
		"bare":      {good},
		"empty":     {"Bearer "},
		"two words": {"Bearer " + good + " " + good},
	} {
		resp, p := get(header...)
		if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != "Bearer" || strings.Contains(p.Detail, good) {
			t.Errorf("%s: %d %q %q; want 401 Bearer", name, resp.StatusCode, resp.Header.Get("WWW-Authenticate"), p.Detail)
		}
	}
	for _, scheme := range []string{"Bearer ", "bearer "} {
		if resp, p := get(scheme + good); resp.StatusCode != 200 {
			t.Errorf("%q: %d %q", scheme, resp.StatusCode, p.Detail)
		}
	}
	// Authenticated, and no more than that.
	if resp, p := get("Bearer " + f.token(nil)); resp.StatusCode != 403 || p.Grant != attest.GrantRead || !strings.Contains(p.Detail, "read") {
		t.Errorf("without the grant: %d %+v; want 403 naming the grant", resp.StatusCode, p)
	}
	f.idp.set(func(p *idp) {
		p.jwks = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		p.offset += 2 * time.Hour
	})
	if resp, p := get("Bearer " + f.idp.token(admin)); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "2" || strings.Contains(p.Detail, "127.0.0.1") {
		t.Errorf("without the issuer's keys: %d, Retry-After %q, %q", resp.StatusCode, resp.Header.Get("Retry-After"), p.Detail)
	}
	if logs := f.logs.String(); strings.Contains(logs, strings.TrimPrefix(good, sessionPrefix)) {
		t.Error("a token is in the log")
	}
}
