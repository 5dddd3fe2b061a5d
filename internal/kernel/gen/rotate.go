package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Rotations work on as many groups at a time as a vector has lanes. Value k of
// all of them is row k: a vector. So no step goes across lanes.

// rotations writes what rotations need.
func (v isa) rotations() {
	v.interleave()
	v.deinterleave()
	v.exact()
	fours := func(k, j int) bool { return bits.OnesCount(uint((k^j)&((k^j)>>1)&5))&1 == 1 }
	v.chain("chainFours", fours)
	v.chainSums(fours)
	v.chain("chainTwos", func(k, j int) bool { return bits.OnesCount(uint(k&j))&1 == 1 })
	v.widenRows()
	v.narrowRows()
	for _, t := range []arithmetic{single, double} {
		v.pass4(t)
		if v.wide {
			v.pass16(t)
		}
	}
}

// blockRows are the rows that are worked on at once.
const blockRows = 16

// lanes is how many groups there are.
func (v isa) lanes() int { return v.width() / 4 }

// interleave turns groups into rows.
func (v isa) interleave() {
	v.function("interleave", "func(dst, src *float32, stride, blocks int)",
		described("interleave%s makes 16 rows a block of %d groups that lie stride bytes apart.", v.name, v.lanes()))
	dst, src, stride, blocks := param("dst"), param("src"), param("stride"), param("blocks")
	loop("block", blocks, func() {
		for i := 0; i < blockRows; i += v.lanes() {
			at := copied(src)
			var groups []VecVirtual
			for range v.lanes() {
				groups = append(groups, v.load(f32, Mem{Base: at, Disp: 4 * i}))
				ADDQ(stride, at)
			}
			for k, row := range v.transposed(groups) {
				VMOVUPS(row, Mem{Base: dst, Disp: (i + k) * v.width()})
			}
		}
		ADDQ(U8(4*blockRows), src)
		ADDQ(U32(uint32(blockRows*v.width())), dst)
	})
	VZEROUPPER()
	RET()
}

