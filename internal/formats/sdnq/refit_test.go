package sdnq

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// spread is a weight with some strong directions.
func spread(r *rand.Rand, rows, columns int) []float32 {
	w := make([]float32, rows*columns)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	for k := range 12 {
		u, v := make([]float64, rows), make([]float64, columns)
		for i := range u {
			u[i] = r.NormFloat64() * 3 / float64(k+1)
		}
		for j := range v {
			v[j] = r.NormFloat64()
		}
		for i := range w {
			w[i] += float32(u[i/columns] * v[i%columns])
		}
	}
	return w
}

// TestRefitLosesLess: a low-rank part that is fitted again to what the quantization
// leaves makes a better file of the same size.
func TestRefitLosesLess(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for _, c := range []struct {
		dtype string
		kind  Kind
		shape []int
		group int
	}{
		{"uint4", Linear, []int{160, 256}, 64}, {"int4", Linear, []int{160, 256}, -1}, {"uint2", Linear, []int{160, 256}, 32},
		{"float4_e2m1fn", Linear, []int{160, 256}, 64}, {"uint4", Conv, []int{96, 32, 3, 3}, 16}, {"int8", Linear, []int{160, 256}, -1},
	} {
		for _, search := range []bool{false, true} {
			t.Run(fmt.Sprint(c.dtype, c.shape, search), func(t *testing.T) {
				w := spread(r, c.shape[0], tile.Numel(c.shape[1:]))
				o := Options{Dtype: golden.Dtype(t, c.dtype), Kind: c.kind, GroupSize: c.group, ScaleDtype: safetensors.F32, ModelDtype: safetensors.F32, Rank: 16, Search: search}
				x, plain := restored(t, w, c.shape, o)
				was := squaredError(w, x)
				for _, n := range []int{1, 3} {
					o.Refits = n
					x, q := restored(t, w, c.shape, o)
					if is := squaredError(w, x); is > 0.98*was {
						t.Errorf("fitted %d times: the error is %.4f of that before", n, is/was)
					} else {
						was = is
					}
					for i := range q.Data {
						if len(q.Data[i]) != len(plain.Data[i]) {
							t.Errorf("tensor %d has %d bytes, not %d", i, len(q.Data[i]), len(plain.Data[i]))
						}
					}
				}
			})
		}
	}
}

// TestRefitInTiles: bytes do not depend on how much memory there is.
func TestRefitInTiles(t *testing.T) {
	w := spread(rand.New(rand.NewPCG(6, 7)), 400, 640)
	for _, matmul := range []bool{false, true} {
		o := Options{Dtype: dtype.Lookup("uint4"), GroupSize: 64, ScaleDtype: safetensors.F32, ModelDtype: safetensors.BF16, Rank: 8, Refits: 2, Search: true, Matmul: matmul}
		t.Run(fmt.Sprint("matmul ", matmul), func(t *testing.T) { inTiles(t, w, []int{400, 640}, o, 4096, 1<<15, 1<<20) })
	}
}
