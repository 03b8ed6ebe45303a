// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"provost/attest"
)

var limits = Limits{Most: 8, Runs: 1, Waiting: 16, Linger: time.Second}

// bubble runs a test in which time stands still unless all wait for it, and
// then lets every linger end.
func bubble(t *testing.T, test func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		test(t)
		time.Sleep(time.Hour)
	})
}

// double answers each call with twice what it asked.
func double(_ context.Context, ins []int) []Result[int] {
	results := make([]Result[int], len(ins))
	for i, in := range ins {
		results[i].Out = 2 * in
	}
	return results
}

// A gate records the runs and holds each until it is opened.
type gate struct {
	mu   sync.Mutex
	runs [][]int
	open chan struct{}
}

func (g *gate) do(ctx context.Context, ins []int) []Result[int] {
	g.mu.Lock()
	g.runs = append(g.runs, slices.Clone(ins))
	g.mu.Unlock()
	select {
	case <-g.open:
	case <-ctx.Done():
		return make([]Result[int], len(ins))
	}
	return double(ctx, ins)
}

// calls makes one call after the other, each when the one before it waits.
func calls(t *testing.T, g *Gatherer[int, int], ins ...int) (wait func()) {
	var wg sync.WaitGroup
	for _, in := range ins {
		wg.Go(func() {
			if out, err := g.Call(t.Context(), in); err != nil || out != 2*in {
				t.Errorf("call %d: got %d, %v: want %d", in, out, err, 2*in)
			}
		})
		synctest.Wait()
	}
	return wg.Wait
}

func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var gate gate
		gate.open = make(chan struct{})
		g := New("test", limits, gate.do)
		wait := calls(t, g, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		close(gate.open)
		wait()
		want := [][]int{{0}, {1, 2, 3, 4, 5, 6, 7, 8}, {9, 10}} // the first is alone, the rest at most 8
		if !slices.EqualFunc(gate.runs, want, slices.Equal) {
			t.Errorf("got runs %v: want %v", gate.runs, want)
		}
	})
}

func TestResultEach(t *testing.T) {
	odd := errors.New("odd")
	g := New("test", Limits{Most: 7, Runs: 3, Waiting: 1000, Linger: time.Millisecond}, func(ctx context.Context, ins []int) []Result[int] {
		results := double(ctx, ins)
		for i, in := range ins {
			if in%2 == 1 {
				results[i] = Result[int]{Err: odd}
			}
		}
		return results
	})
	var wg sync.WaitGroup
	for in := range 500 {
		wg.Go(func() {
			out, err := g.Call(t.Context(), in)
			switch {
			case in%2 == 1 && !errors.Is(err, odd):
				t.Errorf("call %d: got %d, %v: want its own error", in, out, err)
			case in%2 == 0 && (err != nil || out != 2*in):
				t.Errorf("call %d: got %d, %v: want %d", in, out, err, 2*in)
			}
		})
	}
	wg.Wait()
}

func TestLinger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var gate gate
		gate.open = make(chan struct{})
		g := New("test", limits, gate.do)
		took := func(ins ...int) time.Duration {
			t.Helper()
			start := time.Now()
			calls(t, g, ins...)()
			return time.Since(start)
		}
		wait := calls(t, g, 1, 2, 3, 4)
		start := time.Now()
		close(gate.open)
		wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("who waits already lingered for %s", d)
		}
		time.Sleep(time.Hour)
		if d := took(5); d != limits.Linger {
			t.Errorf("alone after a run of three: took %s: want the linger", d)
		}
		for range 3 {
			if d := took(6); d != 0 {
				t.Errorf("alone after a lone run: took %s: want nothing", d)
			}
		}
		if want := [][]int{{1}, {2, 3, 4}, {5}, {6}, {6}, {6}}; !slices.EqualFunc(gate.runs, want, slices.Equal) {
			t.Errorf("got runs %v: want %v", gate.runs, want)
		}
	})
	bubble(t, func(t *testing.T) {
		var gate gate
		gate.open = make(chan struct{})
		g := New("test", limits, gate.do)
		wait := calls(t, g, 1, 2, 3, 4)
		close(gate.open)
		wait()
		start := time.Now()
		wait = calls(t, g, 5, 6) // linger, for a third
		if time.Sleep(limits.Linger / 2); len(gate.runs) != 2 {
			t.Errorf("got runs %v: want the third to linger", gate.runs)
		}
		calls(t, g, 7)()
		wait()
		if d := time.Since(start); d != limits.Linger/2 {
			t.Errorf("took %s: want it to end when as many are there as before", d)
		}
		if want := []int{5, 6, 7}; !slices.Equal(gate.runs[2], want) {
			t.Errorf("got run %v: want %v", gate.runs[2], want)
		}
	})
}

