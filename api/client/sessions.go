// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"
	"sync"
	"time"

	"provost/attest"
)

// A SessionRequest asks for a session. Subjects are named when the token's
// audience is bound to them.
type SessionRequest struct {
	Subjects []Subject `json:"subjects,omitempty"`
}

// A Session is what a workload token was exchanged for. Token is its secret:
// the bearer token of the calls to come.
type Session struct {
	Token        string    `json:"token"`
	ExpiresAt    time.Time `json:"expiresAt"`
	Statements   int       `json:"statements"` // that may be signed in it
	Tenant       string    `json:"tenant,omitempty"`
	BuilderID    string    `json:"builderId,omitempty"`
	BuildType    string    `json:"buildType,omitempty"`
	Level        int       `json:"level,omitzero"` // SLSA build level of its provenance
	LevelReason  string    `json:"levelReason,omitempty"`
	InvocationID string    `json:"invocationId,omitempty"`
}

// SessionRequired is the type of a [Problem] with status 401 that says: the
// token is good, once, for a session.
const SessionRequired = "urn:provost:problem:session-required"

// Sessions keeps the sessions that tokens were exchanged for.
type Sessions interface {
	// Load returns the session of a token, if it is there and goes on.
	Load(token string) (Session, bool)
	// Save keeps a session. It need not succeed.
	Save(token string, s Session)
	// Drop forgets the session of a token.
	Drop(token string)
}

// OpenSession exchanges a workload token. It may be repeated: a retry of the
// same call gets the same session.
func (c *Client) OpenSession(ctx context.Context, token string, r SessionRequest) (s Session, err error) {
	body, err := encode(r)
	if err != nil {
		return s, err
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/sessions", contentType: "application/json", body: body,
		token: token, idempotencyKey: attest.NewID(), want: http.StatusCreated, retry: true}, &s)
	return s, err
}

// memorySessions keeps sessions as long as the client lives.
type memorySessions struct {
	mu      sync.Mutex
	byToken map[string]Session
}

func (m *memorySessions) Load(token string) (Session, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.byToken[token]
	return s, ok
}

func (m *memorySessions) Save(token string, s Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byToken == nil {
		m.byToken = map[string]Session{}
	}
	m.byToken[token] = s
}

func (m *memorySessions) Drop(token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byToken, token)
}

// sessions are the caller's, or else our own.
func (c *Client) sessions() Sessions {
	if c.Sessions != nil {
		return c.Sessions
	}
	return &c.remembered
}
