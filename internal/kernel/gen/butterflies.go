package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// arithmetic holds the instructions of single or double precision.
type arithmetic struct {
	name, element string
	add, less     func(...Op)
	one           func(v isa) VecVirtual
}

var (
	single = arithmetic{
		"Singles", "float32", func(o ...Op) { VADDPS(o...) }, func(o ...Op) { VFNMADD231PS(o...) },
		func(v isa) VecVirtual { return v.constant(0x3F800000) },
	}
	double = arithmetic{
		"Doubles", "float64", func(o ...Op) { VADDPD(o...) }, func(o ...Op) { VFNMADD231PD(o...) },
		func(v isa) VecVirtual { return v.constant64(0x3FF0000000000000) },
	}
)

// constant64 fills a vector with a 64-bit value.
func (v isa) constant64(bits uint64) VecVirtual {
	r := v.bytes(bits)
	VPBROADCASTQ(r.AsX(), r)
	return r
}

// four multiplies four rows by the matrix of ±1 of size 4. Differences are fused
// multiplications with a factor of 1, so that a processor's addition units and its
// fused units both have work.
func (v isa) four(t arithmetic, one VecVirtual, y []VecVirtual) {
	a, b, c, d := v.vec(), v.vec(), y[0], y[2]
	t.add(y[1], y[0], a)
	t.add(y[3], y[2], b)
	t.less(one, y[1], c)
	t.less(one, y[3], d)
	y[0], y[1], y[2], y[3] = v.vec(), a, v.vec(), b
	t.add(d, a, y[0])
	t.less(one, d, a)
	t.add(b, c, y[2])
	t.less(one, c, b)
}

// passes writes a function that runs body for every set of together rows that lie apart
// bytes from each other.
func (v isa) passes(name string, t arithmetic, doc string, together int, body func(one VecVirtual, row func(i int) Mem)) {
	v.function(name+t.name, "func(x *"+t.element+", sets, distance int)", name+t.name+v.name+" "+doc+
		" Rows of a set lie distance bytes from each other; sets times these rows are all rows.")
	x, sets, distance := param("x"), param("sets"), param("distance")
	three, all, inner := copied(distance), copied(distance), GP64()
	LEAQ(Mem{Base: three, Index: three, Scale: 2}, three)
	IMUL3Q(U8(together-1), all, all)
	one := t.one(v)
	loop("set", sets, func() {
		MOVQ(distance, inner)
		Label("row")
		bases := []Register{x}
		for len(bases) < together/4 {
			next := GP64()
			LEAQ(Mem{Base: bases[len(bases)-1], Index: distance, Scale: 4}, next)
			bases = append(bases, next)
		}
		body(one, func(i int) Mem {
			m := Mem{Base: bases[i/4]}
			switch i % 4 {
			case 1, 2:
				m.Index, m.Scale = distance, uint8(i%4)
			case 3:
				m.Index, m.Scale = three, 1
			}
			return m
		})
		ADDQ(U8(v.width()), x)
		SUBQ(U8(v.width()), inner)
		JNZ(LabelRef("row"))
		ADDQ(all, x)
	})
	VZEROUPPER()
	RET()
}

// pass4 is one stage of butterflies.
func (v isa) pass4(t arithmetic) {
	v.passes("pass4", t, "multiplies sets of 4 rows by the matrix of that size.", 4, func(one VecVirtual, row func(i int) Mem) {
		var y []VecVirtual
		for i := range 4 {
			y = append(y, v.vec())
			VMOVUPS(row(i), y[i])
		}
		v.four(t, one, y)
		for i := range 4 {
			VMOVUPS(y[i], row(i))
		}
	})
}

// pass16 is two stages in one pass.
func (v isa) pass16(t arithmetic) {
	v.passes("pass16", t, "does so with sets of 16 rows, in two stages.", 16, func(one VecVirtual, row func(i int) Mem) {
		y := make([]VecVirtual, 16)
		for i := range y {
			y[i] = v.vec()
			VMOVUPS(row(i), y[i])
		}
		v.sixteen(t, one, y)
		for i := range y {
			VMOVUPS(y[i], row(i))
		}
	})
}

// sixteen multiplies 16 rows by the matrix of size 16.
func (v isa) sixteen(t arithmetic, one VecVirtual, y []VecVirtual) {
	for i := 0; i < 16; i += 4 {
		v.four(t, one, y[i:i+4])
	}
	v.acrossFours(t, one, y)
}

