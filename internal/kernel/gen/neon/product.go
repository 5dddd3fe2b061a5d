package main

// Products of matrices have lanes along the columns of the right one: a strip
// of 16 singles is four vectors. Each value of the left one is multiplied by
// all lanes of a strip.

// term adds a product to a sum, and rounds both unless it is fused.
type term struct {
	lanes         string
	fused         bool
	one, minus, t vec
}

func (a *assembly) newTerm(lanes string, fused bool) term {
	if fused {
		return term{lanes: lanes, fused: true}
	}
	one, minus := uint64(0x3F800000), uint64(1<<31)
	if lanes == "D2" {
		one, minus = 0x3FF0000000000000, 1<<63
	}
	return term{lanes, false, a.constant(one, lanes), a.constant(minus, lanes), a.vec()}
}

func (t term) multiply(a *assembly, x, y, to vec) {
	a.op("VMOV", t.minus.b(), to.b())
	a.op("VFMLA", y.as(t.lanes), x.as(t.lanes), to.as(t.lanes))
}

func (t term) plus(a *assembly, x, sum vec) {
	a.op("VFMLA", t.one.as(t.lanes), x.as(t.lanes), sum.as(t.lanes))
}

// add adds value, in all lanes, times each of x, to sums.
func (t term) add(a *assembly, value vec, x, sums []vec) {
	each(x, func(i int, x vec) {
		if t.fused {
			a.op("VFMLA", value.as(t.lanes), x.as(t.lanes), sums[i].as(t.lanes))
			return
		}
		t.multiply(a, x, value, t.t)
		t.plus(a, t.t, sums[i])
	})
}

// sums are four rows, or columns, of 16 sums in single precision.
type sums struct {
	all, strip []vec
	value      vec
	term
}

func (a *assembly) newSums(fused bool) sums {
	return sums{a.vecs(16), a.vecs(4), a.vec(), a.newTerm("S4", fused)}
}

// addRow adds a strip times the next values at four pointers, or times those at one
// pointer.
func (s sums) addRow(a *assembly, from, stride string, values []string) {
	a.op("VLD1", "("+from+")", list(s.strip, "S4"))
	a.op("ADD", stride, from)
	for r := range 4 {
		a.op("VLD1R.P", "4("+values[r%len(values)]+")", "["+s.value.s()+"]")
		s.add(a, s.value, s.strip, s.all[4*r:4*r+4])
	}
}

// addWidened adds the sums to sums in double precision. Every four vectors are
// multiplied by the next value at scale, unless scale is "".
func (s sums) addWidened(a *assembly, t term, to, scale string) {
	wide, other := s.strip[:2], s.strip[2:]
	each(s.all, func(i int, sum vec) {
		a.doubles(0, sum, wide[0])
		a.doubles(1, sum, wide[1])
		if scale != "" {
			a.op("VLD1R", "("+scale+")", "["+other[0].d()+"]")
			each(wide, func(_ int, wide vec) {
				t.multiply(a, wide, other[0], t.t)
				a.op("VMOV", t.t.b(), wide.b())
			})
			if i%4 == 3 {
				a.op("ADD", "$8", scale)
			}
		}
		a.op("VLD1", "("+to+")", list(other, "D2"))
		each(other, func(i int, other vec) { t.plus(a, wide[i], other) })
		a.store(other, "D2", to)
	})
}

func (a *assembly) project(name string, fused bool) {
	doc := "adds to eight rows of 16 sums. Strides are in bytes."
	a.function(name, "sums *float64, w *float32, wStride int, x *float32, xStride, n int", "", doc, func() {
		to, w, stride, x, xStride := a.param("sums"), a.param("w"), a.param("wStride"), a.param("x"), a.param("xStride")
		n, count, from, parts := a.param("n"), a.reg(), a.reg(), a.reg()
		at := []string{a.reg(), a.reg(), a.reg(), a.reg()}
		s, t := a.newSums(fused), a.newTerm("D2", false)
		a.op("MOVD", "$2", parts)
		a.loop("part", parts, func() {
			for _, r := range at {
				a.op("MOVD", w, r)
				a.op("ADD", stride, w)
			}
			a.op("MOVD", x, from)
			a.op("MOVD", n, count)
			a.clear(s.all...)
			a.loop("turn", count, func() { s.addRow(a, from, xStride, at) })
			s.addWidened(a, t, to, "")
		})
	})
}

// collect has lanes along the columns of the left matrix.
func (a *assembly) collect() {
	doc := "adds to 16 rows of 16 sums, one for each column of y. Strides are in bytes."
	params := "sums *float64, w *float32, wStride int, y *float32, yStride int, scale *float64, n int"
	a.function("collect", params, "", doc, func() {
		to, w, stride, y, yStride := a.param("sums"), a.param("w"), a.param("wStride"), a.param("y"), a.param("yStride")
		scale, n, count, from, at, parts := a.param("scale"), a.param("n"), a.reg(), a.reg(), a.reg(), a.reg()
		s, t := a.newSums(false), a.newTerm("D2", false)
		a.op("SUB", "$16", yStride) // the bytes that are read of a row
		a.op("MOVD", "$4", parts)
		a.loop("part", parts, func() {
			a.op("MOVD", w, at)
			a.op("MOVD", y, from)
			a.op("ADD", "$16", y)
			a.op("MOVD", n, count)
			a.clear(s.all...)
			a.loop("row", count, func() {
				s.addRow(a, at, stride, []string{from})
				a.op("ADD", yStride, from)
			})
			s.addWidened(a, t, to, scale)
		})
	})
}

