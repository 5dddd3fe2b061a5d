//go:build !purego

package kernel

import "unsafe"

// Assembly works on steps of that many values; portable code does the rest.
const step = 16

// avx2 needs AVX2, FMA and F16C.
var avx2 = func() set {
	s := portable
	s.name = "avx2"
	s.widenBF16 = widenBy(widenBF16AVX2, widenBF16)
	s.widenF16 = widenBy(widenF16AVX2, widenF16)
	s.ranges[RawBF16] = rangesBy(RawBF16, rangesBF16AVX2, signsAVX2)
	s.ranges[RawF32] = rangesBy(RawF32, rangesF32AVX2, signsAVX2)
	s.absMax[RawBF16] = absMaxBy(RawBF16, absMaxBF16AVX2)
	s.absMax[RawF32] = absMaxBy(RawF32, absMaxF32AVX2)
	s.encodeInts[RawBF16] = intsBy(RawBF16, divideIntsBF16AVX2, multiplyIntsBF16AVX2)
	s.encodeInts[RawF32] = intsBy(RawF32, divideIntsF32AVX2, multiplyIntsF32AVX2)
	s.encodeFloats[RawBF16] = floatsBy(RawBF16, divideSmallBF16AVX2, multiplySmallBF16AVX2, dividePackedBF16AVX2)
	s.encodeFloats[RawF32] = floatsBy(RawF32, divideSmallF32AVX2, multiplySmallF32AVX2, dividePackedF32AVX2)
	s.packFours = packBy(2, packFoursAVX2, packFours)
	s.packTwos = packBy(4, packTwosAVX2, packTwos)
	s.merge = mergeBy(mergeAVX2)
	s.spans = spansBy(spansAVX2)
	return s
}()

// avx512 needs the F, BW, DQ and VL parts too.
var avx512 = func() set {
	s := avx2
	s.name = "avx512"
	s.widenBF16 = widenBy(widenBF16AVX512, widenBF16)
	s.widenF16 = widenBy(widenF16AVX512, widenF16)
	s.ranges[RawBF16] = rangesBy(RawBF16, rangesBF16AVX512, signsAVX512)
	s.ranges[RawF32] = rangesBy(RawF32, rangesF32AVX512, signsAVX512)
	s.absMax[RawBF16] = absMaxBy(RawBF16, absMaxBF16AVX512)
	s.absMax[RawF32] = absMaxBy(RawF32, absMaxF32AVX512)
	s.encodeInts[RawBF16] = intsBy(RawBF16, divideIntsBF16AVX512, multiplyIntsBF16AVX512)
	s.encodeInts[RawF32] = intsBy(RawF32, divideIntsF32AVX512, multiplyIntsF32AVX512)
	s.encodeFloats[RawBF16] = floatsBy(RawBF16, divideSmallBF16AVX512, multiplySmallBF16AVX512, dividePackedBF16AVX512)
	s.encodeFloats[RawF32] = floatsBy(RawF32, divideSmallF32AVX512, multiplySmallF32AVX512, dividePackedF32AVX512)
	s.packFours = packBy(2, packFoursAVX512, packFours)
	s.packTwos = packBy(4, packTwosAVX512, packTwos)
	s.merge = mergeBy(mergeAVX512)
	s.spans = spansBy(spansAVX512)
	return s
}()

func widenBy(asm func(dst *float32, src *byte, steps int), rest func(dst []float32, src []byte)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		n := len(dst) &^ (step - 1)
		src = src[:2*len(dst)]
		asm(unsafe.SliceData(dst), unsafe.SliceData(src), n/step)
		rest(dst[n:], src[2*n:])
	}
}

// rangesBy looks again at zeros, of which the first counts, and at NaN.
func rangesBy(raw Raw, asm func(lo, hi *float32, src *byte, groups, steps int), signs func(lo, hi *float32, steps int) bool) func(lo, hi []float32, src []byte, group int) {
	one := func(src []byte) (lo, hi float32) {
		n := len(src) / raw.Bytes() &^ (step - 1)
		if n == 0 {
			return rangeOf(src, raw)
		}
		asm(&lo, &hi, unsafe.SliceData(src), 1, n/step)
		if rest := src[n*raw.Bytes():]; len(rest) > 0 {
			l, h := rangeOf(rest, raw)
			lo, hi = min(lo, l), max(hi, h)
		}
		return lo, hi
	}
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
				lo[i], hi[i] = one(values)
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

// firstZero returns the first zero of src, which holds one.
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

// run encodes groups of any size, with portable code for their ends.
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

func spansBy(asm func(scales, inverses, lo, hi *float32, steps int, divisor float32) bool) func(scales, inverses, lo, hi []float32, divisor float32) bool {
	return func(scales, inverses, lo, hi []float32, divisor float32) bool {
		scales, inverses, lo = scales[:len(hi)], inverses[:len(hi)], lo[:len(hi)]
		n := len(hi) &^ (step - 1)
		all := asm(unsafe.SliceData(scales), unsafe.SliceData(inverses), unsafe.SliceData(lo), unsafe.SliceData(hi), n/step, divisor)
		return spans(scales[n:], inverses[n:], lo[n:], hi[n:], divisor) && all
	}
}

func intsBy(raw Raw, divide, multiply encoder) func(codes, src []byte, steps Steps, group int, f *Ints) {
	return func(codes, src []byte, steps Steps, group int, f *Ints) {
		e := divide
		if f.Multiply {
			e = multiply
		}
		e.run(codes, src, raw, steps, group, unsafe.Pointer(f), byteCodes{ints: f})
	}
}

func floatsBy(raw Raw, divideSmall, multiplySmall, dividePacked encoder) func(codes, src []byte, steps Steps, group int, f *Floats) {
	return func(codes, src []byte, steps Steps, group int, f *Floats) {
		rest := byteCodes{floats: f}
		e := dividePacked
		switch {
		case f.packed == nil && f.multiply:
			e = multiplySmall
		case f.packed == nil:
			e = divideSmall
		case f.c[0][0] == 0 || f.packed.ZeroBand && f.packed.Exponent == 1:
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

// packBy packs turns of 64 codes, of which so many share a byte.
func packBy(perByte int, asm func(dst, codes *byte, turns int), rest func(dst, codes []byte)) func(dst, codes []byte) {
	return func(dst, codes []byte) {
		n := len(codes) &^ 63
		dst = dst[:len(codes)/perByte]
		asm(unsafe.SliceData(dst), unsafe.SliceData(codes), n/64)
		rest(dst[n/perByte:], codes[n:])
	}
}

// mergeBy leaves so many turns of 64 codes to the portable function that what
// assembly writes too much lies within dst.
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
