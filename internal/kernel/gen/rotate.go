package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Rotations work on as many groups at a time as a vector has lanes. Value k of
// all of them is row k: a vector. So no step goes across lanes.

// rotations writes the functions for rotations.
func (v isa) rotations() {
	v.interleave()
	v.deinterleave()
	v.beginSingles()
	v.exactProducts()
	fours := func(k, j int) bool { return bits.OnesCount(uint((k^j)&((k^j)>>1)&5))&1 == 1 }
	v.chain("chainFours", fours)
	v.chainSums(fours)
	v.chain("chainTwos", func(k, j int) bool { return bits.OnesCount(uint(k&j))&1 == 1 })
	v.narrowRows()
	for _, t := range []arithmetic{single, double} {
		v.pass4(t)
		if v.wide {
			v.pass16(t)
		}
	}
	if v.wide {
		v.beginDoubles()
		v.endDoubles()
		v.rotateInts("rotateInts", false)
		v.rotateInts("rotateChainInts", true)
		v.rotateLevels()
		v.rotateSplitInts()
		v.rotateCodes("rotateCodes", withErrors, joined)
		v.rotateCodes("rotateCodesBF16", roundedProducts, wholeSums)
	} else {
		v.widenRows()
	}
}

// blockRows is how many rows are processed at once.
const blockRows = 16

// lanes returns how many groups are rotated at a time.
func (v isa) lanes() int { return v.width() / 4 }

// interleave turns groups into rows.
func (v isa) interleave() {
	v.function("interleave", "func(dst, src *float32, stride, blocks int)",
		described("interleave%s makes 16 rows a block of %d groups that lie stride bytes apart.", v.name, v.lanes()))
	dst, src, stride, blocks := param("dst"), param("src"), param("stride"), param("blocks")
	v.eachBlock(dst, src, stride, blocks, func([]VecVirtual) {})
	VZEROUPPER()
	RET()
}

// eachBlock gathers rows of blocks, as many at a time as there are lanes, and calls do
// with them.
func (v isa) eachBlock(dst, src, stride, blocks Register, do func(y []VecVirtual)) {
	loop("block", blocks, func() {
		for i := 0; i < blockRows; i += v.lanes() {
			y := v.gathered(src, stride, i)
			do(y)
			for k, row := range y {
				VMOVUPS(row, Mem{Base: dst, Disp: (i + k) * v.width()})
			}
		}
		ADDQ(U8(4*blockRows), src)
		ADDQ(U32(uint32(blockRows*v.width())), dst)
	})
}

// gathered returns as many rows as there are lanes, from row i on, of groups that lie
// stride bytes apart.
func (v isa) gathered(src, stride Register, i int) []VecVirtual {
	at := copied(src)
	var groups []VecVirtual
	for range v.lanes() {
		groups = append(groups, v.load(f32, Mem{Base: at, Disp: 4 * i}))
		ADDQ(stride, at)
	}
	return v.transposed(groups)
}

// deinterleave is the inverse of interleave. In the same step it multiplies by a
// factor, which must be exact, and adds zero, which makes a negative zero positive.
func (v isa) deinterleave() {
	v.function("deinterleave", "func(dst, src *float32, stride, blocks int, signs *uint32, factor float32)",
		described("deinterleave%s is the way back, and multiplies each block by the factor, its sign turned by xor.", v.name))
	dst, src, stride, blocks, signs := param("dst"), param("src"), param("stride"), param("blocks"), param("signs")
	all, zero, factor := v.constantParam("factor"), v.constant(0), v.vec()
	loop("block", blocks, func() {
		VBROADCASTSS(Mem{Base: signs}, factor)
		v.xor(all, factor, factor)
		for i := 0; i < blockRows; i += v.lanes() {
			var rows []VecVirtual
			for k := range v.lanes() {
				row := v.load(f32, Mem{Base: src, Disp: (i + k) * v.width()})
				VFMADD213PS(zero, factor, row)
				rows = append(rows, row)
			}
			at := copied(dst)
			for _, group := range v.transposed(rows) {
				VMOVUPS(group, Mem{Base: at, Disp: 4 * i})
				ADDQ(stride, at)
			}
		}
		ADDQ(U8(4), signs)
		ADDQ(U8(4*blockRows), dst)
		ADDQ(U32(uint32(blockRows*v.width())), src)
	})
	VZEROUPPER()
	RET()
}

