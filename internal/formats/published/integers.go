package published

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	widen "github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Integers is a matrix of integer codes of 1 to 8 bits: value = (code − zero point) ×
// scale, in single precision, with a scale and a zero point for each group of columns of
// a row.
type Integers struct {
	rows, cols int
	bits       int
	group      int // columns that share a scale
	tensors    []tile.Tensor
	codes      lies
	// words is the number of 32-bit words that a row of codes takes, by columns or not.
	words int
	// spaced says that no code, and no zero point, goes over the end of a word: what is
	// left of it, of a width that 32 is no multiple of, is empty.
	spaced bool
	// scalesByGroup says that the scales of one group lie together, [groups, rows], not
	// those of one row.
	scalesByGroup bool
	zeros         zeros
	// columns are the groups of all columns; nil where they follow from the group size.
	columns  []int32
	oneScale bool // of the whole weight
	// maybeUngrouped says that a group of −1 is of columns in no order of their own.
	maybeUngrouped bool
	// unordered says that a config has columns in no order of their own.
	unordered bool
	held      heldTensors
}

// lies says how codes lie.
type lies uint8

const (
	// packedRows are codes as a stream of bits along each row, the first in the lowest
	// bits, which begins at a word.
	packedRows lies = iota
	// packedColumns is packedRows transposed, word by word.
	packedColumns
	// interleaved are columns of words of eight 4-bit codes of as many rows, those of
	// the even rows first.
	interleaved
	// bytes are signed codes of a byte each.
	bytes
)

// zeros says what the zero points are.
type zeros struct {
	index int // of the tensor; 0 for none: then all are constant
	// constant is the zero point of all codes, or else what is added to each.
	constant int
	lies     zeroLies
	// all is what every zero point must be, -1 for anything; why says so.
	all int
	why string
}

type zeroLies uint8

const (
	zerosByGroup     zeroLies = iota // [groups, rows], as a stream of bits along rows
	zerosInterleaved                 // [groups, rows], as interleaved codes
	zerosByRow                       // [rows, groups], as a stream of bits along each group
	zerosAsBytes                     // [rows, groups], signed, a byte each
)

// heldTensors are tensors that were given once for all areas.
type heldTensors struct {
	zeros, columns []byte
	groups         []int32 // of all columns
	done           bool
}

// Shape is that of the weight.
func (w *Integers) Shape() []int { return []int{w.rows, w.cols} }

// Tensors are the codes, the scales, and zero points and groups of columns where there
// are any.
func (w *Integers) Tensors() []tile.Tensor { return w.tensors }

// Bits is the number of bits of a code; GroupSize that of the columns that share a scale.
func (w *Integers) Bits() int { return w.bits }

// GroupSize is the number of columns that share a scale, as many as there are for all.
func (w *Integers) GroupSize() int { return w.group }

// Cut is by the words of codes, along a row or, of interleaved ones, of eight rows.
func (w *Integers) Cut() tile.Cut {
	unit := 32 / tile.GCD(w.bits, 32)
	if w.spaced {
		unit = w.perWord()
	}
	cut := tile.Cut{Rows: w.rows, Cols: w.cols, UnitRows: 1, UnitCols: min(unit, w.cols), GroupRows: 1, GroupCols: w.group, AnyRows: true}
	if w.zeros.lies == zerosInterleaved {
		cut.UnitRows, cut.AnyRows = 8, false
	}
	return cut
}

// perWord is the number of codes that are whole in a word.
func (w *Integers) perWord() int { return 32 / w.bits }

// place returns the word, and the bit in it, where a code begins.
func (w *Integers) place(i int) (word, bit int) {
	if w.spaced {
		return i / w.perWord(), i % w.perWord() * w.bits
	}
	return i * w.bits / 32, i * w.bits % 32
}

// wordsFor is the number of words that n codes take.
func (w *Integers) wordsFor(n int) int {
	if w.spaced {
		return tile.CeilDiv(n, w.perWord())
	}
	return tile.CeilDiv(n*w.bits, 32)
}

func (w *Integers) groups() int { return tile.CeilDiv(w.cols, w.group) }

// find returns the index of the tensor of a role, 0 for none.
func (w *Integers) find(role tile.Role) int {
	for i, t := range w.tensors {
		if t.Role == role {
			return i
		}
	}
	return 0
}

