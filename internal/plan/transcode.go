package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnq"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Transcode plans the way of quantized layers to another layout, as their codes
// are. native asks for formats that stock ComfyUI knows in the comfy layout;
// without it SDNQ's layers only come to describe themselves. o has the layout,
// the preset, which tells names in memory, and the output.
func Transcode(m *layout.Model, native bool, o Options) (*Plan, error) {
	if err := m.Failed(); err != nil {
		return nil, &sourceError{err}
	}
	t := &transcoding{Model: m, native: native, o: o}
	p := &Plan{Layout: o.Layout}
	for _, one := range m.Plain {
		layer, _ := strings.CutSuffix(one.Name, ".weight")
		p.Steps = append(p.Steps, Step{
			Source: one, Layer: layer, Action: Keep, Reason: "not quantized", Names: o.Preset.MemoryNames(one.Name),
		})
	}
	for _, l := range m.Layers {
		p.Steps = append(p.Steps, t.step(l))
		p.Steps = append(p.Steps, t.beside(l)...)
	}
	if err := t.refused(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(p.Steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.Source.Shard, b.Source.Shard), cmp.Compare(a.Source.Offset, b.Source.Offset))
	})
	if err := checkFor(p, o); err != nil {
		return nil, err
	}
	if o.Layout == layout.SDNQ {
		if err := t.config(p); err != nil {
			return nil, err
		}
	}
	o.Output.Metadata = withoutConfigs(o.Output.Metadata)
	p.Notes = notesOf(p, o)
	return p, p.place(o.Output)
}

// transcoding is a model on its way to another layout.
type transcoding struct {
	*layout.Model
	native bool
	o      Options
	cannot []string
}

// step moves one layer.
func (t *transcoding) step(l *layout.Layer) Step {
	dtype := first(l.OrigDtype, keptDtype(t.Plain))
	s := Step{Source: layerTensor(l, dtype), Layer: l.Name, Action: Quantize}
	s.Names = t.o.Preset.MemoryNames(s.Source.Name)
	move, err := t.move(l, dtype)
	if err != nil {
		t.cannot = append(t.cannot, fmt.Sprintf("%s (%s): %v", l.Name, l.Dtype, err))
		return s
	}
	s.From, s.Move = l, move
	s.Codec, s.Format, s.Settings, s.Options = move.To, move.Format, move.Settings, move.Metadata
	s.Dtype = s.Format.Name
	if scheme := codec.Scheme(s.Codec); scheme != nil {
		s.Dtype = scheme.Dtype.Name
	}
	return s
}

func (t *transcoding) move(l *layout.Layer, orig safetensors.Dtype) (*codec.Move, error) {
	src := codec.Source{Name: l.Name, Shape: l.Shape(), Dtype: orig}
	stored, err := codec.ByName(l.Format)
	switch {
	case err != nil:
		return nil, err
	case codec.IsForeign(l.Codec):
		return nil, fmt.Errorf("the %s layout is read alone: quantize it anew", l.Layout.Name)
	case t.o.Layout == layout.SDNQ:
		return codec.FromNative(src, t.kind(src), stored, l.Options, l.Codec)
	case t.native && stored == codec.SDNQ():
		return codec.ToNative(l.Codec)
	case stored == codec.SDNQ():
		return codec.Renamed(src, l.Options, l.Codec)
	}
	return codec.Kept(stored, l.Options, l.Codec), nil
}

// beside are the tensors that a layer has for its activations, which go with it
// where it stays in its format.
func (t *transcoding) beside(l *layout.Layer) []Step {
	if t.o.Layout != layout.Comfy || l.Format == codec.SDNQ().Name {
		return nil
	}
	var steps []Step
	for _, one := range l.Tensors {
		isPart := slices.ContainsFunc(l.Parts, func(part checkpoint.Tensor) bool { return part.Name == one.Name })
		if !isPart && !layout.IsMetadata(one.Name) {
			steps = append(steps, Step{Source: one, Layer: one.Name, Action: Keep, Reason: "of the activations"})
		}
	}
	return steps
}

// kind tells embeddings, which SDNQ stores in its own way, by their names.
func (t *transcoding) kind(src codec.Source) quant.Kind {
	return quantKinds[t.o.Preset.Kind(layout.WeightName(src.Name), src.Shape)]
}

// layerTensor stands for the weight that a layer was made from: it lies where
// the codes do, and has the bytes of all its tensors.
func layerTensor(l *layout.Layer, dtype safetensors.Dtype) checkpoint.Tensor {
	t := l.Parts[0]
	t.Name, t.Dtype, t.Shape, t.Size = layout.WeightName(l.Name), dtype, l.Shape(), 0
	for _, part := range l.Parts {
		t.Size += part.Size
	}
	return t
}

// refused is the error of layers that cannot move.
func (t *transcoding) refused() error {
	if len(t.cannot) == 0 {
		return nil
	}
	const most = 8
	list := t.cannot[:min(len(t.cannot), most)]
	more := ""
	if n := len(t.cannot) - len(list); n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	return usage.Errorf("%d of %d layers of %s cannot move to the %s layout as they are: %s%s",
		len(t.cannot), len(t.Layers), t.Checkpoint.Path, t.o.Layout.Name, strings.Join(list, "; "), more)
}

// config says in SDNQ's words what the layers are. Its settings for all are
// those of most layers, its minimums let the smallest one pass.
func (t *transcoding) config(p *Plan) error {
	o := t.o
	o.Flags = mostCommon(p.Steps)
	defaults := sdnq.Default()
	numel, channels := defaults.MinNumel, defaults.MinChannels
	for _, s := range p.Steps {
		if s.Action == Quantize {
			numel, channels = min(numel, s.Source.Numel()), min(channels, slices.Min(s.Source.Shape[:2]))
			k := codec.Scheme(s.Codec).Kind
			o.Embedding = o.Embedding || k == quant.Embedding
			o.Conv = o.Conv || k == quant.Conv || k == quant.ConvTranspose
		}
	}
	o.MinNumel, o.MinChannels = &numel, &channels
	d, err := newDecider(o)
	if err != nil {
		return err
	}
	p.Config = configOf(p.Steps, d)
	return nil
}

func mostCommon(steps []Step) Overrides {
	counts, most := map[string]int{}, ""
	given := map[string]Overrides{}
	for _, s := range steps {
		if s.Action != Quantize {
			continue
		}
		key := pyjson.Dump(s.Settings.ConfigKeys())
		given[key] = s.Settings.Given()
		if counts[key]++; counts[key] > counts[most] {
			most = key
		}
	}
	return given[most]
}
