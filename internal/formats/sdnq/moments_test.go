package sdnq

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// someMoments are those of inputs of which few are large, as they are in models, with
// mean 1.
func someMoments(r *rand.Rand, n int) []float32 {
	moments, sum := make([]float64, n), 0.0
	for i := range moments {
		moments[i] = math.Exp(1.5 * r.NormFloat64())
		sum += moments[i]
	}
	weights := make([]float32, n)
	for i, m := range moments {
		weights[i] = float32(m * float64(n) / sum)
	}
	return weights
}

// randomOf gives each test numbers of its own, whatever runs before.
func randomOf(t *testing.T) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(t.Name()))
	return rand.New(rand.NewPCG(4, h.Sum64()))
}

// weighedError is the squared error with that of each column as often as it counts.
func weighedError(w, x, moments []float32) (sum float64) {
	for i, v := range w {
		d := float64(v) - float64(x[i])
		sum += d * d * float64(moments[i%len(moments)])
	}
	return sum
}

// TestMomentsLoseLess: what a layer gives is nearer to what it gave when the search is
// weighed by its inputs, by a group of which no result is worse than without a search.
func TestMomentsLoseLess(t *testing.T) {
	searches(t, func(t *testing.T, shape []int, o Options) {
		r := randomOf(t)
		if o.Kind != Linear || o.Dtype.Bits > 6 || testing.Short() && o.Dtype.Bits != 4 {
			t.Skip()
		}
		s, err := NewScheme(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		moments := someMoments(r, shape[1])
		w := make([]float32, s.Values)
		for i := range w {
			w[i] = float32(r.NormFloat64() * 0.02)
		}
		plain, _ := restored(t, w, shape, o)
		o.Search = true
		searched, q := restored(t, w, shape, o)
		o.Moments = moments
		weighed, qm := restored(t, w, shape, o)
		for i := range q.Data {
			if len(q.Data[i]) != len(qm.Data[i]) {
				t.Fatalf("tensor %d has %d bytes, want %d", i, len(qm.Data[i]), len(q.Data[i]))
			}
		}
		was, most := weighedError(w, searched, moments), 1.0
		switch {
		case o.Hadamard > 0 || o.Rank > 0: // columns meet others
			most = 1.1
		case s.Group > 256: // hardly any scale is better for what counts more
			was = weighedError(w, plain, moments)
		case o.GroupSize == 16 && o.Dtype.Bits <= 4:
			most = 0.97
		}
		if is := weighedError(w, weighed, moments); is > most*was*(1+1e-6) {
			t.Errorf("the weighed error is %.4g of the plain search's", is/was)
		}
		if o.Hadamard > 0 || o.Rank > 0 || s.Group > len(moments) || s.Group < 1 {
			return
		}
		for at := 0; at < len(w); at += s.Group {
			to, own := at+s.Group, moments[at%len(moments):][:s.Group]
			if was, is := weighedError(w[at:to], plain[at:to], own), weighedError(w[at:to], weighed[at:to], own); is > was*(1+1e-5) {
				t.Errorf("group %d: weighed error %g, was %g", at/s.Group, is, was)
			}
		}
	})
}

// TestEqualMomentsChangeNothing: moments that are all the same say nothing, and give the
// bytes of the search without.
func TestEqualMomentsChangeNothing(t *testing.T) {
	searches(t, func(t *testing.T, shape []int, o Options) {
		r := randomOf(t)
		w := make([]float32, tile.Numel(shape))
		for i := range w {
			w[i] = float32(r.NormFloat64())
		}
		o.Search = true
		_, want := restored(t, w, shape, o)
		if o.Moments = slices.Repeat([]float32{1}, shape[1]); o.Kind != Linear {
			o.Moments = someMoments(r, shape[1]) // of which columns are no inputs
		}
		_, got := restored(t, w, shape, o)
		for i := range want.Data {
			if !bytes.Equal(want.Data[i], got.Data[i]) {
				t.Errorf("tensor %d differs", i)
			}
		}
	})
}

// TestMomentsInTiles: how a weight is cut does not change what moments find.
func TestMomentsInTiles(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 14))
	shape := []int{300, 1024}
	moments := someMoments(r, shape[1])
	for _, o := range []Options{
		{GroupSize: 32}, {GroupSize: -1}, {GroupSize: -2}, {GroupSize: 64, Hadamard: 128}, {GroupSize: 64, Rank: 4, ModelDtype: safetensors.F32},
		{GroupSize: 32, ScaleStore: dtype.Lookup("uint8"), ZeroPointStore: dtype.Lookup("uint8")}, {GroupSize: -1, Matmul: true},
	} {
		o.Dtype, o.ScaleDtype, o.Search, o.Moments = dtype.Lookup("uint4"), safetensors.F32, true, moments
		w := make([]float32, shape[0]*shape[1])
		for i := range w {
			w[i] = float32(r.NormFloat64() * (1 + r.ExpFloat64()))
		}
		t.Run(fmt.Sprint(o.GroupSize, o.Hadamard, o.Rank, o.Matmul), func(t *testing.T) { inTiles(t, w, shape, o, 4096, 1<<16, 1<<20) })
	}
}

