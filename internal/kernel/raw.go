package kernel

import "unsafe"

// Raw says how values lie in bytes, little-endian.
type Raw uint8

// The forms that kernels read without widening first.
const (
	RawBF16 Raw = iota
	RawF32
)

// Bytes returns how many a value takes.
func (r Raw) Bytes() int { return 2 + 2*int(r) }

// AsBytes returns the memory of values: as [RawF32] on a little-endian machine,
// which every platform of this program is.
func AsBytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// Step is how a group of values is scaled: (x - Zero) / Scale, the difference
// and the quotient rounded, or x · Scale where a kernel multiplies. Inverse is
// 1 / Scale, rounded, and must be set where it divides.
type Step struct{ Zero, Scale, Inverse float32 }

// Divides returns the step that subtracts and divides. It reports false where
// the scale is so extreme that kernels cannot divide by way of the inverse:
// beyond 2^±80, zero or not finite.
func Divides(zero, scale float32) (Step, bool) {
	return Step{zero, scale, 1 / scale}, scale >= 0x1p-80 && scale <= 0x1p80
}

// Ints describes whole-number codes of at most 8 bits: scaled values are
// clamped to [Lo, Hi], whole numbers, rounded to nearest even, and Offset is
// added. The code is the low byte.
type Ints struct {
	Lo, Hi   float32
	Offset   int32
	Multiply bool // by the scale, instead of dividing
}

// Ranges sets lo and hi to the least and greatest value of consecutive groups
// of that many, as [MinMax] does. lo and hi are different memory.
func Ranges(lo, hi []float32, src []byte, raw Raw, group int) {
	active.ranges[raw](lo, hi, src, group)
}

// AbsMax sets amax to the greatest magnitude of consecutive groups of that
// many; where it holds one, to a NaN.
func AbsMax(amax []float32, src []byte, raw Raw, group int) { active.absMax[raw](amax, src, group) }

// EncodeInts gives consecutive groups of that many values, a step for each,
// codes of one byte. Values are finite.
func EncodeInts(codes, src []byte, raw Raw, steps []Step, group int, f *Ints) {
	active.encodeInts[raw](codes, src, steps, group, f)
}

// chunk is how many values the portable kernels widen at a time.
const chunk = 512

// widened calls f for the values of src, chunk by chunk, with the place of the
// first. f may change them.
func widened(src []byte, raw Raw, f func(at int, x []float32)) {
	var buffer [chunk]float32
	size := raw.Bytes()
	for at := 0; at < len(src)/size; at += chunk {
		x := buffer[:min(chunk, len(src)/size-at)]
		if raw == RawBF16 {
			widenBF16(x, src[size*at:])
		} else {
			widenF32(x, src[size*at:])
		}
		f(at, x)
	}
}

// rangesOf returns the portable Ranges of one form.
func rangesOf(raw Raw) func(lo, hi []float32, src []byte, group int) {
	return func(lo, hi []float32, src []byte, group int) {
		size := group * raw.Bytes()
		for i := range lo {
			lo[i], hi[i] = rangeOf(src[i*size:(i+1)*size], raw)
		}
	}
}

func rangeOf(src []byte, raw Raw) (lo, hi float32) {
	widened(src, raw, func(at int, x []float32) {
		l, h := minMax(x)
		switch {
		case at == 0 || l != l:
			if at == 0 || lo == lo {
				lo, hi = l, h
			}
		case lo == lo:
			if l < lo {
				lo = l
			}
			if h > hi {
				hi = h
			}
		}
	})
	return lo, hi
}

// absMaxOf returns the portable AbsMax of one form.
func absMaxOf(raw Raw) func(amax []float32, src []byte, group int) {
	return func(amax []float32, src []byte, group int) {
		size := group * raw.Bytes()
		for i := range amax {
			lo, hi := rangeOf(src[i*size:(i+1)*size], raw)
			amax[i] = max(-lo, hi, 0)
		}
	}
}

// scaled calls f for the values of src, chunk by chunk, scaled and clamped.
func scaled(src []byte, raw Raw, steps []Step, group int, multiplied bool, lo, hi float32, f func(at int, x []float32)) {
	size := group * raw.Bytes()
	for i, s := range steps {
		widened(src[i*size:(i+1)*size], raw, func(at int, x []float32) {
			if multiplied {
				multiply(x, s.Scale, lo, hi)
			} else {
				divide(x, s.Zero, s.Scale, lo, hi)
			}
			f(i*group+at, x)
		})
	}
}

// encodeIntsOf returns the portable EncodeInts of one form.
func encodeIntsOf(raw Raw) func(codes, src []byte, steps []Step, group int, f *Ints) {
	return func(codes, src []byte, steps []Step, group int, f *Ints) {
		var wide [chunk]uint16
		scaled(src, raw, steps, group, f.Multiply, f.Lo, f.Hi, func(at int, x []float32) {
			roundInts(wide[:len(x)], x, f.Offset, 0)
			for i, c := range wide[:len(x)] {
				codes[at+i] = byte(c)
			}
		})
	}
}
