package published

import (
	"encoding/binary"
	"fmt"
	"math"

	widen "github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Form is what the codes, scales and zero points of a weight are in words of other
// formats: value = code × scale + zero.
type Form struct {
	Dtype string // of the codes, as SDNQ calls it
	Group int    // columns that share a scale
	Zeros bool   // there are zeros
	// Rounds says that scales or zeros, as single numbers, are rounded.
	Rounds bool
}

// Grouped is a weight whose codes and scales other formats may have too.
type Grouped interface {
	Weight
	// Form is that of the weight. The error says why no other format has its like.
	Form() (Form, error)
	// Codes fills dst with the codes of an area, a byte each.
	Codes(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch)
	// Sides returns the scales of an area's groups, row by row, and the zeros, nil where
	// there are none. They are valid until the next call.
	Sides(src [][]byte, a tile.Area, s *tile.Scratch) (scales, zeros []float32)
}

// Form is that of codes from 0 on, and zeros.
func (w *Integers) Form() (Form, error) {
	if w.columns != nil || w.find(tile.GroupOfColumn) > 0 && !w.unordered && w.groups() > 1 {
		return Form{}, fmt.Errorf("its columns may be in groups in an order of their own")
	}
	f := Form{Dtype: fmt.Sprintf("uint%d", w.bits), Group: w.group, Zeros: true}
	f.Rounds = w.zeros.index > 0 && w.tensors[1].Dtype == safetensors.F32
	if w.codes == bytes {
		if f.Zeros = w.zeros.index > 0; !f.Zeros {
			f.Dtype = "int8"
		}
	}
	return f, nil
}

// Codes are those of an area. Signed ones with zeros count from −128 on.
func (w *Integers) Codes(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch) {
	b := tile.PartOf[buffers](s)
	packed, stride := w.rowsOfCodes(src[0], a, b)
	room := tile.Sized(&b.codes, tile.CeilDiv(a.Cols, 32)*32)
	for r := range a.Rows {
		copy(dst[r*a.Cols:(r+1)*a.Cols], w.split(room, packed[r*stride:(r+1)*stride], a))
	}
	if w.codes == bytes && w.zeros.index > 0 {
		for i := range dst {
			dst[i] ^= 0x80
		}
	}
}

// Sides are those of an area.
func (w *Integers) Sides(src [][]byte, a tile.Area, s *tile.Scratch) (scales, zeros []float32) {
	held := w.whole(src)
	scales, zeros, exact := held.sides(src, a, tile.PartOf[buffers](s))
	if w.codes == bytes && w.zeros.index == 0 {
		return scales, nil
	}
	from := float32(0)
	if w.codes == bytes {
		from = 128
	}
	for i, scale := range scales {
		if exact {
			zeros[i] -= float32(from * scale)
		} else {
			zeros[i] = -float32((zeros[i] + from) * scale)
		}
	}
	return scales, zeros
}

// Form is that of E2M1 codes.
func (w *Fours) Form() (Form, error) {
	if w.turned || len(w.shape) != 2 {
		return Form{}, fmt.Errorf("it has several matrices")
	}
	return Form{Dtype: "float4_e2m1fn", Group: w.block}, nil
}

// Codes are those of an area.
func (w *Fours) Codes(dst []byte, src [][]byte, _ tile.Area, _ *tile.Scratch) {
	kernel.SplitFours(dst, src[0])
}

// Sides are the scales of an area, that of all among them.
func (w *Fours) Sides(src [][]byte, _ tile.Area, s *tile.Scratch) (scales, zeros []float32) {
	return w.scales(src, tile.PartOf[buffers](s)), nil
}

// All returns the scale of all as a factor of the others, and whether that is exact.
func (w *Fours) All(src [][]byte) float32 {
	all := math.Float32frombits(binary.LittleEndian.Uint32(src[2]))
	if w.all == divides {
		return 1 / all
	}
	return all
}

// HasAll reports whether there is a scale of all, and whether it multiplies the others.
func (w *Fours) HasAll() (has, factor bool) { return w.all != none, w.all == multiplies }

// Form is that of rows.
func (w *Rows) Form() (Form, error) {
	return Form{Dtype: "int8", Group: w.shape[1], Rounds: true}, nil
}

// Codes are those of an area.
func (w *Rows) Codes(dst []byte, src [][]byte, _ tile.Area, _ *tile.Scratch) { copy(dst, src[0]) }

// Sides are the scales of rows.
func (w *Rows) Sides(src [][]byte, a tile.Area, s *tile.Scratch) (scales, zeros []float32) {
	scales = tile.Sized(&tile.PartOf[buffers](s).scales, a.Rows)
	widen.Widen(scales, src[1], w.tensors[1].Dtype)
	kernel.ScaleBy(scales, per127)
	return scales, nil
}
