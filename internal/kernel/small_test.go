package kernel

import (
	"encoding/binary"
	"math"
	"sort"
	"testing"
)

var smalls = map[string]*Small{
	"e4m3": E4M3, "e5m2": E5M2, "e4m3fnuz": E4M3FNUZ, "e5m2fnuz": E5M2FNUZ, "f16": F16, "bf16": BF16,
}

// slow is a small float by its definition: the magnitudes of codes 0, 1, … and
// of the one above the greatest, which stands for what has no code.
type slow struct {
	magnitudes []float64
	sign       uint16
	over, nan  uint16 // codes of what is too large, and of NaN
	fnuz       bool
}

var slows = map[string]slow{
	"e4m3":     {magnitudes(4, 3, 7, 0x7F), 0x80, 0x7F, 0x7F, false},
	"e5m2":     {magnitudes(5, 2, 15, 0x7C), 0x80, 0x7C, 0x7F, false},
	"e4m3fnuz": {magnitudes(4, 3, 8, 0x80), 0x80, 0x80, 0x80, true},
	"e5m2fnuz": {magnitudes(5, 2, 16, 0x80), 0x80, 0x80, 0x80, true},
	"f16":      {magnitudes(5, 10, 15, 0x7C00), 0x8000, 0x7C00, 0x7E00, false},
	"bf16":     {magnitudes(8, 7, 127, 0x7F80), 0x8000, 0x7F80, 0x7FC0, false},
}

func magnitudes(_, mantissa, bias, above int) []float64 {
	var m []float64
	for code := range above + 1 {
		fraction := float64(code&(1<<mantissa-1)) / float64(int(1)<<mantissa)
		if e := code >> mantissa; e > 0 {
			m = append(m, math.Ldexp(1+fraction, e-bias))
		} else {
			m = append(m, math.Ldexp(fraction, 1-bias))
		}
	}
	return m
}

// encode finds the nearest magnitude, the even code in the middle of two.
func (s slow) encode(v float32) uint16 {
	sign := uint16(0)
	if math.Signbit(float64(v)) {
		sign = s.sign
	}
	x, above := math.Abs(float64(v)), len(s.magnitudes)-1
	code := uint16(sort.SearchFloat64s(s.magnitudes, x))
	switch {
	case v != v:
		code = s.nan
	case int(code) > above:
		code = s.over
	default:
		if code > 0 {
			down, up := x-s.magnitudes[code-1], s.magnitudes[code]-x
			if down < up || down == up && code%2 == 1 {
				code--
			}
		}
		if int(code) == above {
			code = s.over
		}
	}
	if s.fnuz && (code == 0 || code == s.nan) {
		return code
	}
	return sign | code
}

// samples calls f with float32 values, some thousand at a time: those around
// every magnitude and every middle of two, and a stride over all patterns.
func (s slow) samples(f func(x []float32)) {
	var x []float32
	add := func(u uint32) {
		if x = append(x, math.Float32frombits(u)); len(x) == 4096 {
			f(x)
			x = x[:0]
		}
	}
	near, stride := uint32(60), uint32(1021)
	if len(s.magnitudes) > 256 {
		near = 3
	}
	if testing.Short() {
		stride *= 16
	}
	for i, m := range s.magnitudes[1:] {
		for _, v := range []float64{m, (m + s.magnitudes[i]) / 2} {
			u := math.Float32bits(float32(v))
			for d := -min(near, u); d != near+1; d++ {
				add(u + d)
				add(u + d | 1<<31)
			}
		}
	}
	for u := uint64(0); u < 1<<32; u += uint64(stride) {
		add(uint32(u))
	}
	for _, v := range awkward() {
		add(math.Float32bits(v))
	}
	f(x)
}

// TestSmallFloatsRoundToNearest: codes would differ from those of every other
// tool. NaN may have any of its codes in the types with several.
func TestSmallFloatsRoundToNearest(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for name, s := range slows {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				codes, n := make([]uint16, 4096), 0
				s.samples(func(x []float32) {
					k.encodeSmall(codes[:len(x)], x, smalls[name])
					for i, v := range x {
						if n++; codes[i] != s.encode(v) {
							t.Fatalf("%x is code %#x, want %#x", v, codes[i], s.encode(v))
						}
					}
				})
				if n < 50000 {
					t.Errorf("only %d samples", n)
				}
			})
		}
	})
}

