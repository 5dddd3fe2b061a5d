package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// scaling is what is done with the step of a group.
type scaling int

const (
	multiply   scaling = iota
	divide             // without a zero point
	divideFrom         // after subtracting the zero point
)

func (s scaling) String() string { return []string{"multiply", "divide", "divideFrom"}[s] }

// scaler scales values by the steps of their groups.
type scaler struct {
	isa
	by                      scaling
	zero, scale, inverse    VecVirtual
	zeros, scales, inverses Register // pointers to the next group's
}

// each calls f for every part of a step that this scaling uses.
func (s *scaler) each(f func(to VecVirtual, from Register)) {
	f(s.scale, s.scales)
	if s.by != multiply {
		f(s.inverse, s.inverses)
	}
	if s.by == divideFrom {
		f(s.zero, s.zeros)
	}
}

// next takes the next group's step.
func (s *scaler) next() {
	s.each(func(to VecVirtual, from Register) {
		VBROADCASTSS(Mem{Base: from}, to)
		ADDQ(U8(4), from)
	})
}

// nextTwo takes the steps of two groups, the second's for the given lanes.
func (s *scaler) nextTwo(lanes Register) {
	s.each(func(to VecVirtual, from Register) {
		VBROADCASTSS(Mem{Base: from}, to)
		VBROADCASTSS(Mem{Base: from, Disp: 4}, lanes, to)
		ADDQ(U8(8), from)
	})
}

// apply scales x, and overwrites it. To divide, it multiplies by the inverse y: q = x·y
// is close to the quotient, r = x - q·s is exact, and q + r·y, rounded once, is the
// quotient correctly rounded.
func (s *scaler) apply(v isa, x VecVirtual) VecVirtual {
	q, scale, inverse := v.vec(), v.fit(s.scale), v.fit(s.inverse)
	if s.by == divideFrom {
		VSUBPS(v.fit(s.zero), x, x)
	}
	if s.by == multiply {
		VMULPS(scale, x, q)
		return q
	}
	VMULPS(inverse, x, q)
	VFNMADD231PS(scale, q, x)
	VFMADD231PS(inverse, x, q)
	return q
}

// coder turns scaled values into codes.
type coder struct {
	// number turns them into integers that fit 16 bits.
	number func(v isa, q VecVirtual)
	// words does what is left to do with these integers; nil for nothing.
	words func(v isa, w VecVirtual)
	// down divides the integers (a factor of which the high half of the product
	// counts), and up moves what is left to the next byte; nil if the integers are the
	// codes.
	down, up Op
	// finish takes codes, and a function for bytes with the signs of the
	// values.
	finish func(v isa, codes VecVirtual, signs func() VecVirtual) // may be nil
}

// encoding is a function that encodes. Each turn takes as many values as a vector has
// bytes, as four vectors of single precision.
type encoding struct {
	coder
	s          *scaler
	raw        form
	codes, src Register
	high, low  VecVirtual // masks of the odd values of BF16, and of even bytes
	order      VecVirtual
	second     Register // lanes of the second of two groups
}

// encode writes a function that scales groups and makes a code of one byte of each
// value. begin loads what its coder needs.
func (v isa) encode(name string, raw form, by scaling, begin func(m Mem) coder) {
	full := by.String() + name + raw.name
	v.function(full, "func(codes, src *byte, zeros, scales, inverses *float32, groups, steps int, c *uint32)",
		described("%s%s encodes groups of that many times 16 values.", full, v.name))
	e := &encoding{raw: raw, codes: param("codes"), src: param("src")}
	e.s = &scaler{v, by, v.vec(), v.vec(), v.vec(), param("zeros"), param("scales"), param("inverses")}
	groups, steps := param("groups"), param("steps")
	e.coder = begin(base("c"))
	e.high, e.low, e.order = v.constant(0xFFFF0000), v.constant(0x00FF00FF), v.order(raw)
	if v.wide {
		if raw == bf16 {
			e.second = v.chosen(0xFF00)
		}
		e.small("fours", groups, steps, 4)
	}
	e.small("twos", groups, steps, 2)
	loop("group", groups, func() {
		e.s.next()
		turns, rest := copied(steps), copied(steps)
		SHRQ(U8(v.width()/32), turns)
		ANDQ(U8(v.width()/step-1), rest)
		loop("turn", turns, func() { e.turn(v, 1) })
		loop("rest", rest, func() { e.turn(isa{name: v.name, wide: v.wide, short: true}, 1) })
	})
	VZEROUPPER()
	RET()
}

