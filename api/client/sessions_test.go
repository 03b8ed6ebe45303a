// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A spender accepts each token once, for a session, as the service does.
type spender struct {
	mu     sync.Mutex
	spent  map[string]bool
	ended  map[string]bool // sessions, by their secrets
	opened int
}

func (s *spender) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	problem := func(kind string) { fail(w, 401, fmt.Sprintf(`{"type":%q,"status":401}`, kind)) }
	switch secret, isSecret := strings.CutPrefix(bearer, "pvs_"); {
	case r.URL.Path != "/v1/sessions" && isSecret && !s.ended[secret]:
		_, _ = io.WriteString(w, `{"keys":[]}`)
	case isSecret:
		problem("about:blank")
	case r.URL.Path != "/v1/sessions":
		problem(SessionRequired)
	case s.spent[bearer]:
		problem(TokenSpent)
	default:
		s.spent[bearer] = true
		s.opened++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token":"pvs_%d","expiresAt":%q,"statements":100}`, s.opened, time.Now().Add(time.Minute).Format(time.RFC3339))
	}
}

func newSpender() *spender { return &spender{spent: map[string]bool{}, ended: map[string]bool{}} }

// shared are sessions that several clients share.
type shared struct {
	memorySessions
	lock sync.Mutex
}

func (s *shared) Load(token string) (Session, bool) { return s.load(token) }
func (s *shared) Save(token string, one Session)    { s.save(token, one) }
func (s *shared) Drop(token string)                 { s.drop(token) }
func (s *shared) Lock() func()                      { s.lock.Lock(); return s.lock.Unlock }

// forgetful sessions are those of a directory that cannot be written.
type forgetful struct{}

func (forgetful) Load(string) (Session, bool) { return Session{}, false }
func (forgetful) Save(string, Session)        {}
func (forgetful) Drop(string)                 {}

// However many calls begin at once, of one client or of several that share
// their sessions, a token is exchanged once: a second time would be a replay.
func TestATokenIsExchangedOnce(t *testing.T) {
	together := new(shared)
	for name, sessions := range map[string]func() Sessions{
		"in one client":                          nil,
		"in one client that can keep none":       func() Sessions { return forgetful{} },
		"in several clients that share sessions": func() Sessions { return together },
	} {
		service := newSpender()
		one, _ := serve(t, service.answer)
		var wait sync.WaitGroup
		for range 20 {
			c := one
			if name == "in several clients that share sessions" {
				c = &Client{URL: one.URL, Token: one.Token}
			}
			if sessions != nil && c.Sessions == nil {
				c.Sessions = sessions()
			}
			for range 3 {
				wait.Go(func() {
					if _, err := c.Keys(t.Context()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
		}
		wait.Wait()
		if service.opened != 1 {
			t.Errorf("%s: %d sessions; want 1", name, service.opened)
		}
	}
}

// A session that has ended is not asked with again; its token is good for
// another one only if it is another token.
func TestASessionThatHasEnded(t *testing.T) {
	service := newSpender()
	c, _ := serve(t, service.answer)
	said := "first"
	c.Token = func(context.Context) (string, error) { return said, nil }
	if _, err := c.Keys(t.Context()); err != nil {
		t.Fatal(err)
	}
	service.ended["1"] = true
	var p *Problem
	if _, err := c.Keys(t.Context()); !errors.As(err, &p) || p.Type != TokenSpent || !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("with the same token: %v; want it to be spent", err)
	}
	said = "second"
	if _, err := c.Keys(t.Context()); err != nil {
		t.Errorf("with a fresh one: %v", err)
	}
}

// Who waits for another's exchange waits no longer than its own call may.
func TestWaitingForAnExchangeEnds(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	service := newSpender()
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sessions" {
			close(entered)
			<-release
		}
		service.answer(w, r)
	})
	first := make(chan error, 1)
	go func() { _, err := c.Keys(t.Context()); first <- err }()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Keys(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want its own deadline", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the one that exchanged: %v", err)
	}
}
