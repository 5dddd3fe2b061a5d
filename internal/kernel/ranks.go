package kernel

import "math"

// RankedGroups is the most groups that [Ranks] takes, RankedMost the most values of a
// group.
const (
	RankedGroups = 16
	RankedMost   = 1024
)

const (
	leastRanked = 32 // the least padded size of a group: assembly sorts its halves by 16 rows
	keysBefore  = 2  // keys in front that are below all values
	keysBehind  = 4  // keys at the end that are above all values
)

// rankSet fits codebooks to sorted values. With a set that has none, groups are sorted
// one by one.
type rankSet struct {
	keys  func(keys []uint16, x []float32) bool
	sort  func(r *Ranks)
	sums  func(r *Ranks, group int, s *Sorted)
	find  func(s *Sorted)
	steps func(s *Sorted)
}

// Ranks is up to 16 groups of sorted bfloat16 values. They are sorted by keys: integers
// of 16 bits in the same order as the values.
type Ranks struct {
	n, size int      // values of a group, and the power of 2 to which it is padded
	keys    []uint16 // the keys of each group, one group after the other
	rows    []uint32 // pairs of keys; a row has one pair of each of 16 groups, and columns are sorted
	blocks  []uint32 // 16 rows each, arranged by groups
}

// Cells are the levels of a codebook, up to 16 and the unused ones infinite, and the
// state of fitting them to a group: a cell is the values nearest to a level. Assembly
// depends on the offsets of the fields.
type Cells struct {
	Levels, Middles [BookLevels]float32 // ascending
	Ends            [BookLevels]int     // ends of cells: how many values are not above each middle
	// The sum of a cell that ends beyond Below and begins before From may depend on the
	// order of adding, if the sums up to its ends exceed Reach.
	Below, From int
	Reach       float64
	Steps       int // steps left
	keys        *uint16
	sums        *float64
}

// Sorted is one group of Ranks.
type Sorted struct {
	Cells
	Values []float32 // ascending, between infinities
	Sums   []float64 // Sums[i] is the sum of the first i values, added in any order
	half   int
	key    []uint16 // keys of the values, between keysBefore and keysBehind others
	values []float32
	sums   []float64
}

// CanRank reports whether [Ranks] can take groups of n values on this machine.
func CanRank(n int) bool { return active.ranks != nil && n <= RankedMost }

// Sort takes up to 16 groups of n finite values. It reports false if a value is not
// exact in bfloat16.
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

// Group copies group i to s. Zeros lose their sign.
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

// Find sets the ends of cells according to the middles.
func (s *Sorted) Find() { active.ranks.find(s) }

// Step moves each level to the mean of its cell, each middle to the midpoint of its two
// levels, and the ends of cells accordingly, until nothing moves or no steps are left.
// It stops early, with steps left, before a step that it cannot do: if levels would not
// ascend, or if a sum may depend on the order of adding.
func (s *Sorted) Step() {
	if s.Steps > 0 {
		active.ranks.steps(s)
	}
}
