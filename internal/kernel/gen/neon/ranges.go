package main

import "fmt"

// The bits of floats, taken for whole numbers without a sign, are in order
// among those of one sign; negative ones are above the positive, and NaN is
// outside the infinities. So the greatest number is the least negative value,
// the greatest with the signs turned over is the greatest positive one, and
// the least number is the value next to zero if there is one sign.

// pair joins neighbouring lanes of two vectors by the greatest.
func (a *assembly) pair(lanes string, first, second, to, t vec) {
	a.op("VUZP1", second.as(lanes), first.as(lanes), t.as(lanes))
	a.op("VUZP2", second.as(lanes), first.as(lanes), to.as(lanes))
	a.op("VUMAX", t.as(lanes), to.as(lanes), to.as(lanes))
}

// lane moves the bits of a value to a register, widened to single precision.
func (a *assembly) lane(raw form, v vec, i int) string {
	r := a.reg()
	if raw == bf16 {
		a.op("VMOV", fmt.Sprintf("V%d.H[%d]", v, i), r)
		a.op("LSL", "$16", r, r)
	} else {
		a.op("VMOV", fmt.Sprintf("V%d.S[%d]", v, i), r)
	}
	return r
}

func (a *assembly) clear(all ...vec) {
	for _, v := range all {
		a.op("VEOR", v.b(), v.b(), v.b())
	}
}

func (a *assembly) ranges(raw form) {
	doc := "sets the least and greatest value of groups of that many times 16.\n// Zeros of either sign are ordered; with a NaN, one result is."
	a.function("ranges"+raw.name, "lo, hi *float32, src *byte, groups, steps int", "", doc, func() {
		lo, hi, src, groups, steps := a.param("lo"), a.param("hi"), a.param("src"), a.param("groups"), a.param("steps")
		x := a.vecs(step * raw.size / 16)
		top, turned, low := a.vecs(2), a.vecs(2), a.vecs(2)
		sign := a.constant(1<<(8*raw.size-1), raw.lanes)
		a.loop("group", groups, func() {
			a.clear(top[0], top[1], turned[0], turned[1])
			for _, v := range low {
				a.op("VMOVI", "$255", v.b())
			}
			a.loop("turn", a.copied(steps), func() {
				a.load(x, raw.lanes, src)
				each(x, func(i int, x vec) {
					i %= 2
					a.join("VUMAX", raw, x, top[i])
					a.join("VUMIN", raw, x, low[i])
					a.op("VEOR", sign.b(), x.b(), x.b())
					a.join("VUMAX", raw, x, turned[i])
				})
			})
			a.join("VUMAX", raw, top[1], top[0])
			a.join("VUMAX", raw, turned[1], turned[0])
			a.join("VUMIN", raw, low[1], low[0])
			a.storeRange(raw, top, turned, low, lo, hi)
		})
	})
}

// join joins x with the lanes of all.
func (a *assembly) join(how string, raw form, x, all vec) {
	a.op(how, x.as(raw.lanes), all.as(raw.lanes), all.as(raw.lanes))
}

// storeRange folds the lanes of the three, of which the second of each pair is
// free, and writes the range.
func (a *assembly) storeRange(raw form, top, turned, low []vec, lo, hi string) {
	t := top[1]
	a.op("VMOVI", "$255", t.b())
	a.op("VEOR", t.b(), low[0].b(), low[0].b()) // the least becomes the greatest
	a.pair(raw.lanes, top[0], turned[0], top[0], t)
	a.pair(raw.lanes, low[0], low[0], low[0], t)
	a.pair(raw.lanes, top[0], low[0], top[0], t)
	if raw == bf16 {
		a.pair(raw.lanes, top[0], top[0], top[0], t)
	}
	negative, positive, near := a.lane(raw, top[0], 0), a.lane(raw, top[0], 1), a.lane(raw, top[0], 2)
	a.op("EOR", fmt.Sprintf("$%#x", uint32(0xFFFFFFFF)<<(32-8*raw.size)), near, near)
	a.op("EOR", "$0x80000000", positive, positive)
	a.op("TSTW", "$0x80000000", negative)
	a.op("CSEL", "NE", negative, near, negative)
	a.op("TSTW", "$0x80000000", positive)
	a.op("CSEL", "EQ", positive, near, positive)
	a.op("MOVW.P", negative, "4("+lo+")")
	a.op("MOVW.P", positive, "4("+hi+")")
}

