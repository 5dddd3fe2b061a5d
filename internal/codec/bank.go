package codec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Bank is the codec of matrices of one shape in one tensor [matrices, rows, columns], as
// the experts of a layer lie. Each is stored as a matrix by itself, with scales of its
// own, and each tensor has those of all, one after the other: so ComfyUI takes them apart.
//
// A bank is encoded matrix by matrix, see [Bank.Matrix], and decoded as one weight.
type Bank struct {
	each    []Codec // of the matrices, as they are encoded; one for all where they are alike
	shape   []int
	tensors []tile.Tensor
	bytes   []int64 // of a matrix in each tensor, 0 where all share what it has
	flat    bool    // the codec of a matrix takes it for a single row
}

// numExperts is the key of a layer's JSON that tells how many matrices there are.
const numExperts = "num_experts"

// newBank returns the bank of n matrices. each has a codec for all, or one for each.
func newBank(each []Codec, n int) *Bank {
	one := each[0]
	b := &Bank{each: each, shape: append([]int{n}, one.Shape()...)}
	for _, t := range one.Tensors() {
		size, _ := safetensors.ByteSize(t.Dtype, t.Shape) // a part of the whole, which the header of the output bounds
		if t.Shape = append([]int{n}, t.Shape...); len(t.Shape) == 2 && t.Shape[1] == 1 {
			t.Shape = t.Shape[:1]
		}
		b.tensors, b.bytes = append(b.tensors, t), append(b.bytes, size)
	}
	cut := one.Cut()
	b.flat = cut.Rows == 1 && one.Shape()[0] > 1 || cut.Cols != one.Shape()[1]
	return b
}

// Matrices returns the bank of matrices that a codec is of, nil if it is of one weight.
func Matrices(c Codec) *Bank {
	b, _ := c.(*Bank)
	return b
}

// Len is how many matrices there are.
func (b *Bank) Len() int { return b.shape[0] }

// one is a codec of a matrix.
func (b *Bank) one() Codec { return b.each[0] }

// of is the codec of one of the matrices.
func (b *Bank) of(i int) Codec { return b.each[min(i, len(b.each)-1)] }

// Gains reports whether a search finds better scales than the plain ones.
func (b *Bank) Gains() bool { return Gains(b.one()) }

// Shape is that of the weight.
func (b *Bank) Shape() []int { return b.shape }

// Tensors have a leading dimension, but for scales that all matrices share.
func (b *Bank) Tensors() []tile.Tensor { return b.tensors }

// Cut is that of all rows, for decoding.
func (b *Bank) Cut() tile.Cut {
	cut := b.one().Cut().ForDecoding()
	if b.flat {
		group := tile.Cut{GroupRows: b.shape[1], GroupCols: b.shape[2]}
		if cut.GroupCols < b.shape[1]*b.shape[2] {
			group = tile.Cut{GroupRows: 1, GroupCols: min(cut.GroupCols, b.shape[2])}
		}
		cut = tile.Cut{UnitRows: 1, UnitCols: 1, GroupRows: group.GroupRows, GroupCols: group.GroupCols, AnyRows: true}
	}
	cut.Rows, cut.Cols = b.shape[0]*b.shape[1], b.shape[2]
	return cut
}

// parts calls do for what an area has of each matrix, as the matrix's own codec counts.
func (b *Bank) parts(a tile.Area, do func(matrix int, own tile.Area)) {
	rows := b.shape[1]
	for row := a.Row; row < a.Row+a.Rows; {
		i := row / rows
		n := min((i+1)*rows, a.Row+a.Rows) - row
		own := tile.Area{Row: row - i*rows, Col: a.Col, Rows: n, Cols: a.Cols}
		row += n
		if !b.flat {
			do(i, own)
			continue
		}
		if a.Cols == b.shape[2] {
			do(i, tile.Line(own.Row*a.Cols, (own.Row+n)*a.Cols))
			continue
		}
		for k := range n {
			at := (own.Row+k)*b.shape[2] + a.Col
			do(i, tile.Line(at, at+a.Cols))
		}
	}
}

// Needed is what of tensor i decoding an area takes, of one matrix after the other.
func (b *Bank) Needed(i int, a tile.Area) (spans []tile.Span) {
	cut := b.one().Cut().ForDecoding()
	b.parts(a, func(matrix int, own tile.Area) {
		spans = append(spans, b.at(i, matrix, b.of(matrix).Needed(i, cut.Cover(own)))...)
	})
	return spans
}

// Written is what of tensor i an area fills, of one matrix after the other.
func (b *Bank) Written(i int, a tile.Area) (spans []tile.Span) {
	b.parts(a, func(matrix int, own tile.Area) { spans = append(spans, b.at(i, matrix, b.one().Written(i, own))...) })
	return spans
}

// at are spans of a matrix's tensor as they lie in that of all.
func (b *Bank) at(i, matrix int, spans []tile.Span) []tile.Span {
	off := b.bytes[i] * int64(matrix)
	if off == 0 {
		return spans
	}
	moved := make([]tile.Span, len(spans))
	for k, s := range spans {
		s.Offset += off
		moved[k] = s
	}
	return moved
}

