// Package watch counts what a run does, for whoever watches it: how much work is done, of
// how much, what was read and written, and which requests had to be made again. A [Run]
// goes with the context of a run; where there is none, nothing is counted.
package watch

import (
	"context"
	"sync/atomic"
)

// Phase is what a run is at.
type Phase int32

// The phases, in the order in which a run may have them.
const (
	Planning  Phase = iota // headers and configs are read, and all is decided
	Measuring              // weights are read for a decision
	Writing                // weights are read, and the output is made
	Verifying              // what was written is read
	Comparing              // two checkpoints are read
	Hashing                // files are read for their sha256
	Uploading              // what was made is on its way to where it goes
	Placing                // what was made is put in its place
)

// Phases are the names of the phases.
var Phases = []string{"planning", "measuring", "writing", "verifying", "comparing", "hashing", "uploading", "placing"}

func (p Phase) String() string { return Phases[p] }

// Reason is why a request had to be made again.
type Reason int32

// The reasons.
const (
	Busy    Reason = iota // the server asked to wait
	Failed                // the server failed
	Cut                   // a connection broke, or an answer was too short
	Timeout               // nothing came for too long
	Refused               // there was no connection
)

// Reasons are the names of the reasons.
var Reasons = []string{"429", "5xx", "cut", "timeout", "refused"}

func (r Reason) String() string { return Reasons[r] }

// Run is what is counted of a run. All methods may be called at the same time, and on nil,
// which counts nothing.
type Run struct {
	phase                   atomic.Int32
	done, total             atomic.Int64 // as progress tells them
	moreDone, more          atomic.Int64 // what progress knows nothing of
	read, written, uploaded atomic.Int64
	requests                atomic.Int64
	retries                 [5]atomic.Int64
}

type key struct{}

// With returns a context whose run is counted.
func With(ctx context.Context, r *Run) context.Context { return context.WithValue(ctx, key{}, r) }

// Of returns what counts a context's run, nil for none.
func Of(ctx context.Context) *Run {
	r, _ := ctx.Value(key{}).(*Run)
	return r
}

// Enter begins a phase.
func (r *Run) Enter(p Phase) {
	if r != nil {
		r.phase.Store(int32(p))
	}
}

// Progress takes what a command's progress tells: bytes done, and all there are.
func (r *Run) Progress(done, total int64) {
	if r != nil {
		r.total.Store(total)
		r.done.Store(done)
	}
}

// Expect adds work that progress knows nothing of, in bytes.
func (r *Run) Expect(n int64) {
	if r != nil {
		r.more.Add(n)
	}
}

// Did counts bytes of such work that are done.
func (r *Run) Did(n int64) {
	if r != nil {
		r.moreDone.Add(n)
	}
}

// Read counts bytes of a source that were read.
func (r *Run) Read(n int) {
	if r != nil && n > 0 {
		r.read.Add(int64(n))
	}
}

// Wrote counts bytes of an output that were written.
func (r *Run) Wrote(n int) {
	if r != nil && n > 0 {
		r.written.Add(int64(n))
	}
}

// Uploaded counts bytes of an output that are where it goes, far away; they are work that
// was expected.
func (r *Run) Uploaded(n int64) {
	if r != nil {
		r.uploaded.Add(n)
		r.moreDone.Add(n)
	}
}

// Requested counts a request of the network.
func (r *Run) Requested() {
	if r != nil {
		r.requests.Add(1)
	}
}

// Retried counts a request that is made again.
func (r *Run) Retried(why Reason) {
	if r != nil {
		r.retries[why].Add(1)
	}
}

// Work returns the bytes of work that were counted as done, and those that were expected,
// which may be less by what nobody knew of.
func (r *Run) Work() (done, total int64) {
	// what is done is read before what there is, which may grow meanwhile
	done = r.done.Load() + r.moreDone.Load()
	return done, r.total.Load() + r.more.Load()
}

// Counts are what was counted up to a moment.
type Counts struct {
	Phase                   Phase
	Done, Total             int64 // of work, in bytes
	Read, Written, Uploaded int64
	Requests                int64
	Retries                 [5]int64 // by their reasons
}

// Counts returns what was counted so far.
func (r *Run) Counts() (c Counts) {
	if r == nil {
		return c
	}
	c.Done, c.Total = r.Work()
	c.Done = min(c.Done, c.Total)
	c.Phase = Phase(r.phase.Load())
	c.Read, c.Written, c.Uploaded, c.Requests = r.read.Load(), r.written.Load(), r.uploaded.Load(), r.requests.Load()
	for i := range c.Retries {
		c.Retries[i] = r.retries[i].Load()
	}
	return c
}

// Tries is how many requests were made again.
func (c *Counts) Tries() (n int64) {
	for _, one := range c.Retries {
		n += one
	}
	return n
}
