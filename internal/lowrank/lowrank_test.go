package lowrank

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/linalg"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// narrow makes a LowRank of a shape take a Krylov space where it would take
// the Gram matrix, so that tests are quick.
func narrow(rows, columns, rank int) *Search {
	l, err := New(rows, columns, rank, SVDSteps)
	if err != nil {
		panic(err)
	}
	l.width, l.passes = blocks(l.Rank, SVDSteps)
	l.space = newKrylov(columns, l.width, l.passes)
	return l
}

// inOrder gives a LowRank its tiles, in that dtype, and returns the factors in
// F32.
func (l *Search) inOrder(w []float32, from safetensors.Dtype) (*Factors, error) {
	for pass := range l.Passes() {
		for at := range l.Tiles() {
			l.addFrom(pass, at, l.tile(w, at), from, new(tile.Scratch))
		}
	}
	return l.Factors(safetensors.F32, nil)
}

// shaped fills a matrix whose singular values fall as i^-steep, more or less.
func shaped(rows, columns int, steep float64, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	w := make([]float32, rows*columns)
	n := min(rows, columns, 48)
	for k := range n {
		u, v := make([]float64, rows), make([]float64, columns)
		for i := range u {
			u[i] = r.NormFloat64()
		}
		for j := range v {
			v[j] = r.NormFloat64()
		}
		f := math.Pow(float64(k+1), -steep)
		for i := range w {
			w[i] += float32(f * u[i/columns] * v[i%columns])
		}
	}
	for i := range w {
		w[i] += float32(0.05 * r.NormFloat64())
	}
	return w
}

// left returns what the rest of a split weighs, in double precision.
func left(t *testing.T, f *Factors, w []float32) float64 {
	t.Helper()
	rows := len(w) / f.Columns
	up := make([]float32, rows*f.Rank)
	rest := append([]float32(nil), w...)
	f.Split(up, rest, new(tile.Scratch))
	s := 0.0
	for i := range rows {
		for j := range f.Columns {
			exact := float64(w[i*f.Columns+j])
			for k := range f.Rank {
				exact -= float64(up[i*f.Rank+k]) * float64(f.Down[k*f.Columns+j])
			}
			s += exact * exact
		}
	}
	for i, v := range append(append(up, f.Down...), rest...) {
		if !floats.Finite(v) {
			t.Fatalf("value %d of factors and rest is %v", i, v)
		}
	}
	return math.Sqrt(s)
}

// squares returns the squares of all singular values.
func squares(w []float32, columns int) []float64 {
	x := make([]float64, len(w))
	for i, v := range w {
		x[i] = float64(v)
	}
	g := make([]float64, columns*columns)
	linalg.AddTransposeTimes(g, x, x, columns, columns)
	values, _ := linalg.Eigen(g, columns, nil)
	return values
}

// length returns the norm of what has those squares, the singular values'.
func length(squares []float64) float64 {
	s := 0.0
	for _, v := range squares {
		s += max(v, 0)
	}
	return math.Sqrt(s)
}

func TestRestIsNearTheLeast(t *testing.T) {
	t.Parallel()
	shapes, ranks := [][2]int{{90, 300}, {200, 140}, {140, 200}, {700, 131}}, []int{1, 4, 8, 12, 30}
	if testing.Short() {
		shapes, ranks = shapes[:1], []int{1, 8}
	}
	for _, shape := range shapes {
		for _, steep := range []float64{0, 0.5, 1.5} {
			rows, columns := shape[0], shape[1]
			w, _ := tiletest.RoundedTo(shaped(rows, columns, steep, 7), safetensors.BF16)
			values := squares(w, columns)
			for _, rank := range ranks {
				want, all := length(values[rank:]), length(values)
				for name, l := range map[string]*Search{
					"krylov":         narrow(rows, columns, rank),
					"krylov of BF16": narrow(rows, columns, rank),
					"gram":           whole(t, rows, columns, rank),
				} {
					from := safetensors.F32
					if name == "krylov of BF16" {
						from = safetensors.BF16
					}
					f, err := l.inOrder(w, from)
					if err != nil {
						t.Fatal(err)
					}
					bound := want * (1 + 1e-9)
					if name != "gram" {
						bound = want * (1 + 5e-4)
					}
					if got := left(t, f, w); !(got <= bound+1e-6*all) {
						t.Errorf("%s [%d, %d] steep %v rank %d: rest %v, least %v: %.1f ppm above",
							name, rows, columns, steep, rank, got, want, (got/want-1)*1e6)
					}
				}
			}
		}
	}
}

