// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package gather lets concurrent callers share one act: one request, one
// transaction, one batch. Each calls as if it were alone, and gets its own
// answer.
//
// Invariants:
//
//   - A lone caller waits for nobody. A run waits for more, and not long, only
//     while others of a crowd move and may come ([attest.Crowd]), or the crowd
//     is large; or, where callers are in no crowd, when the run before had
//     company.
//   - Calls are handed over in the order in which they came.
//   - A caller that leaves takes nobody along: what it asked for may still be
//     done, and the others get their answers.
//   - The queue is bounded. Who does not fit is told to come back.
package gather

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"provost/attest"
)

// Limits bound a [Gatherer]. Every field must be positive, but Linger.
type Limits struct {
	Most    int           // calls in one run
	Runs    int           // runs at once; the second and later begin only with Most calls, or when one has waited long
	Waiting int           // calls that wait for a run
	Linger  time.Duration // the longest a run waits for as many callers as the run before had; of a crowd, see below
}

// A Result is the answer to one call.
type Result[Out any] struct {
	Out Out
	Err error
}

// A Gatherer hands concurrent calls over to one function, together. It is safe
// for concurrent use.
type Gatherer[In, Out any] struct {
	what string
	do   func(context.Context, []In) []Result[Out]
	lim  Limits

	mu      sync.Mutex
	waiting []*call[In, Out]
	running int
	last    int           // how many calls the last run had
	watched bool          // whether relieve will be called
	crowd   *attest.Crowd // of the last call
	news    chan struct{} // tells a run that lingers of a call, and of a crowd that is still
}

// patience is how long calls wait for a run before, where others may run beside
// it, they are not held up by it any longer: it may have stalled.
const patience = 250 * time.Millisecond

// How long a run waits for others of a crowd: as long as somebody moves, but
// not longer than about what a request takes alone. In a large crowd everybody
// waits for somebody at any time, and fewer runs leave more for all: there it
// waits for a third of them. Measured: docs/PERFORMANCE.md.
const (
	crowdLinger = 8 * time.Millisecond
	largeCrowd  = 32
	largeShare  = 3 // one in so many
	largeLinger = 30 * time.Millisecond
)

type call[In, Out any] struct {
	in    In
	crowd *attest.Crowd // nil for none
	moves atomic.Bool   // whether the crowd knows that it waits no more
	since time.Time
	done  chan struct{} // closed when result is there
	Result[Out]
	left chan struct{} // closed when the caller has left
}

// New makes a gatherer of what do does. do must return one result for each
// call, in their order. Its context ends when all callers of that run have
// left; it carries none of their values. what names the act in errors.
func New[In, Out any](what string, lim Limits, do func(context.Context, []In) []Result[Out]) *Gatherer[In, Out] {
	return &Gatherer[In, Out]{what: what, do: do, lim: lim, news: make(chan struct{}, 1)}
}

// Call has the act done for in. It returns when that is done or ctx has ended;
// in the second case with an [attest.ErrUnavailable], and the act may be done
// nevertheless. When too many wait it is an [attest.BusyError].
func (g *Gatherer[In, Out]) Call(ctx context.Context, in In) (Out, error) {
	var none Out
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("%w: %s: %w", attest.ErrUnavailable, g.what, err)
	}
	c := &call[In, Out]{in: in, crowd: attest.CrowdOf(ctx), since: time.Now(), done: make(chan struct{}), left: make(chan struct{})}
	if !g.enqueue(c) {
		return none, &attest.BusyError{What: g.what}
	}
	if c.crowd != nil {
		c.crowd.Waits()
		defer c.move()
	}
	select {
	case <-c.done:
		return c.Out, c.Err
	case <-ctx.Done():
		close(c.left)
		g.forget(c)
		return none, fmt.Errorf("%w: %s: %w", attest.ErrUnavailable, g.what, ctx.Err())
	}
}

// move tells the crowd, once, that the caller waits no more.
func (c *call[In, Out]) move() {
	if c.crowd != nil && c.moves.CompareAndSwap(false, true) {
		c.crowd.Moves()
	}
}

