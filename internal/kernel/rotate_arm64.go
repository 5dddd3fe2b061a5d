//go:build !purego

package kernel

import (
	"math"
	"unsafe"
)

// beginBy returns a beginning that multiplies by the entry in the pass that checks the
// sums.
func beginBy(interleave func(dst, src *float32, stride, blocks int), exact func(x *float32, rows int, entry float32) (sums, products uint32)) beginning {
	return func(dst, src *float32, stride, blocks int, entry float32) uint32 {
		interleave(dst, src, stride, blocks)
		sums, _ := exact(dst, blocks*rotateBlock, entry)
		return sums
	}
}

func productsBy(exact func(x *float32, rows int, entry float32) (sums, products uint32)) func(x *float32, rows int, entry float32) uint32 {
	return func(x *float32, rows int, entry float32) uint32 {
		_, products := exact(x, rows, entry)
		return products
	}
}

// unscaled drops the factor, for rows that are multiplied already.
func unscaled(asm func(dst, src *float32, stride, blocks int, signs *uint32)) func(dst, src *float32, stride, blocks int, signs *uint32, factor float32) {
	return func(dst, src *float32, stride, blocks int, signs *uint32, _ float32) {
		asm(dst, src, stride, blocks, signs)
	}
}

// chainBy returns a chainFunc that runs the steps one by one.
func chainBy(asm func(dst, src, x *float32, h float32)) chainFunc {
	return func(sums, x *float32, steps *int32, n int, entry float32) {
		const size = 4 * rotateBlock
		at := func(x *float32, block int32) *float32 {
			return (*float32)(unsafe.Add(unsafe.Pointer(x), 4*size*int(block)))
		}
		for _, s := range unsafe.Slice((*chainStep)(unsafe.Pointer(steps)), n) {
			asm(at(sums, s.dst), at(sums, s.src), at(x, s.row), math.Float32frombits(math.Float32bits(entry)^s.sign))
		}
	}
}

// sumsBy is chainBy for functions that take a sign.
func sumsBy(asm func(dst, src, x *float32, sign uint32)) chainFunc {
	return chainBy(func(dst, src, x *float32, h float32) { asm(dst, src, x, math.Float32bits(h)&(1<<31)) })
}
