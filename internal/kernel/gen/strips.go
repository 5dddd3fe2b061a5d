package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// stripRows is how many rows a strip has.
const stripRows = 8

const stripSignature = "func(dst *byte, stride int, words *byte, groups *int32, scales, zeros *float32, steps int)"

// stripConstants are what decodes a strip.
type stripConstants struct{ code, half, one VecVirtual }

func (v isa) stripConstants() stripConstants {
	return stripConstants{v.constant(15), v.constant(0x7FFF), v.constant(1)}
}

// value takes codes out of words at a bit, and returns them decoded: the high halves are
// bfloat16.
func (c stripConstants) value(v isa, words VecVirtual, bit int, zero, scale Op) VecVirtual {
	x, odd := words, v.vec()
	if bit > 0 {
		x = v.vec()
		VPSRLD(U8(bit), words, x)
	}
	if bit < 28 {
		to := v.vec()
		VPAND(c.code, x, to)
		x = to
	}
	VCVTDQ2PS(x, x)
	VSUBPS(zero, x, x)
	VMULPS(scale, x, x)
	VPSRLD(U8(16), x, odd)
	VPAND(c.one, odd, odd)
	VPADDD(c.half, x, x)
	VPADDD(odd, x, x)
	return x
}

// stripBF16 decodes eight rows of a column at a time, joins two columns, and turns eight
// of them around.
func (v isa) stripBF16() {
	v.function("stripBF16", stripSignature, "stripBF16"+v.name+" decodes that many times eight columns of eight rows.")
	rows := rowsFrom(param("dst"), param("stride"), stripRows)
	words, groups, scales, zeros, c := param("words"), param("groups"), param("scales"), param("zeros"), v.stripConstants()
	ahead := GP64()
	MOVQ(U32(2*stripRows), ahead)
	loop("turn", param("steps"), func() {
		x := v.load(f32, Mem{Base: words})
		column := func(k int) VecVirtual {
			side := GP64()
			MOVLQSX(Mem{Base: groups, Disp: 4 * k}, side)
			SHLQ(U8(5), side)
			return c.value(v, x, 4*k, Mem{Base: zeros, Index: side, Scale: 1}, Mem{Base: scales, Index: side, Scale: 1})
		}
		var pairs []VecVirtual
		for k := 0; k < stripRows; k += 2 {
			first, second := column(k), column(k+1)
			VPSRLD(U8(16), first, first)
			VPBLENDW(U8(0xAA), second, first, first)
			pairs = append(pairs, first)
		}
		for i := range 2 { // rows 2i and 2i + 1, and the fourth after each
			low, high := v.vec(), v.vec()
			unpack := VPUNPCKLDQ
			if i == 1 {
				unpack = VPUNPCKHDQ
			}
			unpack(pairs[1], pairs[0], low)
			unpack(pairs[3], pairs[2], high)
			even, odd := v.vec(), v.vec()
			VPUNPCKLQDQ(high, low, even)
			VPUNPCKHQDQ(high, low, odd)
			for k, pair := range []VecVirtual{even, odd} {
				VMOVDQU(pair.AsX(), rows.row(2*i+k))
				VEXTRACTI128(U8(1), pair, rows.row(2*i+k+4))
			}
		}
		ADDQ(U8(4*stripRows), words)
		ADDQ(U8(4*stripRows), groups)
		rows.advance(ahead)
	})
	VZEROUPPER()
	RET()
}

// interleavedBF16 decodes sixteen columns of a row at a time.
func (v isa) interleavedBF16() {
	v.function("interleavedBF16", stripSignature, "interleavedBF16"+v.name+" decodes that many times sixteen columns of eight rows.")
	rows := rowsFrom(param("dst"), param("stride"), stripRows)
	words, groups, scales, zeros, c := param("words"), param("groups"), param("scales"), param("zeros"), v.stripConstants()
	ahead := GP64()
	MOVQ(U32(2*step), ahead)
	loop("turn", param("steps"), func() {
		side := GP64()
		MOVLQSX(Mem{Base: groups}, side)
		SHLQ(U8(5), side)
		all := v.strip(Mem{Base: words})
		for r := range stripRows {
			zero := v.broadcast(Mem{Base: zeros, Index: side, Scale: 1, Disp: 4 * r})
			scale := v.broadcast(Mem{Base: scales, Index: side, Scale: 1, Disp: 4 * r})
			var values []VecVirtual
			for _, x := range all {
				value := c.value(v, x, r%2*16+r/2*4, zero, scale)
				VPSRLD(U8(16), value, value)
				values = append(values, value)
			}
			VPACKUSDW(values[1], values[0], values[0])
			VPERMQ(U8(0xD8), values[0], values[0])
			VMOVDQU(values[0], rows.row(r))
		}
		ADDQ(U8(4*step), words)
		ADDQ(U8(4*step), groups)
		rows.advance(ahead)
	})
	VZEROUPPER()
	RET()
}
