// Package engine puts weights in motion: it cuts them into tiles, reads, encodes,
// decodes, moves and compares these on all cores, and bounds the memory that this
// takes.
package engine

import (
	"runtime"
)

// Resources bound what a run takes.
type Resources struct {
	// Threads is the number of tiles worked on at a time, 0 for one a core. It is
	// less where Memory leaves less than 5 MiB for each.
	Threads int
	// Memory bounds the process's peak memory in bytes, 0 for 256 MiB.
	Memory int64
	// Progress is called, never twice at a time, as tiles are done, with bytes of the
	// source.
	Progress func(done, total int64)
}

// Workers is the number of tiles that are worked on at a time.
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
	workerMemory  = 5 << 20  // with less for each, fewer work at a time
	// bytesPerValue bounds what a tile takes for each value in a worker where it is
	// decoded, or moved: input, values, codes, and a share of the batches.
	bytesPerValue = 32
	// RawBuffer is the worker's buffer for plain bytes; those before it are for
	// the tensors of a stored layer.
	RawBuffer = maxParts
	// maxParts are the tensors of a layer: codes, three each for scales and
	// zero points that are quantized themselves, two low-rank factors. A weight
	// may be rows of four.
	maxParts = 4 * 9
)

// tileMemory is how many bytes a tile may take.
func tileMemory(r Resources) int {
	memory := limit(r)
	return int(max(memory-baseMemory, memory/4) / int64(Workers(r)))
}

// MaxTile is the number of values that a tile may hold within the memory:
// whole blocks of any dtype.
func MaxTile(r Resources) int { return max(tileMemory(r)/bytesPerValue/4096, 1) * 4096 }

// limit is Memory, or its default.
func limit(r Resources) int64 {
	if r.Memory == 0 {
		return defaultMemory
	}
	return r.Memory
}

// searches bounds what searches over weights that are under way together take.
func searches(r Resources) int64 { return limit(r) / 4 }

// Counter counts done bytes up to total.
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
