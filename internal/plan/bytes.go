package plan

import (
	"strconv"

	"github.com/tensorpress/tensorpress/safetensors"
)

// StepSize is what a step takes in the output: its tensors alone, and with what describes
// it and the entries of all of them in headers, whose offsets count as long as the
// longest.
type StepSize struct{ Tensors, All int64 }

// StepSizes returns the size of each step.
func (p *Plan) StepSizes() []StepSize {
	digits := len(strconv.FormatInt(p.BytesOut, 10))
	sizes := make([]StepSize, len(p.Steps))
	literals := p.Literals
	for i := range p.Steps {
		s, size := &p.Steps[i], &sizes[i]
		for _, part := range s.Parts {
			size.Tensors += part.Size
			size.All += part.Size + entryBytes(part.Tensor, digits)
		}
		if s.described(p.Layout) {
			size.All += literals[0].Size + entryBytes(literals[0].Tensor, digits)
			literals = literals[1:]
		}
	}
	return sizes
}

// entryBytes is the length of a tensor's entry in a header.
func entryBytes(t safetensors.Tensor, digits int) int64 {
	n := len(`,"":{"dtype":"","shape":[],"data_offsets":[,]}`) + len(t.Name) + len(t.Dtype.String()) + 2*digits
	for _, dim := range t.Shape {
		n += len(strconv.Itoa(dim))
	}
	return int64(n + max(len(t.Shape)-1, 0))
}
