// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// SessionStore keeps sessions, for every replica.
type SessionStore interface {
	// OpenSession spends a token and stores its session and the audit record
	// of it, or none of them. A token that was spent for another session is an
	// [attest.ErrConflict].
	OpenSession(ctx context.Context, s attest.Session) error
	// TokenSpent returns for which session a token was spent, and whether it
	// was at all.
	TokenSpent(ctx context.Context, token attest.Digest) (session attest.Digest, spent bool, err error)
	// SpendToken spends a token for nothing, and ends the session that it was
	// spent for, if there is one.
	SpendToken(ctx context.Context, token attest.Digest, until time.Time) error
	// Session returns a session, ended or not, or an [attest.ErrNotFound].
	Session(ctx context.Context, id attest.Digest) (attest.Session, error)
}

// sessionPrefix begins every session's secret, so that one is known when it is
// seen where it should not be.
const sessionPrefix = "pvs_"

// minSessionKey is the shortest Idempotency-Key of an exchange, in bytes: the
// session's secret is made of it.
const minSessionKey = 22

// errSessionRequired: the token is good, once, for a session.
var errSessionRequired = fmt.Errorf("%w: a job's token is accepted once: exchange it for a session with POST /v1/sessions", client.ErrUnauthenticated)

// errTokenSpent: whoever sends it again is not who was given the session.
var errTokenSpent = fmt.Errorf("%w: the token was used already: a job's token is accepted once", client.ErrUnauthenticated)

// An exchange is a request for a session.
type exchange struct {
	token    string
	key      string          // the caller's; "" for none
	subjects []attest.Digest // that the token's audience may be bound to
	// record is what the audit log says of a caller that is let; nil for
	// nothing. It is stored with the session: a token that was spent already
	// lets nobody.
	record func(attest.Caller) attest.AuditRecord
}

// Exchange spends a workload token, and returns the session's secret and the
// caller that it speaks for. A retry with the same key, whose answer was lost,
// gets the same session; whoever else has a copy of the token gets nothing.
//
// The caller that is returned with an error is who it was, for the audit log.
//
// A token that is not accepted, or was spent, is a [client.ErrUnauthenticated];
// one whose claims do not add up, or that may do nothing, is an
// [attest.ErrDenied]. Unless the session is stored there is none.
func (a *Authenticator) Exchange(ctx context.Context, x exchange) (secret string, s attest.Session, caller attest.Caller, err error) {
	ad, err := a.admit(ctx, x.token)
	if caller = ad.caller; err != nil {
		return "", s, caller, err
	}
	if !ad.issuer.workload() {
		return "", s, caller, fmt.Errorf("%w: tokens of %s need no session", attest.ErrInvalid, ad.issuer.URL)
	}
	if len(ad.caller.Grants) == 0 && len(ad.caller.Tenants) == 0 { // closed, and before anything is kept
		return "", s, caller, fmt.Errorf("%w: no rule gives this token anything", attest.ErrDenied)
	}
	switch {
	case ad.bound.IsZero() && len(x.subjects) > 0:
		return "", s, caller, fmt.Errorf("%w: subjects: the token's audience is bound to none: ask for one with ?d=%s", attest.ErrInvalid, attest.SubjectSet(x.subjects).Hex())
	case !ad.bound.IsZero() && len(x.subjects) == 0: // closed, also for the set of none
		return "", s, caller, fmt.Errorf("%w: the token's audience is bound to artifacts, and the request names none", attest.ErrDenied)
	case !ad.bound.IsZero() && attest.SubjectSet(x.subjects) != ad.bound:
		return "", s, caller, fmt.Errorf("%w: the token's audience is bound to other artifacts", attest.ErrDenied)
	}
	if secret, err = sessionSecret(x); err != nil {
		return "", s, caller, err
	}
	now := a.now().UTC()
	s = attest.Session{
		ID: attest.SHA256([]byte(secret)), Issuer: ad.issuer.URL, Proof: []byte(x.token), Subjects: x.subjects,
		At: now, Expires: now.Add(attest.SessionLifetime), Statements: attest.SessionStatements,
		Token: spentAs(ad.issuer.URL, ad.claims, x.token), TokenUntil: now.Add(ad.issuer.MaxAge + 2*leeway),
	}
	if expires, ok := timeOf(ad.claims, "exp"); ok && expires.Add(leeway).After(s.TokenUntil) {
		s.TokenUntil = expires.Add(leeway).UTC()
	}
	if err := a.crossChecked(ctx, ad, &s); err != nil {
		return "", attest.Session{}, caller, err
	}
	caller.Session = s.ID.Hex()
	if x.record != nil {
		r := x.record(caller)
		s.Audit = &r
	}
	if err := a.sessions.OpenSession(ctx, s); err != nil { // closed: no record, no session
		if errors.Is(err, attest.ErrConflict) {
			return "", attest.Session{}, caller, errTokenSpent
		}
		return "", attest.Session{}, caller, fmt.Errorf("open session: %w", err)
	}
	s, err = a.sessions.Session(ctx, s.ID)  // a retry gets what was stored first
	if errors.Is(err, attest.ErrNotFound) { // its token was spent for nothing since
		return "", attest.Session{}, caller, errTokenSpent
	}
	if err != nil {
		return "", attest.Session{}, caller, fmt.Errorf("read session: %w", err)
	}
	caller, err = a.session(ctx, secret)
	return secret, s, caller, err
}

