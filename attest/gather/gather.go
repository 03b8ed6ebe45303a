// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package gather lets concurrent callers share one act: one request, one
// transaction, one batch. Each calls as if it were alone, and gets its own
// answer.
//
// Invariants:
//
//   - A lone caller waits for nobody. Only when others are known to be about, or
//     the run before had company, does a run wait for more, and then for at
//     most the configured linger.
//   - Calls are handed over in the order in which they came.
//   - A caller that leaves takes nobody along: what it asked for may still be
//     done, and the others get their answers.
//   - The queue is bounded. Who does not fit is told to come back.
package gather

import (
	"context"
	"fmt"
	"sync"
	"time"

	"provost/attest"
)

// Limits bound a [Gatherer]. Every field must be positive, but Linger.
type Limits struct {
	Most    int           // calls in one run
	Runs    int           // runs at once; the second and later begin only with Most calls, or when one has waited long
	Waiting int           // calls that wait for a run
	Linger  time.Duration // the longest a run waits for company
	// Company is how many callers there are in all, some of whom may come soon:
	// a run waits for three in four of them. It must be quick. nil when nobody
	// knows: then a run waits for as many as the run before it had.
	Company func() int
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
	arrived chan struct{} // tells a run that lingers of a call
}

// patience is how long calls wait for a run before, where others may run beside
// it, they are not held up by it any longer: it may have stalled.
const patience = 250 * time.Millisecond

type call[In, Out any] struct {
	in    In
	since time.Time
	done  chan struct{} // closed when result is there
	Result[Out]
	left chan struct{} // closed when the caller has left
}

// New makes a gatherer of what do does. do must return one result for each
// call, in their order. Its context ends when all callers of that run have
// left; it carries none of their values. what names the act in errors.
func New[In, Out any](what string, lim Limits, do func(context.Context, []In) []Result[Out]) *Gatherer[In, Out] {
	return &Gatherer[In, Out]{what: what, do: do, lim: lim, arrived: make(chan struct{}, 1)}
}

// Call has the act done for in. It returns when that is done or ctx has ended;
// in the second case with an [attest.ErrUnavailable], and the act may be done
// nevertheless. When too many wait it is an [attest.BusyError].
func (g *Gatherer[In, Out]) Call(ctx context.Context, in In) (Out, error) {
	var none Out
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("%w: %s: %w", attest.ErrUnavailable, g.what, err)
	}
	c := &call[In, Out]{in: in, since: time.Now(), done: make(chan struct{}), left: make(chan struct{})}
	if !g.enqueue(c) {
		return none, &attest.BusyError{What: g.what}
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

func (g *Gatherer[In, Out]) enqueue(c *call[In, Out]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) >= g.lim.Waiting {
		return false
	}
	g.waiting = append(g.waiting, c)
	switch {
	case g.running == 0 || g.running < g.lim.Runs && len(g.waiting) >= g.lim.Most:
		g.running++
		go g.run()
	case g.lim.Runs > 1 && len(g.waiting) == 1: // the first to wait sees to it that it does not wait for ever
		time.AfterFunc(patience, g.relieve)
	}
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	return true
}

// relieve begins another run if the one under way has stalled.
func (g *Gatherer[In, Out]) relieve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 && g.running > 0 && g.running < g.lim.Runs && time.Since(g.waiting[0].since) >= patience {
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

// linger waits until as many calls wait as are expected, but not long.
func (g *Gatherer[In, Out]) linger() {
	if g.lim.Linger <= 0 {
		return
	}
	var timer <-chan time.Time
	for {
		g.mu.Lock()
		enough := g.running > 1 || len(g.waiting) >= g.expected()
		g.mu.Unlock()
		if enough {
			return
		}
		if timer == nil {
			timer = time.After(g.lim.Linger)
		}
		select {
		case <-g.arrived:
		case <-timer:
			return
		}
	}
}

// expected is how many calls are worth waiting for. The caller holds the lock.
func (g *Gatherer[In, Out]) expected() int {
	if g.lim.Company == nil {
		return min(g.last, g.lim.Most)
	}
	return min(g.lim.Company()*3/4, g.lim.Most)
}

// take returns the calls of the next run; nil ends the runner.
func (g *Gatherer[In, Out]) take() []*call[In, Out] {
	g.mu.Lock()
	defer g.mu.Unlock()
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
		close(c.done)
	}
}
