// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"provost/api/client"
)

// A falseIssuer is an issuer, and a service that names it and takes any token.
// It is honest until something of it is changed.
type falseIssuer struct {
	t        *testing.T
	base     string // its URL, and the service's
	settings client.Login
	mu       sync.Mutex
	query    url.Values // of the last authorization request
	// What is changed.
	discovery func(map[string]any)
	answer    func(url.Values)     // the way back to the program
	claims    func(map[string]any) // of the ID token
	tokens    func(map[string]any) // the token endpoint's answer
	sign      func(payload []byte) string
	token     http.HandlerFunc // the whole token endpoint
}

// newFalseIssuer starts an issuer of which something is changed.
func newFalseIssuer(t *testing.T, change func(*falseIssuer)) *falseIssuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(mux)
	f := &falseIssuer{t: t, base: "http://" + server.Listener.Addr().String()}
	f.sign = func(payload []byte) string { return signES256(t, key, payload) }
	write := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /v1/login", func(w http.ResponseWriter, r *http.Request) { write(w, f.settings) })
	mux.HandleFunc("GET /v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		write(w, client.Whoami{Issuer: f.base, Subject: "somebody", Person: true})
	})
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		d := map[string]any{
			"issuer": f.base, "jwks_uri": f.base + "/jwks", "authorization_endpoint": f.base + "/authorize", "token_endpoint": f.base + "/token",
			"id_token_signing_alg_values_supported": []string{"ES256"}, "authorization_response_iss_parameter_supported": true,
		}
		if f.discovery != nil {
			f.discovery(d)
		}
		write(w, d)
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, r *http.Request) {
		write(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		f.mu.Lock()
		f.query = q
		f.mu.Unlock()
		back := url.Values{"code": {"code"}, "state": {q.Get("state")}, "iss": {f.base}}
		if f.answer != nil {
			f.answer(back)
		}
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if f.token != nil {
			f.token(w, r)
			return
		}
		challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if base64.RawURLEncoding.EncodeToString(challenge[:]) != f.asked("code_challenge") || f.asked("code_challenge_method") != "S256" {
			t.Errorf("the verifier is not the challenge's")
		}
		write(w, f.grant())
	})
	f.settings = client.Login{Issuer: f.base, ClientID: "provost", Scopes: []string{"openid"}, Token: client.LoginIDToken, MaxAge: 3600}
	change(f)
	server.Start()
	t.Cleanup(server.Close)
	return f
}

// asked is a parameter of the last authorization request.
func (f *falseIssuer) asked(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.query.Get(name)
}

// grant is the token endpoint's answer.
func (f *falseIssuer) grant() map[string]any {
	const access = "access"
	now := time.Now().Unix()
	sum := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": f.base, "sub": "somebody", "aud": "provost", "iat": now, "exp": now + 300,
		"nonce": f.asked("nonce"), "at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]),
	}
	if f.claims != nil {
		f.claims(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		f.t.Error(err)
	}
	answer := map[string]any{"token_type": "Bearer", "access_token": access, "expires_in": 300, "id_token": f.sign(payload)}
	if f.tokens != nil {
		f.tokens(answer)
	}
	return answer
}

func signES256(t *testing.T, key *ecdsa.PrivateKey, payload []byte) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// logIn runs provost login with a browser, and returns what it printed and the
// credentials; "" when none are kept.
func logIn(t *testing.T, service string, args ...string) (printed, kept string, err error) {
	t.Helper()
	config := t.TempDir()
	c := exec.Command("provost", append([]string{"login"}, args...)...)
	c.Env = append(os.Environ(), "PROVOST_URL="+service, "PROVOST_TOKEN=", "XDG_CONFIG_HOME="+config, "BROWSER=browse")
	out, err := c.CombinedOutput()
	raw, readErr := os.ReadFile(filepath.Join(config, "provost", "credentials.json"))
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		t.Fatal(readErr)
	}
	return string(out), string(raw), err
}

func TestLoginKeepsWhatAnHonestIssuerGives(t *testing.T) {
	for _, token := range []string{client.LoginIDToken, client.LoginAccessToken} {
		f := newFalseIssuer(t, func(f *falseIssuer) { f.settings.Token, f.settings.MaxAge = token, 100 }) // shorter than the tokens live
		printed, kept, err := logIn(t, f.base)
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		var c credentials
		if err := json.Unmarshal([]byte(kept), &c); err != nil {
			t.Fatal(err)
		}
		s := c.Sessions[f.base]
		if isAccess := s.Token == "access"; isAccess != (token == client.LoginAccessToken) {
			t.Errorf("%s: another token is kept", token)
		}
		if left := time.Until(s.Expires); s.Subject != "somebody" || left > 100*time.Second || left < 0 {
			t.Errorf("%s: %q until %s", token, s.Subject, s.Expires)
		}
		if strings.Contains(printed, s.Token+"\n") || strings.Contains(printed, "eyJ") {
			t.Errorf("%s: the token is printed", token)
		}
	}
}