// collectBF16 computes four columns of y at a time.
func (a *assembly) collectBF16() {
	doc := "adds to 16 rows of 16 sums for each strip. The stride is in bytes."
	params := "sums *float32, w *byte, wStride int, y *float32, rows, strips int"
	a.function("collectBF16", params, "", doc, func() {
		to, w, stride, y := a.param("sums"), a.param("w"), a.param("wStride"), a.param("y")
		rows, strips, parts := a.param("rows"), a.param("strips"), a.reg()
		at, from, count := a.reg(), a.reg(), a.reg()
		s, narrow, zero := a.newSums(true), a.vecs(2), a.vec()
		a.clear(zero)
		a.op("SUB", "$32", stride) // the bytes that are read of a row
		a.loop("strip", strips, func() {
			a.op("MOVD", "$4", parts)
			a.loop("part", parts, func() {
				a.op("MOVD", w, at)
				a.op("MOVD", y, from)
				a.op("ADD", "$16", y)
				a.op("MOVD", rows, count)
				for c := 0; c < 16; c += 4 {
					a.load(s.all[c:c+4], "S4", to)
				}
				a.op("SUB", "$256", to)
				a.loop("row", count, func() {
					a.wide(bf16, at, s.strip, narrow, zero)
					a.op("ADD", stride, at)
					for c := range 4 {
						a.op("VLD1R.P", "4("+from+")", "["+s.value.s()+"]")
						s.add(a, s.value, s.strip, s.all[4*c:4*c+4])
					}
					a.op("ADD", "$48", from)
				})
				for c := 0; c < 16; c += 4 {
					a.store(s.all[c:c+4], "S4", to)
				}
			})
			a.op("SUB", "$64", y)
			a.op("ADD", "$32", w)
		})
	})
}

// matrixProduct computes four rows of 16 columns.
func (a *assembly) matrixProduct(name string, fused bool) {
	doc := "sets four rows of that many times 16 columns. Strides are in bytes."
	params := "dst, up, down *float32, dstStride, upStride, downStride, rank, steps int"
	a.function(name, params, "", doc, func() {
		dst, up, down := a.param("dst"), a.param("up"), a.param("down")
		dstStride, upStride, downStride := a.param("dstStride"), a.param("upStride"), a.param("downStride")
		rank, steps, count, from := a.param("rank"), a.param("steps"), a.reg(), a.reg()
		at, s := a.groupsAt(up, upStride), a.newSums(fused)
		a.loop("turn", steps, func() {
			a.op("MOVD", down, from)
			a.op("MOVD", rank, count)
			a.clear(s.all...)
			a.loop("rank", count, func() { s.addRow(a, from, downStride, at) })
			a.op("MOVD", dst, from)
			for r, up := range at {
				a.op("SUB", rank+"<<2", up)
				a.op("VST1", list(s.all[4*r:4*r+4], "S4"), "("+from+")")
				a.op("ADD", dstStride, from)
			}
			a.op("ADD", "$64", dst)
			a.op("ADD", "$64", down)
		})
	})
}

// addSums computes four rows of 16 sums, eight at a time.
func (a *assembly) addSums() {
	doc := "adds to four rows of 16 sums rows of a times those of x. Strides are in bytes."
	a.function("addSums", "sums *float64, stride int, a *float64, row, term int, x *float64, xStride, n int", "", doc, func() {
		sums, stride, first, row := a.param("sums"), a.param("stride"), a.param("a"), a.param("row")
		next, x, xStride, n := a.param("term"), a.param("x"), a.param("xStride"), a.param("n")
		by := []string{a.reg(), a.reg(), a.reg(), a.reg()}
		count, from, parts := a.reg(), a.reg(), a.reg()
		to := count // while it counts nothing
		all, strip, value, t := a.vecs(16), a.vecs(4), a.vec(), a.newTerm("D2", true)
		a.op("MOVD", "$2", parts)
		a.loop("part", parts, func() {
			a.op("MOVD", sums, to)
			a.op("MOVD", first, by[0])
			for r := range by {
				if r > 0 {
					a.op("ADD", row, by[r-1], by[r])
				}
				a.op("VLD1", "("+to+")", list(all[4*r:4*r+4], "D2"))
				a.op("ADD", stride, to)
			}
			a.op("MOVD", x, from)
			a.op("MOVD", n, count)
			a.loop("turn", count, func() {
				a.op("VLD1", "("+from+")", list(strip, "D2"))
				a.op("ADD", xStride, from)
				for r, at := range by {
					a.op("VLD1R", "("+at+")", "["+value.d()+"]")
					a.op("ADD", next, at)
					t.add(a, value, strip, all[4*r:4*r+4])
				}
			})
			a.op("MOVD", sums, to)
			for r := range by {
				a.op("VST1", list(all[4*r:4*r+4], "D2"), "("+to+")")
				a.op("ADD", stride, to)
			}
			a.op("ADD", "$64", sums)
			a.op("ADD", "$64", x)
		})
	})
}

// sums writes a function that adds or subtracts values: a fused multiplication and
// addition with a factor of 1 is an addition.
func (a *assembly) sums(name, op string) {
	a.function(name, "x, y *float32, steps int", "", "works on that many times 16 values.", func() {
		x, y, n := a.param("x"), a.param("y"), a.param("steps")
		from, others, one := a.vecs(4), a.vecs(4), a.constant(0x3F800000, "S4")
		a.loop("turn", n, func() {
			a.op("VLD1", "("+x+")", list(from, "S4"))
			a.load(others, "S4", y)
			each(from, func(i int, x vec) { a.op(op, one.s(), others[i].s(), x.s()) })
			a.store(from, "S4", x)
		})
	})
}
