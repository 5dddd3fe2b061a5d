package quant

import (
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Trial measures what storing a weight by a scheme loses. Values are read by
// start and length, into a slice that may be changed; a weight is read once for
// every pass of the scheme, and twice more.
type Trial struct {
	Scheme *Scheme
	Read   func(dst []float32, start int) error
	Limit  int // values of a tile, at most
}

var errTrialOver = errors.New("the trial of a dtype was given up")

// Loss returns SDNQ's measure: the mean squared error over the weight's
// variance, which is at least 1e-8. The error is restored in single precision.
func (t Trial) Loss(s *Scratch) (float64, error) {
	e := t.Scheme.NewEncoder(t.Limit)
	for _, p := range e.Passes() {
		if err := t.run(p.Tile(), s.Cancelled, func(start int, values []float32) error {
			found, err := p.Read(start, values, s)
			if err == nil {
				err = p.Join(found)
			}
			return err
		}); err != nil {
			return 0, err
		}
	}
	return t.compare(e, s)
}

// run reads the weight in tiles of that many values, until cancelled is closed.
func (t Trial) run(tile int, cancelled <-chan struct{}, do func(start int, values []float32) error) error {
	values := make([]float32, min(tile, t.Scheme.Values))
	for start := 0; start < t.Scheme.Values; start += tile {
		if closed(cancelled) {
			return errTrialOver
		}
		part := values[:min(tile, t.Scheme.Values-start)]
		if err := t.Read(part, start); err != nil {
			return err
		}
		if err := do(start, part); err != nil {
			return err
		}
	}
	return nil
}

// compare stores and restores tile by tile. Codes are kept for a tile, all else,
// which is small, for the whole weight.
func (t Trial) compare(e Encoder, s *Scratch) (float64, error) {
	parts := t.Scheme.Tensors()
	kept := make([][]byte, len(parts))
	for i := range parts[1:] {
		kept[i+1] = make([]byte, t.Scheme.size(i+1))
	}
	var misses, sum, squares float64
	plain := make([]float32, min(e.Tile(), t.Scheme.Values))
	err := t.run(e.Tile(), s.Cancelled, func(start int, values []float32) error {
		original := plain[:copy(plain, values)]
		if err := t.through(e, kept, start, values, s); err != nil {
			return err
		}
		for i, w := range original {
			d := float64(w) - float64(values[i])
			misses += float64(d * d)
			sum += float64(w)
			squares += float64(float64(w) * float64(w))
		}
		return nil
	})
	n := float64(t.Scheme.Values)
	variance := math.Max((squares-float64(sum*sum)/n)/(n-1), 1e-8)
	return misses / n / variance, err
}

// through replaces values by what is restored of them.
func (t Trial) through(e Encoder, kept [][]byte, start int, values []float32, s *Scratch) error {
	end := start + len(values)
	src, dst := make([][]byte, len(kept)), make([][]byte, len(kept))
	for i := range kept {
		dst[i] = make([]byte, t.Scheme.Written(i, start, end).Bytes())
	}
	if err := e.Encode(dst, start, values, s); err != nil {
		return err
	}
	src[0] = dst[0]
	for i := range kept[1:] {
		t.Scheme.Written(i+1, start, end).put(kept[i+1], dst[i+1])
		src[i+1] = t.Scheme.Needed(i+1, start, end).take(kept[i+1])
	}
	t.Scheme.Decode(values, src, start, safetensors.F32, s)
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

// put copies the pieces of a span to their places, take copies them from there.
func (s Span) put(tensor, pieces []byte) {
	off := s.Offset
	for range s.Count {
		copy(tensor[off:], pieces[:s.Size])
		pieces, off = pieces[s.Size:], off+s.Stride
	}
}

func (s Span) take(tensor []byte) []byte {
	var pieces []byte
	off := s.Offset
	for range s.Count {
		pieces = append(pieces, tensor[off:off+s.Size]...)
		off += s.Stride
	}
	return pieces
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