func (a *assembly) absMax(raw form) {
	doc := "sets the greatest magnitude of groups of that many times 16, a NaN being the greatest."
	a.function("absMax"+raw.name, "amax *float32, src *byte, groups, steps int", "", doc, func() {
		amax, src, groups, steps := a.param("amax"), a.param("src"), a.param("groups"), a.param("steps")
		x, top := a.vecs(step*raw.size/16), a.vecs(2)
		mask := a.constant(1<<(8*raw.size-1)-1, raw.lanes)
		a.loop("group", groups, func() {
			a.clear(top...)
			a.loop("turn", a.copied(steps), func() {
				a.load(x, raw.lanes, src)
				each(x, func(i int, x vec) {
					a.op("VAND", mask.b(), x.b(), x.b())
					a.join("VUMAX", raw, x, top[i%2])
				})
			})
			a.join("VUMAX", raw, top[1], top[0])
			a.fold(raw, top[0], top[1])
			a.op("MOVW.P", a.lane(raw, top[0], 0), "4("+amax+")")
		})
	})
}

// fold finds the greatest lane of x, for all lanes.
func (a *assembly) fold(raw form, x, t vec) {
	for n := 16 / raw.size; n > 1; n /= 2 {
		a.pair(raw.lanes, x, x, x, t)
	}
}

// within returns, as the function's result, whether the greatest lane is at most the
// bound.
func (a *assembly) within(x, t vec, bound uint32) {
	a.fold(f32, x, t)
	r := a.lane(f32, x, 0)
	a.op("MOVD", fmt.Sprintf("$%#x", bound), "R15")
	a.op("CMPW", "R15", r)
	a.op("CSET", "LS", r)
	a.op("MOVB", r, a.at("ret"))
}

// signs: less a bound, what is outside wraps around to large numbers.
func (a *assembly) signs() {
	doc := "reports whether that many times 16 ranges go from below zero to above it, with no NaN."
	a.function("signs", "lo, hi *float32, steps int", "bool", doc, func() {
		lo, hi, n := a.param("lo"), a.param("hi"), a.param("steps")
		x, most := a.vecs(4), a.vecs(2)
		below, above := a.constant(0x80000001, "S4"), a.constant(1, "S4")
		a.clear(most...)
		a.loop("turn", n, func() {
			for _, side := range []struct {
				from  string
				least vec
			}{{lo, below}, {hi, above}} {
				a.load(x, "S4", side.from)
				each(x, func(i int, x vec) {
					a.op("VSUB", side.least.s(), x.s(), x.s())
					a.join("VUMAX", f32, x, most[i%2])
				})
			}
		})
		a.join("VUMAX", f32, most[1], most[0])
		a.within(most[0], most[1], 0x7F7FFFFF)
	})
}

// spans divides the widths of ranges by a constant, inverts the results, and checks for
// scales that are too extreme.
func (a *assembly) spans() {
	doc := "does that many times 16 groups."
	a.function("spans", "scales, inverses, lo, hi *float32, steps int, divisor float32", "bool", doc, func() {
		scales, inverses, lo, hi := a.param("scales"), a.param("inverses"), a.param("lo"), a.param("hi")
		n, divisor, one := a.param("steps"), a.everywhere("divisor"), a.constant(0x3F800000, "S4")
		x, y, least, most := a.vecs(4), a.vecs(4), a.constant((127-80)<<23, "S4"), a.vecs(2)
		a.clear(most...)
		a.loop("turn", n, func() {
			a.load(x, "S4", hi)
			a.load(y, "S4", lo)
			each(x, func(i int, x vec) { a.op("VFMLS", one.s(), y[i].s(), x.s()) })
			each(x, func(_ int, x vec) { a.quotient(x, divisor, x) })
			each(x, func(i int, x vec) { a.quotient(one, x, y[i]) })
			a.store(x, "S4", scales)
			a.store(y, "S4", inverses)
			each(x, func(i int, x vec) {
				a.op("VSUB", least.s(), x.s(), x.s())
				a.join("VUMAX", f32, x, most[i%2])
			})
		})
		a.join("VUMAX", f32, most[1], most[0])
		a.within(most[0], most[1], 160<<23)
	})
}
