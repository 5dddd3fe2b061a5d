package kernel

import "sync"

// AddProduct adds to dst, row by row, up times down: the sums of fused multiply-adds in
// ascending order of the rank, as [ProductFused] sets them, each added once it is
// complete.
func AddProduct(dst Rows, up, down []float32) { active.addProduct(dst, up, down) }

// sums are products that are added one row at a time.
var productSums = sync.Pool{New: func() any { return new([]float32) }}

// adding sets a few rows of the product, and adds them.
func adding(product func(dst Rows, up, down []float32), add func(x, y []float32)) func(dst Rows, up, down []float32) {
	return func(dst Rows, up, down []float32) {
		const some = 4
		room := productSums.Get().(*[]float32)
		defer productSums.Put(room)
		columns := dst.Values
		if cap(*room) < some*columns {
			*room = make([]float32, some*columns)
		}
		if columns == 0 {
			return
		}
		rank := len(down) / columns
		for i := 0; i < dst.Count; i += some {
			n := min(some, dst.Count-i)
			sums := (*room)[:n*columns]
			product(Rows{X: sums, Stride: columns, Count: n, Values: columns}, up[i*rank:(i+n)*rank], down)
			for k := range n {
				add(dst.X[(i+k)*dst.Stride:][:columns], sums[k*columns:(k+1)*columns])
			}
		}
	}
}
