package main

// scaler scales groups by their steps; with turned, it makes the opposite of the scaled
// values.
type scaler struct {
	*assembly
	multiply, turned           bool
	zero, scale, inverse, ones vec
	sign, nothing              vec
	free                       []vec // two registers
}

// newScaler returns a scaler with its registers.
func (a *assembly) newScaler(multiply, turned bool) *scaler {
	s := &scaler{assembly: a, multiply: multiply, turned: turned, scale: a.vec()}
	if !multiply {
		s.zero, s.inverse = a.vec(), a.vec()
	}
	s.ones, s.nothing, s.free = a.constant(0x3F800000, "S4"), a.vec(), a.vecs(2)
	a.clear(s.nothing)
	if turned {
		s.sign = a.constant(1<<31, "S4")
	}
	return s
}

// next takes the next group's step.
func (s *scaler) next(zeros, scales, inverses string) {
	take := func(to vec, from string) { s.op("VLD1R.P", "4("+from+")", "["+to.s()+"]") }
	by := s.scale
	if take(s.scale, scales); !s.multiply {
		take(s.zero, zeros)
		take(s.inverse, inverses)
		by = s.inverse
	}
	if s.turned {
		s.op("VEOR", s.sign.b(), by.b(), by.b())
	}
}

// subtract subtracts the zero point from all of x: a fused multiplication and
// subtraction with a factor of 1 is a subtraction.
func (s *scaler) subtract(x []vec) {
	for _, x := range x {
		if !s.multiply {
			s.op("VFMLS", s.ones.s(), s.zero.s(), x.s())
		}
	}
}

// apply sets q to x, scaled, and overwrites x. To divide, it multiplies by the inverse
// y: q = x·y is close to the quotient, r = x - q·s is exact, and q + r·y, rounded once,
// is the quotient correctly rounded. A zero may have the wrong sign.
func (s *scaler) apply(x, q []vec) {
	by, rest := s.inverse, "VFMLS"
	if s.turned {
		rest = "VFMLA" // of -q
	}
	if s.multiply {
		by = s.scale
	}
	each(q, func(i int, q vec) { s.op("VMOV", s.nothing.b(), q.b()) })
	each(q, func(i int, q vec) { s.op("VFMLA", by.s(), x[i].s(), q.s()) })
	if s.multiply {
		return
	}
	each(x, func(i int, x vec) { s.op(rest, s.scale.s(), q[i].s(), x.s()) })
	each(q, func(i int, q vec) { s.op("VFMLA", by.s(), x[i].s(), q.s()) })
}

// encode writes a function that scales groups and makes a code of one byte of each
// value: code takes loaded x and leaves the bytes in the first of q. constants loads
// what code needs from the address in c.
func (a *assembly) encode(name string, raw form, multiply, turned bool, constants func(c string), code func(s *scaler, x, q []vec)) {
	full := "divide" + name + raw.name
	if multiply {
		full = "multiply" + name + raw.name
	}
	params := "codes, src *byte, zeros, scales, inverses *float32, groups, steps int, c *uint32"
	a.function(full, params, "", "encodes groups of that many times 16 values.", func() {
		codes, src := a.param("codes"), a.param("src")
		zeros, scales, inverses := a.param("zeros"), a.param("scales"), a.param("inverses")
		groups, steps := a.param("groups"), a.param("steps")
		x, q := a.vecs(4), a.vecs(4)
		s := a.newScaler(multiply, turned)
		constants(a.param("c"))
		a.loop("group", groups, func() {
			s.next(zeros, scales, inverses)
			a.loop("turn", a.copied(steps), func() {
				a.wide(raw, src, x, s.free, s.nothing)
				s.subtract(x)
				code(s, x, q)
				a.store(q[:1], "B16", codes)
			})
		})
	})
}

// halves moves the low halves of the lanes of x (with VUZP1) or the high ones (VUZP2)
// into the first registers of x. lanes are the lanes that they fill.
func (a *assembly) halves(name, lanes string, x []vec) []vec {
	for i := range len(x) / 2 {
		a.op(name, x[2*i+1].as(lanes), x[2*i].as(lanes), x[i].as(lanes))
	}
	return x[:len(x)/2]
}

// encodeInts adds the opposite of the scaled value to -(1.5·2^23), whose last place is
// worth 1, so that the addition rounds. As unsigned integers, the bits of the results
// are in the order of the scaled values, and the low bits are the integer.
func (a *assembly) encodeInts(raw form, multiply bool) {
	var lo, hi, magic, offset vec
	constants := func(c string) {
		magic = a.constant(0xCB400000, "S4")
		lo, hi, offset = a.vec(), a.vec(), a.vec()
		ones, v := a.constant(0x3F800000, "S4"), a.vec()
		for _, bound := range []vec{lo, hi} {
			a.op("VLD1R.P", "4("+c+")", "["+v.s()+"]")
			a.op("VMOV", magic.b(), bound.b())
			a.op("VFMLS", ones.s(), v.s(), bound.s())
		}
		a.op("VLD1R", "("+c+")", "["+offset.b()+"]")
	}
	a.encode("Ints", raw, multiply, true, constants, func(s *scaler, x, q []vec) {
		s.apply(x, q)
		each(q, func(i int, q vec) { a.op("VFMLA", s.ones.s(), magic.s(), q.s()) })
		each(q, func(i int, q vec) { a.op("VUMAX", lo.s(), q.s(), q.s()) })
		each(q, func(i int, q vec) { a.op("VUMIN", hi.s(), q.s(), q.s()) })
		codes := a.lowest(q)
		a.op("VADD", offset.b(), codes.b(), codes.b())
	})
}

// lowest and highest gather the lowest or the highest byte of each lane of x in its
// first register.
func (a *assembly) lowest(x []vec) vec {
	return a.halves("VUZP1", "B16", a.halves("VUZP1", "H8", x))[0]
}

func (a *assembly) highest(x []vec) vec {
	return a.halves("VUZP2", "B16", a.halves("VUZP2", "H8", x))[0]
}
