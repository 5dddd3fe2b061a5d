package kernel

import (
	"math"
	"math/bits"
)

// rotate computes the chain that [Rotate] defines, in other ways where these are
// proved to give the same bits:
//
// - n is a power of 4, and the products x·entry are exact: then a fused step adds
// ±x·entry. If the magnitudes of these products add up to at most 2^24 times a unit of
// which all are multiples, no partial sum is rounded in any order, and a fast transform
// will do. So it is with most groups of bfloat16. Otherwise the additions are done in
// order, but only once for all outputs that begin alike. - n is twice a power of 4: the
// products are exact in double precision, and added there. If their magnitudes add up
// to at most 2^53 times their unit, these sums are exact too, and the only rounding is
// that to single precision. Otherwise rounding twice can differ from rounding once only
// if the first rounding gives the midpoint of two singles, which is checked. - Other
// groups, such as those whose products underflow, are fused step by step.
func rotate(x []float32, n int, entry float32) {
	r := newRotor(n, entry)
	for ; len(x) > 0; x = x[n:] {
		if r.fours {
			r.byFours(x[:n:n])
		} else {
			r.byTwos(x[:n:n])
		}
	}
}

// rotor holds the buffers of a rotation.
type rotor struct {
	entry, inverse float32
	fours          bool
	acc, neg       []float32 // for powers of 4
	sums           []float64 // for twice powers of 4
	plus, minus    []float64
}

func newRotor(n int, entry float32) *rotor {
	r := &rotor{entry: entry, inverse: 1 / entry, fours: n&0x55555555 != 0, acc: make([]float32, n)}
	if r.fours {
		r.neg = make([]float32, n)
	} else {
		r.sums, r.plus, r.minus = make([]float64, n), make([]float64, n), make([]float64, n)
	}
	return r
}

// unit returns the exponent of v's last set bit: v is an odd multiple of 2^(unit-150).
// For zero it returns 255 or more.
func unit(v float32) int {
	u := math.Float32bits(v) & (1<<31 - 1)
	if u == 0 {
		return 300
	}
	e := max(u>>23, 1)
	m := u - (e-1)<<23 // includes the leading bit of normal numbers, since e counts from 1
	return int(e) + bits.TrailingZeros32(m|1<<24)
}

func (r *rotor) byFours(x []float32) {
	products, sum, least := r.acc[:len(x)], float32(0), 253
	for i, v := range x {
		p := float32(v*r.entry) + 0 // no negative zero, since the chain begins at 0
		if float32(p*r.inverse) != v {
			r.fused(x)
			return
		}
		products[i] = p
		sum += magnitude(p)
		least = min(least, unit(p))
	}
	copy(x, products)
	// The sum may be too small by 2^-24 of itself for every addition.
	if bound := math.Float32frombits(uint32(least+1) << 23); len(x) <= 1<<16 && sum <= bound*0.99 {
		butterflies(x)
		return
	}
	for i, v := range x {
		r.neg[i] = -v
	}
	chainFours(r.acc, x, r.neg)
	for i, v := range r.acc {
		x[i] = v + 0
	}
}

