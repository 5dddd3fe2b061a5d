package kernel

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
)

// packedFormats are SDNQ's 135, as its table has them, without the zero band.
func packedFormats() []*Packed {
	var list []*Packed
	for bits := uint32(1); bits <= 16; bits++ {
		for e := uint32(1); e <= 5; e++ {
			if e < bits {
				list = append(list, &Packed{Bits: bits, Exponent: e, Mantissa: bits - 1 - e})
			}
			if e <= bits {
				list = append(list, &Packed{Bits: bits, Exponent: e, Mantissa: bits - e, Unsigned: true})
			}
		}
	}
	return list
}

func largest(p *Packed) float32 {
	return float32(math.Ldexp(2-math.Ldexp(1, -int(p.Mantissa)), 1<<(p.Exponent-1)))
}

// value is a code's by the definition of the format.
func value(p *Packed, code int) float64 {
	bias, m := 1<<(p.Exponent-1)-1, int(p.Mantissa)
	e := code >> m & (1<<p.Exponent - 1)
	v := math.Ldexp(float64(code&(1<<m-1)), 1-bias-m)
	if e > 0 {
		v = math.Ldexp(1+math.Ldexp(float64(code&(1<<m-1)), -m), e-bias)
	}
	if !p.Unsigned && v != 0 && code>>(p.Bits-1) != 0 {
		v = -v
	}
	return v
}

// rounded is what SDNQ's rounding makes of a magnitude, in terms of values: at
// 9/16 of a step and above one step is added, what was cut off is kept; below
// the least normal that is rounded to even steps, and above it cut.
func rounded(p *Packed, x float64) float64 {
	if x == 0 {
		return 0
	}
	least := math.Ldexp(2, -1<<(p.Exponent-1)) * 2
	step := func(x float64) float64 {
		_, e := math.Frexp(x)
		return math.Ldexp(1, e-1-int(p.Mantissa))
	}
	if s := step(x); x/s-math.Floor(x/s) >= 9./16 {
		x += s
	}
	if x >= least {
		return math.Floor(x/step(x)) * step(x)
	}
	s := math.Ldexp(least, -int(p.Mantissa))
	if x = math.RoundToEven(x/s) * s; x == least && p.ZeroBand && p.Exponent == 1 {
		return 0
	}
	return x
}

func TestPackedFloatsAreAllThere(t *testing.T) {
	if n := len(packedFormats()); n != 135 {
		t.Errorf("%d formats, want 135", n)
	}
}

// TestPackedFloatsSurvive: a stored weight would change when it is read.
func TestPackedFloatsSurvive(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for _, p := range packedFormats() {
			for _, p.ZeroBand = range []bool{false, true} {
				var codes []uint16
				step := 1
				if p.Bits > 12 {
					step = 7
				}
				for c := 0; c < 1<<p.Bits; c += step {
					codes = append(codes, uint16(c))
				}
				codes = append(codes, uint16(1<<p.Bits-1))
				values, again := make([]float32, len(codes)), make([]uint16, len(codes))
				k.decodePacked(values, codes, p)
				k.encodePacked(again, values, p)
				for i, c := range codes {
					want := value(p, int(c))
					if float64(values[i]) != want || math.Signbit(float64(values[i])) != math.Signbit(want) {
						t.Fatalf("%+v: code %#x is %v, want %v", *p, c, values[i], want)
					}
					if minusZero := want == 0 && c != 0; again[i] != c && !minusZero {
						t.Fatalf("%+v: code %#x is %v, whose code is %#x", *p, c, want, again[i])
					}
				}
			}
		}
	})
}

// TestPackedFloatsRoundAsReference: codes would differ from sdnq's.
func TestPackedFloatsRoundAsReference(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r, random := rand.New(rand.NewPCG(9, 10)), 1500
		if testing.Short() {
			random = 150
		}
		for _, p := range packedFormats() {
			top := largest(p)
			x := []float32{0, float32(math.Copysign(0, -1)), top, -top, 1e-30, -1e-30, 0x1p-149}
			for range random { // and sixteenths of steps, and beside them
				v := float32(math.Ldexp(float64(top), -r.IntN(22)) * r.Float64())
				_, e := math.Frexp(float64(v))
				s := math.Ldexp(1, e-1-int(p.Mantissa)-4)
				w := float32(math.Floor(float64(v)/s) * s)
				x = append(x, v, -v, w, -w, math.Nextafter32(w, 0), math.Nextafter32(w, top))
			}
			codes, values := make([]uint16, len(x)), make([]float32, len(x))
			for _, p.ZeroBand = range []bool{false, true} {
				k.encodePacked(codes, x, p)
				k.decodePacked(values, codes, p)
				for i, v := range x {
					want := rounded(p, math.Abs(float64(v)))
					if negative := math.Signbit(float64(v)); !p.Unsigned {
						if negative != (codes[i]>>(p.Bits-1) != 0) {
							t.Fatalf("%+v: %v is code %#x", *p, v, codes[i])
						}
						if negative {
							want = -want
						}
					}
					if float64(values[i]) != want {
						t.Fatalf("%+v: %x becomes %v, want %v", *p, v, values[i], want)
					}
				}
			}
		}
	})
}

