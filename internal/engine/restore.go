package engine

import (
	"slices"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// RestoreTasks yields tasks that decode every layer, merge adapters into what they change,
// and copy everything else. It reports false if the run is over.
func RestoreTasks(c *checkpoint.Checkpoint, r *plan.Restoration, to []*bodies.Writer, use Resources, yield func(stream.Task) bool) bool {
	for _, one := range r.Copies {
		if !copyTiles(c, one.Source, to[one.File], one.Tensor, yield) {
			return false
		}
	}
	layers := slices.DeleteFunc(slices.Clone(r.Layers), func(l plan.RestoredLayer) bool { return l.Merged }) // those are encoded below
	var next *Decoding
	for i, l := range layers {
		d := next
		if d == nil {
			d = NewDecoding(c, l.Layer, l.Dtype(), use)
		}
		if next = nil; i+1 < len(layers) {
			next = NewDecoding(c, layers[i+1].Layer, layers[i+1].Dtype(), use)
		}
		d.next = next
		width := l.Dtype().Bits() / 8
		columns := l.Codec.Cut().Cols
		if !d.tiles(yield, func(w *stream.Worker, _ int, a tile.Area) error {
			return d.restoreTo(w, a, func() []byte { return w.Scatter(to[l.File], l.Part.Tensor, tile.SpansOf(a, columns, width)) })
		}) {
			return false
		}
	}
	merging := &Quantization{Source: c, Plan: &r.Plan, Writers: to, Resources: use}
	return merging.Tasks(yield)
}

// restoreTo restores an area of a layer, as it lies in a file, into the room that there is
// for it.
func (d *Decoding) restoreTo(w *stream.Worker, a tile.Area, room func() []byte) error {
	var src [maxParts][]byte
	parts := src[:len(d.Layer.Parts)]
	c, n, err := d.stored(w, a, parts)
	w.Done(int64(n))
	if err != nil {
		return err
	}
	dst := room()
	if d.out == safetensors.BF16 && codec.DecodeBF16(c, dst, parts, a, &w.Scratch) {
		return nil
	}
	values := w.Floats(0, a.Values())
	c.Decode(values, parts, a, d.out, &w.Scratch)
	if err := checkRestored(d.Source, d.Layer, a, values, c.Cut().Cols); err != nil {
		return err
	}
	if err := checkFits(d.Source, d.Layer, values, d.out); err != nil {
		return err
	}
	floats.Narrow(dst, values, d.out)
	return nil
}