// small encodes groups of which perTurn fill a turn, if they do. Fewer groups are left
// over than that.
func (e *encoding) small(name string, groups, steps Register, perTurn int) {
	v := e.s.isa
	CMPQ(steps, U8(v.width()/step/perTurn))
	JNE(LabelRef(name + "Not"))
	turns := copied(groups)
	SHRQ(U8(perTurn/2), turns)
	ANDQ(U8(perTurn-1), groups)
	loop(name, turns, func() { e.turn(v, perTurn) })
	Label(name + "Not")
}

// turn encodes the values of a turn, which belong to that many groups. For one group,
// its step must have been taken.
func (e *encoding) turn(v isa, groups int) {
	var q [4]VecVirtual
	for i := range q {
		switch {
		case groups == 4 && e.raw == bf16 && i%2 == 0:
			e.s.nextTwo(e.second)
		case groups == 4 && e.raw == f32, groups == 2 && i%2 == 0:
			e.s.next()
		}
		q[i] = e.s.apply(v, e.load(v, i))
		e.number(v, q[i])
	}
	all := e.join(v, e.pairs(q))
	if e.finish != nil {
		e.finish(v, all, func() VecVirtual { return e.signs(v) })
	}
	v.reorder(e.raw, e.order, all)
	v.storeWhole(all, Mem{Base: e.codes})
	ADDQ(U32(v.width()*e.raw.size), e.src)
	ADDQ(U8(v.width()), e.codes)
}

// load loads one of the four vectors of a turn. For BF16, two of them are the values at
// even places of half a turn, and two those at odd places, which saves widening.
func (e *encoding) load(v isa, i int) VecVirtual {
	x := v.vec()
	if e.raw == f32 {
		VMOVUPS(Mem{Base: e.src, Disp: i * v.width()}, x)
		return x
	}
	m := Mem{Base: e.src, Disp: i / 2 * v.width()}
	switch {
	case i%2 == 1:
		v.and(m, v.fit(e.high), x)
	case v.wide:
		VPSLLD(U8(16), m, x)
	default:
		VMOVDQU(m, x)
		VPSLLD(U8(16), x, x)
	}
	return x
}

// pairs makes words of the four vectors. For BF16 the first has the even places.
func (e *encoding) pairs(q [4]VecVirtual) (w [2]VecVirtual) {
	w = [2]VecVirtual{q[0], q[2]}
	if e.raw == bf16 {
		w[1] = q[1]
		VPACKSSDW(q[2], q[0], q[0])
		VPACKSSDW(q[3], q[1], q[1])
		return w
	}
	VPACKSSDW(q[1], q[0], q[0])
	VPACKSSDW(q[3], q[2], q[2])
	return w
}

// join makes bytes of the low halves of words.
func (e *encoding) join(v isa, w [2]VecVirtual) VecVirtual {
	low := v.fit(e.low)
	if e.words != nil {
		e.words(v, w[0])
		e.words(v, w[1])
	}
	if e.raw == f32 {
		for _, w := range w {
			if e.down != nil {
				VPMULHUW(v.fit(e.down), w, w)
			}
			v.and(low, w, w)
		}
		VPACKUSWB(w[1], w[0], w[0])
		return w[0]
	}
	if e.down != nil {
		VPMULHUW(v.fit(e.down), w[0], w[0])
		VPMULLW(v.fit(e.up), w[1], w[1])
	} else {
		VPSLLW(U8(8), w[1], w[1])
	}
	if v.wide {
		VPTERNLOGD(U8(0xEA), w[1], low, w[0]) // w0 and low, or w1
		return w[0]
	}
	v.and(low, w[0], w[0])
	v.or(w[1], w[0], w[0])
	return w[0]
}

