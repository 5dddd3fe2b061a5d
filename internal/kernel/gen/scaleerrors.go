package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// scaleErrors writes the function that rates scales for groups of floats. The product
// with magic is that of powers of two, so that fusing it with a sum rounds nothing
// else.
func (v isa) scaleErrors(weighted bool) {
	name, also := v.weighted("scaleErrors", weighted)
	v.function(name, "func(errors, x, "+also+"inverses, squares *float32, rows, count int, most, least, magic float32)",
		name+v.name+" rates that many scales for 16 groups.")
	errors, x, inverses, squares := param("errors"), param("x"), param("inverses"), param("squares")
	rows, count := param("rows"), param("count")
	var weights Register
	if weighted {
		weights = param("weights")
	}
	most, least, magic := v.constantParam("most"), v.constantParam("least"), v.constantParam("magic")
	exponent := v.constant(0x7F800000)
	v.columns(func(c column) {
		to, by, square, n := copied(errors), copied(inverses), copied(squares), copied(count)
		loop(fmt.Sprint("scale", c.first), n, func() {
			inverse, sum := c.load(f32, c.at(by, 0)), c.constant(0)
			c.eachRow(x, weights, rows, func(t VecVirtual, m Mem) {
				q, e := c.vec(), c.vec()
				VMULPS(inverse, t, t)
				VMINPS(most, t, q)
				VMAXPS(least, q, e)
				c.and(exponent, e, e)
				VFMADD231PS(magic, e, q)
				VFNMADD231PS(magic, e, q)
				VSUBPS(q, t, t)
				if weighted {
					VMULPS(m, t, q)
					VMULPS(q, t, t)
				} else {
					VMULPS(t, t, t)
				}
				VADDPS(t, sum, sum)
			})
			VMULPS(c.at(square, 0), sum, sum)
			VMOVUPS(sum, c.at(to, 0))
			for _, p := range []Register{to, by, square} {
				ADDQ(U8(4*lineLanes), p)
			}
		})
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
