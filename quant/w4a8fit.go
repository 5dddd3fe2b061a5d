package quant

import "github.com/tensorpress/tensorpress/internal/kernel"

// fitter finds the scales and codes of one row.
type fitter struct {
	w      *W4A8
	gammas []float32                // of the groups, found by fit
	level  []float32                // of the codes of a group
	tried  []uint16                 // codes of a group
	table  [2*sixLevels + 1]float32 // what a group's codes decode to
}

const (
	refinements = 2 // of a group's scale
	sixLevels   = 31
)

func newFitter(w *W4A8, columns int) *fitter {
	return &fitter{w: w, gammas: make([]float32, columns/w.Group), level: make([]float32, w.Group), tried: make([]uint16, w.Group)}
}

// fit finds the scale of every group by alternating least squares, and returns
// the greatest magnitude that they give.
func (f *fitter) fit(row []float32) (most float32) {
	size := f.w.Group
	for g := range f.gammas {
		x := row[g*size : (g+1)*size]
		gamma := f.start(x)
		f.nearest(x, gamma)
		for range refinements {
			gamma = max(dot(x, f.level)/max(dot(f.level, f.level), 1e-8), 1e-8)
			f.nearest(x, gamma)
		}
		f.gammas[g] = gamma
		for _, l := range f.level {
			most = max(most, l*gamma, -l*gamma)
		}
	}
	return most
}

// start is the scale that brings the greatest magnitude to the last level.
func (f *fitter) start(x []float32) float32 {
	lo, hi := kernel.MinMax(x)
	amax := Range{lo, hi}.absMax()
	if f.w.Levels == nil {
		amax /= sixLevels
	}
	return max(amax, 1e-8)
}

// nearest takes the level nearest to every value.
func (f *fitter) nearest(x []float32, gamma float32) {
	for i, v := range x {
		if f.w.Levels == nil {
			f.level[i] = min(max(roundEven(v/gamma), -sixLevels), sixLevels)
		} else {
			f.level[i] = f.w.Levels[nearestOf(f.w.Levels, v/gamma)]
		}
	}
}

// dot is Σ x·y in the order of the reference's vectors of eight: four of them
// at a time, the rest to the first, and their lanes one after the other.
func dot(x, y []float32) (sum float32) {
	var lanes [4][8]float32
	whole := len(x) / 32 * 32
	for i, v := range x {
		vector := i / 8 % 4
		if i >= whole {
			vector = 0
		}
		lanes[vector][i%8] += float32(v * y[i])
	}
	for i := range min(len(x), 8) {
		sum += lanes[0][i] + lanes[1][i] + lanes[2][i] + lanes[3][i]
	}
	return sum
}

// nearestOf returns the index of the nearest of ascending levels; of two, the
// lower.
func nearestOf(levels []float32, x float32) int {
	pos := 0
	for n := len(levels); n > 0; {
		if half := n / 2; levels[pos+half] < x {
			pos, n = pos+half+1, n-half-1
		} else {
			n = half
		}
	}
	lo, hi := max(pos-1, 0), min(pos, len(levels)-1)
	if abs(x-levels[hi]) < abs(x-levels[lo]) {
		return hi
	}
	return lo
}

func abs(x float32) float32 { return max(x, -x) }

// assign stores every group's scale in units of the channel's, and the codes
// whose decoded integers are nearest.
func (f *fitter) assign(codes []uint16, scales []byte, row []float32, channel float32) {
	size := f.w.Group
	for g, gamma := range f.gammas {
		x := row[g*size : (g+1)*size]
		for i, v := range x {
			x[i] = v / channel
		}
		code := byte(kernel.E4M3.Encode(gamma / channel))
		if f.w.Levels == nil {
			scales[g] = f.search(codes[g*size:(g+1)*size], x, code)
			continue
		}
		scales[g] = code
		pick(codes[g*size:(g+1)*size], x, f.decoded(code))
	}
}

// decoded are the integers that a group's codes decode to.
func (f *fitter) decoded(code byte) []float32 {
	scale := kernel.E4M3.Decode(uint16(code))
	if f.w.Levels == nil {
		for i := range f.table {
			f.table[i] = grid(float32(i-sixLevels), scale)
		}
		return f.table[:]
	}
	for i, l := range f.w.Levels {
		f.table[i] = grid(l, scale)
	}
	return f.table[:len(f.w.Levels)]
}

// pick takes the nearest level of every value.
func pick(codes []uint16, x, levels []float32) {
	for i, v := range x {
		codes[i] = uint16(nearestOf(levels, v))
	}
}

// miss is the squared error of picked levels.
func (f *fitter) miss(codes []uint16, x, levels []float32) float32 {
	for i, c := range codes {
		f.level[i] = levels[c] - x[i]
	}
	return dot(f.level, f.level)
}

// search takes, of a scale and its two neighbours, the one with the least
// error, and its codes.
func (f *fitter) search(codes []uint16, x []float32, code byte) byte {
	levels := f.decoded(code)
	pick(codes, x, levels)
	best, least := code, f.miss(codes, x, levels)
	for _, c := range []byte{max(code, 2) - 1, min(code+1, 0x7E)} {
		levels := f.decoded(c)
		pick(f.tried, x, levels)
		if e := f.miss(f.tried, x, levels); e < least {
			best, least = c, e
			copy(codes, f.tried)
		}
	}
	for i := range codes {
		codes[i]++ // level -31 is stored as 1
	}
	return best
}
