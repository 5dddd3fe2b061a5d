package sdnq

import (
	"slices"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// part is a stored tensor and what of it a tile fills and takes.
type part struct {
	tile.Tensor
	written, needed func(start, end int) tile.Span
}

// Tensors returns what is stored: the codes first.
func (s *Scheme) Tensors() []tile.Tensor { return s.tensors }

// list keeps what Tensors returns: many layers share a scheme. What is appended to
// it goes elsewhere.
func (s *Scheme) list() {
	for _, p := range s.parts {
		s.tensors = append(s.tensors, p.Tensor)
	}
	s.tensors = slices.Clip(s.tensors)
}

// Shape is that of the weight.
func (s *Scheme) Shape() []int { return s.shape }

// Written returns the bytes of tensor i that encoding a run of values fills: codes,
// or scales of the groups that begin there.
func (s *Scheme) Written(i int, a tile.Area) []tile.Span {
	return []tile.Span{s.parts[i].written(a.Col, a.Col+a.Cols)}
}

// Needed returns the bytes of tensor i that decoding a run of values takes.
func (s *Scheme) Needed(i int, a tile.Area) []tile.Span {
	return []tile.Span{s.parts[i].needed(a.Col, a.Col+a.Cols)}
}

// sideData is the scales, or zero points, of all groups: where their tensors
// begin among the parts, and how they are quantized themselves, if they are.
type sideData struct {
	part  int // 0 for none
	store *doubleQuant
}

// storeScales decides how scales are stored, and lists all parts.
func (s *Scheme) storeScales(o Options) (err error) {
	s.parts = []part{s.codesPart()}
	if s.scale, err = s.addFloats(tile.Scale, o.ScaleStore, o); err != nil {
		return err
	}
	if s.Dtype.Unsigned && !s.Codebook {
		s.zero, err = s.addFloats(tile.ZeroPoint, o.ZeroPointStore, o)
	}
	return err
}

func (s *Scheme) addFloats(role tile.Role, t *dtype.Type, o Options) (f sideData, err error) {
	f.part = len(s.parts)
	if t == nil {
		s.parts = append(s.parts, part{tile.Tensor{Role: role, Dtype: s.ScaleDtype, Shape: s.scaleShape()}, s.ScalesWritten, s.ScalesNeeded})
		return f, nil
	}
	if f.store, err = newStore(role, s.Groups()*s.Levels, t, o); err != nil {
		return f, err
	}
	s.parts = append(s.parts, f.store.parts(s.scaleShape(), s.GroupsFrom, s.GroupsIn)...)
	return f, nil
}

func (s *Scheme) codesPart() part {
	at := s.CodesSpan
	if s.Transposed {
		at = s.transposedSpan
	}
	return part{tile.Tensor{Role: tile.Weight, Dtype: s.Dtype.Storage, Shape: s.weightShape()}, at, at}
}

// transposedSpan: the values of rows, a piece for each column.
func (s *Scheme) transposedSpan(start, end int) tile.Span {
	width := int64(s.Bits / 8)
	rest, rows := s.geometry.rest, int64(s.geometry.rows)
	first, last := int64(start/rest), int64(end/rest)
	return tile.Span{Offset: first * width, Size: (last - first) * width, Count: rest, Stride: rows * width}
}

// weightShape is flat where values share words: [words] for 1, 2 and 4 bits,
// else [blocks, words of one].
func (s *Scheme) weightShape() []int {
	if !s.Dtype.Bitpacked() {
		return s.valueShape(s.GroupSize)
	}
	blocks := s.Values / s.Block
	if words := pack.Words(s.Bits); words > 1 {
		return []int{blocks, words}
	}
	return []int{blocks}
}

// valueShape is the weight's shape with its axis split into groups; last is
// the size of what a group has in it.
func (s *Scheme) valueShape(last int) []int {
	g := s.geometry
	kernel := s.shape[2:]
	if s.flat {
		kernel = nil
	}
	switch {
	case s.Transposed:
		return []int{g.rest, g.rows}
	case s.flat && s.GroupSize <= 0:
		return []int{g.rows, g.rest}
	case s.GroupSize <= 0:
		return s.shape
	case s.Kind == ConvTranspose:
		return slices.Concat([]int{g.rows, last, s.shape[1] / s.GroupSize}, kernel)
	}
	return slices.Concat([]int{g.rows, g.channels / s.GroupSize, last}, kernel)
}

// scaleShape has 1, or the levels of a codebook, for what a group spans.
func (s *Scheme) scaleShape() []int {
	g, n := s.geometry, s.Levels
	switch {
	case s.GroupSize > 0:
		return s.valueShape(n)
	case s.GroupSize == -2 && s.Codebook:
		return []int{n}
	case s.GroupSize == -2:
		return slices.Repeat([]int{1}, len(s.valueShape(0)))
	case s.Transposed:
		return []int{n, g.rows}
	case s.flat:
		return []int{g.rows, n}
	case s.Kind == ConvTranspose:
		return slices.Concat([]int{n}, s.shape[1:])
	}
	return slices.Concat([]int{g.rows, n}, s.shape[2:])
}
