package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// fitBooks has two loops, because a processor cannot look far enough ahead to hide the
// waiting in a single one.
func (v isa) fitBooks() {
	v.nearBooks()
	v.fitScales()
}

// nearBooks finds the levels of groups of 16 values, two vectors of eight at a time.
func (v isa) nearBooks() {
	v.function("nearBooks", "func(near, x, scales *float32, groups int, levels, edges *float32)",
		"nearBooks"+v.name+" finds the nearest of 16 levels for groups of 16 values divided by their scales.")
	to, x, scales, n := param("near"), param("x"), param("scales"), param("groups")
	b := v.book(param("levels"), param("edges"))
	loop("group", n, func() {
		for i, near := range b.nearest(x, v.broadcast(Mem{Base: scales})) {
			VMOVUPS(near, Mem{Base: to, Disp: 32 * i})
		}
		ADDQ(U8(4), scales)
		ADDQ(U8(64), x)
		ADDQ(U8(64), to)
	})
	VZEROUPPER()
	RET()
}

// fitScales finds the scales with which groups of levels are nearest to their values.
func (v isa) fitScales() {
	v.function("fitScales", "func(scales, x, near *float32, groups int)",
		"fitScales"+v.name+" fits the scales of levels of groups of 16 values.")
	scales, x, near, n := param("scales"), param("x"), param("near"), param("groups")
	least := v.constant(math.Float32bits(1e-8))
	loop("group", n, func() {
		levels := [2]VecVirtual{v.load(f32, Mem{Base: near}), v.load(f32, Mem{Base: near, Disp: 32})}
		values := [2]Op{Mem{Base: x}, Mem{Base: x, Disp: 32}}
		scale := fitted(v.lanesOf(values, levels), v.lanesOf([2]Op{levels[0], levels[1]}, levels), least)
		VMOVSS(scale, Mem{Base: scales})
		ADDQ(U8(4), scales)
		ADDQ(U8(64), x)
		ADDQ(U8(64), near)
	})
	VZEROUPPER()
	RET()
}

// lanesOf returns sums of two products in each of eight lanes.
func (v isa) lanesOf(x [2]Op, y [2]VecVirtual) VecVirtual {
	first, second := v.vec(), v.vec()
	VMULPS(x[0], y[0], first)
	VMULPS(x[1], y[1], second)
	VADDPS(second, first, first)
	return first
}

// fitted returns the quotient of two sums over lanes, which are added in order.
func fitted(above, below, least VecVirtual) Op {
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
	return sum
}

// book is 16 levels and the edges between them, eight to a register.
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

// edge returns an edge in all lanes.
func (b *book) edge(i int) VecVirtual { return b.broadcast(Mem{Base: b.between, Disp: 4 * i}) }

// nearest returns the levels nearest to the values at x divided by their scale. It
// bisects: the mask of a comparison, which is -1 where it holds, moves the place.
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

// pick returns the entries at a place in the lower or the upper half of a table.
func (b *book) pick(table [2]VecVirtual, upper, at VecVirtual) VecVirtual {
	low, high := b.vec(), b.vec()
	VPERMPS(table[0], at, low)
	VPERMPS(table[1], at, high)
	VBLENDVPS(upper, high, low, low)
	return low
}
