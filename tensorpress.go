// Package tensorpress presses safetensors checkpoints into quantized ones, in
// bounded memory and with the bytes of the reference programs.
//
// [Quantize] is the main call: it reads, plans, quantizes, packs, names and
// writes. [Plan] makes the same decisions and stops before any weight is read.
// [Inspect], [Verify] and [Dequantize] take what comes out, or what the
// reference programs wrote. The arithmetic alone, without files, is in package
// quant.
package tensorpress

import (
	"errors"
	"runtime"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Kinds of errors, for errors.Is. All others are the system's: a disk that is
// full, a file that may not be read.
var (
	// ErrUsage: what was asked for does not exist, contradicts itself, or would
	// overwrite something.
	ErrUsage = usage.Err
	// ErrSource: the source is damaged, inconsistent, of no supported kind, or
	// holds NaN or infinity where it is to be quantized.
	ErrSource = checkpoint.ErrSource
	// ErrVerify: verification found a problem.
	ErrVerify = errors.New("verification failed")
)

// CheckCPU returns an error, an [ErrUsage], if the environment variable
// TENSORPRESS_CPU names instructions that do not exist or that this machine
// does not have: its own best ones are in use then.
func CheckCPU() error { return usage.Wrap(kernel.Refused()) }

// Resources bound what a run takes.
type Resources struct {
	// Threads is the number of tiles worked on at a time, 0 for one a core. It is
	// less where Memory leaves less than 5 MiB for each.
	Threads int
	// Memory bounds the process's peak memory in bytes, 0 for 256 MiB.
	Memory int64
	// Progress is called, never twice at a time, as tiles are done.
	Progress func(Progress)
}

// Progress is how far a run has come, in bytes of the source.
type Progress struct{ Done, Total int64 }

func (r Resources) threads() int {
	n := r.Threads
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return min(n, int(max((r.memory()-baseMemory)/workerMemory, 1)))
}

const (
	defaultMemory = 256 << 20
	baseMemory    = 32 << 20 // the program itself, headers, the plan
	workerMemory  = 5 << 20  // with less for each, fewer work at a time
	// bytesPerValue bounds what a tile takes for each value in a worker: raw
	// and widened input, codes, and a share of the batches.
	bytesPerValue = 32
	// rawBytesPerValue is that where values are taken as they are stored.
	rawBytesPerValue = 8
	// mostRaw is enough of them for bands that lie in files in long runs.
	mostRaw = 12 << 20
	// rawBuffer is the worker's buffer for plain bytes; those before it are for
	// the tensors of a stored layer.
	rawBuffer = maxParts
	// maxParts are the tensors of a layer: codes, three each for scales and
	// zero points that are stored in turn, two low-rank factors.
	maxParts = 9
)

// maxTile is the number of values that a tile may hold within the memory:
// whole blocks of any dtype.
func (r Resources) maxTile() int {
	memory := r.memory()
	perWorker := max(memory-baseMemory, memory/4) / int64(r.threads())
	return int(max(perWorker/bytesPerValue/4096, 1)) * 4096
}

func (r Resources) memory() int64 {
	if r.Memory == 0 {
		return defaultMemory
	}
	return r.Memory
}

// searches bounds what searches over weights that are under way together take.
func (r Resources) searches() int64 { return r.memory() / 4 }

// progress counts done bytes up to total.
func (r Resources) progress(total int64) func(n int64) {
	if r.Progress == nil {
		return nil
	}
	var done int64
	return func(n int64) {
		done += n
		r.Progress(Progress{done, total})
	}
}

// ReadFile reads a file that says what is to be done. What is no file (a FIFO, a
// device) or holds more than most bytes is an [ErrSource]: reading it might never
// end.
func ReadFile(path string, most int64) ([]byte, error) { return checkpoint.ReadFile(path, most) }
