package comfy

import (
	"encoding/hex"
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestConvRotCodesEqualReference: all codes of 16-bit weights, nearly all of
// F32 ones; scales within a few units.
func TestConvRotCodesEqualReference(t *testing.T) {
	rows, scales, off := 0, 0, 0
	golden.RotationRows(t, "convrot", func(name string, in golden.Input, n int, rest []string) {
		w := append([]float32(nil), in.W...)
		rotation.RotateOnce(w, n)
		codes := make([]byte, len(w))
		raw, err := hex.DecodeString(rest[1])
		if err != nil {
			t.Fatal(err)
		}
		want := golden.Widen(raw, safetensors.F32)
		for r := range in.Shape[0] {
			x := w[r*in.Shape[1] : (r+1)*in.Shape[1]]
			lo, hi := kernel.MinMax(x)
			scale := max(max(-lo, hi)/127, 1e-30)
			rows++
			if scale != want[r] {
				scales++
				if d := math.Abs(float64(scale)/float64(want[r]) - 1); d > 4e-6 {
					t.Errorf("%s, %d: scale %d is off by %g", name, n, r, d)
				}
			}
			kernel.Divide(x, 0, scale, -128, 127)
			for i, v := range x {
				codes[r*in.Shape[1]+i] = byte(int8(math.RoundToEven(float64(v))))
			}
		}
		if got := golden.Describe(tile.Tensor{Role: tile.Weight, Dtype: safetensors.I8, Shape: in.Shape}, codes); got != rest[0] {
			off++
			if in.Dtype != safetensors.F32 {
				t.Errorf("%s, %d: codes %s, want %s", name, n, got, rest[0])
			}
		}
	})
	t.Logf("%d of %d scales differ, codes of %d weights", scales, rows, off)
}
