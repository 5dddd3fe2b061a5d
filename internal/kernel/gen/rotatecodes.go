package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Codes of a byte that share a scale are rotated in whole numbers, though what is
// added up are their values, products of code and scale that were rounded.
//
// In single precision, let S be the scale in units of its last bit, from 2^23 to
// 2^24. The product of the code c and S has 31 bits, of which 24 are kept: it is
// c·S + e, where e is a whole number and |e| ≤ 64. A sum of 256 of them, with signs,
// is A·S + E, of which
//
//	A = Σ ±c, |A| ≤ 136·128 + 120·127 = 32648, as a row of the matrix has 136 of one sign
//	E = Σ ±e, |E| ≤ 16384
//
// come of one rotation, that of c·2^16 + e. S, A and E are numbers of single
// precision, so that one fused step gives the sum, rounded once.
//
// In bfloat16, of which a product keeps 8 bits, it is a whole number of units of the
// scale's eighth bit, 2^15 at most. So 256 of them are 2^23 at most, in any order,
// which is why every sum of a chain is exact.

// codeRotor holds the constants of a rotation of codes.
type codeRotor struct {
	*intRotor
	flip, offset, first VecVirtual
	even, odd           [2]VecVirtual // factors of codes at even and at odd places
	factors             [2]VecVirtual // factors of integers
	zero                VecVirtual
	exponent, places    VecVirtual // for rounding to bfloat16
}

// rotateCodes rotates groups of 256 codes that share a scale.
func (v isa) rotateCodes(name string, begin func(r *codeRotor, code VecVirtual, factors [2]VecVirtual), end func(r *codeRotor, row VecVirtual)) {
	v.function(name, "func(dst *float32, codes *byte, groups int, flip, offset *uint32, f *[4]float32)",
		described("%s%s multiplies the values of groups of 256 codes by the matrix of ±1. f is of type codeFactors.", name, v.name))
	dst, src, groups, f := param("dst"), param("codes"), param("groups"), param("f")
	r := &codeRotor{intRotor: v.newIntRotor(), flip: v.vec(), offset: v.vec(), zero: v.constant(0)}
	r.first, r.exponent, r.places = v.constant(0xFF000000), v.constant(0x7F800000), v.constant(0x47C00000) // 1.5·2^16
	VPBROADCASTB(base("flip"), r.flip)
	VPBROADCASTB(base("offset"), r.offset)
	for i := range r.factors {
		k := v.broadcast(Mem{Base: f, Disp: 4 * i})
		r.even[i], r.odd[i] = v.vec(), v.vec()
		r.xor(r.intRotor.even, k, r.even[i])
		r.xor(r.intRotor.odd, k, r.odd[i])
		r.factors[i] = v.broadcast(Mem{Base: f, Disp: 8 + 4*i})
		r.xor(r.out, r.factors[i], r.factors[i])
	}
	loop("group", groups, func() {
		y := r.numbers(src, begin)
		r.butterflies(y, nil)
		for i, row := range y {
			end(r, row)
			VMOVUPS(row, Mem{Base: dst, Disp: i * v.width()})
		}
		ADDQ(U32(256), src)
		ADDQ(U32(1024), dst)
	})
	VZEROUPPER()
	RET()
}

// numbers returns the integers of a group, in the order of intRotor.numbers.
func (r *codeRotor) numbers(src Register, begin func(r *codeRotor, code VecVirtual, factors [2]VecVirtual)) (y []VecVirtual) {
	for z := range 8 {
		even, odd := r.vec(), r.vec()
		VPMOVZXWD(Mem{Base: src, Disp: 32 * z}, odd)
		r.xor(r.flip, odd, odd)
		VPADDB(r.offset, odd, odd)
		VPSLLD(U8(24), odd, even)
		VPSLLD(U8(16), odd, odd)
		r.and(r.first, odd, odd)
		for i, row := range []VecVirtual{even, odd} { // 2^24 times codes
			VCVTDQ2PS(row, row)
			begin(r, row, [][2]VecVirtual{r.even, r.odd}[i])
			VCVTPS2DQ(row, row)
			y = append(y, row)
		}
	}
	return y
}

// withErrors computes c·2^16 + e as the product minus c·(S - 2^16).
func withErrors(r *codeRotor, code VecVirtual, factors [2]VecVirtual) {
	product := r.vec()
	VMULPS(factors[0], code, product)
	VFNMADD213PS(product, factors[1], code)
}

// joined computes A·S + E.
func joined(r *codeRotor, row VecVirtual) {
	e, t := r.vec(), r.vec()
	VPSLLD(U8(16), row, e)
	VPSRAD(U8(16), e, t)
	VPSUBD(t, row, row)
	VCVTDQ2PS(e, e)
	VCVTDQ2PS(row, row)
	VFMADD213PS(r.zero, r.factors[1], e) // no negative zero
	VFMADD213PS(e, r.factors[0], row)
}

// roundedProducts computes the products, rounded to bfloat16.
func roundedProducts(r *codeRotor, code VecVirtual, factors [2]VecVirtual) {
	VMULPS(factors[0], code, code)
	r.roundBF16(code)
}

// wholeSums turns the sums of such products into values.
func wholeSums(r *codeRotor, row VecVirtual) {
	VCVTDQ2PS(row, row)
	VFMADD213PS(r.zero, r.factors[0], row)
}

// roundBF16 adds a number so great that only 8 bits of x are left, and subtracts it
// again.
func (r *codeRotor) roundBF16(x VecVirtual) {
	power := r.vec()
	r.and(r.exponent, x, power)
	VFMADD231PS(r.places, power, x)
	VFNMADD231PS(r.places, power, x)
}
