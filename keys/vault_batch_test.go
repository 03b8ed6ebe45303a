// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost/attest"
	"provost/keys"
	"provost/keys/keystest"
)

// A signRequest is what the client sends, as the middle sees it.
type signRequest struct {
	Input      any              `json:"input"`
	Batch      []map[string]any `json:"batch_input"`
	KeyVersion any              `json:"key_version"`
	header     http.Header
}

// peek reads a request to sign and puts it back.
func peek(t testing.TB, r *http.Request) signRequest {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return signRequest{} // the client gave up
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	got := signRequest{header: r.Header}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Errorf("request %q: %v", body, err)
	}
	return got
}

// A company is callers whose signatures Vault is asked for together.
type company struct {
	t       testing.TB
	m       *middle
	v       *keys.Vault
	public  *ecdsa.PublicKey
	version int
	made    [][]byte // signatures of the last batch
}

func newCompany(t testing.TB, m *middle, v *keys.Vault, version int) *company {
	t.Helper()
	all, err := v.Versions(t.Context(), "provenance")
	check(t, err)
	for _, k := range all {
		if k.Number == version {
			return &company{t: t, m: m, v: v, public: k.Public, version: version}
		}
	}
	return &company{t: t, m: m, v: v, version: version} // Vault does not name it
}

// sign has n different digests signed in one batch and returns each caller's
// error; what has none verifies. do is done to the exchanges, and ctx gives
// each caller its context.
func (c *company) sign(n int, ctx func(i int) context.Context, do func(http.ResponseWriter, *http.Request, http.Handler)) []error {
	c.t.Helper()
	defer c.m.clear()
	// A lone call is held until the others wait behind it.
	holds, release, size := make(chan struct{}), make(chan struct{}), atomic.Int64{}
	var first sync.Once
	c.m.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if got := peek(c.t, r); got.Batch == nil {
			first.Do(func() { close(holds) })
			<-release
			next.ServeHTTP(w, r)
			return
		} else if size.CompareAndSwap(0, int64(len(got.Batch))) && len(got.Batch) != n {
			c.t.Errorf("batch of %d, want %d", len(got.Batch), n)
		}
		if do == nil {
			do = func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }
		}
		do(w, r, next)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = c.v.Sign(c.t.Context(), "provenance", c.version, make([]byte, 32))
	})
	<-holds
	errs := make([]error, n)
	c.made = make([][]byte, n)
	var started atomic.Int64
	for i := range n {
		wg.Go(func() {
			digest := sha256.Sum256([]byte{byte(i)})
			started.Add(1)
			signature, err := c.v.Sign(ctx(i), "provenance", c.version, digest[:])
			if (err == nil) != (len(signature) > 0) || err == nil && !ecdsa.VerifyASN1(c.public, digest[:], signature) {
				c.t.Errorf("caller %d has somebody else's signature, or one and an error: %v", i, err)
			}
			c.made[i], errs[i] = signature, err
		})
	}
	check(c.t, keystest.Poll(patience, func() bool { return started.Load() == int64(n) }))
	time.Sleep(50 * time.Millisecond) // until they wait
	close(release)
	wg.Wait()
	return errs
}

// each gives every caller the test's context.
func (c *company) each(int) context.Context { return c.t.Context() }

func wantAll(t testing.TB, errs []error, want func(testing.TB, error)) {
	t.Helper()
	for _, err := range errs {
		want(t, err)
	}
}

// openMiddle starts a server that has all keys, and a client on it with
// somebody in between.
func openMiddle(t testing.TB, change ...func(*keys.VaultConfig)) (*keystest.VaultServer, *middle, *keys.Vault) {
	t.Helper()
	server := vaultWithKeys(t)
	m := newMiddle(t, server)
	config := server.Config(everything...)
	config.Address = m.address
	for _, c := range change {
		c(&config)
	}
	return server, m, openVault(t, config)
}