// Whatever a login brings that is not as it must be, nothing is kept.
func TestLoginRefuses(t *testing.T) {
	var stolen bool
	for _, tt := range []struct {
		name   string
		change func(*falseIssuer)
		want   string
	}{
		{"a nonce of another login", func(f *falseIssuer) { f.claims = func(c map[string]any) { c["nonce"] = "other" } }, "its nonce is not ours"},
		{"no nonce", func(f *falseIssuer) { f.claims = func(c map[string]any) { delete(c, "nonce") } }, "its nonce is not ours"},
		{"a token for another audience", func(f *falseIssuer) { f.claims = func(c map[string]any) { c["aud"] = "other" } }, "audience"},
		{"a token for a second audience", func(f *falseIssuer) { f.claims = func(c map[string]any) { c["aud"] = []string{"provost", "other"} } }, "another audience, too"},
		{"a token of another issuer", func(f *falseIssuer) { f.claims = func(c map[string]any) { c["iss"] = f.base + "/" } }, "different provider"},
		{"an expired token", func(f *falseIssuer) {
			f.claims = func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }
		}, "expired"},
		{"a token of nobody", func(f *falseIssuer) { f.claims = func(c map[string]any) { delete(c, "sub") } }, "names nobody"},
		{"an access token that was swapped", func(f *falseIssuer) { f.tokens = func(a map[string]any) { a["access_token"] = "other" } }, "access token"},
		{"no ID token", func(f *falseIssuer) { f.tokens = func(a map[string]any) { delete(a, "id_token") } }, "gave no ID token"},
		{"a token that is too long", func(f *falseIssuer) {
			f.tokens = func(a map[string]any) { a["refresh_token"] = strings.Repeat("x", maxToken+1) }
		}, "more than"},
		{"another key's signature", func(f *falseIssuer) {
			other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				f.t.Fatal(err)
			}
			f.sign = func(payload []byte) string { return signES256(f.t, other, payload) }
		}, "verify signature"},
		{"no signature", func(f *falseIssuer) {
			f.sign = func(payload []byte) string {
				b := base64.RawURLEncoding
				return b.EncodeToString([]byte(`{"alg":"none"}`)) + "." + b.EncodeToString(payload) + "."
			}
		}, "ID token"},
		{"an answer that does not name its issuer", func(f *falseIssuer) { f.answer = func(v url.Values) { v.Del("iss") } }, "does not say of which issuer"},
		{"an answer of another issuer", func(f *falseIssuer) { f.answer = func(v url.Values) { v.Set("iss", f.base+"/") } }, "of another issuer"},
		{"an answer with two codes", func(f *falseIssuer) { f.answer = func(v url.Values) { v.Add("code", "two") } }, `"code" 2 times`},
		{"an answer without a code", func(f *falseIssuer) { f.answer = func(v url.Values) { v.Del("code") } }, "no code"},
		{"discovery of another issuer", func(f *falseIssuer) { f.discovery = func(d map[string]any) { d["issuer"] = f.base + "/other" } }, "did not match"},
		{"a page where others listen in", func(f *falseIssuer) {
			f.discovery = func(d map[string]any) { d["authorization_endpoint"] = "http://192.0.2.1/authorize" }
		}, "others could listen in"},
		{"a page that is a program's argument", func(f *falseIssuer) {
			f.discovery = func(d map[string]any) { d["authorization_endpoint"] = "--help" }
		}, "is not an https URL"},
		{"a token endpoint where others listen in", func(f *falseIssuer) {
			f.discovery = func(d map[string]any) { d["token_endpoint"] = "http://192.0.2.1/token" }
		}, "others could listen in"},
		{"an issuer where others listen in", func(f *falseIssuer) { f.settings.Issuer = "http://192.0.2.1" }, "others could listen in"},
		{"a service that names no client", func(f *falseIssuer) { f.settings.ClientID = "" }, "does not say well"},
		{"a kind of token that there is not", func(f *falseIssuer) { f.settings.Token = "any" }, "does not say well"},
		{"a token endpoint that sends the code on", func(f *falseIssuer) {
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen = true }))
			f.t.Cleanup(elsewhere.Close)
			f.token = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			}
		}, "307"},
		{"an answer without an end", func(f *falseIssuer) {
			f.token = func(w http.ResponseWriter, r *http.Request) {
				for _, err := w.Write([]byte(`{"access_token":"`)); err == nil; {
					_, err = w.Write(make([]byte, 1<<16))
				}
			}
		}, "log in: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFalseIssuer(t, tt.change)
			printed, kept, err := logIn(t, f.base)
			if err == nil || !strings.Contains(printed, tt.want) || !strings.Contains(printed, "\nhint: ") && !strings.HasPrefix(printed, "hint: ") {
				t.Errorf("%v, want %q and a hint:\n%s", err, tt.want, printed)
			}
			if kept != "" {
				t.Errorf("kept: %s", kept)
			}
			if strings.Contains(printed, "eyJ") {
				t.Errorf("a token is printed:\n%s", printed)
			}
		})
	}
	if stolen {
		t.Error("the code was sent elsewhere")
	}
}

// A refreshed login stays with the person it is of.
func TestRenewRefusesSomebodyElse(t *testing.T) {
	try := func(subject string) (session, error) {
		f := newFalseIssuer(t, func(f *falseIssuer) {
			f.claims = func(c map[string]any) { c["sub"] = subject }
			f.token = func(w http.ResponseWriter, r *http.Request) {
				if r.PostFormValue("grant_type") != "refresh_token" || r.PostFormValue("refresh_token") != "refresh" {
					t.Errorf("%v", r.PostForm)
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(f.grant())
			}
		})
		return renew(t.Context(), session{Login: f.settings, Subject: "somebody", RefreshToken: "refresh"})
	}
	if s, err := try("somebody"); err != nil || s.Token == "" || s.RefreshToken != "refresh" { // the issuer gave no other
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := try("somebody else"); err == nil || !strings.Contains(err.Error(), "somebody else") || s.Token != "" {
		t.Errorf("%+v, %v", s, err)
	}
}