func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var gate gate
		gate.open = make(chan struct{})
		g := New("test", limits, gate.do)
		wait := calls(t, g, 1)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := g.Call(ctx, 2)
			left <- err
		}()
		synctest.Wait()
		waitMore := calls(t, g, 3)
		cancel()
		if err := <-left; !errors.Is(err, attest.ErrUnavailable) || !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "unavailable: test: ") {
			t.Errorf("left while waiting: got %v", err)
		}
		close(gate.open)
		wait()
		waitMore()
		if want := [][]int{{1}, {3}}; !slices.EqualFunc(gate.runs, want, slices.Equal) {
			t.Errorf("got runs %v: want %v, without who left", gate.runs, want)
		}
		if _, err := g.Call(ctx, 4); !errors.Is(err, attest.ErrUnavailable) || len(gate.runs) != 2 {
			t.Errorf("came with a done context: got %v and runs %v", err, gate.runs)
		}
	})
}

// TestLastLeaves: the context of a run ends when all have left, and not
// before; it carries none of their values.
func TestLastLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		type key struct{}
		begin, end := make(chan context.Context), make(chan struct{})
		g := New("test", Limits{Most: 8, Runs: 1, Waiting: 16}, func(ctx context.Context, ins []int) []Result[int] {
			begin <- ctx
			<-end
			return double(ctx, ins)
		})
		wait := calls(t, g, 1)
		left := make(chan error, 2)
		var leave []context.CancelFunc
		for range 2 {
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
			leave = append(leave, cancel)
			go func() {
				_, err := g.Call(ctx, 2)
				left <- err
			}()
		}
		synctest.Wait()
		<-begin
		end <- struct{}{}
		wait()
		ctx := <-begin // the run of the two
		for i, cancel := range leave {
			if ctx.Err() != nil {
				t.Errorf("the run was cancelled when %d of 2 had left", i)
			}
			cancel()
			if err := <-left; !errors.Is(err, attest.ErrUnavailable) {
				t.Errorf("left a run: got %v", err)
			}
			synctest.Wait()
		}
		if ctx.Err() == nil || ctx.Value(key{}) != nil {
			t.Errorf("all have left: got %v, value %v: want it cancelled, without values", ctx.Err(), ctx.Value(key{}))
		}
		end <- struct{}{}
		wait = calls(t, g, 3) // it goes on
		if ctx := <-begin; ctx.Err() != nil {
			t.Errorf("the next run: %v", ctx.Err())
		}
		end <- struct{}{}
		wait()
	})
}

func TestBusy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var gate gate
		gate.open = make(chan struct{})
		g := New("test", Limits{Most: 8, Runs: 1, Waiting: 3}, gate.do)
		wait := calls(t, g, 1, 2, 3, 4)
		_, err := g.Call(t.Context(), 5)
		var busy *attest.BusyError
		if !errors.As(err, &busy) || busy.What != "test" || !errors.Is(err, attest.ErrUnavailable) {
			t.Errorf("got %v: want a BusyError", err)
		}
		close(gate.open)
		wait()
		calls(t, g, 6)()
		if want := [][]int{{1}, {2, 3, 4}, {6}}; !slices.EqualFunc(gate.runs, want, slices.Equal) {
			t.Errorf("got runs %v: want %v", gate.runs, want)
		}
	})
}

func TestRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var gate gate
		gate.open = make(chan struct{})
		g := New("test", Limits{Most: 2, Runs: 2, Waiting: 16}, gate.do)
		var waits []func()
		for in := 1; in <= 6; in++ {
			waits = append(waits, calls(t, g, in))
			if want := []int{1, 1, 2, 2, 2, 2}[in-1]; len(gate.runs) != want {
				t.Errorf("after %d calls there are runs %v: want %d", in, gate.runs, want)
			}
		}
		gate.open <- struct{}{} // one of the two runs ends
		synctest.Wait()
		if want := [][]int{{1}, {2, 3}, {4, 5}}; !slices.EqualFunc(gate.runs, want, slices.Equal) {
			t.Errorf("got runs %v: want %v", gate.runs, want)
		}
		gate.open <- struct{}{}
		synctest.Wait()
		if len(gate.runs) != 3 {
			t.Errorf("got runs %v: want no second run with less than the most", gate.runs)
		}
		close(gate.open)
		for _, wait := range waits {
			wait()
		}
		if want := []int{6}; !slices.Equal(gate.runs[len(gate.runs)-1], want) {
			t.Errorf("got runs %v: want %v at last", gate.runs, want)
		}
	})
}

