package kernel

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkKernels reports bytes of bfloat16 source per second, of values that
// stay in a core's cache.
func BenchmarkKernels(b *testing.B) {
	const n = 32 << 10
	r := rand.New(rand.NewPCG(1, 2))
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	x, codes, raw := make([]float32, n), make([]uint16, n), make([]byte, 4*n)
	NarrowF16(raw, w)
	fp6 := &Packed{Bits: 6, Exponent: 3, Mantissa: 2}
	for _, bench := range []struct {
		name string
		run  func()
	}{
		{"WidenBF16", func() { WidenBF16(x, raw) }},
		{"WidenF16", func() { WidenF16(x, raw) }},
		{"NarrowBF16", func() { NarrowBF16(raw, w) }},
		{"NarrowF16", func() { NarrowF16(raw, w) }},
		{"MinMax", func() { MinMax(w) }},
		{"Divide", func() { copy(x, w); Divide(x, 0, 0.01, -127, 127) }},
		{"Multiply", func() { copy(x, w); Multiply(x, 100, -127, 127) }},
		{"RoundInts", func() { RoundInts(codes, w, 0, 0) }},
		{"EncodeE4M3", func() { EncodeSmall(codes, w, E4M3) }},
		{"EncodeFloat6", func() { EncodePacked(codes, w, fp6) }},
		{"DecodeInts", func() { DecodeInts(x, codes, 0, -8) }},
		{"DecodeE4M3", func() { clear(codes); DecodeSmall(x, codes, E4M3) }},
		{"DecodeFloat6", func() { DecodePacked(x, codes, fp6) }},
		{"ScaleBy", func() { ScaleBy(x, 1) }},
		{"ScaleFrom", func() { ScaleFrom(x, 1, 0.5) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(2 * n)
			for b.Loop() {
				bench.run()
			}
		})
	}
}
