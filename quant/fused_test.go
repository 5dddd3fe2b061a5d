package quant

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// sources are the dtypes that are read raw.
var sources = []safetensors.Dtype{safetensors.BF16, safetensors.F16, safetensors.F32}

// roundedTo returns values rounded to a dtype and their bytes.
func roundedTo(w []float32, d safetensors.Dtype) ([]float32, []byte) {
	raw := make([]byte, len(w)*d.Bits()/8)
	switch d {
	case safetensors.BF16:
		kernel.NarrowBF16(raw, w)
	case safetensors.F16:
		kernel.NarrowF16(raw, w)
	default:
		kernel.NarrowF32(raw, w)
	}
	return Widen(make([]float32, len(w)), raw, d), raw
}

// awkwardWeight has groups of zeros, tiny and huge values, equal ones and, on
// demand, of NaN and infinity.
func awkwardWeight(r *rand.Rand, n, group int, nonfinite bool) []float32 {
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

// inTiles encodes in the tiles of an encoder, as a file is.
func inTiles(e Encoder, c Cut, dst [][]byte, written func(i int, a Area) []Span, raw []byte, d safetensors.Dtype) error {
	all, s := Values{Line(0, c.Cols), d, raw}, new(Scratch)
	return Drive(e, c, func(a Area) (Values, error) { return all.run(a.Col, a.Col+a.Cols), nil }, func(v Values) error {
		return e.Encode(section(dst, written, v.Col, v.Col+v.Cols), v, s)
	}, s)
}

// TestFusedEqualsStepwise: the fast way to codes must not differ from the one
// that widens, scales, rounds and packs in turn, for any type, group, source or
// cut into tiles.
func TestFusedEqualsStepwise(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(31, 32))
	fusedTypes := 0
	for _, d := range dtype.All() {
		if !d.Storable() || d.Bits > 8 {
			continue
		}
		for i, group := range []int{-1, -2, 16, 20, 64, 0} {
			for j, allow := range []bool{false, true} {
				if testing.Short() && (i+j)%2 > 0 {
					continue
				}
				for k, source := range sources {
					for kind, shape := range [][]int{Linear: {24, 320}, Conv: {8, 40, 3, 3}, ConvTranspose: {40, 16, 2, 2}} {
						if shape == nil || Kind(kind) != Linear && (i+j)%len(sources) != k {
							continue
						}
						name := fmt.Sprint(d, shape, " group ", group, " of ", source, " nonfinite ", allow)
						o := Options{Dtype: d, Kind: Kind(kind), GroupSize: group, ScaleDtype: []safetensors.Dtype{safetensors.F32, safetensors.BF16}[i%2], AllowNonfinite: allow}
						s, err := NewScheme(shape, o)
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						w, raw := roundedTo(awkwardWeight(r, s.Values, s.Group/s.Inner, allow && source != safetensors.F16), source)
						compareFused(t, name, s, w, raw, source)
						fusedTypes++
					}
				}
			}
		}
	}
	if least := map[bool]int{true: 500, false: 1000}[testing.Short()]; fusedTypes < least {
		t.Errorf("%d types compared, want at least %d", fusedTypes, least)
	}
}

// compareFused encodes once stepwise, and raw in tiles of several sizes.
func compareFused(t *testing.T, name string, s *Scheme, w []float32, raw []byte, source safetensors.Dtype) {
	t.Helper()
	if s.fused == nil {
		t.Fatalf("%s: not fused", name)
	}
	stepwise := *s
	stepwise.fused = nil
	want := allocate(s, s.Values)
	wantErr := stepwise.encodeAll(want, ValuesOf(Line(0, len(w)), w), new(Scratch))
	for _, limit := range []int{s.Values, 40 * s.Block, 800 * s.Block} {
		got := allocate(s, s.Values)
		e := s.newEncoder(limit)
		e.list()
		if !e.raw(source) && (s.Inner == 1 || e.whole) { // else parts of interleaved groups
			t.Fatalf("%s: not raw", name)
		}
		err := inTiles(e, s.Cut(), got, s.Written, raw, source)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("%s, tiles of %d: error %v, want %v", name, limit, err, wantErr)
		}
		for i := range got {
			if err == nil && !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%s, tiles of %d: %s differs", name, limit, s.Tensors()[i].Role)
			}
		}
	}
}

// TestRawScaledEqualsWidened does the same for ComfyUI's formats.
func TestRawScaledEqualsWidened(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 34))
	for i, rule := range []*Rule{Int8Tensor, Int8Row, E4M3Tensor, E5M2Tensor, E4M3Group, Int8Block} {
		for _, group := range []int{320, 20, 320 * 24} {
			for _, source := range sources {
				for _, allow := range []bool{false, true} {
					s, err := NewGrouped([]int{24, 320}, rule, group, []int{}, allow)
					if err != nil {
						t.Fatal(err)
					}
					w, raw := roundedTo(awkwardWeight(r, s.Values, group, allow), source)
					want := [][]byte{make([]byte, s.Values), make([]byte, 4*s.Groups())}
					wantErr := scaledStepwise(s, want, w)
					for _, limit := range []int{s.Values, 40, 800} {
						got := [][]byte{make([]byte, s.Values), make([]byte, 4*s.Groups())}
						err := inTiles(newRanged(s.Cut(), limit, s.encode, s.fused.rangesOf), s.Cut(), got, s.Written, raw, source)
						if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && !(bytes.Equal(got[0], want[0]) && bytes.Equal(got[1], want[1])) {
							t.Fatalf("rule %d, groups of %d, %v, tiles of %d: differs (%v, want %v)", i, group, source, limit, err, wantErr)
						}
					}
				}
			}
		}
	}
}

// scaledStepwise is the definition.
func scaledStepwise(s *Scaled, dst [][]byte, w []float32) error {
	for g := range s.Groups() {
		values := append([]float32(nil), w[g*s.Group:(g+1)*s.Group]...)
		r := rangeOf(values)
		if !r.finite() && !s.AllowNonfinite {
			return CheckFinite(g*s.Group, values)
		}
		factor, scale := s.Rule.scaleOf(r)
		putFloat(dst[1], g, scale, safetensors.F32)
		s.Rule.normalize(values, factor)
		s.Rule.encodeBytes(dst[0][g*s.Group:(g+1)*s.Group], values, new(Scratch))
	}
	return nil
}

// TestInterleavedNonfinite: a NaN in a convolution is named by its place in the file,
// not among the values of its group.
func TestInterleavedNonfinite(t *testing.T) {
	shape := []int{40, 32, 3, 3}
	for _, at := range []int{0, 5000, 40*32*9 - 1} {
		w := sample(rand.New(rand.NewPCG(1, 3)), 40*32*9)
		w[at] = float32(math.NaN())
		_, err := Quantize(w, shape, Options{Dtype: dtype.Lookup("int6"), Kind: Conv, ScaleDtype: safetensors.F32})
		var n *NonfiniteError
		if !errors.As(err, &n) || n.Index != at {
			t.Errorf("NaN at %d: got %v", at, err)
		}
	}
}
