package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wholeLines writes the functions for lines through groups of whole numbers, of which
// a 32-bit lane has two of one group.
func (v isa) wholeLines() {
	v.wholeRows()
	v.placeLines()
	v.addWholeLines()
}

func (v isa) wholeRows() {
	v.function("wholeRows", "func(y *uint32, x, from, factor *float32, rows int)",
		"wholeRows"+v.name+" makes two rows of 16 values one row of whole numbers.")
	y, x, from, factor, rows := param("y"), param("x"), param("from"), param("factor"), param("rows")
	magic, low := v.constant(math.Float32bits(0x1.8p23)), v.constant(0xFFFF)
	v.columns(func(c column) {
		start, times := c.load(f32, c.at(from, 0)), c.load(f32, c.at(factor, 0))
		to, at, n := copied(y), copied(x), copied(rows)
		loop(c.label("whole"), n, func() {
			var row [2]VecVirtual
			for i := range row {
				row[i] = c.load(f32, c.at(at, i))
				VSUBPS(start, row[i], row[i])
				VMULPS(times, row[i], row[i])
				VADDPS(magic, row[i], row[i]) // its low bits are the whole number
			}
			c.and(low, row[0], row[0])
			VPSLLD(U8(16), row[1], row[1])
			c.or(row[0], row[1], row[0])
			VMOVUPS(row[0], c.at(to, 0))
			ADDQ(U8(4*lineLanes), to)
			ADDQ(U32(2*4*lineLanes), at)
		})
	})
}

func (v isa) placeLines() {
	v.function("placeLines", "func(place *uint32, line *float32, c *uint32)",
		"placeLines"+v.name+" rounds the lines of 16 groups to whole numbers.")
	place, line, m := param("place"), param("line"), param("c")
	number := func(x float32) VecVirtual { return v.constant(math.Float32bits(x)) }
	magic, one, least, most := number(0x1.8p23), number(1), number(-1<<12), number(1<<14+1<<12)
	low, sign := v.constant(0xFFFF), v.constant(1<<31)
	above, limit := v.broadcast(Mem{Base: m, Disp: 24}), v.broadcast(Mem{Base: m, Disp: 28})
	v.columns(func(c column) {
		from, factor, signs, size := c.load(f32, c.at(line, 0)), c.vec(), c.vec(), c.vec()
		VMAXPS(least, from, from)
		VMINPS(most, from, from)
		VDIVPS(c.at(line, 1), above, factor)
		c.and(sign, factor, signs)
		c.xor(signs, factor, size)
		VMAXPS(one, size, size)
		VMINPS(limit, size, size)
		c.or(signs, size, factor)
		for i, x := range []VecVirtual{from, factor} {
			pair := c.vec()
			VADDPS(magic, x, x)
			c.and(low, x, pair)
			high := c.vec()
			VPSLLD(U8(16), x, high)
			c.or(high, pair, pair)
			VMOVUPS(pair, c.at(place, i))
			VSUBPS(magic, x, x)
		}
		VDIVPS(factor, above, factor)
		VMOVUPS(from, c.at(line, 0))
		VMOVUPS(factor, c.at(line, 1))
	})
}

func (v isa) addWholeLines() {
	v.function("addWholeLines", "func(sums *float32, y, place, c *uint32, rows int)",
		"addWholeLines"+v.name+" adds up what the nearest codes leave of rows of 16 pairs of whole numbers.")
	sums, y, place, m, rows := param("sums"), param("y"), param("place"), param("c"), param("rows")
	lo, hi, half := v.broadcast(Mem{Base: m}), v.broadcast(Mem{Base: m, Disp: 4}), v.broadcast(Mem{Base: m, Disp: 8})
	shift := shiftCount(Mem{Base: m, Disp: 12})
	v.columns(func(c column) {
		from, factor := c.load(f32, c.at(place, 0)), c.load(f32, c.at(place, 1))
		var sum [5]VecVirtual
		for i := range sum {
			sum[i] = c.constant(0)
		}
		add := func(i int, a, b VecVirtual) {
			product := c.vec()
			VPMADDWD(a, b, product)
			VPADDD(product, sum[i], sum[i])
		}
		one := c.constant(1<<16 + 1)
		at, n := copied(y), copied(rows)
		loop(c.label("rows"), n, func() {
			t, q, r := c.load(f32, c.at(at, 0)), c.vec(), c.vec()
			VPSUBW(from, t, t)
			VPMULHRSW(factor, t, t)
			VPADDW(half, t, q)
			VPSRAW(shift, q, q)
			VPMAXSW(lo, q, q)
			VPMINSW(hi, q, q)
			VPSLLW(shift, q, r)
			VPSUBW(r, t, r)
			VPADDW(q, sum[0], sum[0]) // few enough for 16 bits
			add(1, q, q)
			add(2, r, one)
			add(3, r, r)
			add(4, r, q)
			ADDQ(U8(4*lineLanes), at)
		})
		VPMADDWD(one, sum[0], sum[0])
		unit, square := Mem{Base: m, Disp: 16}, Mem{Base: m, Disp: 20}
		for i, r := range sum {
			VCVTDQ2PS(r, r)
			switch i {
			case 2, 4:
				VMULPS(c.broadcast(unit), r, r)
			case 3:
				VMULPS(c.broadcast(square), r, r)
			}
			VADDPS(c.at(sums, i), r, r)
			VMOVUPS(r, c.at(sums, i))
		}
	})
}
