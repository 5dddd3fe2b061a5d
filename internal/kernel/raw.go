package kernel

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// Raw is the form of little-endian values in bytes.
type Raw uint8

// The forms that kernels read directly.
const (
	RawBF16 Raw = iota
	RawF32
)

// Bytes returns the size of a value in bytes.
func (r Raw) Bytes() int { return 2 + 2*int(r) }

// AsBytes returns the memory of values as bytes. Values in single precision have the
// form [RawF32], since every platform of this program is little-endian.
func AsBytes[T uint16 | float32 | float64](x []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(one)))
}

// AsFloats returns the memory of bytes, which begin where a value may, as values in single
// precision.
func AsFloats(x []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/4)
}

// Steps say how groups of values are scaled: (x - zero) / scale, with the difference
// and the quotient rounded, or x · scale in kernels that multiply. Inverses are 1 /
// scale, rounded. Kernels that multiply do not read zeros and inverses.
type Steps struct{ Zeros, Scales, Inverses []float32 }

// Sized returns steps for n groups. It reuses the memory of s if that suffices.
func (s Steps) Sized(n int) Steps {
	if cap(s.Zeros) < n {
		s = Steps{make([]float32, n), make([]float32, n), make([]float32, n)}
	}
	return Steps{s.Zeros[:n], s.Scales[:n], s.Inverses[:n]}
}

// Part returns steps [from, to).
func (s Steps) Part(from, to int) Steps {
	return Steps{s.Zeros[from:to], s.Scales[from:to], s.Inverses[from:to]}
}

// Set makes step i subtract zero and divide by scale. It reports false if the scale is
// so extreme that kernels cannot divide with the inverse: beyond 2^±80, zero or not
// finite.
func (s Steps) Set(i int, zero, scale float32) bool {
	s.Zeros[i], s.Scales[i], s.Inverses[i] = zero, scale, 1/scale
	return Divisible(scale)
}

// Divisible reports whether kernels can divide by a positive scale with its inverse, see
// [Steps.Set].
func Divisible(scale float32) bool { return scale >= 0x1p-80 && scale <= 0x1p80 }

// Spans sets scales to (hi - lo) / divisor, with the difference and the quotient
// rounded, and inverses to their inverses. It reports whether kernels can divide by all
// of them, see [Steps.Set].
func Spans(scales, inverses, lo, hi []float32, divisor float32) bool {
	return active.spans(scales, inverses, lo, hi, divisor)
}

func spans(scales, inverses, lo, hi []float32, divisor float32) bool {
	scales, inverses, lo = scales[:len(hi)], inverses[:len(hi)], lo[:len(hi)]
	all := true
	for i, v := range hi {
		scale := float32(v-lo[i]) / divisor
		scales[i], inverses[i] = scale, 1/scale
		all = all && Divisible(scale)
	}
	return all
}

// PowerSteps sets scales to the least powers of two that bring the greatest magnitudes
// amax of groups to at most most, codes to their biased exponents and inverses to their
// inverses. It reports false, and the results are meaningless, if kernels cannot divide
// by one of the powers, see [Steps.Set], if a magnitude is zero or not finite, or if
// amax / most exceeds a power by fewer than 64 units in the last place.
func PowerSteps(codes []byte, scales, inverses, amax []float32, most float32) bool {
	return active.powerSteps(codes, scales, inverses, amax, most)
}

func powerSteps(codes []byte, scales, inverses, amax []float32, most float32) bool {
	const one, mantissa = 127 << 23, 1<<23 - 1
	codes, scales, inverses = codes[:len(amax)], scales[:len(amax)], inverses[:len(amax)]
	all := true
	for i, a := range amax {
		bits := math.Float32bits(a / most)
		power := (bits + mantissa) &^ mantissa
		codes[i] = byte(power >> 23)
		scales[i], inverses[i] = math.Float32frombits(power), math.Float32frombits(2*one-power)
		all = all && bits&mantissa-1 >= 63 && Divisible(scales[i])
	}
	return all
}

// Ints describes integer codes of at most 8 bits: scaled values are clamped to the
// integers [Lo, Hi], rounded to nearest even, and Offset is added. The code is the low
// byte.
type Ints struct {
	Lo, Hi   float32
	Offset   int32
	Multiply bool // multiply by the scale instead of dividing
}

// Ranges sets lo and hi to the least and greatest value of consecutive groups of group
// values, with the rules of [MinMax]. lo and hi must not overlap.
func Ranges(lo, hi []float32, src []byte, raw Raw, group int) {
	active.ranges[raw](lo, hi, src, group)
}