// TestMomentsOfColumns: a rotation gives each column of a block the mean of the block,
// and moments of another layer are refused.
func TestMomentsOfColumns(t *testing.T) {
	moments := []float32{1, 0, 3, 0, 1, 1, 1, 1, 0, 0, 0, 4, 1, 1, 1, 1}
	o := Options{Dtype: dtype.Lookup("uint4"), GroupSize: 16, Moments: moments}
	s, err := NewScheme([]int{8, 16}, o)
	if err != nil || !slices.Equal(s.Moments(), moments) {
		t.Errorf("%v, %v", s.Moments(), err)
	}
	moments = append(moments, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0)
	o.Hadamard, o.Moments = 16, moments
	s, err = NewScheme([]int{8, 32}, o)
	if err != nil || s.Moments() != nil {
		t.Errorf("blocks of the same mean: %v, %v", s.Moments(), err)
	}
	o.Hadamard = 8
	s, err = NewScheme([]int{8, 32}, o)
	if want := fmt.Sprint(slices.Concat(slices.Repeat([]float32{1}, 16), slices.Repeat([]float32{2}, 8), slices.Repeat([]float32{0}, 8))); err != nil || fmt.Sprint(s.Moments()) != want {
		t.Errorf("%v, %v, want %s", s.Moments(), err, want)
	}
	if _, err := NewScheme([]int{8, 64}, o); err == nil || !strings.Contains(err.Error(), "moments of 32 inputs, and the weight has 64 columns") {
		t.Errorf("of another layer: %v", err)
	}
}

// TestSpikesOfMoments: a group of which one column counts a million times as much as the
// others, or all of which count for little, is stored no worse than without a search.
func TestSpikesOfMoments(t *testing.T) {
	searches(t, func(t *testing.T, shape []int, o Options) {
		if o.Kind != Linear || o.Hadamard > 0 || o.Rank > 0 {
			t.Skip()
		}
		s, err := NewScheme(shape, o)
		if err != nil {
			t.Fatal(err)
		}
		r := randomOf(t)
		moments := slices.Repeat([]float32{1.0 / 1024}, shape[1])
		for i := range moments {
			if r.IntN(50) == 0 {
				moments[i] = 1024
			}
		}
		w := make([]float32, s.Values)
		for i := range w {
			w[i] = float32(r.NormFloat64())
		}
		plain, _ := restored(t, w, shape, o)
		o.Search, o.Moments = true, moments
		weighed, _ := restored(t, w, shape, o)
		for at := 0; at < len(w); at += s.Group {
			n := min(s.Group, shape[1])
			was, is, own := 0.0, 0.0, moments[at%shape[1]:][:n]
			for from := at; from < at+s.Group; from += n {
				was += weighedError(w[from:from+n], plain[from:from+n], own)
				is += weighedError(w[from:from+n], weighed[from:from+n], own)
			}
			if !(is <= was*(1+1e-5)) {
				t.Errorf("group %d: weighed error %g, was %g", at/s.Group, is, was)
			}
		}
	})
}
