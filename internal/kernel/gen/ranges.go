package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The bits of floats, negative ones with all but the sign turned over, are
// whole numbers in the same order, -0 before +0 and NaN outside the
// infinities. So minimum and maximum are those of whole numbers, and show a
// NaN.

// keys returns code that turns floats into keys, or keys back into floats.
func (v isa) keys(raw form) func(x VecVirtual) {
	magnitude := v.magnitudes(raw)
	return func(x VecVirtual) {
		sign := v.vec()
		if raw == bf16 {
			VPSRAW(U8(15), x, sign)
		} else {
			VPSRAD(U8(31), x, sign)
		}
		if v.wide {
			VPTERNLOGD(U8(0x78), magnitude, sign, x) // x xor (sign and magnitude)
			return
		}
		VPAND(magnitude, sign, sign)
		VPXOR(sign, x, x)
	}
}

// magnitudes returns a mask of the bits of magnitudes.
func (v isa) magnitudes(raw form) VecVirtual { return v.filled(raw, 0x7FFF, 0x7FFFFFFF) }

// filled returns a vector filled with a value as wide as those of the form.
func (v isa) filled(raw form, word uint16, double uint32) VecVirtual {
	if raw == bf16 {
		return v.constant16(word)
	}
	return v.constant(double)
}

// join says how lanes are joined: by the least or the greatest.
type join struct {
	words, doubles func(...Op)
	// flip turns the wanted extreme into the least of unsigned words.
	flip uint16
	// the key that loses against any other, as a word and as a double word
	noWord   uint16
	noDouble uint32
}

var (
	least       = join{VPMINSW, VPMINSD, 0x8000, 0x7FFF, 0x7FFFFFFF}
	greatest    = join{VPMAXSW, VPMAXSD, 0x7FFF, 0x8000, 0x80000000}
	greatestAbs = join{VPMAXUW, VPMAXUD, 0xFFFF, 0, 0}
)

func (j join) of(raw form) func(...Op) {
	if raw == bf16 {
		return j.words
	}
	return j.doubles
}

// extreme is one of the results for each group.
type extreme struct {
	join
	found, none, flip VecVirtual
	to                Register
}

func (v isa) extreme(raw form, j join, to Register) *extreme {
	return &extreme{j, v.vec(), v.filled(raw, j.noWord, j.noDouble), v.constant16(j.flip), to}
}

// extremes finds the extremes of groups. keys turns values into what is joined, values
// turns results back. It keeps a vector of results for each group, and folds as many
// groups together as one vector has room for.
type extremes struct {
	isa
	raw          form
	src          Register
	keys, values func(x VecVirtual)
	of           []*extreme
	high         VecVirtual // mask of the upper of two words
}

// many returns the number of groups that are folded together.
func (e *extremes) many() int { return e.width() / 4 }

// find finds the extremes of groups that consist of whole steps.
func (e *extremes) find(groups, steps Register) {
	turns, whole, rest, kept := copied(groups), copied(steps), copied(steps), e.memory(len(e.of)*e.many())
	e.high = e.constant(0xFFFF0000)
	SHRQ(U8(bits.Len(uint(e.many()))-1), turns)
	ANDQ(U8(e.many()-1), groups)
	perVector := e.width() / e.raw.size / step // steps per vector
	if perVector > 1 {
		SHRQ(U8(1), whole)
		ANDQ(U8(1), rest)
	}
	loop("many", turns, func() {
		for _, few := range []int{1, 2, 4} {
			e.few(few, steps, kept)
		}
		e.keep("all", kept, func(group string) { e.group(group, perVector, whole, rest) })
		Label("fold")
		e.foldAll(kept)
	})
	loop("group", groups, func() {
		e.group("one", perVector, whole, rest)
		e.foldOne()
	})
	VZEROUPPER()
	RET()
}

// keep runs body for many groups, and stores what it finds for each.
func (e *extremes) keep(name string, kept Register, body func(group string)) {
	at, n := copied(kept), GP64()
	MOVQ(U32(e.many()), n)
	Label(name)
	body(name + "Group")
	for i, x := range e.of {
		e.storeWhole(x.found, Mem{Base: at, Disp: i * e.many() * e.width()})
	}
	ADDQ(U8(e.width()), at)
	DECQ(n)
	JNZ(LabelRef(name))
}

// few is keep without a loop inside each group, if a group has n steps.
func (e *extremes) few(n int, steps, kept Register) {
	name := described("few%d", n)
	CMPQ(steps, U8(n))
	JNE(LabelRef(name + "Not"))
	e.keep(name, kept, func(string) {
		for i, x := range e.load(n * step) {
			e.add(x, i == 0)
		}
	})
	JMP(LabelRef("fold"))
	Label(name + "Not")
}

