// Package group measures, encodes and decodes values that share a scale, many groups in
// one call of a kernel.
package group

import (
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
)

// Grid describes how the values of a weight share scales. A unit is Group consecutive
// values, which hold Inner groups, interleaved: value i of a unit belongs to the unit's
// group i mod Inner.
type Grid struct {
	Values     int // in the weight
	Group      int // consecutive values that hold whole groups
	Inner      int // groups in them
	Levels     int // values stored for each group: 1 scale, or the levels of its codebook
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

func (g *Grid) CodesSpan(start, end int) tile.Span {
	from := int64(pack.Size(start, g.Bits))
	return tile.One(from, int64(pack.Size(end, g.Bits))-from)
}

// ScalesWritten returns the span of the scales that encoding values [start, end)
// writes; ScalesNeeded that of the scales that decoding them needs.
func (g *Grid) ScalesWritten(start, end int) tile.Span { return g.scales(g.GroupsFrom(start, end)) }

func (g *Grid) ScalesNeeded(start, end int) tile.Span { return g.scales(g.GroupsIn(start, end)) }

func (g *Grid) scales(first, last int) tile.Span {
	return tile.One(int64(first)*int64(g.ScaleBytes), int64(last-first)*int64(g.ScaleBytes))
}

// GroupsFrom returns the index range of the scales of the units that begin in [start,
// end).
func (g *Grid) GroupsFrom(start, end int) (first, last int) {
	return tile.CeilDiv(start, g.Group) * g.PerUnit(), tile.CeilDiv(end, g.Group) * g.PerUnit()
}

// GroupsIn returns the index range of the scales of the units that overlap [start,
// end).
func (g *Grid) GroupsIn(start, end int) (first, last int) {
	return start / g.Group * g.PerUnit(), tile.CeilDiv(end, g.Group) * g.PerUnit()
}

// PerUnit returns the number of scales, or levels, of a unit.
func (g *Grid) PerUnit() int { return g.Inner * g.Levels }

// Units calls f for every unit that overlaps values [start, start+n): its
// index and the part of it, as a range within the tile.
func (g *Grid) Units(start, n int, f func(unit, from, to int)) {
	for at := 0; at < n; {
		unit := (start + at) / g.Group
		to := min((unit+1)*g.Group-start, n)
		f(unit, at, to)
		at = to
	}
}

// Measure returns the range of every group that overlaps a tile, from unit
// start/Group on, Inner for each. Tiles start at multiples of Inner and are
// joined, in order, with [tile.Range.Join].
func (g *Grid) Measure(start int, values []float32, s *tile.Scratch) []tile.Range {
	var ranges []tile.Range
	g.Units(start, len(values), func(_, from, to int) {
		ranges = g.AppendRanges(ranges, values[from:to], s)
	})
	return ranges
}

// AppendRanges appends the ranges of the groups of a unit.
func (g *Grid) AppendRanges(ranges []tile.Range, values []float32, s *tile.Scratch) []tile.Range {
	if g.Inner == 1 {
		return append(ranges, tile.RangeOf(values))
	}
	n := len(values) / g.Inner
	sorted := s.Floats(len(values))
	transpose.All(sorted, values, n, g.Inner)
	for j := range g.Inner {
		ranges = append(ranges, tile.RangeOf(sorted[j*n:(j+1)*n]))
	}
	return ranges
}

// Cut ignores rows: areas are whole packing blocks of the flattened weight.
func (g *Grid) Cut() tile.Cut {
	return tile.Cut{Rows: 1, Cols: g.Values, UnitRows: 1, UnitCols: g.Block, GroupRows: 1, GroupCols: g.Group}
}

// TileValues returns how many values a tile should have: about want, at most limit, a
// multiple of unit; 0 if a single unit exceeds limit.
func (g *Grid) TileValues(want, limit, unit int) int {
	if unit > limit {
		return 0
	}
	return max(want/unit, 1) * unit
}

// JoinRanges adds what [Grid.Measure] found in a tile to the ranges of the units
// before.
func (g *Grid) JoinRanges(all []tile.Range, start int, found []tile.Range) []tile.Range {
	for i, r := range found {
		if group := start/g.Group*g.Inner + i; group < len(all) {
			all[group] = all[group].Join(r)
		} else {
			all = append(all, r)
		}
	}
	return all
}
