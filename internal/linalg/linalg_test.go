package linalg

import (
	"math"
	"math/rand/v2"
	"testing"
)

func random(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

func TestProductsArePlainLoops(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		rows, inner, width := 1+r.IntN(2*block), 1+r.IntN(20), 1+r.IntN(20)
		a, b, c := random(r, rows*inner), random(r, inner*width), random(r, rows*width)
		got := make([]float64, rows*width)
		AddTimes(got, a, b, inner, width)
		for i := range rows {
			for j := range width {
				want := 0.0
				for k := range inner {
					want = math.FMA(a[i*inner+k], b[k*width+j], want)
				}
				if got[i*width+j] != want {
					t.Fatalf("AddTimes [%d, %d, %d]: %v, want %v", rows, inner, width, got[i*width+j], want)
				}
			}
		}
		got = make([]float64, inner*width)
		AddTransposeTimes(got, a, c, inner, width)
		for i := range inner {
			for j := range width {
				want := 0.0
				for k := range rows {
					want = math.FMA(a[k*inner+i], c[k*width+j], want)
				}
				if got[i*width+j] != want {
					t.Fatalf("AddTransposeTimes [%d, %d, %d]: %v, want %v", rows, inner, width, got[i*width+j], want)
				}
			}
		}
	}
}

// symmetric matrices with trouble in them: clusters, steps, zeros, ranges.
func symmetric(r *rand.Rand, n int) map[string][]float64 {
	all := map[string][]float64{}
	fill := func(name string, f func(i, j int) float64) {
		a := make([]float64, n*n)
		for i := range n {
			for j := range i + 1 {
				v := f(i, j)
				a[i*n+j], a[j*n+i] = v, v
			}
		}
		all[name] = a
	}
	x := random(r, n)
	fill("random", func(i, j int) float64 { return r.NormFloat64() })
	fill("zero", func(i, j int) float64 { return 0 })
	fill("identity", func(i, j int) float64 {
		if i == j {
			return 1
		}
		return 0
	})
	fill("rank one", func(i, j int) float64 { return x[i] * x[j] })
	fill("ones", func(i, j int) float64 { return 1 })
	fill("graded", func(i, j int) float64 { return r.NormFloat64() * math.Pow(10, -float64(i+j)/2) })
	fill("huge", func(i, j int) float64 { return r.NormFloat64() * 1e250 })
	fill("tiny", func(i, j int) float64 { return r.NormFloat64() * 1e-250 })
	fill("wide", func(i, j int) float64 { return r.NormFloat64() * math.Pow(10, float64(r.IntN(80)-40)) })
	return all
}

func TestEigen(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 17, 64, 130} {
		for name, a := range symmetric(r, n) {
			values, vectors := Eigen(a, n, nil)
			greatest := 0.0
			for i, v := range values {
				greatest = max(greatest, math.Abs(v))
				if i > 0 && !(v <= values[i-1]) {
					t.Fatalf("%s %d: values %v and %v out of order", name, n, values[i-1], v)
				}
			}
			for i := range n {
				v := vectors[i*n : (i+1)*n]
				for j := range i + 1 {
					want := 0.0
					if i == j {
						want = 1
					}
					if d := math.Abs(Dot(v, vectors[j*n:(j+1)*n]) - want); !(d < 1e-13) {
						t.Fatalf("%s %d: vectors %d and %d: product off by %v", name, n, i, j, d)
					}
				}
				for j := range n { // A·v = λ·v
					if d := math.Abs(Dot(a[j*n:(j+1)*n], v)-values[i]*v[j]) / max(greatest, 1e-290); !(d < 1e-13*float64(n+1)) {
						t.Fatalf("%s %d: vector %d is off by %v", name, n, i, d)
					}
				}
			}
		}
	}
}

// TestLeading: the first of all eigenvalues, with vectors that are orthonormal and
// theirs, whatever trouble the matrix has.
func TestLeading(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, n := range []int{1, 2, 3, 5, 16, 17, 33, 64, 97, 130} {
		for name, a := range symmetric(r, n) {
			want, _ := Eigen(a, n, nil)
			for _, count := range []int{1, (n + 3) / 4, n} {
				values, vectors := Leading(a, n, count, nil)
				if len(values) != count || len(vectors) != count*n {
					t.Fatalf("%s %d: %d values, want %d", name, n, len(values), count)
				}
				greatest := max(math.Abs(want[0]), math.Abs(want[n-1]), 1e-290)
				for i, v := range values {
					x := vectors[i*n : (i+1)*n]
					if !(math.Abs(v-want[i]) <= 1e-13*greatest) {
						t.Fatalf("%s %d: value %d is %v, want %v", name, n, i, v, want[i])
					}
					for j := range i + 1 {
						product := 0.0
						if i == j {
							product = 1
						}
						if d := math.Abs(Dot(x, vectors[j*n:(j+1)*n]) - product); !(d < 1e-13) {
							t.Fatalf("%s %d: vectors %d and %d: product off by %v", name, n, i, j, d)
						}
					}
					for j := range n {
						if d := math.Abs(Dot(a[j*n:(j+1)*n], x)-v*x[j]) / greatest; !(d < 1e-13*float64(n+1)) {
							t.Fatalf("%s %d: vector %d of %d is off by %v", name, n, i, count, d)
						}
					}
				}
			}
		}
	}
}

