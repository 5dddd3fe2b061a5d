package kernel

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// entryOf is 1/√n in single precision.
func entryOf(n int) float32 { return 1 / float32(math.Sqrt(float64(n))) }

// matrix is the Hadamard matrix, built up by its definition: the product of
// 4×4 matrices with -1 on the anti-diagonal, or of 2×2 ones with -1 last.
func matrix(n int) [][]float32 {
	base := [][]float32{{1, 1}, {1, -1}}
	if bits.TrailingZeros(uint(n))%2 == 0 {
		base = [][]float32{{1, 1, 1, -1}, {1, 1, -1, 1}, {1, -1, 1, 1}, {-1, 1, 1, 1}}
	}
	h := [][]float32{{entryOf(n)}}
	for b := len(base); len(h) < n; {
		next := make([][]float32, len(h)*b)
		for i := range next {
			for j := range next {
				next[i] = append(next[i], base[i%b][j%b]*h[i/b][j/b])
			}
		}
		h = next
	}
	return h
}

// chain is the definition of Rotate for one group.
func chain(x []float32, h [][]float32) []float32 {
	y := make([]float32, len(x))
	for k, v := range x {
		for j := range y {
			y[j] = FMA(v, h[k][j], y[j])
		}
	}
	for j := range y {
		y[j] += 0
	}
	return y
}

// groupsToRotate are groups of n that take every way through the code: exact
// sums, sums with many bits, products that underflow, overflow, NaN.
func groupsToRotate(r *rand.Rand, n int) map[string][]float32 {
	groups := map[string][]float32{}
	add := func(name string, f func(i int) float32) {
		x := make([]float32, n)
		for i := range x {
			x[i] = f(i)
		}
		groups[name] = x
	}
	normal := func() float32 { return float32(r.NormFloat64() * 0.02) }
	bf16 := func(v float32) float32 { return BF16.Round(v) }
	for i := range 6 {
		add(fmt.Sprint("f32 ", i), func(int) float32 { return normal() })
		add(fmt.Sprint("bf16 ", i), func(int) float32 { return bf16(normal()) })
		add(fmt.Sprint("f16 ", i), func(int) float32 { return F16.Round(normal()) })
		add(fmt.Sprint("few bits ", i), func(int) float32 { return float32(r.IntN(65)-32) / 64 })
		add(fmt.Sprint("spread ", i), func(int) float32 {
			return float32(math.Ldexp(r.NormFloat64(), r.IntN(60)-30))
		})
		add(fmt.Sprint("tiny ", i), func(int) float32 { return math.Float32frombits(r.Uint32() & 0x81FFFFFF) })
		add(fmt.Sprint("subnormal ", i), func(int) float32 { return math.Float32frombits(r.Uint32() & 0x8000000F) })
		add(fmt.Sprint("one tiny ", i), func(j int) float32 {
			if j == n/2+1 {
				return 0x1p-149
			}
			return bf16(normal())
		})
		add(fmt.Sprint("huge ", i), func(int) float32 { return float32((2*r.Float64() - 1) * 3.4e38) })
		add(fmt.Sprint("edge of exact ", i), func(j int) float32 { // sums just around 2^24 units
			return float32((1<<24)/n + r.IntN(5) - 2 + (1<<24)*(j/(n-1)*r.IntN(2)))
		})
		j, most := r.IntN(n), (0.9+0.2*r.Float64())*(1<<24)/float64(n)
		add(fmt.Sprint("all of one sign for a result ", i), func(k int) float32 { // its sums are as large as can be
			v := float32(int(most+float64(r.IntN(9))) | 1)
			if n&0x55555555 != 0 && minusFours(j^k) {
				return -v
			}
			return v
		})
		add(fmt.Sprint("zeros ", i), func(int) float32 { return float32(math.Copysign(0, r.NormFloat64())) })
		add(fmt.Sprint("middles ", i), func(int) float32 { // sums in the middle of two singles
			return float32(1+r.IntN(3)) * []float32{1, 0x1p-24, 0x1p-25, -1, -0x1p-24, 0x1p-12}[r.IntN(6)]
		})
	}
	values := awkward()
	add("awkward", func(int) float32 { return values[r.IntN(len(values))] })
	add("one infinity", func(j int) float32 {
		if j == 2 {
			return float32(math.Inf(-1))
		}
		return normal()
	})
	return groups
}

