package main

// scaler is what groups are scaled by: turned makes it scale by the opposite.
type scaler struct {
	*assembly
	multiply, turned           bool
	zero, scale, inverse, ones vec
	sign, nothing              vec
	free                       []vec // two registers
}

// newScaler takes the registers of one.
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

// subtract takes the zero point off all of x: with a factor of 1, a fused
// multiplication and subtraction is a subtraction.
func (s *scaler) subtract(x []vec) {
	for _, x := range x {
		if !s.multiply {
			s.op("VFMLS", s.ones.s(), s.zero.s(), x.s())
		}
	}
}

// apply scales x to q. Dividing: with the inverse y, q = x·y is close to the
// quotient, r = x - q·s is exact, and q + r·y, rounded once, is the quotient
// rounded. x is used up. A zero may have the wrong sign.
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

// encode writes a function that scales groups and makes one byte of each
// value: with x loaded, code leaves the bytes in the first of q. constants
// loads what it uses from where c points to.
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

// halves puts halves of the lanes of x, the low ones with VUZP1 and the high
// ones with VUZP2, into the first registers of x. lanes are those it fills.
func (a *assembly) halves(name, lanes string, x []vec) []vec {
	for i := range len(x) / 2 {
		a.op(name, x[2*i+1].as(lanes), x[2*i].as(lanes), x[i].as(lanes))
	}
	return x[:len(x)/2]
}

// encodeInts adds to -(1.5·2^23) the opposite of what was scaled: its last
// place is worth 1, so that it rounds; its bits then, without sign, are in the
// order of what was scaled, and the low ones are a whole number.
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

// lowest and highest gather those bytes of x in its first register.
func (a *assembly) lowest(x []vec) vec {
	return a.halves("VUZP1", "B16", a.halves("VUZP1", "H8", x))[0]
}

func (a *assembly) highest(x []vec) vec {
	return a.halves("VUZP2", "B16", a.halves("VUZP2", "H8", x))[0]
}
