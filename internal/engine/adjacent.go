package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

const (
	// smallTensor is a size up to which weights that lie side by side are read
	// and quantized together: a call for each takes longer than its bytes.
	smallTensor = 64 << 10
	groupBytes  = 256 << 10
)

// group is small weights on their way together. Their outputs lie side by side
// too, in memory as in the file, and are written as one.
type group struct {
	*Quantization
	small []*encoding
	bytes int64
}

// whole reports whether a weight is one tile of plain values and needs no pass.
func (e *encoding) whole() bool {
	n := e.needs
	return e.step.From == nil && n.Survey == nil && len(n.Passes) == 0 && e.cut.Count(n.Rows, n.Cols) == 1
}

// add takes a step, or yields it by itself after those that it has.
func (g *group) add(s *plan.Step, yield func(stream.Task) bool) bool {
	if s.Codec == nil || s.From != nil || s.Source.Gathered != nil || s.Source.Size > smallTensor || s.Source.Size == 0 {
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

// continues reports whether a tensor lies right behind the last.
func (g *group) continues(t checkpoint.Tensor) bool {
	if len(g.small) == 0 {
		return true
	}
	last := g.small[len(g.small)-1].step.Source
	return t.Shard == last.Shard && t.Offset == last.Offset+last.Size && g.bytes+t.Size <= groupBytes
}

// flush yields what was added.
func (g *group) flush(yield func(stream.Task) bool) bool {
	small := g.small
	g.small, g.bytes = nil, 0
	switch len(small) {
	case 0:
		return true
	case 1:
		return small[0].tasks(yield)
	}
	return yield(stream.Task{Do: func(w *stream.Worker) error { return g.encodeTogether(w, small) }})
}

// encodeTogether reads weights at once. If that fails each is read by itself,
// for an error that names it.
func (q *Quantization) encodeTogether(w *stream.Worker, small []*encoding) error {
	first, last := small[0].step.Source, small[len(small)-1].step.Source
	all := checkpoint.Tensor{Shard: first.Shard, Tensor: safetensors.Tensor{
		Name: first.Name, Offset: first.Offset, Size: last.Offset + last.Size - first.Offset,
	}}
	data := w.Bytes(RawBuffer, int(all.Size))
	together := small[0].Source.ReadSection(all, data, 0) == nil
	outputs := outputsTogether(w, small)
	for _, e := range small {
		if together {
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

// outputsTogether is the room for what each weight fills, one after the other:
// in memory, all codes first, then all scales, as in the file.
func outputsTogether(w *stream.Worker, small []*encoding) [][]byte {
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

// all is the area of the whole weight.
func (e *encoding) all() tile.Area { return tile.Area{Rows: e.cut.Rows, Cols: e.cut.Cols} }
