package watch

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// clocked is a run under a clock that a test moves.
type clocked struct {
	*Run
	*Clock
	now  time.Time
	done float64
}

func newClocked(total int64) *clocked {
	r, now := &Run{}, time.Unix(1e9, 0)
	r.Progress(0, total)
	return &clocked{Run: r, Clock: NewClock(r, now), now: now}
}

// pass lets a step of time pass in which work is done at a rate.
func (c *clocked) pass(step time.Duration, rate float64) Figures {
	c.now = c.now.Add(step)
	n := rate * step.Seconds()
	c.done += n
	c.Progress(int64(c.done), c.total.Load())
	c.Run.Read(int(2 * n))
	c.Run.Wrote(int(n / 2))
	return c.Look(c.now)
}

func near(got, want, within float64) bool { return math.Abs(got-want) <= within*math.Abs(want) }

// TestLeft: work at a steady pace has its time left said after two seconds, within some
// percent, and it runs down as a clock does.
func TestLeft(t *testing.T) {
	const total, rate, step = 100e9, 1e9, 200 * time.Millisecond
	c := newClocked(total)
	for passed := step; passed < 100*time.Second; passed += step {
		f := c.pass(step, rate)
		if f.Elapsed != passed {
			t.Fatalf("%v passed, not %v", f.Elapsed, passed)
		}
		want := (100*time.Second - passed).Seconds()
		switch {
		case passed < unknown && f.Left >= 0:
			t.Errorf("after %v: %v left", passed, f.Left)
		case passed >= unknown && math.Abs(f.Left.Seconds()-want) > 0.3:
			t.Errorf("after %v: %v left, want %.1f s", passed, f.Left, want)
		}
		if passed > time.Second && (!near(f.ReadRate, 2*rate, 0.01) || !near(f.WriteRate, rate/2, 0.01)) {
			t.Errorf("after %v: read at %g, written at %g", passed, f.ReadRate, f.WriteRate)
		}
	}
	if f := c.pass(step, rate); f.Done != total || f.Left != 0 {
		t.Errorf("at the end %d of %d, %v left", f.Done, f.Total, f.Left)
	}
}

// TestLeftDoesNotJump: work in bursts, half of the time at rest, has a time left that goes
// from one second to the next by little, and is right in the middle of the run.
func TestLeftDoesNotJump(t *testing.T) {
	const total, rate, step = 600e9, 1e9, 100 * time.Millisecond
	c := newClocked(total)
	r := rand.New(rand.NewPCG(1, 2))
	var last time.Duration = -1
	for i := range 4000 { // of 6000
		burst := 0.0
		if r.IntN(2) == 0 {
			burst = 2 * rate
		}
		f := c.pass(step, burst)
		if last >= 0 && f.Elapsed > 10*time.Second {
			if jump := math.Abs((f.Left - last).Seconds()); jump > 0.04*last.Seconds() {
				t.Errorf("after %v: %v left, and before %v", f.Elapsed, f.Left, last)
			}
		}
		if last = f.Left; i > 1000 && !near(f.Left.Seconds(), 600-float64(i+1)/10, 0.25) {
			t.Errorf("after %v: %v left", f.Elapsed, f.Left)
		}
	}
}

// TestLeftFollows: where the pace halves, the time left doubles within a while; where
// nothing more is done, it grows; and a phase before the work counts for nothing.
func TestLeftFollows(t *testing.T) {
	const total, rate, step = 300e9, 1e9, 200 * time.Millisecond
	c := newClocked(total)
	for range 300 { // a minute of planning
		if f := c.pass(step, 0); f.Left >= 0 {
			t.Fatalf("nothing is done, and %v left", f.Left)
		}
	}
	var f Figures
	for range 150 { // 30 s
		f = c.pass(step, rate)
	}
	if !near(f.Left.Seconds(), 270, 0.05) {
		t.Errorf("%v left of 270 s", f.Left)
	}
	for range 300 { // a minute
		f = c.pass(step, rate/2)
	}
	if !near(f.Left.Seconds(), 480, 0.1) {
		t.Errorf("at half the pace %v left of 480 s", f.Left)
	}
	before := f.Left
	for range 300 {
		f = c.pass(step, 0)
	}
	if f.Left < 2*before {
		t.Errorf("nothing is done any more, and %v left after %v", f.Left, before)
	}
}

// TestCounts: what progress knows nothing of adds to what it tells, and nothing is done
// that was not to be done.
func TestCounts(t *testing.T) {
	r := &Run{}
	ctx := With(context.Background(), r)
	if Of(ctx) != r || Of(context.Background()) != nil {
		t.Fatal("another run")
	}
	r.Progress(10, 20)
	r.Expect(30)
	r.Did(5)
	r.Uploaded(7)
	r.Requested()
	r.Retried(Cut)
	r.Retried(Cut)
	r.Retried(Busy)
	r.Enter(Uploading)
	c := r.Counts()
	if c.Done != 22 || c.Total != 50 || c.Uploaded != 7 || c.Tries() != 3 || c.Retries[Cut] != 2 || c.Requests != 1 || c.Phase.String() != "uploading" {
		t.Errorf("%+v", c)
	}
	r.Did(1000)
	if c := r.Counts(); c.Done != c.Total {
		t.Errorf("%d of %d", c.Done, c.Total)
	}
	if len(Reasons) != len(c.Retries) || len(Phases) != int(Placing)+1 {
		t.Error("a reason or a phase has no name")
	}
}

// TestNobodyWatches: without a run, everything goes on.
func TestNobodyWatches(t *testing.T) {
	r := Of(context.Background())
	r.Enter(Writing)
	r.Progress(1, 2)
	r.Expect(1)
	r.Did(1)
	r.Read(1)
	r.Wrote(1)
	r.Uploaded(1)
	r.Requested()
	r.Retried(Failed)
	if c := r.Counts(); c != (Counts{}) {
		t.Errorf("%+v", c)
	}
}

// BenchmarkCount is what one tile costs: what is read, written and done.
func BenchmarkCount(b *testing.B) {
	r := &Run{}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Read(1 << 17)
			r.Wrote(1 << 16)
			r.Progress(1, 2)
		}
	})
}
