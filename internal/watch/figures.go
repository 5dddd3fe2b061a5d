package watch

import (
	"math"
	"time"
)

// Figures are what was counted of a run, and what follows from when it was.
type Figures struct {
	Counts
	Elapsed             time.Duration
	ReadRate, WriteRate float64 // bytes a second, of the last seconds
	// Left is how long the work that is known will still take, negative for not known.
	Left time.Duration
}

// Times of the smoothing.
const (
	rateTime = 4 * time.Second // of reading and writing
	// leastTime and mostTime bound that of the speed of work: a fifth of what has passed.
	leastTime, mostTime = 4 * time.Second, 2 * time.Minute
	// leftTime is how fast the time that is left follows what is computed.
	leftTime = 5 * time.Second
	// unknown is for how long nothing is said of the time that is left.
	unknown = 2 * time.Second
)

// Clock makes figures of counts as time passes.
type Clock struct {
	run                 *Run
	begun, last         time.Time
	was                 Counts
	reads, writes, work smoothed
	left                float64 // seconds, negative for not known
}

// NewClock begins to look at a run.
func NewClock(r *Run, now time.Time) *Clock {
	return &Clock{run: r, begun: now, last: now, was: r.Counts(), left: -1}
}

// Look returns the figures of a moment; moments must not go back.
func (c *Clock) Look(now time.Time) Figures {
	counts := c.run.Counts()
	f := Figures{Counts: counts, Elapsed: now.Sub(c.begun)}
	if step := now.Sub(c.last); step > 0 {
		c.reads.add(float64(counts.Read-c.was.Read), step, rateTime)
		c.writes.add(float64(counts.Written-c.was.Written), step, rateTime)
		if c.work.weight > 0 || counts.Done > 0 { // planning is no slow work
			c.work.add(float64(max(counts.Done-c.was.Done, 0)), step, min(max(f.Elapsed/5, leastTime), mostTime))
		}
		c.follow(float64(counts.Total-counts.Done), step)
		c.last, c.was = now, counts
	}
	f.ReadRate, f.WriteRate, f.Left = c.reads.rate(), c.writes.rate(), -1
	if c.left >= 0 && f.Elapsed >= unknown && counts.Done > 0 {
		f.Left = time.Duration(min(c.left, 1e9) * float64(time.Second))
	}
	return f
}

// follow makes the time that is left less by what has passed, and brings it nearer to what
// the speed of the last time makes of the work that is left.
func (c *Clock) follow(rest float64, step time.Duration) {
	rate := c.work.rate()
	switch now := rest / rate; {
	case rest <= 0:
		c.left = 0
	case rate <= 0:
		c.left = -1
	case c.left < 0 || c.last.Sub(c.begun) < unknown:
		c.left = now
	default:
		was := max(c.left-step.Seconds(), 0)
		c.left = was + (now-was)*part(step, leftTime)
	}
}

// smoothed is a rate of which what was long ago counts less and less.
type smoothed struct {
	sum, weight float64 // of the rate, and of the time
}

// add counts n in a step of time.
func (s *smoothed) add(n float64, step, over time.Duration) {
	a := part(step, over)
	s.sum += (n/step.Seconds() - s.sum) * a
	s.weight += (1 - s.weight) * a
}

// rate is 0 where nothing is known.
func (s *smoothed) rate() float64 {
	if s.weight == 0 {
		return 0
	}
	return s.sum / s.weight
}

// part is the share that a step has in an average over a time.
func part(step, over time.Duration) float64 {
	return 1 - math.Exp(-step.Seconds()/over.Seconds())
}
