package main

import (
	"fmt"
	"math/bits"
	"strings"
)

// Rotations work on four groups at a time, one in each lane: value k of all of
// them is row k, a vector.

// rotations writes the functions for rotations.
func (a *assembly) rotations() {
	a.interleave()
	a.deinterleave()
	a.exact()
	fours := func(k, j int) bool { return bits.OnesCount(uint((k^j)&((k^j)>>1)&5))&1 == 1 }
	twos := func(k, j int) bool { return bits.OnesCount(uint(k&j))&1 == 1 }
	a.chain("chainFours", "h float32", "16 fused steps of x", fours)
	a.chain("chainTwos", "h float32", "16 fused steps of x", twos)
	a.chain("chainSums", "sign uint32", "16 sums or differences of x, whose signs it turns by xor", fours)
	a.widenRows()
	a.narrowRows()
	a.pass4("Singles", "float32", "S4", 0x3F800000)
	a.pass4("Doubles", "float64", "D2", 0x3FF0000000000000)
}

const (
	lanes     = 4
	blockRows = 16
	width     = 16 // bytes of a vector
)

// groupsAt returns pointers to groups that lie stride bytes apart.
func (a *assembly) groupsAt(first, stride string) []string {
	at := []string{first}
	for len(at) < lanes {
		next := a.reg()
		a.op("ADD", stride, at[len(at)-1], next)
		at = append(at, next)
	}
	return at
}

// interleave turns groups into rows, by stores of four registers.
func (a *assembly) interleave() {
	doc := "makes 16 rows a block of 4 groups that lie stride bytes apart."
	a.function("interleave", "dst, src *float32, stride, blocks int", "", doc, func() {
		dst, src, stride, blocks, x := a.param("dst"), a.param("src"), a.param("stride"), a.param("blocks"), a.vecs(lanes)
		groups := a.groupsAt(src, stride)
		a.loop("block", blocks, func() {
			for range blockRows / lanes {
				for i, at := range groups {
					a.load(x[i:i+1], "S4", at)
				}
				a.op("VST4.P", list(x, "S4"), "64("+dst+")")
			}
		})
	})
}

// deinterleave is the inverse of interleave. It turns signs and adds zero, which makes
// a negative zero positive.
func (a *assembly) deinterleave() {
	doc := "is the way back, and turns the signs of a block by xor."
	a.function("deinterleave", "dst, src *float32, stride, blocks int, signs *uint32", "", doc, func() {
		dst, src, stride, blocks, signs := a.param("dst"), a.param("src"), a.param("stride"), a.param("blocks"), a.param("signs")
		x, sign, zero, one := a.vecs(lanes), a.vec(), a.vec(), a.constant(0x3F800000, "S4")
		a.clear(zero)
		groups := a.groupsAt(dst, stride)
		a.loop("block", blocks, func() {
			a.op("VLD1R.P", "4("+signs+")", "["+sign.s()+"]")
			for range blockRows / lanes {
				a.op("VLD4.P", "64("+src+")", list(x, "S4"))
				each(x, func(i int, x vec) {
					a.op("VEOR", sign.b(), x.b(), x.b())
					a.op("VFMLA", one.s(), zero.s(), x.s())
					a.store([]vec{x}, "S4", groups[i])
				})
			}
		})
	})
}

