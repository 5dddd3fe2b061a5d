package sdnq

import (
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// buffers are what this package keeps in a scratch.
type buffers struct {
	*tile.Scratch
	group.Companions
	lo, hi                 []float32
	ranges                 []tile.Range
	transposed, column     []uint16
	bytes, transposedBytes []byte
	row, up, down          []float32 // of a low-rank part
	left, restored         []float32 // while one is fitted again
	fitted                 *tile.Scratch
	parts                  [][]byte
	runScales, runZeros    []float32 // of runs of codes
	book                   codebook.Lloyd
	books                  codebook.Fitter
	inner                  *tile.Scratch // of scales that are quantized themselves
}

func buffersOf(s *tile.Scratch) *buffers {
	b := tile.PartOf[buffers](s)
	b.Scratch = s
	return b
}
