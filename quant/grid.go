package quant

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
)

// Grid is where the values of a weight share scales. Units of Group
// consecutive values hold Inner groups, interleaved: value i of a unit belongs
// to its group i mod Inner.
type Grid struct {
	Values     int // in the weight
	Group      int // consecutive values that hold whole groups
	Inner      int // groups in them
	Levels     int // values that are stored for a group: 1, or those of a codebook
	Bits       int // of a code
	Block      int // codes that are packed together
	ScaleBytes int // of one scale
}

// Groups returns the number of groups.
func (g *Grid) Groups() int {
	if g.Values == 0 {
		return 0
	}
	return g.Values / g.Group * g.Inner
}

func (g *Grid) codesSpan(start, end int) Span {
	from := int64(pack.Size(start, g.Bits))
	return one(from, int64(pack.Size(end, g.Bits))-from)
}

// scalesWritten and scalesNeeded are the spans of scales of that many bytes.
func (g *Grid) scalesWritten(start, end int) Span { return g.scales(g.groupsFrom(start, end)) }
func (g *Grid) scalesNeeded(start, end int) Span  { return g.scales(g.groupsIn(start, end)) }

func (g *Grid) scales(first, last int) Span {
	return one(int64(first)*int64(g.ScaleBytes), int64(last-first)*int64(g.ScaleBytes))
}

// groupsFrom are the places of the scales of the units that begin in
// [start, end).
func (g *Grid) groupsFrom(start, end int) (first, last int) {
	return ceilDiv(start, g.Group) * g.perUnit(), ceilDiv(end, g.Group) * g.perUnit()
}

// groupsIn are those of the units that [start, end) overlaps.
func (g *Grid) groupsIn(start, end int) (first, last int) {
	return start / g.Group * g.perUnit(), ceilDiv(end, g.Group) * g.perUnit()
}

// perUnit is the number of scales, or levels, of a unit.
func (g *Grid) perUnit() int { return g.Inner * g.Levels }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// units calls f for every unit that overlaps values [start, start+n): its
// index and the part of it, as a range within the tile.
func (g *Grid) units(start, n int, f func(unit, from, to int)) {
	for at := 0; at < n; {
		unit := (start + at) / g.Group
		to := min((unit+1)*g.Group-start, n)
		f(unit, at, to)
		at = to
	}
}

// Measure returns the range of every group that overlaps a tile, from unit
// start/Group on, Inner for each. Tiles start at multiples of Inner and are
// joined, in order, with [Range.Join].
func (g *Grid) Measure(start int, values []float32, s *Scratch) []Range {
	var ranges []Range
	g.units(start, len(values), func(_, from, to int) {
		ranges = g.measure(ranges, values[from:to], s)
	})
	return ranges
}

// measure appends the ranges of the groups of a unit.
func (g *Grid) measure(ranges []Range, values []float32, s *Scratch) []Range {
	if g.Inner == 1 {
		return append(ranges, rangeOf(values))
	}
	n := len(values) / g.Inner
	sorted := s.floats(len(values))
	transpose(sorted, values, n, g.Inner)
	for j := range g.Inner {
		ranges = append(ranges, rangeOf(sorted[j*n:(j+1)*n]))
	}
	return ranges
}

func rangeOf(values []float32) Range {
	lo, hi := kernel.MinMax(values)
	return Range{lo, hi}
}

// Join is the range of a group's earlier part r and its next part.
func (r Range) Join(next Range) Range {
	if r.Lo != r.Lo {
		return r
	}
	if next.Lo < r.Lo || next.Lo != next.Lo {
		r.Lo = next.Lo
	}
	if next.Hi > r.Hi || next.Hi != next.Hi {
		r.Hi = next.Hi
	}
	return r
}

// absMax returns the greatest magnitude of the group.
func (r Range) absMax() float32 { return max(-r.Lo, r.Hi, 0) }

func (r Range) finite() bool { return finite(r.Lo) && finite(r.Hi) }

func finite(x float32) bool { return math.Float32bits(x)&0x7F800000 != 0x7F800000 }

// rangesOf returns the measured ranges of a unit, or those of its values.
func (g *Grid) rangesOf(k *known, unit int, values []float32, s *Scratch) []Range {
	if k.ranges != nil {
		return k.ranges[unit*g.Inner : (unit+1)*g.Inner]
	}
	s.ranges = g.measure(s.ranges[:0], values, s)
	return s.ranges
}

// checkFinite is CheckFinite for values of the scheme.
func (s *Scheme) checkFinite(start int, values []float32) error {
	err := CheckFinite(start, values)
	if n, ok := err.(*NonfiniteError); ok {
		n.LowRank = s.Rank > 0
	}
	return err
}

// CheckFinite returns a *[NonfiniteError] for the first NaN or infinity.
func CheckFinite(start int, values []float32) error {
	for i, v := range values {
		if !finite(v) {
			return &NonfiniteError{Index: start + i, Value: v}
		}
	}
	return nil
}

// Cut has no rows: areas are whole blocks, wherever rows end.
func (g *Grid) Cut() Cut {
	return Cut{Rows: 1, Cols: g.Values, UnitRows: 1, UnitCols: g.Block, GroupRows: 1, GroupCols: g.Group}
}

// TileValues returns how many values a tile should have: about want, at most
// limit, and multiples of unit; 0 where one does not fit.
func (g *Grid) TileValues(want, limit, unit int) int {
	if unit > limit {
		return 0
	}
	return max(want/unit, 1) * unit
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func lcm(a, b int) int { return a / gcd(a, b) * b }

// join adds what [Grid.Measure] found in a tile to the ranges of the units
// before.
func (g *Grid) join(all []Range, start int, found []Range) []Range {
	for i, r := range found {
		if group := start/g.Group*g.Inner + i; group < len(all) {
			all[group] = all[group].Join(r)
		} else {
			all = append(all, r)
		}
	}
	return all
}

// Finite reports whether all ranges are.
func Finite(ranges []Range) bool {
	for _, r := range ranges {
		if !r.finite() {
			return false
		}
	}
	return true
}
