package quant

import (
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

// BenchmarkEncodeRaw stores a tile of 128Ki values straight from bfloat16.
func BenchmarkEncodeRaw(b *testing.B) {
	for _, c := range families {
		b.Run(c.dtype, func(b *testing.B) {
			s, source, data := benchmarked(b, c.dtype, c.group)
			e, scratch := s.NewEncoder(s.Values).(RawEncoder), new(Scratch)
			for b.Loop() {
				if err := e.EncodeRaw(data, 0, source, safetensors.BF16, scratch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
