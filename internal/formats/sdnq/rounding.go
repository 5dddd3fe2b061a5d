package sdnq

import (
	"math"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/floats"
)

// Stochastic rounds a weight's scaled values up or down by chance, so that the
// mean of the result is the value. The chance of a value follows from the seed
// and the value's index alone: bytes do not depend on tiles or threads. SDNQ
// does the same with the random numbers of its framework, which differ.
type Stochastic struct{ key uint64 }

// NewStochastic takes a seed. Weights that share one get the same chances at
// the same index: mix the name of the weight into it.
func NewStochastic(seed uint64) Stochastic { return Stochastic{mix(seed + phi)} }

const phi = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio

// mix is the finalizer of SplitMix64, a permutation of the 64-bit numbers.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// bits returns 32 random bits for a value: the upper half of output index of
// the SplitMix64 generator that the seed starts.
func (s Stochastic) bits(index int) uint32 {
	return uint32(mix(s.key+uint64(index)*phi) >> 32)
}

// Round rounds values start, start+1, … of a weight, scaled and clamped to the
// range of t, to values that t's own rounding leaves alone:
//
//   - integers: floor(y + u), u = bits/2^32 in [0, 1), the sum exact or rounded
//     at 2^-36 or finer;
//   - floats with m mantissa bits: the pattern of y as binary32 plus 23-m
//     random bits, then cleared of as many low bits. Magnitudes below the least
//     normal are left with m bits of their own and rounded once more, as in
//     SDNQ.
//
// NaN and infinities pass.
func (s Stochastic) Round(y []float32, start int, t *dtype.Type) {
	if t.Class == dtype.Integer {
		for i, v := range y {
			u := float64(s.bits(start+i)) * 0x1p-32
			y[i] = float32(math.Floor(float64(v) + u))
		}
		return
	}
	low := uint32(1)<<(23-t.Mantissa) - 1
	lo, hi := float32(t.Min), float32(t.Max)
	for i, v := range y {
		if floats.Finite(v) {
			v = math.Float32frombits((math.Float32bits(v) + s.bits(start+i)&low) &^ low)
			y[i] = min(max(v, lo), hi) // the greatest bfloat16 has low bits in SDNQ's table
		}
	}
}