func BenchmarkEigen(b *testing.B) {
	const n = 512
	x := random(rand.New(rand.NewPCG(1, 1)), n*n)
	a := make([]float64, n*n)
	AddTransposeTimes(a, x, x, n, n)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			Eigen(a, n, nil)
		}
	})
	b.Run("leading 32", func(b *testing.B) {
		for b.Loop() {
			Leading(a, n, 32, nil)
		}
	})
	b.Run("leading 128", func(b *testing.B) {
		for b.Loop() {
			Leading(a, n, 128, nil)
		}
	})
}

// TestRoot: of a positive matrix Sᵀ·S is the inverse, and of one with columns that
// follow from others the inverse on those that are kept, which all others follow
// from.
func TestRoot(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, n := range []int{1, 2, 5, 16, 17, 40, 75} {
		for _, rank := range []int{n, (n + 1) / 2} {
			x := random(r, 3*n*rank)
			a := make([]float64, n*n)
			mixed := make([]float64, 3*n*n)
			AddTimes(mixed, x, random(r, rank*n), rank, n)
			if rank == n {
				mixed = x
			}
			AddTransposeTimes(a, mixed, mixed, n, n)
			s, m := Root(append([]float64(nil), a...), n, 1e-9*a[0], nil)
			if m != rank {
				t.Fatalf("%d of rank %d: %d columns are kept", n, rank, m)
			}
			half, one := make([]float64, m*n), make([]float64, m*m)
			AddTimes(half, s, a, n, n)
			AddTimes(one, half, Transposed(s, m, n), n, m)
			for i, v := range one { // S·A·Sᵀ is the identity
				want := 0.0
				if i%(m+1) == 0 {
					want = 1
				}
				if !(math.Abs(v-want) < 1e-7) {
					t.Fatalf("%d of rank %d: element %d is %v, want %v", n, rank, i, v, want)
				}
			}
			back := make([]float64, n*n)
			AddTransposeTimes(back, half, half, n, n)
			for i, v := range back { // A·(Sᵀ·S)·A is A
				if !(math.Abs(v-a[i]) < 1e-7*a[0]) {
					t.Fatalf("%d of rank %d: element %d of what follows is %v, want %v", n, rank, i, v, a[i])
				}
			}
		}
	}
}

// TestRootOfNothing: a matrix of which nothing is more than rounding has no root.
func TestRootOfNothing(t *testing.T) {
	if s, m := Root(make([]float64, 9), 3, 1e-7, nil); m != 0 || len(s) != 0 {
		t.Error(s, m)
	}
}

func TestAbove(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{1, 2, 5, 17, 64} {
		for name, a := range symmetric(r, n) {
			values, _ := Eigen(a, n, nil)
			for i := 1; i < n; i++ {
				bound := (values[i-1] + values[i]) / 2
				if !(values[i-1]-bound > 1e-10*max(values[0], -values[n-1])) {
					continue // rounding may decide
				}
				if got := Above(a, n, bound); got != i {
					t.Errorf("%s %d: %d eigenvalues above %v, want %d", name, n, got, bound, i)
				}
			}
		}
	}
}

func TestInverse(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := 1; n < 20; n++ {
		b := random(r, 2*n*n)
		a := make([]float64, n*n)
		AddTransposeTimes(a, b, b, n, n)
		left := n / 2 // as if the row were missing
		if n > 1 {
			for i := range n {
				a[i*n+left], a[left*n+i] = 0, 0
			}
		}
		inverse := Inverse(a, n, nil)
		for i := range n {
			for j := range n {
				want := 0.0
				if i == j && (n == 1 || i != left) {
					want = 1
				}
				got := 0.0
				for k := range n {
					got += a[i*n+k] * inverse[k*n+j]
				}
				if !(math.Abs(got-want) < 1e-9) {
					t.Fatalf("%d: element %d, %d of the product is %v, want %v", n, i, j, got, want)
				}
			}
		}
	}
}

func TestInverseOfDependentRows(t *testing.T) {
	for _, v := range Inverse([]float64{1, 1, 1, 1}, 2, nil) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatal(v)
		}
	}
}

func TestNormOfAnyRange(t *testing.T) {
	for _, f := range []float64{1, 1e300, 1e-300, 0x1p-1070, 0} {
		if got := Norm([]float64{3 * f, -4 * f}); math.Abs(got-5*f) > 1e-15*f {
			t.Errorf("%v: %v", 5*f, got)
		}
	}
}

// TestCancelled: a user who presses Ctrl-C does not wait for eigenvectors.
func TestCancelled(t *testing.T) {
	stop := make(chan struct{})
	close(stop)
	a := symmetric(rand.New(rand.NewPCG(1, 1)), 64)["random"]
	if values, vectors := Eigen(a, 64, stop); values != nil || vectors != nil {
		t.Error("Eigen went on")
	}
	if values, vectors := Leading(a, 64, 8, stop); values != nil || vectors != nil {
		t.Error("Leading went on")
	}
	if Inverse(a, 64, stop) != nil {
		t.Error("Inverse went on")
	}
}
