package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// scaler is what groups are scaled by.
type scaler struct {
	isa
	multiply             bool
	zero, scale, inverse VecVirtual
}

// pointers are where the steps of groups lie.
type pointers struct{ zeros, scales, inverses Register }

// next takes the next group's step.
func (s *scaler) next(p pointers) {
	take := func(to VecVirtual, from Register) {
		VBROADCASTSS(Mem{Base: from}, to)
		ADDQ(U8(4), from)
	}
	take(s.scale, p.scales)
	if !s.multiply {
		take(s.zero, p.zeros)
		take(s.inverse, p.inverses)
	}
}

// apply scales x. Dividing: with the inverse y, q = x·y is close to the
// quotient, r = x - q·s is exact, and q + r·y, rounded once, is the quotient
// rounded. x is used up.
func (s *scaler) apply(x VecVirtual) VecVirtual {
	q := s.vec()
	if s.multiply {
		VMULPS(s.scale, x, q)
		return q
	}
	VMULPS(s.inverse, x, q)
	VFNMADD231PS(s.scale, q, x)
	VFMADD231PS(s.inverse, x, q)
	return q
}

// subtract takes the zero point off x.
func (s *scaler) subtract(x VecVirtual) {
	if !s.multiply {
		VSUBPS(s.zero, x, x)
	}
}

func operation(multiply bool) string {
	if multiply {
		return "multiply"
	}
	return "divide"
}

// encode writes a function that scales groups and makes one byte of each
// value. constants loads what code uses.
func (v isa) encode(name string, raw form, multiply bool, constants func(m Mem), code func(s *scaler, x VecVirtual) VecVirtual) {
	full := operation(multiply) + name + raw.name
	v.function(full, "func(codes, src *byte, zeros, scales, inverses *float32, groups, steps int, c *uint32)",
		described("%s%s encodes groups of that many times 16 values.", full, v.name))
	codes, src := param("codes"), param("src")
	p := pointers{param("zeros"), param("scales"), param("inverses")}
	groups, steps := param("groups"), param("steps")
	constants(base("c"))
	s := &scaler{v, multiply, v.vec(), v.vec(), v.vec()}
	loop("group", groups, func() {
		s.next(p)
		turns := copied(steps)
		loop("turn", turns, func() {
			var all []VecVirtual
			for i := 0; i < step; i += v.width() / 4 {
				all = append(all, code(s, v.load(raw, Mem{Base: src, Disp: i * raw.size})))
			}
			v.storeBytes(all, Mem{Base: codes})
			ADDQ(U8(step*raw.size), src)
			ADDQ(U8(step), codes)
		})
	})
	VZEROUPPER()
	RET()
}

// magnitude scales the magnitude of x, and returns it with x, not below floor,
// for its sign. x is used up.
func (s *scaler) magnitude(x VecVirtual, floor, mask Op) (q, signed VecVirtual) {
	s.subtract(x)
	signed = s.vec()
	if s.move(x, signed); floor != nil {
		VMAXPS(floor, x, signed)
	}
	s.and(mask, signed, x)
	return s.apply(x), signed
}

// sign shifts the sign of x to its place in a code and adds it.
func (s *scaler) sign(x VecVirtual, shift Register, bit Op, code VecVirtual) {
	VPSRLD(shift, x, x)
	s.and(bit, x, x)
	s.or(x, code, code)
}

// shiftCount loads a number of bits to shift by.
func shiftCount(m Mem) Register {
	x := XMM()
	VMOVD(m, x)
	return x
}

// constants returns the 32-bit constants at m, each there eight times: AVX-512
// keeps them in registers, of which AVX2 has too few.
func (v isa) constants(m Mem, names ...string) map[string]Op {
	c := map[string]Op{}
	for i, name := range names {
		if at := m.Offset(32 * i); v.wide {
			c[name] = v.broadcast(at)
		} else {
			c[name] = at
		}
	}
	return c
}

// encodeSmall: adding a power of 2 whose last bit is worth that of the code
// rounds to it, subnormals included; what was added taken off again leaves the
// mantissa with its leading bit.
func (v isa) encodeSmall(raw form, multiply bool) {
	var c map[string]Op
	var shift, signShift Register
	constants := func(m Mem) {
		shift, signShift = shiftCount(m), shiftCount(m.Offset(32))
		c = v.constants(m.Offset(64), "mask", "bit", "most", "exponent", "least", "lift")
	}
	v.encode("Small", raw, multiply, constants, func(s *scaler, x VecVirtual) VecVirtual {
		q, signed := s.magnitude(x, nil, c["mask"])
		VMINPS(c["most"], q, q)
		e, magic := v.vec(), v.vec()
		v.and(c["exponent"], q, e)
		VPMAXSD(c["least"], e, e)
		VPADDD(c["lift"], e, magic)
		VADDPS(magic, q, q)
		VPSUBD(magic, q, q)
		VPSUBD(c["least"], e, e)
		VPSRLD(shift, e, e)
		VPADDD(e, q, q)
		s.sign(signed, signShift, c["bit"], q)
		return q
	})
}