// crossChecked asks the CI's API, if the issuer has one, about a token that was
// not spent before: a copy of one must not make us ask. What the API contradicts
// is spent for nothing, so that silence of the API lets it in neither later nor
// at the same time.
func (a *Authenticator) crossChecked(ctx context.Context, ad admitted, s *attest.Session) error {
	if ad.issuer.checked == nil {
		return nil
	}
	before, spent, err := a.sessions.TokenSpent(ctx, s.Token)
	switch {
	case err != nil: // closed
		return fmt.Errorf("spent tokens: %w", err)
	case spent && before != s.ID:
		return errTokenSpent
	case spent: // a retry: what was said then is stored
		return nil
	}
	checked, err := ad.issuer.crossCheck(ctx, ad.claims)
	if err != nil { // closed: the API contradicts the token
		spendErr := a.sessions.SpendToken(ctx, s.Token, s.TokenUntil)
		a.open.forget() // another request may have opened one with it meanwhile
		if spendErr != nil {
			return fmt.Errorf("%w; and spend its token: %w", err, spendErr)
		}
		return err
	}
	s.Checked = checkedJSON(checked)
	return nil
}

// checkedJSON is what a session keeps of a check; nil for none.
func checkedJSON(c *identity.Checked) []byte {
	if c == nil {
		return nil
	}
	raw, err := json.Marshal(c)
	if err != nil { // closed: as if nothing had been confirmed
		return nil
	}
	return raw
}

// spentAs is what a token is told by: its jti, which its issuer gives to no
// other, or else its bytes.
func spentAs(issuer string, c identity.Claims, token string) attest.Digest {
	if jti, ok := c.Text("jti"); ok && jti != "" {
		return attest.SHA256([]byte("jti\x00" + issuer + "\x00" + jti))
	}
	signed := token[:strings.LastIndexByte(token, '.')] // a signature may have two spellings
	return attest.SHA256([]byte("token\x00" + issuer + "\x00" + signed))
}

// sessionSecret is the secret of the session that a token is exchanged for. It
// is made of the caller's key, so that a retry gives the same one, and nobody
// without the key has it.
func sessionSecret(x exchange) (string, error) {
	key := x.key
	switch {
	case key == "":
		key = rand.Text() + rand.Text()
	case len(key) < minSessionKey:
		return "", fmt.Errorf("%w: Idempotency-Key: want at least %d random characters, as the session's secret is made of it", attest.ErrInvalid, minSessionKey)
	}
	sum := sha256.Sum256([]byte("provost session\x00" + key + "\x00" + x.token))
	return sessionPrefix + base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// session returns the caller that a session's secret speaks for. What it may do
// follows from the claims of its token and the rules and the registry as they
// are now: a builder that is retired is so for open sessions too.
func (a *Authenticator) session(ctx context.Context, secret string) (attest.Caller, error) {
	if a.sessions == nil || len(secret) > 64 {
		return attest.Caller{}, unauthenticated("no such session")
	}
	builders, err := a.current(ctx)
	if err != nil { // closed: what the session may do is not known
		return attest.Caller{}, err
	}
	id := attest.SHA256([]byte(secret))
	known, ok := a.open.recall(id)
	if ok { // its token's key is asked anew, as for a token: see admit
		keys, err := known.issuer.keys.find(ctx, known.header)
		ok = err == nil && keys.fetched.Equal(known.fetched)
	}
	if !ok {
		s, err := a.sessions.Session(ctx, id)
		if errors.Is(err, attest.ErrNotFound) {
			return attest.Caller{}, unauthenticated("no such session, or it ended long ago")
		}
		if err != nil {
			return attest.Caller{}, fmt.Errorf("read session: %w", err)
		}
		if known, err = a.resume(ctx, s); err != nil {
			return attest.Caller{}, err
		}
	}
	if now := a.now(); !now.Before(known.Expires) || now.Add(leeway).Before(known.At) {
		return attest.Caller{}, unauthenticated("the session has ended: it lasts %s", attest.SessionLifetime)
	}
	if known.builders != builders {
		known.builders = builders
		if known.caller, err = a.caller(known.issuer, known.issuer.named(known.claims), known.checked, builders); err != nil {
			return attest.Caller{}, err
		}
		known.caller.Session, known.caller.Bound = id.Hex(), known.Subjects
		a.open.remember(id, known)
	}
	return known.caller, nil
}

// resume reads a stored session. The token is verified again, as it was when it
// was exchanged: whoever can write the database makes no session of claims that
// no issuer signed.
func (a *Authenticator) resume(ctx context.Context, s attest.Session) (openSession, error) {
	ad, header, fetched, err := a.verify(ctx, string(s.Proof), s.At)
	if err != nil { // closed: the configuration or the issuer's keys have changed, or the database has
		return openSession{}, err
	}
	bound := attest.Digest{}
	if len(s.Subjects) > 0 {
		bound = attest.SubjectSet(s.Subjects)
	}
	if ad.issuer.URL != s.Issuer || !ad.issuer.workload() || ad.bound != bound || s.Expires.Sub(s.At) > attest.SessionLifetime || s.Statements > attest.SessionStatements {
		return openSession{}, unauthenticated("the session is not what its token was exchanged for")
	}
	known := openSession{Session: s, admitted: ad, header: header, fetched: fetched}
	if s.Checked != nil {
		known.checked = new(identity.Checked)
		if err := attest.DecodeJSON(s.Checked, known.checked); err != nil {
			return openSession{}, fmt.Errorf("stored session: %v", err)
		}
	}
	return known, nil
}

// An openSession is a session that was asked for lately.
type openSession struct {
	attest.Session
	admitted
	header   header
	fetched  time.Time // the keys its token was verified with, of the issuer's set
	checked  *identity.Checked
	builders *snapshot // that caller is of; nil for none yet
}

// maxOpen is how many sessions are kept in memory.
const maxOpen = 16384

// openSessions are sessions in memory. They save reading the store, and decide
// nothing.
type openSessions struct {
	mu   sync.Mutex
	byID map[attest.Digest]openSession
}

func (m *openSessions) recall(id attest.Digest) (openSession, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.byID[id]
	return s, ok
}

// forget has every session read anew.
func (m *openSessions) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID = nil
}

