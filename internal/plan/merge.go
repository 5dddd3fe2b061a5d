package plan

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// decide decides about a tensor. One that is kept and that an adapter changes is written
// anew, rounded to its own dtype.
func (d *decider) decide(s *Step, t checkpoint.Tensor) error {
	if err := d.step(s, t); err != nil {
		return err
	}
	if s.Merge = d.Merges[t.Name]; s.Merge == nil || s.Action != Keep {
		return nil
	}
	if s.Reason += "; with what adapters change"; s.Codec != nil {
		return nil
	}
	if !codec.Floats(t.Dtype) {
		return usage.SourceErrorf("tensor %s is %s and is kept, so that nothing can be merged into it: quantize it, or leave its keys out of the adapter", t.Name, t.Dtype)
	}
	s.Codec = codec.Cast(t.Shape, t.Dtype)
	return nil
}

// Held is the most bytes that the factors of one tensor's changes take.
func (p *Plan) Held() (n int64) {
	for i := range p.Steps {
		if m := p.Steps[i].Merge; m != nil {
			n = max(n, m.Held())
		}
	}
	return n
}
