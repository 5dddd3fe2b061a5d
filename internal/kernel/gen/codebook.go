package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// codebooks writes the functions for codebooks of up to 16 levels.
func (v isa) codebooks() {
	v.bookSums()
	v.bookMeans()
	v.bookCodes()
}

// bookLevels is the number of levels of a codebook, some of which may have no values.
const bookLevels = 16

const above = more // v is above a middle

// bookSums adds each value of a row to the sum of its level, in its lane, and counts
// the values above each middle. Rows are as in rotations.
func (v isa) bookSums() {
	v.function("bookSums", "func(sums *float32, counts *uint32, x, middles *float32, rows int)",
		described("bookSums%s adds up rows of %d lanes by 16 levels, and counts the values above 15 middles.", v.name, v.lanes()))
	sums, counts, x, middles, rows := param("sums"), param("counts"), param("x"), param("middles"), param("rows")
	at := func(base Register, i int) Mem { return Mem{Base: base, Disp: i * v.width()} }
	if v.wide {
		v.bookSumsWide(at, sums, counts, x, middles, rows)
	} else {
		v.bookSumsNarrow(at, sums, counts, x, middles, rows)
	}
	VZEROUPPER()
	RET()
}

// bookSumsWide keeps all sums and counts in registers. Two counts share one, so there
// must be fewer than 2^16 rows.
func (v isa) bookSumsWide(at func(base Register, i int) Mem, sums, counts, x, middles, rows Register) {
	const pairs, held = bookLevels / 2, 5
	one := [2]VecVirtual{v.constant(1), v.constant(1 << 16)}
	var sum, count, near []VecVirtual
	for i := range bookLevels {
		sum = append(sum, v.load(f32, at(sums, i)))
	}
	for range pairs {
		count = append(count, v.constant(0))
	}
	for i := range held {
		near = append(near, v.load(f32, at(middles, i)))
	}
	loop("row", rows, func() {
		value := v.load(f32, Mem{Base: x})
		var over Op
		for i := range bookLevels - 1 {
			next, in := K(), K()
			if i < held {
				VCMPPS(U8(above), near[i], value, next)
			} else {
				VCMPPS(U8(above), at(middles, i), value, next)
			}
			if i == 0 {
				KNOTW(next, in)
			} else {
				KANDNW(over, next, in)
			}
			VADDPS(value, sum[i], in, sum[i])
			VPADDD(one[i/pairs], count[i%pairs], next, count[i%pairs])
			over = next
		}
		VADDPS(value, sum[bookLevels-1], over, sum[bookLevels-1])
		ADDQ(U8(v.width()), x)
	})
	for i, r := range sum {
		VMOVUPS(r, at(sums, i))
	}
	low := v.constant(0xFFFF)
	for i := range bookLevels - 1 {
		r := v.vec()
		if i < pairs {
			v.and(low, count[i], r)
		} else {
			VPSRLD(U8(16), count[i-pairs], r)
		}
		VPADDD(at(counts, i), r, r)
		VMOVDQU32(r, at(counts, i))
	}
}

// bookSumsNarrow keeps them in memory. It adds zero to the sums of all other levels,
// which does not change them, because they begin with a positive zero.
func (v isa) bookSumsNarrow(at func(base Register, i int) Mem, sums, counts, x, middles, rows Register) {
	loop("row", rows, func() {
		value, over := v.load(f32, Mem{Base: x}), v.vec()
		add := func(mask VecVirtual, i int) {
			VANDPS(value, mask, mask)
			VADDPS(at(sums, i), mask, mask)
			VMOVUPS(mask, at(sums, i))
		}
		VPCMPEQD(over, over, over)
		for i := range bookLevels - 1 {
			next, in := v.vec(), v.vec()
			VCMPPS(U8(above), at(middles, i), value, next)
			VANDNPS(over, next, in)
			add(in, i)
			total := v.load(f32, at(counts, i))
			VPSUBD(next, total, total)
			VMOVUPS(total, at(counts, i))
			over = next
		}
		add(over, bookLevels-1)
		ADDQ(U8(v.width()), x)
	})
}

