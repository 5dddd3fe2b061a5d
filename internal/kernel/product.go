package kernel

import (
	"encoding/binary"
	"math"
	"sync"
)

// productBlock is how many products are added in single precision, see [Project] and
// [Collect]. A block of x of that many rows stays in the first-level cache.
const productBlock = 256

// Matrices with few columns are processed in strips of 16 columns, the lanes.
const (
	sumLanes  = 16
	stripRows = 64 // rows of dst that Project computes together
)

// rowsOf is a matrix, given by its first value and the distance between rows.
type rowsOf struct {
	x      []float32
	stride int
}

// from returns the part of the matrix that begins at a row and column.
func (m rowsOf) from(row, column int) rowsOf { return rowsOf{m.x[row*m.stride+column:], m.stride} }

// panels are the inner loops of Project and Collect. Both take 16 columns of x or y, of
// which the first used columns matter.
type panels struct {
	// project adds to eight rows of sums the product of eight rows of w, which have n
	// columns, and x. If the stride of w is 0, all eight rows are the same.
	project func(sums *[8 * sumLanes]float64, w, x rowsOf, n, used int)
	// collect adds to 16 rows of sums, one for each column of y, the products of 16
	// columns of w, which have n rows, and y, times scale.
	collect func(sums *[16 * sumLanes]float64, w, y rowsOf, scale *[sumLanes]float64, n, used int)
}

// projection holds the buffers of projectBy. They are pooled, since they would be
// allocated in each call: panels are called through pointers, so they escape.
type projection struct {
	sums [stripRows * sumLanes]float64
	same [8 * sumLanes]float64
	x    strip
}

var projections = sync.Pool{New: func() any { return new(projection) }}

// projectBy returns a Project that computes 64 rows and 16 columns of dst at a time.
func projectBy(p panels) func(dst []float64, w, x []float32, columns, width int) {
	return func(dst []float64, w, x []float32, columns, width int) {
		room := projections.Get().(*projection)
		defer projections.Put(room)
		rows := len(dst) / width
		for first := 0; first < rows; first += stripRows {
			n := min(stripRows, rows-first)
			part := rowsOf{w[first*columns : (first+n)*columns], columns}
			for c := 0; c < width; c += sumLanes {
				used := min(sumLanes, width-c)
				clear(room.sums[:])
				for j := 0; j < columns; j += productBlock {
					m := min(productBlock, columns-j)
					p.projectRows(room, part.from(0, j), room.x.of(rowsOf{x, width}.from(j, c), m, used), n, m, used)
				}
				for i := range n {
					copy(dst[(first+i)*width+c:][:used], room.sums[i*sumLanes:])
				}
			}
		}
	}
}

// projectRows adds a block of m columns of w to the sums of n rows.
func (p panels) projectRows(room *projection, w, x rowsOf, n, m, used int) {
	i := 0
	for ; i+8 <= n; i += 8 {
		p.project((*[8 * sumLanes]float64)(room.sums[i*sumLanes:]), w.from(i, 0), x, m, used)
	}
	for ; i < n; i++ {
		one := room.sums[i*sumLanes:][:sumLanes]
		clear(room.same[copy(room.same[:], one):])
		p.project(&room.same, rowsOf{w.from(i, 0).x, 0}, x, m, used)
		copy(one, room.same[:])
	}
}

// strip is a buffer for padding what has fewer columns than lanes.
type strip [productBlock * sumLanes]float32

// of returns n rows of the used columns of x, padded with zeros to the number of lanes.
func (s *strip) of(x rowsOf, n, used int) rowsOf {
	if used == sumLanes {
		return x
	}
	for i := range n {
		to := s[i*sumLanes : (i+1)*sumLanes]
		clear(to[copy(to, x.from(i, 0).x[:used]):])
	}
	return rowsOf{s[:], sumLanes}
}

// collectBy returns a Collect that computes 16 columns of w and 16 of y at a time.
func collectBy(p panels) func(dst []float64, w, y []float32, scale []float64, columns, width int) {
	return func(dst []float64, w, y []float32, scale []float64, columns, width int) {
		var room strip
		rows := len(y) / width
		for first := 0; first < rows; first += productBlock {
			n := min(productBlock, rows-first)
			for c := 0; c < width; c += sumLanes {
				used := min(sumLanes, width-c)
				part := room.of(rowsOf{y, width}.from(first, c), n, used)
				var by [sumLanes]float64
				copy(by[:], scale[c:c+used])
				p.collectColumns(dst[c*sumLanes:], rowsOf{w, columns}.from(first, 0), part, &by, width, n, used)
			}
		}
	}
}

