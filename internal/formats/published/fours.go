package published

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Fours is a weight of E2M1 codes, two to a byte, the first in the low bits, with a scale
// for each block of columns of a row, by rows, and maybe one for all: value = code ×
// (scale × that of all), in single precision.
type Fours struct {
	shape      []int
	rows, cols int // as stored
	block      int
	tensors    []tile.Tensor
	all        ofAll
	unsigned0  bool // the code of −0 is 0
	// turned says that the weight is stored transposed, each of the matrices of rows
	// [bank] of the first dimension by itself.
	turned bool
	bank   int // stored rows of a matrix
	byRows bool
}

// ofAll says what the scale of all is to the others.
type ofAll uint8

const (
	none ofAll = iota
	multiplies
	divides
)

// NewNVFP4 describes codes (U8 [rows, columns/2]), scales (F8_E4M3 [rows, columns/16]) and
// one of all (F32), which multiplies the others or divides them. Of ModelOpt's, which
// multiplies, the code of −0 is 0.
func NewNVFP4(t Tensors, divide bool) (*Fours, error) {
	w, err := newFours(t, 16, safetensors.F8_E4M3)
	if err != nil {
		return nil, err
	}
	all, ok := t[tile.Scale2]
	if !ok || all.Dtype != safetensors.F32 || tile.Numel(all.Shape) != 1 {
		return nil, fmt.Errorf("its scale of all is %s %v, want one F32", all.Dtype, all.Shape)
	}
	w.tensors = append(w.tensors, all)
	if w.all = multiplies; divide {
		w.all = divides
	}
	w.unsigned0 = !divide
	return w, nil
}

// NewMXFP4 describes codes (U8 [rows, columns/2]) and scales, powers of two (U8 or F8_E8M0
// [rows, columns/32]).
func NewMXFP4(t Tensors) (*Fours, error) {
	return newFours(t, 32, safetensors.U8, safetensors.F8_E8M0)
}

// newFours describes codes of any number of dimensions, the last along a row, and scales
// of blocks of that many columns.
func newFours(t Tensors, block int, scales ...safetensors.Dtype) (*Fours, error) {
	dimensions := max(len(t[tile.Weight].Shape), 2)
	codes, err := t.want(tile.Weight, dimensions, safetensors.U8, safetensors.I8)
	if err != nil {
		return nil, err
	}
	scale, err := t.want(tile.Scale, dimensions, scales...)
	if err != nil {
		return nil, err
	}
	last := dimensions - 1
	w := &Fours{rows: tile.Numel(codes.Shape[:last]), cols: 2 * codes.Shape[last], block: block, tensors: []tile.Tensor{codes, scale}}
	w.shape = append(append([]int{}, codes.Shape[:last]...), w.cols)
	w.bank = codes.Shape[last-1]
	if w.cols%block > 0 {
		return nil, fmt.Errorf("its codes are of %d columns, want a multiple of %d", w.cols, block)
	}
	want := append(append([]int{}, codes.Shape[:last]...), w.cols/block)
	return w, shaped(scale, want...)
}

// Shape is that of the weight.
func (w *Fours) Shape() []int { return w.shape }

// Tensors are the codes, the scales of blocks and that of all.
func (w *Fours) Tensors() []tile.Tensor { return w.tensors }

// turnedRows are the rows that an area of a transposed weight is of at least: as many as a
// line of the cache has codes of would be best, and so few that areas are whole rows.
const turnedRows = 8

// Block is the number of columns that share a scale, as stored.
func (w *Fours) Block() int { return w.block }

// Cut is by blocks.
func (w *Fours) Cut() tile.Cut {
	if w.turned {
		rows := w.rows / w.bank * w.cols
		return tile.Cut{Rows: rows, Cols: w.bank, UnitRows: min(turnedRows, w.cols), UnitCols: 1, GroupRows: w.block, GroupCols: 1, BankRows: w.cols}
	}
	return tile.Cut{Rows: w.rows, Cols: w.cols, UnitRows: 1, UnitCols: w.block, GroupRows: 1, GroupCols: w.block, AnyRows: true}
}

// Needed names the bytes of an area.
func (w *Fours) Needed(i int, a tile.Area) []tile.Span {
	if i == 2 {
		return tile.Run(0, 4)
	}
	per := 2 // columns of a byte
	if i == 1 {
		per = w.block
	}
	if !w.turned {
		return tile.SpansOf(tile.Area{Row: a.Row, Rows: a.Rows, Col: a.Col / per, Cols: a.Cols / per}, w.cols/per, 1)
	}
	across := func(part tile.Area) int { return tile.CeilDiv(part.Row+part.Rows, per) - part.Row/per }
	var spans []tile.Span
	w.eachBank(a, func(bank int, part tile.Area) {
		stride := int64(w.cols / per)
		spans = append(spans, tile.Span{
			Offset: int64(bank*w.bank+part.Col)*stride + int64(part.Row/per), Size: int64(across(part)), Count: part.Cols, Stride: stride,
		})
	})
	return spans
}