// deinterleave is the way back. It turns signs and adds zero, which makes a
// negative zero a positive one.
func (v isa) deinterleave() {
	v.function("deinterleave", "func(dst, src *float32, stride, blocks int, signs *uint32)",
		described("deinterleave%s is the way back, and turns the signs of a block by xor.", v.name))
	dst, src, stride, blocks, signs := param("dst"), param("src"), param("stride"), param("blocks"), param("signs")
	zero := v.constant(0)
	loop("block", blocks, func() {
		sign := v.broadcast(Mem{Base: signs})
		for i := 0; i < blockRows; i += v.lanes() {
			var rows []VecVirtual
			for k := range v.lanes() {
				row := v.load(f32, Mem{Base: src, Disp: (i + k) * v.width()})
				v.xor(sign, row, row)
				VADDPS(zero, row, row)
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

// transposed returns the columns of a square of values: first within quarters
// of 128 bits, then these.
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
			VPERM2F128(U8(0x20), quads[4+c], quads[c], columns[c])
			VPERM2F128(U8(0x31), quads[4+c], quads[c], columns[4+c])
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

// exact multiplies rows by the entry and tells the lanes in which products are
// exact, as none is below the least normal number but zero, and those in which
// every sum of ±products is exact too: see rotate. The place of a value's last
// bit is that of the lowest bit of its mantissa, as the exponent of it taken as
// a number, plus the value's own exponent.
func (v isa) exact() {
	v.function("exact", "func(x *float32, rows int, entry float32) (sums, products uint32)",
		described("exact%s multiplies rows by the entry and returns bits for the lanes in which all sums, and all products, are exact.", v.name))
	x, rows := param("x"), param("rows")
	entry := v.constantParam("entry")
	magnitude, mantissa, leading := v.constant(1<<31-1), v.constant(1<<23-1), v.constant(1<<23)
	sum, zero, least, unit := v.constant(0), v.constant(0), v.constant(1<<32-1), v.constant(1<<32-1)
	loop("row", rows, func() {
		m := Mem{Base: x}
		p, y, low := v.load(f32, m), v.vec(), v.vec()
		counts := v.nonzeros(p, magnitude, zero)
		VMULPS(entry, p, p)
		VMOVUPS(p, m)
		v.and(magnitude, p, p)
		VADDPS(p, sum, sum)
		v.and(mantissa, p, y)
		v.or(leading, y, y)
		VPSUBD(y, zero, low)
		v.and(y, low, low)
		VCVTDQ2PS(low, low)
		VPADDD(p, low, low) // the mantissa below does not change the order of exponents
		counts(low, unit)
		counts(p, least)
		ADDQ(U32(uint32(v.width())), x)
	})
	products, sums := v.constant(1<<32-1), v.vec()
	VPMINUD(leading, least, least)
	v.keep(equal, leading, least, products)
	v.move(products, sums)
	// 2^24 units: the exponent of the unit and 24 more, at most the greatest.
	v.andNot(unit, mantissa, unit)
	VPMINUD(v.constant((254+126)<<23), unit, unit)
	VPSUBD(v.constant(126<<23), unit, unit)
	VMULPS(v.constant(0x3F7D70A4), unit, unit) // 0.99
	v.keep(notAbove, unit, sum, sums)
	Store(v.bits(sums), ReturnIndex(0))
	Store(v.bits(products), ReturnIndex(1))
	VZEROUPPER()
	RET()
}

// nonzeros returns what joins y to the least numbers, by lanes, where x is not
// zero.
func (v isa) nonzeros(x, magnitude, zero VecVirtual) func(y, least VecVirtual) {
	if v.wide {
		k := K()
		VPTESTMD(magnitude, x, k)
		return func(y, least VecVirtual) { VPMINUD(y, least, k, least) }
	}
	none := v.vec()
	VCMPPS(U8(equal), zero, x, none)
	return func(y, least VecVirtual) {
		t := v.vec()
		VPOR(none, y, t)
		VPMINUD(t, least, least)
	}
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

// chain adds 16 rows, times ±h, to 16 sums, each in one step that rounds once.
// minus tells the entries of the matrix that are negative.
func (v isa) chain(name string, minus func(k, j int) bool) {
	v.function(name, "func(dst, src, x *float32, h float32)",
		described("%s%s sets 16 rows of dst to those of src and 16 fused steps of x.", name, v.name))
	dst, src, x := param("dst"), param("src"), param("x")
	h := v.constantParam("h")
	v.sums(dst, src, func(acc []VecVirtual, from int) {
		for k := range blockRows {
			row := v.load(f32, Mem{Base: x, Disp: k * v.width()})
			for j, a := range acc {
				if minus(k, from+j) {
					VFNMADD231PS(row, h, a)
				} else {
					VFMADD231PS(row, h, a)
				}
			}
		}
	})
}

// chainSums is chain for rows that hold products: half of the steps are
// additions, half fused with a factor of 1, so that both kinds of units work.
func (v isa) chainSums(minus func(k, j int) bool) {
	v.function("chainSums", "func(dst, src, x *float32, sign uint32)",
		described("chainSums%s sets 16 rows of dst to those of src and 16 sums or differences of x, whose signs it turns by xor.", v.name))
	dst, src, x := param("dst"), param("src"), param("x")
	sign, one := v.constantParam("sign"), v.constant(0x3F800000)
	v.sums(dst, src, func(acc []VecVirtual, from int) {
		for k := range blockRows {
			row := v.load(f32, Mem{Base: x, Disp: k * v.width()})
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
		}
	})
}

// sums loads rows of src, as many as registers hold, calls add for them, and
// stores them in dst.
func (v isa) sums(dst, src Register, add func(acc []VecVirtual, from int)) {
	n := blockRows
	if !v.wide {
		n = blockRows / 2
	}
	for from := 0; from < blockRows; from += n {
		var acc []VecVirtual
		for j := range n {
			acc = append(acc, v.load(f32, Mem{Base: src, Disp: (from + j) * v.width()}))
		}
		add(acc, from)
		for j, a := range acc {
			VMOVUPS(a, Mem{Base: dst, Disp: (from + j) * v.width()})
		}
	}
	VZEROUPPER()
	RET()
}

// arithmetic is that of single or double precision.
type arithmetic struct {
	name, element string
	add, sub      func(...Op)
}

var (
	single = arithmetic{"Singles", "float32", func(o ...Op) { VADDPS(o...) }, func(o ...Op) { VSUBPS(o...) }}
	double = arithmetic{"Doubles", "float64", func(o ...Op) { VADDPD(o...) }, func(o ...Op) { VSUBPD(o...) }}
)

// four multiplies four rows by the matrix of ±1 of size 4.
func (v isa) four(t arithmetic, y []VecVirtual) {
	a, b := v.vec(), v.vec()
	t.add(y[1], y[0], a)
	t.add(y[3], y[2], b)
	c, d := v.vec(), v.vec()
	t.sub(y[1], y[0], c)
	t.sub(y[3], y[2], d)
	t.add(d, a, y[0])
	t.sub(d, a, y[1])
	t.add(b, c, y[2])
	t.sub(c, b, y[3])
}

// passes runs body for each set of rows that lie apart bytes from each other,
// so many of them, in all rows.
func (v isa) passes(name string, t arithmetic, doc string, together int, body func(row func(i int) Mem)) {
	v.function(name+t.name, "func(x *"+t.element+", sets, distance int)", name+t.name+v.name+" "+doc+
		" Rows of a set lie distance bytes from each other; sets times these rows are all rows.")
	x, sets, distance := param("x"), param("sets"), param("distance")
	three, all, inner := copied(distance), copied(distance), GP64()
	LEAQ(Mem{Base: three, Index: three, Scale: 2}, three)
	IMUL3Q(U8(together-1), all, all)
	loop("set", sets, func() {
		MOVQ(distance, inner)
		Label("row")
		bases := []Register{x}
		for len(bases) < together/4 {
			next := GP64()
			LEAQ(Mem{Base: bases[len(bases)-1], Index: distance, Scale: 4}, next)
			bases = append(bases, next)
		}
		body(func(i int) Mem {
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

// pass4 is a stage of butterflies.
func (v isa) pass4(t arithmetic) {
	v.passes("pass4", t, "multiplies sets of 4 rows by the matrix of that size.", 4, func(row func(i int) Mem) {
		var y []VecVirtual
		for i := range 4 {
			y = append(y, v.vec())
			VMOVUPS(row(i), y[i])
		}
		v.four(t, y)
		for i := range 4 {
			VMOVUPS(y[i], row(i))
		}
	})
}

// pass16 is two stages, one after the other.
func (v isa) pass16(t arithmetic) {
	v.passes("pass16", t, "does so with sets of 16 rows, in two stages.", 16, func(row func(i int) Mem) {
		y := make([]VecVirtual, 16)
		for i := range y {
			y[i] = v.vec()
			VMOVUPS(row(i), y[i])
		}
		for i := 0; i < 16; i += 4 {
			v.four(t, y[i:i+4])
		}
		for i := range 4 {
			v.four(t, []VecVirtual{y[i], y[i+4], y[i+8], y[i+12]})
		}
		for i := range y {
			VMOVUPS(y[i], row(i))
		}
	})
}

// widenRows takes the half of rows that dst has room for.
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
	v.function("narrowRows", "func(dst *float32, src *float64, rows int, factor float64)",
		"narrowRows"+v.name+" multiplies rows, and rounds them to half of rows of dst.")
	dst, src, rows := param("dst"), param("src"), param("rows")
	address, _ := Param("factor").Resolve()
	factor := v.vec()
	VBROADCASTSD(address.Addr, factor)
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
		ADDQ(U8(v.width()), dst)
	})
	VZEROUPPER()
	RET()
}
