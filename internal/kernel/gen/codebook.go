package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// codebooks writes what codebooks of up to 16 levels need.
func (v isa) codebooks() {
	v.bookSums()
	v.bookCodes()
}

// bookLevels are the levels of a codebook, of which some may have no values.
const bookLevels = 16

const above = more // v is above a middle

// bookSums adds each value of a row to the sum of its level, in its lane, and
// counts those above each middle. Rows are as in rotations.
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

// bookSumsWide has all sums and counts in registers.
func (v isa) bookSumsWide(at func(base Register, i int) Mem, sums, counts, x, middles, rows Register) {
	sum, count := make([]VecVirtual, bookLevels), make([]VecVirtual, bookLevels-1)
	for i := range sum {
		sum[i] = v.load(f32, at(sums, i))
	}
	for i := range count {
		count[i] = v.load(f32, at(counts, i))
	}
	one := at(counts, bookLevels-1) // the last row of the counts is ones
	loop("row", rows, func() {
		value := v.load(f32, Mem{Base: x})
		over := K()
		VCMPPS(U8(above), at(middles, 0), value, over)
		first := K()
		KNOTW(over, first)
		VADDPS(value, sum[0], first, sum[0])
		VPADDD_BCST(one, count[0], over, count[0])
		for i := 1; i < bookLevels-1; i++ {
			next, in := K(), K()
			VCMPPS(U8(above), at(middles, i), value, next)
			KANDNW(over, next, in)
			VADDPS(value, sum[i], in, sum[i])
			VPADDD_BCST(one, count[i], next, count[i])
			over = next
		}
		VADDPS(value, sum[bookLevels-1], over, sum[bookLevels-1])
		ADDQ(U8(v.width()), x)
	})
	for i, r := range sum {
		VMOVUPS(r, at(sums, i))
	}
	for i, r := range count {
		VMOVUPS(r, at(counts, i))
	}
}

// bookSumsNarrow has them in memory, and adds zero to sums of other levels,
// which begin with a positive one and so stay as they are.
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

// bookCodes counts the middles below consecutive values.
func (v isa) bookCodes() {
	v.function("bookCodes", "func(codes *uint16, x *float32, steps int, middles *float32)",
		"bookCodes"+v.name+" counts for that many times 16 values which of 15 middles are below each.")
	codes, x, n, middles := param("codes"), param("x"), param("steps"), param("middles")
	low := v.constant(0xFFFF)
	var all []VecVirtual
	if v.wide {
		for i := range bookLevels - 1 {
			all = append(all, v.broadcast(Mem{Base: middles, Disp: 4 * i}))
		}
	}
	one := v.constant(1)
	v.each(n, func(i int) {
		value, code := v.load(f32, Mem{Base: x, Disp: 4 * i}), v.vec()
		v.xor(code, code, code)
		for j := range bookLevels - 1 {
			if v.wide {
				k := K()
				VCMPPS(U8(above), all[j], value, k)
				VPADDD(one, code, k, code)
				continue
			}
			mask := v.broadcast(Mem{Base: middles, Disp: 4 * j})
			VCMPPS(U8(above), mask, value, mask)
			VPSUBD(mask, code, code)
		}
		v.storeWords(code, Mem{Base: codes, Disp: 2 * i}, low)
	}, pointer{codes, 2}, pointer{x, 4})
	VZEROUPPER()
	RET()
}