// acrossFours is the second stage of sixteen.
func (v isa) acrossFours(t arithmetic, one VecVirtual, y []VecVirtual) {
	for i := range 4 {
		four := []VecVirtual{y[i], y[i+4], y[i+8], y[i+12]}
		v.four(t, one, four)
		y[i], y[i+4], y[i+8], y[i+12] = four[0], four[1], four[2], four[3]
	}
}

// beginDoubles gathers rows of half as many groups as there are lanes of singles,
// widens them and does two stages.
func (v isa) beginDoubles() {
	v.function("beginDoubles", "func(dst *float64, src *float32, stride, blocks int)",
		described("beginDoubles%s gathers rows of 8 groups that lie stride bytes apart, and multiplies each 16 by the matrix of that size.", v.name))
	dst, src, stride, blocks := param("dst"), param("src"), param("stride"), param("blocks")
	half, one := isa{name: v.name, half256: true}, double.one(v)
	loop("block", blocks, func() {
		var y []VecVirtual
		for i := 0; i < blockRows; i += half.lanes() {
			for _, row := range half.gathered(src, stride, i) {
				wide := v.vec()
				VCVTPS2PD(row, wide)
				y = append(y, wide)
			}
		}
		v.sixteen(double, one, y)
		for k, row := range y {
			VMOVUPS(row, Mem{Base: dst, Disp: k * v.width()})
		}
		ADDQ(U8(4*blockRows), src)
		ADDQ(U32(uint32(blockRows*v.width())), dst)
	})
	VZEROUPPER()
	RET()
}

// endDoubles is the last pass, of 16 rows, and narrows the products.
func (v isa) endDoubles() {
	v.function("endDoubles", "func(dst *float32, src *float64, distance int, factor float64)",
		"endDoubles"+v.name+" multiplies sets of 16 rows that lie distance bytes from each other, which are all rows, by the matrix of that size,"+
			" and by the factor, and rounds them to rows half as large.")
	dst, src, distance := param("dst"), param("src"), param("distance")
	factor, one := v.doubleParam("factor"), double.one(v)
	apart, inner := copied(distance), copied(distance)
	SHRQ(U8(1), apart)
	Label("row")
	from, to := copied(src), copied(dst)
	y := make([]VecVirtual, 16)
	for i := range y {
		y[i] = v.vec()
		VMOVUPD(Mem{Base: from}, y[i])
		ADDQ(distance, from)
	}
	v.sixteen(double, one, y)
	for _, row := range y {
		VMULPD(factor, row, row)
		VCVTPD2PS(row, v.half(row))
		VMOVUPS(v.half(row), Mem{Base: to})
		ADDQ(apart, to)
	}
	ADDQ(U8(v.width()), src)
	ADDQ(U8(v.width()/2), dst)
	SUBQ(U8(v.width()), inner)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// doubleParam fills a vector with a 64-bit parameter.
func (v isa) doubleParam(name string) VecVirtual {
	address, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	r := v.vec()
	VBROADCASTSD(address.Addr, r)
	return r
}

// widenRows widens the half of each row for which dst has room.
func (v isa) widenRows() {
	v.function("widenRows", "func(dst *float64, src *float32, rows int)", "widenRows"+v.name+" widens half of each row.")
	dst, src, rows := param("dst"), param("src"), param("rows")
	loop("row", rows, func() {
		y := v.vec()
		VCVTPS2PD(Mem{Base: src}, y)
		VMOVUPD(y, Mem{Base: dst})
		ADDQ(U8(v.width()), src)
		ADDQ(U8(v.width()), dst)
	})
	VZEROUPPER()
	RET()
}

// narrowRows rounds products.
func (v isa) narrowRows() {
	place, next := "half of rows", v.width()
	if v.wide {
		place, next = "rows", v.width()/2
	}
	v.function("narrowRows", "func(dst *float32, src *float64, rows int, factor float64)",
		"narrowRows"+v.name+" multiplies rows, and rounds them to "+place+" of dst.")
	dst, src, rows := param("dst"), param("src"), param("rows")
	factor := v.doubleParam("factor")
	loop("row", rows, func() {
		y := v.vec()
		VMULPD(Mem{Base: src}, factor, y)
		if v.wide {
			VCVTPD2PS(y, v.half(y))
			VMOVUPS(v.half(y), Mem{Base: dst})
		} else {
			VCVTPD2PSY(y, v.half(y))
			VMOVUPS(v.half(y), Mem{Base: dst})
		}
		ADDQ(U8(v.width()), src)
		ADDQ(U8(next), dst)
	})
	VZEROUPPER()
	RET()
}
