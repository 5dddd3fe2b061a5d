package tile

import (
	"iter"

	"github.com/tensorpress/tensorpress/internal/floats"
)

// Area is a rectangle of a weight: rows [Row, Row+Rows), columns [Col, Col+Cols).
type Area struct{ Row, Col, Rows, Cols int }

// Values returns the number of values.
func (a Area) Values() int { return a.Rows * a.Cols }

// Split yields the area's parts of that shape, smaller at the edges, in row-major
// order.
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

// Index returns the index in the flattened weight, which has that many columns, of
// value i of the area.
func (a Area) Index(i, columns int) int {
	return (a.Row+i/a.Cols)*columns + a.Col + i%a.Cols
}

// Line returns values [start, end) of a weight that is treated as a single row.
func Line(start, end int) Area { return Area{Col: start, Rows: 1, Cols: end - start} }

// At returns the index among the area's values at which row i of a part of it begins.
func (a Area) At(part Area, i int) int { return (part.Row-a.Row+i)*a.Cols + part.Col - a.Col }

// First reports whether the area holds the weight's first value. The tile for which it
// does also fills what a weight has only once, such as a scale for all of it.
func (a Area) First() bool { return a.Row == 0 && a.Col == 0 }

// SpanBytes returns the number of bytes in several spans.
func SpanBytes(spans []Span) (n int) {
	for _, s := range spans {
		n += s.Bytes()
	}
	return n
}

// Run returns the span of consecutive bytes, as a list.
func Run(offset, size int64) []Span { return []Span{One(offset, size)} }

// Rect returns the span of size bytes, offset bytes into each row, of a matrix with
// stride bytes a row. Rows that adjoin become one run.
func Rect(row, rows int, stride, offset, size int64) []Span {
	if size == stride {
		return Run(int64(row)*stride, int64(rows)*stride)
	}
	return []Span{{int64(row)*stride + offset, size, rows, stride}}
}

// SpansOf returns where an area lies in a matrix of that many columns, with width bytes
// for each value.
func SpansOf(a Area, columns, width int) []Span {
	return Rect(a.Row, a.Rows, int64(columns*width), int64(a.Col*width), int64(a.Cols*width))
}

// CheckArea is [CheckFinite] for an area of a weight with that many columns.
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

// Numel returns how many values a tensor of that shape has.
func Numel(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