// ByRows takes the bytes of codes of a transposed weight, of two rows each, by rows, and
// those of scales, of a block of rows each.
func (w *Fours) ByRows() (Weight, func(dst, src []byte, column int)) {
	if !w.turned {
		return nil, nil
	}
	turned := *w
	turned.byRows = true
	return &turned, func(dst, src []byte, column int) {
		bytes := len(dst) / w.bank
		transpose.Bytes(dst[column:], src, len(src)/bytes, bytes, w.bank)
	}
}

// ScaleRows are those of a block.
func (w *Fours) ScaleRows() int { return w.block }

// eachBank calls f for the parts of an area in each matrix, by rows of that matrix.
func (w *Fours) eachBank(a tile.Area, f func(bank int, part tile.Area)) {
	for row := a.Row; row < a.Row+a.Rows; {
		bank := row / w.cols
		end := min((bank+1)*w.cols, a.Row+a.Rows)
		f(bank, tile.Area{Row: row - bank*w.cols, Rows: end - row, Col: a.Col, Cols: a.Cols})
		row = end
	}
}

// e2m1 are the values of codes, e4m3 those of scales.
var e2m1, e4m3 = kernel.SmallValues(kernel.E2M1), kernel.SmallValues(kernel.E4M3)

// powers are the values of powers of two as bytes.
var powers = func() (all [256]float32) {
	for i := range all {
		all[i] = float32(math.Ldexp(1, i-127))
	}
	all[255] = float32(math.NaN())
	return all
}()

// Decode restores an area.
func (w *Fours) Decode(dst []float32, src [][]byte, a tile.Area, s *tile.Scratch) {
	b := tile.PartOf[buffers](s)
	scales := w.scales(src, b)
	if !w.turned {
		w.decode(dst, src[0], scales, b)
	} else {
		codes := src[0]
		w.eachBank(a, func(_ int, part tile.Area) {
			n := part.Values()
			blocks := (tile.CeilDiv(part.Row+part.Rows, w.block) - part.Row/w.block) * part.Cols
			w.decodeTurned(dst[:n], codes[:n/2], scales[:blocks], part, b)
			dst, codes, scales = dst[n:], codes[n/2:], scales[blocks:]
		})
	}
}

// scales are those of an area's blocks, as they multiply codes.
func (w *Fours) scales(src [][]byte, b *buffers) []float32 {
	scales := tile.Sized(&b.scales, len(src[1]))
	if w.all == none {
		for i, code := range src[1] {
			scales[i] = powers[code]
		}
		return scales
	}
	all := math.Float32frombits(binary.LittleEndian.Uint32(src[2]))
	var table [256]float32
	for code := range table {
		if table[code] = e4m3.At(byte(code)) * all; w.all == divides {
			table[code] = e4m3.At(byte(code)) / all
		}
	}
	for i, code := range src[1] {
		scales[i] = table[code]
	}
	return scales
}

// near is how many values are decoded at a time: their codes stay in the nearest cache.
const near = 8 << 10

// decode restores consecutive blocks.
func (w *Fours) decode(dst []float32, packed []byte, scales []float32, b *buffers) {
	for len(dst) > 0 {
		n := min(len(dst), near)
		codes := tile.Sized(&b.codes, n)
		kernel.SplitFours(codes, packed)
		kernel.DecodeBytes(dst[:n], codes, scales[:n/w.block], nil, w.block, e2m1)
		if w.unsigned0 {
			for i := range dst[:n] {
				dst[i] += 0
			}
		}
		dst, packed, scales = dst[n:], packed[n/2:], scales[n/w.block:]
	}
}

