// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"provost/api/client"
	"provost/attest"
)

// jobs are many build jobs of the development issuer, since the session of one
// has an end and a number of statements.
type jobs struct {
	t     testing.TB
	d     *daemon
	key   jose.JSONWebKey
	model map[string]any // claims
	lanes [8]lane        // so that callers seldom wait for another's exchange
	next  atomic.Uint64
}

type lane struct {
	mu     sync.Mutex
	secret string // of the session that goes on
	left   int    // statements in it
	until  time.Time
}

func newJobs(t testing.TB, d *daemon, data string) *jobs {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(data, "dev-issuer.key"))
	ok(t, err)
	block, _ := pem.Decode(raw)
	if block == nil {
		t.Fatal("the development issuer's key is not PEM")
	}
	var key *ecdsa.PrivateKey
	key, err = x509.ParseECPrivateKey(block.Bytes)
	ok(t, err)
	model, err := jwt.ParseSigned(devToken(t, data), []jose.SignatureAlgorithm{jose.ES256})
	ok(t, err)
	j := &jobs{t: t, d: d, key: jose.JSONWebKey{Key: key, KeyID: model.Headers[0].KeyID}}
	var claims json.RawMessage
	ok(t, model.Claims(key.Public(), &claims))
	ok(t, json.Unmarshal(claims, &j.model))
	return j
}

// token is the token of another job.
func (j *jobs) token() (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: j.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	now, claims := time.Now().Unix(), maps.Clone(j.model)
	maps.Copy(claims, map[string]any{"iat": now, "nbf": now, "exp": now + 300, "jti": rand.Text()})
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// secret is that of a session in which a statement is left.
func (j *jobs) secret(ctx context.Context) (string, error) {
	l := &j.lanes[j.next.Add(1)%uint64(len(j.lanes))]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == 0 || time.Now().After(l.until) {
		token, err := j.token()
		if err != nil {
			return "", err
		}
		s, err := j.d.client("").OpenSession(ctx, token, client.SessionRequest{})
		if err != nil {
			return "", err
		}
		l.secret, l.left, l.until = s.Token, s.Statements, time.Now().Add(attest.SessionLifetime/2)
	}
	l.left--
	return l.secret, nil
}

// client is one of all the jobs.
func (j *jobs) client() *client.Client {
	return &client.Client{URL: j.d.url, HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 300}}, Token: j.secret}
}
