package main

// magnitudes sets m to the magnitudes of x and q to these, scaled and limited to the
// greatest magnitude of a code.
func (s *scaler) magnitudes(x, m, q []vec, mask, most vec) {
	each(x, func(i int, x vec) { s.op("VAND", mask.b(), x.b(), m[i].b()) })
	s.apply(m, q)
	each(q, func(i int, q vec) { s.op("VUMIN", most.s(), q.s(), q.s()) })
}

// signs turns the signs of values into those of codes.
type signs struct{ sign, bit vec }

func (a *assembly) newSigns(c string) signs {
	s := signs{a.constant(0x80, "B16"), a.vec()}
	a.op("ADD", "$96", c, "R15")
	a.op("VLD1R", "(R15)", "["+s.bit.b()+"]")
	return s
}

// add adds the signs of values to codes. It overwrites top, the values' highest bytes.
func (s signs) add(a *assembly, top, codes vec) {
	a.op("VCMTST", s.sign.b(), top.b(), top.b())
	a.op("VAND", s.bit.b(), top.b(), top.b())
	a.op("VORR", top.b(), codes.b(), codes.b())
}

// encodeSmall adds the power of 2 whose last bit has the value of a code's last bit,
// which rounds to it, subnormals included; subtracting it again leaves the mantissa
// with its leading bit. The exponent is added at its place in a code, counted from what
// the least normal value adds.
func (a *assembly) encodeSmall(raw form, multiply bool) {
	var mask, most, exponent, least, lift, shift, start vec
	var sign signs
	m := make([]vec, 4)
	constants := func(c string) {
		copy(m, a.vecs(4))
		mask, most, exponent = a.row(c, 64), a.row(c, 128), a.row(c, 160)
		least, lift, sign = a.row(c, 192), a.row(c, 224), a.newSigns(c)
		shift, start = a.vec(), a.vec()
		cut, sum := a.reg(), a.reg()
		a.op("MOVWU", "("+c+")", cut)
		a.op("MOVWU", "192("+c+")", sum)
		a.op("MOVWU", "224("+c+")", "R15")
		a.op("ADD", "R15", sum, sum)
		a.op("LSR", cut, sum, sum)
		a.op("VDUP", sum, start.b())
		a.op("MOVD", "$16", "R15") // of the high halves
		a.op("SUB", cut, "R15", cut)
		a.op("VDUP", cut, shift.h())
	}
	a.encode("Small", raw, multiply, false, constants, func(s *scaler, x, q []vec) {
		s.magnitudes(x, m, q, mask, most)
		each(m, func(i int, m vec) {
			a.op("VAND", exponent.b(), q[i].b(), m.b())
			a.op("VUMAX", least.s(), m.s(), m.s())
			a.op("VADD", lift.s(), m.s(), m.s())
		})
		each(q, func(i int, q vec) { a.op("VFMLA", s.ones.s(), m[i].s(), q.s()) })
		each(q, func(i int, q vec) { a.op("VSUB", m[i].s(), q.s(), q.s()) })
		low := a.halves("VUZP1", "H8", q)
		each(a.halves("VUZP2", "H8", m), func(i int, m vec) {
			a.shift("H8", shift, m, m)
			a.op("VADD", m.h(), low[i].h(), low[i].h())
		})
		codes := a.halves("VUZP1", "B16", low)[0]
		a.op("VSUB", start.b(), codes.b(), codes.b())
		sign.add(a, a.highest(x), codes)
	})
}

// encodePacked rounds a fraction of 9/16 or more up: adding 7/16 of the last place to
// the next four bits carries exactly then. Without a sign, negative values become zero.
func (a *assembly) encodePacked(raw form) {
	var mask, most, field, add, carry, subnormal, magic, normal, rebias, cut, floor vec
	var sign signs
	m := make([]vec, 4)
	constants := func(c string) {
		copy(m, a.vecs(4))
		cut = a.negative(c, 0, "S4")
		mask, most = a.row(c, 64), a.row(c, 128)
		field, add, carry, subnormal = a.row(c, 192), a.row(c, 224), a.row(c, 256), a.row(c, 288)
		magic, normal, rebias = a.row(c, 320), a.row(c, 352), a.row(c, 384)
		sign, floor = a.newSigns(c), a.vec()
		a.op("MOVWU", "160("+c+")", "R15")
		a.op("CMPW", "$0", "R15")
		a.op("CSET", "EQ", "R15")
		a.op("LSL", "$7", "R15", "R15")
		a.op("VDUP", "R15", floor.b())
	}
	a.encode("Packed", raw, false, false, constants, func(s *scaler, x, q []vec) {
		s.magnitudes(x, m, q, mask, most)
		each(q, func(i int, q vec) {
			m, t := m[i], s.free[i%2]
			a.op("VAND", field.b(), q.b(), m.b())
			a.op("VADD", add.s(), m.s(), m.s())
			a.op("VAND", carry.b(), m.b(), m.b())
			a.op("VADD", m.s(), q.s(), q.s())
			a.op("VMOV", magic.b(), m.b()) // the product is exact
			a.op("VFMLA", subnormal.s(), q.s(), m.s())
			a.op("VSUB", magic.s(), m.s(), m.s())
			a.notAbove(q, normal, t)
			a.op("VSUB", rebias.s(), q.s(), q.s())
			a.shift("S4", cut, q, q)
			a.op("VBIT", t.b(), m.b(), q.b())
		})
		codes, top, none := a.lowest(q), a.highest(x), s.free[0]
		a.op("VCMTST", floor.b(), top.b(), none.b())
		a.op("VBIT", none.b(), s.nothing.b(), codes.b())
		sign.add(a, top, codes)
	})
}
