package plan

import (
	"runtime"
	"sync"
)

// fewSteps are so few that they are worked on one after the other.
const fewSteps = 2048

// partsOf is in how many parts n steps are worked on.
func partsOf(n int) int { return max(1, min(runtime.GOMAXPROCS(0), n/fewSteps)) }

// inParts has do work on steps [from, to) of n, all parts at the same time.
func inParts(parts, n int, do func(part, from, to int)) {
	var working sync.WaitGroup
	for i := range parts {
		working.Go(func() { do(i, i*n/parts, (i+1)*n/parts) })
	}
	working.Wait()
}
