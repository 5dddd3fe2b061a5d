package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The bits of floats, negative ones with all but the sign turned over, are
// whole numbers in the same order, -0 before +0 and NaN outside the
// infinities. So minimum and maximum are those of whole numbers, and show a
// NaN.

// keys gives floats their keys, or turns them back.
func (v isa) keys(raw form, x VecVirtual) {
	sign := v.vec()
	if raw == bf16 {
		VPSRAW(U8(15), x, sign)
		VPSRLW(U8(1), sign, sign)
	} else {
		VPSRAD(U8(31), x, sign)
		VPSRLD(U8(1), sign, sign)
	}
	v.xor(sign, x, x)
}

// join is how lanes are joined: by the least or greatest.
type join struct {
	words, doubles func(...Op)
	// flip makes the one that is looked for the least of unsigned words.
	flip uint16
}

var (
	least       = join{VPMINSW, VPMINSD, 0x8000}
	greatest    = join{VPMAXSW, VPMAXSD, 0x7FFF}
	greatestAbs = join{VPMAXUW, VPMAXUD, 0xFFFF}
)

func (j join) of(raw form) func(...Op) {
	if raw == bf16 {
		return j.words
	}
	return j.doubles
}

// raws loads 16 values as they are; where they fill half a vector, twice.
func (v isa) raws(raw form, at Register) []VecVirtual {
	var all []VecVirtual
	for i := 0; i < step*raw.size; i += v.width() {
		r, m := v.vec(), Mem{Base: at, Disp: i}
		if v.wide && raw == bf16 {
			VBROADCASTI64X4(m, r)
		} else {
			v.loadWhole(m, r)
		}
		all = append(all, r)
	}
	return all
}

// whole loads a vector of values as they are.
func (v isa) whole(at Register) VecVirtual {
	r := v.vec()
	v.loadWhole(Mem{Base: at}, r)
	return r
}

// groups runs body for every group with its values, vector by vector, and then
// done. raw groups are of whole steps.
func (v isa) groups(raw form, src, count, size Register, begin func(), body func(x VecVirtual), done func()) {
	perVector := v.width() / raw.size // values
	loop("group", count, func() {
		begin()
		turns, rest := copied(size), copied(size)
		if perVector > step {
			SHRQ(U8(1), turns)
			ANDQ(U8(1), rest)
		}
		loop("turn", turns, func() {
			for i := 0; i < max(1, step/perVector); i++ {
				body(v.whole(src))
				ADDQ(U8(v.width()), src)
			}
		})
		if perVector > step {
			TESTQ(rest, rest)
			JZ(LabelRef("even"))
			body(v.raws(raw, src)[0])
			ADDQ(U8(step*raw.size), src)
			Label("even")
		}
		done()
	})
}

// fold joins the lanes of x into the first. Of words, one instruction finds the
// least; flip is what it takes to look for another.
func (v isa) fold(raw form, j join, flip, x VecVirtual) {
	other, join := v.vec(), j.of(raw)
	if v.wide {
		VEXTRACTI64X4(U8(1), x, other.AsY())
		join(other.AsY(), x.AsY(), x.AsY())
	}
	VEXTRACTI128(U8(1), x.AsY(), other.AsX())
	a, b := x.AsX(), other.AsX()
	join(b, a, a)
	if raw == bf16 {
		VPXOR(flip.AsX(), a, a)
		VPHMINPOSUW(a, a)
		VPXOR(flip.AsX(), a, a)
		return
	}
	VPSHUFD(U8(0x4E), a, b)
	join(b, a, a)
	VPSHUFD(U8(0xB1), a, b)
	join(b, a, a)
}

// storeFirst writes the first lane of x, widened.
func storeFirst(raw form, x VecVirtual, to Mem) {
	if raw == bf16 {
		VPSLLD(U8(16), x.AsX(), x.AsX())
	}
	VMOVD(x.AsX(), to)
}

func (v isa) ranges(raw form) {
	v.function("ranges"+raw.name, "func(lo, hi *float32, src *byte, groups, steps int)",
		described("ranges%s%s sets the least and greatest value of groups of that many times 16.", raw.name, v.name),
		"Zeros of either sign are ordered; with a NaN, one result is.")
	lo, hi, src, groups, steps := param("lo"), param("hi"), param("src"), param("groups"), param("steps")
	lowest, highest := v.vec(), v.vec()
	flipLow, flipHigh := v.constant16(least.flip), v.constant16(greatest.flip)
	begin := func() {
		first := v.raws(raw, src)[0]
		v.keys(raw, first)
		v.move(first, lowest)
		v.move(first, highest)
	}
	v.groups(raw, src, groups, steps, begin, func(x VecVirtual) {
		v.keys(raw, x)
		least.of(raw)(x, lowest, lowest)
		greatest.of(raw)(x, highest, highest)
	}, func() {
		v.fold(raw, least, flipLow, lowest)
		v.fold(raw, greatest, flipHigh, highest)
		v.keys(raw, lowest)
		v.keys(raw, highest)
		storeFirst(raw, lowest, Mem{Base: lo})
		storeFirst(raw, highest, Mem{Base: hi})
		ADDQ(U8(4), lo)
		ADDQ(U8(4), hi)
	})
	VZEROUPPER()
	RET()
}

// signs reports whether ranges reach from below to above zero.
func (v isa) signs() {
	v.function("signs", "func(lo, hi *float32, steps int) bool",
		"signs"+v.name+" reports whether that many times 16 ranges go from below zero to above it, with no NaN.")
	lo, hi, n := param("lo"), param("hi"), param("steps")
	zero, all := v.constant(0), v.constant(1<<32-1)
	loop("turn", n, func() {
		for i := 0; i < step; i += v.width() / 4 {
			v.keep(less, zero, v.load(f32, Mem{Base: lo, Disp: 4 * i}), all)
			v.keep(more, zero, v.load(f32, Mem{Base: hi, Disp: 4 * i}), all)
		}
		ADDQ(U8(4*step), lo)
		ADDQ(U8(4*step), hi)
	})
	Store(v.nonzero(all), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func (v isa) move(from, to VecVirtual) {
	if v.wide {
		VMOVDQA32(from, to)
	} else {
		VMOVDQA(from, to)
	}
}

func (v isa) absMax(raw form) {
	v.function("absMax"+raw.name, "func(amax *float32, src *byte, groups, steps int)",
		described("absMax%s%s sets the greatest magnitude of groups of that many times 16, a NaN being the greatest.", raw.name, v.name))
	amax, src, groups, steps := param("amax"), param("src"), param("groups"), param("steps")
	highest, mask, flip := v.vec(), v.constant(0x7FFFFFFF), v.constant16(greatestAbs.flip)
	if raw == bf16 {
		mask = v.constant16(0x7FFF)
	}
	v.groups(raw, src, groups, steps, func() { v.xor(highest, highest, highest) }, func(x VecVirtual) {
		v.and(mask, x, x)
		greatestAbs.of(raw)(x, highest, highest)
	}, func() {
		v.fold(raw, greatestAbs, flip, highest)
		storeFirst(raw, highest, Mem{Base: amax})
		ADDQ(U8(4), amax)
	})
	VZEROUPPER()
	RET()
}
