package plan

import (
	"maps"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Restoration is every decision of turning quantized layers into plain tensors.
type Restoration struct {
	Plan   // its files; it has no steps
	Layers []RestoredLayer
	Copies []Copy
}

// RestoredLayer is a layer and the tensor that it becomes.
type RestoredLayer struct {
	*layout.Layer
	Part
}

// Dtype is that of the restored weight.
func (l *RestoredLayer) Dtype() safetensors.Dtype { return l.Part.Dtype }

// Copy is a tensor that is copied as it is.
type Copy struct {
	Source checkpoint.Tensor
	Part
}

// Restore plans the way back. dtype is that of the restored weights, 0 for each
// layer's own.
func Restore(m *layout.Model, dtype safetensors.Dtype, o Output) (*Restoration, error) {
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
			return nil, err
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
		r.Copies = append(r.Copies, Copy{t, u.next(1)[0]})
	}
	for _, l := range m.Layers {
		r.Layers = append(r.Layers, RestoredLayer{l, u.next(1)[0]})
	}
	return r, nil
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
