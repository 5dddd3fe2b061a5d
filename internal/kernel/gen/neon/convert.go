package main

// wide returns what reads 16 values in single precision.
func (a *assembly) wide(raw form, from string, x []vec) func() {
	if raw == f32 {
		return func() { a.load(x, "S4", from) }
	}
	narrow, zero := a.vecs(2), a.vec()
	a.clear(zero)
	return func() {
		a.load(narrow, "H8", from)
		each(narrow, func(i int, v vec) { // VUSHLL does not shift by 16
			a.op("VZIP1", v.h(), zero.h(), x[2*i].h())
			a.op("VZIP2", v.h(), zero.h(), x[2*i+1].h())
		})
	}
}

func (a *assembly) widenBF16() {
	a.function("widenBF16", "dst *float32, src *byte, steps int", "", "widens that many times 16 values.", func() {
		dst, src, n := a.param("dst"), a.param("src"), a.param("steps")
		x := a.vecs(4)
		load := a.wide(bf16, src, x)
		a.loop("turn", n, func() {
			load()
			a.store(x, "S4", dst)
		})
	})
}

// narrowBF16 adds half a place less one, and one where the place is odd.
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
				a.notAbove(t, infinity)
				a.op("VBIF", t.b(), nan.b(), x.b())
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

// notAbove sets the bits of lanes of x that are at most the bound, without
// sign, and clears those of others.
func (a *assembly) notAbove(x, bound vec) {
	a.op("VUMAX", bound.s(), x.s(), x.s())
	a.op("VCMEQ", bound.s(), x.s(), x.s())
}
