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

// narrowTile is what ProjectBF16 takes at a time of w.
const (
	narrowRows    = 16
	narrowColumns = 32
)

// projectBF16By takes blocks of 256 columns, whose part of x stays in the
// nearest cache, and of 16 rows. Others are filled up with zeros.
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

// filled copies some rows of that many bytes into a block of zeros.
func filled(w []byte, stride, rows, size int) []byte {
	block := make([]byte, 2*narrowRows*productBlock)
	for i := range rows {
		copy(block[2*i*productBlock:], w[i*stride:][:size])
	}
	return block
}

// collectBF16By takes whole strips of 16 columns; what is left over is filled
// up with zeros.
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

func addWideBy(asm func(dst *float64, x *float32, scale float64, steps int)) func(dst []float64, x []float32, scale float64) {
	return func(dst []float64, x []float32, scale float64) {
		dst = dst[:len(x)]
		n := len(x) &^ (step - 1)
		asm(unsafe.SliceData(dst), unsafe.SliceData(x), scale, n/step)
		addWide(dst[n:], x[n:], scale)
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
