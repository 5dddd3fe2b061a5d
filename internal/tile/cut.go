package tile

import (
	"iter"
	"math"
)

// Cut says how a weight may be cut into areas that can be encoded or decoded
// independently, and which of its values share a scale.
type Cut struct {
	Rows, Cols           int // of the weight; 1 and the number of values for formats that ignore rows
	UnitRows, UnitCols   int // areas consist of whole units, except at the weight's edges
	GroupRows, GroupCols int // shape of the group of values that share a scale
	// AnyRows says that an area to decode may begin and end at any row.
	AnyRows bool
	// BankRows, if not 0, are the rows of each of several matrices, one upon the other, of
	// which an area is best decoded that is of one alone.
	BankRows int
}

// InBank returns the most rows, a multiple of unit and at most so many, of which each of
// several matrices has a multiple; rows itself where there is one matrix, and unit where
// there is no such number.
func (c Cut) InBank(rows, unit int) int {
	if c.BankRows == 0 {
		return rows
	}
	for n := min(rows, c.BankRows) / unit * unit; n > unit; n -= unit {
		if c.BankRows%n == 0 {
			return n
		}
	}
	return min(unit, rows)
}

// ForDecoding returns the cut with the smaller units that are enough for decoding.
func (c Cut) ForDecoding() Cut {
	if c.AnyRows {
		c.UnitRows = 1
	}
	return c
}

// Tile returns the shape of areas of about want values, at most limit. They consist of
// whole groups or, if a group is too large for that, of whole units; measured then
// reports that the ranges of groups must be measured in a pass beforehand. A single
// unit may be larger than limit.
func (c Cut) Tile(want, limit int) (rows, cols int, measured bool) {
	r, n := c.least(false)
	if r > limit/n {
		unitRows, unitCols := c.least(true)
		measured = unitRows < r || unitCols < n
		r, n = unitRows, unitCols
	}
	rows, cols = c.extend(r, n, want, limit)
	return rows, cols, measured
}

// least returns the shape of the least areas of whole groups or, where these are
// measured, of whole units.
func (c Cut) least(measured bool) (rows, cols int) {
	if measured {
		return min(c.UnitRows, c.Rows), min(c.UnitCols, c.Cols)
	}
	return WholeUnits(c.UnitRows, c.GroupRows, c.Rows), WholeUnits(c.UnitCols, c.GroupCols, c.Cols)
}

// DecodeTile returns the shape of areas to decode, of about want values. They need not
// consist of whole groups.
func (c Cut) DecodeTile(want int) (rows, cols int) {
	rows, cols = c.extend(min(c.UnitRows, c.Rows), min(c.UnitCols, c.Cols), want, want)
	return c.InBank(rows, min(c.UnitRows, c.Rows)), cols
}

// Piece returns the shape into which an area of whole units is split: whole units of at
// most limit values together, or a single unit if that is larger.
func (c Cut) Piece(a Area, limit int) (rows, cols int) {
	cols = a.Cols
	if cols > limit/c.UnitRows {
		cols = min(max(limit/c.UnitRows/c.UnitCols, 1)*c.UnitCols, a.Cols)
	}
	rows = satMul(max(limit/max(cols, 1)/c.UnitRows, 1), c.UnitRows)
	return min(rows, a.Rows), cols
}

// mostBand is how many times the wanted size a tile of many rows may grow. Narrower
// tiles would be read and written in runs so short that system calls cost more than the
// work.
const mostBand = 32

// extend grows areas of r×n units to about the wanted size: to several whole rows of
// units if they fit, since those are contiguous in files, else to a part of one row of
// units.
func (c Cut) extend(r, n, want, limit int) (rows, cols int) {
	band := r * c.Cols
	switch {
	case band <= want:
		return want / band * r, c.Cols
	case c.Rows > r && r > 1:
		want = max(want, min(limit, mostBand*want))
	}
	return r, min(max(want/(r*n), 1)*n, c.Cols)
}

