package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// constantParam fills a vector with a 32-bit parameter.
func (v isa) constantParam(name string) VecVirtual {
	address, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return v.broadcast(address.Addr)
}

// pointer is a register that goes through values of one size.
type pointer struct {
	at   Register
	size int
}

// each loops over the values, and runs body for each vector of 16 of them.
func (v isa) each(n Register, body func(i int), pointers ...pointer) {
	loop("turn", n, func() {
		for i := 0; i < step; i += v.width() / 4 {
			body(i)
		}
		for _, p := range pointers {
			ADDQ(U8(step*p.size), p.at)
		}
	})
}

// scale divides or multiplies values where they lie, and clamps them; NaN and
// the sign of zero pass, as the second operand of a maximum does.
func (v isa) scale(multiply bool) {
	name, signature := "divide", "func(x *float32, steps int, zero, scale, lo, hi float32)"
	if multiply {
		name, signature = "multiply", "func(x *float32, steps int, scale, lo, hi float32)"
	}
	v.function(name, signature, name+v.name+" works on that many times 16 values.")
	x, n := param("x"), param("steps")
	scale, lo, hi := v.constantParam("scale"), v.constantParam("lo"), v.constantParam("hi")
	var zero VecVirtual
	if !multiply {
		zero = v.constantParam("zero")
	}
	v.each(n, func(i int) {
		m := Mem{Base: x, Disp: 4 * i}
		y := v.load(f32, m)
		if multiply {
			VMULPS(scale, y, y)
		} else {
			VSUBPS(zero, y, y)
			VDIVPS(scale, y, y)
		}
		VMAXPS(y, lo, y)
		VMINPS(y, hi, y)
		VMOVUPS(y, m)
	}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

// storeWords writes the low 16 bits of each 32-bit lane, one after another.
func (v isa) storeWords(x VecVirtual, to Mem, low VecVirtual) {
	if v.wide {
		VPMOVDW(x, to)
		return
	}
	high := XMM()
	VPAND(low, x, x)
	VEXTRACTI128(U8(1), x, high)
	VPACKUSDW(high, x.AsX(), high)
	VMOVDQU(high, to)
}

// choose sets x to other in the lanes for which a comparison holds.
func (v isa) choose(compare func(mask Op), other Op, x VecVirtual) {
	if v.wide {
		k := K()
		compare(k)
		VPBLENDMD(other, x, k, x)
		return
	}
	mask := v.vec()
	compare(mask)
	VBLENDVPS(mask, other, x, x)
}

// above compares whole numbers.
func (v isa) above(x, bound Op) func(mask Op) {
	return func(mask Op) {
		if v.wide {
			VPCMPD(U8(6), bound, x, mask)
		} else {
			VPCMPGTD(bound, x, mask)
		}
	}
}

func (v isa) roundInts() {
	v.function("roundInts", "func(codes *uint16, x *float32, steps int, offset, nan uint32)",
		"roundInts"+v.name+" works on that many times 16 values; offset is less the bits of 1.5·2^23.")
	codes, x, n := param("codes"), param("x"), param("steps")
	offset, nan := v.constantParam("offset"), v.constantParam("nan")
	magic, low := v.constant(0x4B400000), v.constant(0xFFFF)
	v.each(n, func(i int) {
		y, code := v.load(f32, Mem{Base: x, Disp: 4 * i}), v.vec()
		VADDPS(magic, y, code)
		VPADDD(offset, code, code)
		v.choose(func(mask Op) { VCMPPS(U8(3), y, y, mask) }, nan, code)
		v.storeWords(code, Mem{Base: codes, Disp: 2 * i}, low)
	}, pointer{codes, 2}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

// castSmall rounds any values to a small float, step by step like the portable
// function.
func (v isa) castSmall() {
	v.function("encodeSmall", "func(codes *uint16, x *float32, steps int, c *uint32)",
		"encodeSmall"+v.name+" works on that many times 16 values.")
	codes, x, n, m := param("codes"), param("x"), param("steps"), base("c")
	shift, signShift := shiftCount(m), shiftCount(m.Offset(32))
	c := v.constants(m.Offset(64), "mask", "bit", "one", "rebias", "magic", "normal", "overflow", "infinite", "numbers", "nan", "low")
	v.each(n, func(i int) {
		sign, y, code := v.load(f32, Mem{Base: x, Disp: 4 * i}), v.vec(), v.vec()
		v.and(c["mask"], sign, y)
		VADDPS(c["magic"], y, code)
		VPSUBD(c["magic"], code, code)
		normal := v.vec()
		VPSRLD(shift, y, normal)
		v.and(c["one"], normal, normal)
		VPADDD(y, normal, normal)
		VPADDD(c["rebias"], normal, normal)
		VPSRLD(shift, normal, normal)
		v.choose(v.above(y, c["normal"]), normal, code)
		v.choose(v.above(y, c["overflow"]), c["infinite"], code)
		v.choose(v.above(y, c["numbers"]), c["nan"], code)
		VPSRLD(signShift, sign, sign)
		v.and(c["bit"], sign, sign)
		v.or(sign, code, code)
		if v.wide {
			VPMOVDW(code, Mem{Base: codes, Disp: 2 * i})
			return
		}
		low := v.vec()
		VMOVDQU(c["low"], low)
		v.storeWords(code, Mem{Base: codes, Disp: 2 * i}, low)
	}, pointer{codes, 2}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

func (v isa) narrowF16() {
	v.function("narrowF16", "func(dst *byte, src *float32, steps int)", "narrowF16"+v.name+" rounds that many times 16 values.")
	dst, src, n := param("dst"), param("src"), param("steps")
	v.each(n, func(i int) {
		VCVTPS2PH(U8(0), v.load(f32, Mem{Base: src, Disp: 4 * i}), Mem{Base: dst, Disp: 2 * i})
	}, pointer{dst, 2}, pointer{src, 4})
	VZEROUPPER()
	RET()
}

func (v isa) narrowBF16() {
	v.function("narrowBF16", "func(dst *byte, src *float32, steps int)", "narrowBF16"+v.name+" rounds that many times 16 values.")
	dst, src, n := param("dst"), param("src"), param("steps")
	one, half, nan, low := v.constant(1), v.constant(0x7FFF), v.constant(0x7FC0), v.constant(0xFFFF)
	v.each(n, func(i int) {
		y, code := v.load(f32, Mem{Base: src, Disp: 4 * i}), v.vec()
		VPSRLD(U8(16), y, code)
		v.and(one, code, code)
		VPADDD(half, code, code)
		VPADDD(y, code, code)
		VPSRLD(U8(16), code, code)
		v.choose(func(mask Op) { VCMPPS(U8(3), y, y, mask) }, nan, code)
		v.storeWords(code, Mem{Base: dst, Disp: 2 * i}, low)
	}, pointer{dst, 2}, pointer{src, 4})
	VZEROUPPER()
	RET()
}
