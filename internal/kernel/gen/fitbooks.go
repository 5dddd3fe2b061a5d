package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// fitBooks fits the scales of groups of 16 values to 16 levels, two vectors of
// eight at a time.
func (v isa) fitBooks() {
	v.function("fitBooks", "func(scales, reach, x *float32, groups int, levels, edges *float32)",
		"fitBooks"+v.name+" fits the scales of groups of 16 values to 16 levels.")
	scales, reach, x, n := param("scales"), param("reach"), param("x"), param("groups")
	b := v.book(param("levels"), param("edges"))
	least := v.constant(math.Float32bits(1e-8))
	loop("group", n, func() {
		scale := v.broadcast(Mem{Base: scales})
		near := b.nearest(x, scale)
		for range 2 {
			values := [2]Op{Mem{Base: x}, Mem{Base: x, Disp: 32}}
			scale = fitted(v.lanesOf(values, near), v.lanesOf([2]Op{near[0], near[1]}, near), least)
			near = b.nearest(x, scale)
		}
		for i := range near {
			VPSLLD(U8(1), near[i], near[i])
			VPSRLD(U8(1), near[i], near[i])
		}
		VMAXPS(near[0], near[1], near[1])
		half, most := XMM(), near[1].AsX()
		VEXTRACTF128(U8(1), near[1], half)
		VMAXPS(half, most, most)
		VMOVHLPS(most, most, half)
		VMAXPS(half, most, most)
		VMOVSHDUP(most, half)
		VMAXSS(half, most, most)
		VMULSS(scale.AsX(), most, most)
		VMOVSS(most, Mem{Base: reach})
		VMOVSS(scale.AsX(), Mem{Base: scales})
		ADDQ(U8(4), scales)
		ADDQ(U8(4), reach)
		ADDQ(U8(64), x)
	})
	VZEROUPPER()
	RET()
}

// lanesOf are sums of two products in each of eight lanes.
func (v isa) lanesOf(x [2]Op, y [2]VecVirtual) VecVirtual {
	first, second := v.vec(), v.vec()
	VMULPS(x[0], y[0], first)
	VMULPS(x[1], y[1], second)
	VADDPS(second, first, first)
	return first
}

// fitted is a quotient of the sums of lanes, one after the other, in all lanes.
func fitted(above, below, least VecVirtual) VecVirtual {
	low, high, sum, part := YMM(), YMM(), XMM(), XMM()
	VUNPCKLPS(below, above, low) // pairs of lanes 0, 1, 4, 5
	VUNPCKHPS(below, above, high)
	both := func(from VecVirtual) {
		VADDPS(from, sum, sum)
		VMOVHLPS(from, from, part)
		VADDPS(part, sum, sum)
	}
	VMOVHLPS(low.AsX(), low.AsX(), part)
	VADDPS(part, low.AsX(), sum)
	both(high.AsX().(VecVirtual))
	VEXTRACTF128(U8(1), low, low.AsX())
	both(low.AsX().(VecVirtual))
	VEXTRACTF128(U8(1), high, high.AsX())
	both(high.AsX().(VecVirtual))
	VMOVSHDUP(sum, part)
	VMAXSS(least.AsX(), part, part)
	VDIVSS(part, sum, sum)
	VMAXSS(least.AsX(), sum, sum)
	scale := YMM()
	VBROADCASTSS(sum, scale)
	return scale
}

// book is 16 levels, and the edges between them: eight a register.
type book struct {
	isa
	levels, edges [2]VecVirtual
	between       Register // the edges
	one           VecVirtual
}

func (v isa) book(levels, edges Register) *book {
	b := &book{isa: v, between: edges, one: v.constant(1)}
	for i := range 2 {
		b.levels[i] = v.load(f32, Mem{Base: levels, Disp: 32 * i})
		b.edges[i] = v.load(f32, Mem{Base: edges, Disp: 32 * i})
	}
	return b
}

// edge is one of them in all lanes.
func (b *book) edge(i int) VecVirtual { return b.broadcast(Mem{Base: b.between, Disp: 4 * i}) }

// nearest are the levels nearest to the values at x divided by their scale, found
// by halves: a mask, less one where it is so, moves the place.
func (b *book) nearest(x Register, scale VecVirtual) (near [2]VecVirtual) {
	for i := range near {
		value, at, step := b.load(f32, Mem{Base: x, Disp: 32 * i}), b.vec(), b.vec()
		VDIVPS(scale, value, value)
		upper := b.edge(7)
		VCMPPS(U8(above), upper, value, upper)
		low := b.edge(3)
		VBLENDVPS(upper, b.edge(11), low, low)
		VCMPPS(U8(above), low, value, step)
		VPSLLD(U8(2), step, step)
		VPSUBD(step, b.one, at) // 1 or 5
		VCMPPS(U8(above), b.pick(b.edges, upper, at), value, step)
		VPSLLD(U8(1), step, step)
		VPSUBD(step, at, at)
		VPSUBD(b.one, at, at) // 0, 2, 4 or 6
		VCMPPS(U8(above), b.pick(b.edges, upper, at), value, step)
		VPSUBD(step, at, at)
		near[i] = b.pick(b.levels, upper, at)
	}
	return near
}

// pick is what is there in the lower or upper half of a table.
func (b *book) pick(table [2]VecVirtual, upper, at VecVirtual) VecVirtual {
	low, high := b.vec(), b.vec()
	VPERMPS(table[0], at, low)
	VPERMPS(table[1], at, high)
	VBLENDVPS(upper, high, low, low)
	return low
}
