package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Groups of 256 values of bfloat16 lie in 16 vectors of whole numbers, where
// additions are exact in any order: values are multiples of 2^-22 of the power of
// two at or below the greatest, and no sum of 256 of them has more than 31 bits.
//
// The place of a value has eight bits. Two times four of them name a vector and a
// lane; each stage of butterflies takes the one that tells a vector from another.
// Of the matrix of size 4, with digits of two bits,
//
//	H[i][j] = -1 where i xor j is 3 = D·S·D
//
// where D turns the sign of the last of four, and S is -1 to the power of
// i0·j1 + i1·j0: butterflies of one bit and then of the other, after which both
// have changed places. So lanes, which are to hold bits 0 to 3 in the end, need
// not be sorted; D is in the factors before and after. They come with bits 1 to
// 4, as the halves of 32 bits are even values and odd ones.

var ints = arithmetic{
	"Ints", "int32", func(o ...Op) { VPADDD(o...) }, func(o ...Op) { VPSUBD(o[1], o[2], o[2]) }, nil,
}

// rotateInts rotates groups whose values are multiples of the unit, and reports which
// groups these are. With chain, it reports only those in which every sum of the chain
// is exact in single precision as well.
func (v isa) rotateInts(name string, chain bool) {
	v.function(name, "func(dst *float32, src *byte, groups int, fits *bool, shift uint32)",
		described("%s%s multiplies groups of 256 by the matrix of ±1, and by 2^22 times the power of two whose exponent is shift,"+
			" in whole numbers. It tells those that they hold; others get no meaning.", name, v.name))
	dst, src := param("dst"), param("src")
	r := v.newIntRotor()
	r.each(dst, chain, r.words(src))
}

// rotateLevels rotates groups of levels that codes select.
func (v isa) rotateLevels() {
	v.function("rotateLevels", "func(dst *float32, codes *byte, levels *float32, groups int, fits *bool, shift uint32)",
		described("rotateLevels%s is rotateChainInts for the levels of codes, 16 of bfloat16 for each 64 of them.", v.name))
	dst, codes, levels := param("dst"), param("codes"), param("levels")
	r := v.newIntRotor()
	r.each(dst, true, intSource{
		vectors: 4,
		at:      func(z int) Mem { return Mem{Base: levels, Disp: 64 * z} },
		values: func(z int) (even, odd VecVirtual) {
			even, odd = v.vec(), v.vec()
			VPMOVZXWD(Mem{Base: codes, Disp: 32 * z}, even)
			VPSRLD(U8(8), even, odd)
			for _, row := range []VecVirtual{even, odd} {
				VPERMPS(Mem{Base: levels, Disp: 64 * (z / 2)}, row, row)
			}
			return even, odd
		},
		next: func() {
			ADDQ(U32(256), codes)
			ADDQ(U32(256), levels)
		},
	})
}

// intSource provides the values of a group.
type intSource struct {
	vectors int // number of vectors that hold all values in their nonzero words
	at      func(i int) Mem
	values  func(z int) (even, odd VecVirtual) // the 32 values from 32·z on
	next    func()
}

// words returns the source of bfloat16 values in memory.
func (r *intRotor) words(src Register) intSource {
	high := r.constant(0xFFFF0000)
	at := func(z int) Mem { return Mem{Base: src, Disp: 64 * z} }
	return intSource{
		vectors: 8, at: at,
		values: func(z int) (even, odd VecVirtual) {
			even, odd = r.vec(), r.vec()
			VMOVDQU32(at(z), even)
			r.and(high, even, odd)
			VPSLLD(U8(16), even, even)
			return even, odd
		},
		next: func() { ADDQ(U32(512), src) },
	}
}

// each goes through the groups.
func (r *intRotor) each(dst Register, chain bool, src intSource) {
	groups, fits := param("groups"), param("fits")
	r.shift, r.all = r.constantParam("shift"), r.constant(1<<32-1)
	loop("group", groups, func() {
		inverse, factor, ok := r.unit(src, 15)
		y := r.numbers(src, inverse, func(row VecVirtual) { VCVTPS2DQ(row, row) })
		var b *chainBound
		if chain {
			b = r.bound(y)
		}
		r.butterflies(y, b)
		if chain {
			b.holds(ok)
		}
		MOVB(ok.As8(), Mem{Base: fits})
		zero := r.constant(0)
		for i, row := range y {
			VCVTDQ2PS(row, row)
			VFMADD213PS(zero, factor, row) // no negative zero
			VMOVUPS(row, Mem{Base: dst, Disp: i * r.width()})
		}
		src.next()
		ADDQ(U32(1024), dst)
		INCQ(fits)
	})
	VZEROUPPER()
	RET()
}

