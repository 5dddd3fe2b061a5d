// Package tiletest has what tests of formats share: weights with awkward values, and the
// comparison of tiles with the whole.
package tiletest

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

func EachRun(spans []tile.Span, f func(from, to int64)) {
	for _, span := range spans {
		for i := range span.Count {
			from := span.Offset + int64(i)*span.Stride
			f(from, from+span.Size)
		}
	}
}

// Sources are the dtypes that are read raw.
var Sources = []safetensors.Dtype{safetensors.BF16, safetensors.F16, safetensors.F32}

// Exact returns bell-shaped values that are the same on every machine: sums of whole
// numbers.
func Exact(r *rand.Rand, n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		sum := 0
		for range 6 {
			sum += r.IntN(2001) - 1000
		}
		w[i] = float32(sum) / 4096
	}
	return w
}

// ExactMoments returns moments of inputs that are the same on every machine.
func ExactMoments(r *rand.Rand, n int) []float32 {
	moments := make([]float32, n)
	for i := range moments {
		moments[i] = float32(1+r.IntN(64)) / 16
	}
	return moments
}

// RoundedTo returns values rounded to a dtype and their bytes.
func RoundedTo(w []float32, d safetensors.Dtype) ([]float32, []byte) {
	raw := make([]byte, len(w)*d.Bits()/8)
	floats.Narrow(raw, w, d)
	return floats.Widen(make([]float32, len(w)), raw, d), raw
}

// AwkwardWeight has groups of zeros, tiny and huge values, equal ones and, on
// demand, of NaN and infinity.
func AwkwardWeight(r *rand.Rand, n, group int, nonfinite bool) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64() * 0.02)
	}
	kinds := []func(i int) float32{
		func(int) float32 { return 0 },
		func(i int) float32 { return float32(math.Copysign(0, float64(i%2)-0.5)) },
		func(i int) float32 { return w[i] * 0x1p-120 },
		func(i int) float32 { return w[i] * 0x1p120 },
		func(int) float32 { return -0.75 },
		func(i int) float32 { return float32(math.Abs(float64(w[i]))) },
		func(i int) float32 { return float32(i%9) * 0.125 }, // ties
		func(i int) float32 { return -max(w[i], 0) },
	}
	if nonfinite {
		kinds = append(kinds, func(i int) float32 { return []float32{w[i], float32(math.NaN())}[i/7%2] },
			func(i int) float32 { return []float32{w[i], float32(math.Inf(1 - i%2*2))}[i/5%2] })
	}
	for at := 0; at < n; at += group {
		if kind := r.IntN(2 * len(kinds)); kind < len(kinds) {
			for i := at; i < min(at+group, n); i++ {
				w[i] = kinds[kind](i)
			}
		}
	}
	return w
}

// layout is what SDNQ's scheme and a format of ComfyUI's with groups have in common.
type layout interface {
	Tensors() []tile.Tensor
	Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch)
	Written(i int, a tile.Area) []tile.Span
	Needed(i int, a tile.Area) []tile.Span
	Measure(start int, values []float32, s *tile.Scratch) []tile.Range
	// Run stores a run of values, with measured ranges or without.
	Run(dst [][]byte, start int, w []float32, ranges []tile.Range, s *tile.Scratch) error
}

// tiles cuts n values at random multiples of unit.
func tiles(r *rand.Rand, n, unit int, f func(start, end int)) {
	for start := 0; start < n; {
		end := min(start+unit*(1+r.IntN(1+n/unit/4)), n)
		f(start, end)
		start = end
	}
}

// Allocate makes room for so many values of a layout.
func Allocate(l interface {
	Tensors() []tile.Tensor
	Written(i int, a tile.Area) []tile.Span
}, values int) [][]byte {
	var data [][]byte
	for i := range l.Tensors() {
		data = append(data, make([]byte, tile.SpanBytes(l.Written(i, tile.Line(0, values)))))
	}
	return data
}

// section is the part of every tensor that a tile needs or fills.
func section(data [][]byte, at func(i int, a tile.Area) []tile.Span, start, end int) [][]byte {
	parts := make([][]byte, len(data))
	for i, d := range data {
		span := at(i, tile.Line(start, end))[0]
		parts[i] = d[span.Offset : span.Offset+span.Size : span.Offset+span.Size]
	}
	return parts
}

// encoded stores w in random tiles of multiples of unit.
func encoded(t *testing.T, r *rand.Rand, l layout, g *group.Grid, w []float32, unit int, ranges []tile.Range) [][]byte {
	t.Helper()
	data, scratch := Allocate(l, g.Values), new(tile.Scratch)
	tiles(r, g.Values, unit, func(start, end int) {
		if err := l.Run(section(data, l.Written, start, end), start, w[start:end], ranges, scratch); err != nil {
			t.Fatal(err)
		}
	})
	return data
}

// CheckTiles compares tiles with the whole, and decoding with out.
func CheckTiles(t *testing.T, r *rand.Rand, name string, l layout, g *group.Grid, w []float32, out safetensors.Dtype) {
	t.Helper()
	whole := encoded(t, r, l, g, w, g.Values, nil)
	ranges := make([]tile.Range, g.Groups())
	tiles(r, g.Values, 1, func(start, end int) {
		for i, part := range l.Measure(start, w[start:end], new(tile.Scratch)) {
			group := start/g.Group + i
			if group*g.Group < start {
				part = ranges[group].Join(part)
			}
			ranges[group] = part
		}
	})
	for what, data := range map[string][][]byte{
		"measured tiles":        encoded(t, r, l, g, w, g.Block, ranges),
		"tiles of whole groups": encoded(t, r, l, g, w, tile.LCM(g.Block, g.Group), nil),
	} {
		for i := range whole {
			if !bytes.Equal(data[i], whole[i]) {
				t.Fatalf("%s: %s give another %s", name, what, l.Tensors()[i].Role)
			}
		}
	}
	want, got, scratch := make([]float32, g.Values), make([]float32, g.Values), new(tile.Scratch)
	l.Decode(want, whole, tile.Line(0, len(want)), out, scratch)
	tiles(r, g.Values, g.Block, func(start, end int) {
		l.Decode(got[start:end], section(whole, l.Needed, start, end), tile.Line(start, end), out, scratch)
	})
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(want[i]) && (v == v || want[i] == want[i]) {
			t.Fatalf("%s: value %d is restored as %v in tiles, %v at once", name, i, v, want[i])
		}
	}
}

// Sample is a weight with outliers, zeros of both signs and equal groups.
func Sample(r *rand.Rand, n int) []float32 {
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

// CheckNames holds a layout of 6 × 20 values to naming those that are not finite.
func CheckNames(t *testing.T, l layout) {
	t.Helper()
	for i, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, at := range []int{0, 9, 10, 59, 60, 119} {
			w := make([]float32, 120)
			w[at], w[119] = bad, bad
			var got *tile.NonfiniteError
			start := at / 20 * 20 // the tile of a row, then the whole
			err := l.Run(section(Allocate(l, 120), l.Written, start, 120), start, w[start:], nil, new(tile.Scratch))
			if !errors.As(err, &got) || got.Index != at || math.Float32bits(got.Value) != math.Float32bits(bad) {
				t.Errorf("case %d, value %d: error %v", i, at, err)
			}
			data := Allocate(l, 120)
			if err := l.Run(data, 0, w, nil, new(tile.Scratch)); !errors.As(err, &got) || got.Index != at {
				t.Errorf("case %d, value %d of all: error %v", i, at, err)
			}
		}
	}
}