// TestRotateIsTheChain: files would differ from the reference in the last bit
// of most scales.
func TestRotateIsTheChain(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(3, 4))
		sizes := []int{4, 8, 16, 32, 64, 128, 256, 512, 1024}
		if testing.Short() {
			sizes = sizes[:7]
		}
		for _, n := range sizes {
			h := matrix(n)
			for name, x := range groupsToRotate(r, n) {
				want := chain(x, h)
				got := append(append([]float32(nil), x...), x...)
				k.rotate(got, n, entryOf(n))
				for i, v := range got {
					if w := want[i%n]; math.Float32bits(v) != math.Float32bits(w) && (v == v || w == w) {
						t.Fatalf("%d, %s: value %d is %x, want %x", n, name, i, v, w)
					}
				}
			}
		}
	})
}

// TestRotateManyGroups: sets work on several groups at a time and part those
// whose sums are exact from others: none may come out in another's place, or
// take its ways.
func TestRotateManyGroups(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(9, 10))
		for _, n := range []int{16, 32, 64, 128, 256, 1024, 2048} {
			if n > 256 && testing.Short() {
				break
			}
			groups := groupsToRotate(r, n)
			names := slices.Sorted(maps.Keys(groups))
			counts := []int{1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 70}
			if n > 256 {
				counts = []int{19}
			}
			for _, count := range counts {
				var x, want []float32
				few := names[:1+r.IntN(len(names))] // often nearly all of a kind
				for range count {
					g := groups[few[r.IntN(len(few))]]
					x = append(x, g...)
					y := slices.Clone(g)
					rotate(y, n, entryOf(n))
					want = append(want, y...)
				}
				once, wantOnce := slices.Clone(x), slices.Clone(x)
				k.rotate(x, n, entryOf(n))
				sameValues(t, fmt.Sprintf("%d groups of %d", count, n), x, want)
				k.rotateOnce(once, n, entryOf(n))
				rotateOnce(wantOnce, n, entryOf(n))
				sameValues(t, fmt.Sprintf("%d groups of %d, once", count, n), once, wantOnce)
			}
		}
	})
}

func sameValues(t *testing.T, name string, got, want []float32) {
	t.Helper()
	for i, v := range got {
		if w := want[i]; math.Float32bits(v) != math.Float32bits(w) && (v == v || w == w) {
			t.Fatalf("%s: value %d is %x, want %x", name, i, v, w)
		}
	}
}

// TestRotateOnceIsTheExactSum: it must be the sum rounded once, wherever double
// precision holds the sum.
func TestRotateOnceIsTheExactSum(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, n := range []int{4, 8, 16, 64, 128, 256} {
			h, x := matrix(n), make([]float32, n)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			got := append([]float32(nil), x...)
			k.rotateOnce(got, n, entryOf(n))
			for j, v := range got {
				sum := new(big.Float).SetPrec(300)
				for i := range x {
					sum.Add(sum, new(big.Float).SetPrec(300).Mul(big.NewFloat(float64(x[i])), big.NewFloat(float64(h[i][j]))))
				}
				if want, _ := sum.Float32(); v != want {
					t.Errorf("%d: value %d is %x, want %x", n, j, v, want)
				}
			}
		}
	})
}

