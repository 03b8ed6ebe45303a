// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
)

// patience bounds every wait for something to recover.
const patience = 20 * time.Second

// A middle stands between the client and Vault and does to an exchange what it
// is told. next sends the request on.
type middle struct {
	address string
	seen    atomic.Int64
	do      atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
}

func newMiddle(t testing.TB, server *keystest.VaultServer) *middle {
	t.Helper()
	target, err := url.Parse(server.Address())
	check(t, err)
	next := httputil.NewSingleHostReverseProxy(target)
	next.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	m := &middle{}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/sign/") {
			m.seen.Add(1)
			if do := m.do.Load(); do != nil {
				(*do)(w, r, next)
				return
			}
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	m.address = front.URL
	return m
}

func (m *middle) set(do func(http.ResponseWriter, *http.Request, http.Handler)) { m.do.Store(&do) }
func (m *middle) clear()                                                        { m.do.Store(nil) }

// reset ends the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

// within has a constant signed in at most that long.
func within(t testing.TB, d time.Duration, v *keys.Vault) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	start := time.Now()
	signature, err := v.Sign(ctx, "provenance", 1, make([]byte, 32))
	if (err == nil) != (len(signature) > 0) {
		t.Errorf("%d bytes with error %v", len(signature), err)
	}
	if took := time.Since(start); took > d+2*time.Second {
		t.Errorf("took %s, had %s", took, d)
	}
	return err
}

func wantUnavailable(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, attest.ErrUnavailable) || errors.Is(err, keys.ErrBackendDenied) {
		t.Errorf("got %v, want unavailable", err)
	}
}

func wantDenied(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, keys.ErrBackendDenied) || errors.Is(err, attest.ErrUnavailable) || errors.Is(err, attest.ErrDenied) {
		t.Errorf("got %v, want denied by the backend", err)
	}
}

// recovers waits until signing works again, without anybody's help.
func recovers(t testing.TB, v *keys.Vault) {
	t.Helper()
	var last error
	if err := keystest.Poll(patience, func() bool {
		last = within(t, time.Second, v)
		return last == nil
	}); err != nil {
		t.Fatalf("does not recover: %v: %v", err, last)
	}
}

// rides checks that a call which begins in the fault and outlasts it succeeds.
func rides(t testing.TB, m *middle, v *keys.Vault, end func()) {
	t.Helper()
	before := m.seen.Load()
	done := make(chan error, 1)
	go func() {
		_, err := v.Sign(t.Context(), "provenance", 1, make([]byte, 32))
		done <- err
	}()
	check(t, keystest.Poll(patience, func() bool { return m.seen.Load() > before+1 })) // it has tried more than once
	end()
	if err := <-done; err != nil {
		t.Errorf("does not ride it out: %v", err)
	}
}

