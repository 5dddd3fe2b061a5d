package engine

import (
	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// RestoreTasks yields tasks that decode every layer and copy everything else. It
// reports false if the run is over.
func RestoreTasks(c *checkpoint.Checkpoint, r *plan.Restoration, to []*bodies.Writer, use Resources, yield func(stream.Task) bool) bool {
	for _, one := range r.Copies {
		if !copyTiles(c, one.Source, to[one.File], one.Tensor, yield) {
			return false
		}
	}
	for _, l := range r.Layers {
		d := NewDecoding(c, l.Layer, l.Dtype(), use)
		width := l.Dtype().Bits() / 8
		columns := l.Codec.Cut().Cols
		if !d.tiles(yield, func(w *stream.Worker, _ int, a tile.Area) error {
			values, err := d.Read(w, a)
			if err == nil {
				err = checkRestored(c, l.Layer, a, values, columns)
			}
			if err == nil {
				err = checkFits(c, l.Layer, values, d.out)
			}
			if err != nil {
				return err
			}
			dst := w.Scatter(to[l.File], l.Part.Tensor, tile.SpansOf(a, columns, width))
			floats.Narrow(dst, values, d.out)
			return nil
		}) {
			return false
		}
	}
	return true
}
