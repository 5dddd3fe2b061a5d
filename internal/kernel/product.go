package kernel

// Rows and columns that a product takes at a time, so that they stay in the
// nearest cache. Sums go on from block to block: blocks do not show in results.
const productBlock = 256

// project widens two rows of w at a time; lanes lie along the columns of x.
func project(dst []float64, w []float32, x []float64, columns, width int) {
	clear(dst)
	var packed [2][productBlock]float64
	rows := len(w) / columns
	for from := 0; from < columns; from += productBlock {
		n := min(productBlock, columns-from)
		part := x[from*width : (from+n)*width]
		for i := 0; i < rows; i += 2 {
			pair := min(2, rows-i)
			for k := range pair {
				for j, v := range w[(i+k)*columns+from:][:n] {
					packed[k][j] = float64(v)
				}
			}
			AddSums(dst[i*width:(i+pair)*width], packed[0][:n], packed[1][:n], part, width)
		}
	}
}

// collect gathers two columns of w at a time; lanes lie along the columns of y.
func collect(dst []float64, w []float32, y []float64, columns, width int) {
	clear(dst)
	const strip = 8
	var packed [strip][productBlock]float64
	rows := len(w) / columns
	for from := 0; from < rows; from += productBlock {
		n := min(productBlock, rows-from)
		part := y[from*width : (from+n)*width]
		for j := 0; j < columns; j += strip {
			m := min(strip, columns-j)
			for i := range n {
				for k, v := range w[(from+i)*columns+j:][:m] {
					packed[k][i] = float64(v)
				}
			}
			for k := 0; k < m; k += 2 {
				to := dst[(j+k)*width : (j+min(k+2, m))*width]
				AddSums(to, packed[k][:n], packed[k+1][:n], part, width)
			}
		}
	}
}

// AddSums adds to one or two rows of dst, of width values: row k gets Σ_j of
// its factors a (b for the second) times row j of x, in ascending order, every
// product rounded.
func AddSums(dst, a, b, x []float64, width int) {
	var unused [4]float64
	c := 0
	for ; c+4 <= width; c += 4 {
		second := unused[:]
		if len(dst) > width {
			second = dst[width+c : width+c+4]
		}
		sums2x4(dst[c:c+4], second, a, b, x[c:], width)
	}
	for ; c < width; c++ {
		dst[c] = sum(dst[c], a, x[c:], width)
		if len(dst) > width {
			dst[width+c] = sum(dst[width+c], b, x[c:], width)
		}
	}
}

// sums2x4 is the loop in which the time goes.
func sums2x4(d0, d1, a, b, x []float64, width int) {
	d0, d1, b = d0[:4], d1[:4], b[:len(a)]
	s0, s1, s2, s3 := d0[0], d0[1], d0[2], d0[3]
	t0, t1, t2, t3 := d1[0], d1[1], d1[2], d1[3]
	at := 0
	for j, u := range a {
		v := b[j]
		y := x[at : at+4 : at+4]
		at += width
		s0 += float64(u * y[0])
		s1 += float64(u * y[1])
		s2 += float64(u * y[2])
		s3 += float64(u * y[3])
		t0 += float64(v * y[0])
		t1 += float64(v * y[1])
		t2 += float64(v * y[2])
		t3 += float64(v * y[3])
	}
	d0[0], d0[1], d0[2], d0[3] = s0, s1, s2, s3
	d1[0], d1[1], d1[2], d1[3] = t0, t1, t2, t3
}

func sum(s float64, a, x []float64, width int) float64 {
	for j, u := range a {
		s += float64(u * x[j*width])
	}
	return s
}

// product goes through four rows of down at a time; lanes lie along columns.
func product(dst, up, down []float32, columns int) {
	clear(dst)
	rank := len(down) / columns
	for i := 0; i < len(dst)/columns; i++ {
		u := up[i*rank : (i+1)*rank]
		for from := 0; from < columns; from += productBlock {
			n := min(productBlock, columns-from)
			to := dst[i*columns+from:][:n]
			k := 0
			for ; k+4 <= rank; k += 4 {
				add4(to, u[k:k+4], down[k*columns+from:], columns)
			}
			for ; k < rank; k++ {
				for j, v := range down[k*columns+from:][:n] {
					to[j] += float32(u[k] * v)
				}
			}
		}
	}
}

func add4(dst, u, down []float32, columns int) {
	n := len(dst)
	u0, u1, u2, u3 := u[0], u[1], u[2], u[3]
	d0, d1, d2, d3 := down[:n], down[columns:][:n], down[2*columns:][:n], down[3*columns:][:n]
	for j, s := range dst {
		s += float32(u0 * d0[j])
		s += float32(u1 * d1[j])
		s += float32(u2 * d2[j])
		s += float32(u3 * d3[j])
		dst[j] = s
	}
}

func productFused(dst, up, down []float32, columns int) {
	clear(dst)
	rank := len(down) / columns
	for i := 0; i < len(dst)/columns; i++ {
		to := dst[i*columns : (i+1)*columns]
		for k := range rank {
			u := up[i*rank+k]
			for j, v := range down[k*columns:][:columns] {
				to[j] = FMA(u, v, to[j])
			}
		}
	}
}
