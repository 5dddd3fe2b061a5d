package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// lineLanes is how many groups lie side by side: one vector of AVX-512, two of AVX2.
const lineLanes = 16

// lines writes the functions for lines through groups of values.
func (v isa) lines() {
	v.sumLines(false)
	v.sumLines(true)
	v.fitLines()
	v.keepLines()
	v.lineErrors(false)
	v.lineErrors(true)
}

// column is the part of the lanes that fits a vector: at gives its place in a row
// of lanes, row number i from a base on.
type column struct {
	isa
	first int
}

func (c column) at(base Register, row int) Mem {
	return Mem{Base: base, Disp: 4*(lineLanes*row) + 4*c.first}
}

// label makes the name of a loop one of its own.
func (c column) label(name string) string { return fmt.Sprint(name, c.first) }

// columns calls body for each vector of lanes.
func (v isa) columns(body func(c column)) {
	for first := 0; first < lineLanes; first += v.width() / 4 {
		body(column{v, first})
	}
	VZEROUPPER()
	RET()
}

// eachRow calls body for the values of one row after the other, with their weights
// if there are any.
func (c column) eachRow(x, weights, rows Register, body func(x VecVirtual, weights Mem)) {
	from, n, at := copied(x), copied(rows), weights
	if weights != nil {
		at = copied(weights)
	}
	loop(c.label("row"), n, func() {
		body(c.load(f32, c.at(from, 0)), c.at(at, 0))
		ADDQ(U8(4*lineLanes), from)
		if weights != nil {
			ADDQ(U8(4*lineLanes), at)
		}
	})
}

// rounded replaces values by the nearest integers from lo to hi. A value that is not
// above lo, NaN among them, becomes lo.
func (c column) rounded(t, lo, hi, magic VecVirtual) VecVirtual {
	q := c.vec()
	VMAXPS(lo, t, q)
	VMINPS(hi, q, q)
	VADDPS(magic, q, q)
	VSUBPS(magic, q, q)
	return q
}

// weightsParam is the parameter for weights, nil where there are none.
func (v isa) weightsParam(weighted bool) Register {
	if !weighted {
		return nil
	}
	return param("weights")
}

// weighted names a function, and its parameters after x, by whether values have weights.
func (v isa) weighted(name string, weighted bool) (string, string) {
	if weighted {
		return name + "Weighted", "weights, "
	}
	return name, ""
}

func (v isa) sumLines(weighted bool) {
	name, also := v.weighted("sumLines", weighted)
	v.function(name, "func(sums, x, "+also+"from, inverse *float32, rows int, lo, hi float32)",
		name+v.name+" sums up what the nearest codes leave of rows of 16 values.")
	sums, x, from, inverse, rows := param("sums"), param("x"), param("from"), param("inverse"), param("rows")
	weights := v.weightsParam(weighted)
	magic, lo, hi := v.constant(math.Float32bits(0x1.8p23)), v.constantParam("lo"), v.constantParam("hi")
	v.columns(func(c column) {
		start, factor := c.load(f32, c.at(from, 0)), c.load(f32, c.at(inverse, 0))
		var sum [5]VecVirtual
		for i := range sum {
			sum[i] = c.constant(0)
		}
		c.eachRow(x, weights, rows, func(t VecVirtual, m Mem) {
			VSUBPS(start, t, t)
			VMULPS(factor, t, t)
			q, r, product := c.rounded(t, lo, hi, magic), t, c.vec()
			VSUBPS(q, t, r)
			mq, mr := q, r
			if weighted {
				mq, mr = c.vec(), c.vec()
				VMULPS(m, q, mq)
				VMULPS(m, r, mr)
			}
			VADDPS(mq, sum[0], sum[0])
			VADDPS(mr, sum[2], sum[2])
			VMULPS(mr, r, product)
			VADDPS(product, sum[3], sum[3])
			VMULPS(mr, q, mr)
			VADDPS(mr, sum[4], sum[4])
			VMULPS(mq, q, mq)
			VADDPS(mq, sum[1], sum[1])
		})
		for i, r := range sum {
			VMOVUPS(r, c.at(sums, i))
		}
	})
}

