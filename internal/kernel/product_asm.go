//go:build (amd64 || arm64) && !purego

package kernel

import (
	"slices"
	"unsafe"
)

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

// The tile of w that ProjectBF16 computes at a time.
const (
	narrowRows    = 16
	narrowColumns = 32
)

// projectBF16By takes blocks of 256 columns, whose part of x stays in the first-level
// cache, and of 16 rows. Smaller blocks are padded with zeros.
func projectBF16By(asm func(sums *float64, w *byte, wStride int, x, room *float32, steps int)) func(dst []float64, w []byte, x []float32, columns int) {
	return func(dst []float64, w []byte, x []float32, columns int) {
		var room [2 * narrowRows * narrowColumns]float32
		clear(dst)
		rows := len(dst) / sumLanes
		for j := 0; j < columns; j += productBlock {
			m := min(productBlock, columns-j)
			steps := (m + narrowColumns - 1) / narrowColumns
			from := x[j*sumLanes:][:m*sumLanes]
			if m%narrowColumns != 0 {
				from = append(make([]float32, 0, productBlock*sumLanes), from...)[:productBlock*sumLanes]
			}
			for i := 0; i < rows; i += narrowRows {
				at, stride := w[2*(i*columns+j):], 2*columns
				if m%narrowColumns == 0 && i+narrowRows <= rows {
					asm(&dst[i*sumLanes], &at[0], stride, &from[0], &room[0], steps)
					continue
				}
				var sums [narrowRows * sumLanes]float64
				to := dst[i*sumLanes : min(i+narrowRows, rows)*sumLanes]
				copy(sums[:], to)
				at, stride = filled(at, stride, len(to)/sumLanes, 2*m), 2*productBlock
				asm(&sums[0], &at[0], stride, &from[0], &room[0], steps)
				copy(to, sums[:])
			}
		}
	}
}

// filled copies rows of size bytes into a block of zeros.
func filled(w []byte, stride, rows, size int) []byte {
	block := make([]byte, 2*narrowRows*productBlock)
	for i := range rows {
		copy(block[2*i*productBlock:], w[i*stride:][:size])
	}
	return block
}

// collectBF16By takes whole strips of 16 columns; the last strip is padded with zeros.
func collectBF16By(asm func(sums *float32, w *byte, wStride int, y *float32, rows, strips int)) func(sums []float32, w []byte, y []float32, columns int) {
	return func(sums []float32, w []byte, y []float32, columns int) {
		rows, strips, rest := len(y)/sumLanes, columns/sumLanes, columns%sumLanes
		if rows == 0 {
			return
		}
		if strips > 0 {
			_, _ = sums[strips*sumLanes*sumLanes-1], w[2*rows*columns-1]
			asm(&sums[0], &w[0], 2*columns, &y[0], rows, strips)
		}
		if rest > 0 {
			const size = 2 * sumLanes
			last := make([]byte, rows*size)
			for i := range rows {
				copy(last[i*size:], w[2*((i+1)*columns-rest):][:2*rest])
			}
			to := sums[strips*sumLanes*sumLanes:][:sumLanes*sumLanes]
			asm(&to[0], &last[0], size, &y[0], rows, 1)
		}
	}
}

func leastBF16By(asm func(least *uint16, src *byte, steps int)) func(src []byte) uint16 {
	return func(src []byte) uint16 {
		lanes := [32]uint16{}
		for i := range lanes {
			lanes[i] = 0xFFFF
		}
		const size = 2 * len(lanes)
		n := len(src) / size
		asm(&lanes[0], unsafe.SliceData(src), n)
		return min(slices.Min(lanes[:]), leastBF16(src[n*size:]))
	}
}

// addSumsBy computes four rows and 16 columns at a time. If there are fewer rows, it
// computes each of them four times.
func addSumsBy(asm func(sums *float64, stride int, a *float64, row, term int, x *float64, xStride, n int)) func(dst []float64, f Factors, x []float64, width, used int) {
	return func(dst []float64, f Factors, x []float64, width, used int) {
		n, rows, c := len(x)/width, len(dst)/width, 0
		if n == 0 {
			return
		}
		_, _, _ = dst[(rows-1)*width+used-1], f.X[(rows-1)*f.Row+(n-1)*f.Term], x[(n-1)*width+used-1]
		for ; c+sumLanes <= used; c += sumLanes {
			if rows == SumRows {
				asm(&dst[c], 8*width, &f.X[0], 8*f.Row, 8*f.Term, &x[c], 8*width, n)
				continue
			}
			for k := range rows {
				asm(&dst[k*width+c], 0, &f.X[k*f.Row], 0, 8*f.Term, &x[c], 8*width, n)
			}
		}
		if c < used {
			addSumsFrom(dst, f, x, width, c, used)
		}
	}
}

// productBy computes four rows at a time, and each remaining row four times.
func productBy(asm func(dst, up, down *float32, dstStride, upStride, downStride, rank, steps int), rest func(dst Rows, up, down []float32, from int)) func(dst Rows, up, down []float32) {
	return func(dst Rows, up, down []float32) {
		rank, stride := len(down)/dst.Values, 4*dst.Values
		steps := dst.Values / step
		up = up[:dst.Count*rank]
		if rank == 0 || dst.Count == 0 {
			steps = 0
		}
		if steps > 0 {
			_ = dst.X[(dst.Count-1)*dst.Stride+dst.Values-1]
			i := 0
			for ; i+4 <= dst.Count; i += 4 {
				asm(&dst.X[i*dst.Stride], &up[i*rank], &down[0], 4*dst.Stride, 4*rank, stride, rank, steps)
			}
			for ; i < dst.Count; i++ {
				asm(&dst.X[i*dst.Stride], &up[i*rank], &down[0], 0, 0, stride, rank, steps)
			}
		}
		if steps*step < dst.Values {
			rest(dst, up, down, steps*step)
		}
	}
}