// rotateSplitInts rotates groups that rotateInts does not take. It splits values into
// whole units and a rest in units of 2^-22, and adds the two sums in double precision,
// where they fill 53 bits.
func (v isa) rotateSplitInts() {
	v.function("rotateSplitInts", "func(dst *float32, src *byte, groups int, fits *bool, shift uint32)",
		described("rotateSplitInts%s is rotateInts for values that span 22 bits more.", v.name))
	dst, groups, fits := param("dst"), param("groups"), param("fits")
	r := v.newIntRotor()
	src := r.words(param("src"))
	r.shift, r.all = v.constantParam("shift"), v.constant(1<<32-1)
	places, back, zero := v.constant((127+22)<<23), v.constant64(0x3E90000000000000), v.constant(0) // 2^22, 2^-22
	loop("group", groups, func() {
		inverse, factor, ok := r.unit(src, 15+22)
		MOVB(ok.As8(), Mem{Base: fits})
		y := r.numbers(src, inverse, func(row VecVirtual) { VCVTPS2DQ(row, row) })
		r.butterflies(y, nil)
		for i, row := range y {
			VMOVDQU32(row, Mem{Base: dst, Disp: i * v.width()})
		}
		y = r.numbers(src, inverse, func(row VecVirtual) { r.rest(row, places) })
		r.butterflies(y, nil)
		for i, row := range y {
			r.addRest(row, Mem{Base: dst, Disp: i * v.width()}, factor, back, zero)
		}
		src.next()
		ADDQ(U32(1024), dst)
		INCQ(fits)
	})
	VZEROUPPER()
	RET()
}

// rest replaces units by what is left of them without the whole ones.
func (r *intRotor) rest(row, places VecVirtual) {
	whole := r.vec()
	VRNDSCALEPS(U8(0), row, whole)
	VSUBPS(whole, row, row)
	VMULPS(places, row, row)
	VCVTPS2DQ(row, row)
}

// addRest adds a row of sums of rests, in units of 2^-22, to a row of sums of units.
func (r *intRotor) addRest(row VecVirtual, at Mem, factor, back, zero VecVirtual) {
	for range 2 {
		sum, rest, f := r.vec(), r.vec(), r.vec()
		VCVTDQ2PD(at, sum)
		VCVTDQ2PD(row.AsY(), rest)
		VCVTPS2PD(factor.AsY(), f)
		VFMADD231PD(back, rest, sum)
		VFMADD213PD(zero, f, sum) // no negative zero
		VCVTPD2PS(sum, sum.AsY())
		VMOVUPS(sum.AsY(), at)
		VSHUFI64X2(U8(0x4E), row, row, row)
		VSHUFI64X2(U8(0x4E), factor, factor, factor)
		at = at.Offset(r.width() / 2)
	}
}

// intRotor holds the constants of a rotation in integers.
type intRotor struct {
	isa
	shift, all                VecVirtual
	even, odd, out            VecVirtual // signs of D
	oddLanes, evenLanes       Register
	oddQuarters, evenQuarters Register
}

func (v isa) newIntRotor() *intRotor {
	r := &intRotor{isa: v}
	r.even = v.signsOf(func(lane int) bool { return lane&6 == 6 })
	r.odd = v.signsOf(func(lane int) bool { return (lane&1 == 1) != (lane&6 == 6) })
	r.out = v.signsOf(func(lane int) bool { return (lane&3 == 3) != (lane&12 == 12) })
	r.oddLanes, r.evenLanes = v.chosen(0xAAAA), v.chosen(0x5555)
	r.oddQuarters, r.evenQuarters = v.chosen(0xF0F0), v.chosen(0x0F0F)
	return r
}

// signsOf returns a vector with the sign bit set in the lanes for which minus is true.
func (v isa) signsOf(minus func(lane int) bool) VecVirtual {
	mask := 0
	for lane := range v.lanes() {
		if minus(lane) {
			mask |= 1 << lane
		}
	}
	r := v.vec()
	VMOVDQU32_Z(v.constant(1<<31), v.chosen(uint32(mask)), r)
	return r
}