// TestNarrowWeights: around the width up to which all of the Gram matrix is taken,
// little is left above the least there is on either side.
func TestNarrowWeights(t *testing.T) {
	t.Parallel()
	widths, ranks := []int{380, 400, 512}, []int{8, 32, 128}
	if testing.Short() {
		widths, ranks = widths[1:2], ranks[1:2]
	}
	for _, columns := range widths {
		w := integers(columns * columns)
		values := squares(w, columns)
		for _, rank := range ranks {
			l, _ := New(columns, columns, rank, SVDSteps)
			f, err := l.inOrder(w, safetensors.F32)
			if err != nil {
				t.Fatal(err)
			}
			want, bound := length(values[rank:]), 1+1e-9
			if l.width < columns {
				bound = 1 + 5e-5
			}
			if got := left(t, f, w); !(got <= want*bound) {
				t.Errorf("%d columns, rank %d: rest %v, least %v: %.1f ppm above", columns, rank, got, want, (got/want-1)*1e6)
			}
		}
	}
}

// TestBesideOneGreatDirection: a column thousands of times as large as all else
// makes every product nearly the same. What little these have beside it is still
// what the other directions follow from; random ones in their place leave more.
func TestBesideOneGreatDirection(t *testing.T) {
	const rows, columns, rank = 300, 520, 4
	r, w := rand.New(rand.NewPCG(11, 1)), make([]float32, rows*columns)
	for i := range w {
		if w[i] = float32(r.NormFloat64()); i%columns == 17 {
			w[i] = 1 << 15
		}
	}
	w, _ = tiletest.RoundedTo(w, safetensors.BF16)
	want := length(squares(w, columns)[rank:])
	for _, from := range []safetensors.Dtype{safetensors.F32, safetensors.BF16} {
		l, _ := New(rows, columns, rank, SVDSteps)
		f, err := l.inOrder(w, from)
		if err != nil {
			t.Fatal(err)
		}
		if got := left(t, f, w); !(got <= want*(1+2e-5)) {
			t.Errorf("of %s: rest %v, least %v: %.1f ppm above", from, got, want, (got/want-1)*1e6)
		}
	}
}

// TestMoreStepsLeaveLess: fewer steps are fewer passes, which pays, and more of
// them leave less, which is why one would ask for them.
func TestMoreStepsLeaveLess(t *testing.T) {
	const rows, columns = 150, 530
	w := shaped(rows, columns, 0.3, 9)
	for _, rank := range []int{4, 12, 20} {
		before, passes := math.Inf(1), 0
		for _, steps := range []int{0, 1, 2, 4, 8, 12} {
			l, err := New(rows, columns, rank, steps)
			if err != nil {
				t.Fatal(err)
			}
			if l.Passes() <= passes {
				t.Errorf("rank %d: %d steps take %d passes, fewer took %d", rank, steps, l.Passes(), passes)
			}
			passes = l.Passes()
			f, err := l.inOrder(w, safetensors.F32)
			if err != nil {
				t.Fatal(err)
			}
			got := left(t, f, w)
			if got > before*(1+1e-9) {
				t.Errorf("rank %d: %d steps leave %v, fewer left %v", rank, steps, got, before)
			}
			if steps <= 2 && rank > 4 && got > before*(1-1e-4) {
				t.Errorf("rank %d: %d steps leave %v, no less than fewer did", rank, steps, got)
			}
			before = got
		}
	}
}

func whole(t *testing.T, rows, columns, rank int) *Search {
	t.Helper()
	l, err := New(rows, columns, rank, SVDSteps)
	if err != nil {
		t.Fatal(err)
	}
	if l.Passes() != 1 {
		t.Fatalf("%d columns take %d passes", columns, l.Passes())
	}
	return l
}

