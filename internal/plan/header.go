package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// headerEntry is what a header says of a layer: of one that stays as it is
// stored, what it says of itself; of one with a label, what that says.
func (s *Step) headerEntry() pyjson.Object {
	switch {
	case s.stays():
		return s.Options
	case s.Header != nil:
		return s.Header
	}
	return codec.HeaderEntry(s.Options)
}

// describe adds the header entry that describes every quantized layer as
// ComfyUI reads it. It wins over the layers' own tensors there, so it says no
// less than they do but for what only other programs read.
func (p *Plan) describe(o *Options) error {
	if !o.Header {
		return nil
	}
	if o.Layout != layout.Comfy {
		return usage.Errorf("`QuantizationMetadata` is for the comfy layout")
	}
	steps := slices.Clone(p.Steps)
	slices.SortFunc(steps, func(a, b Step) int { return cmp.Compare(a.Source.Name, b.Source.Name) })
	layers := pyjson.Object{}
	for i := range steps {
		if s := &steps[i]; s.quantized() {
			layers = append(layers, pyjson.Member{Key: s.Layer, Value: s.headerEntry()})
		}
	}
	if len(layers) == 0 {
		return nil
	}
	metadata := maps.Clone(o.Output.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata[layout.HeaderKey] = pyjson.Dump(pyjson.Object{{Key: "format_version", Value: "1.0"}, {Key: "layers", Value: layers}})
	o.Output.Metadata = metadata
	return nil
}