// TestSmallFloatsSurvive: a stored weight would change when it is read.
func TestSmallFloatsSurvive(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for name, s := range slows {
			codes := make([]uint16, 2*int(s.sign))
			for i := range codes {
				codes[i] = uint16(i)
			}
			values, again := make([]float32, len(codes)), make([]uint16, len(codes))
			k.decodeSmall(values, codes, smalls[name])
			k.encodeSmall(again, values, smalls[name])
			numbers := 0
			for i, v := range values {
				m := i &^ int(s.sign)
				if want := s.magnitudes[min(m, len(s.magnitudes)-1)]; m < len(s.magnitudes)-1 && !(s.fnuz && i == int(s.sign)) {
					if math.Signbit(float64(v)) != (i != m) || math.Abs(float64(v)) != want {
						t.Errorf("%s: code %#x is %v, want ±%v", name, i, v, want)
					}
					numbers++
				}
				if v == v && again[i] != codes[i] {
					t.Errorf("%s: code %#x is %v, whose code is %#x", name, i, v, again[i])
				}
			}
			want := map[string]int{"e4m3": 254, "e5m2": 248, "e4m3fnuz": 255, "e5m2fnuz": 255, "f16": 63488, "bf16": 65280}
			if numbers != want[name] {
				t.Errorf("%s: %d numbers, want %d", name, numbers, want[name])
			}
			special := map[string][]uint16{"e4m3": {0x7F, 0xFF}, "e4m3fnuz": {0x80}, "e5m2fnuz": {0x80}, "e5m2": {0x7D, 0x7E, 0x7F, 0xFF}}
			for _, c := range special[name] {
				if values[c] == values[c] {
					t.Errorf("%s: code %#x is %v, want NaN", name, c, values[c])
				}
			}
		}
		if v := E5M2.Decode(0xFC); !math.IsInf(float64(v), -1) {
			t.Errorf("e5m2: code 0xfc is %v, want -Inf", v)
		}
	})
}

// TestConversionsOfTheFile: weights of half precision would be read wrong, and
// restored ones written wrong.
func TestConversionsOfTheFile(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for _, c := range []struct {
			name   string
			widen  func([]float32, []byte)
			narrow func([]byte, []float32)
		}{{"f16", k.widenF16, k.narrowF16}, {"bf16", k.widenBF16, k.narrowBF16}} {
			s := slows[c.name]
			raw := make([]byte, 2<<16)
			for i := range 1 << 16 {
				binary.LittleEndian.PutUint16(raw[2*i:], uint16(i))
			}
			values := make([]float32, 1<<16)
			c.widen(values, raw)
			for i, v := range values {
				m := i & 0x7FFF
				switch {
				case m > int(s.over):
					if v == v {
						t.Errorf("%s: %#x is %v, want NaN", c.name, i, v)
					}
				case m == int(s.over):
					if !math.IsInf(float64(v), 1-2*(i>>15)) {
						t.Errorf("%s: %#x is %v", c.name, i, v)
					}
				case math.Abs(float64(v)) != s.magnitudes[m] || math.Signbit(float64(v)) != (i != m):
					t.Errorf("%s: %#x is %v, want ±%v", c.name, i, v, s.magnitudes[m])
				}
			}
			out := make([]byte, 2*4096)
			s.samples(func(x []float32) {
				c.narrow(out[:2*len(x)], x)
				for i, v := range x {
					got := binary.LittleEndian.Uint16(out[2*i:])
					if v != v && got&0x7FFF > s.over {
						continue
					}
					if got != s.encode(v) {
						t.Fatalf("%s: %x is written %#x, want %#x", c.name, v, got, s.encode(v))
					}
				}
			})
		}
		raw, x := make([]byte, 4*200), awkward()[:200]
		k.narrowF32(raw, x)
		again := make([]float32, len(x))
		k.widenF32(again, raw)
		for i, v := range x {
			if math.Float32bits(again[i]) != math.Float32bits(v) {
				t.Errorf("%x is read again as %x", math.Float32bits(v), math.Float32bits(again[i]))
			}
		}
	})
}
