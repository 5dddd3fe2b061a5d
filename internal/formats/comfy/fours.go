package comfy

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// fours is how blocks of bfloat16 become those of an NVFP4 tensor: what a block
// comes to follows from a few bits of it, so that it can be looked up.
type fours struct {
	tensor float32 // the scale that it was made for
	usable bool
	table  *kernel.FourBlocks
}

// set makes the tables for a tensor's scale. It reports false where blocks have to
// be divided.
func (f *fours) set(tensor float32, s *buffers) bool {
	if f.table == nil {
		f.table = new(kernel.FourBlocks)
	} else if tensor == f.tensor {
		return f.usable
	}
	s.one = s.one.Sized(1)
	f.tensor = tensor
	if f.usable = s.one.Set(0, 0, tensor) && f.setFactors(); f.usable {
		f.setCodes(s)
	}
	return f.usable
}

// setCodes casts all magnitudes that come to more than the least scale. Blocks with
// that one, or with none, are left to normalizeFP4.
func (f *fours) setCodes(s *buffers) {
	const least, few = 0x1p-20, 2 // tensor is rounded
	largest := math.Float32bits(2688*f.tensor)>>16 + few
	first := math.Float32bits(2688*f.tensor*least) >> 16
	amax := tile.Sized(&s.hi, int(largest-first))
	for i := range amax {
		amax[i] = math.Float32frombits((first + uint32(i)) << 16)
	}
	clear(f.table.Codes[:])
	codes := f.table.Codes[first:largest]
	s.castScales(codes, amax)
	for i, code := range codes {
		if code <= 1 {
			codes[i] = 0
		}
	}
}

// setFactors takes the inverses of scales, in quarters. Those with the same mantissa
// are the same but for a power of two. It reports false where there is none for a
// scale.
func (f *fours) setFactors() bool {
	for m := 8; m < 16; m++ {
		factor, ok := factorFor(f.tensor * float32(m))
		if !ok {
			return false
		}
		for code := 2; code < 0x7F; code++ {
			if fraction, exponent := math.Frexp(float64(kernel.E4M3.Decode(uint16(code)))); 16*fraction == float64(m) {
				f.table.Factors[code] = factor * float32(math.Ldexp(1, 4-exponent))
			}
		}
	}
	return true
}

// factorFor returns a factor whose products decide between codes as quotients by
// the scale do, if one next to the inverse does.
func factorFor(scale float32) (factor float32, ok bool) {
	inverse := math.Float32bits(4 / scale)
	for _, bits := range []uint32{inverse, inverse - 1, inverse + 1, inverse - 2, inverse + 2, inverse - 3} {
		if factor = math.Float32frombits(bits); decides(factor, scale) {
			return factor, true
		}
	}
	return 0, false
}

// decides reports whether multiplying by the factor rounds the values of bfloat16
// next to bounds between codes as dividing by the scale does. Any other is so far from
// them that nothing is to be decided. Quotients on bounds go up or down by turns, so
// that for some scales no factor does.
func decides(factor, scale float32) bool {
	for code, bound := range kernel.FourBounds {
		x := floats.RoundTo(scale*float32(bound)/4, safetensors.BF16)
		above, up := float64(x)*float64(factor) >= float64(bound), kernel.E2M1.Encode(x/scale) > uint16(code)
		if above != up {
			return false
		}
	}
	return true
}

// encode stores whole blocks.
func (f *fours) encode(packed, scales, src []byte) {
	kernel.EncodeFourBlocks(packed, scales, src, f.table)
}
