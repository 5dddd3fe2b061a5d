package tile

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestDriveMeasuresBeforeItEncodes: where groups do not fit into tiles, every tile is
// encoded from the ranges of whole groups, which a pass found before.
func TestDriveMeasuresBeforeItEncodes(t *testing.T) {
	measuredOnce := false
	cuts(t, func(r *rand.Rand, c Cut) {
		w := awkward(r, c.Rows*c.Cols, false)
		want := c.Measure(Area{0, 0, c.Rows, c.Cols}, w)
		encoded := 0
		e := NewRanged(c, 1+r.IntN(100), func(_ [][]byte, v Values, ranges []Range, s *Scratch) error {
			encoded += v.Len()
			if ranges == nil {
				ranges = want // the tile has whole groups
				for i, got := range c.Measure(v.Area, v.Floats(s)) {
					if group := groupOf(c, v.Area, i); got != ranges[group] {
						t.Errorf("%+v: group %d of %+v is not whole", c, group, v.Area)
					}
				}
				return nil
			}
			measuredOnce = true
			if !slices.Equal(ranges, want) {
				t.Errorf("%+v: ranges %v, want %v", c, ranges, want)
			}
			return nil
		}, func(v Values, s *Scratch) ([]Range, error) { return c.Measure(v.Area, v.Floats(s)), nil })
		read := func(a Area) (Values, error) {
			values := make([]float32, a.Values())
			for i := range values {
				values[i] = w[a.Index(i, c.Cols)]
			}
			return ValuesOf(a, values), nil
		}
		s := new(Scratch)
		if err := Drive(e, c, read, func(v Values) error { return e.Encode(nil, v, s) }, s); err != nil || encoded != len(w) {
			t.Errorf("%+v: %d of %d values, %v", c, encoded, len(w), err)
		}
	})
	if !measuredOnce {
		t.Error("no group was larger than its tile")
	}
}

// groupOf is the number of the group that Measure returns as its i-th of an area.
func groupOf(c Cut, a Area, i int) (group int) {
	c.Groups(a, func(g int, _ Area) {
		if i == 0 {
			group = g
		}
		i--
	})
	return group
}

// TestDriveStops: at the first error, and when the work is given up.
func TestDriveStops(t *testing.T) {
	c := Cut{Rows: 4, Cols: 4, UnitRows: 1, UnitCols: 4, GroupRows: 1, GroupCols: 4}
	e := NewRanged(c, 4, nil, nil)
	broken, tiles := errors.New("broken"), 0
	read := func(a Area) (Values, error) { return ValuesOf(a, make([]float32, a.Values())), nil }
	err := Drive(e, c, read, func(Values) error { tiles++; return broken }, new(Scratch))
	if !errors.Is(err, broken) || tiles != 1 {
		t.Errorf("%d tiles, %v", tiles, err)
	}
	given := make(chan struct{})
	close(given)
	if err := Drive(e, c, read, func(Values) error { return nil }, &Scratch{Cancelled: given}); !errors.Is(err, errGaveUp) {
		t.Errorf("given up: %v", err)
	}
	if err := Drive(e, c, func(Area) (Values, error) { return Values{}, broken }, nil, new(Scratch)); !errors.Is(err, broken) {
		t.Errorf("nothing can be read: %v", err)
	}
}

// TestTilesFollowTheMemory: more memory gives no smaller tiles, and raw ones are at
// least as large.
func TestTilesFollowTheMemory(t *testing.T) {
	before := 0
	for memory := 1; memory < 1<<32; memory = memory*3 + 1 {
		wide, raw := WideTile(memory), RawTile(memory)
		if wide < before || raw < wide || wide%4096 != 0 || wide > 4096 && wide*wideValue > memory {
			t.Errorf("%d bytes: tiles of %d, %d values", memory, wide, raw)
		}
		before = wide
	}
}

// TestScratchIsUsedAgain: the same buffer, and one part of each type.
func TestScratchIsUsedAgain(t *testing.T) {
	type one struct{ n int }
	type other struct{ n int }
	s := new(Scratch)
	PartOf[one](s).n, PartOf[other](s).n = 1, 2
	if PartOf[one](s).n != 1 || PartOf[other](s).n != 2 {
		t.Error("a scratch lost a part")
	}
	if a, b := s.Floats(8), s.Floats(4); &a[0] != &b[0] || len(b) != 4 {
		t.Error("a buffer that suffices was not used again")
	}
	if len(s.Uint16s(3)) != 3 || len(s.Uint16s(9)) != 9 {
		t.Error("a buffer has another size")
	}
}
