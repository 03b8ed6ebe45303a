// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
)

// logEntry signs a message and makes its entry.
func logEntry(t testing.TB, message string) attest.LogEntry {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	e := attest.LogEntry{Digest: sha256.Sum256([]byte(message)), Certificate: der}
	if e.Signature, err = ecdsa.SignASN1(rand.Reader, key, e.Digest[:]); err != nil {
		t.Fatal(err)
	}
	return e
}

// A real Rekor v2 logs what we send, with the body that attest.LogEntry.Body
// says, and refuses what is not signed.
func TestRekor(t *testing.T) {
	s := keystest.StartRekor(t)
	r := openRekor(t, s.Config())
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			e := logEntry(t, fmt.Sprint("message ", i))
			got, err := r.Append(t.Context(), e)
			if err != nil {
				t.Error(err)
				return
			}
			p := got.GetInclusionProof()
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(got.GetLogIndex()), uint64(p.GetTreeSize()),
				rfc6962.DefaultHasher.HashLeaf(e.Body()), p.GetHashes(), p.GetRootHash()); err != nil {
				t.Errorf("entry %d: %v", got.GetLogIndex(), err)
			}
			if v := got.GetKindVersion(); v.GetKind() != attest.LogKind || v.GetVersion() != attest.LogVersion {
				t.Errorf("kind and version %s", v)
			}
		})
	}
	wg.Wait()

	forged := logEntry(t, "message")
	forged.Digest[0] ^= 1
	if _, err := r.Append(t.Context(), forged); err == nil || errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("a signature that does not verify: %v", err)
	}
	e := logEntry(t, "twice")
	if _, err := r.Append(t.Context(), e); err != nil {
		t.Error(err)
	}
	if _, err := r.Append(t.Context(), e); !errors.Is(err, attest.ErrConflict) {
		t.Errorf("the same entry again: %v", err)
	}

	other := s.Config()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	other.PublicKey = &key.PublicKey
	if _, err := openRekor(t, other).Append(t.Context(), logEntry(t, "message")); !errors.Is(err, attest.ErrSelfCheck) {
		t.Errorf("another key is configured: %v", err)
	}
	other = s.Config()
	other.Origin = "elsewhere.example.com"
	if _, err := openRekor(t, other).Append(t.Context(), logEntry(t, "message")); !errors.Is(err, attest.ErrSelfCheck) {
		t.Errorf("another origin is configured: %v", err)
	}
	s.Stop()
	if _, err := r.Append(t.Context(), logEntry(t, "message")); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("the server is gone: %v", err)
	}
}

func openRekor(t testing.TB, c keys.RekorConfig) *keys.Rekor {
	t.Helper()
	r, err := keys.OpenRekor(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What a server that fails, or lies, is answered with.
func TestRekorFaults(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		want   error // nil: none of the kinds
	}{
		{"overloaded", answer(503, `{"message":"reached max pushback; retry"}`), attest.ErrUnavailable},
		{"too many requests", answer(429, ""), attest.ErrUnavailable},
		{"an internal error", answer(500, ""), attest.ErrUnavailable},
		{"refused", answer(400, `{"message":"invalid hashedrekord request"}`), nil},
		{"frozen", answer(405, "This log has been frozen"), nil},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, nil},
		{"no JSON", answer(201, "<html>"), attest.ErrUnavailable},
		{"endless", answer(201, strings.Repeat(" ", 2<<20)), attest.ErrUnavailable},
		{"empty", answer(201, "{}"), attest.ErrSelfCheck},
		{"slow", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, attest.ErrUnavailable},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(201)
		}, attest.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(tc.answer)
			defer server.Close()
			key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			r := openRekor(t, keys.RekorConfig{URL: server.URL, PublicKey: &key.PublicKey, Timeout: 200 * time.Millisecond})
			_, err := r.Append(t.Context(), attest.LogEntry{})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("%v: want %v", err, tc.want)
			}
			if tc.want == nil && (errors.Is(err, attest.ErrUnavailable) || errors.Is(err, attest.ErrSelfCheck)) {
				t.Errorf("%v: it does not pass", err)
			}
		})
	}
	t.Run("the caller leaves", func(t *testing.T) {
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		r := openRekor(t, keys.RekorConfig{URL: "http://127.0.0.1:1", PublicKey: &key.PublicKey})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Append(ctx, attest.LogEntry{}); !errors.Is(err, attest.ErrUnavailable) {
			t.Error(err)
		}
	})
	for _, bad := range []keys.RekorConfig{{URL: "http://log.example.com"}, {URL: "log.example.com"}, {URL: "https://log.example.com"}} {
		if _, err := keys.OpenRekor(bad); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%q without a key: %v", bad.URL, err)
		}
	}
}