// encodePacked rounds a fraction of 9/16 up: adding 7/16 of the last place to
// the next four bits carries exactly then.
func (v isa) encodePacked(raw form) {
	var c map[string]Op
	var cut, signShift Register
	constants := func(m Mem) {
		cut, signShift = shiftCount(m), shiftCount(m.Offset(32))
		c = v.constants(m.Offset(64), "mask", "bit", "most", "floor", "field", "add", "carry", "subnormal", "magic", "normal", "rebias")
	}
	v.encode("Packed", raw, false, constants, func(s *scaler, x VecVirtual) VecVirtual {
		q, signed := s.magnitude(x, c["floor"], c["mask"])
		VMINPS(c["most"], q, q)
		up, low := v.vec(), v.vec()
		v.and(c["field"], q, up)
		VPADDD(c["add"], up, up)
		v.and(c["carry"], up, up)
		VPADDD(up, q, q)
		VMULPS(c["subnormal"], q, low)
		VADDPS(c["magic"], low, low)
		VPSUBD(c["magic"], low, low)
		if v.wide {
			k := K()
			VPCMPUD(U8(6), c["normal"], q, k) // greater
			VPSUBD(c["rebias"], q, q)
			VPSRLD(cut, q, k, low)
		} else {
			VPCMPGTD(c["normal"], q, up)
			VPSUBD(c["rebias"], q, q)
			VPSRLD(cut, q, q)
			VBLENDVPS(up, q, low, low)
		}
		s.sign(signed, signShift, c["bit"], low)
		return low
	})
}

// spans divides the widths of ranges by a constant, and 1 by them, and looks for
// scales that are too extreme.
func (v isa) spans() {
	v.function("spans", "func(scales, inverses, lo, hi *float32, steps int, divisor float32) bool",
		"spans"+v.name+" does that many times 16 groups.")
	scales, inverses, lo, hi := param("scales"), param("inverses"), param("lo"), param("hi")
	n, divisor := param("steps"), v.vec()
	address, _ := Param("divisor").Resolve()
	VBROADCASTSS(address.Addr, divisor)
	one, lowest, highest := v.constant(0x3F800000), v.constant((127-80)<<23), v.constant((127+80)<<23)
	all := v.constant(1<<32 - 1)
	loop("turn", n, func() {
		for i := 0; i < step; i += v.width() / 4 {
			x, inverse := v.load(f32, Mem{Base: hi, Disp: 4 * i}), v.vec()
			VSUBPS(Mem{Base: lo, Disp: 4 * i}, x, x)
			VDIVPS(divisor, x, x)
			VDIVPS(x, one, inverse)
			VMOVUPS(x, Mem{Base: scales, Disp: 4 * i})
			VMOVUPS(inverse, Mem{Base: inverses, Disp: 4 * i})
			v.keep(notBelow, lowest, x, all)
			v.keep(notAbove, highest, x, all)
		}
		for _, p := range []Register{scales, inverses, lo, hi} {
			ADDQ(U8(4*step), p)
		}
	})
	Store(v.nonzero(all), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// Predicates of comparisons; none holds of NaN.
const (
	equal    = 0
	less     = 1
	notAbove = 2
	notBelow = 13
	more     = 14
)

// keep clears the bits of lanes of all where x is not as the predicate says to
// the bound.
func (v isa) keep(predicate uint8, bound, x, all VecVirtual) {
	t := v.vec()
	if v.wide {
		k := K()
		VCMPPS(U8(predicate), bound, x, k)
		VPMOVM2D(k, t)
	} else {
		VCMPPS(U8(predicate), bound, x, t)
	}
	v.and(t, all, all)
}

// nonzero returns 1 if all bits of all are set, else 0.
func (v isa) nonzero(all VecVirtual) Register {
	if v.wide {
		half := v.vec()
		VEXTRACTI64X4(U8(1), all, half.AsY())
		VPAND(half.AsY(), all.AsY(), all.AsY())
	}
	bits, set := GP32(), GP8()
	VPMOVMSKB(all.AsY(), bits)
	CMPL(bits, U32(1<<32-1))
	SETEQ(set)
	return set
}

// encodeInts: constants are the bounds, the offset and 255.
func (v isa) encodeInts(raw form, multiply bool) {
	var lo, hi, offset, low VecVirtual
	constants := func(c Mem) {
		lo, hi, offset, low = v.broadcast(c), v.broadcast(c.Offset(4)), v.broadcast(c.Offset(8)), v.constant(255)
	}
	v.encode("Ints", raw, multiply, constants, func(s *scaler, x VecVirtual) VecVirtual {
		s.subtract(x)
		q := s.apply(x)
		VMAXPS(lo, q, q)
		VMINPS(hi, q, q)
		VCVTPS2DQ(q, q)
		VPADDD(offset, q, q)
		if !v.wide {
			v.and(low, q, q)
		}
		return q
	})
}
