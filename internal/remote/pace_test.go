package remote

import (
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/internal/source"
)

// TestPace: as much is asked for ahead as a way needs to be full, within memory: a far
// source that is fast gets many requests, a near or a slow one few.
func TestPace(t *testing.T) {
	for _, tt := range []struct {
		name        string
		latency     time.Duration
		rate        float64 // MB/s of the way
		memory      int64
		least, most int
	}{
		{"near", time.Millisecond, 1000, 64 << 20, 4, 10},
		{"as tests have it", 5 * time.Millisecond, 1000, 64 << 20, 28, 32},
		{"far and fast", 100 * time.Millisecond, 300, 64 << 20, 28, 32},
		{"far and slow", 100 * time.Millisecond, 10, 64 << 20, 4, 10},
		{"far and fast, little memory", 100 * time.Millisecond, 300, 8 << 20, 4, 4},
		{"no memory", 100 * time.Millisecond, 300, 0, 2, 2},
	} {
		now := time.Unix(0, 0)
		p := paceIn(tt.memory)
		p.now = func() time.Time { return now }
		ahead := 0
		for range 100 { // so many requests at a time as it says, one lot after the other
			_, ahead = p.Blocks()
			began := now
			for range ahead {
				began = p.begin()
			}
			now = now.Add(tt.latency)
			p.answered(began)
			for range ahead {
				now = now.Add(time.Duration(source.BlockBytes / (tt.rate * 1e6) * float64(time.Second)))
				p.end(source.BlockBytes)
			}
		}
		if ahead < tt.least || ahead > tt.most {
			t.Errorf("%s: %d blocks ahead, want %d to %d", tt.name, ahead, tt.least, tt.most)
		}
	}
}
