package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// TranscodeOptions are the decisions about layers that move to another layout.
type TranscodeOptions struct {
	// Rename keeps SDNQ's layers in the comfy layout as they are, where each
	// describes itself, instead of moving them to ComfyUI's formats.
	Rename bool
	// Mixed keeps those alone that no format of ComfyUI's holds.
	Mixed bool
	codec.Native
	// Requantize quantizes layers again that cannot move, from their values.
	Requantize bool
}

// Transcode plans the way of quantized layers to another layout, as their codes
// are. o has the layout, the preset, which tells names in memory, the
// application and the output.
func Transcode(m *layout.Model, how TranscodeOptions, o Options) (*Plan, error) {
	if err := m.Failed(); err != nil {
		return nil, usage.Source(err)
	}
	t := &transcoding{Model: m, TranscodeOptions: how, o: o, moved: map[moved]*codec.Move{}, dtype: DtypeIn(m)}
	p := &Plan{Layout: o.Layout, Transcodes: true, mixed: how.Mixed, Steps: make([]Step, 0, len(m.Plain)+len(m.Layers))}
	for _, one := range m.Plain {
		layer, _ := strings.CutSuffix(one.Name, ".weight")
		p.Steps = append(p.Steps, Step{
			Source: one, Layer: layer, Action: Keep, Reason: "not quantized", Names: o.Preset.MemoryNames(one.Name), Settings: &unset,
		})
	}
	for _, l := range m.Layers {
		s, err := t.step(l)
		if err != nil {
			return nil, err
		}
		p.Steps = append(p.Steps, s)
		if s.Move != nil && t.keepsBeside(l) {
			p.Steps = append(p.Steps, beside(l)...)
		} else if err := restorable(l); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Checkpoint.Path, err)
		}
	}
	comfy := comfyModel(o.Layout, sources(p.Steps))
	if o.For != nil && comfy.Err() != nil {
		return nil, usage.Wrap(comfy.Err()) // however its layers move
	}
	if err := t.refused(); err != nil {
		return nil, err
	}
	p.Steps = inReadOrder(p.Steps)
	if err := checkFor(p, comfy, o); err != nil {
		return nil, err
	}
	p.For, p.Comfy = o.For, comfy
	p.warnComfy(comfy, o)
	if o.Layout == layout.SDNQ {
		if err := t.config(p); err != nil {
			return nil, err
		}
	}
	o.Output.Metadata = withoutConfigs(o.Output.Metadata)
	p.Notes = slices.Concat(wrapperNote(sources(p.Steps)), againNotes(p.Steps), t.droppedNotes(), notesOf(p, o))
	if err := p.place(o.Output); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Checkpoint.Path, err)
	}
	return p, nil
}

// inReadOrder sorts places of steps: steps themselves are long.
func inReadOrder(steps []Step) []Step {
	places := make([]int32, len(steps))
	for i := range places {
		places[i] = int32(i)
	}
	slices.SortFunc(places, func(a, b int32) int {
		x, y := &steps[a].Source, &steps[b].Source
		return cmp.Or(cmp.Compare(x.Shard, y.Shard), cmp.Compare(x.Offset, y.Offset), cmp.Compare(a, b))
	})
	sorted := make([]Step, len(steps))
	for i, place := range places {
		sorted[i] = steps[place]
	}
	return sorted
}

// transcoding is a model on its way to another layout.
type transcoding struct {
	*layout.Model
	TranscodeOptions
	o      Options
	cannot reasons
	given  givenSettings
	moved  map[moved]*codec.Move
	dtype  func(l *layout.Layer) safetensors.Dtype
}

// step moves one layer, or says why it cannot.
func (t *transcoding) step(l *layout.Layer) (Step, error) {
	dtype := t.dtype(l)
	s := Step{Source: layerTensor(l, dtype), Layer: l.Name, Action: Quantize, Settings: &unset, From: l}
	s.Names = t.o.Preset.MemoryNames(s.Source.Name)
	move, err := t.move(l, dtype)
	if err == nil {
		s.Move = move
		s.Codec, s.Format, s.Settings, s.Options = move.To, move.Format, &move.Settings, move.Metadata
		s.Dtype = storedName(&s)
		err = t.loads(&s)
	}
	switch {
	case err == nil:
		return s, nil
	case t.Requantize:
		return s, t.again(&s, err)
	}
	t.cannot.add(l.Name, fmt.Sprintf("%s: %v", l.Dtype, err))
	return s, nil
}

// storedName is SDNQ's dtype, or the format's name.
func storedName(s *Step) string {
	if scheme := codec.Scheme(s.Codec); scheme != nil {
		return scheme.Dtype.Name
	}
	return s.Format.Name
}

// loads asks the application about a layer; checkFor asks about the output.
func (t *transcoding) loads(s *Step) error {
	if t.o.For == nil {
		return nil
	}
	return t.o.For.CheckLayer(s.Format, s.Dtype)
}

// moved tells moves apart that layers can share.
type moved struct {
	alike any
	orig  safetensors.Dtype
	kind  sdnq.Kind
}

// move is the way of a layer, one for all that go the same: models repeat a few
// kinds of layers many times.
func (t *transcoding) move(l *layout.Layer, orig safetensors.Dtype) (*codec.Move, error) {
	src := codec.Source{Name: l.Name, Shape: l.Shape(), Dtype: orig}
	key := moved{l.Alike(), orig, t.kind(src)}
	if m, ok := t.moved[key]; ok {
		return m, nil
	}
	m, err := t.newMove(l, src, key.kind)
	if err == nil {
		if t.o.Layout == layout.Comfy {
			m.Keep(l.Options)
		}
		t.moved[key] = m
	}
	return m, err
}

