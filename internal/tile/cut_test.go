package tile

import (
	"math/rand/v2"
	"testing"
)

// cuts calls f with random weights, units and groups, small enough to look at every
// value.
func cuts(t *testing.T, f func(r *rand.Rand, c Cut)) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 17))
	for range 2000 {
		f(r, Cut{
			Rows: 1 + r.IntN(20), Cols: 1 + r.IntN(40), UnitRows: 1 + r.IntN(8), UnitCols: 1 + r.IntN(8),
			GroupRows: 1 + r.IntN(12), GroupCols: 1 + r.IntN(12), AnyRows: r.IntN(2) == 0,
		})
		if t.Failed() {
			return
		}
	}
}

// part is a random area of a weight.
func part(r *rand.Rand, c Cut) Area {
	row, col := r.IntN(c.Rows), r.IntN(c.Cols)
	return Area{row, col, 1 + r.IntN(c.Rows-row), 1 + r.IntN(c.Cols-col)}
}

// TestAreasHoldEachValueOnce: a value that no tile holds would be written as
// whatever lay there, and one that two hold would be written twice.
func TestAreasHoldEachValueOnce(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		rows, cols := 1+r.IntN(c.Rows+2), 1+r.IntN(c.Cols+2)
		seen, n := make([]int, c.Rows*c.Cols), 0
		for i, a := range c.Areas(rows, cols) {
			if i != n || a.Rows > rows || a.Cols > cols {
				t.Fatalf("%+v in %d×%d: area %d is %+v, number %d", c, rows, cols, n, a, i)
			}
			for v := range a.Values() {
				seen[a.Index(v, c.Cols)]++
			}
			n++
		}
		for v, times := range seen {
			if times != 1 {
				t.Fatalf("%+v in %d×%d: value %d is in %d areas", c, rows, cols, v, times)
			}
		}
		if n != c.Count(rows, cols) {
			t.Errorf("%+v in %d×%d: %d areas, counted %d", c, rows, cols, n, c.Count(rows, cols))
		}
	})
}

// TestTilesAreWholeUnits: a tile may begin only where a unit does. It keeps to its
// limit unless that is less than a unit, and a group that is not measured lies in
// one tile.
func TestTilesAreWholeUnits(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		want := 1 + r.IntN(200)
		limit := want + r.IntN(400)
		rows, cols, measured := c.Tile(want, limit)
		unit := min(c.UnitRows, c.Rows) * min(c.UnitCols, c.Cols)
		if whole := (rows%c.UnitRows == 0 || rows >= c.Rows) && (cols%c.UnitCols == 0 || cols >= c.Cols); !whole {
			t.Errorf("%+v for %d, %d: tiles of %d×%d cut units", c, want, limit, rows, cols)
		}
		if rows*cols > max(limit, unit) {
			t.Errorf("%+v for %d, %d: tiles of %d×%d are too large", c, want, limit, rows, cols)
		}
		if measured {
			return
		}
		tiles := map[int]int{}
		for _, a := range c.Areas(rows, cols) {
			c.Groups(a, func(group int, _ Area) { tiles[group]++ })
		}
		for group, n := range tiles {
			if n > 1 {
				t.Errorf("%+v for %d, %d: group %d lies in %d tiles of %d×%d", c, want, limit, group, n, rows, cols)
			}
		}
	})
}

// TestDecodeTilesAndPiecesAreWholeUnits: both are cut where decoding may begin.
func TestDecodeTilesAndPiecesAreWholeUnits(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		c = c.ForDecoding()
		if c.AnyRows && c.UnitRows != 1 {
			t.Fatalf("%+v decodes from any row", c)
		}
		limit := 1 + r.IntN(300)
		unit := min(c.UnitRows, c.Rows) * min(c.UnitCols, c.Cols)
		rows, cols := c.DecodeTile(limit)
		if rows%c.UnitRows != 0 && rows < c.Rows || cols%c.UnitCols != 0 && cols < c.Cols || rows*cols > max(limit, unit) {
			t.Errorf("%+v for %d: tiles of %d×%d", c, limit, rows, cols)
		}
		a := c.Cover(part(r, c))
		rows, cols = c.Piece(a, limit)
		if rows%c.UnitRows != 0 && rows != a.Rows || cols%c.UnitCols != 0 && cols != a.Cols || rows*cols > max(limit, c.UnitRows*c.UnitCols) {
			t.Errorf("%+v of %+v for %d: pieces of %d×%d", c, a, limit, rows, cols)
		}
	})
}

// TestCoverIsTheUnitsThatAnAreaTouches: less would leave codes out that the area is
// decoded from, and more be read for nothing.
func TestCoverIsTheUnitsThatAnAreaTouches(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		a := part(r, c)
		cover := c.Cover(a)
		if !cover.Contains(a) {
			t.Errorf("%+v: %+v does not hold %+v", c, cover, a)
		}
		touched := func(at, from, n, unit int) bool { return at/unit >= from/unit && at/unit <= (from+n-1)/unit }
		for row := range c.Rows {
			for col := range c.Cols {
				want := touched(row, a.Row, a.Rows, c.UnitRows) && touched(col, a.Col, a.Cols, c.UnitCols)
				if got := cover.Contains(Area{row, col, 1, 1}); got != want {
					t.Fatalf("%+v: the cover %+v of %+v holds %d,%d: %v", c, cover, a, row, col, got)
				}
			}
		}
	})
}

// TestGroupsAreParts: the parts of an area by groups are disjoint and all of it, and
// each is in the group whose number it has.
func TestGroupsAreParts(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		a, values := part(r, c), 0
		c.Groups(a, func(group int, p Area) {
			values += p.Values()
			row, col := group/c.groupsAcross()*c.GroupRows, group%c.groupsAcross()*c.GroupCols
			if whole := (Area{row, col, c.GroupRows, c.GroupCols}); !whole.Contains(p) || !a.Contains(p) {
				t.Errorf("%+v: the part %+v of %+v is not in group %d", c, p, a, group)
			}
		})
		if values != a.Values() {
			t.Errorf("%+v: parts of %+v hold %d values", c, a, values)
		}
	})
}

// TestSplitHoldsEachValueOnce: the parts of an area are disjoint and all of it.
func TestSplitHoldsEachValueOnce(t *testing.T) {
	cuts(t, func(r *rand.Rand, c Cut) {
		a, values := part(r, c), 0
		seen := map[int]bool{}
		for p := range a.Split(1+r.IntN(6), 1+r.IntN(6)) {
			for v := range p.Values() {
				seen[p.Index(v, c.Cols)] = true
			}
			values += p.Values()
			if !a.Contains(p) {
				t.Errorf("%+v is no part of %+v", p, a)
			}
		}
		if values != a.Values() || len(seen) != values {
			t.Errorf("parts of %+v hold %d values, %d of them different", a, values, len(seen))
		}
	})
}