func magnitude(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// fused follows the definition step by step.
func (r *rotor) fused(x []float32) {
	for j := range r.acc {
		sum := float32(0)
		for k, v := range x {
			h := r.entry
			if r.fours && minusFours(k^j) || !r.fours && bits.OnesCount(uint(k&j))&1 == 1 {
				h = -h
			}
			sum = FMA(v, h, sum)
		}
		r.acc[j] = sum + 0
	}
	copy(x, r.acc)
}

// minusFours reports whether the matrix of size 4^a has a negative entry in
// rows and columns whose xor is x: an odd number of its digits to base 4 is 3.
func minusFours(x int) bool { return bits.OnesCount(uint(x&(x>>1)&0x55555555))&1 == 1 }

// chainFours adds ±x in the order of rows for every output. The first m rows give only
// m different sums, up to the sign, which rounding respects; therefore first a quarter,
// then half, and then all of the outputs are computed separately. neg is -x.
func chainFours(acc, x, neg []float32) {
	y := x[:4]
	acc[0] = y[0] + y[1] + y[2] - y[3]
	acc[1] = y[0] + y[1] - y[2] + y[3]
	acc[2] = y[0] - y[1] + y[2] + y[3]
	acc[3] = -y[0] + y[1] + y[2] + y[3]
	for m := 4; m < len(acc); m *= 4 {
		a, b, c, d := acc[:m], acc[m:2*m], acc[2*m:3*m], acc[3*m:4*m]
		row := func(i int) ([]float32, []float32) { return x[i*m : i*m+m], neg[i*m : i*m+m] }
		copy(c, a)
		plus, minus := row(1)
		addFours(a, plus, minus)
		addFours(c, minus, plus)
		copy(b, a)
		copy(d, c) // the sums of the opposite sign
		plus, minus = row(2)
		addFours(a, plus, minus)
		addFours(b, minus, plus)
		addFours(c, plus, minus)
		addFours(d, minus, plus)
		plus, minus = row(3)
		addFours(a, minus, plus)
		addFours(b, plus, minus)
		addFours(c, plus, minus)
		addFours(d, minus, plus)
		for i, v := range d {
			d[i] = -v
		}
	}
}

// addFours adds the rows of one block to the sums of one block.
func addFours(acc, plus, minus []float32) {
	if len(acc) == 4 {
		addQuad((*[4]float32)(acc), (*[4]float32)(plus))
		return
	}
	for k := 0; k < len(acc); k += 16 {
		for j := 0; j < len(acc); j += 16 {
			p, n := (*[16]float32)(plus[k:]), (*[16]float32)(minus[k:])
			if minusFours((k ^ j) >> 4) {
				p, n = n, p
			}
			s := (*[16]float32)(acc[j:])
			p0, p1, p2, p3 := (*[4]float32)(p[0:]), (*[4]float32)(p[4:]), (*[4]float32)(p[8:]), (*[4]float32)(p[12:])
			n0, n1, n2, n3 := (*[4]float32)(n[0:]), (*[4]float32)(n[4:]), (*[4]float32)(n[8:]), (*[4]float32)(n[12:])
			addQuads((*[4]float32)(s[0:]), p0, p1, p2, n3)
			addQuads((*[4]float32)(s[4:]), p0, p1, n2, p3)
			addQuads((*[4]float32)(s[8:]), p0, n1, p2, p3)
			addQuads((*[4]float32)(s[12:]), n0, p1, p2, p3)
		}
	}
}

func addQuad(s, y *[4]float32) {
	y0, y1, y2, y3 := y[0], y[1], y[2], y[3]
	s[0] = s[0] + y0 + y1 + y2 - y3
	s[1] = s[1] + y0 + y1 - y2 + y3
	s[2] = s[2] + y0 - y1 + y2 + y3
	s[3] = s[3] - y0 + y1 + y2 + y3
}

// addQuads is four times addQuad.
func addQuads(s, p, q, r, t *[4]float32) {
	a, b, c, d := s[0], s[1], s[2], s[3]
	y0, y1, y2, y3 := p[0], p[1], p[2], p[3]
	a, b, c, d = a+y0+y1+y2-y3, b+y0+y1-y2+y3, c+y0-y1+y2+y3, d-y0+y1+y2+y3
	y0, y1, y2, y3 = q[0], q[1], q[2], q[3]
	a, b, c, d = a+y0+y1+y2-y3, b+y0+y1-y2+y3, c+y0-y1+y2+y3, d-y0+y1+y2+y3
	y0, y1, y2, y3 = r[0], r[1], r[2], r[3]
	a, b, c, d = a+y0+y1+y2-y3, b+y0+y1-y2+y3, c+y0-y1+y2+y3, d-y0+y1+y2+y3
	y0, y1, y2, y3 = t[0], t[1], t[2], t[3]
	a, b, c, d = a+y0+y1+y2-y3, b+y0+y1-y2+y3, c+y0-y1+y2+y3, d-y0+y1+y2+y3
	s[0], s[1], s[2], s[3] = a, b, c, d
}

func (r *rotor) byTwos(x []float32) {
	// A single below 2^-126 comes from a sum of at most 53 bits, which is exact,
	// because the products are multiples of 2^-179. That holds up to this size.
	if len(x) > 8192 {
		r.fused(x)
		return
	}
	sum, least := 0.0, 1000
	for i, v := range x {
		p := float64(float64(v) * float64(r.entry))
		r.plus[i], r.minus[i] = p, -p
		sum += math.Abs(p)
		least = min(least, unit(v))
	}
	exact := sum <= math.Ldexp(0.99, 53+least+unit(r.entry)-300)
	if chainTwos(r.sums, r.plus, r.minus, exact) {
		r.fused(x)
		return
	}
	for i, v := range r.sums {
		x[i] = float32(v) + 0
	}
}

// chainTwos adds the products in the order of rows for every output, rounding each sum
// to single precision. The first m rows give only m different sums. It reports whether
// a sum may have been rounded wrongly; if exact is set it reports false.
func chainTwos(acc, plus, minus []float64, exact bool) (doubt bool) {
	add := addTwosChecked
	if exact {
		add = addTwos
	}
	clear(acc[:4])
	doubt = add(acc[:4], plus[:4], minus[:4])
	for m := 4; m < len(acc); m *= 2 {
		copy(acc[m:2*m], acc[:m])
		doubt = add(acc[:m], plus[m:2*m], minus[m:2*m]) || doubt
		doubt = add(acc[m:2*m], minus[m:2*m], plus[m:2*m]) || doubt
	}
	return doubt
}

func single(v float64) float64 { return float64(float32(v)) }

func addTwos(acc, plus, minus []float64) bool {
	for k := 0; k < len(acc); k += 4 {
		for j := 0; j < len(acc); j += 4 {
			y := (*[4]float64)(plus[k:])
			if bits.OnesCount(uint(k&j))&1 == 1 {
				y = (*[4]float64)(minus[k:])
			}
			s := (*[4]float64)(acc[j:])
			a, b, c, d := s[0], s[1], s[2], s[3]
			a, b, c, d = single(a+y[0]), single(b+y[0]), single(c+y[0]), single(d+y[0])
			a, b, c, d = single(a+y[1]), single(b-y[1]), single(c+y[1]), single(d-y[1])
			a, b, c, d = single(a+y[2]), single(b+y[2]), single(c-y[2]), single(d-y[2])
			a, b, c, d = single(a+y[3]), single(b-y[3]), single(c-y[3]), single(d+y[3])
			s[0], s[1], s[2], s[3] = a, b, c, d
		}
	}
	return false
}

// addTwosChecked is addTwos that also reports whether a sum is the midpoint of two
// singles.
func addTwosChecked(acc, plus, minus []float64) bool {
	doubt := uint64(0)
	add := func(a, y float64) float64 {
		v := a + y
		// sets the highest bit only if the low 29 bits are those of a midpoint
		doubt |= (math.Float64bits(v)&(1<<29-1) ^ 1<<28) - 1
		return float64(float32(v))
	}
	for k := 0; k < len(acc); k += 4 {
		for j := 0; j < len(acc); j += 4 {
			y := (*[4]float64)(plus[k:])
			if bits.OnesCount(uint(k&j))&1 == 1 {
				y = (*[4]float64)(minus[k:])
			}
			s := (*[4]float64)(acc[j:])
			a, b, c, d := s[0], s[1], s[2], s[3]
			a, b, c, d = add(a, y[0]), add(b, y[0]), add(c, y[0]), add(d, y[0])
			a, b, c, d = add(a, y[1]), add(b, -y[1]), add(c, y[1]), add(d, -y[1])
			a, b, c, d = add(a, y[2]), add(b, y[2]), add(c, -y[2]), add(d, -y[2])
			a, b, c, d = add(a, y[3]), add(b, -y[3]), add(c, -y[3]), add(d, y[3])
			s[0], s[1], s[2], s[3] = a, b, c, d
		}
	}
	return doubt>>63 != 0
}

// butterflies multiplies by the matrix of ±1 whose size is a power of 4, in stages. The
// result has no negative zero if x has none.
func butterflies[T float32 | float64](x []T) {
	for i := 0; i+4 <= len(x); i += 4 {
		y := (*[4]T)(x[i:])
		a, b, c, d := y[0]+y[1], y[2]+y[3], y[0]-y[1], y[2]-y[3]
		y[0], y[1], y[2], y[3] = a+d, a-d, c+b, b-c
	}
	for s := 4; s < len(x); s *= 4 {
		for at := 0; at < len(x); at += 4 * s {
			y0, y1 := x[at:at+s:at+s], x[at+s:at+2*s:at+2*s]
			y2, y3 := x[at+2*s:at+3*s:at+3*s], x[at+3*s:at+4*s:at+4*s]
			y1, y2, y3 = y1[:len(y0)], y2[:len(y0)], y3[:len(y0)]
			for i := range y0 {
				a, b, c, d := y0[i]+y1[i], y2[i]+y3[i], y0[i]-y1[i], y2[i]-y3[i]
				y0[i], y1[i], y2[i], y3[i] = a+d, a-d, c+b, b-c
			}
		}
	}
}

// rotateOnce adds in double precision, in stages, and rounds once at the end.
func rotateOnce(x []float32, n int, entry float32) {
	y := make([]float64, n)
	for ; len(x) > 0; x = x[n:] {
		for i, v := range x[:n] {
			y[i] = float64(v)
		}
		if n&0x55555555 != 0 {
			butterflies(y)
		} else {
			sylvester(y)
		}
		for i, v := range y {
			x[i] = float32(float64(v*float64(entry))) + 0 // no negative zero
		}
	}
}

// sylvester multiplies by the matrix of ±1 of any size that is a power of 2.
func sylvester(x []float64) {
	for s := 1; s < len(x); s *= 2 {
		for at := 0; at < len(x); at += 2 * s {
			y, z := x[at:at+s], x[at+s:at+2*s]
			for i, v := range y {
				y[i], z[i] = v+z[i], v-z[i]
			}
		}
	}
}

// widening returns a rotation that widens raw values first.
func widening(widen func(dst []float32, src []byte), rotate func(x []float32, n int, entry float32)) func(dst []float32, src []byte, n int, entry float32) {
	return func(dst []float32, src []byte, n int, entry float32) {
		widen(dst, src)
		rotate(dst, n, entry)
	}
}