// TestRotateBF16 has groups that whole numbers just hold, and others: a file
// would depend on the machine.
func TestRotateBF16(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(11, 12))
		counts := []int{0, 1, 2, 5, 64, 65, 200}
		if testing.Short() {
			counts = []int{0, 1, 2, 5, 65}
		}
		for _, n := range []int{16, 64, 256, 512} {
			for _, count := range counts {
				var x []float32
				for range count {
					x = append(x, bf16Group(r, n)...)
				}
				for _, entry := range []float32{entryOf(n), 1, 0x1p-3} {
					sameBF16(t, fmt.Sprintf("%d groups of %d", count, n), k.rotateBF16, rotate, x, n, entry)
					sameBF16(t, fmt.Sprintf("%d groups of %d, once", count, n), k.rotateOnceBF16, rotateOnce, x, n, entry)
				}
			}
		}
	})
}

func sameBF16(t *testing.T, name string, bf16 func([]float32, []byte, int, float32), want func([]float32, int, float32), x []float32, n int, entry float32) {
	t.Helper()
	src, y := make([]byte, 2*len(x)), slices.Clone(x)
	narrowBF16(src, x)
	got := make([]float32, len(x)+1)
	bf16(got[:len(x)], src, n, entry)
	want(y, n, entry)
	sameValues(t, name, got, append(y, 0))
}

// bf16Group returns a group whose magnitudes span a few bits more or less than
// sums hold, at times with zeros, one value that is not finite, or all of a kind.
func bf16Group(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	top, spread, same := r.IntN(250)-120, r.IntN(20), r.IntN(4) == 0
	if r.IntN(3) > 0 {
		top, spread = -5, 8+r.IntN(9)
	}
	j := r.IntN(n)
	for i := range x {
		x[i] = BF16.Round(float32(math.Ldexp(1+r.Float64(), top-r.IntN(spread+1))))
		switch {
		case same: // a result as large as can be
			x[i] = BF16.Round(float32(math.Ldexp(1.999-0.01*r.Float64(), top)))
			if n&0x55555555 != 0 && minusFours(i^j) {
				x[i] = -x[i]
			}
		case r.IntN(2) == 0:
			x[i] = -x[i]
		}
		if r.IntN(20) == 0 {
			x[i] = float32(math.Copysign(0, float64(x[i])))
		}
	}
	switch r.IntN(8) {
	case 0:
		x[r.IntN(n)] = BF16.Round(float32(math.Ldexp(1+r.Float64(), top-r.IntN(45))))
	case 1:
		clear(x)
	case 2:
		x[r.IntN(n)] = []float32{float32(math.NaN()), float32(math.Inf(-1)), 0x1p-133, -0x1.fep127}[r.IntN(4)]
	case 3:
		for i := range x {
			x[i] = BF16.Round(float32(r.NormFloat64() * 0.02))
		}
	}
	return x
}

// BenchmarkRotate counts bytes of bfloat16 source.
func BenchmarkRotate(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{64, 128, 256} {
		h, entry := matrix(n), entryOf(n)
		for _, source := range []string{"bf16", "f32"} {
			values := make([]float32, 1<<16) // as many as tiles have
			for i := range values {
				if values[i] = float32(r.NormFloat64() * 0.02); source == "bf16" {
					values[i] = BF16.Round(values[i])
				}
			}
			x := make([]float32, len(values))
			run := func(name string, f func()) {
				b.Run(fmt.Sprintf("%d/%s/%s", n, source, name), func(b *testing.B) {
					b.SetBytes(int64(2 * len(x)))
					for b.Loop() {
						copy(x, values)
						f()
					}
				})
			}
			run(Name(), func() { Rotate(x, n, entry) })
			run("once", func() { RotateOnce(x, n, entry) })
			if source == "bf16" {
				src := make([]byte, 2*len(x))
				NarrowBF16(src, values)
				run("raw", func() { RotateBF16(x, src, n, entry) })
				run("raw once", func() { RotateOnceBF16(x, src, n, entry) })
			}
			run("naive", func() {
				for at := 0; at < len(x); at += n {
					copy(x[at:], chain(x[at:at+n], h))
				}
			})
		}
	}
}