// collectColumns adds n rows of w and y to dst, for the used columns of y.
func (p panels) collectColumns(dst []float64, w, y rowsOf, scale *[sumLanes]float64, width, n, used int) {
	var room strip
	columns := w.stride
	for j := 0; j < columns; j += sumLanes {
		from := room.of(w.from(0, j), n, min(sumLanes, columns-j))
		to := dst[j*width:][:used*sumLanes]
		if used == sumLanes {
			p.collect((*[sumLanes * sumLanes]float64)(to), from, y, scale, n, used)
			continue
		}
		var sums [sumLanes * sumLanes]float64
		copy(sums[:], to)
		p.collect(&sums, from, y, scale, n, used)
		copy(to, sums[:])
	}
}

var (
	portablePanels = panels{projectPanel, collectPanel}
	fusedPanels    = panels{projectFusedPanel, collectPanel}
)

// projectPanel computes two rows and four lanes at a time.
func projectPanel(sums *[8 * sumLanes]float64, w, x rowsOf, n, used int) {
	for i := 0; i < 8; i += 2 {
		a, b := w.from(i, 0).x[:n], w.from(i+1, 0).x[:n]
		for c := 0; c < used; c += 4 {
			var s, t [4]float32
			addChains(&s, &t, a, b, x.from(0, c))
			for k := range 4 {
				sums[i*sumLanes+c+k] += float64(s[k])
				sums[(i+1)*sumLanes+c+k] += float64(t[k])
			}
		}
		if w.stride == 0 {
			return // the first row is all that is wanted
		}
	}
}

func projectFusedPanel(sums *[8 * sumLanes]float64, w, x rowsOf, n, used int) {
	for i := range 8 {
		var s [sumLanes]float32
		for j, u := range w.from(i, 0).x[:n] {
			for c, v := range x.from(j, 0).x[:used] {
				s[c] = FMA(u, v, s[c])
			}
		}
		for c, v := range s[:used] {
			sums[i*sumLanes+c] += float64(v)
		}
		if w.stride == 0 {
			return // the first row is all that is wanted
		}
	}
}

func collectPanel(sums *[16 * sumLanes]float64, w, y rowsOf, scale *[sumLanes]float64, n, used int) {
	var a, b [productBlock]float32
	for j := 0; j < 16; j += 2 {
		for i := range n {
			a[i], b[i] = w.x[i*w.stride+j], w.x[i*w.stride+j+1]
		}
		for c := 0; c < used; c += 4 {
			var s, t [4]float32
			addChains(&s, &t, a[:n], b[:n], y.from(0, c))
			for k := range 4 {
				to := sums[(c+k)*sumLanes+j:][:2]
				to[0] += float64(float64(s[k]) * scale[c+k])
				to[1] += float64(float64(t[k]) * scale[c+k])
			}
		}
	}
}

// addChains is the innermost loop, which takes most of the time.
func addChains(s, t *[4]float32, a, b []float32, x rowsOf) {
	b = b[:len(a)]
	s0, s1, s2, s3 := s[0], s[1], s[2], s[3]
	t0, t1, t2, t3 := t[0], t[1], t[2], t[3]
	at := 0
	for j, u := range a {
		v, y := b[j], x.x[at:at+4:at+4]
		at += x.stride
		s0 += float32(u * y[0])
		s1 += float32(u * y[1])
		s2 += float32(u * y[2])
		s3 += float32(u * y[3])
		t0 += float32(v * y[0])
		t1 += float32(v * y[1])
		t2 += float32(v * y[2])
		t3 += float32(v * y[3])
	}
	s[0], s[1], s[2], s[3] = s0, s1, s2, s3
	t[0], t[1], t[2], t[3] = t0, t1, t2, t3
}

func addSums(dst []float64, f Factors, x []float64, width, used int) {
	addSumsFrom(dst, f, x, width, 0, used)
}

// addSumsFrom is AddSums for the columns from c on.
func addSumsFrom(dst []float64, f Factors, x []float64, width, c, used int) {
	if len(x) == 0 {
		return
	}
	for k := range len(dst) / width {
		row, a := dst[k*width:(k+1)*width], f.X[k*f.Row:]
		at := c
		for ; at+4 <= used; at += 4 {
			sums4(row[at:at+4], a, f.Term, x[at:], width)
		}
		for ; at < used; at++ {
			row[at] = sum(row[at], a, f.Term, x[at:], width)
		}
	}
}