// Shared are the zero points and the groups of columns, which are small.
func (w *Integers) Shared() (indices []int) {
	if w.held.done {
		return nil
	}
	if w.zeros.index > 0 {
		indices = append(indices, w.zeros.index)
	}
	if i := w.find(tile.GroupOfColumn); i > 0 {
		indices = append(indices, i)
	}
	return indices
}

// WithShared holds them, once they are found to be true.
func (w *Integers) WithShared(src [][]byte) (Weight, error) {
	held := *w
	held.held.done = true
	if w.zeros.index > 0 {
		held.held.zeros, src = src[0], src[1:]
		if err := held.checkZeros(held.held.zeros); err != nil {
			return nil, err
		}
	}
	if i := w.find(tile.GroupOfColumn); i > 0 {
		held.held.columns = src[0]
		columns, err := w.readColumns(src[0])
		if err != nil {
			return nil, err
		}
		held.columns = columns
	}
	if strips, _ := w.InStrips(); strips != nil {
		held.held.groups = held.groupOfEach()
	}
	return &held, nil
}

// checkZeros compares zero points with what they must be.
func (w *Integers) checkZeros(src []byte) error {
	if w.zeros.all < 0 {
		return nil
	}
	for g := range w.groups() {
		for r := range w.rows {
			if z := w.zero(src, r, g); z != w.zeros.all {
				return fmt.Errorf("%s, and the zero point of row %d in group %d is %d, not %d", w.zeros.why, r, g, z, w.zeros.all)
			}
		}
	}
	return nil
}

// readColumns returns the groups of all columns, nil where they follow from the group
// size.
func (w *Integers) readColumns(src []byte) ([]int32, error) {
	columns, plain := make([]int32, w.cols), true
	for c := range columns {
		g := int32(binary.LittleEndian.Uint32(src[4*c:]))
		if g == -1 && w.maybeUngrouped {
			return nil, nil
		}
		if g < 0 || int(g) >= w.groups() {
			return nil, fmt.Errorf("its g_idx has group %d for column %d, and there are %d groups", g, c, w.groups())
		}
		columns[c], plain = g, plain && int(g) == c/w.group
	}
	switch {
	case plain:
		return nil, nil
	case w.unordered:
		return nil, errors.New("its config says desc_act false, and its g_idx has columns in groups in another order")
	}
	return columns, nil
}

// Needed names the bytes of an area, and all of what is shared.
func (w *Integers) Needed(i int, a tile.Area) []tile.Span {
	t := w.tensors[i]
	switch t.Role {
	case tile.Weight:
		return w.codesNeeded(a)
	case tile.Scale:
		return w.scalesNeeded(a)
	}
	if w.held.done {
		return tile.Run(0, 0)
	}
	return tile.Run(0, int64(tile.Numel(t.Shape)*t.Dtype.Bits()/8))
}

func (w *Integers) codesNeeded(a tile.Area) []tile.Span {
	first, last := w.wordsOf(a.Col, a.Col+a.Cols)
	switch w.codes {
	case packedColumns:
		return columnRuns(first, last-first, a.Row, a.Rows, w.rows)
	case interleaved:
		from, to := a.Row/8, tile.CeilDiv(a.Row+a.Rows, 8)
		return columnRuns(a.Col, a.Cols, from, to-from, w.rows/8)
	case bytes:
		return tile.SpansOf(a, w.cols, 1)
	}
	return tile.SpansOf(tile.Area{Row: a.Row, Rows: a.Rows, Col: first, Cols: last - first}, w.words, 4)
}

// columnRuns are n words of some columns, of so many words each, from a word of each on: a
// run for each column, be they all of it.
func columnRuns(column, columns, from, n, words int) []tile.Span {
	return []tile.Span{{Offset: 4 * int64(column*words+from), Size: 4 * int64(n), Count: columns, Stride: 4 * int64(words)}}
}

// wordsOf returns the range of words of a row that hold its columns [from, to).
func (w *Integers) wordsOf(from, to int) (first, last int) {
	if last = w.wordsFor(to); to == w.cols {
		last = w.words
	}
	first, _ = w.place(from)
	return first, last
}

// groupsOf is the range of groups of an area, all of them where columns are in any.
func (w *Integers) groupsOf(a tile.Area) (first, last int) {
	if w.find(tile.GroupOfColumn) > 0 {
		return 0, w.groups()
	}
	return a.Col / w.group, tile.CeilDiv(a.Col+a.Cols, w.group)
}