// TestVaultBatch: what is sent is one version, pinned once, and a lone call is
// what it always was.
func TestVaultBatch(t *testing.T) {
	_, m, v := openMiddle(t)
	var mu sync.Mutex
	var seen []signRequest
	record := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		got := peek(t, r)
		mu.Lock()
		seen = append(seen, got)
		mu.Unlock()
		next.ServeHTTP(w, r)
	}
	m.set(record)
	check(t, signVault(t, v))
	if len(seen) != 1 || seen[0].Batch != nil || seen[0].Input == nil || seen[0].KeyVersion != "1" {
		t.Errorf("a lone call: %v", seen)
	}
	if id := seen[0].header.Get("X-Correlation-ID"); id != "" {
		t.Errorf("for nothing in particular: correlation ID %q", id)
	}
	seen = nil
	c := newCompany(t, m, v, 1)
	intents := make([]string, 64)
	contexts := make([]context.Context, 64)
	for i := range intents {
		intents[i] = attest.NewID()
		contexts[i] = intentContext(t, intents[i])
	}
	errs := c.sign(64, func(i int) context.Context { return contexts[i] }, record)
	wantAll(t, errs, func(t testing.TB, err error) { check(t, err) })
	if len(seen) != 1 || seen[0].Input != nil || seen[0].KeyVersion != "1" {
		t.Fatalf("together: %v", seen)
	}
	references := make(map[any]bool)
	for _, item := range seen[0].Batch {
		if _, pinned := item["key_version"]; pinned || len(item) != 2 {
			t.Errorf("item %v", item)
		}
		references[item["reference"]] = true
	}
	if len(references) != 64 {
		t.Errorf("%d references", len(references))
	}
	ids := strings.Split(seen[0].header.Get("X-Correlation-ID"), ",")
	slices.Sort(ids)
	slices.Sort(intents)
	if !slices.Equal(ids, intents) {
		t.Errorf("correlation IDs %q, want %q", ids, intents)
	}

	// Never more than 64, and certificates one by one.
	seen = nil
	m.set(record)
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() { check(t, signVault(t, v)) })
	}
	for range 20 {
		wg.Go(func() {
			_, err := v.Sign(t.Context(), "issuing-provenance", 1, make([]byte, 32))
			check(t, err)
		})
	}
	wg.Wait()
	for _, got := range seen {
		if len(got.Batch) > 64 {
			t.Errorf("batch of %d", len(got.Batch))
		}
	}
}