func TestWrongNumber(t *testing.T) {
	for name, wrong := range map[string]func([]Result[int]) []Result[int]{
		"none":     func([]Result[int]) []Result[int] { return nil },
		"one less": func(r []Result[int]) []Result[int] { return r[1:] },
		"one more": func(r []Result[int]) []Result[int] { return append(r, Result[int]{}) },
	} {
		g := New("test", limits, func(ctx context.Context, ins []int) []Result[int] { return wrong(double(ctx, ins)) })
		var wg sync.WaitGroup
		for in := range 5 {
			wg.Go(func() {
				if out, err := g.Call(t.Context(), in); err == nil || out != 0 || !strings.Contains(err.Error(), "results for") {
					t.Errorf("%s: got %d, %v: want an error", name, out, err)
				}
			})
		}
		wg.Wait()
	}
}

// A member is a request in a crowd.
type member struct {
	ctx   context.Context
	leave func()
}

func join(t *testing.T, c *attest.Crowd, n int) []member {
	members := make([]member, n)
	for i := range members {
		members[i].ctx, members[i].leave = c.Join(t.Context())
	}
	return members
}

// A run waits as long as others of the crowd move, and no longer.
func TestLingerInACrowd(t *testing.T) {
	const never = -1
	for name, tt := range map[string]struct {
		crowd int           // how many
		call  int           // of them, at once
		later time.Duration // when one more calls; or never
		leave time.Duration // when all the others leave; or never
		took  time.Duration // of those that call at once
		runs  []int         // how many there were in each
	}{
		"alone":                             {1, 1, never, never, 0, []int{1}},
		"all are here":                      {5, 5, never, never, 0, []int{5}},
		"one comes":                         {3, 2, time.Millisecond, never, time.Millisecond, []int{3}},
		"one leaves":                        {3, 2, never, time.Millisecond, time.Millisecond, []int{2}},
		"one stays away":                    {3, 2, never, never, crowdLinger, []int{2}},
		"one comes too late":                {3, 2, time.Second, never, crowdLinger, []int{2, 1}},
		"a large crowd stays away":          {48, 2, never, never, largeLinger, []int{2}},
		"a third of a large crowd, and one": {48, 16, time.Millisecond, 2 * time.Millisecond, 2 * time.Millisecond, []int{17}},
		"as many as fit":                    {200, 64, never, never, 0, []int{64}},
	} {
		bubble(t, func(t *testing.T) {
			var runs []int
			g := New("test", Limits{Most: 64, Runs: 1, Waiting: 400}, func(ctx context.Context, ins []int) []Result[int] {
				runs = append(runs, len(ins))
				return double(ctx, ins)
			})
			var crowd attest.Crowd
			members := join(t, &crowd, tt.crowd)
			call := func(m member, in int) {
				defer m.leave()
				if out, err := g.Call(m.ctx, in); err != nil || out != 2*in {
					t.Errorf("%s: %d, %v", name, out, err)
				}
			}
			start := time.Now()
			var now, later sync.WaitGroup
			for i, m := range members[:tt.call] {
				now.Go(func() { call(m, i) })
			}
			rest := members[tt.call:]
			if tt.later != never {
				m := rest[0]
				rest = rest[1:]
				later.Go(func() {
					time.Sleep(tt.later)
					call(m, 1000)
				})
			}
			if tt.leave != never {
				later.Go(func() {
					time.Sleep(tt.leave)
					for _, m := range rest {
						m.leave()
					}
				})
			}
			now.Wait()
			if took := time.Since(start); took != tt.took {
				t.Errorf("%s: took %s, want %s", name, took, tt.took)
			}
			later.Wait()
			if !slices.Equal(runs, tt.runs) {
				t.Errorf("%s: runs of %v, want %v", name, runs, tt.runs)
			}
		})
	}
}

