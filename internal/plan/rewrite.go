package plan

import (
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Edit is a tensor of an output in which names, shapes and metadata change and
// no weight does: one of the source's under a name and shape, or one whose bytes
// are given.
type Edit struct {
	Source checkpoint.Tensor // of the same size and dtype, where Data is nil
	As     safetensors.Tensor
	Data   []byte
	// Layer and Format are those of a quantized weight, "" for other tensors, and
	// Shape is what it restores to.
	Layer, Format string
	Shape         []int
	Reason        string // what is done to the layer
}

// Kept is a tensor that stays as it is.
func Kept(t checkpoint.Tensor) Edit { return Edit{Source: t, As: t.Tensor} }

// Known is a tensor whose bytes are given.
func Known(t layout.Literal) Edit { return Edit{As: t.Tensor, Data: t.Data} }

// Rewrite plans an output of edits, in the comfy layout.
func Rewrite(edits []Edit, o Output) (*Plan, error) {
	p := &Plan{Layout: layout.Comfy}
	u := &units{}
	for _, e := range edits {
		u.add(e.As)
		if e.Data != nil {
			p.Literals = append(p.Literals, Literal{Data: e.Data})
			continue
		}
		s := Step{Source: e.Source, Action: Keep, Settings: &unset}
		s.Layer, _ = strings.CutSuffix(e.Source.Name, ".weight")
		if e.Layer != "" {
			s.Layer, s.Dtype, s.Reason = e.Layer, e.Format, e.Reason
		}
		p.Steps = append(p.Steps, s)
		p.BytesIn += e.Source.Size
	}
	if err := p.makeFiles(u, o); err != nil {
		return nil, usage.Source(err)
	}
	p.locateEdits(edits, u)
	return p, nil
}

// locateEdits gives steps and literals their parts.
func (p *Plan) locateEdits(edits []Edit, u *units) {
	steps, literals := p.Steps, p.Literals
	for _, e := range edits {
		if e.Data != nil {
			literals[0].Part, literals = u.next(1)[0], literals[1:]
		} else {
			steps[0].Parts, steps = u.next(1), steps[1:]
		}
	}
}
