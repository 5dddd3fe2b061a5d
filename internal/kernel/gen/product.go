package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Products of matrices have lanes along the columns of the right one: a vector
// of 16 singles or 8 doubles in AVX-512, two of half of them in AVX2. Each value
// of the left one is multiplied by all lanes of a row. collect alone has them
// along the columns of the left one.

// term adds a product to a sum, fused if it is in double precision.
type term struct {
	doubles, fused bool
}

// add adds the value at m, times each of x, to sums.
func (t term) add(v isa, m Mem, x, sums []VecVirtual) {
	if v.wide {
		t.addWide(v, m, x[0], sums[0])
		return
	}
	value := v.vec()
	if t.doubles {
		VBROADCASTSD(m, value)
	} else {
		VBROADCASTSS(m, value)
	}
	for i := range x {
		switch {
		case t.doubles:
			VFMADD231PD(value, x[i], sums[i])
		case t.fused:
			VFMADD231PS(value, x[i], sums[i])
		default:
			product := v.vec()
			VMULPS(value, x[i], product)
			VADDPS(product, sums[i], sums[i])
		}
	}
}

func (t term) addWide(v isa, m Mem, x, sum VecVirtual) {
	switch {
	case t.doubles:
		VFMADD231PD_BCST(m, x, sum)
	case t.fused:
		VFMADD231PS_BCST(m, x, sum)
	default:
		product := v.vec()
		VMULPS_BCST(m, x, product)
		VADDPS(product, sum, sum)
	}
}

// strip returns the 64 bytes at m in as many vectors as that takes.
func (v isa) strip(m Mem) []VecVirtual {
	var all []VecVirtual
	for at := 0; at < 64; at += v.width() {
		r := v.vec()
		VMOVUPS(m.Offset(at), r)
		all = append(all, r)
	}
	return all
}

func (v isa) zeros(n int) [][]VecVirtual {
	all := make([][]VecVirtual, n)
	for i := range all {
		for at := 0; at < 64; at += v.width() {
			r := v.vec()
			VXORPS(r.AsX(), r.AsX(), r.AsX())
			all[i] = append(all[i], r)
		}
	}
	return all
}

// pointersTo returns the addresses of n rows.
func pointersTo(first, stride Register, n int) []Register {
	rows := []Register{copied(first)}
	for i := 1; i < n; i++ {
		next := copied(rows[i-1])
		ADDQ(stride, next)
		rows = append(rows, next)
	}
	return rows
}

// turns runs body as often as the parameter n says, four times in a turn of the loop
// while that fits, and next after each turn.
func turns(n string, body func(i int), next func(done int)) {
	fours := param(n)
	SHRQ(U8(2), fours)
	loop("four", fours, func() {
		for i := range 4 {
			body(i)
		}
		next(4)
	})
	ones := param(n)
	ANDQ(U8(3), ones)
	loop("one", ones, func() {
		body(0)
		next(1)
	})
}

// inParts runs body for n sums of 64 bytes: for all at once, or for four at a time in
// AVX2, which has fewer registers.
func (v isa) inParts(n int, body func(some int)) {
	if v.wide {
		body(n)
		return
	}
	parts := GP64()
	MOVQ(U32(uint32(n/4)), parts)
	loop("part", parts, func() { body(4) })
}

func (v isa) project(name string, fused bool) {
	v.function(name, "func(sums *float64, w *float32, wStride int, x *float32, xStride, n int)",
		name+v.name+" adds to eight rows of 16 sums. Strides are in bytes.")
	sums, w := param("sums"), param("w")
	v.inParts(8, func(rows int) {
		at, x, stride := pointersTo(w, param("wStride"), rows), param("x"), param("xStride")
		all := v.zeros(rows)
		turns("n", func(i int) {
			y := v.strip(Mem{Base: x})
			ADDQ(stride, x)
			for r, sum := range all {
				term{fused: fused}.add(v, Mem{Base: at[r], Disp: 4 * i}, y, sum)
			}
		}, func(done int) {
			for r := range at {
				ADDQ(U8(4*done), at[r])
			}
		})
		v.endRows(all, sums, w)
	})
	VZEROUPPER()
	RET()
}