// Who got an answer, or left a queue, moves again until it leaves the crowd; a
// crowd that all have left is still and empty.
func TestCrowdIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gate := gate{open: make(chan struct{})}
		g := New("test", limits, gate.do)
		var crowd attest.Crowd
		members := join(t, &crowd, 3)
		counted := func(what string, size int, still bool) {
			t.Helper()
			if synctest.Wait(); crowd.Size() != size || crowd.Still() != still {
				t.Errorf("%s: size %d, still %t: want %d, %t", what, crowd.Size(), crowd.Still(), size, still)
			}
		}
		counted("three move", 3, false)
		ctx, cancel := context.WithCancel(members[2].ctx)
		var wg sync.WaitGroup
		wg.Go(func() { g.Call(members[0].ctx, 1) })
		wg.Go(func() { g.Call(members[1].ctx, 2) })
		counted("one moves", 3, false)
		wg.Go(func() { g.Call(ctx, 3) })
		counted("all wait", 3, true)
		cancel()
		counted("one has left the queue", 3, false)
		away, back := attest.Away(members[2].ctx)
		counted("it waits for somebody outside", 2, true)
		if attest.CrowdOf(away) != nil {
			t.Error("who is away is in the crowd")
		}
		back()
		counted("it is back", 3, false)
		members[2].leave()
		counted("and the crowd", 2, true)
		close(gate.open)
		wg.Wait()
		counted("all have answers", 2, false)
		members[0].leave()
		members[1].leave()
		counted("nobody", 0, true)
		if _, err := g.Call(ctx, 4); err == nil {
			t.Error("called with a done context")
		}
		counted("a call that was none", 0, true)
	})
}

// Whoever waits behind a run that has stalled is relieved: also who came after
// another that has left, and who was left over by runs that were full.
func TestRelief(t *testing.T) {
	hung := func(release chan struct{}, runs int) *Gatherer[int, int] {
		var n atomic.Int32
		return New("test", Limits{Most: 4, Runs: 2, Waiting: 100}, func(ctx context.Context, ins []int) []Result[int] {
			if int(n.Add(1)) <= runs {
				<-release
			}
			return double(ctx, ins)
		})
	}
	relieved := func(t *testing.T, call func()) {
		t.Helper()
		start := time.Now()
		call()
		if took := time.Since(start); took > 2*patience {
			t.Errorf("relieved after %s", took)
		}
	}
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		g := hung(release, 1)
		wait := calls(t, g, 1)
		ctx, leave := context.WithCancel(t.Context())
		go g.Call(ctx, 2)
		time.Sleep(10 * time.Millisecond)
		late := calls(t, g, 3)
		leave()
		relieved(t, late)
		close(release)
		wait()
	})
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		g := hung(release, 1)
		wait := calls(t, g, 1, 2, 3, 4, 5, 6, 7) // one hangs, four are a run beside it, two are left over
		time.Sleep(2 * patience)
		if n := len(g.waiting); n != 0 {
			t.Errorf("%d still wait", n)
		}
		close(release)
		wait()
	})
}

// TestManyCallers has callers come and leave at any moment.
func TestManyCallers(t *testing.T) {
	before := runtime.NumGoroutine()
	g := New("test", Limits{Most: 5, Runs: 2, Waiting: 20, Linger: 50 * time.Microsecond}, func(ctx context.Context, ins []int) []Result[int] {
		if len(ins) == 0 || len(ins) > 5 {
			t.Errorf("a run of %d", len(ins))
		}
		time.Sleep(20 * time.Microsecond)
		return double(ctx, ins)
	})
	var wg sync.WaitGroup
	for caller := range 40 {
		wg.Go(func() {
			for i := range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(caller*i)%200)*time.Microsecond)
				if out, err := g.Call(ctx, i); err == nil && out != 2*i || err != nil && !errors.Is(err, attest.ErrUnavailable) {
					t.Errorf("got %d, %v", out, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	idle := func() bool { // the last runner may linger
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.running == 0 && len(g.waiting) == 0 && runtime.NumGoroutine() <= before
	}
	for i := 0; !idle(); i++ {
		if i == 5000 {
			t.Fatalf("runs, calls or goroutines are left: %d goroutines more", runtime.NumGoroutine()-before)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStalledRun: a run that hangs holds up whoever may run beside it for a
// moment, and no longer.
func TestStalledRun(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	g := New("test", Limits{Most: 64, Runs: 2, Waiting: 100}, func(ctx context.Context, ins []int) []Result[int] {
		if ins[0] < 0 {
			<-hang
		}
		return double(ctx, ins)
	})
	go func() { _, _ = g.Call(context.Background(), -1) }()
	for range 1000 { // until the one that hangs is running
		g.mu.Lock()
		running := g.running == 1 && len(g.waiting) == 0
		g.mu.Unlock()
		if running {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for in := range 10 {
		wg.Go(func() {
			if out, err := g.Call(ctx, in); err != nil || out != 2*in {
				t.Errorf("got %d, %v", out, err)
			}
		})
	}
	wg.Wait()
}
