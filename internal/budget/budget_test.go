package budget

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// kinds are problems of different natures: what makes a search long differs among them.
var kinds = []struct {
	name  string
	layer func(r *rand.Rand, options int) []Option
}{
	{"any", func(r *rand.Rand, options int) []Option {
		list := make([]Option, options)
		for i := range list {
			list[i] = Option{r.Int64N(1000), r.Float64()}
		}
		return list
	}},
	{"formats", formats},
	{"ties", func(r *rand.Rand, options int) []Option {
		list := make([]Option, options)
		for i := range list {
			list[i] = Option{r.Int64N(5), float64(r.IntN(4))}
		}
		return list
	}},
	{"sums", func(r *rand.Rand, options int) []Option { // what a byte gains is the same everywhere
		list := make([]Option, options)
		for i := range list {
			n := r.Int64N(1000)
			list[i] = Option{n, 5000 - 3*float64(n)}
		}
		return list
	}},
}

// formats are what layers are like: a few shapes, some widths, an error that falls to a
// quarter with each bit.
func formats(r *rand.Rand, options int) []Option {
	shapes := []int64{1536 * 1536, 1536 * 8960, 3072 * 3072, 640 * 2048}
	values := shapes[r.IntN(len(shapes))]
	hard := math.Exp(r.NormFloat64())
	list := make([]Option, options)
	for i := range list {
		bits := 2.25 + 6*float64(i)/float64(options)
		list[i] = Option{int64(float64(values) * bits / 8), 3 * hard * math.Pow(0.25, bits) * float64(values) * (0.8 + 0.4*r.Float64())}
	}
	return list
}

// exhaust tries every choice.
func exhaust(layers [][]Option, budget int64) (least float64) {
	least = math.Inf(1)
	var try func(i int, bytes int64, loss float64)
	try = func(i int, bytes int64, loss float64) {
		if bytes > budget {
			return
		}
		if i == len(layers) {
			least = min(least, loss)
			return
		}
		for _, o := range layers[i] {
			try(i+1, bytes+o.Bytes, loss+o.Loss)
		}
	}
	try(0, 0, 0)
	return least
}

// TestExact: who names a size must get the best of that size.
func TestExact(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			for seed := range uint64(400) {
				r := rand.New(rand.NewPCG(seed, 7))
				layers := make([][]Option, 1+r.IntN(6))
				for i := range layers {
					layers[i] = kind.layer(r, 1+r.IntN(5))
				}
				p := New(layers)
				least, most := p.Smallest().Bytes, p.Best().Bytes
				for range 5 {
					budget := least + r.Int64N(most-least+2)
					got, err := p.Solve(budget)
					if err != nil {
						t.Fatal(err)
					}
					want := exhaust(layers, budget)
					if bytes, loss := p.Sum(got.Picks); bytes != got.Bytes || loss != got.Loss || bytes > budget {
						t.Fatalf("seed %d: picks %v take %d bytes of %d and lose %g, said: %d, %g", seed, got.Picks, bytes, budget, loss, got.Bytes, got.Loss)
					}
					if math.Abs(got.Loss-want) > 1e-9*want || got.Gap != 0 {
						t.Errorf("seed %d: within %d of %d to %d bytes: loss %.15g, gap %g, want %.15g", seed, budget, least, most, got.Loss, got.Gap, want)
					}
				}
			}
		})
	}
}