// endRows adds up the sums of some rows, and in AVX2 moves on to the other rows.
func (v isa) endRows(all [][]VecVirtual, sums, w Register) {
	for r, sum := range all {
		v.addWidened(sum, nil, Mem{Base: sums, Disp: 128 * r})
	}
	if !v.wide {
		ADDQ(U32(uint32(128*len(all))), sums)
		next := param("wStride")
		SHLQ(U8(2), next)
		ADDQ(next, w)
	}
}

// collect has lanes along the columns of the left matrix, which are many and adjacent:
// it multiplies 16 of them by each value of the right matrix.
func (v isa) collect() {
	v.function("collect", "func(sums *float64, w *float32, wStride int, y *float32, yStride int, scale *float64, n int)",
		"collect"+v.name+" adds to 16 rows of 16 sums, one for each column of y. Strides are in bytes.")
	sums, y, scale := param("sums"), param("y"), param("scale")
	v.inParts(16, func(columns int) {
		at, stride, from, yStride := param("w"), param("wStride"), copied(y), param("yStride")
		all := v.zeros(columns)
		loop("row", param("n"), func() {
			x := v.strip(Mem{Base: at})
			PREFETCHT0(Mem{Base: at, Disp: 64}) // the next columns
			ADDQ(stride, at)
			for c, sum := range all {
				term{}.add(v, Mem{Base: from, Disp: 4 * c}, x, sum)
			}
			ADDQ(yStride, from)
		})
		for c, sum := range all {
			by := v.vec()
			VBROADCASTSD(Mem{Base: scale, Disp: 8 * c}, by)
			v.addWidened(sum, by, Mem{Base: sums, Disp: 128 * c})
		}
		if !v.wide {
			ADDQ(U32(uint32(128*columns)), sums)
			ADDQ(U8(4*columns), y)
			ADDQ(U8(8*columns), scale)
		}
	})
	VZEROUPPER()
	RET()
}

// addWidened adds 16 sums in single precision to those in double precision at m,
// multiplied by scale unless that is nil.
func (v isa) addWidened(sums []VecVirtual, scale VecVirtual, m Mem) {
	at := 0
	for _, sum := range sums {
		high, wide := v.vec(), v.vec()
		if v.wide {
			VEXTRACTF64X4(U8(1), sum, high.AsY())
		} else {
			VEXTRACTF128(U8(1), sum, high.AsX())
		}
		VCVTPS2PD(v.half(sum), wide)
		VCVTPS2PD(v.half(high), high)
		for _, part := range []VecVirtual{wide, high} {
			if scale != nil {
				VMULPD(scale, part, part)
			}
			VADDPD(m.Offset(at), part, part)
			VMOVUPD(part, m.Offset(at))
			at += v.width()
		}
	}
}

// product computes four rows, and 32 columns at a time if there are enough registers.
func (v isa) product(name string, fused bool) {
	v.function(name, "func(dst, up, down *float32, dstStride, upStride, downStride, rank, steps int)",
		name+v.name+" sets four rows of that many times 16 columns. Strides are in bytes.")
	dst, down, ones := param("dst"), param("down"), param("steps")
	at := pointersTo(param("up"), param("upStride"), 4)
	if v.wide {
		pairs := copied(ones)
		SHRQ(U8(1), pairs)
		ANDQ(U8(1), ones)
		loop("pair", pairs, func() { v.productOf(2, at, dst, down, fused) })
	}
	loop("turn", ones, func() { v.productOf(1, at, dst, down, fused) })
	VZEROUPPER()
	RET()
}

