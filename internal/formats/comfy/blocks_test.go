package comfy

import (
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// BenchmarkEncodeBlocks stores a band of blocks straight from bfloat16.
func BenchmarkEncodeBlocks(b *testing.B) {
	for name, rule := range map[string]*ScaleRule{"float8": E4M3Group, "int8": Int8Block} {
		for _, rows := range []bool{true, false} {
			kind := map[bool]string{true: " rows", false: " blocks"}[rows]
			b.Run(name+kind, func(b *testing.B) {
				shape := []int{128, 4096}
				w := make([]float32, 128*4096)
				for i := range w {
					w[i] = float32(math.Sin(float64(i)))
				}
				_, raw := tiletest.RoundedTo(w, safetensors.BF16)
				var s interface {
					NewEncoder(from safetensors.Dtype, memory int) tile.Encoder
				}
				a, scales := tile.Area{Row: 0, Col: 0, Rows: 128, Cols: 4096}, 32
				s, _ = NewBlocks(shape, rule, 128, false)
				if rows {
					s, _ = NewScaled(shape, rule, true, false)
					a, scales = tile.Line(0, len(w)), 128
				}
				e, dst, scratch := s.NewEncoder(safetensors.BF16, math.MaxInt), [][]byte{make([]byte, len(w)), make([]byte, 4*scales)}, new(tile.Scratch)
				b.SetBytes(int64(len(raw)))
				for b.Loop() {
					if err := e.Encode(dst, tile.Values{Area: a, Dtype: safetensors.BF16, Bytes: raw}, scratch); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
