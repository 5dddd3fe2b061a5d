package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// scaler is what groups are scaled by.
type scaler struct {
	isa
	multiply             bool
	zero, scale, inverse VecVirtual
}

// stepBytes is the size of a Step.
const stepBytes = 12

// next takes the next group's step.
func (s *scaler) next(steps Register) {
	VBROADCASTSS(Mem{Base: steps, Disp: 4}, s.scale)
	if !s.multiply {
		VBROADCASTSS(Mem{Base: steps}, s.zero)
		VBROADCASTSS(Mem{Base: steps, Disp: 8}, s.inverse)
	}
	ADDQ(U8(stepBytes), steps)
}

// apply scales x. Dividing: with the inverse y, q = x·y is close to the
// quotient, r = x - q·s is exact, and q + r·y, rounded once, is the quotient
// rounded. x is used up.
func (s *scaler) apply(x VecVirtual) VecVirtual {
	q := s.vec()
	if s.multiply {
		VMULPS(s.scale, x, q)
		return q
	}
	VMULPS(s.inverse, x, q)
	VFNMADD231PS(s.scale, q, x)
	VFMADD231PS(s.inverse, x, q)
	return q
}

// subtract takes the zero point off x.
func (s *scaler) subtract(x VecVirtual) {
	if !s.multiply {
		VSUBPS(s.zero, x, x)
	}
}

func operation(multiply bool) string {
	if multiply {
		return "multiply"
	}
	return "divide"
}

// encode writes a function that scales groups and makes one byte of each
// value. constants loads what code uses.
func (v isa) encode(name string, raw form, multiply bool, constants func(m Mem), code func(s *scaler, x VecVirtual) VecVirtual) {
	full := operation(multiply) + name + raw.name
	v.function(full, "func(codes, src *byte, scales *float32, groups, steps int, c *uint32)",
		described("%s%s encodes groups of that many times 16 values.", full, v.name))
	codes, src, scales := param("codes"), param("src"), param("scales")
	groups, steps := param("groups"), param("steps")
	constants(base("c"))
	s := &scaler{v, multiply, v.vec(), v.vec(), v.vec()}
	loop("group", groups, func() {
		s.next(scales)
		turns := copied(steps)
		loop("turn", turns, func() {
			var all []VecVirtual
			for _, x := range v.loads(raw, src) {
				all = append(all, code(s, x))
			}
			v.storeBytes(all, Mem{Base: codes})
			ADDQ(U8(step*raw.size), src)
			ADDQ(U8(step), codes)
		})
	})
	VZEROUPPER()
	RET()
}

// encodeInts: constants are the bounds, the offset and 255.
func (v isa) encodeInts(raw form, multiply bool) {
	var lo, hi, offset, low VecVirtual
	constants := func(c Mem) {
		lo, hi, offset, low = v.broadcast(c), v.broadcast(c.Offset(4)), v.broadcast(c.Offset(8)), v.constant(255)
	}
	v.encode("Ints", raw, multiply, constants, func(s *scaler, x VecVirtual) VecVirtual {
		s.subtract(x)
		q := s.apply(x)
		VMAXPS(lo, q, q)
		VMINPS(hi, q, q)
		VCVTPS2DQ(q, q)
		VPADDD(offset, q, q)
		if !v.wide {
			v.and(low, q, q)
		}
		return q
	})
}
