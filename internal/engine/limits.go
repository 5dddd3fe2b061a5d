// Package engine puts weights in motion: it cuts them into tiles, reads, encodes,
// decodes, moves and compares these on all cores, and bounds the memory that this
// takes.
package engine

import (
	"runtime"
)

// Resources limits what a run uses.
type Resources struct {
	// Threads is the number of tiles worked on at a time, 0 for one a core. It is
	// less where Memory leaves less than 5 MiB for each.
	Threads int
	// Memory bounds the process's peak memory in bytes, 0 for 256 MiB.
	Memory int64
	// Progress is called as tiles are completed, never concurrently. done and total are
	// bytes of the source.
	Progress func(done, total int64)

	factors int   // of how many weights are held at a time, 0 for as many as any
	held    int64 // bytes of Memory that these take
}

// Workers returns the number of tiles that are worked on at a time.
func Workers(r Resources) int {
	n := r.Threads
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return min(n, int(max((limit(r)-baseMemory)/workerMemory, 1)))
}

const (
	defaultMemory = 256 << 20
	baseMemory    = 32 << 20 // the program itself, headers, the plan
	workerMemory  = 5 << 20  // with less for each, there are fewer workers
	// bytesPerValue bounds the memory that a worker takes for each value of a tile that
	// it decodes or moves: input, float32 value, code, and a share of the batches.
	bytesPerValue = 32
	// RawBuffer is the number of the worker's byte buffer for plain values. Lower
	// numbers are for the tensors of a stored layer.
	RawBuffer = maxParts
	// maxParts is the most tensors that a layer has: codes, three each for
	// double-quantized scales and zero points, and two low-rank factors; of four, where
	// a weight is rows of several layers.
	maxParts = 4 * 9
)

// tileMemory returns how many bytes the work on one tile may take.
func tileMemory(r Resources) int {
	memory := limit(r)
	return int(max(memory-baseMemory, memory/4) / int64(Workers(r)))
}

// MaxTile returns the number of values that a tile may have within the memory limit: a
// multiple of 4096, so that every dtype fills whole blocks.
func MaxTile(r Resources) int { return max(tileMemory(r)/bytesPerValue/4096, 1) * 4096 }

// limit returns Memory, or its default, without what is held.
func limit(r Resources) int64 {
	memory := r.Memory
	if memory == 0 {
		memory = defaultMemory
	}
	return max(memory-r.held, memory/4)
}

// searches bounds the memory, in bytes, of all low-rank searches that are under way at
// the same time.
func searches(r Resources) int64 { return limit(r) / 4 }

// Counter returns a function that adds up bytes that are done, and reports them to
// Progress together with the total.
func Counter(r Resources, total int64) func(n int64) {
	if r.Progress == nil {
		return nil
	}
	var done int64
	return func(n int64) {
		done += n
		r.Progress(done, total)
	}
}
