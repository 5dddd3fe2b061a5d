// Package quant is the arithmetic of quantized weights as pure functions over
// slices, shapes and plain options: SDNQ's scaling, rounding and packing of
// every dtype in table [dtype.All], and the formats of ComfyUI. It knows no
// files and no models.
//
// Start with [Quantize] and [Dequantize]. Both work through a scheme
// ([NewScheme], [NewScaled]), which follows from shape and options alone and
// can be driven tile by tile, for weights larger than memory; the bytes do not
// depend on the tiles.
package quant

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Role says what a stored tensor is to its weight. The names are SDNQ's.
type Role string

// The tensors of a quantized weight.
const (
	Weight    Role = "weight"     // the codes
	Scale     Role = "scale"      // value = code × scale + zero point
	ZeroPoint Role = "zero_point" // a float, in units of the weight
)

// Further tensors of ComfyUI's formats.
const (
	GroupScale   Role = "group_scale"   // in units of the channel's scale
	ChannelScale Role = "channel_scale" // of a row
	Codebook     Role = "codebook"      // the values of the codes
	Zeros        Role = "zeros"         // the value of the code 8
	Scalar       Role = "scalar"        // of hybrid_mxfp8, which decoding ignores
	InputScale   Role = "input_scale"   // of activations, not of the weight
)

// Tensor describes one stored tensor.
type Tensor struct {
	Role  Role
	Dtype safetensors.Dtype
	Shape []int
}

// Range is the least and greatest value of a group; among equals (zeros of
// either sign) the first one. Both are NaN if any value is.
type Range struct{ Lo, Hi float32 }

// Scratch is memory that calls share, one Scratch to a goroutine. The zero
// value is ready.
type Scratch struct {
	// Cancelled, if not nil, is closed when the work is given up.
	Cancelled <-chan struct{}

	codes, turned []uint16
	values        []float32
	widened       []float32 // what Floats returns
	ranges        []Range
	sides
	column        []uint16
	book          Lloyd
	books         books
	inner         *Scratch
	row, up, down []float32
	doubles       []float64

	// of fused encoding
	bytes, turnedBytes  []byte
	half, slow, lo, hi  []float32
	turned32            []float32 // rotated
	runScales, runZeros []float32 // of runs of codes
	steps, one          kernel.Steps

	// of interleaved groups
	sortedBytes, sortedCodes []byte

	// of raw blocks
	scaleCodes []byte
	fours      fours
}

func (s *Scratch) uint16s(n int) []uint16 { return sized(&s.codes, n) }

func (s *Scratch) floats(n int) []float32 { return sized(&s.values, n) }

func sized[T any](buffer *[]T, n int) []T {
	if cap(*buffer) < n {
		*buffer = make([]T, n)
	}
	return (*buffer)[:n]
}

// NonfiniteError reports the first NaN or infinity of a tile.
type NonfiniteError struct {
	Index   int // in the flattened weight
	Value   float32
	LowRank bool // it is refused because a low-rank part was asked for
}

func (e *NonfiniteError) Error() string {
	return fmt.Sprintf("value %d is %v", e.Index, e.Value)
}

// Quantized is a weight as it is stored: one byte slice, little-endian, for
// each of the scheme's tensors.
type Quantized struct {
	Scheme *Scheme
	Data   [][]byte
}

// Quantize stores a weight of that shape, given row-major.
func Quantize(w []float32, shape []int, o Options) (*Quantized, error) {
	s, err := NewScheme(shape, o)
	if err != nil {
		return nil, err
	}
	if len(w) != s.Values {
		return nil, fmt.Errorf("%d values for shape %v, want %d", len(w), shape, s.Values)
	}
	q := &Quantized{Scheme: s}
	for i := range s.Tensors() {
		q.Data = append(q.Data, make([]byte, s.size(i)))
	}
	return q, s.encodeAll(q.Data, ValuesOf(Line(0, s.Values), w), new(Scratch))
}

// Dequantize returns the weight's values, row-major, as SDNQ computes them
// before it rounds to the dtype of the model.
func Dequantize(q *Quantized) ([]float32, error) {
	for i, t := range q.Scheme.Tensors() {
		if want := q.Scheme.size(i); len(q.Data[i]) != want {
			return nil, fmt.Errorf("%s has %d bytes, want %d", t.Role, len(q.Data[i]), want)
		}
	}
	w := make([]float32, q.Scheme.Values)
	q.Scheme.Decode(w, q.Data, Line(0, len(w)), safetensors.F32, new(Scratch))
	return w, nil
}
