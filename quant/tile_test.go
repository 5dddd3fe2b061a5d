package quant

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/safetensors"
)

// layout is what Scheme and Scaled have in common.
type layout interface {
	Tensors() []Tensor
	Decode(dst []float32, src [][]byte, a Area, out safetensors.Dtype, scratch *Scratch)
	Written(i int, a Area) []Span
	Needed(i int, a Area) []Span
	Measure(start int, values []float32, s *Scratch) []Range
}

// encodeRun stores a run of values, with measured ranges or without.
func encodeRun(l layout, dst [][]byte, start int, w []float32, ranges []Range, s *Scratch) error {
	v := ValuesOf(Line(start, start+len(w)), w)
	if scheme, ok := l.(*Scheme); ok {
		return scheme.encode(dst, v, &known{ranges: ranges}, s)
	}
	return l.(*Scaled).encode(dst, v, ranges, s)
}

// tiles cuts n values at random multiples of unit.
func tiles(r *rand.Rand, n, unit int, f func(start, end int)) {
	for start := 0; start < n; {
		end := min(start+unit*(1+r.IntN(1+n/unit/4)), n)
		f(start, end)
		start = end
	}
}

// section is the part of every tensor that a tile needs or fills.
func section(data [][]byte, at func(i int, a Area) []Span, start, end int) [][]byte {
	parts := make([][]byte, len(data))
	for i, d := range data {
		span := at(i, Line(start, end))[0]
		parts[i] = d[span.Offset : span.Offset+span.Size : span.Offset+span.Size]
	}
	return parts
}

// encoded stores w in random tiles of multiples of unit.
func encoded(t *testing.T, r *rand.Rand, l layout, g *Grid, w []float32, unit int, ranges []Range) [][]byte {
	t.Helper()
	data, scratch := allocate(l, g.Values), new(Scratch)
	tiles(r, g.Values, unit, func(start, end int) {
		if err := encodeRun(l, section(data, l.Written, start, end), start, w[start:end], ranges, scratch); err != nil {
			t.Fatal(err)
		}
	})
	return data
}

// checkTiles compares tiles with the whole, and decoding with out.
func checkTiles(t *testing.T, r *rand.Rand, name string, l layout, g *Grid, w []float32, out safetensors.Dtype) {
	t.Helper()
	whole := encoded(t, r, l, g, w, g.Values, nil)
	ranges := make([]Range, g.Groups())
	tiles(r, g.Values, 1, func(start, end int) {
		for i, part := range l.Measure(start, w[start:end], new(Scratch)) {
			group := start/g.Group + i
			if group*g.Group < start {
				part = ranges[group].Join(part)
			}
			ranges[group] = part
		}
	})
	for what, data := range map[string][][]byte{
		"measured tiles":        encoded(t, r, l, g, w, g.Block, ranges),
		"tiles of whole groups": encoded(t, r, l, g, w, lcm(g.Block, g.Group), nil),
	} {
		for i := range whole {
			if !bytes.Equal(data[i], whole[i]) {
				t.Fatalf("%s: %s give another %s", name, what, l.Tensors()[i].Role)
			}
		}
	}
	want, got, scratch := make([]float32, g.Values), make([]float32, g.Values), new(Scratch)
	l.Decode(want, whole, Line(0, len(want)), out, scratch)
	tiles(r, g.Values, g.Block, func(start, end int) {
		l.Decode(got[start:end], section(whole, l.Needed, start, end), Line(start, end), out, scratch)
	})
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(want[i]) && (v == v || want[i] == want[i]) {
			t.Fatalf("%s: value %d is restored as %v in tiles, %v at once", name, i, v, want[i])
		}
	}
}

// sample is a weight with outliers, zeros of both signs and equal groups.
func sample(r *rand.Rand, n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		switch w[i] = float32(0.03 * r.NormFloat64()); r.IntN(20) {
		case 0:
			w[i] = float32(math.Copysign(0, r.Float64()-0.5))
		case 1:
			w[i] *= 30
		}
	}
	for i := n / 3; i < n/2; i++ {
		w[i] = float32(math.Copysign(0, r.Float64()-0.5))
	}
	return w
}

// TestTilesDoNotChangeBytes: a file would depend on memory and threads. Blocks
// of 16 and groups of 5 cross the rows of 20.
func TestTilesDoNotChangeBytes(t *testing.T) {
	scales := []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16}
	for _, shape := range [][]int{{12, 20}, {16, 35}} {
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(11, uint64(shape[0])))
			n := 0
			for _, d := range dtype.All() {
				if !d.Storable() {
					continue
				}
				for _, group := range []int{0, 5, 7, 10, -1, -2} {
					n++
					o := Options{Dtype: d, GroupSize: group, ScaleDtype: scales[n%3], ExactReference: n%2 == 0}
					s, err := NewScheme(shape, o)
					if err != nil {
						t.Fatal(err)
					}
					checkTiles(t, r, fmt.Sprintf("%v group %d", d, group), s, &s.Grid, sample(r, s.Values), safetensors.F32)
				}
			}
			if n != 6*172 {
				t.Errorf("%d cases, want %d", n, 6*172)
			}
			for name, rule := range rules {
				for _, perRow := range []bool{false, true} {
					s, err := NewScaled(shape, rule.rule, perRow, false)
					if err != nil {
						t.Fatal(err)
					}
					for _, out := range scales {
						checkTiles(t, r, fmt.Sprint(name, perRow), s, &s.Grid, sample(r, s.Values), out)
					}
				}
			}
		})
	}
}

// TestNonfiniteNamesTheValue: the user could not find it.
func TestNonfiniteNamesTheValue(t *testing.T) {
	shape := []int{6, 20}
	s, err := NewScheme(shape, Options{Dtype: parse(t, "uint4"), GroupSize: 10, ScaleDtype: safetensors.F32})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewScaled(shape, Int8Row, true, false)
	if err != nil {
		t.Fatal(err)
	}
	for i, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, l := range []layout{s, c} {
			for _, at := range []int{0, 9, 10, 59, 60, 119} {
				w := make([]float32, 120)
				w[at], w[119] = bad, bad
				var got *NonfiniteError
				start := at / 20 * 20 // the tile of a row, then the whole
				err := encodeRun(l, section(allocate(l, 120), l.Written, start, 120), start, w[start:], nil, new(Scratch))
				if !errors.As(err, &got) || got.Index != at || math.Float32bits(got.Value) != math.Float32bits(bad) {
					t.Errorf("%T, case %d, value %d: error %v", l, i, at, err)
				}
				data := allocate(l, 120)
				if err := encodeRun(l, data, 0, w, nil, new(Scratch)); !errors.As(err, &got) || got.Index != at {
					t.Errorf("%T, case %d, value %d of all: error %v", l, i, at, err)
				}
			}
		}
	}
	w := make([]float32, 120)
	w[7] = float32(math.NaN())
	if _, err := Quantize(w, shape, Options{Dtype: parse(t, "uint4"), ScaleDtype: safetensors.F32}); err == nil || err.Error() != "value 7 is NaN" {
		t.Errorf("error %v", err)
	}
	if _, err := Quantize(w, shape, Options{Dtype: parse(t, "uint4"), AllowNonfinite: true}); err != nil {
		t.Errorf("allowed all the same: %v", err)
	}
}
