package codec

import (
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Rows are the rows [From, To) of a stored weight.
type Rows struct {
	Codec
	From, To int
}

// Stack is the codec of a weight of that shape which is rows of others, one after the
// other. It restores them and is not written. Its tensors are those of all others, in
// their order.
func Stack(shape []int, rows []Rows) Codec {
	m := matrix(shape)
	s := &stack{shape: shape, cut: tile.Cut{Rows: m[0], Cols: m[1], UnitRows: 1, UnitCols: 1, GroupRows: 1, GroupCols: 1}}
	at := 0
	for _, r := range rows {
		one := stackedRows{Rows: r, at: at, first: len(s.tensors), cut: r.Cut().ForDecoding()}
		one.flat = one.cut.Rows == 1 || one.cut.Cols != m[1]
		if !one.flat {
			s.cut.UnitRows = max(s.cut.UnitRows, one.cut.UnitRows)
			s.cut.UnitCols = min(tile.LCM(s.cut.UnitCols, one.cut.UnitCols), m[1])
		}
		s.rows = append(s.rows, one)
		for _, t := range r.Tensors() {
			s.tensors, s.of = append(s.tensors, t), append(s.of, len(s.rows)-1)
		}
		at += r.To - r.From
	}
	return s
}

type stack struct {
	shape   []int
	cut     tile.Cut
	rows    []stackedRows
	tensors []tile.Tensor
	of      []int // the rows that a tensor is of
}

// stackedRows are rows of a weight in the stack.
type stackedRows struct {
	Rows
	at    int      // the first in the stack
	first int      // of its tensors in the stack's
	cut   tile.Cut // of its own
	flat  bool     // which takes the weight for a single row
}

// Shape is that of the weight.
func (s *stack) Shape() []int { return s.shape }

// Tensors are those of all weights.
func (s *stack) Tensors() []tile.Tensor { return s.tensors }

// Cut has units that hold those of all weights, as far as they begin together.
func (s *stack) Cut() tile.Cut { return s.cut }

// Needed is what of tensor i decoding an area takes.
func (s *stack) Needed(i int, a tile.Area) []tile.Span {
	r := &s.rows[s.of[i]]
	var spans []tile.Span
	for _, own := range r.areas(a, s.cut.Cols) {
		spans = append(spans, r.Codec.Needed(i-r.first, r.cut.Cover(own))...)
	}
	return spans
}

// areas are an area of the stack as the weight's own codec counts, those of one row
// after the other where it takes all for one.
func (r *stackedRows) areas(a tile.Area, columns int) []tile.Area {
	row, end := max(a.Row, r.at), min(a.Row+a.Rows, r.at+r.To-r.From)
	if row >= end {
		return nil
	}
	own := tile.Area{Row: r.From + row - r.at, Col: a.Col, Rows: end - row, Cols: a.Cols}
	if !r.flat {
		return []tile.Area{own}
	}
	if a.Cols == columns {
		return []tile.Area{{Col: own.Row * columns, Rows: 1, Cols: own.Values()}}
	}
	var areas []tile.Area
	for i := range own.Rows {
		areas = append(areas, tile.Area{Col: (own.Row+i)*columns + own.Col, Rows: 1, Cols: own.Cols})
	}
	return areas
}

// Decode restores the rows of one weight after the other.
func (s *stack) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	for k := range s.rows {
		r := &s.rows[k]
		n := len(r.Tensors())
		rest := append([][]byte(nil), src[r.first:r.first+n]...)
		own := make([][]byte, n)
		for _, area := range r.areas(a, s.cut.Cols) {
			whole := r.cut.Cover(area)
			for i := range own {
				size := tile.SpanBytes(r.Codec.Needed(i, whole))
				own[i], rest[i] = rest[i][:size], rest[i][size:]
			}
			dst = decodePart(r.Codec, dst, own, area, whole, out, scratch)
		}
	}
}

// units are the values of whole units, of which a part is taken.
type units struct{ values []float32 }

// decodePart fills dst with an area, of what a whole one takes, and returns what follows.
func decodePart(c Codec, dst []float32, src [][]byte, a, whole tile.Area, out safetensors.Dtype, scratch *tile.Scratch) []float32 {
	if a == whole {
		c.Decode(dst[:a.Values()], src, a, out, scratch)
		return dst[a.Values():]
	}
	values := tile.Sized(&tile.PartOf[units](scratch).values, whole.Values())
	c.Decode(values, src, whole, out, scratch)
	for row := range a.Rows {
		from := (a.Row+row-whole.Row)*whole.Cols + a.Col - whole.Col
		copy(dst[:a.Cols], values[from:])
		dst = dst[a.Cols:]
	}
	return dst
}

// Written is nothing: there is no encoder.
func (s *stack) Written(int, tile.Area) []tile.Span { return nil }

// NewEncoder returns nil.
func (s *stack) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// shared are the tensors of which each area takes all, and what makes a stack of their
// content that needs them no more.
func (s *stack) shared() (tensors []int, take func(src [][]byte) (Codec, error)) {
	for _, r := range s.rows {
		own, _ := SharedTensors(r.Codec)
		for _, i := range own {
			tensors = append(tensors, r.first+i)
		}
	}
	return tensors, func(src [][]byte) (Codec, error) {
		all := *s
		all.rows = append([]stackedRows(nil), s.rows...)
		for i := range all.rows {
			r := &all.rows[i]
			own, take := SharedTensors(r.Codec)
			if len(own) == 0 {
				continue
			}
			c, err := take(src[:len(own)])
			if err != nil {
				return nil, err
			}
			r.Codec, src = c, src[len(own):]
		}
		return &all, nil
	}
}
