//go:build !purego

package kernel

// beginBy multiplies by the entry at once, in the pass that looks at sums.
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

// unscaled is for rows that are multiplied already.
func unscaled(asm func(dst, src *float32, stride, blocks int, signs *uint32)) func(dst, src *float32, stride, blocks int, signs *uint32, factor float32) {
	return func(dst, src *float32, stride, blocks int, signs *uint32, _ float32) {
		asm(dst, src, stride, blocks, signs)
	}
}
