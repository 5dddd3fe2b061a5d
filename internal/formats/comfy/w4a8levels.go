package comfy

import (
	"math"
	"slices"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// fixedLevels are the best sixteen for groups of bell-shaped values, each
// divided by its greatest magnitude.
var fixedLevels = []float32{
	-0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720,
	0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671,
}

const (
	surveyValues  = 1 << 22 // of the rows that are looked at
	surveySample  = 1 << 19 // of them, for the kurtosis
	fitSample     = 300000  // of them, to fit levels to
	fitIterations = 25
	// gateKurtosis is the excess kurtosis up to which the fixed levels are
	// taken; bell-shaped groups are near -0.47.
	gateKurtosis = -0.1
)

// Survey looks at evenly spaced rows and returns the format with the levels
// that fit the weight: the fixed ones but for heavy tails.
func (w *W4A8) Survey(read tile.Reader) (*W4A8, error) {
	if w.Levels == nil {
		return w, nil
	}
	rows := surveyRows(w.shape[0], max(1, surveyValues/w.shape[1]))
	sample, draws, err := w.sample(read, rows, len(rows)*w.shape[1], surveySample)
	if err != nil {
		return nil, err
	}
	if !heavy(sample, draws) {
		return w, nil
	}
	switch {
	case draws != nil: // the same draws, fewer of them
		sample = asDrawn(sample, draws)[:fitSample]
	case len(sample) > fitSample:
		if sample, draws, err = w.sample(read, rows, len(sample), fitSample); err != nil {
			return nil, err
		}
		sample = asDrawn(sample, draws)
	}
	fitted := *w
	fitted.Levels = fitLevels(sample)
	fitted.fitted = &decodedLevels{levels: fitted.Levels}
	return &fitted, nil
}

// heavy reports whether a sample has heavy tails. Sums in the reference's order take
// long and are needed where another's rounding could decide.
func heavy(sample []float32, draws []draw) bool {
	const near = 1e-6
	k := roughKurtosis(sample)
	if !(math.Abs(k-gateKurtosis) > near) {
		k = excessKurtosis(asDrawn(sample, draws))
	}
	return k > gateKurtosis
}

// surveyRows are count rows, evenly spaced in single precision.
func surveyRows(rows, count int) []int {
	if rows <= count {
		count = rows
	}
	list := make([]int, count)
	step := float32(0)
	if count > 1 {
		step = float32(rows-1) / float32(count-1)
	}
	for i := range list {
		switch {
		case count == rows:
			list[i] = i
		case i < count/2:
			list[i] = int(float32(step * float32(i)))
		default:
			list[i] = int(float32(rows-1) - float32(step*float32(count-i-1)))
		}
	}
	return list
}

// sample returns the normalized values of rows: all, or where there are more
// than n, as many drawn with replacement, in the order in which they lie there.
func (w *W4A8) sample(read tile.Reader, rows []int, total, n int) ([]float32, []draw, error) {
	draws := drawn(total, n)
	values := make([]float32, min(total, n))
	next, at := 0, 0
	var scales []float32
	err := w.pieces(read, rows, func(x []float32) {
		rotation.RotateOnce(x, w.Rotation)
		gammas := tile.Sized(&scales, len(x)/w.Group)
		w.start(gammas, x)
		if draws == nil {
			w.normalize(values[at:], x, gammas)
		}
		for ; next < len(draws) && int(draws[next].from) < at+len(x); next++ {
			from := int(draws[next].from) - at
			values[next] = x[from] / gammas[from/w.Group]
		}
		at += len(x)
	})
	return values, draws, err
}

// asDrawn returns a sample in the order in which it was drawn.
func asDrawn(sample []float32, draws []draw) []float32 {
	if draws == nil {
		return sample
	}
	values := make([]float32, len(sample))
	for i, d := range draws {
		values[d.to] = sample[i]
	}
	return values
}

// pieces reads rows one after the other: some at a time, as many groups are rotated
// sooner together than one by one, or parts of a long one.
func (w *W4A8) pieces(read tile.Reader, rows []int, do func(x []float32)) error {
	const most = 1 << 16 // values, or one unit
	columns, unit := w.shape[1], w.Cut().UnitCols
	part := min(unit*max(most/unit, 1), columns)
	buffer, full := make([]float32, max(most/columns, 1)*part), 0
	for _, row := range rows {
		for col := 0; col < columns; col += part {
			n := min(part, columns-col)
			if full+n > len(buffer) {
				do(buffer[:full])
				full = 0
			}
			if err := read(row*columns+col, buffer[full:full+n]); err != nil {
				return err
			}
			full += n
		}
	}
	do(buffer[:full])
	return nil
}

// normalize sets dst to values, each group of them divided by its scale.
func (w *W4A8) normalize(dst, x, gammas []float32) {
	for g, gamma := range gammas {
		to := dst[g*w.Group:][:w.Group]
		copy(to, x[g*w.Group:])
		kernel.Divide(to, 0, gamma, float32(math.Inf(-1)), float32(math.Inf(1)))
	}
}

// draw puts value from of a population at place to of a sample.
type draw struct{ from, to uint32 }

// lastDrawn is kept: a model has many weights of a shape.
var lastDrawn atomic.Pointer[sampling]

type sampling struct {
	population int
	draws      []draw
}

// drawn returns n draws from a population, in its order; nil where it is no
// larger than that.
func drawn(population, n int) []draw {
	if population <= n {
		return nil
	}
	if s := lastDrawn.Load(); s != nil && s.population == population && len(s.draws) == n {
		return s.draws
	}
	list := drawAgain(population, n)
	lastDrawn.Store(&sampling{population, list})
	return list
}

func drawAgain(population, n int) []draw {
	r, list, spare := newTwister(0), make([]draw, n), make([]draw, n)
	for i := range list {
		list[i] = draw{r.next() % uint32(population), uint32(i)}
	}
	const digit = 12
	for shift := 0; population>>shift > 0; shift += digit { // each keeps the order of the one before
		var begins [1<<digit + 1]int
		for _, d := range list {
			begins[d.from>>shift&(1<<digit-1)+1]++
		}
		for i := range 1 << digit {
			begins[i+1] += begins[i]
		}
		for _, d := range list {
			at := &begins[d.from>>shift&(1<<digit-1)]
			spare[*at] = d
			*at++
		}
		list, spare = spare, list
	}
	return list
}

// roughKurtosis is excessKurtosis but for rounding, of values up to about 1; NaN
// where that would be much.
func roughKurtosis(x []float32) float64 {
	var sums [2][4]float64 // of powers, for every other value
	for i := 0; i < len(x); i += 2 {
		for c, v := range x[i:min(i+2, len(x))] {
			z, s := float64(v), &sums[c]
			square := z * z
			s[0] += z
			s[1] += square
			s[2] += square * z
			s[3] += square * square
		}
	}
	n := float64(len(x))
	var m [4]float64
	for k := range m {
		m[k] = (sums[0][k] + sums[1][k]) / n
	}
	mean := m[0]
	square := m[1] - mean*mean
	fourth := m[3] - 4*mean*m[2] + 6*mean*mean*m[1] - 3*mean*mean*mean*mean
	if !(square > 1e-3) { // differences of what is nearly the same
		return math.NaN()
	}
	deviation := math.Sqrt(square*n/(n-1)) + 1e-9
	return fourth/(deviation*deviation*deviation*deviation) - 3
}

func excessKurtosis(x []float32) float64 {
	mean := meanOf(x)
	var squares float64
	for _, v := range x {
		d := float64(v) - mean
		squares += float64(d * d)
	}
	deviation := math.Sqrt(squares/float64(len(x)-1)) + 1e-9
	var fourths float64
	for _, v := range x {
		z := (float64(v) - mean) / deviation
		fourths += float64(z * z * z * z)
	}
	return fourths/float64(len(x)) - 3
}

func meanOf(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return sum / float64(len(x))
}

// fitLevels is Lloyd's algorithm from the quantiles on. The reference sums in
// single precision in an order of its own: its levels differ in the last bits.
func fitLevels(sample []float32) []float32 {
	levels := quantiles(sample, len(fixedLevels))
	sums, counts, codes := make([]float64, len(levels)), make([]int, len(levels)), make([]uint16, len(sample))
	for range fitIterations {
		clear(sums)
		clear(counts)
		codebook.NewNearestLevels(levels).Find(codes, sample)
		for j, v := range sample {
			i := codes[j]
			sums[i] += float64(v)
			counts[i]++
		}
		for i, n := range counts {
			if n > 0 {
				levels[i] = float32(sums[i] / float64(n))
			}
		}
	}
	return levels
}

// quantiles returns n evenly spaced ones, interpolated.
func quantiles(sample []float32, n int) []float32 {
	sorted := slices.Sorted(slices.Values(sample))
	levels := make([]float32, n)
	for i := range levels {
		rank := float64(i) / float64(n-1) * float64(len(sorted)-1)
		at := min(int(rank), len(sorted)-2)
		lo, hi := float64(sorted[at]), float64(sorted[at+1])
		levels[i] = float32(lo + float64((hi-lo)*(rank-float64(at))))
	}
	return levels
}

// twister is MT19937, from which the reference draws.
type twister struct {
	state [624]uint32
	at    int
}

func newTwister(seed uint32) *twister {
	t := &twister{at: 624}
	t.state[0] = seed
	for i := 1; i < len(t.state); i++ {
		t.state[i] = 1812433253*(t.state[i-1]^t.state[i-1]>>30) + uint32(i)
	}
	return t
}

func (t *twister) next() uint32 {
	if t.at == len(t.state) {
		t.generate()
	}
	y := t.state[t.at]
	t.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9D2C5680
	y ^= y << 15 & 0xEFC60000
	return y ^ y>>18
}

func (t *twister) generate() {
	n := len(t.state)
	for i := range t.state {
		y := t.state[i]&0x80000000 | t.state[(i+1)%n]&0x7FFFFFFF
		t.state[i] = t.state[(i+397)%n] ^ y>>1
		if y&1 != 0 {
			t.state[i] ^= 0x9908B0DF
		}
	}
	t.at = 0
}
