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

// Tile is a run of a weight's values, row-major.
type Tile struct {
	// Start is the index of the first value: a multiple of the scheme's
	// Block and Inner, and of its Group unless Ranges are given.
	Start int
	// Values are used as scratch space and hold nothing afterwards.
	Values []float32
	// Ranges of all groups of the weight, or nil: then every group lies whole
	// in the tile. See [Grid.Measure]. With ranges, NaN or infinity is reported
	// by the tile that holds it; the others of its group are not to be used.
	Ranges []Range

	known *known
	plain plain // in place of values
}

func (t *Tile) len() int {
	if t.plain.data != nil {
		return t.plain.len()
	}
	return len(t.Values)
}

// Scratch is memory that calls share, one Scratch to a goroutine. The zero
// value is ready.
type Scratch struct {
	// Cancelled, if not nil, is closed when the work is given up.
	Cancelled <-chan struct{}

	codes, turned []uint16
	values        []float32
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

// Reader reads values of the flattened weight, from index start on.
type Reader func(start int, dst []float32) error

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
		q.Data = append(q.Data, make([]byte, s.Written(i, 0, s.Values).Bytes()))
	}
	if err := Encode(s.NewEncoder(s.Values), q.Data, append([]float32(nil), w...)); err != nil {
		return nil, err
	}
	return q, nil
}

// Dequantize returns the weight's values, row-major, as SDNQ computes them
// before it rounds to the dtype of the model.
func Dequantize(q *Quantized) ([]float32, error) {
	for i, t := range q.Scheme.Tensors() {
		if want := q.Scheme.Needed(i, 0, q.Scheme.Values).Bytes(); len(q.Data[i]) != want {
			return nil, fmt.Errorf("%s has %d bytes, want %d", t.Role, len(q.Data[i]), want)
		}
	}
	w := make([]float32, q.Scheme.Values)
	q.Scheme.Decode(w, q.Data, 0, safetensors.F32, new(Scratch))
	return w, nil
}
