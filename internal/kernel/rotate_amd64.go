//go:build !purego

package kernel

func beginBy(asm func(dst, src *float32, stride, blocks int, least float32) (sums uint32)) beginning {
	return func(dst, src *float32, stride, blocks int, entry float32) uint32 {
		return asm(dst, src, stride, blocks, 0x1p-149/entry)
	}
}

func productsBy(asm func(x *float32, rows int, entry, least float32) (exact uint32)) func(x *float32, rows int, entry float32) uint32 {
	return func(x *float32, rows int, entry float32) uint32 { return asm(x, rows, entry, 0x1p-126/entry) }
}
