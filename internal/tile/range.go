package tile

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
)

// RangeOf returns the range of at least one value.
func RangeOf(values []float32) Range {
	lo, hi := kernel.MinMax(values)
	return Range{lo, hi}
}

// Join returns the range of a group from that of its earlier part, r, and that of its
// next part.
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

// AbsMax returns the greatest magnitude in the group.
func (r Range) AbsMax() float32 { return max(-r.Lo, r.Hi, 0) }

// Finite reports whether no value of the group is NaN or infinite.
func (r Range) Finite() bool { return floats.Finite(r.Lo) && floats.Finite(r.Hi) }

// CheckFinite returns a *[NonfiniteError] for the first NaN or infinity among values,
// the first of which has the index start in the weight.
func CheckFinite(start int, values []float32) error {
	for i, v := range values {
		if !floats.Finite(v) {
			return &NonfiniteError{Index: start + i, Value: v}
		}
	}
	return nil
}

// AllFinite reports whether no value of any group is NaN or infinite.
func AllFinite(ranges []Range) bool {
	for _, r := range ranges {
		if !r.Finite() {
			return false
		}
	}
	return true
}

// Range is the least and the greatest value of a group; among equal ones (zeros of
// either sign) the first. Both are NaN if any value is.
type Range struct{ Lo, Hi float32 }

// NonfiniteError reports the first NaN or infinity in a tile.
type NonfiniteError struct {
	Index   int // in the flattened weight
	Value   float32
	LowRank bool // it is refused because a low-rank part was requested
}

func (e *NonfiniteError) Error() string {
	return fmt.Sprintf("value %d is %v", e.Index, e.Value)
}
