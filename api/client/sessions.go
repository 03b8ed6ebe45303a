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

// TokenSpent is the type of a [Problem] with status 401 that says: the token
// was exchanged for a session already.
const TokenSpent = "urn:provost:problem:token-spent"

// Sessions keeps the sessions that tokens were exchanged for, for longer than a
// client lives. One that several processes share may have a method
//
//	Lock() (unlock func())
//
// which is called around an exchange, so that what one of them has got is found
// by those that waited.
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

// kept is the session of a token: this client's own, or one that is kept.
func (c *Client) kept(token string) (Session, bool) {
	s, ok := c.remembered.load(token)
	if !ok && c.Sessions != nil {
		s, ok = c.Sessions.Load(token)
	}
	return s, ok
}

// open exchanges a token, unless somebody has done so meanwhile. The secret of a
// session that has ended is none that is looked for.
func (c *Client) open(ctx context.Context, token, ended string) (s Session, err error) {
	if err := c.remembered.take(ctx); err != nil {
		return s, err
	}
	defer c.remembered.give()
	if shared, ok := c.Sessions.(interface{ Lock() (unlock func()) }); ok {
		defer shared.Lock()()
	}
	if s, ok := c.kept(token); ok && s.Token != ended {
		return s, nil
	}
	c.remembered.drop(token)
	if c.Sessions != nil {
		c.Sessions.Drop(token)
	}
	if s, err = c.OpenSession(ctx, token, SessionRequest{Subjects: c.Bound}); err != nil {
		return s, err
	}
	c.remembered.save(token, s)
	if c.Sessions != nil {
		c.Sessions.Save(token, s)
	}
	return s, nil
}

// maxRemembered is how many sessions a client remembers: some CIs give another
// token each time.
const maxRemembered = 1024

// memorySessions keeps sessions as long as the client lives, and has one of its
// callers exchange a token at a time: the others' exchange would be a replay.
type memorySessions struct {
	mu      sync.Mutex
	byToken map[string]Session
	turn    chan struct{} // has something while nobody exchanges
}

func (m *memorySessions) load(token string) (Session, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.byToken[token]
	return s, ok
}

func (m *memorySessions) save(token string, s Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byToken == nil || len(m.byToken) >= maxRemembered {
		m.byToken = map[string]Session{}
	}
	m.byToken[token] = s
}

func (m *memorySessions) drop(token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byToken, token)
}

// take waits for the caller's turn to exchange.
func (m *memorySessions) take(ctx context.Context) error {
	m.mu.Lock()
	if m.turn == nil {
		m.turn = make(chan struct{}, 1)
		m.turn <- struct{}{}
	}
	turn := m.turn
	m.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-turn:
		return nil
	}
}

// give ends it.
func (m *memorySessions) give() { m.turn <- struct{}{} }