// sums4 is the innermost loop, which takes most of the time.
func sums4(dst, a []float64, term int, x []float64, width int) {
	dst = dst[:4]
	s0, s1, s2, s3 := dst[0], dst[1], dst[2], dst[3]
	for at, j := 0, 0; at < len(x); at, j = at+width, j+term {
		u, y := a[j], x[at:at+4:at+4]
		s0 = math.FMA(u, y[0], s0)
		s1 = math.FMA(u, y[1], s1)
		s2 = math.FMA(u, y[2], s2)
		s3 = math.FMA(u, y[3], s3)
	}
	dst[0], dst[1], dst[2], dst[3] = s0, s1, s2, s3
}

func sum(s float64, a []float64, term int, x []float64, width int) float64 {
	for at, j := 0, 0; at < len(x); at, j = at+width, j+term {
		s = math.FMA(a[j], x[at], s)
	}
	return s
}

// projectWidened returns a ProjectBF16 that widens eight rows of w at a time.
func projectWidened(p panels, widen func(dst []float32, src []byte)) func(dst []float64, w []byte, x []float32, columns int) {
	return func(dst []float64, w []byte, x []float32, columns int) {
		const some = 8
		wide := rowsOf{make([]float32, some*productBlock), productBlock}
		rows := len(dst) / sumLanes
		for first := 0; first < rows; first += some {
			n := min(some, rows-first)
			var sums [some * sumLanes]float64
			for j := 0; j < columns; j += productBlock {
				m := min(productBlock, columns-j)
				for i := range n {
					widen(wide.from(i, 0).x[:m], w[2*((first+i)*columns+j):])
				}
				p.project(&sums, wide, rowsOf{x, sumLanes}.from(j, 0), m, sumLanes)
			}
			copy(dst[first*sumLanes:][:n*sumLanes], sums[:])
		}
	}
}

// collectBF16 computes two columns of w and four of y at a time.
func collectBF16(sums []float32, w []byte, y []float32, columns int) {
	rows := len(y) / sumLanes
	if rows == 0 {
		return
	}
	pair := make([]float32, 2*rows)
	a, b := pair[:rows], pair[rows:]
	for j := 0; j < columns; j += 2 {
		for i := range rows {
			widenBF16(a[i:i+1], w[2*(i*columns+j):])
			if b[i] = 0; j+1 < columns {
				widenBF16(b[i:i+1], w[2*(i*columns+j+1):])
			}
		}
		to := sums[j/sumLanes*sumLanes*sumLanes+j%sumLanes:]
		for c := 0; c < sumLanes; c += 4 {
			var s, t [4]float32
			for k := range 4 {
				at := to[(c+k)*sumLanes:]
				s[k], t[k] = at[0], at[1]
			}
			addChains(&s, &t, a, b, rowsOf{y, sumLanes}.from(0, c))
			for k := range 4 {
				at := to[(c+k)*sumLanes:]
				at[0], at[1] = s[k], t[k]
			}
		}
	}
}

func leastBF16(src []byte) uint16 {
	least := uint16(0xFFFF)
	for ; len(src) > 1; src = src[2:] {
		least = min(least, binary.LittleEndian.Uint16(src)&0x7FFF-1)
	}
	return least
}

func addWide(dst []float64, x []float32, scale float64) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] += float64(float64(v) * scale)
	}
}

func product(dst Rows, up, down []float32) { productFrom(dst, up, down, 0) }

// productFrom is Product for the columns from first on. It adds four rows of down at a
// time; lanes are along columns.
func productFrom(dst Rows, up, down []float32, first int) {
	columns := dst.Values
	rank := len(down) / columns
	for i := range dst.Count {
		u := up[i*rank : (i+1)*rank]
		for from := first; from < columns; from += productBlock {
			n := min(productBlock, columns-from)
			to := dst.X[i*dst.Stride+from:][:n]
			clear(to)
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

func productFused(dst Rows, up, down []float32) { productFusedFrom(dst, up, down, 0) }

func productFusedFrom(dst Rows, up, down []float32, first int) {
	columns := dst.Values
	rank := len(down) / columns
	for i := range dst.Count {
		to := dst.X[i*dst.Stride+first : i*dst.Stride+columns]
		clear(to)
		for k := range rank {
			u := up[i*rank+k]
			for j, v := range down[k*columns+first : (k+1)*columns] {
				to[j] = FMA(u, v, to[j])
			}
		}
	}
}

func add(x, y []float32) {
	y = y[:len(x)]
	for i, v := range y {
		x[i] += v
	}
}

func subtract(x, y []float32) {
	y = y[:len(x)]
	for i, v := range y {
		x[i] -= v
	}
}