// decodeTurned restores an area of a matrix that is stored transposed. Codes are turned
// around a few stored rows at a time, and those of a row restored from their own scales.
func (w *Fours) decodeTurned(dst []float32, packed []byte, scales []float32, a tile.Area, b *buffers) {
	half, blocks := a.Rows/2, len(scales)/a.Cols
	turned := packed
	if !w.byRows {
		turned = tile.Sized(&b.turned, len(packed))
		transpose.Bytes(turned, packed, a.Cols, half, a.Cols)
	}
	sides := scales
	if !w.byRows {
		sides = tile.Sized(&b.sides, len(scales))
		transpose.All(sides, scales, a.Cols, blocks)
	}
	for r := range half {
		pair := turned[r*a.Cols : (r+1)*a.Cols]
		block := (a.Row+2*r)/w.block - a.Row/w.block
		scale := sides[block*a.Cols : (block+1)*a.Cols]
		joinedRows(dst[2*r*a.Cols:(2*r+1)*a.Cols], dst[(2*r+1)*a.Cols:(2*r+2)*a.Cols], pair, scale)
	}
}

// joinedRows restores two rows, of the low and the high halves of bytes.
func joinedRows(low, high []float32, pair []byte, scales []float32) {
	low, high, scales = low[:len(pair)], high[:len(pair)], scales[:len(pair)]
	for i, code := range pair {
		scale := scales[i]
		low[i] = levels16[code&15] * scale
		high[i] = levels16[code>>4] * scale
	}
}

// levels16 are the values of E2M1 codes.
var levels16 = func() (all [16]float32) {
	for i := range all {
		all[i] = e2m1.At(byte(i))
	}
	return all
}()

// DecodeBF16 restores an area of transposed matrices whose codes and scales come by rows.
// BF16 holds every code times a power of two that is neither among its least nor its
// greatest.
func (w *Fours) DecodeBF16(dst []byte, src [][]byte, a tile.Area, _ *tile.Scratch) bool {
	if !w.byRows || w.all != none || a.Cols != w.bank || !midPowers(src[1]) {
		return false
	}
	codes, scales, row := src[0], src[1], 2*a.Cols
	w.eachBank(a, func(_ int, part tile.Area) {
		first := part.Row / w.block
		for r := 0; r < part.Rows; r += 2 {
			block := (part.Row+r)/w.block - first
			joinedBF16(dst[:row], dst[row:2*row], codes[:a.Cols], scales[block*a.Cols:(block+1)*a.Cols])
			dst, codes = dst[2*row:], codes[a.Cols:]
		}
		scales = scales[(tile.CeilDiv(part.Row+part.Rows, w.block)-first)*a.Cols:]
	})
	return true
}

// midPowers reports whether all scales are such that a code of E2M1, from 1/2 to 6, times
// one is a normal number of BF16.
func midPowers(scales []byte) bool {
	const least, most = 2, 252
	for _, s := range scales {
		if s-least > most-least {
			return false
		}
	}
	return true
}

// joinedBF16 is [joinedRows] to BF16, four bytes at a time: a scale adds to the exponents
// of four values at once.
func joinedBF16(low, high, pair, scales []byte) {
	scales, low, high = scales[:len(pair)], low[:2*len(pair)], high[:2*len(pair)]
	for len(pair) >= 4 && len(scales) >= 4 && len(low) >= 8 && len(high) >= 8 {
		codes, by := apart(binary.LittleEndian.Uint32(pair)), apart(binary.LittleEndian.Uint32(scales))-ones
		binary.LittleEndian.PutUint64(low, fourBF16(codes&(15*ones), by<<7))
		binary.LittleEndian.PutUint64(high, fourBF16(codes>>4&(15*ones), by<<7))
		pair, scales, low, high = pair[4:], scales[4:], low[8:], high[8:]
	}
	for i, code := range pair {
		by := uint64(scales[i]-1) << 7
		binary.LittleEndian.PutUint16(low[2*i:], uint16(fourBF16(uint64(code&15), by)))
		binary.LittleEndian.PutUint16(high[2*i:], uint16(fourBF16(uint64(code>>4), by)))
	}
}

// ones is 1 in each of four numbers of 16 bits.
const ones = 0x0001000100010001

// apart makes four numbers of 16 bits of four bytes.
func apart(four uint32) uint64 {
	x := uint64(four)
	x = (x | x<<16) & 0x0000FFFF0000FFFF
	return (x | x<<8) & 0x00FF00FF00FF00FF
}

// fourBF16 are four codes of E2M1 in BF16, with what is added to the exponent of each but
// a zero. A magnitude from 2 on is exponent and mantissa, which lie as in BF16; 1 is 1/2,
// which has the exponent of 0 and no mantissa.
func fourBF16(codes, exponents uint64) uint64 {
	k := codes & (7 * ones)
	some, more := (k+7*ones)>>3&ones, (k+6*ones)>>3&ones // from 1, from 2
	return codes>>3&ones<<15 | k<<6&(more*0xFFFF) + exponents&(some*0xFFFF)
}