// WholeUnits returns the least common multiple of a and b, at most all.
func WholeUnits(a, b, all int) int {
	if a >= all || b >= all {
		return all
	}
	return min(a/GCD(a, b)*b, all)
}

// Areas yields the areas of that shape with their numbers, row of areas by row of
// areas.
func (c Cut) Areas(rows, cols int) iter.Seq2[int, Area] {
	return func(yield func(int, Area) bool) {
		i := 0
		for row := 0; row < c.Rows; row += rows {
			for col := 0; col < c.Cols; col += cols {
				if !yield(i, Area{row, col, min(rows, c.Rows-row), min(cols, c.Cols-col)}) {
					return
				}
				i++
			}
		}
	}
}

// Cover returns the smallest area of whole units that contains a.
func (c Cut) Cover(a Area) Area {
	row, col := a.Row/c.UnitRows*c.UnitRows, a.Col/c.UnitCols*c.UnitCols
	endRow := min(satMul(CeilDiv(a.Row+a.Rows, c.UnitRows), c.UnitRows), c.Rows)
	endCol := min(satMul(CeilDiv(a.Col+a.Cols, c.UnitCols), c.UnitCols), c.Cols)
	return Area{row, col, endRow - row, endCol - col}
}

// Count returns how many areas of that shape there are.
func (c Cut) Count(rows, cols int) int { return CeilDiv(c.Rows, rows) * CeilDiv(c.Cols, cols) }

// groupsAcross is the number of groups in a row of groups.
func (c Cut) groupsAcross() int { return CeilDiv(c.Cols, c.GroupCols) }

// Groups calls f for every group that overlaps an area, in row-major order, with the
// group's index and the part of the area that lies in it.
func (c Cut) Groups(a Area, f func(group int, part Area)) {
	for row := a.Row; row < a.Row+a.Rows; {
		nextRow := min(satMul(row/c.GroupRows+1, c.GroupRows), a.Row+a.Rows)
		for col := a.Col; col < a.Col+a.Cols; {
			nextCol := min(satMul(col/c.GroupCols+1, c.GroupCols), a.Col+a.Cols)
			f(row/c.GroupRows*c.groupsAcross()+col/c.GroupCols, Area{row, col, nextRow - row, nextCol - col})
			col = nextCol
		}
		row = nextRow
	}
}

// satMul multiplies positive numbers, and returns the largest int on overflow.
func satMul(a, b int) int {
	if a > math.MaxInt/b {
		return math.MaxInt
	}
	return a * b
}

// Unmeasured returns a range for every group that is empty still, to be filled by Join.
func (c Cut) Unmeasured() []Range {
	all := make([]Range, CeilDiv(c.Rows, c.GroupRows)*c.groupsAcross())
	for i := range all {
		all[i] = Range{float32(math.Inf(1)), float32(math.Inf(-1))}
	}
	return all
}

// Join merges the ranges found in an area into those of all groups. Areas must come in
// order, because among zeros of either sign the first one counts.
func (c Cut) Join(all []Range, a Area, found []Range) {
	c.Groups(a, func(group int, _ Area) {
		all[group] = all[group].Join(found[0])
		found = found[1:]
	})
}

// Measure returns the range of every group that overlaps an area with those values.
func (c Cut) Measure(a Area, values []float32) []Range {
	var ranges []Range
	c.Groups(a, func(_ int, part Area) { ranges = append(ranges, RangeIn(a, values, part)) })
	return ranges
}

// RangeIn returns the range of the values in a part of an area.
func RangeIn(a Area, values []float32, part Area) (r Range) {
	for i := range part.Rows {
		found := RangeOf(values[a.At(part, i):][:part.Cols])
		if i == 0 {
			r = found
		} else {
			r = r.Join(found)
		}
	}
	return r
}

// CeilDiv returns a/b rounded up.
func CeilDiv(a, b int) int { return (a + b - 1) / b }

// GCD returns the greatest common divisor.
func GCD(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// LCM returns the least common multiple.
func LCM(a, b int) int { return a / GCD(a, b) * b }