// signs returns bytes with the signs of the values, in the order of join's result.
func (e *encoding) signs(v isa) VecVirtual {
	at := func(i int) Mem { return Mem{Base: e.src, Disp: i * v.width()} }
	x := v.vec()
	VMOVUPS(at(0), x)
	if e.raw == bf16 {
		VPACKSSWB(at(1), x, x)
		return x
	}
	y := v.vec()
	VMOVUPS(at(2), y)
	VPACKSSDW(at(1), x, x)
	VPACKSSDW(at(3), y, y)
	VPACKSSWB(y, x, x)
	return x
}

// order returns the permutation that puts joined bytes in order, in parts of eight
// bytes for BF16 and of four for F32. It is nil if an instruction has the permutation
// built in.
func (v isa) order(raw form) VecVirtual {
	switch {
	case v.wide && raw == bf16:
		order := v.bytes(0x0705030106040200)
		VPMOVZXBQ(order.AsX(), order)
		return order
	case raw == f32:
		order := v.bytes(0x0703060205010400)
		if v.wide {
			second := v.bytes(0x0F0B07030E0A0602)
			order = v.bytes(0x0D0905010C080400)
			VPUNPCKLQDQ(second.AsX(), order.AsX(), order.AsX())
		}
		VPMOVZXBD(order.AsX(), order)
		return order
	}
	return nil
}

// bytes returns a vector that begins with the eight bytes of all.
func (v isa) bytes(all uint64) VecVirtual {
	g, r := GP64(), v.vec()
	MOVQ(U64(all), g)
	VMOVQ(g, r.AsX())
	return r
}

// chosen returns a mask of the lanes whose bits are set, up to 32.
func (v isa) chosen(bits uint32) Register {
	g, k := GP32(), K()
	MOVL(U32(bits), g)
	KMOVD(g, k)
	return k
}

func (v isa) reorder(raw form, order, x VecVirtual) {
	switch {
	case v.short: // one lane
	case raw == f32:
		VPERMD(x, order, x)
	case v.wide:
		VPERMQ(x, order, x)
	default:
		VPERMQ(U8(0xD8), x, x)
	}
}

// atMost sets q to its magnitude, or to most if that is less.
func (v isa) atMost(most, mask Op, q VecVirtual) {
	if v.wide {
		VRANGEPS(U8(0xA), v.fit(most), q, q)
		return
	}
	v.and(v.fit(mask), q, q)
	VMINPS(v.fit(most), q, q)
}

// signed adds signs to codes: base is added to every code, and turns it into that of a
// negative value; rest is added as well if the value is not negative.
func (v isa) signed(base, rest Op) func(v isa, codes VecVirtual, signs func() VecVirtual) {
	rests := v.register(rest)
	return func(v isa, codes VecVirtual, signs func() VecVirtual) {
		negative, t := signs(), v.vec()
		VPSHUFB(negative, v.fit(rests), t) // 0 where its highest bit is set
		VPADDB(v.fit(base), codes, codes)
		VPADDB(t, codes, codes)
	}
}

// register returns a register with the content of o.
func (v isa) register(o Op) VecVirtual {
	if r, is := o.(VecVirtual); is {
		return r
	}
	r := v.vec()
	v.loadWhole(o.(Mem), r)
	return r
}

// constants returns the 32-bit constants at m, each of which is stored eight times.
// AVX-512 keeps them in registers; AVX2 has too few of these. Constants without a name
// are skipped.
func (v isa) constants(m Mem, names ...string) map[string]Op {
	c := map[string]Op{}
	for i, name := range names {
		if at := m.Offset(32 * i); name == "" {
			continue
		} else if v.wide {
			c[name] = v.broadcast(at)
		} else {
			c[name] = at
		}
	}
	return c
}

