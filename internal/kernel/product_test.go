package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// productOps run the products on matrices that a buffer's values fill.
func productOps() []op {
	list := []op{{"add", func(k *set, b buffers) {
		y := slices.Clone(b.x)
		slices.Reverse(y)
		k.add(b.x, y)
	}}, {"subtract", func(k *set, b buffers) {
		y := slices.Clone(b.x)
		slices.Reverse(y)
		k.subtract(b.x, y)
	}}}
	list = append(list, op{"addWide", func(k *set, b buffers) {
		dst := doubles(len(b.x))
		k.addWide(dst, b.x, 0x1p-3)
		digest(b, dst)
	}})
	list = append(list, op{"leastBF16", func(k *set, b buffers) {
		least := k.leastBF16(b.bytes)
		if len(b.bytes) > 1 {
			binary.LittleEndian.PutUint16(b.bytes, least)
		}
	}})
	for _, columns := range []int{1, 31, 64, 290} {
		list = append(list,
			op{fmt.Sprint("projectBF16 ", columns), func(k *set, b buffers) {
				rows := len(b.x) % 35
				dst := make([]float64, rows*sumLanes)
				k.projectBF16(dst, narrow(b.x, rows*columns), sixteenBits(columns*sumLanes), columns)
				digest(b, dst)
			}},
			op{fmt.Sprint("collectBF16 ", columns), func(k *set, b buffers) {
				rows := len(b.x) % 35
				sums := singles(inStrips(columns) * sumLanes)
				k.collectBF16(sums, narrow(b.x, rows*columns), sixteenBits(rows*sumLanes), columns)
				clearBeyond(sums, columns)
				dst := make([]float64, len(sums))
				for i, v := range sums {
					dst[i] = float64(v)
				}
				digest(b, dst)
			}})
	}
	for _, columns := range []int{1, 3, 16, 31} {
		for _, width := range []int{1, 2, 4, 7, 16, 33} {
			list = append(list,
				op{fmt.Sprint("project ", columns, width), func(k *set, b buffers) {
					rows := len(b.x) / columns
					dst := make([]float64, rows*width)
					k.project(dst, b.x[:rows*columns], singles(columns*width), columns, width)
					digest(b, dst)
				}},
				op{fmt.Sprint("projectFused ", columns, width), func(k *set, b buffers) {
					rows := len(b.x) / columns
					dst := make([]float64, rows*width)
					k.projectFused(dst, b.x[:rows*columns], singles(columns*width), columns, width)
					digest(b, dst)
				}},
				op{fmt.Sprint("collect ", columns, width), func(k *set, b buffers) {
					rows := len(b.x) / columns
					dst := doubles(inStrips(columns) * width)
					k.collect(dst, b.x[:rows*columns], singles(rows*width), powers(width), columns, width)
					digest(b, dst)
				}},
				op{fmt.Sprint("addSums ", columns, width), func(k *set, b buffers) {
					rows := 1 + len(b.x)%SumRows
					factors := doubles(SumRows * columns)
					for i, v := range b.x[:min(columns, len(b.x))] {
						factors[i] *= float64(v)
					}
					dst := doubles(rows * width)
					f := Factors{factors, columns, 1}
					if len(b.x)%8 >= SumRows {
						f = Factors{factors, 1, SumRows}
					}
					k.addSums(dst, f, doubles(columns*width), width, max(width-len(b.x)%20, 1))
					digest(b, dst)
				}})
			list = append(list, op{fmt.Sprint("productExact ", columns, width), func(k *set, b buffers) {
				rows := len(b.x) / columns
				k.productExact(some(b.x, rows, columns), halves(rows*width), halves(columns*width))
			}})
			list = append(list, op{fmt.Sprint("addProduct ", columns, width), func(k *set, b buffers) {
				rows := len(b.x) / columns
				k.addProduct(some(b.x, rows, columns), singles(rows*width), singles(columns*width))
			}})
			for _, fused := range []bool{false, true} {
				list = append(list, op{fmt.Sprint("product ", columns, width, fused), func(k *set, b buffers) {
					rows := len(b.x) / columns
					up := slices.Concat(b.x[:min(len(b.x), 3)], singles(len(b.x)*width))
					run := k.product
					if fused {
						run = k.productFused
					}
					run(some(b.x, rows, columns), up[:rows*width], singles(columns*width))
				}})
			}
		}
	}
	return list
}

