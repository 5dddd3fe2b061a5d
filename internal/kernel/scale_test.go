package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func same(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b }

// exactFMA rounds the exact x·y + z once. 800 bits hold every such sum.
func exactFMA(x, y, z float32) float32 {
	wide := func(v float32) *big.Float { return new(big.Float).SetPrec(800).SetFloat64(float64(v)) }
	product := wide(x)
	product.Mul(product, wide(y))
	r, _ := product.Add(product, wide(z)).Float32()
	return r
}

// TestFMARoundsOnce: restored weights would differ from sdnq's in the last bit.
func TestFMARoundsOnce(t *testing.T) {
	f := math.Float32frombits
	vectors := []struct{ v, s, z, want uint32 }{
		{math.Float32bits(14), 0x3D8057B2, 0xBF3E8EF9, 0x3E0829FA},
		{math.Float32bits(5), 0x3D964C06, 0xBED400EC, 0xBD410F24},
		{math.Float32bits(10), 0x3D8F3F9E, 0xBE458E44, 0x3F01ABF4},
	}
	eachSet(t, func(t *testing.T, k *set) {
		for _, c := range vectors {
			x := []float32{f(c.v)}
			if k.scaleFrom(x, f(c.s), f(c.z)); math.Float32bits(x[0]) != c.want {
				t.Errorf("%g · %x + %x is %x, want %x", f(c.v), c.s, c.z, math.Float32bits(x[0]), c.want)
			}
		}
		rounded := 0
		check := func(x, y, z float32) {
			got, want := []float32{x}, exactFMA(x, y, z)
			if k.scaleFrom(got, y, z); !same(got[0], want) {
				t.Errorf("%x · %x + %x is %x, want %x", x, y, z, got[0], want)
			}
			if !same(float32(float64(x)*float64(y)+float64(z)), want) {
				rounded++
			}
		}
		r := rand.New(rand.NewPCG(3, 4))
		for range 20000 {
			finite := func() float32 { return f(r.Uint32() & 0xFF7FFFFF) }
			check(finite(), finite(), finite())
			check(float32(r.IntN(32)), float32(r.ExpFloat64()), float32(r.NormFloat64())) // as in use
			e := r.IntN(40) - 20
			check(float32(r.NormFloat64()), float32(math.Ldexp(r.NormFloat64(), e)), float32(math.Ldexp(r.NormFloat64(), e)))
		}
		// Just beside the middle of two results: (1+a)(1-a) = 1 - a², half a
		// step of z; a double sum drops a².
		for a := float32(1); a < 100; a++ {
			for _, e := range []int{0, 40, 100, -100, -140, -170} {
				z := float32(math.Ldexp(1<<24+2*float64(r.IntN(1<<22)), e))
				x, y := 1+a*0x1p-23, float32(math.Ldexp(1-float64(a)*0x1p-23, max(e, -126)))
				for range 4 {
					check(x, y, z)
					y = -y
					check(x, y, z)
					z = -z
				}
			}
		}
		if rounded < 100 {
			t.Errorf("only %d cases in which double precision rounds twice", rounded)
		}
	})
}

// TestMinMaxTakesTheFirstZero: zero points would get the wrong sign, and a NaN
// would go unseen.
func TestMinMaxTakesTheFirstZero(t *testing.T) {
	nan, inf, minus := float32(math.NaN()), float32(math.Inf(1)), float32(math.Copysign(0, -1))
	cases := []struct {
		x      []float32
		lo, hi float32
	}{
		{[]float32{0, minus}, 0, 0},
		{[]float32{minus, 0}, minus, minus},
		{[]float32{1, minus, 0}, minus, 1},
		{[]float32{-1, 0, minus}, -1, 0},
		{[]float32{nan, 1}, nan, nan},
		{[]float32{1, 2, nan}, nan, nan},
		{[]float32{-inf, nan, inf}, nan, nan},
		{[]float32{-inf, inf, 3}, -inf, inf},
		{[]float32{7}, 7, 7},
		{[]float32{0x1p-149, -0x1p-149}, -0x1p-149, 0x1p-149},
	}
	eachSet(t, func(t *testing.T, k *set) {
		for _, c := range cases {
			if lo, hi := k.minMax(c.x); !same(lo, c.lo) || !same(hi, c.hi) {
				t.Errorf("%v: %v, %v, want %v, %v", c.x, lo, hi, c.lo, c.hi)
			}
		}
		r := rand.New(rand.NewPCG(5, 6))
		for n := 1; n <= 130; n++ { // zeros of random sign among non-negative values
			for range 20 {
				x, first := make([]float32, n), -1
				for i := range x {
					if x[i] = float32(r.IntN(3)); x[i] == 0 {
						x[i] = []float32{0, minus}[r.IntN(2)]
						if first < 0 {
							first = i
						}
					}
				}
				lo, hi := k.minMax(x)
				if first >= 0 && !same(lo, x[first]) {
					t.Fatalf("%v: least %v, want value %d", x, lo, first)
				}
				for i := range x {
					x[i] = -x[i]
				}
				if least, most := k.minMax(x); least != -hi || first >= 0 && !same(most, x[first]) {
					t.Fatalf("%v: %v, %v, want -%v and value %d", x, least, most, hi, first)
				}
				x[r.IntN(n)] = nan
				if least, most := k.minMax(x); least == least || most == most {
					t.Fatalf("%v: %v, %v, want NaN", x, least, most)
				}
			}
		}
	})
}

