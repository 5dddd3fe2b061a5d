package codec

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Join is the codec of matrices in one tensor [matrices, rows, columns] that are stored
// as so many layers, alike but for what each codec has of its own. Its tensors are those
// of all layers, one after the other. Where alternate is above 1, so many layers are a
// matrix, in which a row of each stands in turn. It restores them and is not written.
func Join(each []Codec, alternate int) (Codec, error) {
	first := each[0]
	for i, c := range each {
		if !slices.EqualFunc(c.Tensors(), first.Tensors(), sameTensor) || c.Cut() != first.Cut() {
			return nil, fmt.Errorf("number %d of %d is not stored as the first is", i, len(each))
		}
	}
	if len(first.Shape()) != 2 {
		return nil, fmt.Errorf("their weights are %v, no matrices", first.Shape())
	}
	b := newBank(each, len(each))
	if alternate < 2 {
		return b, nil
	}
	return &alternating{b, alternate}, nil
}

func sameTensor(a, b tile.Tensor) bool {
	return a.Role == b.Role && a.Dtype == b.Dtype && slices.Equal(a.Shape, b.Shape)
}

// alternating are matrices of which each has the rows of several of a bank's in turn.
type alternating struct {
	bank *Bank
	of   int
}

// Shape is that of the weight.
func (l *alternating) Shape() []int {
	return []int{l.bank.shape[0] / l.of, l.bank.shape[1] * l.of, l.bank.shape[2]}
}

// Tensors are those of the bank.
func (l *alternating) Tensors() []tile.Tensor { return l.bank.tensors }

// Cut has units of a row of each matrix that takes part.
func (l *alternating) Cut() tile.Cut {
	cut := l.bank.Cut()
	cut.UnitRows *= l.of
	cut.GroupRows = min(cut.GroupRows*l.of, cut.Rows)
	cut.AnyRows = false
	return cut
}

// parts calls do for what an area has of each matrix of the bank, as the bank counts, with
// the row of the area in which its first one stands.
func (l *alternating) parts(a tile.Area, do func(own tile.Area, at int)) {
	rows, each := l.bank.shape[1]*l.of, l.bank.shape[1]
	for row := a.Row; row < a.Row+a.Rows; {
		i := row / rows
		end := min((i+1)*rows, a.Row+a.Rows)
		from, to := row-i*rows, end-i*rows
		for k := range l.of {
			first, last := tile.CeilDiv(max(from-k, 0), l.of), tile.CeilDiv(max(to-k, 0), l.of)
			if first < last {
				own := tile.Area{Row: (i*l.of+k)*each + first, Col: a.Col, Rows: last - first, Cols: a.Cols}
				do(own, i*rows+first*l.of+k-a.Row)
			}
		}
		row = end
	}
}

// Needed is what of tensor i decoding an area takes, of one matrix after the other.
func (l *alternating) Needed(i int, a tile.Area) (spans []tile.Span) {
	l.parts(a, func(own tile.Area, _ int) { spans = append(spans, l.bank.Needed(i, own)...) })
	return spans
}

// turns are the rows of one matrix before they stand in turn with another's.
type turns struct{ values []float32 }

// Decode restores what an area has of one matrix after the other.
func (l *alternating) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, s *tile.Scratch) {
	rest, own := slices.Clone(src), make([][]byte, len(src))
	b := tile.PartOf[turns](s)
	l.parts(a, func(part tile.Area, at int) {
		for i := range rest {
			n := tile.SpanBytes(l.bank.Needed(i, part))
			own[i], rest[i] = rest[i][:n], rest[i][n:]
		}
		values := tile.Sized(&b.values, part.Values())
		l.bank.Decode(values, own, part, out, s)
		for row := range part.Rows {
			copy(dst[(at+row*l.of)*a.Cols:], values[row*a.Cols:(row+1)*a.Cols])
		}
	})
}

// Written is nothing: there is no encoder.
func (l *alternating) Written(int, tile.Area) []tile.Span { return nil }

// NewEncoder returns nil.
func (l *alternating) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// Straight is the codec of matrices in one tensor that are stored transposed, as of the
// tensor with rows and columns in the places of each other; nil for all others.
func Straight(c Codec) Codec {
	if p, ok := c.(publishedWeight); ok {
		if w, ok := p.Weight.(*published.Fours); ok {
			if straight := w.Straight(); straight != nil {
				return publishedWeight{straight}
			}
		}
	}
	return nil
}