func TestVaultFaults(t *testing.T) {
	server := vaultWithKeys(t)
	m := newMiddle(t, server)
	config := server.Config(keystest.PolicySignProvenance)
	config.Address = m.address
	open := func(t *testing.T) *keys.Vault {
		v := openVault(t, config)
		check(t, signVault(t, v))
		return v
	}

	t.Run("sealed", func(t *testing.T) {
		v := open(t)
		server.Seal()
		rides(t, m, v, server.Unseal)
		server.Seal()
		wantUnavailable(t, within(t, 300*time.Millisecond, v))
		if _, err := keys.OpenVault(shortly(t), config); !errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("open: %v", err)
		}
		server.Unseal()
		recovers(t, v)
	})

	t.Run("stopped", func(t *testing.T) {
		v := open(t)
		server.Stop()
		rides(t, m, v, server.Restart)
		server.Stop()
		wantUnavailable(t, within(t, 300*time.Millisecond, v))
		start := time.Now()
		wantUnavailable(t, signVault(t, v)) // known to be down: nobody waits for the whole deadline
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		server.Restart()
		recovers(t, v)
	})

	t.Run("slow", func(t *testing.T) {
		v := open(t)
		release := make(chan struct{})
		m.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			select {
			case <-release:
				next.ServeHTTP(w, r)
			case <-r.Context().Done(): // the client gave up
			}
		})
		err := within(t, 300*time.Millisecond, v)
		wantUnavailable(t, err)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline in it", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		before := m.seen.Load()
		done := make(chan error, 1)
		go func() { _, err := v.Sign(ctx, "provenance", 1, make([]byte, 32)); done <- err }()
		check(t, keystest.Poll(patience, func() bool { return m.seen.Load() > before }))
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		close(release)
		recovers(t, v)
		m.clear()
	})

	t.Run("connection reset, before and after Vault signed", func(t *testing.T) {
		v := open(t)
		var n atomic.Int64
		m.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch n.Add(1) {
			case 1:
				reset(w)
			case 2:
				next.ServeHTTP(httptest.NewRecorder(), r)
				reset(w)
			default:
				next.ServeHTTP(w, r)
			}
		})
		check(t, signVault(t, v))
		if n.Load() != 3 {
			t.Errorf("%d attempts", n.Load())
		}
		m.set(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { reset(w) })
		wantUnavailable(t, within(t, 300*time.Millisecond, v))
		m.clear()
		recovers(t, v)
	})

	t.Run("over quota", func(t *testing.T) {
		v := open(t)
		server.Write("sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
		server.Write("sys/quotas/rate-limit/sign", map[string]any{"path": "transit/", "rate": 1, "interval": "1s"})
		var err error
		for range 50 {
			if err = within(t, 300*time.Millisecond, v); err != nil {
				break
			}
		}
		wantUnavailable(t, err)
		var unavailable *keys.UnavailableError
		if !errors.As(err, &unavailable) || unavailable.Wait <= 0 {
			t.Errorf("no time to wait in %v", err)
		}
		recovers(t, v)
		_, err = server.Root().Logical().Delete("sys/quotas/rate-limit/sign")
		check(t, err)
	})

	t.Run("token revoked", func(t *testing.T) {
		v := open(t)
		for range 3 {
			server.Write("sys/leases/revoke-prefix/auth/approle/login", map[string]any{"sync": true})
			check(t, signVault(t, v))
		}
		var wg sync.WaitGroup
		server.Write("sys/leases/revoke-prefix/auth/approle/login", map[string]any{"sync": true})
		for range 16 {
			wg.Go(func() { check(t, signVault(t, v)) })
		}
		wg.Wait()
	})

	t.Run("token revoked, and the role gone", func(t *testing.T) {
		gone := server.Config(keystest.PolicySignProvenance)
		v := openVault(t, gone)
		check(t, signVault(t, v))
		check(t, os.WriteFile(gone.AppRole.SecretIDFile, []byte("another"), 0o600))
		server.Write("sys/leases/revoke-prefix/auth/approle/login", map[string]any{"sync": true})
		err := signVault(t, v)
		wantDenied(t, err)
		if !strings.Contains(err.Error(), "login") {
			t.Errorf("got %v, want it to say that the login failed", err)
		}
	})

	t.Run("permission taken away", func(t *testing.T) {
		v := open(t)
		server.WritePolicy(keystest.PolicySignProvenance, `path "transit/keys/*" { capabilities = ["read"] }`)
		before := m.seen.Load()
		wantDenied(t, signVault(t, v))
		if n := m.seen.Load() - before; n != 1 {
			t.Errorf("%d attempts at what is denied", n)
		}
		server.WritePolicy(keystest.PolicySignProvenance, keystest.ShippedPolicy(t, keystest.PolicySignProvenance))
		check(t, signVault(t, v))
	})

	t.Run("version retired", func(t *testing.T) {
		v := open(t)
		server.Write("transit/keys/provost-provenance/rotate", nil)
		server.Write("transit/keys/provost-provenance/config", map[string]any{"min_encryption_version": 2})
		before := m.seen.Load()
		if err := signVault(t, v); !errors.Is(err, keys.ErrVersion) || errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if n := m.seen.Load() - before; n != 1 {
			t.Errorf("%d attempts with a retired version", n)
		}
		server.Write("transit/keys/provost-provenance/config", map[string]any{"min_encryption_version": 1})
		check(t, signVault(t, v))
	})
}

// TestVaultTokenExpires signs all through the ends of several leases.
func TestVaultTokenExpires(t *testing.T) {
	server := vaultWithKeys(t)
	logins := 0
	var mu sync.Mutex
	config := keys.VaultConfig{Address: server.Address(), AppRole: server.AppRole("short", time.Second, keystest.PolicySignProvenance, keystest.PolicyToken),
		Observe: func(op string, _ time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if op == "login" && err == nil {
				logins++
			}
		}}
	v := openVault(t, config)
	for end := time.Now().Add(3500 * time.Millisecond); time.Now().Before(end); {
		check(t, signVault(t, v))
	}
	mu.Lock()
	defer mu.Unlock()
	if logins < 3 {
		t.Errorf("%d logins in 3.5 leases", logins)
	}
}

func TestVaultTokenFile(t *testing.T) {
	server := vaultWithKeys(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) { check(t, os.WriteFile(file, []byte(token+"\n"), 0o600)) }
	first := server.Token(time.Hour, keystest.PolicySignProvenance) // may not even look itself up
	write(first)
	v := openVault(t, keys.VaultConfig{Address: server.Address(), TokenFile: file})
	check(t, signVault(t, v))
	server.Write("auth/token/revoke", map[string]any{"token": first})
	err := signVault(t, v)
	wantDenied(t, err)
	if strings.Contains(err.Error(), first) {
		t.Errorf("the token is in %v", err)
	}
	write(server.Token(time.Hour, keystest.PolicySignProvenance, keystest.PolicyToken))
	recovers(t, v)

	garbage := keys.VaultConfig{Address: server.Address(), Token: "hvs.garbage"}
	if _, err := keys.OpenVault(t.Context(), garbage); !errors.Is(err, keys.ErrBackendDenied) || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("garbage token: %v", err)
	}
}

func shortly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
