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

// intGroup is the size of groups that are rotated in whole numbers.
const intGroup = 256

// someGroups is how many are looked at, and set aside, at a time.
const someGroups = 64

// bf16Rotation is a rotation of values of bfloat16.
type bf16Rotation func(dst []float32, src []byte, n int, entry float32)

// intsOr rotates in whole numbers what fits them, others of that size by left, and
// other sizes by rest.
func intsOr(asm func(dst *float32, src *byte, groups int, fits *bool, shift uint32), rest, left bf16Rotation) bf16Rotation {
	return func(dst []float32, src []byte, n int, entry float32) {
		if mantissa, _ := math.Frexp(float64(entry)); n != intGroup || mantissa != 0.5 || entry > 1 || entry < 0x1p-20 {
			rest(dst, src, n, entry)
			return
		}
		a := asides.Get().(*aside)
		a.entry = entry
		shift := math.Float32bits(entry) - (127+22)<<23 // of the unit
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

// aside is groups that are rotated together later.
type aside struct {
	entry  float32
	src    [2 * intGroup * someGroups]byte
	dst    [intGroup * someGroups]float32
	places [][]float32
}

var asides = sync.Pool{New: func() any { return new(aside) }}

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
