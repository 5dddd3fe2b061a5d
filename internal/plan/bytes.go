package plan

import (
	"strconv"

	"github.com/tensorpress/tensorpress/safetensors"
)

// StepBytes returns what each step takes in the output: its tensors, what describes it,
// and their entries in headers, whose offsets count as long as the longest.
func (p *Plan) StepBytes() []int64 {
	digits := len(strconv.FormatInt(p.BytesOut, 10))
	bytes := make([]int64, len(p.Steps))
	literals := p.Literals
	for i := range p.Steps {
		s := &p.Steps[i]
		for _, part := range s.Parts {
			bytes[i] += part.Size + entryBytes(part.Tensor, digits)
		}
		if s.described(p.Layout) {
			bytes[i] += literals[0].Size + entryBytes(literals[0].Tensor, digits)
			literals = literals[1:]
		}
	}
	return bytes
}

// entryBytes is the length of a tensor's entry in a header.
func entryBytes(t safetensors.Tensor, digits int) int64 {
	n := len(`,"":{"dtype":"","shape":[],"data_offsets":[,]}`) + len(t.Name) + len(t.Dtype.String()) + 2*digits
	for _, dim := range t.Shape {
		n += len(strconv.Itoa(dim))
	}
	return int64(n + max(len(t.Shape)-1, 0))
}