// productOf computes four rows of that many strips, and moves the pointers on.
func (v isa) productOf(strips int, at []Register, dst, down Register, fused bool) {
	from, stride := copied(down), param("downStride")
	all := v.zeros(4 * strips)
	loop(described("rank%d", strips), param("rank"), func() {
		var x [][]VecVirtual
		for i := range strips {
			x = append(x, v.strip(Mem{Base: from, Disp: 64 * i}))
		}
		ADDQ(stride, from)
		for i, sum := range all {
			term{fused: fused}.add(v, Mem{Base: at[i/strips]}, x[i%strips], sum)
		}
		for _, row := range at {
			ADDQ(U8(4), row)
		}
	})
	back, to := param("rank"), copied(dst)
	SHLQ(U8(2), back)
	for i, sum := range all {
		for k, part := range sum {
			VMOVUPS(part, Mem{Base: to, Disp: 64*(i%strips) + k*v.width()})
		}
		if i%strips == strips-1 {
			SUBQ(back, at[i/strips])
			ADDQ(param("dstStride"), to)
		}
	}
	ADDQ(U32(uint32(64*strips)), dst)
	ADDQ(U32(uint32(64*strips)), down)
}

// addSums computes four rows of 16 sums, eight sums at a time in AVX2.
func (v isa) addSums() {
	v.function("addSums", "func(sums *float64, stride int, a *float64, row, term int, x *float64, xStride, n int)",
		"addSums"+v.name+" adds to four rows of 16 sums rows of a times those of x. Strides are in bytes.")
	sums, x, stride, next := param("sums"), param("x"), param("xStride"), param("term")
	strips := 1
	if v.wide {
		strips = 2
	}
	for half := 0; half < 2; half += strips {
		var all [][]VecVirtual
		to, by := pointersTo(sums, param("stride"), sumRows), pointersTo(param("a"), param("row"), sumRows)
		for _, at := range to {
			for i := range strips {
				all = append(all, v.strip(Mem{Base: at, Disp: 64 * (half + i)}))
			}
		}
		from := copied(x)
		loop(described("turn%d", half), param("n"), func() {
			var y [][]VecVirtual
			for i := range strips {
				y = append(y, v.strip(Mem{Base: from, Disp: 64 * (half + i)}))
			}
			ADDQ(stride, from)
			for i, sum := range all {
				term{doubles: true}.add(v, Mem{Base: by[i/strips]}, y[i%strips], sum)
			}
			for _, at := range by {
				ADDQ(next, at)
			}
		})
		for i, sum := range all {
			for k, part := range sum {
				VMOVUPD(part, Mem{Base: to[i/strips], Disp: 64*(half+i%strips) + k*v.width()})
			}
		}
	}
	VZEROUPPER()
	RET()
}

// sums writes a function that adds or subtracts values.
func (v isa) sums(name string, op func(...Op)) {
	v.function(name, "func(x, y *float32, steps int)", name+v.name+" works on that many times 16 values.")
	x, y, n := param("x"), param("y"), param("steps")
	v.each(n, func(i int) {
		m := Mem{Base: x, Disp: 4 * i}
		a := v.load(f32, m)
		op(Mem{Base: y, Disp: 4 * i}, a, a)
		VMOVUPS(a, m)
	}, pointer{x, 4}, pointer{y, 4})
	VZEROUPPER()
	RET()
}

// sumRows is how many rows addSums takes at a time.
const sumRows = 4

// productBlock is how many columns of w are processed before the next rows.
const productBlock = 256