func (g *Gatherer[In, Out]) enqueue(c *call[In, Out]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) >= g.lim.Waiting {
		return false
	}
	g.waiting = append(g.waiting, c)
	g.crowd = c.crowd
	switch {
	case g.running == 0 || g.running < g.lim.Runs && len(g.waiting) >= g.lim.Most:
		g.running++
		go g.run()
	}
	g.watchOver()
	select {
	case g.news <- struct{}{}:
	default:
	}
	return true
}

// watchOver sees to it that nobody waits for ever behind a run that has stalled.
// The caller holds the lock.
func (g *Gatherer[In, Out]) watchOver() {
	if g.watched || g.lim.Runs == 1 || len(g.waiting) == 0 {
		return
	}
	g.watched = true
	time.AfterFunc(max(patience-time.Since(g.waiting[0].since), patience/10), g.relieve)
}

// relieve begins another run if the one under way has stalled.
func (g *Gatherer[In, Out]) relieve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watched = false
	defer g.watchOver() // of those who came later
	if len(g.waiting) == 0 {
		return
	}
	if g.running > 0 && g.running < g.lim.Runs && time.Since(g.waiting[0].since) >= patience {
		g.running++
		go g.run()
	}
}

// forget takes a call out of the queue, unless a run has it.
func (g *Gatherer[In, Out]) forget(c *call[In, Out]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range g.waiting {
		if w == c {
			g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
			return
		}
	}
}

// run does what waits until nothing does.
func (g *Gatherer[In, Out]) run() {
	for {
		g.linger()
		batch := g.take()
		if batch == nil {
			return
		}
		g.answer(batch)
	}
}

// linger waits until nobody else is expected, but not long.
func (g *Gatherer[In, Out]) linger() {
	var timer <-chan time.Time
	var watched *attest.Crowd
	for {
		g.mu.Lock()
		crowd := g.crowd
		g.mu.Unlock()
		if crowd != nil && crowd != watched { // before it is asked: what changes later is news
			watched = crowd
			defer crowd.Watch(g.news)()
		}
		longest := g.worthwhile(crowd)
		if longest <= 0 {
			return
		}
		if timer == nil {
			timer = time.After(longest)
		}
		select {
		case <-g.news:
		case <-timer:
			return
		}
	}
}

// worthwhile is how long to wait at most, in all, for more calls; 0 when those
// that wait are enough.
func (g *Gatherer[In, Out]) worthwhile(crowd *attest.Crowd) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.waiting)
	switch {
	case g.running > 1 || n >= g.lim.Most:
		return 0
	case crowd == nil:
		if n >= g.last {
			return 0
		}
		return g.lim.Linger
	}
	size := crowd.Size()
	switch {
	case n >= size:
		return 0
	case size < largeCrowd && crowd.Still():
		return 0
	case size < largeCrowd:
		return crowdLinger
	case n*largeShare >= size && crowd.Still():
		return 0
	default:
		return largeLinger
	}
}

// take returns the calls of the next run; nil ends the runner.
func (g *Gatherer[In, Out]) take() []*call[In, Out] {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.watchOver()
	n := min(len(g.waiting), g.lim.Most)
	if n == 0 || n < g.lim.Most && g.running > 1 && time.Since(g.waiting[0].since) < patience { // the other one takes what waits
		g.running--
		return nil
	}
	g.last = n
	batch := g.waiting[:n:n]
	g.waiting = append([]*call[In, Out](nil), g.waiting[n:]...)
	return batch
}

// answer does the act for a batch and gives each caller its result.
func (g *Gatherer[In, Out]) answer(batch []*call[In, Out]) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	go func() { // cancels when the last caller has left
		for _, c := range batch {
			select {
			case <-c.left:
			case <-ended:
				return
			}
		}
		cancel()
	}()
	ins := make([]In, len(batch))
	for i, c := range batch {
		ins[i] = c.in
	}
	results := g.do(ctx, ins)
	close(ended)
	for i, c := range batch {
		if len(results) == len(batch) {
			c.Result = results[i]
		} else { // closed: nobody can tell whose answer is whose
			c.Err = fmt.Errorf("%s: %d results for %d calls", g.what, len(results), len(batch))
		}
		c.move() // at once: who has an answer may come again
		close(c.done)
	}
}