func (w *Integers) scalesNeeded(a tile.Area) []tile.Span {
	width := w.tensors[1].Dtype.Bits() / 8
	if w.oneScale {
		return tile.Run(0, int64(width))
	}
	first, last := w.groupsOf(a)
	if w.scalesByGroup {
		return tile.SpansOf(tile.Area{Row: first, Rows: last - first, Col: a.Row, Cols: a.Rows}, w.rows, width)
	}
	return tile.SpansOf(tile.Area{Row: a.Row, Rows: a.Rows, Col: first, Cols: last - first}, w.groups(), width)
}

// ByRows takes codes as packedRows where they lie by columns.
func (w *Integers) ByRows() (Weight, func(dst, src []byte, column int)) {
	turned := *w
	if w.cols*w.bits != w.words*32 { // what rows are padded with would count as columns
		return nil, nil
	}
	switch w.codes {
	case packedColumns:
		turned.codes = packedRows
		return &turned, w.turnWords
	case interleaved:
		turned.codes = packedRows
		return &turned, w.turnInterleaved
	}
	return nil, nil
}

// turnWords writes columns of words to rows of words.
func (w *Integers) turnWords(dst, src []byte, column int) {
	rows := len(dst) / (4 * w.words)
	transpose.Strided(transpose.AsArrays[[4]byte](dst)[column:], transpose.AsArrays[[4]byte](src), len(src)/(4*rows), rows, w.words)
}

// evenFirst are the rows, of eight, whose codes a word of interleaved ones has, from its
// lowest bits on.
var evenFirst = [8]int{0, 2, 4, 6, 1, 3, 5, 7}

// turnInterleaved writes columns of interleaved codes, an even number of them from an
// even one on, to packed rows of a multiple of eight. Two columns make the bytes of every
// second row from the low halves of theirs, and those of the others from the high ones.
func (w *Integers) turnInterleaved(dst, src []byte, column int) {
	stride := 4 * w.words
	rows := len(dst) / stride
	half := rows / 2 // bytes of a column
	pairs := len(src) / half / 2
	b := turning.Get().(*[2][]byte)
	defer turning.Put(b)
	joined, turned := tile.Sized(&b[0], 2*pairs*half), tile.Sized(&b[1], 2*pairs*half)
	low, high := joined[:pairs*half], joined[pairs*half:]
	for c := range pairs {
		joinColumns(low[c*half:(c+1)*half], high[c*half:(c+1)*half], src[2*c*half:(2*c+1)*half], src[(2*c+1)*half:(2*c+2)*half])
	}
	transpose.Bytes(turned, low, pairs, half, pairs)
	transpose.Bytes(turned[pairs*half:], high, pairs, half, pairs)
	for k := range half {
		first := k / 4 * 8
		copy(dst[(first+evenFirst[k%4*2])*stride+column/2:], turned[k*pairs:(k+1)*pairs])
		copy(dst[(first+evenFirst[k%4*2+1])*stride+column/2:], turned[(half+k)*pairs:(half+k+1)*pairs])
	}
}

// turning are buffers of turnInterleaved.
var turning = sync.Pool{New: func() any { return new([2][]byte) }}

// joinColumns joins the low halves of the bytes of two columns, and the high ones.
func joinColumns(low, high, a, b []byte) {
	const halves = 0x0F0F0F0F0F0F0F0F
	for ; len(a) >= 8; low, high, a, b = low[8:], high[8:], a[8:], b[8:] {
		x, y := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b)
		binary.LittleEndian.PutUint64(low, x&halves|y&halves<<4)
		binary.LittleEndian.PutUint64(high, x>>4&halves|y&^halves)
	}
	for i := range a {
		low[i], high[i] = a[i]&15|b[i]<<4, a[i]>>4|b[i]&0xF0
	}
}

// buffers are what decoding uses again and again.
type buffers struct {
	turned, codes  []byte
	scales, offset []float32
	sides          []float32
}

// Decode restores an area.
func (w *Integers) Decode(dst []float32, src [][]byte, a tile.Area, s *tile.Scratch) {
	b := tile.PartOf[buffers](s)
	w = w.whole(src)
	scales, offsets, exact := w.sides(src, a, b)
	first, last := w.groupsOf(a)
	n := last - first
	packed, stride := w.rowsOfCodes(src[0], a, b)
	codes := tile.Sized(&b.codes, tile.CeilDiv(a.Cols, 32)*32)
	for r := range a.Rows {
		row := dst[r*a.Cols : (r+1)*a.Cols]
		codes := w.split(codes, packed[r*stride:(r+1)*stride], a)
		scales, offsets := scales[r*n:(r+1)*n], offsets[r*n:(r+1)*n]
		if w.columns != nil {
			w.scaleColumns(row, codes, scales, offsets, a.Col)
			continue
		}
		own := a.Col/w.group - first // not 0 where a tensor of groups is there, and says what follows anyway
		if exact {
			w.scaleGroups(row, codes, scales[own:], offsets[own:], a.Col)
		} else {
			w.subtractGroups(row, codes, scales[own:], offsets[own:], a.Col)
		}
	}
}