// exact multiplies rows by the entry and tells the lanes in which products are
// exact, as none is below the least normal number but zero, and those in which
// every sum of ±products is exact too: see rotate. The place of a value's last
// bit is that of the lowest bit of its mantissa, as the exponent of it taken as
// a number, plus the value's own exponent.
func (a *assembly) exact() {
	doc := "multiplies rows by the entry and returns bits for the lanes in which all sums, and all products, are exact."
	a.function("exact", "x *float32, rows int, entry float32", "(sums, products uint32)", doc, func() {
		at, rows, entry := a.param("x"), a.param("rows"), a.everywhere("entry")
		magnitude, mantissa, leading := a.constant(1<<31-1, "S4"), a.constant(1<<23-1, "S4"), a.constant(1<<23, "S4")
		one, sum, zero, least, unit := a.constant(0x3F800000, "S4"), a.vec(), a.vec(), a.vec(), a.vec()
		x, p, y, low, none := a.vec(), a.vec(), a.vec(), a.vec(), a.vec()
		a.clear(sum, zero)
		a.op("VMOVI", "$255", least.b())
		a.op("VMOVI", "$255", unit.b())
		a.loop("row", rows, func() {
			a.op("VLD1", "("+at+")", list([]vec{x}, "S4"))
			a.op("VMOV", zero.b(), p.b())
			a.op("VFMLA", entry.s(), x.s(), p.s())
			a.store([]vec{p}, "S4", at)
			a.op("VAND", magnitude.b(), x.b(), x.b())
			a.op("VCMEQ", zero.s(), x.s(), none.s())
			a.op("VAND", magnitude.b(), p.b(), p.b())
			a.op("VFMLA", one.s(), p.s(), sum.s())
			a.op("VAND", mantissa.b(), p.b(), y.b())
			a.op("VORR", leading.b(), y.b(), y.b())
			a.op("VSUB", y.s(), zero.s(), low.s())
			a.op("VAND", y.b(), low.b(), low.b())
			a.toSingles(low)
			a.op("VADD", p.s(), low.s(), low.s()) // the mantissa below does not change the order of exponents
			for _, joined := range [][2]vec{{low, unit}, {p, least}} {
				a.op("VORR", none.b(), joined[0].b(), joined[0].b())
				a.join("VUMIN", f32, joined[0], joined[1])
			}
		})
		products, sums, t := x, p, y
		a.op("VUMIN", leading.s(), least.s(), products.s())
		a.op("VCMEQ", leading.s(), products.s(), products.s())
		// 2^24 units: the exponent of the unit and 24 more, at most the greatest.
		a.op("VBIT", mantissa.b(), zero.b(), unit.b())
		a.op("VUMIN", a.constant((254+126)<<23, "S4").s(), unit.s(), unit.s())
		a.op("VSUB", a.constant(126<<23, "S4").s(), unit.s(), unit.s())
		a.op("VMOV", zero.b(), t.b())
		a.op("VFMLA", a.constant(0x3F7D70A4, "S4").s(), unit.s(), t.s()) // 0.99
		a.less(sum, t, sums)
		a.op("VAND", products.b(), sums.b(), sums.b())
		a.returnLanes(sums, "sums")
		a.returnLanes(products, "products")
	})
}

// returnLanes returns one bit for each lane of a mask.
func (a *assembly) returnLanes(mask vec, name string) {
	bit := a.vec()
	for i := range lanes {
		a.op("MOVD", fmt.Sprintf("$%d", 1<<i), "R15")
		a.op("VMOV", "R15", fmt.Sprintf("V%d.S[%d]", bit, i))
	}
	a.op("VAND", bit.b(), mask.b(), mask.b())
	a.op("VADDV", mask.s(), fmt.Sprintf("V%d", mask))
	a.op("VMOV", fmt.Sprintf("V%d.S[0]", mask), "R15")
	a.op("MOVW", "R15", a.at(name))
}

