//go:build (amd64 || arm64) && !purego

package kernel

import (
	"bytes"
	"math"
	"unsafe"
)

// step is how many values a step of the assembly takes; portable code does the rest.
const step = 16

// smallConstants are the constants for encodeSmall and decodeSmall of the assembly.
// They exist only for floats that have a negative zero.
var smallConstants = func() map[*Small]*[2]constants {
	all := map[*Small]*[2]constants{}
	for _, f := range []*Small{E4M3, E5M2, E2M1, F16, BF16} {
		cut, signAt := 23-f.Mantissa, uint32(math.Ilogb(float64(f.SignBit)))
		c := new([2]constants)
		c[0].set(cut, 31-signAt, 1<<31-1, uint32(f.SignBit), 1,
			uint32(1)<<(cut-1)-1-(127-f.Bias)<<23, (127-f.Bias+cut+1)<<23, (128-f.Bias)<<23-1,
			f.Overflow-1, uint32(f.Infinite), 0x7F800000, uint32(f.NaN), 0xFFFF)
		last := uint32(f.Infinite) // the greatest magnitude that is not NaN
		if !f.IEEE {
			last--
		}
		c[1].set(cut, 31-signAt, 0xFFFF&^uint32(f.SignBit), uint32(f.SignBit), (254-f.Bias)<<23,
			uint32(f.Infinite)-1, 0x7F800000, last, 0x7FC00000)
		all[f] = c
	}
	return all
}()

// rangesBy checks the results of the assembly for zeros, of which the first counts, and
// for NaN.
func rangesBy(raw Raw, asm func(lo, hi *float32, src *byte, groups, steps int), signs func(lo, hi *float32, steps int) bool) func(lo, hi []float32, src []byte, group int) {
	return func(lo, hi []float32, src []byte, group int) {
		hi, size := hi[:len(lo)], group*raw.Bytes()
		src = src[:len(lo)*size]
		whole := group%step == 0
		if whole {
			asm(unsafe.SliceData(lo), unsafe.SliceData(hi), unsafe.SliceData(src), len(lo), group/step)
			if n := len(lo) / step; signs(unsafe.SliceData(lo), unsafe.SliceData(hi), n) {
				lo, hi, src = lo[n*step:], hi[n*step:], src[n*step*size:]
			}
		}
		for i := range lo {
			if whole && lo[i] < 0 && hi[i] > 0 {
				continue
			}
			values := src[i*size : (i+1)*size]
			if !whole {
				n := group &^ (step - 1)
				if n > 0 {
					asm(&lo[i], &hi[i], unsafe.SliceData(values), 1, n/step)
				}
				lo[i], hi[i] = joinRest(lo[i], hi[i], values, n, raw)
			}
			if lo[i] != lo[i] || hi[i] != hi[i] {
				lo[i], hi[i] = rangeOf(values, raw)
			} else if lo[i] == 0 || hi[i] == 0 {
				zero := firstZero(values, raw)
				if lo[i] == 0 {
					lo[i] = zero
				}
				if hi[i] == 0 {
					hi[i] = zero
				}
			}
		}
	}
}

// joinRest joins the range of the first n values, which assembly found, with that of
// the others. The caller must check the result for zeros and NaN.
func joinRest(lo, hi float32, src []byte, n int, raw Raw) (float32, float32) {
	rest := src[n*raw.Bytes():]
	if len(rest) == 0 {
		return lo, hi
	}
	l, h := rangeOf(rest, raw)
	if n == 0 {
		return l, h
	}
	return min(lo, l), max(hi, h)
}

// minMaxBy returns a MinMax that uses the assembly's ranges of groups.
func minMaxBy(asm func(lo, hi *float32, src *byte, groups, steps int)) func(x []float32) (lo, hi float32) {
	return func(x []float32) (lo, hi float32) {
		n := len(x) &^ (step - 1)
		if n > 0 {
			asm(&lo, &hi, unsafe.SliceData(AsBytes(x)), 1, n/step)
		}
		return minMaxRest(lo, hi, x, n)
	}
}

func minMaxRest(lo, hi float32, x []float32, n int) (float32, float32) {
	lo, hi = joinRest(lo, hi, AsBytes(x), n, RawF32)
	if lo < 0 && hi > 0 || lo > 0 && hi > 0 || lo < 0 && hi < 0 {
		return lo, hi
	}
	return minMax(x)
}