// encodeSmall adds the power of 2 whose last bit has the value of a code's last bit,
// which rounds to it, subnormals included. The mantissa then has its leading bit. The
// exponent is added at its place in a code, counted from what the least normal value
// adds. Zero points are always zero.
func (v isa) encodeSmall(raw form, by scaling) {
	v.encode("Small", raw, by, func(m Mem) coder {
		c := v.constants(m, "", "base", "mask", "", "most", "exponent", "least", "", "factor", "spread", "down", "up", "rest")
		return coder{
			number: func(v isa, q VecVirtual) {
				v.atMost(c["most"], c["mask"], q)
				e := v.vec()
				VMAXPS(v.fit(c["least"]), q, e)
				v.and(v.fit(c["exponent"]), e, e)
				VFMADD231PS(v.fit(c["factor"]), e, q)
				VPMADDWD(v.fit(c["spread"]), q, q)
			},
			down: c["down"], up: c["up"],
			finish: v.signed(c["base"], c["rest"]),
		}
	})
}

// encodePacked rounds a fraction of 9/16 or more up: adding 7/16 of the last place
// carries exactly then. With zero points, values have no signs.
func (v isa) encodePacked(raw form, by scaling) {
	v.encode("Packed", raw, by, func(m Mem) coder {
		c := v.constants(m, "cut", "base", "mask", "", "most", "rest", "", "add", "carry", "subnormal", "", "normal", "rebias")
		if by != divideFrom {
			return coder{
				number: func(v isa, q VecVirtual) {
					v.atMost(c["most"], c["mask"], q)
					v.packed(c, q)
				},
				finish: v.signed(c["base"], c["rest"]),
			}
		}
		least := v.constant(0)
		return coder{number: func(v isa, q VecVirtual) {
			VMAXPS(v.fit(least), q, q)
			VMINPS(v.fit(c["most"]), q, q)
			v.packed(c, q)
		}}
	})
}

// packed makes codes of magnitudes.
func (v isa) packed(c map[string]Op, q VecVirtual) {
	s, rounded := v.vec(), v.vec()
	VPADDD(v.fit(c["add"]), q, s)
	v.move(q, rounded)
	if v.wide {
		VPTERNLOGD(U8(0x28), v.fit(c["carry"]), s, rounded) // keeps only the bits that carry
	} else {
		VPXOR(s, rounded, rounded)
		VPAND(v.fit(c["carry"]), rounded, rounded)
	}
	VPADDD(q, rounded, rounded)
	VMULPS(v.fit(c["subnormal"]), rounded, q)
	VCVTPS2DQ(q, q)
	VPSUBD(v.fit(c["rebias"]), s, s)
	if v.wide {
		k := K()
		VPCMPUD(U8(6), v.fit(c["normal"]), rounded, k) // predicate: greater
		VPSRLVD(v.fit(c["cut"]), s, k, q)
		return
	}
	VPCMPGTD(v.fit(c["normal"]), rounded, rounded)
	VPSRLVD(v.fit(c["cut"]), s, s)
	VBLENDVPS(rounded, s, q, q)
}

// shiftCount loads a number of bits to shift by.
func shiftCount(m Mem) Register {
	x := XMM()
	VMOVD(m, x)
	return x
}

// spans divides the widths of ranges by a constant, inverts the results, and checks for
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

// Predicates of comparisons; all are false for NaN.
const (
	equal    = 0
	less     = 1
	notAbove = 2
	notBelow = 13
	more     = 14
)

// keep clears the lanes of all unless the predicate holds for x and bound.
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

// encodeInts has the bounds and the offset as constants. What is far below the least
// integer stays below it as a word.
func (v isa) encodeInts(raw form, by scaling) {
	v.encode("Ints", raw, by, func(c Mem) coder {
		lo, hi, offset := v.broadcast(c), v.broadcast(c.Offset(4)), v.vec()
		VPBROADCASTB(c.Offset(8), offset)
		VCVTPS2DQ(lo, lo)
		VPACKSSDW(lo, lo, lo)
		return coder{
			number: func(v isa, q VecVirtual) {
				VMINPS(v.fit(hi), q, q)
				VCVTPS2DQ(q, q)
			},
			words: func(v isa, w VecVirtual) { VPMAXSW(v.fit(lo), w, w) },
			finish: func(v isa, codes VecVirtual, _ func() VecVirtual) {
				VPADDB(v.fit(offset), codes, codes)
			},
		}
	})
}
