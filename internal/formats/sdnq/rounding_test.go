package sdnq

import (
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
)

// TestStochasticRounding: weights would be biased, or depend on the tiles.
func TestStochasticRounding(t *testing.T) {
	for _, name := range []string{"int8", "uint4", "int16", "float8_e4m3fn", "float8_e5m2", "float6_e3m2fn", "float16", "bfloat16", "float5_e2m2fn"} {
		d := golden.Dtype(t, name)
		n := newNumbers(d, false)
		lo, hi := n.bounds()
		for _, y := range []float32{0, 1.25, 2.9999, 0.3, float32(d.Max), float32(d.Min), 1} {
			y = min(max(y, lo), hi)
			subnormal := d.Class == dtype.Packed && math.Abs(float64(y)) < math.Ldexp(1, 1-d.Bias())
			values, codes := make([]float32, 20000), make([]uint16, 20000)
			for i := range values {
				values[i] = y
			}
			s := NewStochastic(42)
			s.Round(values, 1000, d)
			tiles := make([]float32, len(values))
			for at := 0; at < len(tiles); at += 800 {
				for i := range 800 {
					tiles[at+i] = y
				}
				s.Round(tiles[at:at+800], 1000+at, d)
			}
			before := append([]float32(nil), values...)
			n.encode(codes, values)
			for i := range codes {
				codes[i] &= 1<<d.Bits - 1
			}
			n.decode(values, codes)
			sum, least, most := 0.0, math.Inf(1), math.Inf(-1)
			for i, v := range values {
				if math.Abs(float64(v-before[i])) > 1e-6*math.Abs(float64(v)) && !subnormal || tiles[i] != before[i] {
					t.Fatalf("%s: %v is rounded to %v, in tiles %v, restored as %v", name, y, before[i], tiles[i], v)
				}
				sum += float64(v)
				least, most = min(least, float64(v)), max(most, float64(v))
			}
			if subnormal {
				continue // rounded twice: only the tiles are checked
			}
			sigma := (most - least) / 2 / math.Sqrt(float64(len(values)))
			if d := math.Abs(sum/float64(len(values)) - float64(y)); d > 5*sigma+1e-6*math.Abs(float64(y)) {
				t.Errorf("%s: %v becomes %v in the mean", name, y, sum/float64(len(values)))
			}
			const some = 1e-6
			if least > float64(y)+some*math.Abs(float64(y)) || most < float64(y)-some*math.Abs(float64(y)) || least < float64(lo)*(1+some) || most > float64(hi)*(1+some) {
				t.Errorf("%s: %v becomes %v to %v", name, y, least, most)
			}
		}
	}
	// The generator is part of the format of a seed: it must not change.
	if got := NewStochastic(1).bits(0); got != 0xDCE423FC {
		t.Errorf("bits of seed 1, index 0: %#x", got)
	}
	x := []float32{float32(math.NaN()), float32(math.Inf(1)), -1}
	NewStochastic(3).Round(x, 0, golden.Dtype(t, "float8_e4m3fn"))
	if x[0] == x[0] || !math.IsInf(float64(x[1]), 1) || x[2] != -1 {
		t.Errorf("%v", x)
	}
}
