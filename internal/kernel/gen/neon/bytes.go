package main

// decodeBytes writes a function that decodes groups of one-byte codes and scales the
// values. constants and value write the code that turns a code into its value. A plain
// product is computed as the fused one with a zero point of -0.
func (a *assembly) decodeBytes(name string, constants func(c string), value func(x vec)) {
	doc := "decodes groups of that many times 16 codes; a group's zero point lies next bytes behind the last one's."
	params := "dst *float32, codes *byte, scales, zeros *float32, groups, steps, next int, c *uint32"
	a.function(name, params, "", doc, func() {
		dst, codes, scales, zeros := a.param("dst"), a.param("codes"), a.param("scales"), a.param("zeros")
		groups, steps, next := a.param("groups"), a.param("steps"), a.param("next")
		q, x, narrow, scale, zero := a.vecs(4), a.vecs(4), a.vecs(2), a.vec(), a.vec()
		constants(a.param("c"))
		a.loop("group", groups, func() {
			a.op("VLD1R.P", "4("+scales+")", "["+scale.s()+"]")
			a.op("VLD1R", "("+zeros+")", "["+zero.s()+"]")
			a.op("ADD", next, zeros)
			a.loop("turn", a.copied(steps), func() {
				a.load(narrow[:1], "B16", codes)
				a.op("VUXTL2", narrow[0].b(), narrow[1].h())
				a.op("VUXTL", narrow[0].as("B8"), narrow[0].h())
				a.widenWords(narrow, x)
				each(x, func(_ int, x vec) { value(x) })
				each(q, func(i int, q vec) {
					a.op("VMOV", zero.b(), q.b())
					a.op("VFMLA", scale.s(), x[i].s(), q.s())
				})
				a.store(q, "S4", dst)
			})
		})
	})
}

func (a *assembly) decodeIntBytes() {
	var flip, offset vec
	a.decodeBytes("decodeIntBytes", func(c string) { flip, offset = a.row(c, 0), a.row(c, 32) }, func(x vec) {
		a.op("VEOR", flip.b(), x.b(), x.b())
		a.op("VADD", offset.s(), x.s(), x.s())
		a.toSingles(x)
	})
}

func (a *assembly) decodeFloatBytes() {
	var value func(x vec)
	a.decodeBytes("decodeFloatBytes", func(c string) { value = a.floats(c) }, func(x vec) { value(x) })
}

func (a *assembly) decodePacked() {
	var value func(x vec)
	a.fromWords("decodePacked", "c *uint32", func() { value = a.floats(a.param("c")) }, func(x vec) { value(x) })
}

// floats shifts a code's magnitude to the bits of a single and adds the difference of
// the biases. A magnitude with exponent 0 gets the least exponent, and the least normal
// number is subtracted from it.
func (a *assembly) floats(c string) func(x vec) {
	cut, sign, magnitude, bit := a.row(c, 0), a.row(c, 32), a.row(c, 64), a.row(c, 96)
	rebias, least, fraction, numbers := a.row(c, 128), a.row(c, 160), a.row(c, 192), a.row(c, 224)
	infinity, last, nan, zero := a.row(c, 256), a.row(c, 288), a.row(c, 320), a.row(c, 352)
	one, y, normal, value, t := a.constant(0x3F800000, "S4"), a.vec(), a.vec(), a.vec(), a.vec()
	return func(x vec) {
		a.op("VAND", magnitude.b(), x.b(), y.b())
		a.shift("S4", cut, y, value)
		a.op("VADD", rebias.s(), value.s(), normal.s())
		a.op("VADD", least.s(), value.s(), value.s())
		a.op("VFMLS", one.s(), least.s(), value.s())
		a.unless(y, fraction, normal, value, t)
		a.unless(y, numbers, infinity, value, t)
		a.op("VAND", bit.b(), x.b(), x.b())
		a.shift("S4", sign, x, x)
		a.op("VORR", value.b(), x.b(), x.b())
		a.unless(y, last, nan, x, t)
		a.op("VFMLA", one.s(), zero.s(), x.s())
	}
}

func (a *assembly) roundBF16() {
	var odd, half, high, mask, infinity, y, t vec
	constants := func() {
		odd, half, high = a.constant(0x10000, "S4"), a.constant(0x7FFF, "S4"), a.constant(0xFFFF0000, "S4")
		mask, infinity, y, t = a.constant(1<<31-1, "S4"), a.constant(0x7F800000, "S4"), a.vec(), a.vec()
	}
	a.inPlace("roundBF16", "", constants, func(x []vec) []vec {
		for _, x := range x {
			a.op("VAND", odd.b(), x.b(), t.b())
			a.op("VADD", half.s(), x.s(), y.s())
			a.op("VUSRA", "$16", t.s(), y.s())
			a.op("VAND", high.b(), y.b(), y.b())
			a.op("VAND", mask.b(), x.b(), t.b())
			a.notAbove(t, infinity, t)
			a.op("VBIT", t.b(), y.b(), x.b())
		}
		return x
	})
}

func (a *assembly) roundF16() {
	var nan, mask, infinity, t vec
	constants := func() {
		nan, mask = a.constant(0x7FC00000, "S4"), a.constant(1<<31-1, "S4")
		infinity, t = a.constant(0x7F800000, "S4"), a.vec()
	}
	a.inPlace("roundF16", "", constants, func(x []vec) []vec {
		for _, x := range x {
			a.op("VAND", mask.b(), x.b(), t.b())
			a.word("FCVTN", 0x0E216800, x.s(), x.as("H4"))
			a.word("FCVTL", 0x0E217800, x.as("H4"), x.s())
			a.unless(t, infinity, nan, x, t)
		}
		return x
	})
}

// lookUp splits the levels into bytes, looks these up separately, and stores them
// together.
func (a *assembly) lookUp() {
	doc := "does that many times 16 codes of 16 levels."
	a.function("lookUp", "dst *float32, codes *byte, steps int, levels *float32", "", doc, func() {
		dst, codes, n, levels := a.param("dst"), a.param("codes"), a.param("steps"), a.param("levels")
		planes, x, code := a.vecs(4), a.vecs(4), a.vec()
		a.op("VLD4", "("+levels+")", list(planes, "B16"))
		a.loop("turn", n, func() {
			a.load([]vec{code}, "B16", codes)
			each(x, func(i int, x vec) { a.op("VTBL", code.b(), list(planes[i:i+1], "B16"), x.b()) })
			a.op("VST4.P", list(x, "B16"), "64("+dst+")")
		})
	})
}