// AbsMax sets amax to the greatest magnitude of consecutive groups of group values, to
// a NaN if a group has one.
func AbsMax(amax []float32, src []byte, raw Raw, group int) { active.absMax[raw](amax, src, group) }

// EncodeInts encodes consecutive groups of group values, each scaled by its step, as
// codes of one byte. Values and quotients must be finite.
func EncodeInts(codes, src []byte, raw Raw, steps Steps, group int, f *Ints) {
	active.encodeInts[raw](codes, src, steps, group, f)
}

// chunk is how many values the portable kernels widen at a time.
const chunk = 512

func (r Raw) widen(dst []float32, src []byte) {
	if r == RawBF16 {
		widenBF16(dst, src)
	} else {
		widenF32(dst, src)
	}
}

// rangesOf returns the portable Ranges for one form of raw values.
func rangesOf(raw Raw) func(lo, hi []float32, src []byte, group int) {
	return func(lo, hi []float32, src []byte, group int) {
		size := group * raw.Bytes()
		for i := range lo {
			lo[i], hi[i] = rangeOf(src[i*size:(i+1)*size], raw)
		}
	}
}

// rangeOf returns the range of one or more values.
func rangeOf(src []byte, raw Raw) (lo, hi float32) {
	var buffer [64]float32
	size := raw.Bytes()
	for at := 0; at < len(src); at += len(buffer) * size {
		x := buffer[:min(len(buffer), (len(src)-at)/size)]
		raw.widen(x, src[at:])
		l, h := minMax(x)
		switch {
		case l != l:
			return l, h
		case at == 0:
			lo, hi = l, h
		default:
			if l < lo {
				lo = l
			}
			if h > hi {
				hi = h
			}
		}
	}
	return lo, hi
}

// absMaxOf returns the portable AbsMax for one form. Magnitudes have the order of their
// bits, with NaN above all.
func absMaxOf(raw Raw) func(amax []float32, src []byte, group int) {
	return func(amax []float32, src []byte, group int) {
		for i := range amax {
			greatest := uint32(0)
			if raw == RawBF16 {
				for pair := src[2*i*group : 2*(i+1)*group]; len(pair) >= 2; pair = pair[2:] {
					greatest = max(greatest, uint32(pair[0])<<16|uint32(pair[1]&0x7F)<<24)
				}
			} else {
				for at := 4 * i * group; at < 4*(i+1)*group; at += 4 {
					greatest = max(greatest, binary.LittleEndian.Uint32(src[at:])&(1<<31-1))
				}
			}
			amax[i] = math.Float32frombits(greatest)
		}
	}
}

// byteCodes turns scaled values into codes; one of the two fields is set.
type byteCodes struct {
	ints   *Ints
	floats *Floats
}

func (c byteCodes) scale(x []float32, steps Steps, i int) {
	lo, hi, multiplies := float32(0), float32(0), false
	if c.ints != nil {
		lo, hi, multiplies = c.ints.Lo, c.ints.Hi, c.ints.Multiply
	} else {
		lo, hi, multiplies = c.floats.lo, c.floats.hi, c.floats.multiply
	}
	if multiplies {
		multiply(x, steps.Scales[i], lo, hi)
	} else {
		divide(x, steps.Zeros[i], steps.Scales[i], lo, hi)
	}
}

func (c byteCodes) encode(codes []uint16, x []float32) {
	switch {
	case c.ints != nil:
		roundInts(codes, x, c.ints.Offset, 0)
	case c.floats.small != nil:
		encodeSmall(codes, x, c.floats.small)
	default:
		encodePacked(codes, x, c.floats.packed)
	}
}

// groups encodes groups of raw values, chunk by chunk.
func (c byteCodes) groups(codes, src []byte, raw Raw, steps Steps, group int) {
	var buffer [chunk]float32
	var wide [chunk]uint16
	n := len(steps.Scales) * group
	for at := 0; at < n; at += chunk {
		x := buffer[:min(chunk, n-at)]
		raw.widen(x, src[at*raw.Bytes():])
		for from := 0; from < len(x); {
			i := (at + from) / group
			to := min((i+1)*group-at, len(x))
			c.scale(x[from:to], steps, i)
			from = to
		}
		c.encode(wide[:len(x)], x)
		to := codes[at : at+len(x)]
		for i, code := range wide[:len(to)] {
			to[i] = byte(code)
		}
	}
}

// encodeIntsOf returns the portable EncodeInts for one form of raw values.
func encodeIntsOf(raw Raw) func(codes, src []byte, steps Steps, group int, f *Ints) {
	return func(codes, src []byte, steps Steps, group int, f *Ints) {
		byteCodes{ints: f}.groups(codes, src, raw, steps, group)
	}
}
