package group

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// DecodeBytes restores values [start, start+len(dst)) of groups that are not
// interleaved from codes of a byte each. Scales, and zero points if there are
// any, are those of the groups that overlap.
func (g *Grid) DecodeBytes(dst []float32, codes []byte, start int, scales, zeros []float32, v *kernel.Values) {
	g.Pieces(start, len(dst), func(at, n, size, i int) {
		var zero []float32
		if zeros != nil {
			zero = zeros[i : i+n]
		}
		kernel.DecodeBytes(dst[at:at+n*size], codes[at:at+n*size], scales[i:i+n], zero, size, v)
	})
}

// Pieces calls do for n groups of one size at a time, whole ones or a part of one,
// which lie from at on in a run of values. i counts groups.
func (g *Grid) Pieces(start, values int, do func(at, n, size, i int)) {
	for at, i := 0, 0; at < values; {
		into, left := (start+at)%g.Group, values-at
		n, size := left/g.Group, g.Group
		if into > 0 || n == 0 { // a part of a group
			n, size = 1, min(g.Group-into, left)
		}
		do(at, n, size, i)
		at, i = at+n*size, i+n
	}
}

// DecodeArea restores an area from codes of a byte each, and scales of the
// groups that overlap it, row by row of groups.
func DecodeArea(c tile.Cut, dst []float32, codes []byte, a tile.Area, scales []float32, v *kernel.Values) {
	row := Grid{Group: c.GroupCols}
	across := tile.CeilDiv(a.Col+a.Cols, c.GroupCols) - a.Col/c.GroupCols
	for i := range a.Rows {
		at := ((a.Row+i)/c.GroupRows - a.Row/c.GroupRows) * across
		from, to := i*a.Cols, (i+1)*a.Cols
		row.DecodeBytes(dst[from:to], codes[from:to], a.Col, scales[at:at+across], nil, v)
	}
}

// The values of codes whose rules have no dtype.
var (
	Int8Values  = kernel.IntValues(0x80, -128)
	Int4Values  = kernel.IntValues(8, -8) // in two's complement
	SmallValues = map[*kernel.Small]*kernel.Values{
		kernel.E4M3: kernel.SmallValues(kernel.E4M3), kernel.E5M2: kernel.SmallValues(kernel.E5M2),
		kernel.E4M3FNUZ: kernel.SmallValues(kernel.E4M3FNUZ), kernel.E5M2FNUZ: kernel.SmallValues(kernel.E5M2FNUZ),
		kernel.E2M1: kernel.SmallValues(kernel.E2M1),
	}
)
