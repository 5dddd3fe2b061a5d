package remote

import (
	"sync"
	"time"

	"github.com/tensorpress/tensorpress/internal/source"
)

// pace says how much of a far source is asked for before it is needed: as much as its
// latency and its rate take to be kept busy, and no more, since all of it is in memory.
type pace struct {
	most int // blocks that memory has room for
	now  func() time.Time

	mu       sync.Mutex
	underWay int       // requests
	since    time.Time // when the first of these began
	busy     time.Duration
	bytes    int64         // that came in that time
	soonest  time.Duration // of the answers of that time
	latency  time.Duration
	rate     float64 // bytes a second
}

const (
	// firstAhead is how many blocks are asked for at a time before more is known.
	firstAhead = 2
	// latencies is for how many of them the blocks on their way last, at the rate of the way.
	// A request waits for one latency before its block comes: the longer the blocks last, the
	// less of the rate is lost to that.
	latencies = 8
	// measured is after how much the rate is taken anew.
	measured = 100 * time.Millisecond
)

// paceIn begins within a bound of memory.
func paceIn(memory int64) *pace {
	return &pace{most: int(max(memory/source.BlockBytes, 4)), now: time.Now}
}

// Blocks says how many blocks of [source.BlockBytes] may stay in memory, and how many are
// to be on their way: what comes within [latencies]. Where the way has room for more, the
// rate grows with them until it has none.
func (p *pace) Blocks() (most, ahead int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ahead = firstAhead
	if p.rate > 0 {
		ahead += int(latencies * p.rate * p.latency.Seconds() / source.BlockBytes)
	}
	return p.most, min(ahead, connections, p.most/2)
}

// begin notes a request.
func (p *pace) begin() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.underWay++; p.underWay == 1 {
		p.since = now
	}
	return now
}

// answered notes the beginning of an answer.
func (p *pace) answered(began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took := p.now().Sub(began); p.soonest == 0 || took < p.soonest {
		p.soonest = took
	}
}

// end notes the end of a request that brought n bytes.
func (p *pace) end(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.busy += now.Sub(p.since)
	p.since = now
	p.underWay--
	if p.bytes += int64(n); p.busy >= measured && p.soonest > 0 {
		rate := float64(p.bytes) / p.busy.Seconds()
		if p.rate > 0 {
			rate = (rate + p.rate) / 2 // a moment's speed is not that of the way
		}
		p.rate, p.latency = rate, p.soonest
		p.busy, p.bytes, p.soonest = 0, 0, 0
	}
}
