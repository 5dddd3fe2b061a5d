package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// nvfp4Blocks finds the scales of all blocks before it encodes them; otherwise encoding
// would wait for the scale in every turn. A turn takes as many blocks as four vectors
// hold.
func (v isa) nvfp4Blocks() {
	v.function("nvfp4Blocks", "func(dst, scales, src *byte, turns int, codes *byte, factors *float32, levels *uint16)",
		described("nvfp4Blocks%s encodes %d blocks of 16 a turn.", v.name, v.width()/8))
	dst, scales, src, codes, factors := param("dst"), param("scales"), param("src"), param("codes"), param("factors")
	levels, turns := base("levels"), param("turns")
	magnitudes := v.constant16(0x7FFF)
	v.scaleBlocks(copied(src), copied(scales), codes, copied(turns), magnitudes)
	e := v.fourBlock(src, levels)
	order := v.order(f32)
	loop("turn", turns, func() {
		all := e.encodeTwo(0, magnitudes, factors, scales)
		VPACKUSWB(e.encodeTwo(2, magnitudes, factors, scales), all, all)
		v.reorder(f32, order, all)
		v.storeWhole(all, Mem{Base: dst})
		ADDQ(U32(4*v.width()), src)
		ADDQ(U8(v.width()), dst)
		ADDQ(U8(v.width()/8), scales)
	})
	VZEROUPPER()
	RET()
}

// scaleBlocks looks up the codes of scales by greatest magnitudes.
func (v isa) scaleBlocks(src, scales, codes, turns Register, magnitudes VecVirtual) {
	kept := v.memory(1)
	loop("scale", turns, func() {
		var x [4]VecVirtual
		for i := range x {
			x[i] = v.vec()
			v.and(Mem{Base: src, Disp: i * v.width()}, magnitudes, x[i])
		}
		blocks, apart := v.width()/8, 8
		if greatest := v.greatestOfBlocks(x); v.wide {
			apart = 2
			VPMOVQW(greatest, greatest.AsX())
			VMOVDQU(greatest.AsX(), Mem{Base: kept})
		} else {
			v.storeWhole(greatest, Mem{Base: kept})
		}
		for block := range blocks {
			code := GP64()
			MOVWLZX(Mem{Base: kept, Disp: (block%(blocks/2)*2 + block/(blocks/2)) * apart}, code.As32())
			MOVBLZX(Mem{Base: codes, Index: code, Scale: 1}, code.As32())
			MOVB(code.As8(), Mem{Base: scales, Disp: block})
		}
		ADDQ(U32(4*v.width()), src)
		ADDQ(U8(blocks), scales)
	})
}

// memory allocates room for that many vectors on the stack.
func (v isa) memory(vectors int) Register {
	kept := GP64()
	LEAQ(AllocLocal((vectors+1)*v.width()), kept)
	ADDQ(U8(v.width()-1), kept)
	ANDQ(I8(-v.width()), kept)
	return kept
}

// greatestOfBlocks returns the greatest word of each block of 16, in the first of
// four: of those in the first two vectors, then of the others, by turns.
func (v isa) greatestOfBlocks(x [4]VecVirtual) VecVirtual {
	a, b := v.beside(x[0], x[1]), v.beside(x[2], x[3])
	low := v.vec()
	VPUNPCKLQDQ(b, a, low)
	VPUNPCKHQDQ(b, a, a)
	VPMAXUW(low, a, a)
	VPSHUFD(U8(0xB1), a, low)
	VPMAXUW(low, a, a)
	VPSRLD(U8(16), a, low)
	VPMAXUW(low, a, a)
	return a
}

// beside joins neighbouring parts of 128 bits, keeping the greater words: first the
// parts of a, then those of b.
func (v isa) beside(a, b VecVirtual) VecVirtual {
	even, odd := v.vec(), v.vec()
	if v.wide {
		VSHUFI64X2(U8(0x88), b, a, even)
		VSHUFI64X2(U8(0xDD), b, a, odd)
	} else {
		VPERM2I128(U8(0x20), b, a, even)
		VPERM2I128(U8(0x31), b, a, odd)
	}
	VPMAXUW(even, odd, odd)
	return odd
}