func (t *transcoding) newMove(l *layout.Layer, src codec.Source, kind sdnq.Kind) (*codec.Move, error) {
	stored, err := codec.ByName(l.Format)
	switch {
	case t.o.Layout == layout.SDNQ && isExperts(l):
		return nil, errExperts
	case l.Apart != nil:
		return nil, l.Apart.Why
	case codec.IsPublished(l.Codec):
		return codec.FromPublished(src, kind, l.Codec, t.o.Layout == layout.SDNQ, t.Native)
	case err != nil:
		return nil, err
	case codec.IsForeign(l.Codec) && l.Layout == layout.Comfy:
		return nil, fmt.Errorf("its scale is %s, ComfyUI's is F32: tensorpress migrate makes it so", l.Parts[1].Dtype)
	case codec.IsForeign(l.Codec):
		return nil, fmt.Errorf("the %s layout is older than both: tensorpress migrate makes it ComfyUI's", l.Layout.Name)
	case t.o.Layout == layout.SDNQ:
		return codec.FromNative(src, kind, stored, l.Options, l.Codec)
	case !t.Rename && stored == codec.SDNQ():
		m, err := codec.ToNative(l.Codec, t.Native)
		if err != nil && t.Mixed {
			return codec.Renamed(src, l.Options, l.Codec)
		}
		return m, err
	case stored == codec.SDNQ():
		return codec.Renamed(src, l.Options, l.Codec)
	}
	return codec.MoveAsIs(stored, l.Options, l.Codec), nil
}

// isExperts reports whether a layer is several matrices in one tensor.
func isExperts(l *layout.Layer) bool {
	stacked := codec.IsPublished(l.Codec) || l.Apart != nil
	return codec.Matrices(l.Codec) != nil || stacked && len(l.Shape()) == 3 && expertNames.MatchString(l.WeightName())
}

// errExperts is of experts that are stored as one tensor.
var errExperts = errors.New("they are experts in one tensor, which SDNQ's loaders read as plain weights alone")

// keepsBeside reports whether what a layer has for its activations goes with it: where it
// stays in its format.
func (t *transcoding) keepsBeside(l *layout.Layer) bool {
	return t.o.Layout == layout.Comfy && l.Format != codec.SDNQ().Name && !codec.IsPublished(l.Codec)
}

// beside are the tensors that a layer has for its activations.
func beside(l *layout.Layer) []Step {
	var steps []Step
	for _, one := range l.Tensors {
		isPart := slices.ContainsFunc(l.Parts, func(part checkpoint.Tensor) bool { return part.Name == one.Name })
		if !isPart && !layout.IsMetadata(one.Name) {
			steps = append(steps, Step{Source: one, Layer: one.Name, Action: Keep, Reason: activations, Settings: &unset})
		}
	}
	return steps
}

// droppedNotes says of which layers the scales of activations are left out: those that
// other programs have published, which mean them in a way of their own.
func (t *transcoding) droppedNotes() []string {
	n := 0
	for _, l := range t.Layers {
		if codec.IsPublished(l.Codec) && l.InputScaled() {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("scales for activations are not kept, which the source has for %s", layers(n))}
}

// activations is why a tensor is kept that belongs to a layer.
const activations = "of the activations"

// kind tells embeddings, which SDNQ stores in its own way, by their names.
func (t *transcoding) kind(src codec.Source) sdnq.Kind {
	return quantKinds[t.o.Preset.Kind(layout.WeightName(src.Name), src.Shape)]
}

// layerTensor stands for the weight that a layer was made from: it lies where
// the codes do, and has the bytes of all its tensors.
func layerTensor(l *layout.Layer, dtype safetensors.Dtype) checkpoint.Tensor {
	t := l.Parts[0]
	t.Name, t.Dtype, t.Shape, t.Size = l.WeightName(), dtype, l.Shape(), 0
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
	help := "`Requantize` quantizes them again, from their values"
	switch {
	case t.o.Layout != layout.Comfy || t.o.For != nil || t.Rename:
	case t.Mixed:
		help += ", and with `Rename` no others"
	default:
		help += "; `Rename` keeps SDNQ's layers as they are, which stock ComfyUI does not load"
	}
	return usage.Errorf("%d of %d layers of %s cannot move to the %s layout as they are: %s. %s",
		t.cannot.layers(), len(t.Layers), t.Checkpoint.Path, t.o.Layout.Name, t.cannot, help)
}

// config says in SDNQ's words what the layers are. Its settings for all are
// those of most layers, its minimums let the smallest one pass.
func (t *transcoding) config(p *Plan) error {
	o := t.o
	o.Flags = mostCommon(p.Steps)
	defaults := sdnqconfig.Default()
	numel, channels := defaults.MinNumel, defaults.MinChannels
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Action == Quantize {
			numel, channels = min(numel, s.Source.Numel()), min(channels, slices.Min(s.Source.Shape[:2]))
			k := codec.Scheme(s.Codec).Kind
			o.Embedding = o.Embedding || k == sdnq.Embedding
			o.Conv = o.Conv || k == sdnq.Conv || k == sdnq.ConvTranspose
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

func mostCommon(steps []Step) storage.Settings {
	counts, most := map[string]int{}, ""
	given := map[string]storage.Settings{}
	keys := map[codec.Settings]string{} // few for many layers
	for i := range steps {
		s := &steps[i]
		if s.Action != Quantize {
			continue
		}
		key, known := keys[*s.Settings]
		if !known {
			key = pyjson.Dump(s.Settings.ConfigKeys())
			keys[*s.Settings], given[key] = key, s.Settings.Given()
		}
		if counts[key]++; counts[key] > counts[most] {
			most = key
		}
	}
	return given[most]
}
