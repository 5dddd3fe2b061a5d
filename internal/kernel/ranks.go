package kernel

import "math"

// RankedGroups is how many groups [Ranks] takes, each of up to RankedMost values.
const (
	RankedGroups = 16
	RankedMost   = 1024
)

const (
	leastRanked = 32 // what a group is filled up to, at least: assembly sorts its halves by 16 rows
	keysBefore  = 2  // that are below all values
	keysBehind  = 4  // that are above all
)

// rankSet fits codebooks by the order of values. A set without one leaves groups
// to be ranked one by one.
type rankSet struct {
	keys  func(keys []uint16, x []float32) bool
	sort  func(r *Ranks)
	sums  func(r *Ranks, group int, s *Sorted)
	find  func(s *Sorted)
	steps func(s *Sorted)
}

// Ranks is up to 16 groups of values of BF16, sorted. Their 16 bits make keys, whole
// numbers that ascend as they do.
type Ranks struct {
	n, size int      // values of a group, and the power of 2 that it is filled up to
	keys    []uint16 // of groups, one after the other
	rows    []uint32 // pairs of keys: of 16 groups in a row, sorted in columns
	blocks  []uint32 // of 16 rows, by groups
}

// Cells are the levels of a codebook, up to 16 of them and then infinite ones, and
// how far they are with a group. Assembly knows where the fields are.
type Cells struct {
	Levels, Middles [BookLevels]float32 // ascending
	Ends            [BookLevels]int     // of cells: how many values are not above a middle
	// Sums of cells that end beyond Below and begin before From may depend on the
	// order, if the sums up to their ends come to more than Reach.
	Below, From int
	Reach       float64
	Steps       int // to go
	keys        *uint16
	sums        *float64
}

// Sorted is a group out of Ranks.
type Sorted struct {
	Cells
	Values []float32 // ascending, between infinities
	Sums   []float64 // of the first of them, in any order
	half   int
	key    []uint16 // of values, between those that are below and above all
	values []float32
	sums   []float64
}

// CanRank reports whether groups of n values are ranked together.
func CanRank(n int) bool { return active.ranks != nil && n <= RankedMost }

// Sort takes up to 16 groups of n finite values, and reports false if some have
// more digits than BF16.
func (r *Ranks) Sort(values []float32, n int) bool {
	if r.n != n {
		r.reset(n)
	}
	for i := range min(len(values)/n, RankedGroups) {
		if !active.ranks.keys(r.keys[i*r.size:][:n], values[i*n:][:n]) {
			return false
		}
	}
	active.ranks.sort(r)
	return true
}

func (r *Ranks) reset(n int) {
	size := leastRanked
	for size < n {
		size *= 2
	}
	all := RankedGroups * size
	*r = Ranks{n: n, size: size, keys: make([]uint16, all), rows: make([]uint32, all/2), blocks: make([]uint32, all/2)}
	for i := range r.keys {
		r.keys[i] = math.MaxUint16
	}
}

// Group copies group i. What it has is zeros without sign.
func (r *Ranks) Group(i int, s *Sorted) {
	if len(s.values) != r.size+2 {
		s.reset(r.size)
	}
	active.ranks.sums(r, i, s)
	s.values[r.n+1] = float32(math.Inf(1))
	s.Values, s.Sums = s.values[:r.n+2], s.sums[:r.n+1]
}

func (s *Sorted) reset(size int) {
	s.half, s.key = size/2, make([]uint16, keysBefore+size+keysBehind)
	s.values, s.sums = make([]float32, size+2), make([]float64, size+1)
	s.values[0] = float32(math.Inf(-1))
	for i := range keysBehind {
		s.key[keysBefore+size+i] = math.MaxUint16
	}
	s.keys, s.Cells.sums = &s.key[keysBefore], &s.sums[0]
}

// Find sets the ends of cells by the middles.
func (s *Sorted) Find() { active.ranks.find(s) }

// Step moves levels to the means of their cells, middles to those of each level
// and the next, and the ends of cells to the middles, as long as any moves and
// there are steps to go. It leaves those to go only if the next is not for it,
// since levels would not ascend or sums may depend on the order.
func (s *Sorted) Step() {
	if s.Steps > 0 {
		active.ranks.steps(s)
	}
}