// TestOrderOfTilesDoesNotMatter: also not that of arrival, which one goroutine
// can shuffle among tiles of different sums.
func TestOrderOfTilesDoesNotMatter(t *testing.T) {
	rows, columns, rank := 2400, 600, 9
	if testing.Short() {
		rows, columns, rank = 600, 513, 3
	}
	w, _ := tiletest.RoundedTo(shaped(rows, columns, 0.7, 3), safetensors.BF16)
	for _, from := range []safetensors.Dtype{safetensors.F32, safetensors.BF16} {
		want := bitsOf(factored(t, w, from, rows, columns, rank, 1, safetensors.BF16), w)
		for _, threads := range []int{2, 3, 16} {
			if got := bitsOf(factored(t, w, from, rows, columns, rank, threads, safetensors.BF16), w); got != want {
				t.Errorf("%d goroutines give other bits of %s", threads, from)
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		l, _ := New(rows, columns, rank, SVDSteps)
		for pass := range l.Passes() {
			for first := 0; first < l.Tiles(); first += chains {
				for _, i := range r.Perm(min(chains, l.Tiles()-first)) {
					l.addFrom(pass, first+i, l.tile(w, first+i), from, new(tile.Scratch))
				}
			}
		}
		f, err := l.Factors(safetensors.BF16, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bitsOf(f, w) != want {
			t.Errorf("shuffled tiles give other bits of %s", from)
		}
	}
}

// bitsOf hashes down, up and the rest.
func bitsOf(f *Factors, w []float32) string {
	rest := append([]float32(nil), w...)
	up := make([]float32, len(w)/f.Columns*f.Rank)
	f.Split(up, rest, new(tile.Scratch))
	h := sha256.New()
	for _, part := range [][]float32{f.Down, up, rest} {
		binary.Write(h, binary.LittleEndian, part)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// integers are the same on every machine, which those of package math are not.
func integers(n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(int64(splitmix(uint64(i))>>44)-1<<19) * 0x1p-24
	}
	return w
}

// TestSameBitsOnEveryMachine holds the bits that one machine gave. In BF16 it
// takes values, too, whose products are exact only if they are brought nearer
// to each other before.
func TestSameBitsOnEveryMachine(t *testing.T) {
	f32, bf16 := safetensors.F32, safetensors.BF16
	for _, c := range []struct {
		rows, columns, rank int
		from, to            safetensors.Dtype
		powers              int // of two, by which every 7th value is smaller
		want                string
	}{
		{100, 90, 5, f32, f32, 0, "781f884a00c1439b"},
		{300, 520, 4, f32, bf16, 0, "9c9347c921ac8aa3"},
		{200, 530, 20, f32, safetensors.F16, 0, "64a42fdf8d412743"},
		{300, 520, 4, bf16, bf16, 0, "ce755444693dae45"},
		{150, 1030, 44, bf16, bf16, 0, "1efa05aff8637ef6"},
		{100, 530, 4, bf16, f32, 110, "728dd0cdf4bf96f9"},
		{100, 530, 4, bf16, f32, -117, "b917a45c3956a0a0"},
	} {
		w := integers(c.rows * c.columns)
		for i := 0; i < len(w); i += 7 {
			w[i] = float32(math.Ldexp(float64(w[i]), -c.powers))
		}
		if c.from == bf16 {
			w, _ = tiletest.RoundedTo(w, bf16)
		}
		if got := bitsOf(factored(t, w, c.from, c.rows, c.columns, c.rank, 2, c.to), w); got != c.want {
			t.Errorf("[%d, %d] of %s, rank %d: %s, want %s", c.rows, c.columns, c.from, c.rank, got, c.want)
		}
	}
}

func TestSplitDoesNotDependOnTiles(t *testing.T) {
	const rows, columns, rank = 61, 70, 6
	w := shaped(rows, columns, 1, 5)
	f := factored(t, w, safetensors.F32, rows, columns, rank, 1, safetensors.BF16)
	wholeRest, wholeUp := append([]float32(nil), w...), make([]float32, rows*rank)
	f.Split(wholeUp, wholeRest, new(tile.Scratch))
	s := new(tile.Scratch)
	for i := 0; i < rows; i += 7 {
		n := min(7, rows-i)
		up, rest := make([]float32, n*rank), append([]float32(nil), w[i*columns:(i+n)*columns]...)
		f.Split(up, rest, s)
		for k, v := range up {
			if v != wholeUp[i*rank+k] || v != floats.RoundTo(v, f.Dtype) {
				t.Fatalf("up from row %d, %d: %v, want %v", i, k, v, wholeUp[i*rank+k])
			}
		}
		for k, v := range rest {
			if v != wholeRest[i*columns+k] {
				t.Fatalf("rest from row %d, %d: %v, want %v", i, k, v, wholeRest[i*columns+k])
			}
		}
	}
}

// TestStrangeMatrices: whatever is finite has finite factors, of the shape that
// readers derive, and nothing is left where the rank is enough.
func TestStrangeMatrices(t *testing.T) {
	ones := func(f float32) func(i, j int) float32 { return func(i, j int) float32 { return f } }
	r := rand.New(rand.NewPCG(3, 1))
	exponents := func(i, j int) float32 {
		return float32(math.Ldexp(r.NormFloat64(), r.IntN(250)-140))
	}
	diagonal := func(i, j int) float32 {
		if i == j {
			return 1
		}
		return 0
	}
	bell := func(i, j int) float32 { return float32(r.NormFloat64()) }
	most := 600
	if testing.Short() {
		most = 530
	}
	for _, c := range []struct {
		name                string
		rows, columns, rank int
		f                   func(i, j int) float32
		full                bool
	}{
		{"row", 1, 700, 8, bell, true},
		{"column", 700, 1, 8, bell, true},
		{"one", 1, 1, 32, bell, true},
		{"two", 2, 2, 32, bell, true},
		{"few rows", 5, 600, 32, bell, true},
		{"few columns", 600, 5, 32, bell, true},
		{"zero", 40, 600, 8, ones(0), true},
		{"zero, narrow", 40, 60, 8, ones(0), true},
		{"rank one", 80, 600, 8, func(i, j int) float32 { return float32(i+1) * float32(j%7-3) }, true},
		{"greatest", 40, 600, 8, ones(math.MaxFloat32), false},
		{"greatest of two signs", 40, 600, 8, func(i, j int) float32 { return math.MaxFloat32 * float32(1-2*(i*j&1)) }, false},
		{"subnormal", 40, 600, 8, func(i, j int) float32 { return float32(i*j) * 0x1p-149 }, false},
		{"least", 40, 60, 8, ones(0x1p-149), false},
		{"all exponents", 50, 600, 8, exponents, false},
		{"all exponents, narrow", 50, 60, 8, exponents, false},
		{"identity", most, most, 40, diagonal, false},
		{"permutation", most, most, 3, func(i, j int) float32 { return diagonal(i, (j+7)%most) }, false},
	} {
		w := make([]float32, c.rows*c.columns)
		for i := range w {
			w[i] = c.f(i/c.columns, i%c.columns)
		}
		checkStrange(t, c.name, w, safetensors.F32, c.rows, c.columns, c.rank, c.full)
		for i, v := range w { // towards zero: the greatest would become infinity
			w[i] = math.Float32frombits(math.Float32bits(v) &^ 0xFFFF)
		}
		checkStrange(t, c.name+" of BF16", w, safetensors.BF16, c.rows, c.columns, c.rank, c.full)
	}
}

func checkStrange(t *testing.T, name string, w []float32, from safetensors.Dtype, rows, columns, rank int, full bool) {
	t.Helper()
	norm := 0.0
	for _, v := range w {
		norm += float64(v) * float64(v)
	}
	norm = math.Sqrt(norm)
	l := passed(t, w, from, rows, columns, rank, SVDSteps, 2)
	exact := 1e-6
	if from == safetensors.BF16 {
		exact = 2e-5 // as far as its blocks are from orthonormal
	}
	for _, to := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
		f, err := l.Factors(to, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := min(rank, rows, columns); f.Rank != want || len(f.Down) != want*columns {
			t.Fatalf("%s: rank %d, %d values, want rank %d", name, f.Rank, len(f.Down), want)
		}
		got := left(t, f, w)
		limit := map[safetensors.Dtype]float64{safetensors.F32: exact, safetensors.BF16: 0.01, safetensors.F16: 0.002}[to]
		if full && !(got <= limit*norm) {
			t.Errorf("%s in %d: %v of %v is left", name, to, got, norm)
		}
		if !(got <= norm*(1+1e-6)) {
			t.Errorf("%s in %d: %v is left, more than the %v there was", name, to, got, norm)
		}
		if strings.HasPrefix(name, "identity") && !(got <= math.Sqrt(560)*1.0001) {
			t.Errorf("identity less 40 directions: %v is left, want √560", got)
		}
	}
}

func TestNonfiniteHasNoFactors(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, columns := range []int{20, 600} {
			w := integers(300 * columns)
			w[len(w)/2] = float32(v)
			for _, from := range []safetensors.Dtype{safetensors.F32, safetensors.BF16} {
				l, _ := New(300, columns, 4, SVDSteps)
				if f, err := l.inOrder(w, from); err == nil || f != nil {
					t.Errorf("%v of %d columns of %s: factors %v, error %v", v, columns, from, f != nil, err)
				}
			}
		}
	}
}

func TestCancelledWaitsEnd(t *testing.T) {
	l, _ := New(2000, 600, 4, SVDSteps)
	stop := make(chan struct{})
	close(stop)
	for _, early := range [][2]int{{0, chains}, {1, 0}} {
		if l.Add(early[0], early[1], tile.ValuesOf(tile.Line(0, 600), make([]float32, 600)), new(tile.Scratch), stop) {
			t.Errorf("pass %d, tile %d was added before the first one", early[0], early[1])
		}
	}
	if f, err := l.Factors(safetensors.F32, stop); f != nil || err != nil {
		t.Error(f, err)
	}
}

// TestCancelledSearchEnds: Ctrl-C is heard while eigenvectors are sought, and what
// is found by then is not taken for factors.
func TestCancelledSearchEnds(t *testing.T) {
	for _, columns := range []int{300, 1100} { // of the Gram matrix, of a space
		l, _ := New(200, columns, 8, SVDSteps)
		w := integers(200 * columns)
		stop := make(chan struct{})
		for pass := range l.Passes() {
			for at := range l.Tiles() {
				if pass == l.Passes()-1 && at == l.Tiles()-1 {
					close(stop)
				}
				rows := l.tile(w, at)
				l.Add(pass, at, tile.ValuesOf(tile.Line(0, len(rows)), rows), new(tile.Scratch), stop)
			}
		}
		if f, err := l.Factors(safetensors.F32, nil); f != nil || err == nil {
			t.Errorf("%d columns: factors %v, error %v", columns, f != nil, err)
		}
	}
}

func TestLowRankRefuses(t *testing.T) {
	for _, c := range [][4]int{{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {1, 1, 1, -1}, {-1, 4, 1}, {math.MaxInt, 2, 1}} {
		if _, err := New(c[0], c[1], c[2], c[3]); err == nil {
			t.Error(c)
		}
	}
}

// BenchmarkLowRank takes all passes over a layer, and as many plain products in
// the same run: ×product is the ratio that counts, beside s/pass.
func BenchmarkLowRank(b *testing.B) {
	for _, c := range [][3]int{{3072, 3072, 32}, {3072, 3072, 64}, {4096, 1024, 32}, {1024, 4096, 32}, {384, 384, 32}} {
		rows, columns, rank := c[0], c[1], c[2]
		w, from := integers(rows*columns), safetensors.F32
		b.Run(fmt.Sprintf("%dx%d/rank=%d", rows, columns, rank), func(b *testing.B) {
			l, err := New(rows, columns, rank, SVDSteps)
			if err != nil {
				b.Fatal(err)
			}
			x, y, scale := integers(columns*l.width), integers(rows*l.width), make([]float64, l.width)
			seen, sum := make([]float64, rows*l.width), l.space.newSum()
			var plain, factors time.Duration
			b.SetBytes(int64(4 * len(w)))
			for b.Loop() {
				start := time.Now()
				passed(b, w, from, rows, columns, rank, SVDSteps, 1).Factors(safetensors.BF16, nil)
				factors += time.Since(start)
				b.StopTimer()
				start = time.Now()
				for range l.passes {
					kernel.Project(seen, w, x, columns, l.width)
					kernel.Collect(sum, w, y, scale, columns, l.width)
				}
				plain += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(factors.Seconds()/plain.Seconds(), "×product")
			b.ReportMetric(factors.Seconds()/float64(b.N*l.passes), "s/pass")
		})
	}
}