// Decode restores what an area has of one matrix after the other.
func (b *Bank) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, s *tile.Scratch) {
	rest, own := slices.Clone(src), make([][]byte, len(src))
	cut := b.one().Cut().ForDecoding()
	b.parts(a, func(matrix int, part tile.Area) {
		whole := cut.Cover(part)
		for i := range rest {
			n := tile.SpanBytes(b.of(matrix).Needed(i, whole))
			own[i], rest[i] = rest[i][:n], rest[i][n:]
		}
		dst = decodePart(b.of(matrix), dst, own, part, whole, out, s)
	})
}

// NewEncoder returns nil: matrices are encoded by themselves.
func (b *Bank) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// Matrix returns the codec of one of the matrices, whose bytes lie in the tensors of all.
func (b *Bank) Matrix(i int) Codec {
	return inBank{b.of(i), b, i}
}

// inBank is a matrix in its bank.
type inBank struct {
	Codec
	bank   *Bank
	matrix int
}

// Before is how many values of a weight come before those that a codec stores.
func Before(c Codec) int {
	m, ok := c.(inBank)
	if !ok {
		return 0
	}
	return m.matrix * tile.Numel(m.bank.shape[1:])
}

func (c inBank) Tensors() []tile.Tensor { return c.bank.tensors }

func (c inBank) Written(i int, a tile.Area) []tile.Span {
	return c.bank.at(i, c.matrix, c.Codec.Written(i, a))
}

func (c inBank) Needed(i int, a tile.Area) []tile.Span {
	return c.bank.at(i, c.matrix, c.Codec.Needed(i, a))
}

// makeBank is make for matrices in one tensor. ComfyUI reads no scale of activations with
// them, and does not rotate their integers back: they are stored without.
func (f *Format) makeBank(src Source, s Settings) (Codec, pyjson.Object, error) {
	s.InputScale, s.ScaleAsInput = false, false
	if f == int8Tensorwise {
		s.ConvRot, s.DynamicConvRot = false, false
	}
	n, columns := src.Shape[0], src.Shape[2]
	own := src
	own.Shape = src.Shape[1:]
	apart := len(src.Moments) == n*columns && n > 1
	var each []Codec
	var metadata pyjson.Object
	for i := range n {
		if i > 0 && !apart {
			break
		}
		if apart {
			own.Moments = src.Moments[i*columns : (i+1)*columns]
		}
		c, o, err := f.make(own, s)
		if err != nil {
			return nil, nil, err
		}
		each, metadata = append(each, c), o
	}
	if _, ok := metadata.Get("orig_shape"); ok {
		metadata = metadata.Set("orig_shape", src.Shape)
	}
	return newBank(each, n), append(slices.Clip(metadata), pyjson.Member{Key: numExperts, Value: n}), nil
}

// holdBanks are the names of the formats that hold matrices in one tensor.
func holdBanks() string {
	var names []string
	for _, f := range Formats() {
		if f.Banks != "" {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, ", ")
}

// isBank reports whether a stored layer is of several matrices.
func (l *Stored) isBank() bool {
	_, counted := l.Metadata.Get(numExperts)
	return counted || len(l.Tensors[tile.Weight].Shape) == 3
}

// openBank opens a stored layer of several matrices.
func (f *Format) openBank(l *Stored) (Codec, error) {
	weight := l.Tensors[tile.Weight].Shape
	if len(weight) != 3 || weight[0] == 0 {
		return nil, fmt.Errorf("its JSON tells of experts (%s), and its weight is %v, no matrices in one tensor", numExperts, weight)
	}
	n := weight[0]
	said, err := intOption(l.Metadata, numExperts, n)
	if err == nil && said != n {
		err = fmt.Errorf("its JSON tells of %d experts (%s), and its weight has %d", said, numExperts, n)
	}
	if v, _ := option(l.Metadata, "convrot"); v == true && f == int8Tensorwise {
		err = errors.New("its JSON tells of rotated experts, which ComfyUI does not rotate back")
	}
	if err != nil {
		return nil, err
	}
	one, shared, err := l.matrix(n)
	if err != nil {
		return nil, err
	}
	c, err := f.OpenAs(one)
	if err != nil {
		return nil, fmt.Errorf("of each of %d experts, %w", n, err)
	}
	b := newBank([]Codec{c}, n)
	for i, t := range b.tensors {
		b.tensors[i].Shape = l.Tensors[t.Role].Shape
		if shared[t.Role] {
			b.bytes[i] = 0
		}
	}
	return b, nil
}

// matrix is a layer of several matrices as each of them is stored, and which tensors all
// of them share.
func (l *Stored) matrix(n int) (*Stored, map[tile.Role]bool, error) {
	one := &Stored{Metadata: l.Metadata.Delete(numExperts).Delete("orig_shape"), Tensors: map[tile.Role]tile.Tensor{}}
	shape, err := ints(l.Metadata, "orig_shape")
	if err != nil {
		shape = l.Hint
	}
	if len(shape) > 1 && shape[0] == n {
		one.Hint = shape[1:]
	}
	shared := map[tile.Role]bool{}
	for role, t := range l.Tensors {
		switch {
		case role == tile.InputScale: // of activations: no weight needs it
			continue
		case len(t.Shape) == 0:
			shared[role] = true
		case t.Shape[0] != n:
			return nil, nil, fmt.Errorf("%s is %v, and there are %d experts", role, t.Shape, n)
		default:
			t.Shape = t.Shape[1:]
		}
		one.Tensors[role] = t
	}
	return one, shared, nil
}
