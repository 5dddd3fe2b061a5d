package main

import "strings"

// inPlace writes a function that replaces 16 values at a time by those that body
// returns.
func (a *assembly) inPlace(name, params string, constants func(), body func(x []vec) []vec) {
	all := strings.TrimSuffix("x *float32, steps int, "+params, ", ")
	a.function(name, all, "", "works on that many times 16 values.", func() {
		p, n, x := a.param("x"), a.param("steps"), a.vecs(4)
		constants()
		a.loop("turn", n, func() {
			a.op("VLD1", "("+p+")", list(x, "S4"))
			a.store(body(x), "S4", p)
		})
	})
}

// product returns code that multiplies x by a factor, into other registers. The product
// is added to -0, which keeps the sign of zero.
func (a *assembly) product(factor vec) func(x []vec) []vec {
	minus, q := a.constant(1<<31, "S4"), a.vecs(4)
	return func(x []vec) []vec {
		each(q, func(i int, q vec) {
			a.op("VMOV", minus.b(), q.b())
			a.op("VFMLA", factor.s(), x[i].s(), q.s())
		})
		return q
	}
}

func (a *assembly) scaleBy() {
	var product func(x []vec) []vec
	constants := func() { product = a.product(a.everywhere("scale")) }
	a.inPlace("scaleBy", "scale float32", constants, func(x []vec) []vec { return product(x) })
}

// scaleFrom multiplies and adds with one rounding.
func (a *assembly) scaleFrom() {
	var scale, zero vec
	var q []vec
	constants := func() { scale, zero, q = a.everywhere("scale"), a.everywhere("zero"), a.vecs(4) }
	a.inPlace("scaleFrom", "scale, zero float32", constants, func(x []vec) []vec {
		each(q, func(i int, q vec) {
			a.op("VMOV", zero.b(), q.b())
			a.op("VFMLA", scale.s(), x[i].s(), q.s())
		})
		return q
	})
}

// clamp passes NaN on, and zeros of either sign at a bound of zero.
func (a *assembly) clamp(x []vec, lo, hi, t vec) {
	for _, x := range x {
		a.less(x, lo, t)
		a.op("VBIT", t.b(), lo.b(), x.b())
		a.less(hi, x, t)
		a.op("VBIT", t.b(), hi.b(), x.b())
	}
}

func (a *assembly) multiply() {
	var product func(x []vec) []vec
	var lo, hi, t vec
	constants := func() {
		product = a.product(a.everywhere("scale"))
		lo, hi, t = a.everywhere("lo"), a.everywhere("hi"), a.vec()
	}
	a.inPlace("multiply", "scale, lo, hi float32", constants, func(x []vec) []vec {
		q := product(x)
		a.clamp(q, lo, hi, t)
		return q
	})
}

func (a *assembly) divide() {
	var zero, scale, lo, hi, one, t vec
	constants := func() {
		zero, scale, lo, hi = a.everywhere("zero"), a.everywhere("scale"), a.everywhere("lo"), a.everywhere("hi")
		one, t = a.constant(0x3F800000, "S4"), a.vec()
	}
	a.inPlace("divide", "zero, scale, lo, hi float32", constants, func(x []vec) []vec {
		each(x, func(_ int, x vec) { a.op("VFMLS", one.s(), zero.s(), x.s()) })
		each(x, func(_ int, x vec) { a.quotient(x, scale, x) })
		a.clamp(x, lo, hi, t)
		return x
	})
}

// toWords writes a function that makes codes of two bytes.
func (a *assembly) toWords(name, params string, constants func(), body func(x vec)) {
	a.function(name, "codes *uint16, x *float32, steps int, "+params, "", "works on that many times 16 values.", func() {
		codes, p, n, x := a.param("codes"), a.param("x"), a.param("steps"), a.vecs(4)
		constants()
		a.loop("turn", n, func() {
			a.load(x, "S4", p)
			each(x, func(_ int, x vec) { body(x) })
			a.store(a.halves("VUZP1", "H8", x), "H8", codes)
		})
	})
}

func (a *assembly) roundInts() {
	var offset, nan, magic, mask, infinity, one, t vec
	constants := func() {
		offset, nan = a.everywhere("offset"), a.everywhere("nan")
		magic, one = a.constant(0x4B400000, "S4"), a.constant(0x3F800000, "S4")
		mask, infinity, t = a.constant(1<<31-1, "S4"), a.constant(0x7F800000, "S4"), a.vec()
	}
	a.toWords("roundInts", "offset, nan uint32", constants, func(x vec) {
		a.op("VAND", mask.b(), x.b(), t.b())
		a.op("VFMLA", one.s(), magic.s(), x.s())
		a.op("VADD", offset.s(), x.s(), x.s())
		a.unless(t, infinity, nan, x, t)
	})
}

