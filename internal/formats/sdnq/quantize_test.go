package sdnq

import (
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

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
	return q, s.encodeAll(q.Data, w)
}

// encodeAll encodes a whole weight at once.
func (s *Scheme) encodeAll(dst [][]byte, w []float32) error {
	return tile.EncodeAll(s.NewEncoder(safetensors.F32, math.MaxInt), s.Cut(), s.Written, tile.ValuesOf(tile.Line(0, len(w)), w), dst, new(tile.Scratch))
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
	q.Scheme.Decode(w, q.Data, tile.Line(0, len(w)), safetensors.F32, new(tile.Scratch))
	return w, nil
}