// TestVaultBatchTampered lets somebody change the answers to batches of four.
// Nobody gets a signature that is not his, and what is wrong with one does not
// hurt the others, as long as it can be told whose is whose.
func TestVaultBatchTampered(t *testing.T) {
	_, m, v := openMiddle(t)
	c := newCompany(t, m, v, 1)
	const n = 4
	results := func(change func([]map[string]any) any) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			var got recorder
			next.ServeHTTP(&got, r)
			var answer map[string]any
			check(t, json.Unmarshal(got.body.Bytes(), &answer))
			data := answer["data"].(map[string]any)
			var all []map[string]any
			for _, item := range data["batch_results"].([]any) {
				all = append(all, item.(map[string]any))
			}
			data["batch_results"] = change(all)
			check(t, json.NewEncoder(w).Encode(answer))
		}
	}
	item := func(i int, name string, value any) func(http.ResponseWriter, *http.Request, http.Handler) {
		return results(func(all []map[string]any) any { all[i][name] = value; return all })
	}
	plain := func(body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { io.WriteString(w, body) }
	}
	self, version, passes := attest.ErrSelfCheck, keys.ErrVersion, attest.ErrUnavailable
	everybody := []int{0, 1, 2, 3}
	for _, test := range []struct {
		name string
		do   func(http.ResponseWriter, *http.Request, http.Handler)
		want error
		whom []int // the others get their signatures
	}{
		{"nothing", results(func(all []map[string]any) any { return all }), nil, nil},
		{"an item short", results(func(all []map[string]any) any { return all[:3] }), self, everybody},
		{"the first item gone", results(func(all []map[string]any) any { return all[1:] }), self, everybody},
		{"an item more", results(func(all []map[string]any) any { return append(all, all[0]) }), self, everybody},
		{"no items", results(func([]map[string]any) any { return []any{} }), self, everybody},
		{"null for items", results(func([]map[string]any) any { return nil }), self, everybody},
		{"the answer to a lone call", plain(`{"data":{"signature":"vault:v1:MEUC","key_version":1}}`), self, everybody},
		{"two items swapped", results(func(all []map[string]any) any { all[1], all[2] = all[2], all[1]; return all }), self, []int{1, 2}},
		{"all items turned round", results(func(all []map[string]any) any { slices.Reverse(all); return all }), self, everybody},
		{"one item twice", results(func(all []map[string]any) any { all[3] = all[0]; return all }), self, []int{3}},
		{"an item without a reference", item(2, "reference", ""), self, []int{2}},
		{"the references of another batch", results(func(all []map[string]any) any {
			for i := range all {
				all[i]["reference"] = fmt.Sprintf("zz.%d", i)
			}
			return all
		}), self, everybody},
		{"an item of another version", item(1, "key_version", 2), self, []int{1}},
		{"a signature of another version", item(1, "signature", "vault:v2:MEUCIQ=="), self, []int{1}},
		{"a version that only begins the same", item(1, "signature", "vault:v11:MEUCIQ=="), self, []int{1}},
		{"an item without a signature", item(0, "signature", ""), self, []int{0}},
		{"an item that is not base64", item(0, "signature", "vault:v1:%"), self, []int{0}},
		{"an item that failed", item(3, "error", "internal error"), passes, []int{3}},
		{"an item whose version is retired", item(3, "error", "requested version for signing is less than the minimum encryption key version"), version, []int{3}},
		{"items that are text", results(func([]map[string]any) any { return []string{"a", "b", "c", "d"} }), passes, everybody},
		{"a page", plain("<html>"), passes, everybody},
		{"half an answer", plain(`{"data":{"batch_results":[{"signature":"vault:v1:MEUC`), passes, everybody},
		{"no data", plain(`{"data":null}`), passes, everybody},
	} {
		t.Run(test.name, func(t *testing.T) {
			errs := c.sign(n, func(int) context.Context { return attemptTwice(t) }, test.do)
			// Who waits where is not known here: the order of the callers is
			// that of the batch, but not that of their numbers.
			failed := 0
			for _, err := range errs {
				if err == nil {
					continue
				}
				failed++
				for _, kind := range []error{self, version, passes, keys.ErrBackendDenied} {
					if errors.Is(err, kind) != (kind == test.want) {
						t.Errorf("got %v, want %v", err, test.want)
					}
				}
			}
			if failed != len(test.whom) {
				t.Errorf("%d of %d failed, want %d: %v", failed, n, len(test.whom), errors.Join(errs...))
			}
		})
	}
}

