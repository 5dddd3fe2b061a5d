package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// lineCase is the values of 16 groups with lines near them.
type lineCase struct {
	x, weights []float32
	by         Line
	inverse    Lanes
	n          Lanes
	lo, hi     float32
}

func lineCases(yield func(c lineCase)) {
	r := rand.New(rand.NewPCG(7, 19))
	for _, rows := range []int{0, 1, 2, 7, 16, 32, 64, 129} {
		for _, codes := range [][2]float32{{0, 1}, {0, 3}, {0, 15}, {-8, 7}, {0, 255}, {-128, 127}} {
			for size := range 3 {
				c := lineCase{x: make([]float32, rows*LineLanes), weights: make([]float32, rows*LineLanes), lo: codes[0], hi: codes[1]}
				for i := range c.x {
					c.x[i] = float32(r.NormFloat64() * math.Pow(10, float64(4*size-4)))
					c.weights[i] = float32(r.ExpFloat64())
					if r.IntN(9) == 0 {
						c.x[i] = 0
					}
				}
				for lane := range LineLanes {
					c.by.From[lane] = float32(r.NormFloat64() * math.Pow(10, float64(4*size-4)))
					c.by.Scale[lane] = float32(r.NormFloat64()*math.Pow(10, float64(4*size-4))) / codes[1]
					c.inverse[lane] = 1 / c.by.Scale[lane]
					for i := lane; i < len(c.weights); i += LineLanes {
						c.n[lane] += c.weights[i]
					}
				}
				yield(c)
			}
		}
	}
}

// TestLinesEqualPortable: a set that found other lines would write other bytes.
func TestLinesEqualPortable(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		lineCases(func(c lineCase) {
			what := fmt.Sprintf("%d rows, codes %v to %v", len(c.x)/LineLanes, c.lo, c.hi)
			var sums, wantSums LineSums
			var fit, wantFit LineFit
			var errors, wantErrors Lanes
			compare := func(name string) {
				t.Helper()
				if sums != wantSums {
					t.Fatalf("%s of %s: sums\n%v, want\n%v", name, what, sums, wantSums)
				}
				for _, through := range []bool{false, true} {
					k.fitLines(&fit, &sums, &c.n, &c.by, through)
					fitLines(&wantFit, &sums, &c.n, &c.by, through)
					if !sameLanes(fit.From, wantFit.From) || !sameLanes(fit.Scale, wantFit.Scale) || !sameLanes(fit.Error, wantFit.Error) || !sameLanes(fit.Mean, wantFit.Mean) {
						t.Fatalf("%s of %s: fit\n%v, want\n%v", name, what, fit, wantFit)
					}
				}
				if !sameLanes(errors, wantErrors) {
					t.Fatalf("%s of %s: errors\n%v, want\n%v", name, what, errors, wantErrors)
				}
			}
			k.sumLines(&sums, c.x, &c.by.From, &c.inverse, c.lo, c.hi)
			sumLines(&wantSums, c.x, &c.by.From, &c.inverse, c.lo, c.hi)
			k.lineErrors(&errors, c.x, &c.by, &fit.Line, c.lo, c.hi)
			lineErrors(&wantErrors, c.x, &c.by, &fit.Line, c.lo, c.hi)
			compare("lines")
			k.sumWeightedLines(&sums, c.x, c.weights, &c.by.From, &c.inverse, c.lo, c.hi)
			sumWeightedLines(&wantSums, c.x, c.weights, &c.by.From, &c.inverse, c.lo, c.hi)
			k.weightedLineErrors(&errors, c.x, c.weights, &c.by, &fit.Line, c.lo, c.hi)
			weightedLineErrors(&wantErrors, c.x, c.weights, &c.by, &fit.Line, c.lo, c.hi)
			compare("weighted lines")
		})
	})
}

// TestBestLinesAreKept: which lines the search goes on from decides the bytes.
func TestBestLinesAreKept(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	inf := float32(math.Inf(1))
	eachSet(t, func(t *testing.T, k *set) {
		var best, want [2]LineFit
		for i := range LineLanes {
			best[0].Error[i], best[1].Error[i] = inf, inf
		}
		want = best
		for range 1000 {
			var fit LineFit
			for i := range LineLanes {
				fit.From[i], fit.Scale[i], fit.Mean[i] = r.Float32(), r.Float32(), r.Float32()
				fit.Error[i] = float32(r.IntN(1000)) / 1000
				if r.IntN(20) == 0 {
					fit.Error[i] = float32(math.NaN())
				}
			}
			k.keepLines(&best, &fit)
			keepLines(&want, &fit)
			if best != want {
				t.Fatalf("kept\n%v, want\n%v", best, want)
			}
		}
	})
}

// sameLanes compares bits, but for those of NaN.
func sameLanes(a, b Lanes) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) && (a[i] == a[i] || b[i] == b[i]) {
			return false
		}
	}
	return true
}

// TestLineErrorsAreThoseOfCodes: the search compares by these errors what the encoder
// writes afterwards.
func TestLineErrorsAreThoseOfCodes(t *testing.T) {
	lineCases(func(c lineCase) {
		var errors Lanes
		LineErrors(&errors, c.x, nil, &c.by, &c.by, c.lo, c.hi)
		for lane := range LineLanes {
			steps := Steps{}.Sized(1)
			steps.Set(0, c.by.From[lane], c.by.Scale[lane])
			codes, sum := make([]byte, 1), float32(0)
			for i := lane; i < len(c.x); i += LineLanes {
				EncodeInts(codes, AsBytes(c.x[i:i+1]), RawF32, steps, 1, &Ints{Lo: c.lo, Hi: c.hi, Offset: -int32(c.lo)})
				d := c.x[i] - (float32(c.by.Scale[lane]*(float32(codes[0])+c.lo)) + c.by.From[lane])
				sum += float32(d * d)
			}
			if sum != errors[lane] {
				t.Fatalf("codes %v to %v, scale %v: error %v, codes leave %v", c.lo, c.hi, c.by.Scale[lane], errors[lane], sum)
			}
		}
	})
}

func BenchmarkLines(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	x, m := make([]float32, 64*LineLanes), make([]float32, 64*LineLanes)
	for i := range x {
		x[i], m[i] = float32(r.NormFloat64()), 1
	}
	var sums LineSums
	var line Line
	var inverse, n Lanes
	var errors Lanes
	for i := range inverse {
		line.From[i], line.Scale[i], inverse[i], n[i] = -2, 0.25, 4, 64
	}
	var fit LineFit
	for _, s := range sets {
		if !s.has {
			continue
		}
		for name, f := range map[string]func(){
			"sum":      func() { s.sumLines(&sums, x, &line.From, &inverse, 0, 15) },
			"weighted": func() { s.sumWeightedLines(&sums, x, m, &line.From, &inverse, 0, 15) },
			"fit":      func() { s.fitLines(&fit, &sums, &n, &line, false) },
			"errors":   func() { s.lineErrors(&errors, x, &line, &line, 0, 15) },
		} {
			b.Run(s.name+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(x)))
				for b.Loop() {
					f()
				}
			})
		}
	}
}
