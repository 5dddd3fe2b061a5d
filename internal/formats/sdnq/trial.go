package sdnq

import (
	"math"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Trial measures what storing a weight by a scheme loses. The weight is read once for
// every pass of the scheme, and once more; values that Read returns need to be valid
// only until its next call.
type Trial struct {
	Scheme *Scheme
	From   safetensors.Dtype // of the values
	Read   func(a tile.Area) (tile.Values, error)
	Memory int // bytes that a tile may take
}

// Loss returns SDNQ's measure of loss: the mean squared error divided by the weight's
// variance, which counts as at least 1e-8. The error is restored in single precision.
// Codes are in memory for one tile at a time, everything else, which is small, for the
// whole weight.
func (t Trial) Loss(s *tile.Scratch) (float64, error) {
	e, others := t.Scheme.NewEncoder(t.From, t.Memory), make([][]byte, len(t.Scheme.parts))
	for i := range others[1:] {
		others[i+1] = make([]byte, t.Scheme.size(i+1))
	}
	var misses, sum, squares float64
	var original, restored []float32
	err := tile.Drive(e, t.Scheme.Cut(), t.Read, func(v tile.Values) error {
		original, restored = v.Widen(&original), tile.Sized(&restored, v.Len())
		if err := t.through(e, restored, others, v, s); err != nil {
			return err
		}
		for i, w := range original {
			d := float64(w) - float64(restored[i])
			misses += float64(d * d)
			sum += float64(w)
			squares += float64(float64(w) * float64(w))
		}
		return nil
	}, s)
	n := float64(t.Scheme.Values)
	variance := math.Max((squares-float64(sum*sum)/n)/(n-1), 1e-8)
	return misses / n / variance, err
}

// through sets values to what is restored of others. What is stored beside codes is
// added to that of the tiles before.
func (t Trial) through(e tile.Encoder, restored []float32, others [][]byte, v tile.Values, s *tile.Scratch) error {
	src, dst := make([][]byte, len(others)), make([][]byte, len(others))
	for i := range others {
		dst[i] = make([]byte, tile.SpanBytes(t.Scheme.Written(i, v.Area)))
	}
	if err := e.Encode(dst, v, s); err != nil {
		return err
	}
	src[0] = dst[0]
	for i := range others[1:] {
		t.Scheme.Written(i+1, v.Area)[0].Put(others[i+1], dst[i+1])
		src[i+1] = t.Scheme.Needed(i+1, v.Area)[0].Take(others[i+1])
	}
	t.Scheme.Decode(restored, src, v.Area, safetensors.F32, s)
	return nil
}

// size returns the bytes of tensor i.
func (s *Scheme) size(i int) int {
	n := s.parts[i].Dtype.Bits() / 8
	for _, d := range s.parts[i].Shape {
		n *= d
	}
	return n
}

// DynamicOrder returns the dtypes that SDNQ's dynamic choice tries, in order,
// from one on: none if that is not among them.
func DynamicOrder(from *dtype.Type, codebook bool) []*dtype.Type {
	var order []*dtype.Type
	for _, t := range dtype.All() {
		if t.Name == from.Name {
			order = []*dtype.Type{}
		}
		if order != nil && inOrder(t) && (!codebook || t.Class == dtype.Integer && t.Unsigned) {
			order = append(order, t)
		}
	}
	if !inOrder(from) {
		return nil
	}
	return order
}

func inOrder(t *dtype.Type) bool {
	switch t.Name {
	case "bfloat16", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu":
		return false
	}
	return t.Bits < 32
}

// DynamicThreshold is the loss that SDNQ accepts for a dtype, where none is
// given: 10^(-bits/2).
func DynamicThreshold(t *dtype.Type) float64 { return math.Pow(10, -float64(t.Bits)/2) }

// DynamicMatmul says how the dynamic choice treats quantized matmul for a
// candidate: whether it is on, and whether the layer is listed as not using it.
// d0 is the dtype that the choice began from, product nil for SDNQ's choice.
func DynamicMatmul(d0, d, product *dtype.Type, asked bool) (on, listed bool) {
	q := product
	if q == nil {
		q = MatmulDtype(d)
	}
	on = asked
	if product == nil && q.Name == "float8_e4m3fn" { // counts as unsupported on the CPU
		on, listed = false, asked
	}
	if q.Class == dtype.Integer && d.Class != dtype.Integer ||
		d.Bits == q.Bits && d.Unsigned && q.Class != dtype.Integer ||
		d0.Bits <= q.Bits && q.Bits < d.Bits {
		on, listed = false, true
	}
	return on, listed
}
