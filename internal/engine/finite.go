package engine

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// checkRestored is the rule for layers that decode to NaN or infinity, the same
// wherever one is read: verify reports it, and nothing is made of its values. a is
// an area of a weight taken as a matrix of that many columns.
func checkRestored(c *checkpoint.Checkpoint, l *layout.Layer, a tile.Area, values []float32, columns int) error {
	var n *tile.NonfiniteError
	if errors.As(tile.CheckArea(a, values, columns), &n) {
		return restoredError(c, l, n)
	}
	return nil
}

func restoredError(c *checkpoint.Checkpoint, l *layout.Layer, n *tile.NonfiniteError) error {
	row, col := place2D(l.Shape(), n.Index)
	return usage.SourceErrorf("%s: layer %s: value [%d, %d] decodes to %v: verify the file, or fetch it again",
		c.File(l.Parts[0]), l.Name, row, col, n.Value)
}

// place2D is where the value of that index stands in rows of the last dimension.
func place2D(shape []int, index int) (row, col int) {
	columns := 1
	if len(shape) > 0 {
		columns = max(shape[len(shape)-1], 1)
	}
	return index / columns, index % columns
}

// checkFits refuses values that a restored weight's dtype turns into infinity.
func checkFits(c *checkpoint.Checkpoint, l *layout.Layer, values []float32, out safetensors.Dtype) error {
	const beyond = 65520 // what rounds to infinity in F16
	if out != safetensors.F16 {
		return nil
	}
	if lo, hi := kernel.MinMax(values); lo <= -beyond || hi >= beyond {
		return usage.SourceErrorf("%s: layer %s has a value of %g, which F16 does not hold: BF16 and F32 do", c.File(l.Parts[0]), l.Name, max(-lo, hi))
	}
	return nil
}

// surelyFinite reports whether what is stored of an area decodes to finite values
// without decoding it: no code is NaN or infinity, and no number so large that
// products of a few of them could be.
func surelyFinite(parts []checkpoint.Tensor, src [][]byte) bool {
	for i, part := range parts {
		if !Moderate(src[i], part.Dtype, i == 0) {
			return false
		}
	}
	return true
}

// lowBits and highBits are a bit of every byte.
const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// codeMasks fill the bits of codes that may be anything where others are all ones,
// which makes them NaN, or infinity.
var codeMasks = map[safetensors.Dtype]uint64{
	safetensors.F8_E4M3: 0x80 * lowBits,
	safetensors.F8_E5M2: 0x83 * lowBits,
}

// Moderate reports whether the stored numbers are finite, and so small that products
// of a few of them are too.
func Moderate(raw []byte, d safetensors.Dtype, codes bool) bool {
	if mask, ok := codeMasks[d]; ok {
		return !anyOnes(raw, mask)
	}
	switch {
	case codec.Floats(d):
		return moderateFloats(raw, d)
	case codes && (d == safetensors.U8 || d == safetensors.I8):
		return true
	case d == safetensors.U8 || d == safetensors.F8_E8M0: // powers of two, maybe
		for _, b := range raw {
			if b > 127+largest {
				return false
			}
		}
		return true
	}
	return d == safetensors.I8
}

// anyOnes reports whether a byte is all ones once the mask is in it.
func anyOnes(raw []byte, mask uint64) bool {
	for ; len(raw) >= 8; raw = raw[8:] {
		x := ^(binary.LittleEndian.Uint64(raw) | mask) // whose bytes are 0 then
		if (x-lowBits)&^x&highBits != 0 {
			return true
		}
	}
	for _, b := range raw {
		if b|byte(mask) == 0xFF {
			return true
		}
	}
	return false
}

// largest is the exponent up to which numbers are moderate: a product of three and
// a code is finite still, and a sum of many of them.
const largest = 30

func moderateFloats(raw []byte, d safetensors.Dtype) bool {
	var values [256]float32
	width := d.Bits() / 8
	for len(raw) > 0 {
		n := min(len(raw)/width, len(values))
		codec.Widen(values[:n], raw[:n*width], d)
		lo, hi := kernel.MinMax(values[:n])
		if !(max(-lo, hi) <= 1<<largest) || math.IsNaN(float64(lo)) {
			return false
		}
		raw = raw[n*width:]
	}
	return true
}

// finiteTasks yields the looking for values of a layer that are not finite, for one
// that is copied as it is stored.
func finiteTasks(c *checkpoint.Checkpoint, l *layout.Layer, r Resources, yield func(stream.Task) bool) bool {
	d := NewDecoding(c, l, safetensors.F32, r)
	columns := l.Codec.Cut().Cols
	return d.tiles(yield, func(w *stream.Worker, _ int, a tile.Area) error {
		src := make([][]byte, len(l.Parts))
		if _, err := d.read(w, l.Codec, a, src); err != nil {
			return err
		}
		if surelyFinite(l.Parts, src) {
			return nil
		}
		values := w.Floats(0, a.Values())
		if _, err := d.restore(w, values, a); err != nil {
			return err
		}
		return checkRestored(c, l, a, values, columns)
	})
}
