//go:build (amd64 || arm64) && !purego

package kernel

import "unsafe"

// booksBy takes as many groups as vectors have lanes.
func booksBy(lanes int, asm func(sums *float32, counts *uint32, x, middles *float32, rows int)) *bookSet {
	return &bookSet{
		groups: lanes,
		sums: func(sums []float32, counts []uint32, x, middles []float32) {
			sums, counts, middles = sums[:BookLevels*lanes], counts[:BookLevels*lanes], middles[:(BookLevels-1)*lanes]
			asm(unsafe.SliceData(sums), unsafe.SliceData(counts), unsafe.SliceData(x), unsafe.SliceData(middles), len(x)/lanes)
		},
	}
}

func bookCodesBy(asm func(codes *uint16, x *float32, steps int, middles *float32)) func(codes []uint16, x, middles []float32) {
	return func(codes []uint16, x, middles []float32) {
		n := len(x) &^ (step - 1)
		codes, middles = codes[:len(x)], middles[:BookLevels-1]
		asm(unsafe.SliceData(codes), unsafe.SliceData(x), n/step, unsafe.SliceData(middles))
		bookCodes(codes[n:], x[n:], middles)
	}
}
