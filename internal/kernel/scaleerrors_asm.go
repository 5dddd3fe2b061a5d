//go:build (amd64 || arm64) && !purego

package kernel

import "unsafe"

func scaleErrorsBy(asm func(errors, x, inverses, squares *float32, rows, count int, most, least, magic float32),
) func(errors, x, inverses, squares []float32, f *Rounding) {
	return func(errors, x, inverses, squares []float32, f *Rounding) {
		asm(unsafe.SliceData(errors), unsafe.SliceData(x), unsafe.SliceData(inverses), unsafe.SliceData(squares),
			len(x)/LineLanes, len(errors)/LineLanes, f.most, f.least, f.magic)
	}
}

func weightedScaleErrorsBy(asm func(errors, x, weights, inverses, squares *float32, rows, count int, most, least, magic float32),
) func(errors, x, weights, inverses, squares []float32, f *Rounding) {
	return func(errors, x, weights, inverses, squares []float32, f *Rounding) {
		asm(unsafe.SliceData(errors), unsafe.SliceData(x), unsafe.SliceData(weights), unsafe.SliceData(inverses), unsafe.SliceData(squares),
			len(x)/LineLanes, len(errors)/LineLanes, f.most, f.least, f.magic)
	}
}

// magnitudesBy takes eight values of each group at a time by assembly, and the rest of
// them by portable code.
func magnitudesBy(raw Raw, asm func(x *float32, src *byte, size, steps int)) func(x []float32, src []byte, size int) {
	from := magnitudesFrom(raw)
	return func(x []float32, src []byte, size int) {
		if size >= 8 {
			asm(&x[0], &src[0], size, size/8)
		}
		if size%8 != 0 {
			from(x, src, size, size&^7)
		}
	}
}
