package sdnq

import (
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// BenchmarkEncodeStored stores a tile of 128Ki values straight from bfloat16.
func BenchmarkEncodeStored(b *testing.B) {
	for _, c := range families {
		b.Run(c.dtype, func(b *testing.B) {
			s, source, data := benchmarked(b, c.dtype, c.group)
			e, scratch := s.NewEncoder(safetensors.BF16, math.MaxInt), new(tile.Scratch)
			v := tile.Values{Area: tile.Line(0, s.Values), Dtype: safetensors.BF16, Bytes: source}
			for b.Loop() {
				if err := e.Encode(data, v, scratch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