// projectBF16 widens 32 columns of some rows at a time into one half of the room, while
// it multiplies those in the other half. The last time, it reads the same columns ahead
// once more.
func (v isa) projectBF16() {
	v.function("projectBF16", "func(sums *float64, w *byte, wStride int, x, room *float32, steps int)",
		"projectBF16"+v.name+" adds to 16 rows of 16 sums, of that many times 32 columns. The stride is in bytes.")
	sums, w, stride := param("sums"), param("w"), param("wStride")
	v.inParts(16, func(rows int) {
		const columns = 32
		at := rowsFrom(w, stride, rows)
		x, now, next := param("x"), param("room"), GP64()
		LEAQ(Mem{Base: now, Disp: 4 * columns * rows}, next)
		widen := func(from, to int, room Register) {
			for r := from; r < to; r++ {
				for c := 0; c < columns; c += v.width() / 4 {
					m := at.row(r)
					if c == 0 {
						PREFETCHT1(m.Offset(2 * productBlock)) // rows are too far apart for the processor's own prefetching
					}
					m.Disp = 2 * c
					VMOVUPS(v.load(bf16, m), Mem{Base: room, Disp: 4 * (r*columns + c)})
				}
			}
		}
		all, steps := v.zeros(rows), param("steps")
		widen(0, rows, now)
		loop("step", steps, func() {
			ahead, none := GP64(), GP64()
			MOVQ(U32(2*columns), ahead)
			XORQ(none, none)
			CMPQ(steps, U8(1))
			CMOVQEQ(none, ahead)
			at.advance(ahead)
			const some = 4
			for k := 0; k < columns; k += some {
				parts := columns / some
				widen(k/some*rows/parts, (k/some+1)*rows/parts, next)
				for i := k; i < k+some; i++ {
					y := v.strip(Mem{Base: x, Disp: 64 * i})
					for r, sum := range all {
						term{fused: true}.add(v, Mem{Base: now, Disp: 4 * (r*columns + i)}, y, sum)
					}
				}
			}
			ADDQ(U32(64*columns), x)
			XCHGQ(now, next)
		})
		v.endRows(all, sums, w)
	})
	VZEROUPPER()
	RET()
}

// fours are the addresses of rows, with one pointer for every four rows.
type fours struct {
	first         []Register
	stride, three Register
}

func rowsFrom(first, stride Register, n int) fours {
	f := fours{stride: stride, three: GP64()}
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, f.three)
	for i := 0; i < n; i += 4 {
		at := copied(first)
		if i > 0 {
			LEAQ(Mem{Base: f.first[i/4-1], Index: stride, Scale: 4}, at)
		}
		f.first = append(f.first, at)
	}
	return f
}

func (f fours) row(i int) Mem {
	m := Mem{Base: f.first[i/4]}
	switch i % 4 {
	case 1:
		m.Index, m.Scale = f.stride, 1
	case 2:
		m.Index, m.Scale = f.stride, 2
	case 3:
		m.Index, m.Scale = f.three, 1
	}
	return m
}

func (f fours) advance(n Register) {
	for _, at := range f.first {
		ADDQ(n, at)
	}
}

// collectBF16 keeps the sums of a strip in registers; in AVX2, those of four columns of
// y at a time.
func (v isa) collectBF16() {
	v.function("collectBF16", "func(sums *float32, w *byte, wStride int, y *float32, rows, strips int)",
		"collectBF16"+v.name+" adds to 16 rows of 16 sums for each strip. The stride is in bytes.")
	sums, w, stride := param("sums"), param("w"), param("wStride")
	loop("strip", param("strips"), func() {
		y := param("y")
		v.inParts(16, func(columns int) {
			at, from := copied(w), copied(y)
			var all [][]VecVirtual
			for c := range columns {
				all = append(all, v.strip(Mem{Base: sums, Disp: 64 * c}))
			}
			loop("row", param("rows"), func() {
				var x []VecVirtual
				for i := 0; i < 16; i += v.width() / 4 {
					x = append(x, v.load(bf16, Mem{Base: at, Disp: 2 * i}))
				}
				ADDQ(stride, at)
				for c, sum := range all {
					term{fused: true}.add(v, Mem{Base: from, Disp: 4 * c}, x, sum)
				}
				ADDQ(U8(64), from)
			})
			for c, sum := range all {
				for i, part := range sum {
					VMOVUPS(part, Mem{Base: sums, Disp: 64*c + i*v.width()})
				}
			}
			ADDQ(U32(uint32(64*columns)), sums)
			if !v.wide {
				ADDQ(U8(4*columns), y)
			}
		})
		ADDQ(U8(32), w)
	})
	VZEROUPPER()
	RET()
}

