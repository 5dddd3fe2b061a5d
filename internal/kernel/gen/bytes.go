package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// decodeBytes writes a function that decodes groups of one-byte codes and scales the
// values. constants and value write the code that turns a code into its value. A plain
// product is computed as the fused one with a zero point of -0.
func (v isa) decodeBytes(name string, constants func(m Mem), value func(x VecVirtual) VecVirtual) {
	v.function(name, "func(dst *float32, codes *byte, scales, zeros *float32, groups, steps, next int, c *uint32)",
		described("%s%s decodes groups of that many times 16 codes; a group's zero point lies next bytes behind the last one's.", name, v.name))
	dst, codes, scales, zeros := param("dst"), param("codes"), param("scales"), param("zeros")
	groups, steps, next := param("groups"), param("steps"), param("next")
	constants(base("c"))
	loop("group", groups, func() {
		scale, zero := v.broadcast(Mem{Base: scales}), v.broadcast(Mem{Base: zeros})
		ADDQ(U8(4), scales)
		ADDQ(next, zeros)
		turns := copied(steps)
		v.each(turns, func(i int) {
			x := v.vec()
			VPMOVZXBD(Mem{Base: codes, Disp: i}, x)
			x = value(x)
			VFMADD213PS(zero, scale, x)
			VMOVUPS(x, Mem{Base: dst, Disp: 4 * i})
		}, pointer{dst, 4}, pointer{codes, 1})
	})
	VZEROUPPER()
	RET()
}

func (v isa) decodeIntBytes() {
	var c map[string]Op
	v.decodeBytes("decodeIntBytes", func(m Mem) { c = v.constants(m, "flip", "offset") }, func(x VecVirtual) VecVirtual {
		v.xor(c["flip"], x, x)
		VPADDD(c["offset"], x, x)
		VCVTDQ2PS(x, x)
		return x
	})
}

func (v isa) decodeFloatBytes() {
	var value func(x VecVirtual) VecVirtual
	v.decodeBytes("decodeFloatBytes", func(m Mem) { value = v.floats(m) }, func(x VecVirtual) VecVirtual { return value(x) })
}

func (v isa) decodePacked() {
	v.function("decodePacked", "func(dst *float32, codes *uint16, steps int, c *uint32)",
		"decodePacked"+v.name+" works on that many times 16 codes.")
	dst, codes, n := param("dst"), param("codes"), param("steps")
	value := v.floats(base("c"))
	v.each(n, func(i int) {
		VMOVUPS(value(v.loadWords(Mem{Base: codes, Disp: 2 * i})), Mem{Base: dst, Disp: 4 * i})
	}, pointer{dst, 4}, pointer{codes, 2})
	VZEROUPPER()
	RET()
}

// floats shifts a code's magnitude to the bits of a single and adds the difference of
// the biases. A magnitude with exponent 0 gets the least exponent, and the least normal
// number is subtracted from it: that avoids subnormals, which processors multiply
// slowly.
func (v isa) floats(m Mem) func(x VecVirtual) VecVirtual {
	shift, signShift := shiftCount(m), shiftCount(m.Offset(32))
	c := v.constants(m.Offset(64), "magnitude", "bit", "rebias", "least", "fraction", "numbers", "infinity", "last", "nan", "zero")
	return func(x VecVirtual) VecVirtual {
		y, value, normal := v.vec(), v.vec(), v.vec()
		v.and(c["magnitude"], x, y)
		VPSLLD(shift, y, value)
		VPADDD(c["rebias"], value, normal)
		VPADDD(c["least"], value, value)
		VSUBPS(c["least"], value, value)
		v.choose(v.above(y, c["fraction"]), normal, value)
		v.choose(v.above(y, c["numbers"]), c["infinity"], value)
		v.and(c["bit"], x, x)
		VPSLLD(signShift, x, x)
		v.or(x, value, value)
		v.choose(v.above(y, c["last"]), c["nan"], value)
		VADDPS(c["zero"], value, value)
		return value
	}
}

// inPlace writes a function that replaces values in their place.
func (v isa) inPlace(name string, constants func(), change func(x VecVirtual)) {
	v.function(name, "func(x *float32, steps int)", name+v.name+" rounds that many times 16 values.")
	x, n := param("x"), param("steps")
	constants()
	v.each(n, func(i int) {
		m := Mem{Base: x, Disp: 4 * i}
		y := v.load(f32, m)
		change(y)
		VMOVUPS(y, m)
	}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

func unordered(x VecVirtual) func(mask Op) {
	return func(mask Op) { VCMPPS(U8(3), x, x, mask) }
}

func (v isa) roundBF16() {
	var one, half, high VecVirtual
	v.inPlace("roundBF16", func() { one, half, high = v.constant(1), v.constant(0x7FFF), v.constant(0xFFFF0000) }, func(x VecVirtual) {
		y, rounded := v.vec(), v.vec()
		v.move(x, y)
		VPSRLD(U8(16), x, rounded)
		v.and(one, rounded, rounded)
		VPADDD(half, rounded, rounded)
		VPADDD(x, rounded, rounded)
		v.and(high, rounded, x)
		v.choose(unordered(y), y, x)
	})
}

func (v isa) roundF16() {
	var nan VecVirtual
	v.inPlace("roundF16", func() { nan = v.constant(0x7FC00000) }, func(x VecVirtual) {
		y := v.vec()
		v.move(x, y)
		VCVTPS2PH(U8(0), y, v.half(x))
		VCVTPH2PS(v.half(x), x)
		v.choose(unordered(y), nan, x)
	})
}

// levels returns code that looks up one of the 16 values at m by each code. It
// overwrites the codes.
func (v isa) levels(m Mem) func(code VecVirtual) VecVirtual {
	low, high := v.load(f32, m), v.vec()
	if !v.wide {
		VMOVUPS(m.Offset(32), high)
	}
	return func(code VecVirtual) VecVirtual {
		x := v.vec()
		VPERMPS(low, code, x)
		if !v.wide {
			y := v.vec()
			VPERMPS(high, code, y)
			VPSLLD(U8(28), code, code) // bit 3 chooses
			VBLENDVPS(code, y, x, x)
		}
		return x
	}
}

func (v isa) lookUp() {
	v.function("lookUp", "func(dst *float32, codes *byte, steps int, levels *float32)", "lookUp"+v.name+" does that many times 16 codes of 16 levels.")
	dst, codes, n := param("dst"), param("codes"), param("steps")
	value := v.levels(base("levels"))
	v.each(n, func(i int) {
		code := v.vec()
		VPMOVZXBD(Mem{Base: codes, Disp: i}, code)
		VMOVUPS(value(code), Mem{Base: dst, Disp: 4 * i})
	}, pointer{dst, 4}, pointer{codes, 1})
	VZEROUPPER()
	RET()
}
