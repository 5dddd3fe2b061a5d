package sdnq

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// searches are ways of storing that a search improves, of which a short run takes some.
func searches(t *testing.T, f func(t *testing.T, shape []int, o Options)) {
	t.Helper()
	number := 0
	for _, name := range []string{"uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "int2", "int3", "int4", "int5", "int6", "int7",
		"float8_e4m3fn", "float8_e4m3fnuz", "float6_e3m2fn", "float4_e2m1fn", "float4_e2m2fnu", "float2_e1m0fn"} {
		for _, group := range []int{16, 32, 48, 1024, -1, -2} {
			for _, way := range []struct {
				name   string
				change func(o *Options)
			}{
				{"plain", func(*Options) {}},
				{"bf16 scales", func(o *Options) { o.ScaleDtype = safetensors.BF16 }},
				{"uint8 scales", func(o *Options) { o.ScaleStore, o.ZeroPointStore = dtype.Lookup("uint8"), dtype.Lookup("uint8") }},
				{"int8 scales", func(o *Options) { o.ScaleStore = dtype.Lookup("int8") }},
				{"float scales", func(o *Options) { o.ScaleStore, o.ZeroPointStore = dtype.Lookup("float8_e4m3fn"), nil }},
				{"hadamard", func(o *Options) { o.Hadamard = 16 }},
				{"low rank", func(o *Options) { o.Rank, o.ModelDtype = 3, safetensors.F32 }},
			} {
				if number++; testing.Short() && number%8 != 0 {
					continue
				}
				o := Options{Dtype: golden.Dtype(t, name), GroupSize: group, ScaleDtype: safetensors.F32}
				way.change(&o)
				shape := []int{24, 384}
				if group == 1024 {
					shape = []int{7, 2048}
				}
				t.Run(fmt.Sprint(name, " ", group, " ", way.name), func(t *testing.T) { f(t, shape, o) })
			}
		}
		t.Run(name+" convolution", func(t *testing.T) {
			f(t, []int{8, 32, 3, 3}, Options{Dtype: golden.Dtype(t, name), Kind: Conv, GroupSize: 16, ScaleDtype: safetensors.F32})
		})
	}
}

// restored returns what is restored of a weight, and the bytes.
func restored(t *testing.T, w []float32, shape []int, o Options) ([]float32, *Quantized) {
	t.Helper()
	q, err := Quantize(w, shape, o)
	if err != nil {
		t.Fatal(err)
	}
	x, err := Dequantize(q)
	if err != nil {
		t.Fatal(err)
	}
	return x, q
}

func squaredError(w, x []float32) (sum float64) {
	for i, v := range w {
		d := float64(v) - float64(x[i])
		sum += d * d
	}
	return sum
}

// TestSearchLosesLess: a file that was searched is better than the plain one, in no
// group worse, and looks the same to a loader.
func TestSearchLosesLess(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 9))
	searches(t, func(t *testing.T, shape []int, o Options) {
		s, err := NewScheme(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		w := make([]float32, s.Values)
		for i := range w {
			w[i] = float32(r.NormFloat64() * 0.02)
		}
		plain, q := restored(t, w, shape, o)
		o.Search = true
		found, searched := restored(t, w, shape, o)
		for i, tensor := range searched.Scheme.Tensors() {
			if len(searched.Data[i]) != len(q.Data[i]) || fmt.Sprint(tensor) != fmt.Sprint(q.Scheme.Tensors()[i]) {
				t.Errorf("tensor %d is %v, want %v", i, tensor, q.Scheme.Tensors()[i])
			}
		}
		was, is := squaredError(w, plain), squaredError(w, found)
		if coarse := o.Dtype.Bits < 6 && o.GroupSize != -1 && (o.GroupSize > 0 && o.GroupSize < 64 || o.Dtype.Class == dtype.Integer); is > was || coarse && is > 0.98*was && (o.GroupSize != -2 || o.ScaleStore == nil) {
			t.Errorf("the error is %.3g of the plain one", is/was)
		}
		if o.Hadamard > 0 || o.Rank > 0 || s.Inner > 1 {
			return // groups are not those of the values
		}
		for at := 0; at < len(w); at += s.Group {
			was, is := squaredError(w[at:at+s.Group], plain[at:at+s.Group]), squaredError(w[at:at+s.Group], found[at:at+s.Group])
			if is > was*(1+1e-6) {
				t.Errorf("group %d: error %g, was %g", at/s.Group, is, was)
			}
		}
	})
}