// transposed returns the columns of a square of values. It first transposes within
// quarters of 128 bits, then the quarters.
func (v isa) transposed(rows []VecVirtual) []VecVirtual {
	n := len(rows)
	pairs, quads, columns := make([]VecVirtual, n), make([]VecVirtual, n), make([]VecVirtual, n)
	for i := 0; i < n; i += 2 {
		pairs[i], pairs[i+1] = v.vec(), v.vec()
		VUNPCKLPS(rows[i+1], rows[i], pairs[i])
		VUNPCKHPS(rows[i+1], rows[i], pairs[i+1])
	}
	for i := 0; i < n; i += 4 {
		for c := range 4 {
			quads[i+c] = v.vec()
			if c%2 == 0 {
				VUNPCKLPD(pairs[i+2+c/2], pairs[i+c/2], quads[i+c])
			} else {
				VUNPCKHPD(pairs[i+2+c/2], pairs[i+c/2], quads[i+c])
			}
		}
	}
	for c := range 4 {
		for i := range n / 4 {
			columns[4*i+c] = v.vec()
		}
		if !v.wide {
			v.halves(quads[c], quads[4+c], columns[c], columns[4+c])
			continue
		}
		half := func(imm uint8, i int) VecVirtual {
			r := v.vec()
			VSHUFF32X4(U8(imm), quads[4*i+4+c], quads[4*i+c], r)
			return r
		}
		for i, imm := range []uint8{0x44, 0xEE} { // quarters 0 and 1, 2 and 3
			low, high := half(imm, 0), half(imm, 2)
			VSHUFF32X4(U8(0x88), high, low, columns[8*i+c])
			VSHUFF32X4(U8(0xDD), high, low, columns[8*i+4+c])
		}
	}
	return columns
}

// halves joins the low halves of two vectors of 256 bits, and their high halves.
func (v isa) halves(a, b, low, high VecVirtual) {
	if v.half256 { // the registers may be ones that only AVX-512 has
		VSHUFF32X4(U8(0), b, a, low)
		VSHUFF32X4(U8(3), b, a, high)
		return
	}
	VPERM2F128(U8(0x20), b, a, low)
	VPERM2F128(U8(0x31), b, a, high)
}

