package engine

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// checkRestored is the one rule for layers that decode to NaN or infinity, wherever a
// layer is read: verify reports it, and every other command refuses to go on. a is an
// area of the weight seen as a matrix of that many columns.
func checkRestored(c *checkpoint.Checkpoint, l *layout.Layer, a tile.Area, values []float32, columns int) error {
	var n *tile.NonfiniteError
	if errors.As(tile.CheckArea(a, values, columns), &n) {
		return restoredError(c, l, n)
	}
	return nil
}

func restoredError(c *checkpoint.Checkpoint, l *layout.Layer, n *tile.NonfiniteError) error {
	row, col := rowAndColumn(l.Shape(), n.Index)
	return usage.SourceErrorf("%s: layer %s: value [%d, %d] decodes to %v: verify the file, or fetch it again",
		c.File(l.Parts[0]), l.Name, row, col, n.Value)
}

// rowAndColumn returns where the value with that index in the flattened weight lies, in
// rows of the last dimension.
func rowAndColumn(shape []int, index int) (row, col int) {
	columns := 1
	if len(shape) > 0 {
		columns = max(shape[len(shape)-1], 1)
	}
	return index / columns, index % columns
}

// checkFits refuses values that become infinite in the dtype of the restored weight.
func checkFits(c *checkpoint.Checkpoint, l *layout.Layer, values []float32, out safetensors.Dtype) error {
	if v, ok := beyond(values, out); ok {
		return usage.SourceErrorf("%s: layer %s has a value of %g, which F16 does not hold: BF16 and F32 do", c.File(l.Parts[0]), l.Name, v)
	}
	return nil
}

// beyond returns the greatest magnitude if it becomes infinite in a dtype.
func beyond(values []float32, d safetensors.Dtype) (most float32, ok bool) {
	const first = 65520 // what rounds to infinity in F16
	if d != safetensors.F16 {
		return 0, false
	}
	lo, hi := kernel.MinMax(values)
	most = max(-lo, hi)
	return most, most >= first
}

// surelyFinite reports whether the stored bytes of an area certainly decode to finite
// values, judged without decoding them: no code is NaN or infinity, and no scale is so
// large that a product of a few of them could overflow.
func surelyFinite(parts []checkpoint.Tensor, src [][]byte) bool {
	for i, part := range parts {
		if strings.HasSuffix(part.Name, "_smooth_factor") { // values are divided by it
			return false
		}
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

// codeMasks are the bits that may have any value in a code that is NaN or infinity:
// such a code is one whose other bits are all ones.
var codeMasks = map[safetensors.Dtype]uint64{
	safetensors.F8_E4M3: 0x80 * lowBits,
	safetensors.F8_E5M2: 0x83 * lowBits,
}

// Moderate reports whether the stored numbers are finite, and small enough for products
// of a few of them to be finite too. codes tells whether the tensor holds a layer's
// codes.
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
			if b > 127+maxModerate {
				return false
			}
		}
		return true
	}
	return d == safetensors.I8
}

// anyOnes reports whether any byte consists of ones alone after it is ORed with the
// mask, which has the same value in each of its bytes.
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

// maxModerate is the binary exponent up to which numbers count as moderate: a product
// of three of them and a code is still finite, and so is a sum of many such products.
const maxModerate = 30

func moderateFloats(raw []byte, d safetensors.Dtype) bool {
	var values [256]float32
	width := d.Bits() / 8
	for len(raw) > 0 {
		n := min(len(raw)/width, len(values))
		codec.Widen(values[:n], raw[:n*width], d)
		lo, hi := kernel.MinMax(values[:n])
		if !(max(-lo, hi) <= 1<<maxModerate) || math.IsNaN(float64(lo)) {
			return false
		}
		raw = raw[n*width:]
	}
	return true
}

// finiteTasks yields tasks that look for values that are not finite in a layer that is
// copied as it is stored.
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