// TestTooSmall: a budget that nothing fits names the least.
func TestTooSmall(t *testing.T) {
	p := New([][]Option{{{10, 1}, {20, 0}}, {{5, 1}}})
	var small *TooSmallError
	if _, err := p.Solve(14); !errors.As(err, &small) || small.Least != 15 {
		t.Errorf("got %v, want a least of 15", err)
	}
	if s, err := p.Solve(15); err != nil || s.Bytes != 15 {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err := p.Solve(math.MaxInt64); err != nil || s.Bytes != 25 || s.Loss != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestGapIsTrue: where a search is cut short it says how much better another choice may
// be, and no less.
func TestGapIsTrue(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		layers := make([][]Option, 9)
		for i := range layers {
			layers[i] = kinds[0].layer(r, 4)
		}
		p := New(layers)
		budget := (p.Smallest().Bytes + p.Best().Bytes) / 2
		want := exhaust(layers, budget)
		s := newSearch(p, budget)
		if s.loss < s.best {
			t.Fatal("the relaxed solution of whole choices is better than the one that is made of it")
		}
		s.forgotten = s.bound // as if all were dropped
		got := s.solve()
		if got.Loss*(1-got.Gap) > want*(1+1e-9) {
			t.Errorf("seed %d: loss %g, gap %g, but the best is %g", seed, got.Loss, got.Gap, want)
		}
	}
}

// TestLarge: thousands of layers are solved, and the result is no worse than any one
// option everywhere, nor than what is cheaper.
func TestLarge(t *testing.T) {
	for _, kind := range kinds {
		layers := large(kind.layer, 2000, 12)
		p := New(layers)
		last := math.Inf(1)
		least, most := p.Smallest().Bytes, p.Best().Bytes
		for i := range int64(5) {
			budget := least + (most-least)*(i+1)/7
			got, err := p.Solve(budget)
			if err != nil || got.Bytes > budget || got.Loss > last {
				t.Fatalf("%s: %d of %d bytes, loss %g after %g: %v", kind.name, got.Bytes, budget, got.Loss, last, err)
			}
			if got.Gap > 1e-6 || kind.name == "formats" && got.Gap != 0 {
				t.Errorf("%s: gap %g", kind.name, got.Gap)
			}
			last = got.Loss
		}
		for option := range 12 {
			picks := make([]int, len(layers))
			for i := range picks {
				picks[i] = option
			}
			bytes, loss := p.Sum(picks)
			if got, err := p.Solve(bytes); err != nil || got.Loss > loss*(1+1e-9) {
				t.Errorf("%s: option %d everywhere takes %d bytes and loses %g, the choice %+v", kind.name, option, bytes, loss, err)
			}
		}
	}
}

func large(layer func(r *rand.Rand, options int) []Option, n, options int) [][]Option {
	r := rand.New(rand.NewPCG(1, 2))
	layers := make([][]Option, n)
	for i := range layers {
		layers[i] = layer(r, options)
	}
	return layers
}

// TestFrontier: the picture's line goes down, ends where the choices do, and no point of
// it is better than the best of its size.
func TestFrontier(t *testing.T) {
	p := New(large(formats, 60, 8))
	points := p.Frontier(20)
	if n := len(points); n < 10 || n > 21 || points[0].Bytes != p.Smallest().Bytes || points[n-1].Bytes != p.Best().Bytes {
		t.Fatalf("%d points: %v", n, points)
	}
	for i, point := range points {
		if i > 0 && (point.Bytes <= points[i-1].Bytes || point.Loss >= points[i-1].Loss) {
			t.Errorf("point %d does not follow %v: %v", i, points[i-1], point)
		}
		if got, err := p.Solve(point.Bytes); err != nil || math.Abs(got.Loss-point.Loss) > 1e-9*point.Loss {
			t.Errorf("point %v is not the best of its size: %+v, %v", point, got, err)
		}
	}
}

// TestBeside: what is said of a layer's next options is that.
func TestBeside(t *testing.T) {
	p := New([][]Option{{{30, 2}, {10, 9}, {20, 9.5}, {40, 1}, {50, 1.5}}})
	for option, want := range map[int][2]int{0: {1, 3}, 1: {-1, 0}, 3: {0, -1}} {
		if cheaper, better := p.Beside(0, option); cheaper != want[0] || better != want[1] {
			t.Errorf("beside option %d are %d and %d, want %v", option, cheaper, better, want)
		}
	}
}

func BenchmarkSolve(b *testing.B) {
	for _, kind := range kinds {
		layers := large(kind.layer, 2000, 12)
		for _, tenth := range []int64{2, 5, 8} {
			b.Run(fmt.Sprintf("%s/%d0%%", kind.name, tenth), func(b *testing.B) {
				for b.Loop() {
					p := New(layers)
					least := p.Smallest().Bytes
					if _, err := p.Solve(least + (p.Best().Bytes-least)*tenth/10); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
