//go:build !purego

package kernel

import (
	"math"
	"sync"
)

func beginBy(asm func(dst, src *float32, stride, blocks int, least float32) (sums uint32)) beginning {
	return func(dst, src *float32, stride, blocks int, entry float32) uint32 {
		return asm(dst, src, stride, blocks, 0x1p-149/entry)
	}
}

func productsBy(asm func(x *float32, rows int, entry, least float32) (exact uint32)) func(x *float32, rows int, entry float32) uint32 {
	return func(x *float32, rows int, entry float32) uint32 { return asm(x, rows, entry, 0x1p-126/entry) }
}

// intGroup is the size of groups that can be rotated in integers.
const intGroup = 256

// inInts reports whether groups of n values can be rotated in integers.
func inInts(n int, entry float32) bool {
	mantissa, _ := math.Frexp(float64(entry))
	return n == intGroup && mantissa == 0.5 && entry <= 1 && entry >= 0x1p-20
}

// someGroups is how many groups are tried, and set aside, at a time.
const someGroups = 64

// bf16Rotation is a rotation of bfloat16 values.
type bf16Rotation func(dst []float32, src []byte, n int, entry float32)

// intsOr rotates the groups that fit in integers, other groups of the same size by
// left, and groups of other sizes by rest.
func intsOr(asm func(dst *float32, src *byte, groups int, fits *bool, shift uint32), rest, left bf16Rotation) bf16Rotation {
	return func(dst []float32, src []byte, n int, entry float32) {
		if !inInts(n, entry) {
			rest(dst, src, n, entry)
			return
		}
		a := newAside(entry)
		shift := unitShift(entry)
		var fits [someGroups]bool
		for len(dst) > 0 {
			some := min(len(dst)/intGroup, someGroups)
			asm(&dst[0], &src[0], some, &fits[0], shift)
			for i, ok := range fits[:some] {
				if !ok {
					a.add(dst[i*intGroup:(i+1)*intGroup], src[2*i*intGroup:], left)
				}
			}
			dst, src = dst[some*intGroup:], src[2*some*intGroup:]
		}
		a.flush(left)
		asides.Put(a)
	}
}

// unitShift returns what to add to a number's bits to multiply it by 2^-22 times the
// entry, which is a power of two.
func unitShift(entry float32) uint32 { return math.Float32bits(entry) - (127+22)<<23 }

// levelsOr is intsOr for levels that codes select.
func levelsOr(asm func(dst *float32, codes *byte, levels *float32, groups int, fits *bool, shift uint32),
	rest func(dst []float32, codes []byte, levels []float32, n int, entry float32),
	lookUp func(dst []float32, codes []byte, levels []float32), narrow func(dst []byte, src []float32), left bf16Rotation) func(dst []float32, codes []byte, levels []float32, n int, entry float32) {
	const perGroup = 16 * intGroup / LevelRun
	set := lookingUp(lookUp, func([]float32, int, float32) {})
	return func(dst []float32, codes []byte, levels []float32, n int, entry float32) {
		if !inInts(n, entry) {
			rest(dst, codes, levels, n, entry)
			return
		}
		a := newAside(entry)
		var fits [someGroups]bool
		var raw [2 * intGroup]byte
		for len(dst) > 0 {
			some := min(len(dst)/intGroup, someGroups)
			asm(&dst[0], &codes[0], &levels[0], some, &fits[0], unitShift(entry))
			for i, ok := range fits[:some] {
				if !ok {
					group := dst[i*intGroup : (i+1)*intGroup]
					set(group, codes[i*intGroup:(i+1)*intGroup], levels[i*perGroup:], n, entry)
					narrow(raw[:], group)
					a.add(group, raw[:], left)
				}
			}
			dst, codes, levels = dst[some*intGroup:], codes[some*intGroup:], levels[some*perGroup:]
		}
		a.flush(left)
		asides.Put(a)
	}
}

// aside collects groups that are rotated together later.
type aside struct {
	entry  float32
	src    [2 * intGroup * someGroups]byte
	dst    [intGroup * someGroups]float32
	places [][]float32
}

var asides = sync.Pool{New: func() any { return new(aside) }}

func newAside(entry float32) *aside {
	a := asides.Get().(*aside)
	a.entry = entry
	return a
}

func (a *aside) add(dst []float32, src []byte, rotate bf16Rotation) {
	copy(a.src[2*intGroup*len(a.places):], src[:2*intGroup])
	if a.places = append(a.places, dst); len(a.places) == someGroups {
		a.flush(rotate)
	}
}

func (a *aside) flush(rotate bf16Rotation) {
	n := len(a.places) * intGroup
	rotate(a.dst[:n], a.src[:2*n], intGroup, a.entry)
	for i, place := range a.places {
		copy(place, a.dst[i*intGroup:])
	}
	clear(a.places)
	a.places = a.places[:0]
}

// codeFactors are the factors for codes, and then for the integers that result.
type codeFactors [4]float32

// factorsOf returns the factors for a scale of which that many bits count. It reports
// false unless the scale is positive and far from the limits of single precision.
func factorsOf(scale, entry float32, bits uint32) (f codeFactors, ok bool) {
	exponent := math.Float32bits(scale) >> 23
	if exponent < 127-60 || exponent > 127+60 {
		return f, false
	}
	unit := math.Float32frombits((exponent - bits + 1) << 23)
	s := scale / unit
	f = codeFactors{s * 0x1p-24, 0, unit * entry, 0}
	if bits == 24 {
		f = codeFactors{s * 0x1p-24, (s - 0x1p16) * 0x1p-24, scale * entry * 0x1p-16, unit * entry * 0x1p-16}
	}
	return f, true
}

// codesOr rotates integer codes in integers if their products keep that many bits, and
// everything else by rest.
func codesOr(asm func(dst *float32, codes *byte, groups int, flip, offset *uint32, f *[4]float32), bits uint32, rest RotatedDecoder) RotatedDecoder {
	return func(dst []float32, codes []byte, scales []float32, group int, v *Values, n int, entry float32) {
		flip, offset := &v.c[0][0], &v.c[1][0]
		if v.form != whole || int32(*offset) >= 0 || !inInts(n, entry) {
			rest(dst, codes, scales, group, v, n, entry)
			return
		}
		for i := range scales {
			x, c := dst[i*group:(i+1)*group], codes[i*group:(i+1)*group]
			f, ok := factorsOf(scales[i], entry, bits)
			if !ok || group == 0 {
				rest(x, c, scales[i:i+1], group, v, n, entry)
				continue
			}
			asm(&x[0], &c[0], group/intGroup, flip, offset, (*[4]float32)(&f))
		}
	}
}
