package tile

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
)

func RangeOf(values []float32) Range {
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

// AbsMax returns the greatest magnitude of the group.
func (r Range) AbsMax() float32 { return max(-r.Lo, r.Hi, 0) }

func (r Range) Finite() bool { return floats.Finite(r.Lo) && floats.Finite(r.Hi) }

// CheckFinite returns a *[NonfiniteError] for the first NaN or infinity.
func CheckFinite(start int, values []float32) error {
	for i, v := range values {
		if !floats.Finite(v) {
			return &NonfiniteError{Index: start + i, Value: v}
		}
	}
	return nil
}

// AllFinite reports whether all ranges are.
func AllFinite(ranges []Range) bool {
	for _, r := range ranges {
		if !r.Finite() {
			return false
		}
	}
	return true
}

// Range is the least and greatest value of a group; among equals (zeros of
// either sign) the first one. Both are NaN if any value is.
type Range struct{ Lo, Hi float32 }

// NonfiniteError reports the first NaN or infinity of a tile.
type NonfiniteError struct {
	Index   int // in the flattened weight
	Value   float32
	LowRank bool // it is refused because a low-rank part was asked for
}

func (e *NonfiniteError) Error() string {
	return fmt.Sprintf("value %d is %v", e.Index, e.Value)
}
