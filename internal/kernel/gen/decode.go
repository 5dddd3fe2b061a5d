package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// loadWords reads unsigned values of 16 bits.
func (v isa) loadWords(m Mem) VecVirtual {
	r := v.vec()
	VPMOVZXWD(m, r)
	return r
}

func (v isa) decodeInts() {
	v.function("decodeInts", "func(dst *float32, codes *uint16, steps int, flip, offset uint32)",
		"decodeInts"+v.name+" works on that many times 16 codes.")
	dst, codes, n := param("dst"), param("codes"), param("steps")
	flip, offset := v.constantParam("flip"), v.constantParam("offset")
	v.each(n, func(i int) {
		x := v.loadWords(Mem{Base: codes, Disp: 2 * i})
		v.xor(flip, x, x)
		VPADDD(offset, x, x)
		VCVTDQ2PS(x, x)
		VMOVUPS(x, Mem{Base: dst, Disp: 4 * i})
	}, pointer{dst, 4}, pointer{codes, 2})
	VZEROUPPER()
	RET()
}

// scaleFrom multiplies and adds with one rounding.
func (v isa) scaleFrom() {
	v.function("scaleFrom", "func(x *float32, steps int, scale, zero float32)", "scaleFrom"+v.name+" works on that many times 16 values.")
	x, n := param("x"), param("steps")
	scale, zero := v.constantParam("scale"), v.constantParam("zero")
	v.each(n, func(i int) {
		m := Mem{Base: x, Disp: 4 * i}
		y := v.load(f32, m)
		VFMADD213PS(zero, scale, y)
		VMOVUPS(y, m)
	}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

func (v isa) scaleBy() {
	v.function("scaleBy", "func(x *float32, steps int, scale float32)", "scaleBy"+v.name+" works on that many times 16 values.")
	x, n := param("x"), param("steps")
	scale := v.constantParam("scale")
	v.each(n, func(i int) {
		m := Mem{Base: x, Disp: 4 * i}
		y := v.load(f32, m)
		VMULPS(scale, y, y)
		VMOVUPS(y, m)
	}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

// decodeSmall shifts a code's magnitude to the bits of a single and multiplies by the
// power of 2 that makes up for the bias; NaN loses its sign.
func (v isa) decodeSmall() {
	v.function("decodeSmall", "func(dst *float32, codes *uint16, steps int, c *uint32)",
		"decodeSmall"+v.name+" works on that many times 16 codes.")
	dst, codes, n, m := param("dst"), param("codes"), param("steps"), base("c")
	shift, signShift := shiftCount(m), shiftCount(m.Offset(32))
	c := v.constants(m.Offset(64), "magnitude", "bit", "factor", "numbers", "infinity", "last", "nan")
	v.each(n, func(i int) {
		x, y, value := v.loadWords(Mem{Base: codes, Disp: 2 * i}), v.vec(), v.vec()
		v.and(c["magnitude"], x, y)
		VPSLLD(shift, y, value)
		VMULPS(c["factor"], value, value)
		v.choose(v.above(y, c["numbers"]), c["infinity"], value)
		v.and(c["bit"], x, x)
		VPSLLD(signShift, x, x)
		v.or(x, value, value)
		v.choose(v.above(y, c["last"]), c["nan"], value)
		VMOVUPS(value, Mem{Base: dst, Disp: 4 * i})
	}, pointer{dst, 4}, pointer{codes, 2})
	VZEROUPPER()
	RET()
}