// fourBlock holds the vectors that encoding needs.
type fourBlock struct {
	isa
	src                   Register
	high, odd, sign, pair VecVirtual
	levels                VecVirtual // codes by the whole parts of products
	even                  VecVirtual // only for AVX-512
	oddWords, second      Register   // masks, only for AVX-512
	last, bound           VecVirtual // only for AVX2: the last level in its table, and the last one with the same code
}

func (v isa) fourBlock(src Register, levels Mem) *fourBlock {
	e := &fourBlock{isa: v, src: src, high: v.constant(0xFFFF0000), sign: v.constant16(8), pair: v.constant(0x00010010), levels: v.vec()}
	v.loadWhole(levels, e.levels)
	if v.wide {
		e.odd, e.even = v.constant((127+7)<<23), v.constant((127+23)<<23)
		e.second, e.oddWords = v.chosen(0xFF00), v.chosen(0xAAAAAAAA)
		return e
	}
	VPACKUSWB(e.levels, e.levels, e.levels)
	VPERMQ(U8(0x88), e.levels, e.levels)
	e.odd = v.constant((127+7)<<23 - 1)
	e.last, e.bound = v.constant16(15), v.constant16(0x4300+19)
	return e
}

// factor returns the factors for the values of the blocks in vector i.
func (e *fourBlock) factor(i int, factors, scales Register) VecVirtual {
	x := e.vec()
	for j := range e.width() / 32 {
		code := GP64()
		MOVBLZX(Mem{Base: scales, Disp: i*e.width()/32 + j}, code.As32())
		if at := (Mem{Base: factors, Index: code, Scale: 4}); j == 0 {
			VBROADCASTSS(at, x)
		} else {
			VBROADCASTSS(at, e.second, x)
		}
	}
	return x
}

// encodeTwo makes words of two vectors, beginning with vector i.
func (e *fourBlock) encodeTwo(i int, magnitudes VecVirtual, factors, scales Register) VecVirtual {
	x := e.encode(i, magnitudes, e.factor(i, factors, scales))
	VPACKUSDW(e.encode(i+1, magnitudes, e.factor(i+1, factors, scales)), x, x)
	return x
}

// encode makes bytes of two codes each, of 32 bits, of vector i. Added to a power
// of two and rounded down, the products of odd values have their whole part in the
// low byte of the high word, those of even ones there too, or, the power being
// larger, in the low word. Of AVX2, which rounds to nearest, the summand is half of
// the last place less than the power; of a product next to zero the byte is -1 then.
func (e *fourBlock) encode(i int, magnitudes VecVirtual, y VecVirtual) VecVirtual {
	x, odd, at := e.vec(), e.vec(), Mem{Base: e.src, Disp: i * e.width()}
	e.and(at, magnitudes, x)
	e.and(e.high, x, odd)
	VPSLLD(U8(16), x, x)
	if e.wide {
		VFMADD213PS_RD_SAE(e.odd, y, odd)
		VFMADD213PS_RD_SAE(e.even, y, x)
		VMOVDQU16(odd, e.oddWords, x)
		VPERMW(e.levels, x, x)
	} else {
		VFMADD213PS(e.odd, y, odd)
		VFMADD213PS(e.odd, y, x)
		VPSRLD(U8(16), x, x)
		VPBLENDW(U8(0xAA), odd, x, x)
		VPCMPGTW(e.bound, x, odd)
		VPMINSB(e.last, x, x)
		VPSHUFB(x, e.levels, x)
		VPSUBW(odd, x, x)
	}
	signs := odd
	if e.wide {
		VPSRLW(U8(12), at, signs)
		VPTERNLOGD(U8(0xF8), e.sign, signs, x) // x, or signs and sign
	} else {
		e.loadWhole(at, signs)
		VPSRLW(U8(12), signs, signs)
		VPAND(e.sign, signs, signs)
		VPOR(signs, x, x)
	}
	VPMADDWD(e.pair, x, x)
	return x
}