// unit returns the inverse of a group's unit, the unit times what is asked for,
// and 1 where all exponents lie within that span: values are multiples of the unit
// if it is 15. Twice the word of a value begins with its exponent, and zero has
// none; that of a power of two counts as one less, which only takes a group less.
func (r *intRotor) unit(src intSource, span uint8) (inverse, factor VecVirtual, ok GPVirtual) {
	least, greatest := r.vec(), r.vec() // less 1, and its complement
	for z := range src.vectors {
		t, a, b := r.vec(), least, greatest
		VMOVDQU32(src.at(z), t)
		VPADDW(t, t, t)
		if z > 0 {
			a, b = r.vec(), r.vec()
		}
		VPADDW(r.all, t, a)
		VPSUBW(t, r.all, b)
		if z > 0 {
			VPMINUW(a, least, least)
			VPMINUW(b, greatest, greatest)
		}
	}
	both := r.folded(greatest, least, func(a, b, to Op) { VPMINUW(a, b, to) })
	t := r.vec()
	VPRORD(U8(16), both, t)
	VPMINUW(t, both, both)
	VSHUFI32X4(U8(0xAA), both, both, least)
	VSHUFI32X4(U8(0), both, both, greatest)
	r.xor(r.all, greatest, greatest)
	VPSRLD(U8(24), least, least)
	VPSRLD(U8(24), greatest, greatest)
	VPMAXUD(r.constant(64), greatest, greatest) // that units and inverses are normal
	e, l, d := GP32(), GP32(), GP32()
	VMOVD(greatest.AsX(), e)
	VMOVD(least.AsX(), l)
	ADDL(U8(span), l)
	SUBL(e, l)
	MOVL(U32(240), d)
	SUBL(e, d)
	ORL(l, d)
	NOTL(d)
	SHRL(U8(31), d)
	inverse, factor = r.vec(), r.vec()
	VPSLLD(U8(23), greatest, greatest)
	VPSUBD(greatest, r.constant((2*127+22)<<23), inverse)
	VPADDD(r.shift, greatest, factor)
	r.xor(r.out, factor, factor)
	return inverse, factor, d
}

// folded returns the join of all lanes of a in every lane of its first quarter, and
// that of b in every lane of the third.
func (r *intRotor) folded(a, b VecVirtual, join func(a, b, to Op)) VecVirtual {
	low, high := r.vec(), r.vec()
	VSHUFI32X4(U8(0x44), b, a, low)
	VSHUFI32X4(U8(0xEE), b, a, high)
	join(low, high, low)
	VSHUFI32X4(U8(0xB1), low, low, high)
	join(low, high, low)
	for _, imm := range []uint8{0x4E, 0xB1} {
		VPSHUFD(U8(imm), low, high)
		join(low, high, low)
	}
	return low
}

// numbers returns a group in units, times D. In vector 2i+k, bits 5 to 7 of the places
// are i, and bit 0 is k.
func (r *intRotor) numbers(src intSource, inverse VecVirtual, convert func(row VecVirtual)) (y []VecVirtual) {
	signs := []VecVirtual{r.vec(), r.vec()}
	r.xor(r.even, inverse, signs[0])
	r.xor(r.odd, inverse, signs[1])
	for z := range 8 {
		even, odd := src.values(z)
		for i, row := range []VecVirtual{even, odd} {
			VMULPS(signs[i], row, row)
			convert(row)
			y = append(y, row)
		}
	}
	return y
}

// butterflies does the stages of bits 0 to 3. Each uses the last bit of the vectors'
// numbers, which changes places with a bit of the lanes in between.
func (r *intRotor) butterflies(y []VecVirtual, b *chainBound) {
	r.stage(y)                  // vectors 0, lanes 1 2 3 4
	r.exchange(y, r.firstLanes) // vectors 1, lanes 0 2 3 4
	r.stage(y)
	r.exchange(y, unpacked) // vectors 2, lanes 1 0 3 4
	r.stage(y)
	r.exchange(y, quarters) // vectors 3, lanes 1 0 4 2
	r.stage(y)
	if b != nil {
		b.blocks(y)
	}
	r.exchange(y, r.firstQuarters) // vectors 4, lanes 1 0 3 2
	for i := 0; i < 16; i += 4 {
		r.four(ints, nil, y[i:i+4])
	}
	r.acrossFours(ints, nil, y)
}

func (r *intRotor) stage(y []VecVirtual) {
	for i := 0; i < len(y); i += 2 {
		sum := r.vec()
		VPADDD(y[i+1], y[i], sum)
		VPSUBD(y[i+1], y[i], y[i+1])
		y[i] = sum
	}
}

func (r *intRotor) exchange(y []VecVirtual, pair func(v isa, a, b VecVirtual) (low, high VecVirtual)) {
	for i := 0; i < len(y); i += 2 {
		y[i], y[i+1] = pair(r.isa, y[i], y[i+1])
	}
}

// firstLanes exchanges the first bit of the lanes with that of the vectors.
func (r *intRotor) firstLanes(v isa, a, b VecVirtual) (low, high VecVirtual) {
	low, high = v.vec(), b
	VMOVDQA32(a, low)
	VMOVSLDUP(b, r.oddLanes, low)
	VMOVSHDUP(a, r.evenLanes, high)
	return low, high
}

// unpacked takes out the second bit, and moves the first to its place.
func unpacked(v isa, a, b VecVirtual) (low, high VecVirtual) {
	low, high = v.vec(), v.vec()
	VPUNPCKLDQ(b, a, low)
	VPUNPCKHDQ(b, a, high)
	return low, high
}