// beginSingles gathers rows, does the first stage of butterflies, or in AVX-512
// two, and tells the lanes in which every sum of the chain is exact.
//
// Let all values be multiples of a unit; sums are too, and exact if they are
// 2^24 units at most, and if the unit times the entry is not below the least
// number. A sum of the chain for output j, of any number of rows, is that of
// whole blocks of four rows and of a part of one. A whole block gives ± its own
// butterfly's value number j mod 4, a part no more than the block's magnitudes:
//
//	|sum| ≤ max over q < 4 of Σ over blocks |butterfly q| + max over blocks Σ |x|
//
// where butterflies, and sums of some of them, are within that bound as well.
// That it is itself rounded, by 2^-24 of it or less for each of up to 2^13
// additions, is what 0.99 allows for.
func (v isa) beginSingles() {
	v.function("beginSingles", "func(dst, src *float32, stride, blocks int, least float32) (sums uint32)",
		described("beginSingles%s makes rows as interleave%s does and multiplies each %d by the matrix of ±1.", v.name, v.name, v.first()),
		"It returns bits for the lanes in which all sums of the chain are exact, where the unit must be least or more.")
	dst, src, stride, blocks := param("dst"), param("src"), param("stride"), param("blocks")
	var b *bound
	if v.wide {
		b = v.newBound()
		v.eachBlock(dst, src, stride, blocks, func(y []VecVirtual) {
			for j := 0; j < len(y); j += 4 {
				b.four(y[j : j+4])
			}
			v.acrossFours(single, b.one, y)
		})
	} else { // AVX2 has too few registers for both
		x, fours := copied(dst), copied(blocks)
		SHLQ(U8(2), fours)
		v.eachBlock(dst, src, stride, blocks, func([]VecVirtual) {})
		b = v.newBound()
		v.eachFour(x, fours, b.four)
	}
	Store(v.bits(b.holds(v.constantParam("least"))), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// first returns how many rows the first passes multiply.
func (v isa) first() int {
	if v.wide {
		return blockRows
	}
	return 4
}

// eachFour calls do for every four rows.
func (v isa) eachFour(x, n Register, do func(y []VecVirtual)) {
	loop("four", n, func() {
		var y []VecVirtual
		for i := range 4 {
			y = append(y, v.load(f32, Mem{Base: x, Disp: i * v.width()}))
		}
		do(y)
		for i, row := range y {
			VMOVUPS(row, Mem{Base: x, Disp: i * v.width()})
		}
		ADDQ(U32(uint32(4*v.width())), x)
	})
}

// bound collects what sums are compared with.
type bound struct {
	isa
	magnitude, minusOne VecVirtual
	one                 VecVirtual
	unit                VecVirtual    // the least so far, as bits minus 1, which makes zero, which has none, the greatest
	part                VecVirtual    // the greatest of Σ |x|
	blocks              [4]VecVirtual // Σ |butterfly q|
}

func (v isa) newBound() *bound {
	b := &bound{
		isa: v, magnitude: v.constant(1<<31 - 1), minusOne: v.constant(1<<32 - 1), one: single.one(v),
		unit: v.constant(1<<32 - 1), part: v.constant(0),
	}
	for q := range b.blocks {
		b.blocks[q] = v.constant(0)
	}
	return b
}

// four takes a block of four rows into account, then multiplies it. To find a number's
// unit it clears the lowest set bit: the difference is that bit, exactly. For a power
// of 2 that clears a bit of the exponent, and the difference lies between half the
// number and all of it; at worst a group is then not taken for exact. NaN has the
// greatest bits of all, and stays.
func (b *bound) four(y []VecVirtual) {
	sum := b.vec()
	for i, row := range y {
		m, t := b.vec(), b.vec()
		b.and(b.magnitude, row, m)
		if i == 0 {
			b.move(m, sum)
		} else {
			VADDPS(m, sum, sum)
		}
		VPADDD(b.minusOne, m, t)
		b.and(m, t, t)
		VSUBPS(t, m, t)
		VPADDD(b.minusOne, t, t)
		VPMINUD(t, b.unit, b.unit)
	}
	VPMAXUD(sum, b.part, b.part)
	b.isa.four(single, b.one, y)
	for q, h := range y {
		m := b.vec()
		b.and(b.magnitude, h, m)
		VADDPS(m, b.blocks[q], b.blocks[q])
	}
}

// holds returns a mask of the lanes in which sums are exact.
func (b *bound) holds(least VecVirtual) VecVirtual {
	most, all := b.blocks[0], b.constant(1<<32-1)
	for _, other := range b.blocks[1:] {
		VPMAXUD(other, most, most)
	}
	VADDPS(b.part, most, most)
	VPMINUD(b.constant((127+100)<<23), b.unit, b.unit) // so that 2^24 units are a finite number
	VPSUBD(b.minusOne, b.unit, b.unit)
	b.keep(notAbove, b.unit, least, all)
	VMULPS(b.constant(0x3F7D70A4+24<<23), b.unit, b.unit) // 0.99 · 2^24
	b.keep(notAbove, b.unit, most, all)
	return all
}

// exactProducts multiplies rows by the entry and returns the lanes in which that is
// exact, because no value but zero is below least.
func (v isa) exactProducts() {
	v.function("products", "func(x *float32, rows int, entry, least float32) (exact uint32)",
		described("products%s multiplies rows by the entry and returns bits for the lanes in which no value but zero is below least.", v.name))
	x, rows := param("x"), param("rows")
	entry, least := v.constantParam("entry"), v.constantParam("least")
	magnitude, minusOne, lowest := v.constant(1<<31-1), v.constant(1<<32-1), v.constant(1<<32-1)
	loop("row", rows, func() {
		m := Mem{Base: x}
		p, y := v.load(f32, m), v.vec()
		v.and(magnitude, p, y)
		VPADDD(minusOne, y, y)
		VPMINUD(y, lowest, lowest)
		VMULPS(entry, p, p)
		VMOVUPS(p, m)
		ADDQ(U32(uint32(v.width())), x)
	})
	all := v.constant(1<<32 - 1)
	VPMINUD(v.constant(127<<23), lowest, lowest) // in case all are zeros, or NaN
	VPSUBD(minusOne, lowest, lowest)
	v.keep(notAbove, lowest, least, all)
	Store(v.bits(all), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// bits returns one bit for each lane.
func (v isa) bits(mask VecVirtual) Register {
	r := GP32()
	if v.wide {
		k := K()
		VPMOVD2M(mask, k)
		KMOVW(k, r)
	} else {
		VMOVMSKPS(mask, r)
	}
	return r
}

// chain adds 16 rows, times ±h, to 16 sums for every step of a list. Each addition is
// fused and rounds once. minus says which entries of the matrix are negative.
func (v isa) chain(name string, minus func(k, j int) bool) {
	v.chainSteps(name, "fused steps of x times h", "h", func(h, row VecVirtual, acc []VecVirtual, k, from int) {
		for j, a := range acc {
			if minus(k, from+j) {
				VFNMADD231PS(row, h, a)
			} else {
				VFMADD231PS(row, h, a)
			}
		}
	})
}

// chainSums is chain for rows that hold products. Half of the steps are additions, half
// are fused with a factor of ±1, so that both kinds of a processor's units have work.
func (v isa) chainSums(minus func(k, j int) bool) {
	var sign, one VecVirtual
	v.chainSteps("chainSums", "sums or differences of x, where one is 1", "one", func(h, row VecVirtual, acc []VecVirtual, k, from int) {
		if k == 0 {
			sign, one = v.vec(), v.constant(0x3F800000)
			v.xor(h, one, sign) // the sign of the matrix's block
		}
		v.xor(sign, row, row)
		for j, a := range acc {
			switch turned := minus(k, from+j); {
			case j%2 == 0 && turned:
				VFNMADD231PS(row, one, a)
			case j%2 == 0:
				VFMADD231PS(row, one, a)
			case turned:
				VSUBPS(row, a, a)
			default:
				VADDPS(row, a, a)
			}
		}
	})
}

// chainSteps runs a list of chainStep for as many rows of blocks as registers hold, and
// then for the others. add adds one row.
func (v isa) chainSteps(name, doc, factor string, add func(h, row VecVirtual, acc []VecVirtual, k, from int)) {
	v.function(name, "func(sums, x *float32, steps *int32, n int, "+factor+" float32)",
		described("%s%s goes through n of type chainStep, each 16 rows of sums and 16 %s.", name, v.name, doc))
	n := blockRows
	if !v.wide {
		n = blockRows / 2
	}
	for from := 0; from < blockRows; from += n {
		sums, x, steps, count := param("sums"), param("x"), param("steps"), param("n")
		all, h := v.constantParam(factor), v.vec()
		acc := make([]VecVirtual, n)
		for j := range acc {
			acc[j] = v.constant(0)
		}
		label := described("Of%d", from)
		loop("step"+label, count, func() {
			v.blockOf(sums, steps, chainSrc, chainLoad, "loaded"+label, func(j Mem, i int) { VMOVUPS(j, acc[i]) }, from, n)
			VBROADCASTSS(Mem{Base: steps, Disp: chainSign}, h)
			v.xor(all, h, h)
			row := v.blockAt(x, steps, chainRow)
			for k := range blockRows {
				add(h, v.load(f32, Mem{Base: row, Disp: k * v.width()}), acc, k, from)
			}
			v.blockOf(sums, steps, chainDst, chainStore, "stored"+label, func(j Mem, i int) { VMOVUPS(acc[i], j) }, from, n)
			ADDQ(U8(chainSize), steps)
		})
	}
	VZEROUPPER()
	RET()
}

// Offsets of the fields of chainStep.
const (
	chainDst, chainSrc, chainRow, chainSign = 0, 4, 8, 12
	chainLoad, chainStore                   = 16, 20
	chainSize                               = 24
)

// blockAt returns the address of the block of rows whose number is in a field of a
// step.
func (v isa) blockAt(x, step Register, field int) Register {
	at := GP64()
	MOVLQSX(Mem{Base: step, Disp: field}, at)
	IMUL3Q(U32(uint32(blockRows*v.width())), at, at)
	ADDQ(x, at)
	return at
}

// blockOf moves n rows, beginning at from, of the block whose number is in a field of a
// step, unless another field is zero.
func (v isa) blockOf(x, step Register, field, unless int, label string, move func(row Mem, i int), from, n int) {
	CMPL(Mem{Base: step, Disp: unless}, U8(0))
	JE(LabelRef(label))
	at := v.blockAt(x, step, field)
	for i := range n {
		move(Mem{Base: at, Disp: (from + i) * v.width()}, i)
	}
	Label(label)
}
