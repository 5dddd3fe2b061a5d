package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

const (
	// maxAdjacent is the size in bytes up to which weights that are adjacent in the
	// source are read and quantized in one task: for so little, a call for each takes
	// longer than the work. adjacentBytes bounds what one such task reads.
	maxAdjacent   = 64 << 10
	adjacentBytes = 256 << 10
)

// adjacent collects small weights that are adjacent in the source. Their outputs are
// adjacent too, in memory as in the file, and are written in one call.
type adjacent struct {
	*Quantization
	small []*encoding
	bytes int64
}

// whole reports whether a weight is plain, fits one tile, and needs no survey and no
// pass.
func (e *encoding) whole() bool {
	n := e.needs
	return e.step.From == nil && n.Survey == nil && len(n.Passes) == 0 && e.cut.Count(n.Rows, n.Cols) == 1
}

// add collects a step, or else yields its tasks after those of the weights collected
// before.
func (g *adjacent) add(s *plan.Step, yield func(stream.Task) bool) bool {
	if bank := codec.Matrices(s.Codec); bank != nil && len(s.Copies) == 0 {
		return matrices(bank, s, func(one *plan.Step) bool { return g.add(one, yield) })
	}
	if s.Codec == nil || s.From != nil || s.Source.Gathered != nil || s.Source.Size > maxAdjacent || s.Source.Size == 0 {
		return g.flush(yield) && g.step(s, yield)
	}
	e := g.encoding(s)
	if !e.whole() {
		return g.flush(yield) && e.tasks(yield)
	}
	if !g.continues(s.Source) && !g.flush(yield) {
		return false
	}
	g.small, g.bytes = append(g.small, e), g.bytes+s.Source.Size
	return true
}

// continues reports whether a tensor directly follows the last one collected, and still
// fits.
func (g *adjacent) continues(t checkpoint.Tensor) bool {
	if len(g.small) == 0 {
		return true
	}
	last := g.small[len(g.small)-1].step.Source
	return t.Shard == last.Shard && t.Offset == last.Offset+last.Size && g.bytes+t.Size <= adjacentBytes
}

// flush yields the task for the weights collected so far.
func (g *adjacent) flush(yield func(stream.Task) bool) bool {
	small := g.small
	g.small, g.bytes = nil, 0
	switch len(small) {
	case 0:
		return true
	case 1:
		return small[0].tasks(yield)
	}
	return yield(stream.Task{Do: func(w *stream.Worker) error { return g.encodeAdjacent(w, small) }})
}

// encodeAdjacent reads weights in one call and encodes them. If that call fails, each
// is read by itself, so that the error names the right one.
func (q *Quantization) encodeAdjacent(w *stream.Worker, small []*encoding) error {
	first, last := small[0].step.Source, small[len(small)-1].step.Source
	all := checkpoint.Tensor{Shard: first.Shard, Tensor: safetensors.Tensor{
		Name: first.Name, Offset: first.Offset, Size: last.Offset + last.Size - first.Offset,
	}}
	data := w.Bytes(RawBuffer, int(all.Size))
	ok := small[0].Source.ReadSection(all, data, 0) == nil
	outputs := adjacentOutputs(w, small)
	for _, e := range small {
		if ok {
			from := e.step.Source.Offset - first.Offset
			e.plain.body = data[from : from+e.step.Source.Size]
		}
		n := len(e.step.Parts)
		if err := e.encodeTile(w, e.all(), outputs[:n]); err != nil {
			return err
		}
		outputs = outputs[n:]
		w.Done(e.step.Source.Size)
		q.spare.Put(e)
	}
	return nil
}

// adjacentOutputs returns the room for what each weight fills, weight by weight. The
// memory is allocated in the order of the file: all codes first, then all scales.
func adjacentOutputs(w *stream.Worker, small []*encoding) [][]byte {
	total, most := 0, 0
	for _, e := range small {
		total, most = total+len(e.step.Parts), max(most, len(e.step.Parts))
	}
	outputs := w.Parts(total)
	for i := range most {
		first := 0
		for _, e := range small {
			if i < len(e.step.Parts) {
				outputs[first+i] = e.output(w, i, e.all())
			}
			first += len(e.step.Parts)
		}
	}
	return outputs
}

// all returns the area of the whole weight.
func (e *encoding) all() tile.Area { return tile.Area{Rows: e.cut.Rows, Cols: e.cut.Cols} }
