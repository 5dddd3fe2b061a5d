package main

// wide reads 16 values and widens them to single precision; zero must be a vector of
// zeros.
func (a *assembly) wide(raw form, from string, x, narrow []vec, zero vec) {
	if raw == f32 {
		a.load(x, "S4", from)
		return
	}
	a.load(narrow, "H8", from)
	each(narrow, func(i int, v vec) { // VUSHLL does not shift by 16
		a.op("VZIP1", v.h(), zero.h(), x[2*i].h())
		a.op("VZIP2", v.h(), zero.h(), x[2*i+1].h())
	})
}

func (a *assembly) widenBF16() {
	a.function("widenBF16", "dst *float32, src *byte, steps int", "", "widens that many times 16 values.", func() {
		dst, src, n := a.param("dst"), a.param("src"), a.param("steps")
		x, narrow, zero := a.vecs(4), a.vecs(2), a.vec()
		a.clear(zero)
		a.loop("turn", n, func() {
			a.wide(bf16, src, x, narrow, zero)
			a.store(x, "S4", dst)
		})
	})
}

// narrowBF16 adds half of the last place less one bit, and one bit more if the last
// place is odd.
func (a *assembly) narrowBF16() {
	a.function("narrowBF16", "dst *byte, src *float32, steps int", "", "rounds that many times 16 values.", func() {
		dst, src, n := a.param("dst"), a.param("src"), a.param("steps")
		x, t := a.vecs(4), a.vecs(4)
		odd, half, nan := a.constant(0x10000, "S4"), a.constant(0x7FFF, "S4"), a.constant(0x7FC00000, "S4")
		mask, infinity := a.constant(1<<31-1, "S4"), a.constant(0x7F800000, "S4")
		a.loop("turn", n, func() {
			a.load(x, "S4", src)
			each(x, func(i int, x vec) {
				t := t[i]
				a.op("VAND", mask.b(), x.b(), t.b())
				a.unless(t, infinity, nan, x, t)
				a.op("VAND", odd.b(), x.b(), t.b())
				a.op("VADD", half.s(), x.s(), x.s())
				a.op("VUSRA", "$16", t.s(), x.s())
			})
			a.op("VUZP2", x[1].h(), x[0].h(), x[0].h())
			a.op("VUZP2", x[3].h(), x[2].h(), x[1].h())
			a.store(x[:2], "H8", dst)
		})
	})
}

func each(x []vec, body func(i int, x vec)) {
	for i, v := range x {
		body(i, v)
	}
}

// notAbove sets the bits of lanes where the unsigned y is at most bound.
func (a *assembly) notAbove(y, bound, to vec) {
	a.op("VUMAX", bound.s(), y.s(), to.s())
	a.op("VCMEQ", bound.s(), to.s(), to.s())
}

// unless sets x to other in lanes where y is above bound.
func (a *assembly) unless(y, bound, other, x, t vec) {
	a.notAbove(y, bound, t)
	a.op("VBIF", t.b(), other.b(), x.b())
}

// widenF16 and narrowF16 use the processor's own conversion, for NaN as well.
func (a *assembly) widenF16() {
	a.function("widenF16", "dst *float32, src *byte, steps int", "", "widens that many times 16 values.", func() {
		dst, src, n := a.param("dst"), a.param("src"), a.param("steps")
		x, narrow := a.vecs(4), a.vecs(2)
		a.loop("turn", n, func() {
			a.load(narrow, "H8", src)
			each(narrow, func(i int, v vec) {
				a.word("FCVTL", 0x0E217800, v.as("H4"), x[2*i].s())
				a.word("FCVTL2", 0x4E217800, v.h(), x[2*i+1].s())
			})
			a.store(x, "S4", dst)
		})
	})
}

func (a *assembly) narrowF16() {
	a.function("narrowF16", "dst *byte, src *float32, steps int", "", "rounds that many times 16 values.", func() {
		dst, src, n := a.param("dst"), a.param("src"), a.param("steps")
		x, narrow := a.vecs(4), a.vecs(2)
		a.loop("turn", n, func() {
			a.load(x, "S4", src)
			each(narrow, func(i int, v vec) {
				a.word("FCVTN", 0x0E216800, x[2*i].s(), v.as("H4"))
				a.word("FCVTN2", 0x4E216800, x[2*i+1].s(), v.h())
			})
			a.store(narrow, "H8", dst)
		})
	})
}
