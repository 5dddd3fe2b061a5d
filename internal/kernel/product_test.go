package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// productOps run the products on matrices that a buffer's values fill.
func productOps() []op {
	var list []op
	for _, columns := range []int{1, 3, 16, 31} {
		for _, width := range []int{1, 2, 4, 7, 16} {
			list = append(list,
				op{fmt.Sprint("project ", columns, width), func(k *set, b buffers) {
					rows := len(b.x) / columns
					dst := make([]float64, rows*width)
					k.project(dst, b.x[:rows*columns], doubles(columns*width), columns, width)
					digest(b, dst)
				}},
				op{fmt.Sprint("collect ", columns, width), func(k *set, b buffers) {
					rows := len(b.x) / columns
					dst := make([]float64, columns*width)
					k.collect(dst, b.x[:rows*columns], doubles(rows*width), columns, width)
					digest(b, dst)
				}},
				op{fmt.Sprint("product ", columns, width), func(k *set, b buffers) {
					rows, up, down := len(b.x)/columns, []float32{}, []float32{}
					for _, v := range doubles(len(b.x) * width) {
						up = append(up, float32(v))
					}
					for _, v := range doubles(columns * width) {
						down = append(down, float32(v))
					}
					k.product(b.x[:rows*columns], up[:rows*width], down, columns)
				}})
		}
	}
	return list
}

// doubles are values that fit single precision.
func doubles(n int) []float64 {
	r := rand.New(rand.NewPCG(3, 4))
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(float32(r.NormFloat64()))
	}
	return x
}

func digest(b buffers, dst []float64) {
	if len(b.x) == 0 {
		return
	}
	h := uint64(1)
	for _, v := range dst {
		bits := math.Float64bits(v)
		if v != v {
			bits = 0
		}
		h = (h ^ bits) * 0x9E3779B97F4A7C15
		h ^= h >> 32
	}
	binary.LittleEndian.PutUint32(b.bytes, uint32(h))
}

// TestProductsArePlainLoops compares with the loops of the documentation, and
// with fused ones: a compiler may choose.
func TestProductsArePlainLoops(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		rows, columns, width := 1+r.IntN(2*productBlock), 1+r.IntN(2*productBlock), 1+r.IntN(9)
		w := wild(r, rows*columns)
		for _, side := range []struct {
			name         string
			inner, outer int
			at           func(j, i int) float32
			run          func(dst []float64, w []float32, x []float64, columns, width int)
		}{
			{"project", columns, rows, func(j, i int) float32 { return w[i*columns+j] }, Project},
			{"collect", rows, columns, func(i, j int) float32 { return w[i*columns+j] }, Collect},
		} {
			x := make([]float64, side.inner*width)
			for i, v := range wild(r, len(x)) {
				x[i] = float64(v)
			}
			dst := make([]float64, side.outer*width)
			for i := range dst {
				dst[i] = math.NaN()
			}
			side.run(dst, w, x, columns, width)
			for i := range side.outer {
				for c := range width {
					plain, fused := 0.0, 0.0
					for j := range side.inner {
						v := float64(side.at(j, i))
						plain += float64(v * x[j*width+c])
						fused = math.FMA(v, x[j*width+c], fused)
					}
					if got := dst[i*width+c]; got != plain || got != fused {
						t.Fatalf("%s [%d, %d] width %d: %v, want %v, fused %v", side.name, rows, columns, width, got, plain, fused)
					}
				}
			}
		}
	}
}

// wild are finite values of all magnitudes.
func wild(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		if x[i] = float32(r.NormFloat64()); r.IntN(8) == 0 {
			x[i] = math.Float32frombits(r.Uint32() &^ 0x00800000)
			if v := float64(x[i]); math.IsNaN(v) || math.IsInf(v, 0) {
				x[i] = 0
			}
		}
	}
	return x
}

func TestProductIsThePlainLoop(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 40 {
		rows, columns, rank := 1+r.IntN(5), 1+r.IntN(3*productBlock), 1+r.IntN(40)
		up, down, dst := make([]float32, rows*rank), make([]float32, rank*columns), make([]float32, rows*columns)
		for i := range up {
			up[i] = float32(r.NormFloat64())
		}
		for i := range down {
			down[i] = float32(r.NormFloat64())
		}
		Product(dst, up, down, columns)
		for i := range rows {
			for j := range columns {
				want := float32(0)
				for k := range rank {
					want += float32(up[i*rank+k] * down[k*columns+j])
				}
				if got := dst[i*columns+j]; got != want {
					t.Fatalf("[%d, %d] rank %d: %v, want %v", rows, columns, rank, got, want)
				}
			}
		}
	}
}

// BenchmarkProducts takes one tile of a pass over a layer of 3072 columns.
func BenchmarkProducts(b *testing.B) {
	const rows, columns, width = 64, 3072, 16
	r := rand.New(rand.NewPCG(9, 10))
	w := make([]float32, rows*columns)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	x, y := doubles(columns*width), doubles(rows*width)
	wide, narrow := make([]float64, columns*width), make([]float64, rows*width)
	for name, run := range map[string]func(){
		"project": func() { Project(narrow, w, x, columns, width) },
		"collect": func() { Collect(wide, w, y, columns, width) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(b.N)*rows*columns*width/b.Elapsed().Seconds()/1e9, "Gmul/s")
		})
	}
}
