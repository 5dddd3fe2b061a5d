package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// errors adds to three times 16 sums in double precision: of squares, of squared
// differences, each rounded before it is added, and the greatest difference. The
// maximum ignores NaN, which is its first operand.
func (v isa) errors(raw form) {
	v.function("errors"+raw.name, "func(sums *float64, values *byte, others *float32, steps int)",
		"errors"+raw.name+v.name+" adds that many times 16 pairs.")
	sums, values, others, n := base("sums"), param("values"), param("others"), param("steps")
	lanes := v.width() / 8
	all := make([]VecVirtual, 3*step/lanes)
	for i := range all {
		all[i] = v.vec()
		VMOVUPD(sums.Offset(8*lanes*i), all[i])
	}
	g, mask := GP64(), v.vec()
	MOVQ(U64(1<<63-1), g)
	VMOVQ(g, mask.AsX())
	VPBROADCASTQ(mask.AsX(), mask)
	loop("turn", n, func() {
		for i := range step / lanes {
			squares, errors, most := all[i], all[i+step/lanes], all[i+2*step/lanes]
			x, d := v.doubles(raw, Mem{Base: values, Disp: i * lanes * raw.size}), v.doubles(f32, Mem{Base: others, Disp: 4 * i * lanes})
			VSUBPD(d, x, d)
			VFMADD231PD(x, x, squares) // exact but for the addition
			v.logic(VPANDQ, VPAND, mask, d, x)
			VMAXPD(most, x, most)
			VMULPD(d, d, d)
			VADDPD(d, errors, errors)
		}
		ADDQ(U8(step*raw.size), values)
		ADDQ(U8(step*4), others)
	})
	for i := range all {
		VMOVUPD(all[i], sums.Offset(8*lanes*i))
	}
	VZEROUPPER()
	RET()
}

// doubles loads values in double precision.
func (v isa) doubles(raw form, m Mem) VecVirtual {
	r := v.vec()
	if raw == f32 {
		VCVTPS2PD(m, r)
		return r
	}
	half := v.half(r)
	VPMOVZXWD(m, half)
	VPSLLD(U8(16), half, half)
	VCVTPS2PD(half, r)
	return r
}
