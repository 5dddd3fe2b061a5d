package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

func (v isa) widenBF16() { v.widen("widenBF16", func(m Mem) Op { return v.load(bf16, m) }) }

func (v isa) widenF16() {
	v.widen("widenF16", func(m Mem) Op {
		r := v.vec()
		VCVTPH2PS(m, r)
		return r
	})
}

// widen writes a function that converts values of two bytes to single precision.
func (v isa) widen(name string, load func(m Mem) Op) {
	v.function(name, "func(dst *float32, src *byte, steps int)", name+v.name+" widens that many times 16 values.")
	dst, src, n := param("dst"), param("src"), param("steps")
	lanes := v.width() / 4
	loop("turn", n, func() {
		for i := 0; i < step; i += lanes {
			VMOVUPS(load(Mem{Base: src, Disp: 2 * i}), Mem{Base: dst, Disp: 4 * i})
		}
		ADDQ(U8(2*step), src)
		ADDQ(U8(4*step), dst)
	})
	VZEROUPPER()
	RET()
}
