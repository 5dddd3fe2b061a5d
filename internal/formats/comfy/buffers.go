package comfy

import (
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// buffers are what this package keeps in a scratch.
type buffers struct {
	*tile.Scratch
	group.Companions
	lo, hi, row, slow       []float32
	steps, one              kernel.Steps
	bytes, high, scaleCodes []byte
	fours                   nvfp4Table
	search                  nvSearch
}

func buffersOf(s *tile.Scratch) *buffers {
	b := tile.PartOf[buffers](s)
	b.Scratch = s
	return b
}

// floatsOf returns the values of an area of a weight of that many columns as float32, as
// [tile.Values.Floats] does. If NaN and infinity are not allowed, the error for them is a
// *[tile.NonfiniteError].
func floatsOf(v tile.Values, columns int, allowNonfinite bool, s *tile.Scratch) ([]float32, error) {
	values := v.Floats(s)
	if allowNonfinite {
		return values, nil
	}
	return values, tile.CheckArea(v.Area, values, columns)
}
