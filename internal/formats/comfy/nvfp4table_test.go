package comfy

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestFoursOfEveryValue: every value of bfloat16 beside every scale has the code
// that dividing gives it, also where it lies on the bound between two codes; a
// weight with one that has another would differ from the reference's.
func TestFoursOfEveryValue(t *testing.T) {
	t.Parallel()
	mantissas := []uint32{147, 177, 221} // of the greatest magnitude: divided by 21, by 3, by neither 3 nor 7
	if !testing.Short() {
		mantissas = mantissas[:0]
		for m := range uint32(128) {
			mantissas = append(mantissas, 128+m)
		}
	}
	tables, s := 0, new(tile.Scratch)
	for _, mantissa := range mantissas {
		most := uint16(0x3E80 | mantissa&0x7F)
		largest := math.Float32frombits(uint32(most) << 16)
		if own := buffersOf(s); own.fours.set(largest/2688, own) {
			tables++
		}
		for amax := uint32(most); amax > uint32(most)-21*128; amax -= 61 {
			compareBlocks(t, uint16(amax), largest)
		}
	}
	if tables < len(mantissas)/2 {
		t.Errorf("of %d tensors, %d are looked up", len(mantissas), tables)
	}
}

// blocksOf are all values up to a greatest magnitude, which each block of them has,
// in rows of that many.
func blocksOf(amax uint16, block, columns int) (raw []byte) {
	for bits := uint16(0); bits <= amax; {
		raw = binary.LittleEndian.AppendUint16(raw, amax)
		for i := range uint16(block - 1) {
			value := min(bits, amax)
			bits++
			if testing.Short() {
				bits += 3
			}
			raw = binary.LittleEndian.AppendUint16(raw, value|i%2<<15)
		}
	}
	return append(raw, make([]byte, (2*columns-len(raw)%(2*columns))%(2*columns))...)
}

// compareBlocks encodes those of a tensor with that range.
func compareBlocks(t *testing.T, amax uint16, largest float32) {
	t.Helper()
	const columns = 64
	raw := blocksOf(amax, 16, columns)
	n, err := NewNVFP4([]int{len(raw) / 2 / columns, columns}, BlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	values := floats.Widen(make([]float32, len(raw)/2), raw, safetensors.BF16)
	r := tile.Range{Lo: -largest, Hi: largest}
	compareStepwise(t, n, tile.Values{Area: wholeArea(n), Dtype: safetensors.BF16, Bytes: raw}, []tile.Range{r}, n.stepwise(values, r))
}
