package quant

import (
	"sync"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// decodeBytes restores values [start, start+len(dst)) of groups that are not
// interleaved from codes of a byte each. Scales, and zero points if there are
// any, are those of the groups that overlap.
func (g *Grid) decodeBytes(dst []float32, codes []byte, start int, scales, zeros []float32, v *kernel.Values) {
	g.pieces(start, len(dst), func(at, n, size, i int) {
		var zero []float32
		if zeros != nil {
			zero = zeros[i : i+n]
		}
		kernel.DecodeBytes(dst[at:at+n*size], codes[at:at+n*size], scales[i:i+n], zero, size, v)
	})
}

// pieces calls do for n groups of one size at a time, whole ones or a part of one,
// which lie from at on in a run of values. i counts groups.
func (g *Grid) pieces(start, values int, do func(at, n, size, i int)) {
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

// decodeBytes restores an area from codes of a byte each, and scales of the
// groups that overlap it, row by row of groups.
func (c Cut) decodeBytes(dst []float32, codes []byte, a Area, scales []float32, v *kernel.Values) {
	row := Grid{Group: c.GroupCols}
	across := ceilDiv(a.Col+a.Cols, c.GroupCols) - a.Col/c.GroupCols
	for i := range a.Rows {
		at := ((a.Row+i)/c.GroupRows - a.Row/c.GroupRows) * across
		from, to := i*a.Cols, (i+1)*a.Cols
		row.decodeBytes(dst[from:to], codes[from:to], a.Col, scales[at:at+across], nil, v)
	}
}

// byteValues are those of codes of at most 8 bits of a dtype.
type byteValues struct {
	*kernel.Values
	exact map[safetensors.Dtype]bool // no value is rounded in that dtype
}

var allByteValues sync.Map // by *dtype.Type

func valuesOf(t *dtype.Type) *byteValues {
	if v, ok := allByteValues.Load(t); ok {
		return v.(*byteValues)
	}
	v := &byteValues{newNumbers(t, false).values(), map[safetensors.Dtype]bool{}}
	for _, d := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
		v.exact[d] = true
		for code := range 1 << t.Bits {
			value := v.At(byte(code))
			rounded := RoundTo(value, d)
			v.exact[d] = v.exact[d] && (rounded == value || value != value)
		}
	}
	allByteValues.Store(t, v)
	return v
}

// byteValues returns those of the codes where a call can decode and scale many
// of them, else nil.
func (s *Scheme) byteValues() *kernel.Values {
	if s.Bits > 8 || s.Codebook || s.Transposed && s.Inner > 1 {
		return nil
	}
	if v := valuesOf(s.Dtype); v.exact[s.ScaleDtype] {
		return v.Values
	}
	return nil
}

// decodeAll restores values of codes of a byte each.
func (s *Scheme) decodeAll(dst []float32, codes []byte, start int, v *kernel.Values, scratch *Scratch) {
	if s.Inner == 1 {
		s.Grid.decodeBytes(dst, codes, start, scratch.scales, scratch.zeros, v)
		return
	}
	first := start / s.Group
	s.units(start, len(dst), func(unit, from, to int) {
		i, n := (unit-first)*s.Inner, (to-from)/s.Inner
		var zeros []float32
		if scratch.zeros != nil {
			zeros = scratch.zeros[i : i+s.Inner]
		}
		sorted := scratch.floats(to - from)
		kernel.DecodeBytes(sorted, turnBytes(&scratch.turnedBytes, codes[from:to], s.Inner), scratch.scales[i:i+s.Inner], zeros, n, v)
		transpose(dst[from:to], sorted, s.Inner, n)
	})
}

// takeBytes returns codes of at most 8 bits, one a byte.
func (s *Scheme) takeBytes(src []byte, n int, turned bool, scratch *Scratch) []byte {
	codes := src
	if s.Bits < 8 {
		codes = sized(&scratch.bytes, n)
		pack.SplitBytes(codes, src, s.Bits)
	}
	if turned {
		return turnBytes(&scratch.turnedBytes, codes, n/s.geometry.rest)
	}
	return codes
}

// The values of codes whose rules have no dtype.
var (
	int8Values  = kernel.IntValues(0x80, -128)
	int4Values  = kernel.IntValues(8, -8) // in two's complement
	smallValues = map[*kernel.Small]*kernel.Values{
		kernel.E4M3: kernel.SmallValues(kernel.E4M3), kernel.E5M2: kernel.SmallValues(kernel.E5M2),
		kernel.E4M3FNUZ: kernel.SmallValues(kernel.E4M3FNUZ), kernel.E5M2FNUZ: kernel.SmallValues(kernel.E5M2FNUZ),
		kernel.E2M1: kernel.SmallValues(kernel.E2M1),
	}
)

// values are those of the rule's codes.
func (r *Rule) values() *kernel.Values {
	if r.small != nil {
		return smallValues[r.small]
	}
	return int8Values
}