// whole is the weight with what is shared, taken from an area's bytes where it does not
// hold it. What is wrong there makes values that are not numbers.
func (w *Integers) whole(src [][]byte) *Integers {
	if w.held.done {
		return w
	}
	var shared [][]byte
	for _, i := range w.Shared() {
		shared = append(shared, src[i])
	}
	if one, err := w.WithShared(shared); err == nil {
		return one.(*Integers)
	}
	lost := *w
	lost.held, lost.columns = heldTensors{done: true}, make([]int32, w.cols)
	for c := range lost.columns {
		lost.columns[c] = -1
	}
	return &lost
}

// sides returns the scales of an area, row by row, and the zero points. Where all that
// a zero point times a scale can be is exact, so is its difference from a code times
// that scale, and the zero points come as such products, negative.
func (w *Integers) sides(src [][]byte, a tile.Area, b *buffers) (scales, offsets []float32, exact bool) {
	first, last := w.groupsOf(a)
	n, d := last-first, w.tensors[1].Dtype
	scales, offsets = tile.Sized(&b.scales, n*a.Rows), tile.Sized(&b.offset, n*a.Rows)
	if w.oneScale {
		widen.Widen(scales[:1], src[1], d)
		for i := range scales {
			scales[i] = scales[0]
		}
	} else if w.scalesByGroup {
		stored := tile.Sized(&b.sides, n*a.Rows)
		widen.Widen(stored, src[1], d)
		transpose.All(scales, stored, n, a.Rows)
	} else {
		widen.Widen(scales, src[1], d)
	}
	exact = d != safetensors.F32 && w.columns == nil
	for r := range a.Rows {
		for g := range n {
			i := r*n + g
			offsets[i] = float32(w.zero(w.held.zeros, a.Row+r, first+g))
			exact = exact && scales[i] >= 0 // else a difference of 0 would lose its sign
		}
	}
	if exact {
		for i, scale := range scales {
			offsets[i] *= -scale
		}
	}
	return scales, offsets, exact
}

// zero is the zero point of a row's group, in units of codes as they are decoded.
func (w *Integers) zero(src []byte, row, group int) int {
	z, mask := &w.zeros, 1<<w.bits-1
	if z.index == 0 || src == nil {
		return z.constant
	}
	code := 0
	switch z.lies {
	case zerosAsBytes:
		if w.oneScale {
			return int(int8(src[0]))
		}
		return int(int8(src[row*w.groups()+group]))
	case zerosByGroup:
		code = bitsAt(src[group*len(src)/w.groups():], row*w.bits, w.bits)
	case zerosInterleaved:
		code = bitsAt(src[group*len(src)/w.groups():], row&^7*4+4*oddHalf[row&7], 4)
	case zerosByRow:
		across := w.groups() * 4
		word, bit := w.place(row)
		code = bitsAt(src[word*across+4*group:], bit, min(w.bits, 32-bit))
		if over := bit + w.bits - 32; over > 0 {
			code |= bitsAt(src[(word+1)*across+4*group:], 0, over) << (w.bits - over)
		}
	}
	return (code + z.constant) & mask
}

// oddHalf is the inverse of evenFirst.
var oddHalf = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

// bitsAt returns some bits, at most eight, of a stream.
func bitsAt(src []byte, at, bits int) int {
	x := uint(src[at/8])
	if at%8+bits > 8 {
		x |= uint(src[at/8+1]) << 8
	}
	return int(x>>(at%8)) & (1<<bits - 1)
}

// rowsOfCodes returns the codes of an area in rows of that many bytes each.
func (w *Integers) rowsOfCodes(src []byte, a tile.Area, b *buffers) (rows []byte, stride int) {
	first, last := w.wordsOf(a.Col, a.Col+a.Cols)
	switch w.codes {
	case bytes:
		return src, a.Cols
	case packedColumns:
		part := *w
		part.words = last - first
		turned := tile.Sized(&b.turned, len(src))
		part.turnWords(turned, src, 0)
		return turned, 4 * part.words
	case interleaved:
		part := *w
		part.words = tile.CeilDiv(a.Cols, 8)
		from, all := a.Row&^7, (tile.CeilDiv(a.Row+a.Rows, 8)-a.Row/8)*8
		turned := tile.Sized(&b.turned, all*4*part.words)
		part.turnInterleaved(turned, src, 0)
		return turned[(a.Row-from)*4*part.words:], 4 * part.words
	}
	return src, 4 * (last - first)
}