// load loads raw values and moves the pointer on. If they fill only half a vector, they
// are loaded twice.
func (e *extremes) load(values int) []VecVirtual {
	var all []VecVirtual
	size := values * e.raw.size
	for i := 0; i < size; i += e.width() {
		r, m := e.vec(), Mem{Base: e.src, Disp: i}
		if size < e.width() {
			VBROADCASTI64X4(m, r)
		} else {
			e.loadWhole(m, r)
		}
		all = append(all, r)
	}
	ADDQ(U32(size), e.src)
	return all
}

// add joins values with the results so far, and overwrites the values. The first values
// are the results.
func (e *extremes) add(x VecVirtual, first bool) {
	e.keys(x)
	for _, of := range e.of {
		if first {
			e.move(x, of.found)
		} else {
			of.join.of(e.raw)(x, of.found, of.found)
		}
	}
}

// group finds the extremes of a group, lane by lane.
func (e *extremes) group(name string, perVector int, whole, rest Register) {
	for _, of := range e.of {
		e.move(of.none, of.found)
	}
	loop(name, copied(whole), func() {
		for _, x := range e.load(max(perVector, 1) * step) {
			e.add(x, false)
		}
	})
	if perVector > 1 {
		TESTQ(rest, rest)
		JZ(LabelRef(name + "Even"))
		e.add(e.load(step)[0], false)
		Label(name + "Even")
	}
}

// foldOne writes the results of a group.
func (e *extremes) foldOne() {
	for _, of := range e.of {
		e.fold(e.raw, of.join, of.flip, of.found)
		e.values(of.found)
		storeFirst(e.raw, of.found, Mem{Base: of.to})
		ADDQ(U8(4), of.to)
	}
}

// foldAll writes the results of all groups that were kept.
func (e *extremes) foldAll(kept Register) {
	for i, of := range e.of {
		at := Mem{Base: kept, Disp: i * e.many() * e.width()}
		x := e.tree(of.join.of(e.raw), at, bits.Len(uint(e.many()))-1)
		if e.raw == bf16 {
			low := e.vec()
			VPSLLD(U8(16), x, low)
			of.words(low, x, x)
		}
		if e.values(x); e.raw == bf16 {
			e.and(e.high, x, x)
		}
		e.storeWhole(x, Mem{Base: of.to})
		ADDQ(U8(e.width()), of.to)
	}
}

// tree folds 2^level vectors. Of every four lanes of 32 bits (or of every level lanes),
// the first becomes the result of the first vector, and so on.
func (e *extremes) tree(join func(...Op), at Mem, level int) VecVirtual {
	if level == 0 {
		x := e.vec()
		e.loadWhole(at, x)
		return x
	}
	a := e.tree(join, at, level-1)
	b := e.tree(join, at.Offset(e.width()<<(level-1)), level-1)
	low := e.vec()
	switch {
	case level == 1:
		VPUNPCKLDQ(b, a, low)
		VPUNPCKHDQ(b, a, a)
	case level == 2:
		VPUNPCKLQDQ(b, a, low)
		VPUNPCKHQDQ(b, a, a)
	case e.wide:
		VSHUFI64X2(U8(0x88), b, a, low) // even parts of 128 bits
		VSHUFI64X2(U8(0xDD), b, a, a)
	default:
		VPERM2I128(U8(0x20), b, a, low)
		VPERM2I128(U8(0x31), b, a, a)
	}
	join(low, a, a)
	return a
}

// fold joins the lanes of x into the first. For words, one instruction finds the least;
// flip makes it find another extreme.
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
	v.search("ranges"+raw.name, "func(lo, hi *float32, src *byte, groups, steps int)",
		described("ranges%s%s sets the least and greatest value of groups of that many times 16.", raw.name, v.name),
		"Zeros of either sign are ordered; with a NaN, one result is.")
	keys := v.keys(raw)
	e := &extremes{isa: v, raw: raw, src: param("src"), keys: keys, values: keys}
	e.of = []*extreme{v.extreme(raw, least, param("lo")), v.extreme(raw, greatest, param("hi"))}
	e.find(param("groups"), param("steps"))
}

// search begins a function that needs more stack than every caller is sure to have.
func (v isa) search(name, signature string, doc ...string) {
	v.begin(name, 0, signature, doc)
}

func (v isa) absMax(raw form) {
	v.search("absMax"+raw.name, "func(amax *float32, src *byte, groups, steps int)",
		described("absMax%s%s sets the greatest magnitude of groups of that many times 16, a NaN being the greatest.", raw.name, v.name))
	mask := v.magnitudes(raw)
	e := &extremes{isa: v, raw: raw, src: param("src")}
	e.keys, e.values = func(x VecVirtual) { v.and(mask, x, x) }, func(VecVirtual) {}
	e.of = []*extreme{v.extreme(raw, greatestAbs, param("amax"))}
	e.find(param("groups"), param("steps"))
}

// signs reports whether ranges reach from below zero to above it.
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
