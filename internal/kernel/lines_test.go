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
	n          LineWeights
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
						c.n.Weights[lane] += c.weights[i]
					}
					c.n.Inverses[lane] = 1 / c.n.Weights[lane]
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

// TestWholeLinesEqualPortable: the sums of whole numbers decide bytes as others do.
func TestWholeLinesEqualPortable(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(11, 1))
		lineCases(func(c lineCase) {
			codes := NewWholeCodes(c.lo, c.hi)
			if codes == nil {
				if c.hi-c.lo < 1<<WholeBits {
					t.Errorf("no whole codes from %v to %v", c.lo, c.hi)
				}
				return
			}
			rows := len(c.x) / LineLanes &^ 1
			x := c.x[:rows*LineLanes]
			var from, factor Lanes
			for lane := range LineLanes {
				from[lane] = float32(math.Inf(1))
				most := float32(0)
				for i := lane; i < len(x); i += LineLanes {
					from[lane], most = min(from[lane], x[i]), max(most, x[i])
				}
				factor[lane] = WholeRange / max(most-from[lane], 1e-6)
			}
			y, want := make([]uint32, rows/2*LineLanes), make([]uint32, rows/2*LineLanes)
			k.wholeRows(y, x, &from, &factor)
			wholeRowsOf(want, x, &from, &factor)
			if fmt.Sprint(y) != fmt.Sprint(want) {
				t.Fatalf("%d rows: whole numbers\n%v, want\n%v", rows, y, want)
			}
			var line Line
			for lane := range LineLanes {
				line.From[lane] = float32(r.NormFloat64() * 4000)
				line.Scale[lane] = float32(WholeRange / (c.hi - c.lo) * float32(0.3+r.NormFloat64()))
				if r.IntN(9) == 0 {
					line.From[lane], line.Scale[lane] = float32(r.NormFloat64()*1e9), float32(math.Exp(20*r.NormFloat64()))
				}
			}
			other := line
			var place, wantPlace WholeLine
			k.placeLines(&place, &line, codes)
			placeLines(&wantPlace, &other, codes)
			if place != wantPlace || line != other {
				t.Fatalf("codes %v to %v: line\n%v %v, want\n%v %v", c.lo, c.hi, place, line, wantPlace, other)
			}
			var sums, wantSums LineSums
			for at := 0; at < len(y); at += wholeRows * LineLanes {
				some := y[at:min(at+wholeRows*LineLanes, len(y))]
				k.addWholeLines(&sums, some, &place, codes)
				addWholeLines(&wantSums, some, &place, codes)
			}
			if sums != wantSums {
				t.Fatalf("%d rows, codes %v to %v: sums\n%v, want\n%v", rows, c.lo, c.hi, sums, wantSums)
			}
		})
	})
}

// TestWholeLinesAreNearOthers: what is found in whole numbers is what is found in
// single precision, but for their rounding.
func TestWholeLinesAreNearOthers(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 2))
	for _, c := range [][2]float32{{0, 1}, {0, 3}, {0, 7}, {0, 15}, {0, 31}, {0, 63}, {0, 127}, {-2, 1}, {-4, 3}, {-8, 7}, {-64, 63}} {
		codes := NewWholeCodes(c[0], c[1])
		x, y := make([]float32, 64*LineLanes), make([]uint32, 32*LineLanes)
		for i := range x {
			x[i] = r.Float32() * WholeRange
			if c[0] < 0 {
				x[i] = 2*x[i] - WholeRange
			}
		}
		one, none := Lanes{}, Lanes{}
		var line Line
		for i := range one {
			one[i] = 1
			line.From[i] = WholeRange * 0.1 * r.Float32()
			line.Scale[i] = WholeRange * (0.7 + 0.3*r.Float32()) / (c[1] - c[0])
			if c[0] < 0 {
				line.From[i], line.Scale[i] = 0, WholeRange/-c[0]
			}
		}
		WholeRows(y, x, &none, &one)
		var place WholeLine
		var sums, want LineSums
		PlaceLines(&place, &line, codes)
		SumWholeLines(&sums, y, &place, codes)
		var inverse Lanes
		for i, scale := range line.Scale {
			inverse[i] = 1 / scale
		}
		SumLines(&want, x, nil, &line.From, &inverse, c[0], c[1])
		for i := range LineLanes {
			if d := math.Abs(float64(sums.RR[i]/want.RR[i]) - 1); d > 0.01 {
				t.Errorf("codes %v: squares %v, want %v", c, sums.RR[i], want.RR[i])
			}
		}
	}
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
	var inverse Lanes
	var n LineWeights
	var errors Lanes
	for i := range inverse {
		line.From[i], line.Scale[i], inverse[i], n.Weights[i], n.Inverses[i] = -2, 0.25, 4, 64, 1.0/64
	}
	var fit LineFit
	codes, whole := NewWholeCodes(0, 15), make([]uint32, 32*LineLanes)
	var place WholeLine
	for i := range whole {
		whole[i] = r.Uint32() & 0x3FFF3FFF
	}
	wholeLine := Line{}
	for i := range LineLanes {
		wholeLine.Scale[i] = WholeRange / 15
	}
	PlaceLines(&place, &wholeLine, codes)
	for _, s := range sets {
		if !s.has {
			continue
		}
		for name, f := range map[string]func(){
			"sum":      func() { s.sumLines(&sums, x, &line.From, &inverse, 0, 15) },
			"weighted": func() { s.sumWeightedLines(&sums, x, m, &line.From, &inverse, 0, 15) },
			"fit":      func() { s.fitLines(&fit, &sums, &n, &line, false) },
			"whole": func() {
				s.addWholeLines(&sums, whole[:32*LineLanes], &place, codes)
			},
			"errors": func() { s.lineErrors(&errors, x, &line, &line, 0, 15) },
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
