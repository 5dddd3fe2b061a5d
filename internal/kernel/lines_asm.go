//go:build (amd64 || arm64) && !purego

package kernel

import "unsafe"

func sumLinesBy(asm func(sums, x, from, inverse *float32, rows int, lo, hi float32),
) func(sums *LineSums, x []float32, from, inverse *Lanes, lo, hi float32) {
	return func(sums *LineSums, x []float32, from, inverse *Lanes, lo, hi float32) {
		asm(&sums.Q[0], unsafe.SliceData(x), &from[0], &inverse[0], len(x)/LineLanes, lo, hi)
	}
}

func sumWeightedLinesBy(asm func(sums, x, weights, from, inverse *float32, rows int, lo, hi float32),
) func(sums *LineSums, x, weights []float32, from, inverse *Lanes, lo, hi float32) {
	return func(sums *LineSums, x, weights []float32, from, inverse *Lanes, lo, hi float32) {
		weights = weights[:len(x)]
		asm(&sums.Q[0], unsafe.SliceData(x), unsafe.SliceData(weights), &from[0], &inverse[0], len(x)/LineLanes, lo, hi)
	}
}

func fitLinesBy(asm func(fit, sums, n, old *float32, keep uint32),
) func(fit *LineFit, sums *LineSums, n *LineWeights, old *Line, through bool) {
	return func(fit *LineFit, sums *LineSums, n *LineWeights, old *Line, through bool) {
		keep := ^uint32(0)
		if through {
			keep = 0
		}
		asm(&fit.From[0], &sums.Q[0], &n.Weights[0], &old.From[0], keep)
	}
}

func lineErrorsBy(asm func(errors, x, by, restored *float32, rows int, lo, hi float32),
) func(errors *Lanes, x []float32, by, restored *Line, lo, hi float32) {
	return func(errors *Lanes, x []float32, by, restored *Line, lo, hi float32) {
		asm(&errors[0], unsafe.SliceData(x), &by.From[0], &restored.From[0], len(x)/LineLanes, lo, hi)
	}
}

func weightedLineErrorsBy(asm func(errors, x, weights, by, restored *float32, rows int, lo, hi float32),
) func(errors *Lanes, x, weights []float32, by, restored *Line, lo, hi float32) {
	return func(errors *Lanes, x, weights []float32, by, restored *Line, lo, hi float32) {
		weights = weights[:len(x)]
		asm(&errors[0], unsafe.SliceData(x), unsafe.SliceData(weights), &by.From[0], &restored.From[0], len(x)/LineLanes, lo, hi)
	}
}

func keepLinesBy(asm func(best, fit *float32)) func(best *[2]LineFit, fit *LineFit) {
	return func(best *[2]LineFit, fit *LineFit) { asm(&best[0].From[0], &fit.From[0]) }
}

func wholeRowsBy(asm func(y *uint32, x, from, factor *float32, rows int)) func(y []uint32, x []float32, from, factor *Lanes) {
	return func(y []uint32, x []float32, from, factor *Lanes) {
		x = x[:2*len(y)]
		asm(unsafe.SliceData(y), unsafe.SliceData(x), &from[0], &factor[0], len(y)/LineLanes)
	}
}

func placeLinesBy(asm func(place *uint32, line *float32, c *uint32)) func(place *WholeLine, line *Line, c *WholeCodes) {
	return func(place *WholeLine, line *Line, c *WholeCodes) { asm(&place.From[0], &line.From[0], &c.c[0]) }
}

func addWholeLinesBy(asm func(sums *float32, y, place, c *uint32, rows int),
) func(sums *LineSums, y []uint32, place *WholeLine, c *WholeCodes) {
	return func(sums *LineSums, y []uint32, place *WholeLine, c *WholeCodes) {
		asm(&sums.Q[0], unsafe.SliceData(y), &place.From[0], &c.c[0], len(y)/LineLanes)
	}
}