// chain adds 16 rows to 16 sums, each in one step that rounds once: times ±h,
// or, where they hold products, themselves. minus tells the entries of the
// matrix that are negative.
func (a *assembly) chain(name, last, steps string, minus func(k, j int) bool) {
	doc := "sets 16 rows of dst to those of src and " + steps + "."
	a.function(name, "dst, src, x *float32, "+last, "", doc, func() {
		dst, src, x, sums, row := a.param("dst"), a.param("src"), a.param("x"), a.vecs(blockRows), a.vec()
		factor, sign := vec(0), vec(0)
		fused := strings.HasPrefix(last, "h ")
		if fused {
			factor = a.everywhere("h")
		} else {
			factor, sign = a.constant(0x3F800000, "S4"), a.everywhere("sign")
		}
		for i := 0; i < blockRows; i += 4 {
			a.load(sums[i:i+4], "S4", src)
		}
		for k := range blockRows {
			a.load([]vec{row}, "S4", x)
			if !fused {
				a.op("VEOR", sign.b(), row.b(), row.b())
			}
			each(sums, func(j int, sum vec) {
				step := "VFMLA"
				if minus(k, j) {
					step = "VFMLS"
				}
				a.op(step, factor.s(), row.s(), sum.s())
			})
		}
		for i := 0; i < blockRows; i += 4 {
			a.store(sums[i:i+4], "S4", dst)
		}
	})
}

// widenRows widens the half of each row for which dst has room.
func (a *assembly) widenRows() {
	a.function("widenRows", "dst *float64, src *float32, rows int", "", "widens half of each row.", func() {
		dst, src, rows, x := a.param("dst"), a.param("src"), a.param("rows"), a.vec()
		a.loop("row", rows, func() {
			a.op("VLD1", "("+src+")", list([]vec{x}, "S2"))
			a.op("ADD", fmt.Sprint("$", width), src)
			a.word("FCVTL", 0x0E617800, x.as("S2"), x.d())
			a.store([]vec{x}, "D2", dst)
		})
	})
}

// narrowRows rounds products; the sign of a zero does not matter.
func (a *assembly) narrowRows() {
	doc := "multiplies rows, and rounds them to half of rows of dst."
	a.function("narrowRows", "dst *float32, src *float64, rows int, factor float64", "", doc, func() {
		dst, src, rows, factor := a.param("dst"), a.param("src"), a.param("rows"), a.everywhere("factor")
		x, q := a.vec(), a.vec()
		a.loop("row", rows, func() {
			a.load([]vec{x}, "D2", src)
			a.clear(q)
			a.op("VFMLA", factor.d(), x.d(), q.d())
			a.word("FCVTN", 0x0E616800, q.d(), q.as("S2"))
			a.op("VST1", list([]vec{q}, "S2"), "("+dst+")")
			a.op("ADD", fmt.Sprint("$", width), dst)
		})
	})
}

// pass4 is one stage of butterflies.
func (a *assembly) pass4(name, element, lanes string, one uint64) {
	doc := "multiplies sets of 4 rows by the matrix of that size. Rows of a set lie distance\n" +
		"// bytes from each other; sets times these rows are all rows."
	a.function("pass4"+name, "x *"+element+", sets, distance int", "", doc, func() {
		x, sets, distance := a.param("x"), a.param("sets"), a.param("distance")
		y, c, d, factor := a.vecs(4), a.vec(), a.vec(), a.constant(one, lanes)
		rows, inner, all := a.groupsAt(x, distance), a.reg(), a.reg()
		a.op("ADD", distance+"<<1", distance, all)
		// sum and difference of two: the sum in the first.
		both := func(u, v, difference vec) {
			a.op("VMOV", u.b(), difference.b())
			a.op("VFMLS", factor.as(lanes), v.as(lanes), difference.as(lanes))
			a.op("VFMLA", factor.as(lanes), v.as(lanes), u.as(lanes))
		}
		a.loop("set", sets, func() {
			a.op("LSR", "$4", distance, inner)
			a.loop("row", inner, func() {
				each(y, func(i int, y vec) { a.op("VLD1", "("+rows[i]+")", list([]vec{y}, lanes)) })
				both(y[0], y[1], c)
				both(y[2], y[3], d)
				both(y[0], d, y[1])
				both(y[2], c, y[3])
				each(y, func(i int, y vec) { a.store([]vec{y}, lanes, rows[i]) })
			})
			for _, r := range rows {
				a.op("ADD", all, r)
			}
		})
	})
}
