// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	maxCredential = 64 << 10         // bytes of a token or secret ID file
	refusalHolds  = time.Second      // for which a refused login is not repeated
	renewTimeout  = 10 * time.Second // of a renewal or a login in the background
)

// A session is our token and how long it is good for. Its generation counts
// logins, so that callers who find the same token dead log in once.
type session struct {
	turn    chan struct{} // holds one value while nobody logs in
	changed chan struct{} // tells keepSession of a login
	stop    chan struct{}
	closing sync.Once

	mu         sync.Mutex
	token      string
	generation int
	lease      time.Duration // 0: the token does not end
	ends       time.Time
	renewable  bool
	refusal    *fault // of the last login
	refusedAt  time.Time
}

func (s *session) init() {
	s.turn, s.changed, s.stop = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
	s.turn <- struct{}{}
}

func (s *session) close() { s.closing.Do(func() { close(s.stop) }) }

func (s *session) current() (token string, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token, s.generation
}

// set adopts a token, or the new lease of the token there is.
func (s *session) set(g grantedToken) {
	s.mu.Lock()
	if s.token != g.Token {
		s.token = g.Token
		s.generation++
	}
	s.lease = time.Duration(g.Lease) * time.Second
	s.ends = time.Now().Add(s.lease)
	s.renewable = g.Renewable
	s.refusal = nil
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// login replaces the token of that generation; 0 is no token at all.
func (v *Vault) login(ctx context.Context, generation int) error {
	return v.persist(ctx, "login", func(ctx context.Context) *fault { return v.relogin(ctx, generation) })
}

// relogin replaces the token of that generation, unless somebody just did.
func (v *Vault) relogin(ctx context.Context, generation int) *fault {
	s := &v.session
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return &fault{kind: faultRetry, err: ctx.Err()}
	}
	s.mu.Lock()
	dead, now, refusal := s.token, s.generation, s.refusal
	recent := time.Since(s.refusedAt) < refusalHolds
	s.mu.Unlock()
	if now != generation {
		return nil
	}
	if refusal != nil && recent {
		return refusal
	}
	granted, f := v.authenticate(ctx, dead)
	if f == nil {
		s.set(granted)
		return nil
	}
	f.err = fmt.Errorf("login: %w", f.err)
	if !f.passes() {
		f.kind = faultDenied
		s.mu.Lock()
		s.refusal, s.refusedAt = f, time.Now()
		s.mu.Unlock()
	}
	return f
}

// authenticate gets a token the configured way. The dead one is not taken
// again.
func (v *Vault) authenticate(ctx context.Context, dead string) (grantedToken, *fault) {
	switch c := v.config; {
	case c.AppRole != nil:
		secret, f := readCredential(c.AppRole.SecretIDFile)
		if f != nil {
			return grantedToken{}, f
		}
		return v.loginAt(ctx, or(c.AppRole.Mount, "approle"), secret,
			map[string]any{"role_id": c.AppRole.RoleID, "secret_id": secret})
	case c.JWT != nil:
		jwt, f := readCredential(c.JWT.TokenFile)
		if f != nil {
			return grantedToken{}, f
		}
		return v.loginAt(ctx, or(c.JWT.Mount, "jwt"), jwt, map[string]any{"role": c.JWT.Role, "jwt": jwt})
	case c.TokenFile != "":
		token, f := readCredential(c.TokenFile)
		if f != nil {
			return grantedToken{}, f
		}
		return v.lookUp(ctx, token, dead)
	default:
		return v.lookUp(ctx, string(c.Token), dead)
	}
}

func (v *Vault) loginAt(ctx context.Context, mount, secret string, body map[string]any) (grantedToken, *fault) {
	var granted grantedToken
	f := v.try(ctx, "", request{path: "auth/" + strings.Trim(mount, "/") + "/login", body: body, auth: &granted})
	if f == nil && granted.Token == "" {
		f = &fault{kind: faultGarbled, err: errors.New("answer has no token")}
	}
	if f != nil {
		f.err = redacted(f.err, secret)
	}
	return granted, f
}

// lookUp asks what a token that we were given is good for. A token that may
// not ask is taken as it is, and used until it is refused.
func (v *Vault) lookUp(ctx context.Context, token, dead string) (grantedToken, *fault) {
	if token == dead {
		return grantedToken{}, &fault{kind: faultDenied, err: errors.New("the token is expired or revoked, and there is no other")}
	}
	var self struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	f := v.try(ctx, token, request{path: "auth/token/lookup-self", answer: &self})
	if f != nil && f.kind != faultDenied {
		return grantedToken{}, f
	}
	return grantedToken{token, self.TTL, self.Renewable}, nil
}

// readCredential reads a file whose trimmed content is the credential.
func readCredential(path string) (string, *fault) {
	file, err := os.Open(path)
	if err != nil {
		return "", &fault{kind: faultDenied, err: err}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxCredential))
	if err != nil {
		return "", &fault{kind: faultDenied, err: err}
	}
	credential := strings.TrimSpace(string(data))
	if credential == "" {
		return "", &fault{kind: faultDenied, err: fmt.Errorf("%s is empty", path)}
	}
	return credential, nil
}

// keepSession renews the token at two thirds of its lease, and logs in again
// when renewing does not help: at the maximum TTL, for a token that cannot be
// renewed, or was revoked. What fails here is tried again, and callers who
// find the token dead log in themselves, so nothing depends on this loop but
// their speed.
func (v *Vault) keepSession() {
	s := &v.session
	var retry time.Duration // after a failure
	for {
		s.mu.Lock()
		lease, left := s.lease, time.Until(s.ends)
		s.mu.Unlock()
		var timer <-chan time.Time
		switch {
		case retry > 0:
			timer = time.After(retry)
		case lease > 0:
			early := lease/3 + rand.N(lease/10+1)
			timer = time.After(max(left-early, 0))
		}
		select {
		case <-s.stop:
			return
		case <-s.changed:
			retry = 0
		case <-timer:
			if v.renew() {
				retry = 0
			} else {
				retry = min(max(2*retry, time.Second), 30*time.Second)
			}
		}
	}
}

// renew renews or replaces the token and reports whether it did.
func (v *Vault) renew() bool {
	ctx, cancel := context.WithTimeout(context.Background(), renewTimeout)
	defer cancel()
	s := &v.session
	token, generation := s.current()
	s.mu.Lock()
	renewable, lease := s.renewable, s.lease
	s.mu.Unlock()
	if renewable {
		var granted grantedToken
		err := v.persist(ctx, "renew", func(ctx context.Context) *fault {
			return v.try(ctx, token, request{path: "auth/token/renew-self", body: map[string]any{}, auth: &granted})
		})
		// A lease that came back shorter was capped by the maximum TTL.
		if full := time.Duration(granted.Lease) * time.Second; err == nil && full >= lease-lease/10 {
			s.set(grantedToken{token, granted.Lease, granted.Renewable})
			return true
		}
	}
	return v.login(ctx, generation) == nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
