//go:build (amd64 || arm64) && !purego

package kernel

import "unsafe"

func panelsBy(
	project func(sums *float64, w *float32, wStride int, x *float32, xStride, n int),
	collect func(sums *float64, w *float32, wStride int, y *float32, yStride int, scale *float64, n int),
) panels {
	return panels{
		func(sums *[8 * sumLanes]float64, w, x rowsOf, n, _ int) {
			_, _ = w.x[7*w.stride+n-1], x.x[(n-1)*x.stride+sumLanes-1]
			project(&sums[0], &w.x[0], 4*w.stride, &x.x[0], 4*x.stride, n)
		},
		func(sums *[16 * sumLanes]float64, w, y rowsOf, scale *[sumLanes]float64, n, _ int) {
			_, _ = w.x[(n-1)*w.stride+15], y.x[(n-1)*y.stride+sumLanes-1]
			collect(&sums[0], &w.x[0], 4*w.stride, &y.x[0], 4*y.stride, &scale[0], n)
		},
	}
}

// addSumsBy takes 16 columns of x at a time. Where there is one row the second
// sums are thrown away.
func addSumsBy(asm func(first, second, a, b *float64, term int, x *float64, xStride, n int)) func(dst []float64, f Factors, x []float64, width int) {
	return func(dst []float64, f Factors, x []float64, width int) {
		var unused [sumLanes]float64
		n, c := len(x)/width, 0
		for ; n > 0 && c+sumLanes <= width; c += sumLanes {
			first, second, b := dst[c:c+sumLanes], unused[:], f.X
			if len(dst) > width {
				second, b = dst[width+c:][:sumLanes], f.X[f.Row:]
			}
			_, _, _ = f.X[(n-1)*f.Term], b[(n-1)*f.Term], x[(n-1)*width+c+sumLanes-1]
			asm(&first[0], &second[0], &f.X[0], &b[0], 8*f.Term, &x[c], 8*width, n)
		}
		addSumsFrom(dst, f, x, width, c)
	}
}

// productBy takes four rows at a time; what is left over is one row four times.
func productBy(asm func(dst, up, down *float32, dstStride, upStride, downStride, rank, steps int), rest func(dst, up, down []float32, columns, from int)) func(dst, up, down []float32, columns int) {
	return func(dst, up, down []float32, columns int) {
		rows, rank, steps := len(dst)/columns, len(down)/columns, columns/step
		up = up[:rows*rank]
		if rank == 0 {
			steps = 0
		}
		if steps > 0 {
			i := 0
			for ; i+4 <= rows; i += 4 {
				asm(&dst[i*columns], &up[i*rank], &down[0], 4*columns, 4*rank, 4*columns, rank, steps)
			}
			for ; i < rows; i++ {
				asm(&dst[i*columns], &up[i*rank], &down[0], 0, 0, 4*columns, rank, steps)
			}
		}
		rest(dst, up, down, columns, steps*step)
	}
}

func subtractBy(asm func(x, y *float32, steps int)) func(x, y []float32) {
	return func(x, y []float32) {
		y = y[:len(x)]
		n := len(x) &^ (step - 1)
		asm(unsafe.SliceData(x), unsafe.SliceData(y), n/step)
		subtract(x[n:], y[n:])
	}
}