// split writes the codes of a row to a byte each.
func (w *Integers) split(codes, packed []byte, a tile.Area) []byte {
	switch {
	case w.spaced:
		splitWords(codes[:a.Cols], packed, w.bits)
	case w.bits == 8:
		return packed[:a.Cols]
	case w.bits == 4:
		kernel.SplitFours(codes[:(a.Cols+1)&^1], packed)
	default:
		splitBits(codes, packed, w.bits)
	}
	return codes[:a.Cols]
}

// splitWords takes codes of words that each hold whole ones.
func splitWords(codes, packed []byte, bits int) {
	mask := uint32(1<<bits - 1)
	for ; len(codes) > 0; packed = packed[4:] {
		x := binary.LittleEndian.Uint32(packed)
		some := codes[:min(len(codes), 32/bits)]
		for i := range some {
			some[i] = byte(x >> (i * bits) & mask)
		}
		codes = codes[len(some):]
	}
}

// splitBits takes codes of a stream of bits, eight at a time.
func splitBits(codes, packed []byte, bits int) {
	var last [8]byte
	mask := byte(1<<bits - 1)
	for ; len(packed) >= bits; packed, codes = packed[bits:], codes[8:] {
		from := packed
		if len(from) < 8 {
			copy(last[:], from)
			from = last[:]
		}
		x := binary.LittleEndian.Uint64(from)
		for i := range 8 {
			codes[i] = byte(x>>(i*bits)) & mask
		}
	}
	if len(packed) > 0 {
		last = [8]byte{}
		copy(last[:], packed)
		x := binary.LittleEndian.Uint64(last[:])
		for i := range min(len(packed)*8/bits, len(codes)) {
			codes[i] = byte(x>>(i*bits)) & mask
		}
	}
}

// unsigned and signed are the values of codes.
var unsigned, signed = kernel.IntValues(0, 0), kernel.IntValues(0x80, -0x80)

func (w *Integers) values() *kernel.Values {
	if w.codes == bytes {
		return signed
	}
	return unsigned
}

// scaleGroups restores a row from its scales, and zero points times these.
func (w *Integers) scaleGroups(dst []float32, codes []byte, scales, zeros []float32, from int) {
	w.eachGroup(len(dst), from, func(first, whole, at, to int) {
		kernel.DecodeBytes(dst[at:to], codes[at:to], scales[first:first+whole], zeros[first:first+whole], (to-at)/whole, w.values())
	})
}

// subtractGroups restores a row from its scales and its zero points.
func (w *Integers) subtractGroups(dst []float32, codes []byte, scales, zeros []float32, from int) {
	v := w.values()
	w.eachGroup(len(dst), from, func(first, whole, at, to int) {
		for i, group := 0, (to-at)/whole; i < whole; i, at = i+1, at+group {
			scale, zero := scales[first+i], zeros[first+i]
			for j, code := range codes[at : at+group] {
				dst[at+j] = (v.At(code) - zero) * scale
			}
		}
	})
}

// eachGroup calls f for the groups of n columns from one on: for all that are whole in
// one go, and for parts of some at the ends.
func (w *Integers) eachGroup(n, from int, f func(first, whole, at, to int)) {
	at, group := 0, 0
	if part := from % w.group; part > 0 || n < w.group {
		at, group = min(w.group-part, n), 1
		f(0, 1, 0, at)
	}
	if whole := (n - at) / w.group; whole > 0 {
		f(group, whole, at, at+whole*w.group)
		at, group = at+whole*w.group, group+whole
	}
	if at < n {
		f(group, 1, at, n)
	}
}

// scaleColumns restores a row whose columns are in groups in any order.
func (w *Integers) scaleColumns(dst []float32, codes []byte, scales, zeros []float32, from int) {
	v := w.values()
	for i, g := range w.columns[from : from+len(dst)] {
		if g < 0 {
			dst[i] = float32(math.NaN())
			continue
		}
		dst[i] = (v.At(codes[i]) - zeros[g]) * scales[g]
	}
}
