package remote

import (
	"context"
	"sync"
	"time"

	"github.com/tensorpress/tensorpress/files"
)

// Hurry lets waits of a source pass at once, on a clock of their own, and returns how long
// they were.
func Hurry(s files.Source) (waited func() time.Duration) { return hurry(s.(*hub).client) }

func hurry(c *client) (waited func() time.Duration) {
	var mu sync.Mutex
	var all time.Duration
	begun := time.Now()
	c.sleep = func(ctx context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		all += d
		return ctx.Err()
	}
	c.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return begun.Add(all)
	}
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// HurryStore is Hurry of a destination.
func HurryStore(s files.Sink) (waited func() time.Duration) { return hurry(s.(*storeSink).client) }

// ReplacedName is the record of an older output.
const ReplacedName = replacedName

// SmallParts has files cut into parts of n bytes.
func SmallParts(n int64) { partBytes = n }

// Quiet sets for how long a server may say nothing, and returns what sets it back.
func Quiet(d time.Duration) (back func()) {
	was := quiet
	quiet = d
	return func() { quiet = was }
}
