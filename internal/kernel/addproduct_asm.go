//go:build amd64 && !purego

package kernel

// productAdders are what adds to one row of some steps of columns, to two, and so on.
type productAdders [6]func(dst, up, down *float32, dstStride, upStride, downStride, rank, steps int)

// addProductBy takes six rows at a time, and what is left in one or two turns of more than
// two rows where there are as many.
func addProductBy(adders productAdders, rest func(dst Rows, up, down []float32)) func(dst Rows, up, down []float32) {
	return func(dst Rows, up, down []float32) {
		if len(down) == 0 || dst.Count == 0 || dst.Values%step != 0 {
			rest(dst, up, down)
			return
		}
		rank, stride := len(down)/dst.Values, 4*dst.Values
		_, _ = dst.X[(dst.Count-1)*dst.Stride+dst.Values-1], up[dst.Count*rank-1]
		for i := 0; i < dst.Count; {
			n := rowsAtOnce(dst.Count - i)
			adders[n-1](&dst.X[i*dst.Stride], &up[i*rank], &down[0], 4*dst.Stride, 4*rank, stride, rank, dst.Values/step)
			i += n
		}
	}
}

// rowsAtOnce is how many of some rows are next.
func rowsAtOnce(left int) int {
	switch {
	case left == 7 || left == 8: // not six, and few after it
		return 4
	default:
		return min(left, 6)
	}
}
