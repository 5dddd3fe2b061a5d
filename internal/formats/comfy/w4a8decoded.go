package comfy

import (
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/kernel"
)

// decodedLevels are what levels decode to in a group, by the code of its scale, each
// found when it is first asked for.
type decodedLevels struct {
	levels []float32
	byCode [128]atomic.Pointer[codebook.NearestLevels]
	own    atomic.Pointer[codebook.NearestLevels]
}

// The levels that most layers have.
var (
	fixedDecoded = &decodedLevels{levels: fixedLevels}
	wholeDecoded = &decodedLevels{levels: wholeNumbers}
)

// of returns those for a scale's code in E4M3.
func (d *decodedLevels) of(code byte) *codebook.NearestLevels {
	return once(&d.byCode[code], func() []float32 {
		scale, decoded := kernel.E4M3.Decode(uint16(code)), make([]float32, len(d.levels))
		for i, l := range d.levels {
			decoded[i] = grid(l, scale)
		}
		return decoded
	})
}

// undecoded returns the levels themselves.
func (d *decodedLevels) undecoded() *codebook.NearestLevels {
	return once(&d.own, func() []float32 { return d.levels })
}

// once returns what lies there, or else what is made of levels; who makes it at the
// same time makes the same.
func once(at *atomic.Pointer[codebook.NearestLevels], levels func() []float32) *codebook.NearestLevels {
	if n := at.Load(); n != nil {
		return n
	}
	n := codebook.NewNearestLevels(levels())
	at.Store(n)
	return n
}
