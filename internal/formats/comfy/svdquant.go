package comfy

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

// SVDGroup is how many values of a row share a scale in SVDQuant.
const SVDGroup = 64

// SVDQuant is a weight of signed 4-bit codes in groups along rows, of inputs that are
// divided by factors beforehand, and a low-rank part that multiplies inputs as they are:
// value = code × scale / smooth + up·down. It is comfy-kitchen's TensorCoreSVDQuantW4A4Layout,
// rows one after the other. It is decoded here; who encodes it has a search for the part.
type SVDQuant struct {
	shape []int
	Rank  int
	Dtype safetensors.Dtype // of all but the codes
}

// NewSVDQuant resolves the format for a weight of shape [rows, columns].
func NewSVDQuant(shape []int, rank int, d safetensors.Dtype) (*SVDQuant, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if shape[1]%SVDGroup != 0 {
		return nil, fmt.Errorf("groups of %d do not divide %d columns", SVDGroup, shape[1])
	}
	return &SVDQuant{shape, rank, d}, nil
}

// Shape is that of the weight.
func (w *SVDQuant) Shape() []int { return w.shape }

// Tensors returns the codes, the scales group by group, the factors of the low-rank part,
// and what inputs are divided by.
func (w *SVDQuant) Tensors() []tile.Tensor {
	rows, columns := w.shape[0], w.shape[1]
	return []tile.Tensor{
		{Role: tile.Weight, Dtype: safetensors.I8, Shape: []int{rows, columns / 2}},
		{Role: tile.Scale, Dtype: w.Dtype, Shape: []int{columns / SVDGroup, rows}},
		{Role: tile.ProjDown, Dtype: w.Dtype, Shape: []int{columns, w.Rank}},
		{Role: tile.ProjUp, Dtype: w.Dtype, Shape: []int{rows, w.Rank}},
		{Role: tile.SmoothFactor, Dtype: w.Dtype, Shape: []int{columns}},
	}
}

// Cut is by groups.
func (w *SVDQuant) Cut() tile.Cut {
	return tile.Cut{Rows: w.shape[0], Cols: w.shape[1], UnitRows: 1, UnitCols: SVDGroup, GroupRows: 1, GroupCols: SVDGroup, AnyRows: true}
}

// Needed returns what decoding an area takes.
func (w *SVDQuant) Needed(i int, a tile.Area) []tile.Span {
	width := int64(w.Dtype.Bits() / 8)
	across := int64(w.Rank) * width
	switch i {
	case 0:
		return tile.Rect(a.Row, a.Rows, int64(w.shape[1]/2), int64(a.Col/2), int64(a.Cols/2))
	case 1:
		scales := tile.Area{Row: a.Col / SVDGroup, Col: a.Row, Rows: a.Cols / SVDGroup, Cols: a.Rows}
		return tile.SpansOf(scales, w.shape[0], int(width))
	case 2:
		return tile.Run(int64(a.Col)*across, int64(a.Cols)*across)
	case 3:
		return tile.Run(int64(a.Row)*across, int64(a.Rows)*across)
	}
	return tile.Run(int64(a.Col)*width, int64(a.Cols)*width)
}

// Written returns what an area fills: all that it needs, but that what columns have comes
// with the first row.
func (w *SVDQuant) Written(i int, a tile.Area) []tile.Span {
	if (i == 2 || i == 4) && a.Row > 0 {
		return tile.Run(0, 0)
	}
	return w.Needed(i, a)
}

// NewEncoder returns nil.
func (w *SVDQuant) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// Decode restores an area in single precision.
func (w *SVDQuant) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	own := buffersOf(scratch)
	codes := tile.Sized(&own.bytes, len(dst))
	pack.SplitBytes(codes, src[0], 4)
	for i := range codes {
		codes[i] ^= 8 // two's complement, which counts from 8 on
	}
	groups := a.Cols / SVDGroup
	scales := tile.Sized(&own.Scales, a.Rows*groups)
	for g := range groups {
		for i := range a.Rows {
			scales[i*groups+g] = floats.GetFloat(src[1], g*a.Rows+i, w.Dtype)
		}
	}
	kernel.DecodeBytes(dst, codes, scales, nil, SVDGroup, awqValues)
	w.unsmooth(dst, src[4], a, own)
	w.addLowRank(dst, src, a, own)
	floats.RoundAll(dst, out)
}

// unsmooth divides columns by what inputs are divided by.
func (w *SVDQuant) unsmooth(dst []float32, src []byte, a tile.Area, s *buffers) {
	smooth := floats.Widen(tile.Sized(&s.lo, a.Cols), src, w.Dtype)
	if slices.Min(smooth) == 1 && slices.Max(smooth) == 1 {
		return
	}
	for i := range a.Rows {
		row := dst[i*a.Cols : (i+1)*a.Cols]
		for k, by := range smooth {
			row[k] /= by
		}
	}
}

// addLowRank adds up·down, some columns of down at a time, laid out as a kernel takes them.
func (w *SVDQuant) addLowRank(dst []float32, src [][]byte, a tile.Area, s *buffers) {
	const some = 32
	up := floats.Widen(tile.Sized(&s.hi, a.Rows*w.Rank), src[3], w.Dtype)
	across := floats.Widen(tile.Sized(&s.row, a.Cols*w.Rank), src[2], w.Dtype)
	product := tile.Sized(&s.slow, len(dst))
	down := make([]float32, some*w.Rank)
	for from := 0; from < a.Cols; from += some { // of which groups are multiples
		transpose.All(down, across[from*w.Rank:(from+some)*w.Rank], some, w.Rank)
		kernel.Product(kernel.Rows{X: product[from:], Stride: a.Cols, Count: a.Rows, Values: some}, up, down)
	}
	kernel.Add(dst, product)
}
