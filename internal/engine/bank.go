package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// A bank of matrices in one tensor is encoded as so many weights: each has passes, scales
// and a search of its own, and they run side by side.

// matrices yields a step for each matrix of a bank.
func matrices(bank *codec.Bank, s *plan.Step, yield func(one *plan.Step) bool) bool {
	for i := range bank.Len() {
		one := *s
		one.Codec, one.Source = bank.Matrix(i), matrixOf(&s.Source, i)
		if n := s.Source.Shape[2]; len(s.Inputs) > n {
			one.Inputs = s.Inputs[i*n : (i+1)*n]
		}
		if !yield(&one) {
			return false
		}
	}
	return true
}

// matrixOf is a matrix of a tensor that holds several.
func matrixOf(t *checkpoint.Tensor, i int) checkpoint.Tensor {
	one := *t
	one.Shape, one.Size = t.Shape[1:], t.Size/int64(t.Shape[0])
	at := int64(i) * one.Size
	if i == t.Shape[0]-1 { // of a stored layer, whose bytes need not be a multiple
		one.Size = t.Size - at
	}
	if t.Gathered != nil {
		one.Gathered = &checkpoint.Gathered{Pieces: []checkpoint.Piece{{Size: one.Size, Count: 1, From: t, Offset: at}}}
		return one
	}
	one.Offset += at
	return one
}

// valuesFrom are those of a weight that come after so many others.
type valuesFrom struct {
	Values
	before int
}

// Read reads an area of them.
func (v valuesFrom) Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	a.Row += v.before / columns
	return v.Values.Read(w, buffer, columns, a)
}

// bank yields the tasks of a bank that is tried in several ways, each matrix by itself.
func (m *Measuring) bank(trials []*Trial, yield func(stream.Task) bool) bool {
	for _, t := range trials {
		matrices(codec.Matrices(t.Step.Codec), t.Step, func(one *plan.Step) bool {
			t.parts = append(t.parts, &Trial{Step: one})
			return true
		})
	}
	for i := range trials[0].parts {
		ways := make([]*Trial, len(trials))
		for k, t := range trials {
			ways[k] = t.parts[i]
		}
		if !m.Tasks(ways, yield) {
			return false
		}
	}
	return true
}
