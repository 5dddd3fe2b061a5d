package published

import (
	"encoding/binary"
	"unsafe"

	widen "github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
)

// strips are 4-bit integers whose codes lie by columns, taken in strips of eight rows: the
// words of a strip, column by column, lie together. They decode to BF16 with no step in
// between that turns codes around, whatever the groups of columns.
type strips struct{ *Integers }

const stripRows = kernel.StripRows

// interleavedColumns are in the same group, see [kernel.DecodeInterleavedBF16].
const interleavedColumns = 16

// InStrips is nil where codes do not lie so that strips decode faster than rows.
func (w *Integers) InStrips() (Weight, func(dst, src []byte, column int)) {
	s := strips{w}
	switch {
	case !kernel.HasStrips() || w.bits != 4 || w.rows%stripRows != 0 || w.cols != w.words*8 || !w.scalesByGroup:
		return nil, nil
	case w.codes == packedColumns:
		return s, s.gather
	case w.codes == interleaved && w.group%16 == 0:
		return s, s.gatherInterleaved
	}
	return nil, nil
}

// Cut is by strips.
func (s strips) Cut() tile.Cut {
	cut := s.Integers.Cut()
	cut.UnitRows, cut.AnyRows = stripRows, false
	if s.codes == interleaved {
		cut.UnitCols = min(interleavedColumns, s.cols)
	}
	return cut
}

// gather writes rows of words, each for eight columns, into strips.
func (s strips) gather(dst, src []byte, column int) {
	const unit = 4 * stripRows
	from, to := asBlocks[[unit]byte](src), asBlocks[[unit]byte](dst)[column:]
	count := len(dst) / (unit * s.words)
	for ; len(from) > count; from, to = from[2*count:], to[2:] {
		first, second := from[:count], from[count:2*count]
		for i := range first {
			pair := to[i*s.words:][:2]
			pair[0], pair[1] = first[i], second[i]
		}
	}
	for i, block := range from {
		to[i*s.words] = block
	}
}

// gatherInterleaved writes columns of words, each for eight rows, into strips: a line of
// the cache at a time, and of two columns two words.
func (s strips) gatherInterleaved(dst, src []byte, column int) {
	const some, low = 16, 1<<32 - 1
	stride := 4 * s.cols
	n := len(dst) / stride
	for ; len(src) > 0; column += some {
		count := min(len(src)/(4*n), some)
		for i := 0; i < n; i += 2 {
			to := dst[i*stride+4*column:]
			if count < some || i+1 == n {
				for k := range min(2, n-i) {
					for c := range count {
						copy(to[k*stride+4*c:][:4], src[4*(c*n+i+k):])
					}
				}
				continue
			}
			first, second := to[:4*some], to[stride:][:4*some]
			for c := 0; c < some; c += 2 {
				x, y := binary.LittleEndian.Uint64(src[4*(c*n+i):]), binary.LittleEndian.Uint64(src[4*((c+1)*n+i):])
				binary.LittleEndian.PutUint64(first[4*c:], x&low|y<<32)
				binary.LittleEndian.PutUint64(second[4*c:], x>>32|y&^low)
			}
		}
		src = src[4*n*count:]
	}
}

// asBlocks reinterprets bytes as blocks.
func asBlocks[T any](x []byte) []T {
	var one T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/int(unsafe.Sizeof(one)))
}

// limit bounds scales whose products with a difference of codes are finite.
const limit = 0x1p100

