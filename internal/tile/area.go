package tile

import (
	"iter"

	"github.com/tensorpress/tensorpress/internal/floats"
)

// Area is a rectangle of a weight: rows [Row, Row+Rows), columns [Col, Col+Cols).
type Area struct{ Row, Col, Rows, Cols int }

// Values returns how many there are.
func (a Area) Values() int { return a.Rows * a.Cols }

// Split yields its parts of that shape, smaller at the edges, band by band.
func (a Area) Split(rows, cols int) iter.Seq[Area] {
	return func(yield func(Area) bool) {
		for row := 0; row < a.Rows; row += rows {
			for col := 0; col < a.Cols; col += cols {
				if !yield(Area{a.Row + row, a.Col + col, min(rows, a.Rows-row), min(cols, a.Cols-col)}) {
					return
				}
			}
		}
	}
}

// Contains reports whether all of b lies in the area.
func (a Area) Contains(b Area) bool {
	return a.Row <= b.Row && b.Row+b.Rows <= a.Row+a.Rows && a.Col <= b.Col && b.Col+b.Cols <= a.Col+a.Cols
}

// Index returns where value i of the area lies in the flattened weight.
func (a Area) Index(i, columns int) int {
	return (a.Row+i/a.Cols)*columns + a.Col + i%a.Cols
}

// Line returns values [start, end) of a weight that is taken as a single row.
func Line(start, end int) Area { return Area{Col: start, Rows: 1, Cols: end - start} }

// At is where row i of a part of the area begins among its values.
func (a Area) At(part Area, i int) int { return (part.Row-a.Row+i)*a.Cols + part.Col - a.Col }

// First reports whether the area holds the weight's first value; it then
// fills what a weight has once.
func (a Area) First() bool { return a.Row == 0 && a.Col == 0 }

// SpanBytes returns the bytes of several spans.
func SpanBytes(spans []Span) (n int) {
	for _, s := range spans {
		n += s.Bytes()
	}
	return n
}

// Run is a span of consecutive bytes.
func Run(offset, size int64) []Span { return []Span{One(offset, size)} }

// Rect is the span of a rectangle in a matrix of that many bytes a row; runs
// that meet are one.
func Rect(row, rows int, stride, offset, size int64) []Span {
	if size == stride {
		return Run(int64(row)*stride, int64(rows)*stride)
	}
	return []Span{{int64(row)*stride + offset, size, rows, stride}}
}

// SpansOf returns where an area lies in a matrix of that many columns, each
// value taking that many bytes.
func SpansOf(a Area, columns, width int) []Span {
	return Rect(a.Row, a.Rows, int64(columns*width), int64(a.Col*width), int64(a.Cols*width))
}

// CheckArea is [CheckFinite] for an area of a weight of that many columns.
func CheckArea(a Area, values []float32, columns int) error {
	if RangeOf(values).Finite() {
		return nil
	}
	for i, v := range values {
		if !floats.Finite(v) {
			return &NonfiniteError{Index: a.Index(i, columns), Value: v}
		}
	}
	return nil
}
