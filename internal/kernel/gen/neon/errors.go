package main

// errors adds to three times 16 sums in double precision: of squares, of squared
// differences, each rounded before it is added, and the greatest difference. The
// comparison for that ignores NaN.
func (a *assembly) errors(raw form) {
	doc := "adds that many times 16 pairs."
	a.function("errors"+raw.name, "sums *float64, values *byte, others *float32, steps int", "", doc, func() {
		sums, values, others, n := a.param("sums"), a.param("values"), a.param("others"), a.param("steps")
		all, value, other, x, d, t := a.vecs(3*step/2), a.vec(), a.vec(), a.vec(), a.vec(), a.vec()
		mask, one, zero := a.constant(1<<63-1, "D2"), a.constant(0x3FF0000000000000, "D2"), a.vec()
		a.clear(zero)
		from := a.copied(sums)
		for i := 0; i < len(all); i += 4 {
			a.load(all[i:i+4], "D2", from)
		}
		a.loop("turn", n, func() {
			for i := range step / 2 {
				if i%2 == 0 {
					a.wideQuarter(raw, values, value, zero)
					a.load([]vec{other}, "S4", others)
				}
				a.doubles(i%2, value, x)
				a.doubles(i%2, other, d)
				a.addErrors(x, d, t, mask, one, all[i], all[i+step/2], all[i+step])
			}
		})
		for i := 0; i < len(all); i += 4 {
			a.store(all[i:i+4], "D2", sums)
		}
	})
}

// addErrors adds a pair of the value x and d, which replaces it.
func (a *assembly) addErrors(x, d, t, mask, one, squares, errors, most vec) {
	a.op("VFMLA", x.d(), x.d(), squares.d()) // exact but for the addition
	a.op("VFMLS", one.d(), d.d(), x.d())
	a.op("VAND", mask.b(), x.b(), d.b())
	a.word("FCMGT", 0x6EE0E400, most.d(), d.d(), t.d())
	a.op("VBIT", t.b(), d.b(), most.b())
	a.clear(d)
	a.op("VFMLA", x.d(), x.d(), d.d())
	a.op("VFMLA", one.d(), d.d(), errors.d())
}

// wideQuarter reads 4 values in single precision.
func (a *assembly) wideQuarter(raw form, from string, x, zero vec) {
	if raw == f32 {
		a.load([]vec{x}, "S4", from)
		return
	}
	a.op("VLD1.P", "8("+from+")", list([]vec{x}, "H4"))
	a.op("VZIP1", x.h(), zero.h(), x.h())
}

// doubles converts the low or the high half of x to double precision.
func (a *assembly) doubles(half int, x, to vec) {
	if half == 0 {
		a.word("FCVTL", 0x0E617800, x.as("S2"), to.d())
	} else {
		a.word("FCVTL2", 0x4E617800, x.s(), to.d())
	}
}