// castSmall rounds any values to a small float, step by step like the portable
// function.
func (a *assembly) castSmall() {
	var cut, sign, mask, bit, odd, rebias, magic, normal, overflow, infinite, numbers, nan, one vec
	var y, code, normally, t vec
	constants := func() {
		c := a.param("c")
		cut, sign = a.negative(c, 0, "S4"), a.negative(c, 32, "S4")
		mask, bit, odd, rebias = a.row(c, 64), a.row(c, 96), a.row(c, 128), a.row(c, 160)
		magic, normal, overflow = a.row(c, 192), a.row(c, 224), a.row(c, 256)
		infinite, numbers, nan = a.row(c, 288), a.row(c, 320), a.row(c, 352)
		one, y, code, normally, t = a.constant(0x3F800000, "S4"), a.vec(), a.vec(), a.vec(), a.vec()
	}
	a.toWords("encodeSmall", "c *uint32", constants, func(x vec) {
		a.op("VAND", mask.b(), x.b(), y.b())
		a.op("VMOV", y.b(), code.b())
		a.op("VFMLA", one.s(), magic.s(), code.s())
		a.op("VSUB", magic.s(), code.s(), code.s())
		a.shift("S4", sign, x, x)
		a.op("VAND", bit.b(), x.b(), x.b())
		a.shift("S4", cut, y, normally)
		a.op("VAND", odd.b(), normally.b(), normally.b())
		a.op("VADD", y.s(), normally.s(), normally.s())
		a.op("VADD", rebias.s(), normally.s(), normally.s())
		a.shift("S4", cut, normally, normally)
		a.unless(y, normal, normally, code, t)
		a.unless(y, overflow, infinite, code, t)
		a.unless(y, numbers, nan, code, t)
		a.op("VORR", code.b(), x.b(), x.b())
	})
}

// fromWords is the inverse of toWords.
func (a *assembly) fromWords(name, params string, constants func(), body func(x vec)) {
	a.function(name, "dst *float32, codes *uint16, steps int, "+params, "", "works on that many times 16 codes.", func() {
		dst, codes, n, x, narrow := a.param("dst"), a.param("codes"), a.param("steps"), a.vecs(4), a.vecs(2)
		constants()
		a.loop("turn", n, func() {
			a.load(narrow, "H8", codes)
			a.widenWords(narrow, x)
			each(x, func(_ int, x vec) { body(x) })
			a.store(x, "S4", dst)
		})
	})
}

// widenWords widens lanes of 16 bits to 32.
func (a *assembly) widenWords(narrow, x []vec) {
	each(narrow, func(i int, v vec) {
		a.op("VUXTL", v.as("H4"), x[2*i].s())
		a.op("VUXTL2", v.h(), x[2*i+1].s())
	})
}

// toSingles converts integers to singles.
func (a *assembly) toSingles(x vec) { a.word("SCVTF", 0x4E21D800, x.s(), x.s()) }

func (a *assembly) decodeInts() {
	var flip, offset vec
	constants := func() { flip, offset = a.everywhere("flip"), a.everywhere("offset") }
	a.fromWords("decodeInts", "flip, offset uint32", constants, func(x vec) {
		a.op("VEOR", flip.b(), x.b(), x.b())
		a.op("VADD", offset.s(), x.s(), x.s())
		a.toSingles(x)
	})
}

// decodeSmall shifts a code's magnitude to the bits of a single and multiplies by the
// power of 2 that makes up for the bias; NaN loses its sign.
func (a *assembly) decodeSmall() {
	var cut, sign, magnitude, bit, factor, numbers, infinity, last, nan, zero, y, value, t vec
	constants := func() {
		c := a.param("c")
		cut, sign, magnitude, bit = a.row(c, 0), a.row(c, 32), a.row(c, 64), a.row(c, 96)
		factor, numbers, infinity = a.row(c, 128), a.row(c, 160), a.row(c, 192)
		last, nan, zero = a.row(c, 224), a.row(c, 256), a.vec()
		y, value, t = a.vec(), a.vec(), a.vec()
		a.clear(zero)
	}
	a.fromWords("decodeSmall", "c *uint32", constants, func(x vec) {
		a.op("VAND", magnitude.b(), x.b(), y.b())
		a.shift("S4", cut, y, t)
		a.op("VMOV", zero.b(), value.b())
		a.op("VFMLA", factor.s(), t.s(), value.s())
		a.unless(y, numbers, infinity, value, t)
		a.op("VAND", bit.b(), x.b(), x.b())
		a.shift("S4", sign, x, x)
		a.op("VORR", value.b(), x.b(), x.b())
		a.unless(y, last, nan, x, t)
	})
}
