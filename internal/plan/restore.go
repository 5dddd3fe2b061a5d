package plan

import (
	"fmt"
	"maps"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Restoration is every decision of turning quantized layers into plain tensors.
type Restoration struct {
	Plan   // its files; its steps are those of tensors that adapters change
	Layers []RestoredLayer
	Copies []Copy
}

// RestoredLayer is a layer and the tensor that it becomes.
type RestoredLayer struct {
	*layout.Layer
	Part
	Merged bool // an adapter changes it: it is among the steps
}

// Dtype is that of the restored weight.
func (l *RestoredLayer) Dtype() safetensors.Dtype { return l.Part.Dtype }

// Copy is a tensor that is copied as it is.
type Copy struct {
	Source checkpoint.Tensor
	Part
}

// Restore plans the way back. dtype is that of the restored weights, 0 for each
// layer's own. merges are what adapters change, by the names of tensors.
func Restore(m *layout.Model, dtype safetensors.Dtype, merges map[string]*lora.Patch, o Output) (*Restoration, error) {
	if err := m.Failed(); err != nil {
		return nil, usage.Source(err)
	}
	r := &Restoration{}
	kept := keptDtype(m.Plain)
	u := &units{}
	for _, t := range m.Plain {
		u.add(t.Tensor)
		r.BytesIn += t.Size
	}
	for _, l := range m.Layers {
		if err := restorable(l); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Checkpoint.Path, err)
		}
		t := safetensors.Tensor{Name: l.WeightName(), Dtype: first(dtype, l.OrigDtype, kept), Shape: l.Shape()}
		u.add(t)
		for _, part := range l.Parts {
			r.BytesIn += part.Size
		}
	}
	o.Metadata = withoutConfigs(o.Metadata)
	if err := r.makeFiles(u, o); err != nil {
		return nil, err
	}
	for _, t := range m.Plain {
		part := u.next(1)[0]
		if patch := merges[t.Name]; patch == nil {
			r.Copies = append(r.Copies, Copy{t, part})
		} else if err := r.merge(Step{Source: t, Merge: patch}, part); err != nil {
			return nil, err
		}
	}
	for _, l := range m.Layers {
		part := u.next(1)[0]
		r.Layers = append(r.Layers, RestoredLayer{l, part, merges[part.Name] != nil})
		if patch := merges[part.Name]; patch != nil {
			if err := r.merge(Step{Source: layerTensor(l, part.Dtype), From: l, Merge: patch}, part); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// merge adds a tensor that an adapter changes.
func (r *Restoration) merge(s Step, to Part) error {
	if !codec.Floats(s.Source.Dtype) {
		return usage.SourceErrorf("tensor %s is %s, so that nothing can be merged into it: leave its keys out of the adapter", s.Source.Name, s.Source.Dtype)
	}
	s.Layer, s.Action, s.Settings = s.Source.Name, Keep, &unset
	s.Codec, s.Parts = codec.Cast(s.Source.Shape, to.Dtype), []Part{to}
	r.Steps = append(r.Steps, s)
	return nil
}

func first(dtypes ...safetensors.Dtype) safetensors.Dtype {
	for _, d := range dtypes {
		if d != 0 {
			return d
		}
	}
	return safetensors.BF16
}

// keptDtype is the float dtype of most kept bytes, 0 if there is none.
func keptDtype(tensors []checkpoint.Tensor) (most safetensors.Dtype) {
	bytes := map[safetensors.Dtype]int64{}
	for _, t := range tensors {
		if codec.Floats(t.Dtype) {
			bytes[t.Dtype] += t.Size
			if most == 0 || bytes[t.Dtype] > bytes[most] {
				most = t.Dtype
			}
		}
	}
	return most
}

func withoutConfigs(metadata map[string]string) map[string]string {
	m := maps.Clone(metadata)
	delete(m, layout.ConfigKey)
	delete(m, layout.HeaderKey)
	if len(m) == 0 && len(metadata) > 0 {
		return nil
	}
	return m
}
