package engine

import (
	"slices"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/safetensors"
)

// writeLiterals yields tasks that write tensors whose bytes are already known, many
// tensors to a task.
func writeLiterals(literals []plan.Literal, to []*bodies.Writer, yield func(stream.Task) bool) bool {
	const some = 256
	for chunk := range slices.Chunk(literals, some) {
		if !yield(stream.Task{Do: func(w *stream.Worker) error {
			for _, l := range chunk {
				copy(w.Output(to[l.File], l.Tensor, 0, len(l.Data)), l.Data)
			}
			return nil
		}}) {
			return false
		}
	}
	return true
}

// copyTiles yields tasks that copy a tensor's bytes. Large tensors are copied by the
// operating system where it can; small ones are written together with others.
func copyTiles(c *checkpoint.Checkpoint, from checkpoint.Tensor, to *bodies.Writer, t safetensors.Tensor, yield func(stream.Task) bool) bool {
	size, task := int64(256<<10), copyTile
	if from.Size >= 1<<20 && from.Gathered == nil && to.MayCopy() {
		size, task = 8<<20, copyLater
	}
	for off := int64(0); off < from.Size; off += size {
		n := int(min(size, from.Size-off))
		if !yield(stream.Task{Bytes: int64(n), At: off, Do: func(w *stream.Worker) error {
			w.Done(int64(n))
			return task(w, c, from, to, t, off, n)
		}}) {
			return false
		}
	}
	return true
}

func copyTile(w *stream.Worker, c *checkpoint.Checkpoint, from checkpoint.Tensor, to *bodies.Writer, t safetensors.Tensor, off int64, n int) error {
	return c.ReadSection(from, w.Output(to, t, off, n), off)
}

func copyLater(w *stream.Worker, c *checkpoint.Checkpoint, from checkpoint.Tensor, to *bodies.Writer, t safetensors.Tensor, off int64, n int) error {
	w.Later(func() error { return c.CopySection(from, to, t, off, n) })
	return nil
}

// Copy is a tensor that goes into a file as it is.
type Copy struct {
	Source *checkpoint.Checkpoint
	From   checkpoint.Tensor
	File   int                // where it goes
	To     safetensors.Tensor // and as what
}

// CopyTasks yields tasks that copy tensors.
func CopyTasks(copies []Copy, to []*bodies.Writer, yield func(stream.Task) bool) bool {
	for _, c := range copies {
		if !copyTiles(c.Source, c.From, to[c.File], c.To, yield) {
			return false
		}
	}
	return true
}