// DecodeBF16 restores an area of whole strips. It reports false where scales are not such
// that all values are finite.
func (s strips) DecodeBF16(dst []byte, src [][]byte, a tile.Area, scratch *tile.Scratch) bool {
	if !s.held.done {
		return false
	}
	b := tile.PartOf[stripBuffers](scratch)
	first, last := s.groupsOf(a)
	n := last - first
	stored := tile.Sized(&b.stored, n*a.Rows)
	widen.Widen(stored, src[1], s.tensors[1].Dtype)
	if lo, hi := kernel.MinMax(stored); !(lo > -limit && hi < limit) {
		return false
	}
	strip := &kernel.Strip{Groups: s.groupsFrom(&b.groups, a, first), Scales: tile.Sized(&b.scales, n*stripRows), Zeros: tile.Sized(&b.zeros, n*stripRows)}
	decode, stride := kernel.DecodeStripBF16, 2*a.Cols
	if s.codes == interleaved {
		decode = kernel.DecodeInterleavedBF16
	}
	words := src[0]
	for row := 0; row < a.Rows; row += stripRows {
		for g := range n {
			copy(strip.Scales[g*stripRows:][:stripRows], stored[g*a.Rows+row:])
			s.zerosOf((*[stripRows]float32)(strip.Zeros[g*stripRows:]), a.Row+row, first+g)
		}
		decode(dst[row*stride:], stride, words[:4*a.Cols], strip)
		words = words[4*a.Cols:]
	}
	return true
}

// stripBuffers are what decoding strips uses again and again.
type stripBuffers struct {
	stored, scales, zeros []float32
	groups                []int32
	values                []byte
}

// groupsFrom are the groups of an area's columns, counted from the first one.
func (s strips) groupsFrom(buffer *[]int32, a tile.Area, first int) []int32 {
	groups := s.held.groups[a.Col : a.Col+a.Cols]
	if first == 0 {
		return groups
	}
	from := tile.Sized(buffer, a.Cols)
	for i, g := range groups {
		from[i] = g - int32(first)
	}
	return from
}

// zerosOf are the zero points of a strip's rows in a group.
func (s strips) zerosOf(dst *[stripRows]float32, row, group int) {
	z := &s.zeros
	if z.all >= 0 {
		for r := range dst {
			dst[r] = float32(z.all)
		}
		return
	}
	word := binary.LittleEndian.Uint32(s.held.zeros[group*len(s.held.zeros)/s.groups()+row/2:])
	for r := range dst {
		at := r
		if z.lies == zerosInterleaved {
			at = oddHalf[r]
		}
		dst[r] = float32((int(word>>(4*at)) + z.constant) & 15)
	}
}

// Decode restores an area of whole strips in single precision: of codes put in rows, as
// the values of rows.
func (s strips) Decode(dst []float32, src [][]byte, a tile.Area, scratch *tile.Scratch) {
	rows := *s.Integers
	rows.codes = packedRows
	b := tile.PartOf[stripBuffers](scratch)
	packed := tile.Sized(&b.values, len(src[0]))
	s.rowsOf(packed, src[0], a.Cols)
	parts := append([][]byte{packed}, src[1:]...)
	rows.Decode(dst, parts, a, scratch)
}

// rowsOf turns strips of that many columns to packed rows.
func (s strips) rowsOf(dst, src []byte, columns int) {
	for ; len(src) > 0; dst, src = dst[4*columns:], src[4*columns:] {
		if s.codes == packedColumns {
			transpose.Strided(transpose.AsArrays[[4]byte](dst), transpose.AsArrays[[4]byte](src[:4*columns]), columns/8, stripRows, columns/8)
			continue
		}
		for c := 0; c < columns; c += 2 {
			first, second := binary.LittleEndian.Uint32(src[4*c:]), binary.LittleEndian.Uint32(src[4*c+4:])
			for r, at := range oddHalf {
				dst[r*columns/2+c/2] = byte(first>>(4*at)&15 | second>>(4*at)&15<<4)
			}
		}
	}
}

// WithShared holds what is shared.
func (s strips) WithShared(src [][]byte) (Weight, error) {
	held, err := s.Integers.WithShared(src)
	if err != nil {
		return nil, err
	}
	return strips{held.(*Integers)}, nil
}

// groupOfEach are the groups of all columns.
func (w *Integers) groupOfEach() []int32 {
	if w.columns != nil {
		return w.columns
	}
	groups := make([]int32, w.cols)
	for c := range groups {
		groups[c] = int32(c / w.group)
	}
	return groups
}

// ByRows is nil: codes do not lie by columns any more.
func (strips) ByRows() (Weight, func(dst, src []byte, column int)) { return nil, nil }