// attemptTwice outlasts a second attempt.
func attemptTwice(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestVaultBatchFaults: a batch rides out, or fails, as a lone call does, and
// everybody in it.
func TestVaultBatchFaults(t *testing.T) {
	var logins atomic.Int64
	server, m, v := openMiddle(t, func(c *keys.VaultConfig) {
		c.Observe = func(op string, _ time.Duration, _ error) {
			if op == "login" {
				logins.Add(1)
			}
		}
	})
	c := newCompany(t, m, v, 1)
	const n = 20
	fine := func(t testing.TB, err error) { t.Helper(); check(t, err) }
	// pass sends an exchange on, after something was done once.
	once := func(do func()) (func(http.ResponseWriter, *http.Request, http.Handler), *atomic.Int64) {
		var attempts atomic.Int64
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if attempts.Add(1) == 1 {
				do()
			}
			next.ServeHTTP(w, r)
		}, &attempts
	}
	soon := func(int) context.Context { return shortly(t) }
	later := func(int) context.Context { return attemptTwice(t) }

	t.Run("connection reset before, after, and in the middle of the answer", func(t *testing.T) {
		var attempts atomic.Int64
		errs := c.sign(n, c.each, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch attempts.Add(1) {
			case 1:
				reset(w)
			case 2:
				next.ServeHTTP(&recorder{}, r)
				reset(w)
			case 3:
				var got recorder
				next.ServeHTTP(&got, r)
				w.Header().Set("Content-Length", fmt.Sprint(got.body.Len()))
				w.Write(got.body.Bytes()[:got.body.Len()/2])
				w.(http.Flusher).Flush()
				reset(w)
			default:
				next.ServeHTTP(w, r)
			}
		})
		wantAll(t, errs, fine)
		if attempts.Load() != 4 {
			t.Errorf("%d attempts", attempts.Load())
		}
		wantAll(t, c.sign(n, soon, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { reset(w) }), wantUnavailable)
	})

	t.Run("sealed", func(t *testing.T) {
		do, attempts := once(server.Seal)
		done := make(chan struct{})
		go func() {
			defer close(done)
			check(t, keystest.Poll(patience, func() bool { return attempts.Load() > 1 }))
			server.Unseal()
		}()
		wantAll(t, c.sign(n, c.each, do), fine)
		<-done
		do, _ = once(server.Seal)
		wantAll(t, c.sign(n, soon, do), wantUnavailable)
		server.Unseal()
		recovers(t, v)
	})

	for _, says := range []bool{true, false} {
		t.Run(fmt.Sprintf("over quota, and Vault says when to come back: %t", says), func(t *testing.T) {
			server.Write("sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": says})
			do, _ := once(func() {
				server.Write("sys/quotas/rate-limit/sign", map[string]any{"path": "transit/", "rate": 1, "interval": "10s"})
				_, _ = server.Root().Logical().Write("transit/random/1", nil) // uses it up
			})
			wantAll(t, c.sign(n, later, do), func(t testing.TB, err error) {
				wantUnavailable(t, err)
				var unavailable *keys.UnavailableError
				if !errors.As(err, &unavailable) || (unavailable.Wait > 0) != says {
					t.Errorf("time to wait in %v", err)
				}
			})
			_, err := server.Root().Logical().Delete("sys/quotas/rate-limit/sign")
			check(t, err)
			recovers(t, v)
		})
	}

	t.Run("permission taken away", func(t *testing.T) {
		do, attempts := once(func() { server.WritePolicy(keystest.PolicySignProvenance, `path "x" { capabilities = ["read"] }`) })
		wantAll(t, c.sign(n, c.each, do), wantDenied)
		if attempts.Load() != 1 {
			t.Errorf("%d attempts at what is denied", attempts.Load())
		}
		server.WritePolicy(keystest.PolicySignProvenance, keystest.ShippedPolicy(t, keystest.PolicySignProvenance))
		wantAll(t, c.sign(n, c.each, nil), fine)
	})

	t.Run("token revoked", func(t *testing.T) {
		before := logins.Load()
		do, attempts := once(func() {
			server.Write("sys/leases/revoke-prefix/auth/approle/login", map[string]any{"sync": true})
		})
		wantAll(t, c.sign(n, c.each, do), fine)
		if attempts.Load() != 2 || logins.Load() != before {
			t.Errorf("%d attempts, %d logins beside them", attempts.Load(), logins.Load()-before)
		}
	})

	t.Run("slow, and some leave", func(t *testing.T) {
		release := make(chan struct{})
		var ended atomic.Bool
		do := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			select {
			case <-release:
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
				ended.Store(true)
			}
		}
		var left atomic.Int64
		errs := c.sign(n, func(i int) context.Context {
			if i%2 == 0 {
				return t.Context()
			}
			ctx := shortly(t)
			context.AfterFunc(ctx, func() {
				if left.Add(1) == n/2 {
					time.AfterFunc(100*time.Millisecond, func() { close(release) })
				}
			})
			return ctx
		}, do)
		for i, err := range errs {
			switch {
			case i%2 == 0:
				check(t, err)
			case !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("left, with %v", err)
			default:
				wantUnavailable(t, err)
			}
		}
		if ended.Load() {
			t.Error("those who left took the request along")
		}
		// When all have left nobody keeps Vault busy.
		release = make(chan struct{})
		wantAll(t, c.sign(n, func(int) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(300*time.Millisecond, cancel)
			return ctx
		}, do), wantUnavailable)
		check(t, keystest.Poll(patience, ended.Load))
		recovers(t, v)
	})

	t.Run("too many wait", func(t *testing.T) {
		release := make(chan struct{})
		m.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			<-release
			next.ServeHTTP(w, r)
		})
		var wg sync.WaitGroup
		var busy, signed atomic.Int64
		const callers = 1 + 64 + 4096 + 100
		for range callers {
			wg.Go(func() {
				_, err := v.Sign(t.Context(), "provenance", 1, make([]byte, 32))
				var b *attest.BusyError
				switch {
				case err == nil:
					signed.Add(1)
				case errors.As(err, &b) && errors.Is(err, attest.ErrUnavailable):
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		check(t, keystest.Poll(patience, func() bool { return busy.Load() > 0 }))
		close(release)
		m.clear()
		wg.Wait()
		if busy.Load() < 1 || signed.Load() < 4096 {
			t.Errorf("%d signed, %d sent away", signed.Load(), busy.Load())
		}
	})

	newest := func() *company { return newCompany(t, m, v, 2) }
	t.Run("key trimmed", func(t *testing.T) {
		do, attempts := once(func() {
			server.Write("transit/keys/provost-provenance/rotate", nil)
			server.Write("transit/keys/provost-provenance/config", map[string]any{"min_encryption_version": 2, "min_decryption_version": 2})
			server.Write("transit/keys/provost-provenance/trim", map[string]any{"min_available_version": 2})
		})
		wantAll(t, c.sign(n, c.each, do), func(t testing.TB, err error) {
			if !errors.Is(err, keys.ErrVersion) || errors.Is(err, attest.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
		if attempts.Load() != 1 {
			t.Errorf("%d attempts with a trimmed version", attempts.Load())
		}
		c = newest()
		wantAll(t, c.sign(n, c.each, nil), fine)
	})

	t.Run("mount gone", func(t *testing.T) {
		refused := func(t testing.TB, err error) {
			t.Helper()
			if err == nil || errors.Is(err, attest.ErrInvalid) || errors.Is(err, attest.ErrNotFound) {
				t.Errorf("got %v", err)
			}
		}
		do, _ := once(func() { check(t, server.Root().Sys().Unmount("transit")) })
		wantAll(t, c.sign(n, later, do), refused)
		wantAll(t, c.sign(n, later, nil), refused)
		server.Write("sys/mounts/transit", map[string]any{"type": "transit"})
		wantAll(t, c.sign(n, later, nil), func(t testing.TB, err error) { // enabled again, it has no keys
			if !errors.Is(err, attest.ErrNotFound) {
				t.Errorf("got %v", err)
			}
		})
		check(t, openVault(t, server.Config(keystest.PolicyInit)).Create(t.Context(), "provenance"))
		c = newCompany(t, m, v, 1) // another key
		wantAll(t, c.sign(n, c.each, nil), fine)
	})
}

// TestVaultTokenExpiresUnderLoad signs with many callers all through the ends
// of several leases at their maximum.
func TestVaultTokenExpiresUnderLoad(t *testing.T) {
	server := vaultWithKeys(t)
	v := openVault(t, keys.VaultConfig{Address: server.Address(),
		AppRole: server.AppRole("short", time.Second, keystest.PolicySignProvenance, keystest.PolicyToken)})
	var wg sync.WaitGroup
	end := time.Now().Add(3500 * time.Millisecond)
	for range 32 {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := signVault(t, v); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
