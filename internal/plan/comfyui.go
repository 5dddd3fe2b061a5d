package plan

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// ComfyModel is what ComfyUI takes a checkpoint for whose weights have those
// shapes, nil in another layout than its own.
func comfyModel(l *layout.Layout, tensors []checkpoint.Tensor) *app.ComfyModel {
	if l != layout.Comfy {
		return nil
	}
	return app.RecogniseComfy(func(yield func(string, []int) bool) {
		for i := range tensors {
			if !yield(tensors[i].Name, tensors[i].Shape) {
				return
			}
		}
	})
}

// comfyStored is a step's weight as ComfyUI finds it.
func (s *Step) comfyStored() app.Stored {
	c, format := s.Codec, s.Format.Name
	if s.stays() {
		c = s.From.Codec
	}
	stored := app.Stored{Name: s.Source.Name, Format: format, Shape: s.Source.Shape}
	if c != nil {
		stored.Packed = c.Tensors()[0].Shape
	}
	return stored
}

// comfyKeeps says why a weight is kept of which ComfyUI would not read the
// layer, or by whose shape it tells the model. Where the reference's bytes are
// asked for, or no preset, and no application is named, it is quantized all the
// same.
func (d *decider) comfyKeeps(s *Step, rule *Rule) string {
	set := rule != nil && rule.Over.Dtype != "" && d.For == nil
	if d.For == nil && (set || d.Preset.Name == "none" || d.exact()) {
		return ""
	}
	if err := d.comfy.CheckLayer(s.comfyStored()); err != nil {
		return err.Error()
	}
	return ""
}

// comfyProblem says of one layer why ComfyUI would not load it.
type comfyProblem struct {
	layer string
	err   error
}

// comfyOf is what ComfyUI takes an output for, and the layers that it would not
// read or for which it would not know the model; none are looked at where the
// output holds no quantized layer.
func (p *Plan) comfyOf(m *app.ComfyModel) (problems []comfyProblem, whole error) {
	for i := range p.Steps {
		s := &p.Steps[i]
		if !s.quantized() || s.Format == nil {
			continue
		}
		whole = m.Err()
		if err := m.CheckLayer(s.comfyStored()); err != nil {
			problems = append(problems, comfyProblem{s.Layer, err})
		}
	}
	return problems, whole
}

// refuseComfy is the error of an output that ComfyUI, which was named, would
// not load.
func refuseComfy(problems []comfyProblem, whole error) error {
	switch {
	case whole != nil:
		return usage.Wrap(whole)
	case len(problems) > 0:
		return usage.Errorf("layer %s: %w", problems[0].layer, problems[0].err)
	}
	return nil
}

// warnComfy says the same of one that it was not named for.
func (p *Plan) warnComfy(m *app.ComfyModel, o Options) {
	if o.For == nil {
		p.warn(p.comfyOf(m))
	}
}

func (p *Plan) warn(problems []comfyProblem, whole error) {
	const text = "stock ComfyUI will not load it as it is quantized"
	switch {
	case whole != nil:
		p.Warnings = append(p.Warnings, fmt.Sprintf("%s: %v", text, whole))
	case len(problems) > 0:
		p.Warnings = append(p.Warnings, fmt.Sprintf("%s, for %s: %s: %v", text, layers(len(problems)), problems[0].layer, problems[0].err))
	}
}

// unknownNote says that ComfyUI would not know what a file with quantized layers holds. It
// is no error: nodes of others may load the file.
func (p *Plan) unknownNote(o Options) []string {
	if o.Layout != layout.Comfy || p.Comfy != nil || o.Addon != "" {
		return nil
	}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.quantized() {
			return []string{fmt.Sprintf("ComfyUI %s has no model whose tensors are called so (%s): none of its own nodes loads the file", app.ComfyRelease, s.Source.Name)}
		}
	}
	return nil
}

// comfyOf asks about the tensors of a migration under their new names.
func (g *migration) comfyOf() (m *app.ComfyModel, problems []comfyProblem) {
	m = app.RecogniseComfy(func(yield func(string, []int) bool) {
		for i := range g.edits {
			if !yield(g.edits[i].As.Name, g.edits[i].shape()) {
				return
			}
		}
	})
	for _, e := range g.edits {
		if e.Layer == "" {
			continue
		}
		if err := m.CheckLayer(app.Stored{Name: e.As.Name, Format: e.Format, Shape: e.Shape, Packed: e.As.Shape}); err != nil {
			problems = append(problems, comfyProblem{e.Layer, err})
		}
	}
	return m, problems
}

// unmake takes back that a weight is quantized.
func (s *Step) unmake() {
	s.Action, s.Codec, s.Format, s.Options, s.Dtype, s.NoMatmul = Keep, nil, nil, nil, "", false
}

// comfyStays reports whether a layer of the source may stay as it is.
func (d *decider) comfyStays(s *Step) bool {
	f, err := codec.ByName(s.From.Format)
	if err != nil {
		return true
	}
	kept := *s
	kept.Format, kept.Codec = f, s.From.Codec
	return d.comfyKeeps(&kept, nil) == ""
}

// sources are the tensors that steps are about, layers as the weights that they
// restore to.
func sources(steps []Step) []checkpoint.Tensor {
	tensors := make([]checkpoint.Tensor, len(steps))
	for i := range steps {
		tensors[i] = steps[i].Source
	}
	return tensors
}

// shape is what a tensor of a migration stands for.
func (e *Edit) shape() []int {
	if e.Shape != nil {
		return e.Shape
	}
	return e.As.Shape
}
