package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// powerSteps rounds quotients up to powers of two: it adds the greatest mantissa, which
// carries into the exponent unless the quotient's mantissa is zero.
func (v isa) powerSteps() {
	v.function("powerSteps", "func(codes *byte, scales, inverses, amax *float32, steps int, most float32) bool",
		"powerSteps"+v.name+" does that many times 16 groups.")
	codes, scales, inverses, amax := param("codes"), param("scales"), param("inverses"), param("amax")
	n, most := param("steps"), v.constantParam("most")
	mantissa, exponent, two := v.constant(1<<23-1), v.constant(0xFF800000), v.constant(254<<23)
	one, near := v.constant(1), v.constant(63)
	lowest, highest, all := v.constant((127-80)<<23), v.constant((127+80)<<23), v.constant(1<<32-1)
	low := v.constant(255)
	loop("turn", n, func() {
		var all16 []VecVirtual
		for i := 0; i < step; i += v.width() / 4 {
			x, rest := v.load(f32, Mem{Base: amax, Disp: 4 * i}), v.vec()
			VDIVPS(most, x, x)
			v.and(mantissa, x, rest)
			VPSUBD(one, rest, rest)
			v.keepNotBelow(near, rest, all)
			VPADDD(mantissa, x, x)
			v.and(exponent, x, x)
			v.keep(notBelow, lowest, x, all)
			v.keep(notAbove, highest, x, all)
			VMOVUPS(x, Mem{Base: scales, Disp: 4 * i})
			inverse := v.vec()
			VPSUBD(x, two, inverse)
			VMOVUPS(inverse, Mem{Base: inverses, Disp: 4 * i})
			VPSRLD(U8(23), x, x)
			if !v.wide {
				v.and(low, x, x)
			}
			all16 = append(all16, x)
		}
		v.storeBytes(all16, Mem{Base: codes})
		ADDQ(U8(step), codes)
		for _, p := range []Register{scales, inverses, amax} {
			ADDQ(U8(4*step), p)
		}
	})
	Store(v.nonzero(all), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// keepNotBelow clears the lanes of all where the magnitude of x is below bound.
func (v isa) keepNotBelow(bound, x, all VecVirtual) {
	t := v.vec()
	VPMAXUD(bound, x, t)
	if v.wide {
		k := K()
		VPCMPEQD(t, x, k)
		VPMOVM2D(k, t)
	} else {
		VPCMPEQD(t, x, t)
	}
	v.and(t, all, all)
}

// splitFours splits every byte into two codes, after widening it to a word.
func (v isa) splitFours(name string, high bool) {
	v.function(name, "func(codes, src *byte, turns int)", name+v.name+" takes two codes of four bits out of each byte, 64 codes a turn.")
	codes, src, turns, low := param("codes"), param("src"), param("turns"), v.constant16(0x0F0F)
	loop("turn", turns, func() {
		for i := 0; i < 64; i += v.width() {
			x, y := v.vec(), v.vec()
			VPMOVZXBW(Mem{Base: src, Disp: i / 2}, x)
			if high {
				VPSLLW(U8(8), x, y)
				VPSRLW(U8(4), x, x)
			} else {
				VPSLLW(U8(4), x, y)
			}
			v.or(y, x, x)
			v.and(low, x, x)
			v.storeWhole(x, Mem{Base: codes, Disp: i})
		}
		ADDQ(U8(64), codes)
		ADDQ(U8(32), src)
	})
	VZEROUPPER()
	RET()
}

// decodeFewBytes looks up the values of four-bit codes.
func (v isa) decodeFewBytes() {
	var value func(code VecVirtual) VecVirtual
	v.decodeBytes("decodeFewBytes", func(m Mem) { value = v.levels(m) }, func(x VecVirtual) VecVirtual { return value(x) })
}
