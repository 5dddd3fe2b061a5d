package comfy

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// fitter finds the scales and codes of one row.
type fitter struct {
	w       *W4A8
	decoded *decodedLevels
	gammas  []float32 // of the groups, found by fit
	reach   []float32 // greatest magnitudes that they give
	level   []float32 // of the codes of a group
	tried   []uint16  // codes of a group
}

const (
	refinements = 2 // of a group's scale
	sixLevels   = 31
)

// wholeNumbers are the levels where there is no table of them.
var wholeNumbers = func() (all []float32) {
	for i := -sixLevels; i <= sixLevels; i++ {
		all = append(all, float32(i))
	}
	return all
}()

func newFitter(w *W4A8, columns int) *fitter {
	f := &fitter{w: w, decoded: fixedDecoded, gammas: make([]float32, columns/w.Group), reach: make([]float32, columns/w.Group), level: make([]float32, w.Group), tried: make([]uint16, w.Group)}
	switch {
	case w.Levels == nil:
		f.decoded = wholeDecoded
	case w.fitted != nil:
		f.decoded = w.fitted
	}
	return f
}

// fit finds the scale of every group by alternating least squares, and returns
// the greatest magnitude that they give.
func (f *fitter) fit(row []float32) (most float32) {
	greatest := f.w.start(f.gammas, row)
	if f.w.Group == kernel.FitGroup && f.w.Levels != nil && greatest < fits {
		kernel.FitBooks(f.gammas, f.reach, row, f.w.Levels, f.decoded.undecoded().Edges)
	} else {
		for g := range f.gammas {
			f.refine(g, row[g*f.w.Group:(g+1)*f.w.Group])
		}
	}
	for _, reach := range f.reach {
		most = max(most, reach)
	}
	return most
}

// fits is the magnitude below which no product of a group can overflow.
const fits = 0x1p50

// refine finds the scale of a group, from one to start with.
func (f *fitter) refine(g int, x []float32) {
	gamma := f.gammas[g]
	f.nearest(x, gamma)
	for range refinements {
		gamma = max(dot(x, f.level)/max(dot(f.level, f.level), 1e-8), 1e-8)
		f.nearest(x, gamma)
	}
	lo, hi := kernel.MinMax(f.level)
	f.gammas[g], f.reach[g] = gamma, max(hi*gamma, -lo*gamma)
}

// start sets scales to those that bring the greatest magnitudes of groups to the
// last level, and returns the greatest.
func (w *W4A8) start(gammas, x []float32) (greatest float32) {
	kernel.AbsMax(gammas, kernel.AsBytes(x), kernel.RawF32, w.Group)
	for i, amax := range gammas {
		if w.Levels == nil {
			amax /= sixLevels
		}
		gammas[i] = max(amax, 1e-8)
		greatest = max(greatest, gammas[i])
	}
	return greatest
}

// nearest takes the level nearest to every value.
func (f *fitter) nearest(x []float32, gamma float32) {
	copy(f.level, x)
	if f.w.Levels == nil {
		kernel.Divide(f.level, 0, gamma, -sixLevels, sixLevels)
		toWhole(f.level)
		return
	}
	kernel.Divide(f.level, 0, gamma, float32(math.Inf(-1)), float32(math.Inf(1)))
	f.decoded.undecoded().Find(f.tried, f.level)
	for i, c := range f.tried {
		f.level[i] = f.w.Levels[c]
	}
}

// dot is Σ x·y in the order of the reference's vectors of eight: four of them
// at a time, the rest to the first, and their lanes one after the other.
func dot(x, y []float32) (sum float32) {
	var lanes [4][8]float32
	whole := len(x) / 32 * 32
	for i := 0; i < whole; i += 8 {
		addProducts(&lanes[i/8%4], x[i:i+8], y[i:i+8])
	}
	for i := whole; i < len(x); i += 8 {
		end := min(i+8, len(x))
		addProducts(&lanes[0], x[i:end], y[i:end])
	}
	for i := range min(len(x), 8) {
		sum += lanes[0][i] + lanes[1][i] + lanes[2][i] + lanes[3][i]
	}
	return sum
}

// addProducts takes up to eight.
func addProducts(lanes *[8]float32, x, y []float32) {
	y = y[:len(x)]
	for i, v := range x {
		lanes[i&7] += float32(v * y[i])
	}
}

// assign stores every group's scale in units of the channel's, and the codes
// whose decoded integers are nearest.
func (f *fitter) assign(codes []uint16, scales []byte, row []float32, channel float32) {
	size := f.w.Group
	kernel.Divide(row, 0, channel, float32(math.Inf(-1)), float32(math.Inf(1)))
	for g, gamma := range f.gammas {
		x := row[g*size : (g+1)*size]
		code := byte(kernel.E4M3.Encode(gamma / channel))
		scales[g] = f.search(codes[g*size:(g+1)*size], x, code)
	}
}

// miss is the squared error of picked levels.
func (f *fitter) miss(codes []uint16, x, levels []float32) float32 {
	for i, c := range codes {
		f.level[i] = levels[c] - x[i]
	}
	return dot(f.level, f.level)
}

// search takes, of a scale and its neighbours, the one with the least error, and its
// codes.
func (f *fitter) search(codes []uint16, x []float32, code byte) byte {
	n := f.decoded.of(code)
	n.Find(codes, x)
	best := code
	if offers := f.w.neighbours(); len(offers) > 0 {
		least := f.miss(codes, x, n.Levels)
		for _, offer := range offers {
			c := byte(min(max(int(code)+offer, 1), 0x7E))
			n := f.decoded.of(c)
			n.Find(f.tried, x)
			if e := f.miss(f.tried, x, n.Levels); e < least {
				best, least = c, e
				copy(codes, f.tried)
			}
		}
	}
	if f.w.Levels == nil {
		for i := range codes {
			codes[i]++ // level -31 is stored as 1
		}
	}
	return best
}

// neighbours are the codes of scales that are tried beside the one that fits, counted
// from it: the reference's, which tries two for whole numbers and none for codebooks, or
// those of a search.
func (w *W4A8) neighbours() []int {
	switch {
	case w.Search:
		return []int{-1, 1, 2, 3, 4}
	case w.Levels == nil:
		return []int{-1, 1}
	}
	return nil
}