// TestScalingRoundsEachStep: codes beside a tie would differ from sdnq's. A
// quotient, a product or a difference in double precision rounds to single as
// if it were exact.
func TestScalingRoundsEachStep(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	values := awkward()
	for range 3000 {
		values = append(values, math.Float32frombits(r.Uint32()), float32(r.NormFloat64()))
	}
	bound := func(v, lo, hi float32) float32 {
		if v != v {
			return v
		}
		if v < lo {
			return lo
		}
		if v > hi {
			return hi
		}
		return v
	}
	cases := 40
	if testing.Short() {
		cases = 8
	}
	eachSet(t, func(t *testing.T, k *set) {
		for range cases {
			s, z := values[r.IntN(len(values))], values[r.IntN(len(values))]
			for _, hi := range []float32{1, 127, 32768, math.MaxFloat32} {
				for _, lo := range []float32{-hi, 0} {
					quotient, product := append([]float32(nil), values...), append([]float32(nil), values...)
					k.divide(quotient, z, s, lo, hi)
					k.multiply(product, s, lo, hi)
					for i, v := range values {
						if want := bound(float32(float64(float32(float64(v)-float64(z)))/float64(s)), lo, hi); !same(quotient[i], want) {
							t.Fatalf("(%x - %x) / %x in %g..%g is %x, want %x", v, z, s, lo, hi, quotient[i], want)
						}
						if want := bound(float32(float64(v)*float64(s)), lo, hi); !same(product[i], want) {
							t.Fatalf("%x · %x in %g..%g is %x, want %x", v, s, lo, hi, product[i], want)
						}
					}
				}
			}
		}
	})
}

// TestRoundIntsToEven: halves would become other codes than sdnq's.
func TestRoundIntsToEven(t *testing.T) {
	var x []float32
	for v := -65536; v <= 65536; v++ {
		f := float32(v) / 2
		x = append(x, f, math.Nextafter32(f, -1e9), math.Nextafter32(f, 1e9), f*0x1p-16, float32(v))
	}
	x = append(x, float32(math.Copysign(0, -1)), 0x1p-149, -0x1p-149, 65535.5, -65535.5, float32(math.NaN()))
	eachSet(t, func(t *testing.T, k *set) {
		for _, offset := range []int32{0, 2, 128, 16384, 32768} {
			codes := make([]uint16, len(x))
			k.roundInts(codes, x, offset, 0xBEEF)
			for i, v := range x {
				want := uint16(0xBEEF)
				if v == v {
					want = uint16(int64(math.RoundToEven(float64(v))) + int64(offset))
				}
				if codes[i] != want {
					t.Fatalf("%v + %d is code %d, want %d", v, offset, codes[i], want)
				}
			}
		}
		codes, dst := make([]uint16, 65536), make([]float32, 65536)
		for i := range codes {
			codes[i] = uint16(i)
		}
		for _, c := range []struct {
			flip  uint16
			least int32
			want  func(c uint16) float32
		}{
			{0, 0, func(c uint16) float32 { return float32(c) }},
			{0x8000, -32768, func(c uint16) float32 { return float32(int16(c)) }},
			{0, -64, func(c uint16) float32 { return float32(c) - 64 }},
		} {
			k.decodeInts(dst, codes, c.flip, c.least)
			for i, v := range dst {
				if v != c.want(codes[i]) {
					t.Fatalf("code %d decodes to %v, want %v", i, v, c.want(codes[i]))
				}
			}
		}
	})
}
