package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// mxfp8Blocks finds the scales of all blocks first, like nvfp4Blocks. A turn takes as
// many blocks as eight vectors hold.
func (v isa) mxfp8Blocks() {
	v.function("mxfp8Blocks", "func(dst, scales, src *byte, turns int, lows *uint32)",
		described("mxfp8Blocks%s encodes %d blocks of 32 a turn.", v.name, v.width()/8))
	dst, scales, src, turns, lows := param("dst"), param("scales"), param("src"), param("turns"), param("lows")
	magnitudes := v.constant16(0x7FFF)
	v.eightScales(copied(src), copied(scales), copied(turns), magnitudes)
	e := v.eightBlock(magnitudes)
	order := v.order(bf16)
	loop("turn", turns, func() {
		for i := range 4 {
			var words [2]VecVirtual
			low := v.vec()
			for j := range words {
				if v.wide || j == 0 {
					code := GP64()
					MOVBLZX(Mem{Base: scales, Disp: i*v.width()/32 + j}, code.As32())
					VPBROADCASTD(Mem{Base: lows, Index: code, Scale: 4}, low)
				}
				words[j] = e.encode(Mem{Base: src, Disp: (2*i + j) * v.width()}, low)
			}
			VPACKUSWB(words[1], words[0], words[0])
			v.reorder(bf16, order, words[0])
			v.storeWhole(words[0], Mem{Base: dst, Disp: i * v.width()})
		}
		ADDQ(U32(8*v.width()), src)
		ADDQ(U32(4*v.width()), dst)
		ADDQ(U8(v.width()/8), scales)
	})
	VZEROUPPER()
	RET()
}

// eightScales finds the exponents of scales from greatest magnitudes.
func (v isa) eightScales(src, scales, turns Register, magnitudes VecVirtual) {
	var kept Register
	if !v.wide {
		kept = v.memory(1)
	}
	low, nearly, eight := v.constant(0xFFFF), v.constant(31), v.constant(8)
	under, most := v.constant(16+8-1), v.constant(1<<32-1-(246-16))
	loop("scale", turns, func() {
		var x [4]VecVirtual
		for i := range x {
			x[i] = v.greatestHalves(src, i%2*v.width()/16+i/2, magnitudes)
		}
		scale, below := v.greatestOfBlocks(x), v.vec()
		v.and(low, scale, scale)
		VPADDD(nearly, scale, scale)
		VPSRLD(U8(7), scale, scale)
		VPSUBD(scale, under, below) // the complement of what is above the least
		VPSUBD(eight, scale, scale)
		v.keepNotBelow(most, below, scale)
		if v.wide {
			VPMOVQB(scale, Mem{Base: scales})
		} else {
			v.storeWhole(scale, Mem{Base: kept})
			for block := range 4 {
				code := GP32()
				MOVBLZX(Mem{Base: kept, Disp: 8 * block}, code)
				MOVB(code.As8(), Mem{Base: scales, Disp: block})
			}
		}
		ADDQ(U32(8*v.width()), src)
		ADDQ(U8(v.width()/8), scales)
	})
}

// greatestHalves returns the greatest magnitudes at each place of two vectors of a
// block. If these are half as wide, it does so for two blocks and puts the second's
// after the first's.
func (v isa) greatestHalves(src Register, block int, magnitudes VecVirtual) VecVirtual {
	a, b := v.vec(), v.vec()
	second := 64*block + 32
	if v.wide {
		second = 64 * (block + 2)
	}
	v.and(Mem{Base: src, Disp: 64 * block}, magnitudes, a)
	v.and(Mem{Base: src, Disp: second}, magnitudes, b)
	if v.wide {
		return v.beside(a, b)
	}
	VPMAXUW(a, b, b)
	return b
}

// eightBlock holds the vectors that encoding needs.
type eightBlock struct {
	isa
	magnitudes, mantissa, leading, factors, normal, one, sign VecVirtual
}

func (v isa) eightBlock(magnitudes VecVirtual) *eightBlock {
	e := &eightBlock{isa: v, magnitudes: magnitudes, mantissa: v.constant16(0x7F), leading: v.constant16(0x80),
		normal: v.constant16(4 << 11), one: v.constant16(1), sign: v.constant16(0x8000), factors: v.constant64(0x0804020100)}
	return e
}

// encode makes words of codes. What is subnormal is a product with a factor that its
// exponent finds. Larger exponents find any of them, but what comes of that is less
// than what it is without, and the other way round.
func (e *eightBlock) encode(at Mem, low VecVirtual) VecVirtual {
	x, above, factor := e.vec(), e.vec(), e.vec()
	e.and(at, e.magnitudes, x)
	VPSUBUSW(low, x, above)
	VPSRLW(U8(7), above, factor)
	VPSHUFB(factor, e.factors, factor)
	if e.wide {
		VPTERNLOGD(U8(0xEA), e.leading, e.mantissa, x) // x and mantissa, or leading
	} else {
		VPAND(e.mantissa, x, x)
		VPOR(e.leading, x, x)
	}
	VPMULLW(factor, x, x)
	VPSLLW(U8(4), above, above)
	VPSUBUSW(e.normal, above, above)
	VPMAXUW(above, x, x)
	e.round(x)
	if e.wide {
		VPTERNLOGD(U8(0xF8), at, e.sign, x) // x, or what is there and sign
	} else {
		VPAND(at, e.sign, above)
		VPOR(above, x, x)
	}
	VPSRLW(U8(8), x, x)
	return x
}

// round adds so much to words that cutting them to their high bytes rounds to even.
func (e *eightBlock) round(x VecVirtual) {
	odd := e.vec()
	VPSRLW(U8(8), x, odd)
	VPADDW(e.mantissa, x, x)
	e.and(e.one, odd, odd)
	VPADDW(odd, x, x)
}
