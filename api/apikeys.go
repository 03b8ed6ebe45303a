// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// An APIKeyFinder finds API keys by what is left of their secrets.
type APIKeyFinder interface {
	// APIKeyByHash returns the key, expired or revoked, too, whose secret has
	// that SHA-256, or an [attest.ErrNotFound].
	APIKeyByHash(ctx context.Context, hash attest.Digest) (attest.APIKey, error)
}

// An APIKeyStore keeps API keys, for every replica.
type APIKeyStore interface {
	APIKeyFinder
	AppendAPIKey(ctx context.Context, k attest.APIKey) (attest.APIKey, error)
	// APIKeys returns at most limit keys of those tenants after that Seq.
	APIKeys(ctx context.Context, in attest.Tenants, after int64, limit int) ([]attest.APIKey, error)
	APIKey(ctx context.Context, id string) (attest.APIKey, error)
	// RevokeAPIKey stores a revocation; the first one stays.
	RevokeAPIKey(ctx context.Context, k attest.APIKey) (attest.APIKey, error)
}

// apiKeyPrefix begins every API key's secret, so that one is known when it is
// seen where it should not be.
const apiKeyPrefix = "pvk_"

// apiKeySecret is the shape of one: 260 random bits follow the prefix.
var apiKeySecret = regexp.MustCompile(`^` + apiKeyPrefix + `[A-Z2-7]{52}$`)

func newAPIKeySecret() string { return apiKeyPrefix + rand.Text() + rand.Text() }

// secretText is what looks like a secret of ours, or a piece of one.
var secretText = regexp.MustCompile(`(` + apiKeyPrefix + `|` + sessionPrefix + `)[A-Za-z0-9_-]+`)

// redacted is a text that came in, fit to be kept: whoever puts a secret where
// it does not belong, in a path perhaps, does not find it in a log.
func redacted(s string) string {
	if !strings.Contains(s, "pv") {
		return s
	}
	return secretText.ReplaceAllString(s, "${1}[secret]")
}

// apiKeyFresh is how long a key that another replica has revoked may go on
// here. One that is revoked here stops at once.
const apiKeyFresh = 2 * time.Second

// maxAPIKeys is how many keys are kept in memory.
const maxAPIKeys = 4096

// An apiKeyMemory has the keys that were asked for lately. It saves reading the
// store: what a key may do is decided by what it holds, and when it ends, each
// time anew.
type apiKeyMemory struct {
	mu        sync.Mutex
	byHash    map[attest.Digest]readAPIKey
	forgotten int // how often it was emptied
}

type readAPIKey struct {
	attest.APIKey
	read time.Time
}

// recall returns a key that was read just now, and otherwise what to say when
// it has been read.
func (m *apiKeyMemory) recall(hash attest.Digest, now time.Time) (k attest.APIKey, ok bool, forgotten int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.byHash[hash]
	age := now.Sub(r.read)
	return r.APIKey, ok && age >= 0 && age < apiKeyFresh, m.forgotten // a clock that was turned back makes nothing fresh
}

// remember keeps a key that was asked for at a time, unless something was
// revoked since: what was read may be older than that.
func (m *apiKeyMemory) remember(k attest.APIKey, asked time.Time, forgotten int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.forgotten != forgotten {
		return
	}
	if m.byHash == nil || len(m.byHash) >= maxAPIKeys {
		m.byHash = map[attest.Digest]readAPIKey{}
	}
	m.byHash[k.Hash] = readAPIKey{k, asked}
}

// forget has every key read anew.
func (m *apiKeyMemory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byHash, m.forgotten = nil, m.forgotten+1
}

// apiKey returns the caller that an API key's secret speaks for. It is looked
// up by its hash, so that how long that takes tells nothing about any secret.
// With an error the caller says at most which key it was.
func (a *Authenticator) apiKey(ctx context.Context, secret string) (attest.Caller, error) {
	if a.apiKeys == nil || !apiKeySecret.MatchString(secret) {
		return attest.Caller{}, unauthenticated("no such API key")
	}
	hash, now := attest.SHA256([]byte(secret)), a.now()
	k, ok, forgotten := a.knownKeys.recall(hash, now)
	if !ok {
		var err error
		k, err = a.apiKeys.APIKeyByHash(ctx, hash)
		if errors.Is(err, attest.ErrNotFound) {
			return attest.Caller{}, unauthenticated("no such API key")
		}
		if err != nil { // closed: whether it was revoked is not known
			return attest.Caller{}, fmt.Errorf("read API key: %w", err)
		}
		if err := k.Validate(); err != nil || k.Hash != hash { // closed: the service did not make it
			return attest.Caller{}, fmt.Errorf("stored API key %.80q: it is damaged: %v", k.ID, err)
		}
		a.knownKeys.remember(k, now, forgotten)
	}
	caller := k.Caller(a.service)
	if state := k.State(now); state != attest.APIKeyActive {
		who := attest.Caller{Issuer: caller.Issuer, Subject: caller.Subject}
		switch state {
		case attest.APIKeyRevoked:
			return who, unauthenticated("the API key was revoked")
		case attest.APIKeyExpired:
			return who, unauthenticated("the API key has expired")
		}
		return who, unauthenticated("the API key is of the future: the service's clock is wrong")
	}
	return caller, nil
}

// An apiKeyChange is a request for a key.
type apiKeyChange struct {
	id string // that it will have
	client.APIKeyRequest
}

// maxAPIKeyJSON bounds a request for a key, in bytes.
const maxAPIKeyJSON = 16 << 10

