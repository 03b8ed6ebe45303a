// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
)

// TestVaultTampered lets somebody change Vault's answers. Nothing comes back,
// and the error says whether it may pass or is an alarm.
func TestVaultTampered(t *testing.T) {
	server := vaultWithKeys(t)
	m := newMiddle(t, server)
	config := server.Config(append([]string{keystest.PolicyInit}, everything...)...)
	config.Address = m.address
	var mu sync.Mutex
	var said []string
	config.Observe = func(_ string, _ time.Duration, err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, err.Error())
		}
	}
	v := openVault(t, config)
	plain := func(status int, kind, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, strings.ReplaceAll(body, "TOKEN", r.Header.Get("X-Vault-Token")))
		}
	}
	changed := func(old, new string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			var got recorder
			next.ServeHTTP(&got, r)
			w.Write(bytes.Replace(got.body.Bytes(), []byte(old), []byte(new), 1))
		}
	}
	other := errors.New("neither")
	for _, test := range []struct {
		name     string
		do       func(http.ResponseWriter, *http.Request, http.Handler)
		want     error
		attempts int64
	}{
		{"another version in the signature", changed("vault:v1:", "vault:v2:"), attest.ErrSelfCheck, 1},
		{"another version beside it", changed(`"key_version":1`, `"key_version":2`), attest.ErrSelfCheck, 1},
		{"a version that only begins the same", changed("vault:v1:", "vault:v11:"), attest.ErrSelfCheck, 1},
		{"no prefix", changed("vault:v1:", ""), attest.ErrSelfCheck, 1},
		{"no signature", changed("signature", "sign"), attest.ErrSelfCheck, 1},
		{"not base64", changed("vault:v1:", "vault:v1:%"), attest.ErrSelfCheck, 1},
		{"an HTML page", plain(200, "text/html", "<html>captive portal</html>"), attest.ErrUnavailable, 2},
		{"half an answer", plain(200, "application/json", `{"data":{"signature":"vault:v1:MEUC`), attest.ErrUnavailable, 2},
		{"two answers", plain(200, "application/json", `{"data":{}}{"data":{}}`), attest.ErrUnavailable, 2},
		{"another kind of JSON", plain(200, "application/json", `["vault:v1:MEUC"]`), attest.ErrUnavailable, 2},
		{"no data", plain(200, "application/json", `{"data":null}`), attest.ErrUnavailable, 2},
		{"no answer in the JSON", plain(200, "application/json", `{}`), attest.ErrUnavailable, 2},
		{"204", plain(204, "", ""), attest.ErrUnavailable, 2},
		{"200 and nothing", plain(200, "application/json", ""), attest.ErrUnavailable, 2},
		{"an endless answer", plain(200, "application/json", strings.Repeat(" ", 5<<20)), attest.ErrUnavailable, 2},
		{"a redirect", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "http://127.0.0.1:1/"+r.Header.Get("X-Vault-Token"), http.StatusTemporaryRedirect)
		}, attest.ErrUnavailable, 2},
		{"a gateway's error that quotes the request", plain(502, "text/html", "<html>X-Vault-Token: TOKEN</html>"), attest.ErrUnavailable, 2},
		{"a refusal that quotes the request", plain(400, "application/json", `{"errors":["bad header X-Vault-Token: TOKEN"]}`), other, 1},
		{"somebody else's 404", plain(404, "text/html", "nginx"), other, 1},
		{"Vault's 404", plain(404, "application/json", `{"errors":[]}`), attest.ErrNotFound, 1},
		{"Vault's 404 for a mount", plain(404, "application/json", `{"errors":["no handler for route \"transit/sign\". route entry not found."]}`), other, 1},
		{"501", plain(501, "text/html", "no"), other, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			check(t, signVault(t, v))
			m.set(test.do)
			defer m.clear()
			before := m.seen.Load()
			err := within(t, 2*time.Second, v)
			if n := m.seen.Load() - before; n < test.attempts || test.attempts == 1 && n != 1 {
				t.Errorf("%d attempts", n)
			}
			for _, kind := range []error{attest.ErrSelfCheck, attest.ErrUnavailable, attest.ErrNotFound, keys.ErrBackendDenied, attest.ErrInvalid} {
				if errors.Is(err, kind) != (kind == test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			}
			if err == nil || strings.Contains(err.Error(), "hvs.") {
				t.Errorf("no error, or the token in it: %v", err)
			}
		})
	}

	// A signature of another message: Vault's client cannot tell, the
	// authority does before anything leaves.
	c, store, _ := newConfig(t)
	c.Backend, c.Now = v, time.Now
	check(t, keys.Init(t.Context(), c, dropRoot))
	a, err := keys.Open(t.Context(), pin(t, c))
	check(t, err)
	stolen, err := v.Sign(t.Context(), "timestamp", 1, make([]byte, 32))
	check(t, err)
	m.set(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		fmt.Fprintf(w, `{"data":{"key_version":1,"signature":"vault:v1:%s"}}`, base64.StdEncoding.EncodeToString(stolen))
	})
	if response, err := a.Stamp(t.Context(), keys.StampRequest{}); !errors.Is(err, attest.ErrSelfCheck) || response != nil {
		t.Errorf("timestamp with a foreign signature: %v", err)
	}
	// What the issuer gets, it verifies itself: by the certificate within, which
	// is the authority's.
	if stamps, err := a.Timestamp(t.Context(), []byte("x")); err == nil {
		if _, err := timestamp.ParseResponse(stamps[0]); err == nil {
			t.Error("a timestamp with a foreign signature verifies")
		}
	}
	if err := a.Ready(t.Context()); !errors.Is(err, attest.ErrSelfCheck) {
		t.Errorf("ready with a foreign signature: %v", err)
	}
	if _, err := a.Rotate(t.Context(), attest.PowerVerdict); err == nil || store.names()["verdict"] != 1 {
		t.Errorf("certified a leaf with a foreign signature: %v", err)
	}

	mu.Lock()
	defer mu.Unlock()
	for _, words := range said {
		if strings.Contains(words, "hvs.") {
			t.Errorf("the token was told to the observer: %s", words)
		}
	}
}

// recorder is an http.ResponseWriter that keeps the body.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}