// fitLines finds lines by least squares from the sums. Keep has all bits set for lines
// that are moved, none for lines that only turn.
func (v isa) fitLines() {
	v.function("fitLines", "func(fit, sums, n, old *float32, keep uint32)",
		"fitLines"+v.name+" finds the lines that restore 16 groups best.")
	fit, sums, n, old := param("fit"), param("sums"), param("n"), param("old")
	keep := v.constantParam("keep")
	v.columns(func(c column) {
		row := func(base Register, i int) VecVirtual { return c.load(f32, c.at(base, i)) }
		times := func(a, b VecVirtual) VecVirtual {
			r := c.vec()
			VMULPS(a, b, r)
			return r
		}
		q, qq, r, rr, rq := row(sums, 0), row(sums, 1), row(sums, 2), row(sums, 3), row(sums, 4)
		n, inverse, from, scale := row(n, 0), row(n, 1), row(old, 0), row(old, 1)
		c.and(keep, q, q)
		c.and(keep, r, r)
		det := times(n, qq)
		VSUBPS(times(q, q), det, det)
		slope := times(n, rq)
		VSUBPS(times(q, r), slope, slope)
		VDIVPS(det, slope, slope)
		c.whereAbove(det, c.constant(0), slope)
		shift := c.vec()
		VSUBPS(times(slope, q), r, shift)
		VMULPS(inverse, shift, shift)
		VSUBPS(times(slope, rq), rr, rr)
		VSUBPS(times(shift, r), rr, rr)
		VMULPS(scale, rr, rr)
		VMULPS(scale, rr, rr)
		VADDPS(times(shift, scale), from, from)
		VADDPS(times(slope, scale), scale, scale)
		VMULPS(inverse, q, q)
		for i, result := range []VecVirtual{from, scale, rr, q} {
			VMOVUPS(result, c.at(fit, i))
		}
	})
}

// fitRows are the rows of lanes of a fit, of which errors are one.
const fitRows, fitErrors = 4, 2

// keepLines sorts a fit into the two best ones by their errors.
func (v isa) keepLines() {
	v.function("keepLines", "func(best, fit *float32)", "keepLines"+v.name+" keeps the best two of three fits of 16 groups.")
	best, fit := param("best"), param("fit")
	v.columns(func(c column) {
		e := c.load(f32, c.at(fit, fitErrors))
		first, second := c.less(e, c.load(f32, c.at(best, fitErrors))), c.less(e, c.load(f32, c.at(best, fitRows+fitErrors)))
		for i := range fitRows {
			x, one, two := c.load(f32, c.at(fit, i)), c.load(f32, c.at(best, i)), c.load(f32, c.at(best, fitRows+i))
			c.blend(second, x, two)
			c.blend(first, one, two)
			c.blend(first, x, one)
			VMOVUPS(one, c.at(best, i))
			VMOVUPS(two, c.at(best, fitRows+i))
		}
	})
}

// less returns a mask of the lanes in which a is below b.
func (v isa) less(a, b VecVirtual) Op {
	mask := Op(v.vec())
	if v.wide {
		mask = K()
	}
	VCMPPS(U8(more), a, b, mask)
	return mask
}

// blend takes x into to where the mask is set.
func (v isa) blend(mask Op, x, to VecVirtual) {
	if v.wide {
		VMOVAPS(x, mask, to)
		return
	}
	VBLENDVPS(mask, x, to, to)
}

// whereAbove clears lanes of x in which a is not above b.
func (v isa) whereAbove(a, b, x VecVirtual) {
	mask := v.less(b, a)
	if v.wide {
		VMOVAPS_Z(x, mask, x)
	} else {
		VANDPS(mask, x, x)
	}
}

func (v isa) lineErrors(weighted bool) {
	name, also := v.weighted("lineErrors", weighted)
	v.function(name, "func(errors, x, "+also+"by, restored *float32, rows int, lo, hi float32)",
		name+v.name+" sums up the errors of 16 groups that are restored from codes.")
	errors, x, by, restored, rows := param("errors"), param("x"), param("by"), param("restored"), param("rows")
	weights := v.weightsParam(weighted)
	magic, lo, hi := v.constant(math.Float32bits(0x1.8p23)), v.constantParam("lo"), v.constantParam("hi")
	v.columns(func(c column) {
		from, scale := c.load(f32, c.at(by, 0)), c.load(f32, c.at(by, 1))
		zero, step, sum := c.load(f32, c.at(restored, 0)), c.load(f32, c.at(restored, 1)), c.constant(0)
		c.eachRow(x, weights, rows, func(x VecVirtual, m Mem) {
			t := c.vec()
			VSUBPS(from, x, t)
			VDIVPS(scale, t, t)
			d := c.rounded(t, lo, hi, magic)
			VMULPS(step, d, d)
			VADDPS(zero, d, d)
			VSUBPS(d, x, d)
			if weighted {
				VMULPS(m, d, t)
				VMULPS(t, d, d)
			} else {
				VMULPS(d, d, d)
			}
			VADDPS(d, sum, sum)
		})
		VMOVUPS(sum, c.at(errors, 0))
	})
}