func decodeAPIKey(c echo.Context) (apiKeyChange, error) {
	in := apiKeyChange{id: attest.NewID()}
	if err := readJSON(c, maxAPIKeyJSON, &in.APIKeyRequest); err != nil {
		return in, err
	}
	if in.ExpiresAt.IsZero() == (in.ExpiresIn == 0) {
		return in, fmt.Errorf("%w: want one of expiresIn and expiresAt", attest.ErrInvalid)
	}
	if in.ExpiresIn < 0 || in.ExpiresIn > int64(attest.MaxAPIKeyLifetime/time.Second) {
		return in, fmt.Errorf("%w: expiresIn: want 1 to %d seconds", attest.ErrInvalid, int64(attest.MaxAPIKeyLifetime/time.Second))
	}
	return in, nil
}

// apiKeyObject says for the audit log what is asked for: the key that comes of
// it may be refused.
func apiKeyObject(in apiKeyChange) string {
	expires := fmt.Sprintf("in %s", time.Duration(in.ExpiresIn)*time.Second)
	if !in.ExpiresAt.IsZero() {
		expires = stamp(in.ExpiresAt)
	}
	var grants []string
	for _, g := range in.Grants {
		grants = append(grants, string(g))
	}
	return fmt.Sprintf("%s %s in tenant %s, expires %s, grants %s", in.id, in.Name, cmp.Or(in.Tenant, "-"), expires, strings.Join(grants, " "))
}

// createAPIKey makes a key. Its secret is in this answer, and nowhere else.
func (s *Server) createAPIKey(ctx context.Context, caller attest.Caller, in apiKeyChange) (reply, error) {
	now, object := s.now(), apiKeyObject(in)
	tenant, err := apiKeyTenant(caller, in.Tenant)
	if err != nil {
		return reply{}, err
	}
	if in.ExpiresAt.IsZero() {
		in.ExpiresAt = now.Add(time.Duration(in.ExpiresIn) * time.Second)
	}
	secret := newAPIKeySecret()
	k, err := attest.APIKey{
		ID: in.id, Name: in.Name, Hash: attest.SHA256([]byte(secret)), Grants: in.Grants, Tenant: tenant, ExpiresAt: in.ExpiresAt,
	}.Create(caller, now)
	if err != nil {
		return reply{}, err
	}
	if err := s.audit.append(ctx, caller.Allowed("apikeys.create", object, now)); err != nil { // closed: no record, no key
		return reply{}, err
	}
	if k, err = s.apiKeys.AppendAPIKey(ctx, k); err != nil {
		return reply{}, fmt.Errorf("append API key %s: %w", in.id, err)
	}
	return reply{status: http.StatusCreated, body: client.CreatedAPIKey{Secret: secret, APIKey: apiKeyWire(k, now)}}, nil
}

// apiKeyTenant is the tenant of a new key. Every tenant is asked for by its
// word, so that no key holds everywhere because somebody has left out a member.
func apiKeyTenant(caller attest.Caller, asked string) (string, error) {
	tenants, all := caller.Where(attest.GrantAPIKeys)
	switch {
	case asked == AllTenants:
		return "", nil
	case asked != "":
		return asked, nil
	case !all && len(tenants) == 1:
		return tenants[0], nil
	}
	return "", fmt.Errorf("%w: tenant: want one, or %q for every one", attest.ErrInvalid, AllTenants)
}

// listAPIKeys answers with a page of the keys of those tenants in which the
// caller may make some.
func (s *Server) listAPIKeys(ctx context.Context, caller attest.Caller, q auditQuery) (reply, error) {
	keys, err := s.apiKeys.APIKeys(ctx, caller.Within(attest.GrantAPIKeys), q.after, q.limit)
	if err != nil {
		return reply{}, err
	}
	now, out := s.now(), client.APIKeys{APIKeys: []client.APIKey{}}
	for _, k := range keys {
		out.APIKeys = append(out.APIKeys, apiKeyWire(k, now))
	}
	if len(keys) == q.limit { // the next may be empty
		out.Next = strconv.FormatInt(keys[len(keys)-1].Seq, 10)
	}
	return reply{status: http.StatusOK, body: out}, nil
}

func decodeAPIKeyID(c echo.Context) (string, error) {
	id, err := param(c, "id")
	if err != nil {
		return "", err
	}
	if !attest.IsAPIKeyID(id) { // and not quoted: it may be a secret
		return "", fmt.Errorf("%w: the path names no ID of an API key", attest.ErrInvalid)
	}
	_, err = none(c)
	return id, err
}

// revokeAPIKey takes a key back. Who may is decided by whose key it is, so it
// is recorded here, between the decision and the act.
func (s *Server) revokeAPIKey(ctx context.Context, caller attest.Caller, id string) (reply, error) {
	k, err := s.apiKeys.APIKey(ctx, id)
	if err != nil {
		return reply{}, err
	}
	now := s.now()
	if k, err = k.Revoke(caller, now); err != nil {
		return reply{}, err
	}
	if err := s.audit.append(ctx, caller.Allowed("apikeys.revoke", id+" "+k.Name, now)); err != nil { // closed
		return reply{}, err
	}
	k, err = s.apiKeys.RevokeAPIKey(ctx, k)
	s.auth.knownKeys.forget() // with an error, too: it may be stored nevertheless
	if err != nil {
		return reply{}, fmt.Errorf("revoke API key %s: %w", id, err)
	}
	return reply{status: http.StatusOK, body: apiKeyWire(k, now)}, nil
}

// apiKeyWire is what is told of a key: not its hash, nor what tells people
// apart.
func apiKeyWire(k attest.APIKey, now time.Time) client.APIKey {
	k.Owner.Key, k.RevokedBy.Key = "", ""
	return client.APIKey{
		ID: k.ID, Name: k.Name, State: k.State(now), Grants: k.Grants, Tenant: cmp.Or(k.Tenant, AllTenants), Owner: k.Owner,
		CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, RevokedBy: k.RevokedBy,
	}
}
