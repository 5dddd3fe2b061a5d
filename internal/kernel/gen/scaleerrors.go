package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// scaleErrors writes the function that rates scales for groups of floats, two of them at
// a time. The product with magic is that of powers of two, so that fusing it with a sum
// rounds nothing else.
func (v isa) scaleErrors(weighted bool) {
	name, also := v.weighted("scaleErrors", weighted)
	v.function(name, "func(errors, x, "+also+"inverses, squares *float32, rows, count int, most, least, magic float32)",
		name+v.name+" rates that many scales for 16 groups.")
	r := &rating{errors: param("errors"), x: param("x"), inverses: param("inverses"), squares: param("squares"), rows: param("rows")}
	count := param("count")
	if weighted {
		r.weights = param("weights")
	}
	r.most, r.least, r.magic = v.constantParam("most"), v.constantParam("least"), v.constantParam("magic")
	r.exponent = v.constant(0x7F800000)
	v.columns(func(c column) {
		at := &rating{errors: copied(r.errors), inverses: copied(r.inverses), squares: copied(r.squares)}
		pairs, rest := copied(count), copied(count)
		SHRQ(U8(1), pairs)
		ANDQ(U8(1), rest)
		loop(fmt.Sprint("pair", c.first), pairs, func() { r.rate(c, at, 2) })
		loop(fmt.Sprint("one", c.first), rest, func() { r.rate(c, at, 1) })
	})
}

// rating are the parameters of a function that rates scales.
type rating struct {
	errors, x, weights, inverses, squares, rows Register
	most, least, magic, exponent                VecVirtual
}

// rate rates one scale or two, and goes on to the next.
func (r *rating) rate(c column, at *rating, scales int) {
	var inverses, sums [2]VecVirtual
	for i := range scales {
		inverses[i], sums[i] = c.load(f32, c.at(at.inverses, i)), c.constant(0)
	}
	from, n, weights := copied(r.x), copied(r.rows), r.weights
	if weights != nil {
		weights = copied(weights)
	}
	loop(fmt.Sprint("row", scales, "of", c.first), n, func() {
		x := c.load(f32, c.at(from, 0))
		for i := range scales {
			t, q, e := c.vec(), c.vec(), c.vec()
			VMULPS(inverses[i], x, t)
			VMINPS(r.most, t, q)
			VMAXPS(r.least, q, e)
			c.and(r.exponent, e, e)
			VFMADD231PS(r.magic, e, q)
			VFNMADD231PS(r.magic, e, q)
			VSUBPS(q, t, t)
			if weights != nil {
				VMULPS(c.at(weights, 0), t, q)
				VMULPS(q, t, t)
			} else {
				VMULPS(t, t, t)
			}
			VADDPS(t, sums[i], sums[i])
		}
		ADDQ(U8(4*lineLanes), from)
		if weights != nil {
			ADDQ(U8(4*lineLanes), weights)
		}
	})
	for i := range scales {
		VMULPS(c.at(at.squares, i), sums[i], sums[i])
		VMOVUPS(sums[i], c.at(at.errors, i))
	}
	for _, p := range []Register{at.errors, at.inverses, at.squares} {
		ADDQ(U32(uint32(4*lineLanes*scales)), p)
	}
}

// leastErrors writes the function that numbers the least errors: errors have the order of
// their bits, of which the last hold the number.
func (v isa) leastErrors() {
	v.function("leastErrors", "func(numbers *uint32, errors *float32, others int, gain float32)",
		"leastErrors"+v.name+" compares those of the first scale with that many others.")
	numbers, errors, others := param("numbers"), param("errors"), param("others")
	gain, one, number := v.constantParam("gain"), v.constant(1), v.constant(31)
	error := v.constant(^uint32(31))
	v.columns(func(c column) {
		at, n, least, j := copied(errors), copied(others), c.vec(), c.constant(0)
		VMULPS(c.at(at, 0), gain, least)
		c.and(error, least, least)
		loop(fmt.Sprint("other", c.first), n, func() {
			x := c.vec()
			ADDQ(U8(4*lineLanes), at)
			VPADDD(one, j, j)
			c.and(c.at(at, 0), error, x)
			c.or(j, x, x)
			VPMINUD(x, least, least)
		})
		c.and(number, least, least)
		VMOVUPS(least, c.at(numbers, 0))
	})
}

// sideBySide writes the function that lays groups side by side, eight values of eight
// groups at a time.
func (v isa) sideBySide(raw form) {
	v.function("magnitudes"+raw.name, "func(x *float32, src *byte, size, steps int)",
		"magnitudes"+raw.name+v.name+" lays that many times eight values of 16 groups of a size side by side.")
	x, src, stride, steps := param("x"), param("src"), param("size"), param("steps")
	if raw.size == 2 {
		ADDQ(stride, stride)
	} else {
		SHLQ(U8(2), stride)
	}
	three := copied(stride)
	ADDQ(stride, three)
	ADDQ(stride, three)
	mask := v.constant(1<<31 - 1)
	for first := 0; first < lineLanes; first += 8 {
		near, to, n := copied(src), copied(x), copied(steps)
		far := copied(src)
		LEAQ(Mem{Base: far, Index: stride, Scale: 4}, far)
		loop(fmt.Sprint("lanes", first), n, func() {
			row := make([]VecVirtual, 8)
			for i := range row {
				base := near
				if i >= 4 {
					base = far
				}
				m := Mem{Base: base}
				switch i % 4 {
				case 1, 2:
					m.Index, m.Scale = stride, uint8(i%4)
				case 3:
					m.Index, m.Scale = three, 1
				}
				row[i] = v.load(raw, m)
				v.and(mask, row[i], row[i])
			}
			for i, r := range v.transposed(row) {
				VMOVUPS(r, Mem{Base: to, Disp: 4*lineLanes*i + 4*first})
			}
			ADDQ(U8(8*raw.size), near)
			ADDQ(U8(8*raw.size), far)
			ADDQ(U32(4*lineLanes*8), to)
		})
		if first == 0 {
			LEAQ(Mem{Base: src, Index: stride, Scale: 8}, src)
		}
	}
	VZEROUPPER()
	RET()
}