// TestSearchOfAwkwardWeights: zeros, constants, tiny and huge values are stored no
// worse than without a search, and NaN and infinity as without.
func TestSearchOfAwkwardWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 10))
	searches(t, func(t *testing.T, shape []int, o Options) {
		if o.Hadamard > 0 || o.Rank > 0 || o.ScaleStore != nil || o.Kind == Conv {
			t.Skip("values meet those of other groups")
		}
		for _, nonfinite := range []bool{false, true} {
			o, n := o, tile.Numel(shape)
			o.AllowNonfinite, o.Search = nonfinite, false
			s, err := NewScheme(shape, o)
			if err != nil {
				t.Fatal(err)
			}
			w := tiletest.AwkwardWeight(r, n, min(s.Group, 384), nonfinite)
			plain, _ := restored(t, w, shape, o)
			o.Search = true
			found, _ := restored(t, w, shape, o)
			for at := 0; at < n; at += s.Group {
				part, was, is := w[at:at+s.Group], plain[at:at+s.Group], found[at:at+s.Group]
				if e := squaredError(part, was); e == e && !math.IsInf(e, 0) {
					if got := squaredError(part, is); !(got <= e*(1+1e-6)) {
						t.Errorf("group %d: error %g, was %g", at/s.Group, got, e)
					}
				} else if fmt.Sprint(was) != fmt.Sprint(is) {
					t.Errorf("group %d with %v: restored otherwise", at/s.Group, e)
				}
			}
		}
	})
}

// inTiles encodes a weight in tiles of at most so many values, and compares with the
// whole at once.
func inTiles(t *testing.T, w []float32, shape []int, o Options, limits ...int) {
	t.Helper()
	_, whole := restored(t, w, shape, o)
	s := whole.Scheme
	for _, limit := range limits {
		e := s.newEncoder(limit)
		e.list()
		data := make([][]byte, len(whole.Data))
		for i := range data {
			data[i] = make([]byte, len(whole.Data[i]))
		}
		if err := tile.EncodeAll(e, s.Cut(), s.Written, tile.ValuesOf(tile.Line(0, len(w)), w), data, new(tile.Scratch)); err != nil {
			t.Fatal(err)
		}
		for i := range data {
			if !bytes.Equal(data[i], whole.Data[i]) {
				t.Errorf("tensor %d in tiles of %d differs", i, limit)
			}
		}
	}
}

// TestSearchInTiles: how a weight is cut does not change what is found.
func TestSearchInTiles(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 11))
	for _, c := range []struct {
		dtype string
		group int
	}{{"uint4", 32}, {"uint4", -1}, {"uint4", -2}, {"float8_e4m3fn", -1}, {"float4_e2m1fn", 32}, {"float6_e3m3fnu", 64}} {
		group := c.group
		for _, store := range []string{"", "uint8"} {
			o := Options{Dtype: dtype.Lookup(c.dtype), GroupSize: group, ScaleDtype: safetensors.F32, Search: true}
			if store != "" {
				o.ScaleStore, o.ZeroPointStore = dtype.Lookup(store), dtype.Lookup(store)
			}
			shape := []int{300, 1024}
			w := make([]float32, shape[0]*shape[1])
			for i := range w {
				w[i] = float32(r.NormFloat64() * (1 + r.ExpFloat64()))
			}
			t.Run(fmt.Sprint(c.dtype, group, store), func(t *testing.T) { inTiles(t, w, shape, o, 4096, 1<<16, 1<<20) })
		}
	}
}
