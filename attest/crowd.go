// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Crowd is the requests that are being signed at the same time. Whoever does
// something for several of them together sees by it whether more may come soon:
// some move, between one thing that is done for them and the next; the others
// wait. Its zero value is ready, and safe for concurrent use.
type Crowd struct {
	size, moving atomic.Int64

	mu       sync.Mutex
	watchers map[chan<- struct{}]struct{}
}

type crowdKey struct{}

// CrowdOf returns the crowd that a request has joined; nil if it is in none.
func CrowdOf(ctx context.Context) *Crowd {
	c, _ := ctx.Value(crowdKey{}).(*Crowd)
	return c
}

// Join puts a request in the crowd until it leaves. It moves.
func (c *Crowd) Join(ctx context.Context) (joined context.Context, leave func()) {
	c.size.Add(1)
	c.Moves()
	return context.WithValue(ctx, crowdKey{}, c), func() {
		c.size.Add(-1)
		c.Waits()
	}
}

// Moves says that a request which waited moves again.
func (c *Crowd) Moves() { c.moving.Add(1) }

// Waits says that a request which moved waits.
func (c *Crowd) Waits() {
	if c.moving.Add(-1) > 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers {
		select {
		case w <- struct{}{}:
		default: // it will look in any case
		}
	}
}

// Away takes a request out of its crowd while it waits for somebody outside,
// until it is back: nobody need wait for it.
func Away(ctx context.Context) (away context.Context, back func()) {
	c := CrowdOf(ctx)
	if c == nil {
		return ctx, func() {}
	}
	c.size.Add(-1)
	c.Waits()
	return context.WithValue(ctx, crowdKey{}, (*Crowd)(nil)), func() {
		c.size.Add(1)
		c.Moves()
	}
}

// Size is how many requests are in the crowd.
func (c *Crowd) Size() int { return int(c.size.Load()) }

// Still reports whether nobody moves: then nobody comes before something that
// is done for others has been done.
func (c *Crowd) Still() bool { return c.moving.Load() <= 0 }

// Watch has w, which has room for one, told whenever the crowd becomes still,
// until end is called.
func (c *Crowd) Watch(w chan<- struct{}) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watchers == nil {
		c.watchers = map[chan<- struct{}]struct{}{}
	}
	c.watchers[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, w)
	}
}