// TestPackedFloatThresholds: the first magnitude of each value, measured on
// the reference. The steps below the least normal go back and forth.
func TestPackedFloatThresholds(t *testing.T) {
	type threshold struct{ from, value float32 }
	above := func(x float32) float32 { return math.Nextafter32(x, 100) }
	eachSet(t, func(t *testing.T, k *set) {
		for _, c := range []struct {
			name       string
			p          Packed
			thresholds []threshold
		}{
			{"float4_e2m1fn", Packed{Bits: 4, Exponent: 2, Mantissa: 1}, []threshold{
				{0, 0}, {0.22265625, 0.5}, {0.25, 0}, {above(0.25), 0.5}, {0.640625, 1}, {1.28125, 1.5},
				{1.78125, 2}, {2.5625, 3}, {3.5625, 4}, {5.125, 6}, {above(6), 6},
			}},
			{"float6_e3m2fn", Packed{Bits: 6, Exponent: 3, Mantissa: 2}, []threshold{
				{0, 0}, {0.029541015625, 0.0625}, {0.03125, 0}, {above(0.03125), 0.0625}, {0.0869140625, 0.125},
				{0.142578125, 0.1875}, {0.15625, 0.125}, {above(0.15625), 0.1875}, {0.205078125, 0.25},
				{0.25 + 0.0625*9/16, 0.3125}, {0.3125 + 0.0625*9/16, 0.375}, {0.375 + 0.0625*9/16, 0.4375},
			}},
		} {
			for i, from := range c.thresholds[:len(c.thresholds)-1] {
				last := math.Nextafter32(c.thresholds[i+1].from, 0)
				x, codes, got := []float32{from.from, last, -from.from, -last}, make([]uint16, 4), make([]float32, 4)
				k.encodePacked(codes, x, &c.p)
				k.decodePacked(got, codes, &c.p)
				for j, want := range []float32{from.value, from.value, -from.value, -from.value} {
					if got[j] != want {
						t.Errorf("%s: %v becomes %v, want %v", c.name, x[j], got[j], want)
					}
				}
			}
		}
	})
}

// TestZeroBand: with one exponent bit sdnq loses what lies just below 2. The
// exact mode must lose the same, and the default nothing.
func TestZeroBand(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for _, p := range packedFormats() {
			if p.Exponent != 1 {
				continue
			}
			step := math.Ldexp(1, -int(p.Mantissa))
			low, high := float32(2-23./16*step), float32(2-7./16*step) // [low, high) is lost
			edges := []float32{low, math.Nextafter32(high, 0), high}
			if p.Mantissa == 0 {
				edges = []float32{0x1p-10, math.Nextafter32(1.5625, 0), 1.5625}
			}
			zero := []bool{true, true, false}
			codes, got := make([]uint16, 3), make([]float32, 3)
			p.ZeroBand = true
			k.encodePacked(codes, edges, p)
			k.decodePacked(got, codes, p)
			for i, v := range got {
				if (v == 0) != zero[i] {
					t.Errorf("%+v: %v becomes %v", *p, edges[i], v)
				}
			}
			p.ZeroBand = false
			k.encodePacked(codes, edges, p)
			k.decodePacked(got, codes, p)
			for i, v := range got {
				if tiny := edges[i] < 0.5; (v != 2 && !tiny) || (tiny && v != 0) {
					t.Errorf("%+v: %v becomes %v by default, want 2", *p, edges[i], v)
				}
			}
		}
	})
}

// TestSplitsAreInverse: neighbours would change places.
func TestSplitsAreInverse(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for n := 0; n <= 200; n += 2 {
			codes, src, got := make([]byte, n), make([]byte, n/2), make([]byte, n)
			for i := range codes {
				codes[i] = byte(i * 7 & 15)
			}
			k.packFours(src, codes)
			if k.splitFours(got, src); !bytes.Equal(got, codes) {
				t.Fatalf("%d codes: %x, want %x", n, got, codes)
			}
			k.packFoursHigh(src, codes)
			if k.splitFoursHigh(got, src); !bytes.Equal(got, codes) {
				t.Fatalf("%d codes, the first high: %x, want %x", n, got, codes)
			}
		}
	})
}
