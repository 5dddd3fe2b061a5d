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
}

func buffersOf(s *tile.Scratch) *buffers {
	b := tile.PartOf[buffers](s)
	b.Scratch = s
	return b
}