// firstZero returns the first zero of src, which must have one.
func firstZero(src []byte, raw Raw) float32 {
	size := raw.Bytes()
	var x [1]float32
	for i := 0; ; i += size {
		if raw.widen(x[:], src[i:]); x[0] == 0 {
			return x[0]
		}
	}
}

func absMaxBy(raw Raw, asm func(amax *float32, src *byte, groups, steps int)) func(amax []float32, src []byte, group int) {
	return func(amax []float32, src []byte, group int) {
		size := group * raw.Bytes()
		src = src[:len(amax)*size]
		n := group &^ (step - 1)
		if n == group {
			asm(unsafe.SliceData(amax), unsafe.SliceData(src), len(amax), group/step)
			return
		}
		for i := range amax {
			values := src[i*size : (i+1)*size]
			asm(&amax[i], unsafe.SliceData(values), 1, n/step)
			lo, hi := rangeOf(values[n*raw.Bytes():], raw)
			amax[i] = max(amax[i], -lo, hi, 0)
		}
	}
}

// encoder is a function of the assembly that encodes groups of whole steps.
type encoder func(codes, src *byte, zeros, scales, inverses *float32, groups, steps int, c *uint32)

// run encodes groups of any size, with portable code for the ends of groups.
func (e encoder) run(codes, src []byte, raw Raw, steps Steps, group int, c unsafe.Pointer, rest byteCodes) {
	size, groups := raw.Bytes(), len(steps.Scales)
	codes, src = codes[:groups*group], src[:groups*group*size]
	n := group &^ (step - 1)
	if n == group {
		e.call(codes, src, steps, groups, n, c)
		return
	}
	for i := range groups {
		to, from := codes[i*group:(i+1)*group], src[i*group*size:(i+1)*group*size]
		one := Steps{Scales: steps.Scales[i : i+1]}
		if steps.Inverses != nil {
			one.Zeros, one.Inverses = steps.Zeros[i:i+1], steps.Inverses[i:i+1]
		}
		e.call(to, from, one, 1, n, c)
		rest.groups(to[n:], from[n*size:], raw, one, group-n)
	}
}

func (e encoder) call(codes, src []byte, steps Steps, groups, n int, c unsafe.Pointer) {
	e(unsafe.SliceData(codes), unsafe.SliceData(src), unsafe.SliceData(steps.Zeros), unsafe.SliceData(steps.Scales),
		unsafe.SliceData(steps.Inverses), groups, n/step, (*uint32)(c))
}

// unshifted reports whether all zero points are +0, so that nothing is subtracted.
// Subtracting -0 would change the sign of a zero.
func unshifted(zeros []float32) bool {
	all := AsBytes(zeros)
	return len(all) == 0 || math.Float32bits(zeros[0]) == 0 && bytes.Equal(all[4:], all[:len(all)-4])
}

// intEncoders are the encoders for one form; divideFrom takes zero points.
type intEncoders struct{ multiply, divide, divideFrom encoder }

func intsBy(raw Raw, by intEncoders) func(codes, src []byte, steps Steps, group int, f *Ints) {
	return func(codes, src []byte, steps Steps, group int, f *Ints) {
		e := by.divideFrom
		switch {
		case f.Multiply:
			e = by.multiply
		case unshifted(steps.Zeros):
			e = by.divide
		}
		e.run(codes, src, raw, steps, group, unsafe.Pointer(f), byteCodes{ints: f})
	}
}

// floatEncoders are the encoders for one form; dividePackedFrom takes zero points, for
// floats without a sign.
type floatEncoders struct{ multiplySmall, divideSmall, dividePacked, dividePackedFrom encoder }

// of returns the encoder for f, or nil if portable code must do it.
func (by *floatEncoders) of(f *Floats, zeros []float32) encoder {
	p := f.packed
	switch {
	case p == nil && f.multiply:
		return by.multiplySmall
	case p != nil && (f.c[0][0] == 0 || p.ZeroBand && p.Exponent == 1):
		return nil
	case p != nil && p.Unsigned:
		return by.dividePackedFrom
	case !unshifted(zeros):
		return nil
	case p != nil:
		return by.dividePacked
	}
	return by.divideSmall
}

func floatsBy(raw Raw, by floatEncoders) func(codes, src []byte, steps Steps, group int, f *Floats) {
	return func(codes, src []byte, steps Steps, group int, f *Floats) {
		rest := byteCodes{floats: f}
		e := by.of(f, steps.Zeros)
		if e == nil {
			rest.groups(codes, src, raw, steps, group)
			return
		}
		e.run(codes, src, raw, steps, group, unsafe.Pointer(&f.c), rest)
		if f.small != nil && f.small.Unsigned0 {
			for i, c := range codes {
				if uint16(c) == f.small.SignBit {
					codes[i] = 0
				}
			}
		}
	}
}

