// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
	"provost/keys"
)

// TestInitSurvivesFailure breaks Init at every single step, both before and
// after the step took effect, and runs it again: it always completes, and what
// was completed before stays.
func TestInitSurvivesFailure(t *testing.T) {
	for _, persist := range []bool{false, true} {
		for step := range 45 {
			t.Run(fmt.Sprintf("persist=%v/step=%d", persist, step), func(t *testing.T) {
				config, store, _ := newConfig(t)
				steps, broke := 0, false
				fail := func() error {
					if steps++; steps-1 == step {
						broke = true
						return errors.New("killed")
					}
					return nil
				}
				store.fail = func(attest.Certificate) (bool, error) { return persist, fail() }
				whole := config.Backend
				config.Backend = brittle{whole.(*keys.File), persist, fail}
				var kept []*x509.Certificate
				keep := func(root *x509.Certificate, _ []byte) error {
					if err := fail(); err != nil && !persist {
						return err
					} else {
						kept = append(kept, root)
						return err
					}
				}
				if err := keys.Init(t.Context(), config, keep); (err != nil) != broke {
					t.Fatalf("broken: %v, error: %v", broke, err)
				}
				config.Backend, store.fail = whole, nil
				check(t, keys.Init(t.Context(), config, keep))
				before := store.names()
				check(t, keys.Init(t.Context(), config, keep))
				if diff := cmp.Diff(before, store.names()); diff != "" {
					t.Errorf("a third init changed something: %s", diff)
				}
				a, err := keys.Open(t.Context(), pin(t, config))
				check(t, err)
				for _, p := range attest.Powers {
					_, err := signOnce(t.Context(), a, p)
					check(t, err)
				}
				checkRootKept(t, a, kept)
			})
		}
	}
}

// checkRootKept checks that the key of the root in use was given away.
func checkRootKept(t *testing.T, a *keys.Authority, kept []*x509.Certificate) {
	t.Helper()
	trusted := trustedRoot(t, a)
	for _, root := range kept {
		if bytes.Equal(trusted.top.Raw, root.Raw) {
			return
		}
	}
	t.Error("nobody was given the key of the root in use")
}

type brittle struct {
	*keys.File
	persist bool
	fail    func() error
}

func (b brittle) Create(ctx context.Context, key string) error {
	return b.do(func() error { return b.File.Create(ctx, key) })
}

func (b brittle) Rotate(ctx context.Context, key string) error {
	return b.do(func() error { return b.File.Rotate(ctx, key) })
}

func (b brittle) Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error) {
	if err := b.fail(); err != nil {
		return nil, err
	}
	return b.File.Sign(ctx, key, version, digest)
}

func (b brittle) do(act func() error) error {
	if err := b.fail(); err != nil {
		if b.persist {
			return errors.Join(err, act())
		}
		return err
	}
	return act()
}

func TestInitByManyAtOnce(t *testing.T) {
	config, _, _ := newConfig(t)
	var mu sync.Mutex
	var kept []*x509.Certificate
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			err := keys.Init(t.Context(), config, func(root *x509.Certificate, _ []byte) error {
				mu.Lock()
				defer mu.Unlock()
				kept = append(kept, root)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	a, err := keys.Open(t.Context(), pin(t, config))
	check(t, err)
	check(t, a.Ready(t.Context()))
	checkRootKept(t, a, kept)
}
