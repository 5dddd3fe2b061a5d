//go:build (amd64 || arm64) && !purego

package kernel

import (
	"math"
	"slices"
)

// booksBy makes a bookSet of functions of the assembly. It takes as many groups as
// vectors have lanes.
func booksBy(
	lanes int, asm func(sums *float32, counts *uint32, x, middles *float32, rows int),
	means func(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32),
) *bookSet {
	return &bookSet{
		groups: lanes,
		sums: func(sums []float32, counts []uint32, x, middles []float32) {
			const most = 1 << 15 // rows that fit a count of 16 bits
			sums, counts, middles = sums[:BookLevels*lanes], counts[:(BookLevels-1)*lanes], middles[:(BookLevels-1)*lanes]
			for part := range slices.Chunk(x, most*lanes) {
				asm(&sums[0], &counts[0], &part[0], &middles[0], len(part)/lanes)
			}
		},
		means: means,
	}
}

func meansBy(asm func(levels, middles, sums *float32, counts *uint32, rows uint32) (moved, unordered uint32),
) func(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32) {
	return func(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32) {
		sums, counts, middles = sums[:len(levels)], counts[:len(middles)], middles[:len(levels)/BookLevels*(BookLevels-1)]
		return asm(&levels[0], &middles[0], &sums[0], &counts[0], uint32(n))
	}
}

func fitBooksBy(
	near func(near, x, scales *float32, groups int, levels, edges *float32),
	fit func(scales, x, near *float32, groups int),
	absMax func(amax []float32, src []byte, group int),
) func(scales, reach, x, levels, edges []float32) {
	return func(scales, reach, x, levels, edges []float32) {
		const most = 32 // groups that stay in the first-level cache
		between := [BookLevels]float32{BookLevels - 1: float32(math.Inf(1))}
		copy(between[:], edges[:BookLevels-1])
		levels, reach = levels[:BookLevels], reach[:len(scales)]
		var room [most * FitGroup]float32
		for len(scales) > 0 {
			n := min(most, len(scales))
			_ = x[n*FitGroup-1]
			near(&room[0], &x[0], &scales[0], n, &levels[0], &between[0])
			for range 2 {
				fit(&scales[0], &x[0], &room[0], n)
				near(&room[0], &x[0], &scales[0], n, &levels[0], &between[0])
			}
			absMax(reach[:n], AsBytes(room[:n*FitGroup]), FitGroup)
			for i, scale := range scales[:n] {
				reach[i] *= scale
			}
			scales, reach, x = scales[n:], reach[n:], x[n*FitGroup:]
		}
	}
}