func (m *openSessions) remember(id attest.Digest, s openSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil || len(m.byID) >= maxOpen {
		m.byID = map[attest.Digest]openSession{}
	}
	m.byID[id] = s
}

// openSession answers POST /v1/sessions. Its token is not one that any other
// call accepts, so it is no [handle].
func (s *Server) openSession(c echo.Context) error {
	refused := func(caller attest.Caller, err error) error { return s.refused(c, "sessions:open", caller, err) }
	if tls := c.Request().TLS; tls != nil && len(tls.PeerCertificates) > 0 { // closed: which of two callers it is would be a guess
		return refused(attest.Caller{}, unauthenticated("the request is ambiguous: it has a client certificate, which needs no session"))
	}
	token, err := bearer(c)
	if err != nil {
		return refused(attest.Caller{}, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request().Context()), s.timeout)
	defer cancel()
	if ad, err := s.auth.admit(ctx, token); err != nil { // before the body of a stranger is read
		return refused(ad.caller, errors.Join(err, ctx.Err()))
	}
	x, err := decodeExchange(c, token)
	if err != nil {
		return refused(attest.Caller{}, err)
	}
	x.record = func(caller attest.Caller) attest.AuditRecord {
		caller.Request, caller.Remote = whence(c)
		return caller.Allowed("sessions.open", "session "+caller.Session, s.now())
	}
	secret, session, caller, err := s.auth.Exchange(ctx, x)
	traceOf(c).caller = caller.Issuer + " " + caller.Subject
	if err != nil {
		return refused(caller, errors.Join(err, ctx.Err()))
	}
	return reply{status: http.StatusCreated, body: sessionWire(secret, session, caller)}.write(c)
}

// maxSessionJSON holds attest.MaxSubjects digests, in bytes.
const maxSessionJSON = attest.MaxSubjects*160 + 4096

func decodeExchange(c echo.Context, token string) (x exchange, err error) {
	x.token = token
	if x.key, err = idempotencyKey(c); err != nil {
		return x, err
	}
	var wire client.SessionRequest
	if c.Request().ContentLength != 0 { // most ask for nothing in particular
		if err := readJSON(c, maxSessionJSON, &wire); err != nil {
			return x, err
		}
	}
	found, err := subjects(wire.Subjects)
	for _, sub := range found {
		if !sub.SHA512.IsZero() {
			return x, fmt.Errorf("%w: subjects: want sha256 alone", attest.ErrInvalid)
		}
		x.subjects = append(x.subjects, sub.SHA256)
	}
	return x, err
}

func sessionWire(secret string, s attest.Session, caller attest.Caller) client.Session {
	out := client.Session{Token: secret, ExpiresAt: s.Expires, Statements: s.Statements, Tenant: caller.Tenant}
	if b := caller.Build; b != nil {
		out.BuilderID, out.BuildType, out.Level, out.LevelReason, out.InvocationID = b.BuilderID, b.BuildType, b.Level, b.LevelReason, b.InvocationID
	}
	return out
}