// some are all of x, or where it has enough the first columns of rows that are
// half as far apart again.
func some(x []float32, rows, columns int) Rows {
	if rows > 2 {
		return Rows{x, columns + columns/2, rows * 2 / 3, columns}
	}
	return Rows{x, columns, rows, columns}
}

func singles(n int) []float32 {
	x := make([]float32, n)
	for i, v := range doubles(n) {
		x[i] = float32(v)
	}
	return x
}

// narrow returns n values in BF16, again and again those of x for
// which products with sixteenBits are exact.
func narrow(x []float32, n int) []byte {
	w := make([]byte, 2*n)
	for i := range n {
		v := float32(1)
		if len(x) > 0 {
			v = x[i%len(x)]
		}
		if size := math.Abs(float64(v)); !(size > 0x1p-87 && size < 0x1p100) {
			v = float32(i % 5)
		}
		narrowBF16(w[2*i:2*i+2], []float32{v})
	}
	return w
}

// sixteenBits are values that make exact products with BF16.
func sixteenBits(n int) []float32 {
	x := singles(n)
	for i, v := range x {
		x[i] = math.Float32frombits(math.Float32bits(v) &^ 0xFF)
	}
	return x
}

// halves are values of half precision.
func halves(n int) []float32 {
	x := singles(n)
	roundF16(x)
	return x
}

// clearBeyond clears what sums have for columns that there are not.
func clearBeyond(sums []float32, columns int) {
	for i := range sums {
		if i/(sumLanes*sumLanes)*sumLanes+i%sumLanes >= columns {
			sums[i] = 0
		}
	}
}

// powers of two, as columns are scaled by.
func powers(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = math.Ldexp(1, i%9-4)
	}
	return x
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

// TestProductsArePlainLoops compares with the loops of the documentation.
func TestProductsArePlainLoops(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r, cases := rand.New(rand.NewPCG(5, 6)), 40
		if testing.Short() {
			cases = 10
		}
		for range cases {
			rows, columns, width := 1+r.IntN(2*productBlock), 1+r.IntN(2*productBlock), 1+r.IntN(9)
			if r.IntN(2) == 0 {
				width = sumLanes
			}
			w, x, y := wild(r, rows*columns), wild(r, columns*width), wild(r, rows*width)
			seen, scale := make([]float64, rows*width), powers(width)
			for i := range seen {
				seen[i] = math.NaN()
			}
			k.project(seen, w, x, columns, width)
			gathered := doubles(inStrips(columns) * width)
			k.collect(gathered, w, y, scale, columns, width)
			before := doubles(inStrips(columns) * width)
			for c := range width {
				for i := range rows {
					want := inBlocks(columns, func(j int) (float32, float32) { return w[i*columns+j], x[j*width+c] }, 0, 1)
					if got := seen[i*width+c]; !sameSum(got, want) {
						t.Fatalf("project [%d, %d] width %d: %v, want %v", rows, columns, width, got, want)
					}
				}
				for j := range columns {
					at := (j/16*width+c)*16 + j%16
					want := inBlocks(rows, func(i int) (float32, float32) { return w[i*columns+j], y[i*width+c] }, before[at], scale[c])
					if got := gathered[at]; !sameSum(got, want) {
						t.Fatalf("collect [%d, %d] width %d: %v, want %v", rows, columns, width, got, want)
					}
				}
			}
		}
	})
}