// quarters takes out the third bit, and moves the fourth to its place.
func quarters(v isa, a, b VecVirtual) (low, high VecVirtual) {
	low, high = v.vec(), v.vec()
	VSHUFI32X4(U8(0x88), b, a, low)
	VSHUFI32X4(U8(0xDD), b, a, high)
	return low, high
}

// firstQuarters is firstLanes for the third bit.
func (r *intRotor) firstQuarters(v isa, a, b VecVirtual) (low, high VecVirtual) {
	low, high = v.vec(), b
	VMOVDQA32(a, low)
	VSHUFI32X4(U8(0xA0), b, b, r.oddQuarters, low)
	VSHUFI32X4(U8(0xF5), a, a, r.evenQuarters, high)
	return low, high
}

// chainBound tells whether all sums of the chain are exact in single precision:
// multiples of a unit, of which they are 2^24 at most. A sum of the chain for
// output j, of any number of rows, is that of whole blocks of 16 rows and of a part
// of one. A whole block gives ± its own butterflies' value number j mod 16, a part
// no more than the block's magnitudes:
//
//	|sum| ≤ max over q < 16 of Σ over blocks |butterfly q| + max over blocks Σ |x|
type chainBound struct {
	*intRotor
	bits GPVirtual  // of all values
	part VecVirtual // Σ |x| of every block
	most VecVirtual // Σ over blocks |butterfly q| of every q
}

// bound begins a chainBound with the values themselves.
func (r *intRotor) bound(y []VecVirtual) *chainBound {
	b := &chainBound{intRotor: r, bits: GP64()}
	all := r.vec()
	VMOVDQA32(y[0], all)
	for i := 1; i < len(y)-1; i += 2 {
		VPTERNLOGD(U8(0xFE), y[i], y[i+1], all)
	}
	VPORD(y[15], all, all)
	half := r.vec()
	VEXTRACTI64X4(U8(1), all, half.AsY())
	VPORD(all.AsY(), half.AsY(), half.AsY())
	VEXTRACTI32X4(U8(1), half.AsY(), all.AsX())
	VPORD(all.AsX(), half.AsX(), half.AsX())
	VPSHUFD(U8(0x4E), half.AsX(), all.AsX())
	VPORD(all.AsX(), half.AsX(), half.AsX())
	high := GP64()
	VMOVQ(half.AsX(), b.bits)
	MOVQ(b.bits, high)
	SHRQ(U8(32), high)
	ORQ(high, b.bits)
	b.part = b.magnitudes(y)
	return b
}

// magnitudes adds up the magnitudes of each block; lanes are the blocks.
func (r *intRotor) magnitudes(y []VecVirtual) VecVirtual {
	if len(y) == 2 {
		return r.magnitude(y[0], y[1])
	}
	join := map[int]func(v isa, a, b VecVirtual) (low, high VecVirtual){4: unpacked, 8: unpacked, 16: quarters}[len(y)]
	a, b := r.magnitudes(y[:len(y)/2]), r.magnitudes(y[len(y)/2:])
	low, high := join(r.isa, a, b)
	VPADDD(high, low, low)
	return low
}

// magnitude returns |a| + |b|.
func (r *intRotor) magnitude(a, b VecVirtual) VecVirtual {
	sum, t := r.vec(), r.vec()
	VPABSD(a, sum)
	VPABSD(b, t)
	VPADDD(t, sum, sum)
	return sum
}

// blocks takes the results of the butterflies of all blocks of 16.
func (b *chainBound) blocks(y []VecVirtual) {
	var sums [2]VecVirtual
	for k := range sums {
		sums[k] = b.magnitude(y[k], y[k+2])
		for i := k + 4; i < len(y); i += 2 {
			t := b.vec()
			VPABSD(y[i], t)
			VPADDD(t, sums[k], sums[k])
		}
	}
	low, high := quarters(b.isa, sums[0], sums[1])
	VPADDD(high, low, low)
	b.most = low
}

// holds clears ok if the bound exceeds 2^24 of the greatest possible unit: the lowest
// bit that is set in any value, or anything if all are zero.
func (b *chainBound) holds(ok GPVirtual) {
	both := b.folded(b.most, b.part, func(x, y, to Op) { VPMAXUD(x, y, to) })
	most, part, part32 := GP32(), b.vec(), GP32()
	VMOVD(both.AsX(), most)
	VEXTRACTI32X4(U8(2), both, part.AsX())
	VMOVD(part.AsX(), part32)
	ADDL(part32, most)
	DECL(most)
	SHRL(U8(24), most)
	last, within := GP32(), GP32()
	MOVL(b.bits.As32(), last)
	NEGL(last)
	ANDL(b.bits.As32(), last)
	DECL(last)
	XORL(within, within)
	CMPL(most, last)
	SETLS(within.As8())
	ANDL(within, ok)
}