// bookMeans moves the levels that have values, and sets middles to the midpoints of
// neighbouring levels.
func (v isa) bookMeans() {
	v.function("bookMeans", "func(levels, middles, sums *float32, counts *uint32, rows uint32) (moved, unordered uint32)",
		"bookMeans"+v.name+" moves levels to means, and returns bits for the lanes in which one moved, and in which they no longer ascend.")
	levels, middles, sums, counts := param("levels"), param("middles"), param("sums"), param("counts")
	at := func(base Register, i int) Mem { return Mem{Base: base, Disp: i * v.width()} }
	from := v.constantParam("rows") // how many values are not below the level
	zero, half, ones := v.constant(0), v.constant(0x3F000000), v.constant(1<<32-1)
	moved, ordered := v.constant(0), v.constant(1<<32-1)
	var before VecVirtual
	for i := range bookLevels {
		cell, mean, other := v.vec(), v.load(f32, at(sums, i)), v.vec()
		above := zero
		if i < bookLevels-1 {
			above = v.load(f32, at(counts, i))
		}
		VPSUBD(above, from, cell)
		VCVTDQ2PS(cell, other)
		VDIVPS(other, mean, mean)
		old, level := v.load(f32, at(levels, i)), v.load(f32, at(levels, i))
		v.choose(v.above(cell, zero), mean, level)
		VMOVUPS(level, at(levels, i))
		v.xor(old, level, old)
		v.or(old, moved, moved)
		if i > 0 {
			v.keep(notBelow, before, level, ordered)
			VADDPS(before, level, before)
			VMULPS(half, before, before)
			VMOVUPS(before, at(middles, i-1))
		}
		before, from = level, above
	}
	mask := v.vec()
	v.xor(mask, mask, mask)
	v.choose(v.above(zero, moved), ones, mask) // compares bits, since only the sign of a zero may differ
	VPSRLD(U8(1), moved, moved)
	v.choose(v.above(moved, zero), ones, mask)
	Store(v.bits(mask), ReturnIndex(0))
	v.xor(ones, ordered, ordered)
	Store(v.bits(ordered), ReturnIndex(1))
	VZEROUPPER()
	RET()
}

// bookCodes counts the middles below consecutive values. AVX-512 holds the middles in a
// register and finds the place of a value by bisection.
func (v isa) bookCodes() {
	v.function("bookCodes", "func(codes *uint16, x *float32, steps int, middles *float32)",
		"bookCodes"+v.name+" counts for that many times 16 values which of 15 middles, which ascend, are below each.")
	codes, x, n, middles := param("codes"), param("x"), param("steps"), param("middles")
	count, low := v.countBelow(middles), v.constant(0xFFFF)
	if v.wide {
		count = v.searchBelow(middles)
	}
	v.each(n, func(i int) {
		v.storeWords(count(v.load(f32, Mem{Base: x, Disp: 4 * i})), Mem{Base: codes, Disp: 2 * i}, low)
	}, pointer{codes, 2}, pointer{x, 4})
	VZEROUPPER()
	RET()
}

func (v isa) countBelow(middles Register) func(value VecVirtual) VecVirtual {
	return func(value VecVirtual) VecVirtual {
		code := v.vec()
		v.xor(code, code, code)
		for j := range bookLevels - 1 {
			mask := v.broadcast(Mem{Base: middles, Disp: 4 * j})
			VCMPPS(U8(above), mask, value, mask)
			VPSUBD(mask, code, code)
		}
		return code
	}
}

// searchBelow bisects: it compares a value with the middle that is 8, 4, 2 and 1 places
// after the code so far, less one.
func (v isa) searchBelow(middles Register) func(value VecVirtual) VecVirtual {
	first := v.broadcast(Mem{Base: middles, Disp: 4 * (bookLevels/2 - 1)})
	all, steps, ahead := v.vec(), []VecVirtual{}, []VecVirtual{}
	fifteen := v.chosen(0x7FFF)
	VMOVUPS_Z(Mem{Base: middles}, fifteen, all)
	for s := bookLevels / 2; s > 0; s /= 2 {
		steps = append(steps, v.constant(uint32(s)))
		table := v.vec()
		VALIGND(U8(uint8(s-1)), all, all, table)
		ahead = append(ahead, table)
	}
	return func(value VecVirtual) VecVirtual {
		code, k := v.vec(), K()
		VCMPPS(U8(above), first, value, k)
		VMOVDQA32_Z(steps[0], k, code)
		for i := range steps[1:] {
			middle, k := v.vec(), K()
			VPERMPS(ahead[i+1], code, middle)
			VCMPPS(U8(above), middle, value, k)
			VPADDD(steps[i+1], code, k, code)
		}
		return code
	}
}
