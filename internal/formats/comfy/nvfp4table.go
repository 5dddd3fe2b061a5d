package comfy

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// nvfp4Table encodes blocks of bfloat16 for one NVFP4 tensor by look-up: the code of a
// block's scale, and the factor for its values, follow from the bits of the greatest
// magnitude.
type nvfp4Table struct {
	tensor float32 // the tensor scale that the tables are for
	usable bool
	table  *kernel.NVFP4Table
}

// set makes the tables for a tensor's scale. It reports false if no factors exist for
// it, and blocks must be divided by their scales.
func (f *nvfp4Table) set(tensor float32, s *buffers) bool {
	if f.table == nil {
		f.table = new(kernel.NVFP4Table)
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

// setCodes computes the scale's code for every greatest magnitude that comes to more
// than the smallest scale. Blocks with the smallest scale, or a zero one, are left to
// normalizeFP4.
func (f *nvfp4Table) setCodes(s *buffers) {
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

// setFactors finds, for every scale, a factor to multiply by instead of dividing, in
// quarters of a level. Scales with the same mantissa share it, up to a power of two. It
// reports false if there is none for some scale.
func (f *nvfp4Table) setFactors() bool {
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

// factorFor returns a factor, the inverse of the scale or a neighbour of it, whose
// products are rounded to the same codes as the quotients by the scale.
func factorFor(scale float32) (factor float32, ok bool) {
	inverse := math.Float32bits(4 / scale)
	for _, bits := range []uint32{inverse, inverse - 1, inverse + 1, inverse - 2, inverse + 2, inverse - 3} {
		if factor = math.Float32frombits(bits); roundsAsQuotient(factor, scale) {
			return factor, true
		}
	}
	return 0, false
}

// roundsAsQuotient reports whether multiplying by the factor gives every bfloat16 value
// the code that dividing by the scale does. Only the values next to the boundaries
// between codes can differ. Since quotients exactly on a boundary are rounded to even,
// some scales have no such factor.
func roundsAsQuotient(factor, scale float32) bool {
	for code, bound := range kernel.NVFP4Bounds {
		x := floats.RoundTo(scale*float32(bound)/4, safetensors.BF16)
		above, up := float64(x)*float64(factor) >= float64(bound), kernel.E2M1.Encode(x/scale) > uint16(code)
		if above != up {
			return false
		}
	}
	return true
}

// encode encodes whole blocks.
func (f *nvfp4Table) encode(packed, scales, src []byte) {
	kernel.EncodeNVFP4(packed, scales, src, f.table)
}