// inBlocks adds n products to a sum as Project and Collect do.
func inBlocks(n int, at func(i int) (a, b float32), sum, scale float64) float64 {
	s := float32(0)
	for i := range n {
		a, b := at(i)
		if s += float32(a * b); i%256 == 255 || i == n-1 {
			sum += float64(float64(s) * scale)
			s = 0
		}
	}
	return sum
}

// inStrips is the number of columns of whole strips.
func inStrips(columns int) int { return (columns + 15) / 16 * 16 }

func sameSum(a, b float64) bool { return a == b || a != a && b != b }

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
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(7, 8))
		for range 30 {
			rows, columns, rank := 1+r.IntN(7), 1+r.IntN(3*productBlock), 1+r.IntN(40)
			up, down := wild(r, rows*rank), wild(r, rank*columns)
			plain, fused := make([]float32, rows*columns), make([]float32, rows*columns)
			k.product(Rows{plain, columns, rows, columns}, up, down)
			k.productFused(Rows{fused, columns, rows, columns}, up, down)
			for i := range rows {
				for j := range columns {
					want, once := float32(0), float32(0)
					for k := range rank {
						want += float32(up[i*rank+k] * down[k*columns+j])
						once = FMA(up[i*rank+k], down[k*columns+j], once)
					}
					if got := plain[i*columns+j]; !sameSum(float64(got), float64(want)) {
						t.Fatalf("[%d, %d] rank %d: %v, want %v", rows, columns, rank, got, want)
					}
					if got := fused[i*columns+j]; !sameSum(float64(got), float64(once)) {
						t.Fatalf("[%d, %d] rank %d, fused: %v, want %v", rows, columns, rank, got, once)
					}
				}
			}
		}
	})
}

// BenchmarkProducts takes one tile of a pass over a layer of 8192 columns, the
// sums of products of doubles that go with it, and the product of the factors.
func BenchmarkProducts(b *testing.B) {
	const rows, columns, width, rank = 96, 8192, 16, 32
	r := rand.New(rand.NewPCG(9, 10))
	w, left := make([]float32, rows*columns), make([]float32, rows*columns)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	raw, narrow16, single := narrow(w, len(w)), make([]float64, rows*width), make([]float32, columns*width)
	x, y, up, down := singles(columns*width), singles(rows*width), singles(rows*rank), singles(rank*columns)
	wide, narrow, seen := make([]float64, columns*width), make([]float64, rows*width), make([]float64, rows*rank)
	a, sums, many := doubles(SumRows*productBlock), doubles(SumRows*width), doubles(productBlock*width)
	for _, s := range sets {
		if !s.has {
			continue
		}
		for _, bench := range []struct {
			name  string
			terms int
			run   func()
		}{
			{"project", rows * columns * width, func() { s.project(narrow, w, x, columns, width) }},
			{"projectFused", rows * columns * rank, func() { s.projectFused(seen, w, down, columns, rank) }},
			{"collect", rows * columns * width, func() { s.collect(wide, w, y, powers(width), columns, width) }},
			{"projectBF16", rows * columns * width, func() { s.projectBF16(narrow16, raw, x, columns) }},
			{"collectBF16", rows * columns * width, func() { s.collectBF16(single, raw, y, columns) }},
			{"addSums", SumRows * productBlock * width, func() { s.addSums(sums, Factors{a, 1, SumRows}, many, width, width) }},
			{"product", rows * columns * rank, func() { s.product(Rows{left, columns, rows, columns}, up, down) }},
			{"productFused", rows * columns * rank, func() { s.productFused(Rows{left, columns, rows, columns}, up, down) }},
			{"addProduct", rows * 32 * rank, func() { s.addProduct(Rows{left, columns, rows, 32}, up, down[:32*rank]) }},
			{"productFused of a panel", rows * 32 * rank, func() { s.productFused(Rows{left, columns, rows, 32}, up, down[:32*rank]) }},
		} {
			b.Run(s.name+"/"+bench.name, func(b *testing.B) {
				for b.Loop() {
					bench.run()
				}
				b.ReportMetric(2*float64(b.N)*float64(bench.terms)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
