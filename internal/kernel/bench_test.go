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
	bf16, small := make([]byte, 2*n), make([]byte, n)
	NarrowBF16(bf16, w)
	steps, symmetric := Steps{}.Sized(n/64), Steps{}.Sized(n/16)
	for i := range n / 16 {
		symmetric.Set(i, 0, 0.01)
		steps.Set(i%(n/64), -0.25, 0.01)
	}
	signed := &Ints{-127, 127, 0, true}
	ints, merged := &Ints{0, 15, 0, false}, NewMerge(5)
	merged.Add(3, 1<<40-1)
	fp6 := &Packed{Bits: 6, Exponent: 3, Mantissa: 2}
	e4m3, float6 := SmallFloats(E4M3, 448, false), PackedFloats(fp6, -28, 28)
	fours := nvfp4BlocksUnderTest()
	sixes, whole, errors := PackedValues(fp6), IntValues(0, 0), new(Errors)
	for _, bench := range []struct {
		name string
		run  func()
	}{
		{"WidenBF16", func() { WidenBF16(x, raw) }},
		{"RangesBF16 of 16", func() { Ranges(x[:n/16], x[n/16:n/8], bf16, RawBF16, 16) }},
		{"RangesBF16 of 32", func() { Ranges(x[:n/32], x[n/32:n/16], bf16, RawBF16, 32) }},
		{"RangesBF16 of 64", func() { Ranges(x[:n/64], x[n/64:n/32], bf16, RawBF16, 64) }},
		{"RangesBF16 of 128", func() { Ranges(x[:n/128], x[n/128:n/64], bf16, RawBF16, 128) }},
		{"RangesBF16 of 4096", func() { Ranges(x[:n/4096], x[n/4096:n/2048], bf16, RawBF16, 4096) }},
		{"AbsMaxBF16 of 16", func() { AbsMax(x[:n/16], bf16, RawBF16, 16) }},
		{"AbsMaxBF16 of 32", func() { AbsMax(x[:n/32], bf16, RawBF16, 32) }},
		{"AbsMaxBF16 of 64", func() { AbsMax(x[:n/64], bf16, RawBF16, 64) }},
		{"AbsMaxBF16 of 128", func() { AbsMax(x[:n/128], bf16, RawBF16, 128) }},
		{"AbsMaxBF16 of 4096", func() { AbsMax(x[:n/4096], bf16, RawBF16, 4096) }},
		{"EncodeIntsBF16 of 16", func() { EncodeInts(small, bf16, RawBF16, symmetric, 16, ints) }},
		{"EncodeIntsBF16 from zero points of 64", func() { EncodeInts(small, bf16, RawBF16, steps, 64, ints) }},
		{"EncodeIntsBF16 of 4096", func() { EncodeInts(small, bf16, RawBF16, symmetric.Sized(n/4096), 4096, ints) }},
		{"EncodeIntsBF16 by products of 4096", func() { EncodeInts(small, bf16, RawBF16, symmetric.Sized(n/4096), 4096, signed) }},
		{"EncodeIntsF32 of 4096", func() { EncodeInts(small, AsBytes(w), RawF32, symmetric.Sized(n/4096), 4096, ints) }},
		{"EncodeE4M3BF16 of 32", func() { EncodeFloats(small, bf16, RawBF16, symmetric.Sized(n/32), 32, e4m3) }},
		{"EncodeE4M3BF16 of 4096", func() { EncodeFloats(small, bf16, RawBF16, symmetric.Sized(n/4096), 4096, e4m3) }},
		{"EncodeFloat6BF16 of 4096", func() { EncodeFloats(small, bf16, RawBF16, symmetric.Sized(n/4096), 4096, float6) }},
		{"EncodeNVFP4", func() {
			for at := 0; at < n; at += n / 4 { // as many as are encoded at a time
				EncodeNVFP4(small[:n/8], raw[:n/64], bf16[2*at:][:n/2], fours)
			}
		}},
		{"EncodeMXFP8", func() {
			for at := 0; at < n; at += n / 4 {
				EncodeMXFP8(small[:n/4], raw[:n/128], bf16[2*at:][:n/2])
			}
		}},
		{"PackFours", func() { PackFours(raw[:n/2], small) }},
		{"PackTwos", func() { PackTwos(raw[:n/4], small) }},
		{"MergeCodes", func() { MergeCodes(raw[:n/8*5], small, merged) }},
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
		{"SplitCodes", func() { SplitCodes(small, raw[:n/8*5], merged) }},
		{"DecodeBytes of 16", func() { DecodeBytes(x, small, w[:n/16], nil, 16, sixes) }},
		{"DecodeBytes of 64", func() { DecodeBytes(x, small, w[:n/64], w[:n/64], 64, whole) }},
		{"DecodeBytes of 4096", func() { DecodeBytes(x, small, w[:n/4096], nil, 4096, sixes) }},
		{"RoundBF16", func() { RoundBF16(x) }},
		{"RoundF16", func() { RoundF16(x) }},
		{"Errors", func() { errors.Add(bf16, RawBF16, w) }},
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