// addWide adds singles, multiplied by a scale, to doubles.
func (v isa) addWide() {
	v.function("addWide", "func(dst *float64, x *float32, steps int, scale float64)",
		"addWide"+v.name+" works on that many times 16 values.")
	dst, x, by := param("dst"), param("x"), v.vec()
	VBROADCASTSD(Load(Param("scale"), XMM()), by)
	loop("turn", param("steps"), func() {
		v.addWidened(v.strip(Mem{Base: x}), by, Mem{Base: dst})
		ADDQ(U8(64), x)
		ADDQ(U32(128), dst)
	})
	VZEROUPPER()
	RET()
}

// leastBF16 keeps the least magnitudes, minus 1, of 32 lanes. For zero, that is the
// greatest word.
func (v isa) leastBF16() {
	v.function("leastBF16", "func(least *uint16, src *byte, steps int)",
		"leastBF16"+v.name+" looks at that many times 32 values.")
	least, src := param("least"), param("src")
	magnitude, one := v.constant16(0x7FFF), v.constant16(1)
	all := v.strip(Mem{Base: least})
	loop("turn", param("steps"), func() {
		for i, x := range v.strip(Mem{Base: src}) {
			v.and(magnitude, x, x)
			VPSUBW(one, x, x)
			VPMINUW(x, all[i], all[i])
		}
		ADDQ(U8(64), src)
	})
	for i, part := range all {
		VMOVUPS(part, Mem{Base: least, Disp: i * v.width()})
	}
	VZEROUPPER()
	RET()
}

// productRows is how many rows addProduct takes at most at a time: with 16 columns, 12 sums
// in AVX2, which hide how long a multiply-add takes.
const productRows = 6

// addProducts writes a function for each number of rows.
func (v isa) addProducts() {
	for rows := 1; rows <= productRows; rows++ {
		name := described("addProduct%d", rows)
		v.function(name, "func(dst, up, down *float32, dstStride, upStride, downStride, rank, steps int)",
			described("%s%s adds to %d rows of that many times 16 columns. Strides are in bytes.", name, v.name, rows))
		dst, down, ones := param("dst"), param("down"), param("steps")
		at := rowsFrom(param("up"), param("upStride"), rows)
		if v.wide {
			pairs := copied(ones)
			SHRQ(U8(1), pairs)
			ANDQ(U8(1), ones)
			loop("pair", pairs, func() { v.addProductOf(2, rows, at, dst, down) })
		}
		loop("turn", ones, func() { v.addProductOf(1, rows, at, dst, down) })
		VZEROUPPER()
		RET()
	}
}

// addProductOf adds to some rows of that many strips, and moves the pointers on.
func (v isa) addProductOf(strips, rows int, at fours, dst, down Register) {
	from, stride, each := copied(down), param("downStride"), GP64()
	all := v.zeros(rows * strips)
	MOVQ(U32(4), each)
	loop(described("rank%d", strips), param("rank"), func() {
		var x [][]VecVirtual
		for i := range strips {
			x = append(x, v.strip(Mem{Base: from, Disp: 64 * i}))
		}
		ADDQ(stride, from)
		for i, sum := range all {
			term{fused: true}.add(v, at.row(i/strips), x[i%strips], sum)
		}
		at.advance(each)
	})
	back, to := param("rank"), copied(dst)
	SHLQ(U8(2), back)
	NEGQ(back)
	at.advance(back)
	for i, sum := range all {
		for k, part := range sum {
			m := Mem{Base: to, Disp: 64*(i%strips) + k*v.width()}
			VADDPS(m, part, part)
			VMOVUPS(part, m)
		}
		if i%strips == strips-1 {
			ADDQ(param("dstStride"), to)
		}
	}
	ADDQ(U32(uint32(64*strips)), dst)
	ADDQ(U32(uint32(64*strips)), down)
}