// mergeBy leaves the last turns of 64 codes to the portable function, because assembly
// would write beyond the end of dst.
func mergeBy(asm func(dst, codes *byte, turns, size int, m *byte)) func(dst, codes []byte, m *Merge) {
	return func(dst, codes []byte, m *Merge) {
		dst = dst[:len(codes)/8*m.Bytes]
		turns := len(codes) / 64
		for turns > 0 && len(dst)-turns*8*m.Bytes < 16 {
			turns--
		}
		asm(unsafe.SliceData(dst), unsafe.SliceData(codes), turns, m.Bytes, (*byte)(unsafe.Pointer(&m.shifts)))
		merge(dst[turns*8*m.Bytes:], codes[turns*64:], m)
	}
}

// splitBy leaves the last turns of 64 codes to the portable function, because assembly
// would read beyond the end of src.
func splitBy(asm func(codes, src *byte, turns, size int, m *byte)) func(codes, src []byte, m *Merge) {
	return func(codes, src []byte, m *Merge) {
		src = src[:len(codes)/8*m.Bytes]
		turns := len(codes) / 64
		for turns > 0 && len(src)-turns*8*m.Bytes+2*m.Bytes < 16 {
			turns--
		}
		asm(unsafe.SliceData(codes), unsafe.SliceData(src), turns, m.Bytes, (*byte)(unsafe.Pointer(&m.shifts)))
		split(codes[turns*64:], src[turns*8*m.Bytes:], m)
	}
}

// decoder is a function of the assembly that decodes groups of whole steps.
type decoder func(dst *float32, codes *byte, scales, zeros *float32, groups, steps, next int, c *uint32)

// noZeros is the zero point with which assembly computes a plain product.
var noZeros = [1]float32{float32(math.Copysign(0, -1))}

// decodeBytesBy decodes groups of any size. It looks up the ends of groups, and values
// that assembly cannot compute. few, if not nil, is for floats of four bits.
func decodeBytesBy(ints, floats, few decoder, look func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values)) func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
	return func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
		asm, c := ints, &v.c[0][0]
		switch {
		case v.form == looked:
			look(dst, codes, scales, zeros, group, v)
			return
		case v.form == floated && v.few && few != nil:
			asm, c = few, (*uint32)(unsafe.Pointer(&v.table))
		case v.form == floated:
			asm = floats
		}
		n := group &^ (step - 1)
		dst, codes = dst[:len(scales)*group], codes[:len(scales)*group]
		if n == group {
			asm.call(dst, codes, scales, zeros, n, c)
			return
		}
		var zero []float32
		for i := range scales {
			if zeros != nil {
				zero = zeros[i : i+1]
			}
			to, from := dst[i*group:(i+1)*group], codes[i*group:(i+1)*group]
			asm.call(to, from, scales[i:i+1], zero, n, c)
			look(to[n:], from[n:], scales[i:i+1], zero, group-n, v)
		}
	}
}

func (d decoder) call(dst []float32, codes []byte, scales, zeros []float32, n int, c *uint32) {
	next := 4
	if zeros == nil {
		next, zeros = 0, noZeros[:]
	} else {
		zeros = zeros[:len(scales)]
	}
	d(unsafe.SliceData(dst), unsafe.SliceData(codes), unsafe.SliceData(scales), unsafe.SliceData(zeros), len(scales), n/step, next, c)
}

func errorsBy(raw Raw, asm func(sums *float64, values *byte, others *float32, steps int)) func(e *Errors, values []byte, others []float32) {
	rest := errorsOf(raw)
	return func(e *Errors, values []byte, others []float32) {
		n := len(others) &^ (step - 1)
		values = values[:len(others)*raw.Bytes()]
		asm(&e.squares[0], unsafe.SliceData(values), unsafe.SliceData(others), n/step)
		rest(e, values[n*raw.Bytes():], others[n:])
	}
}

// sixteen pads levels to 16 with NaN.
func sixteen(levels []float32) (all [16]float32) {
	for i := copy(all[:], levels); i < len(all); i++ {
		all[i] = float32(math.NaN())
	}
	return all
}

func packedConstants(f *Packed) (c constants) {
	c.packed(f)
	return c
}
