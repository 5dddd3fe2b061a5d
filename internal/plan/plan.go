// Package plan makes every decision before any weight is read: which tensors
// are quantized and how, what the output's tensors are called, and where each
// of their bytes will lie. It is pure: the same inventory and options give the
// same plan.
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// Options are the decisions that a user has taken.
type Options struct {
	Layout      *layout.Layout
	Flags       storage.Settings   // of all layers
	Instead     *storage.Settings  // of those that the dtype of Flags cannot hold; nil to keep them
	Config      *sdnqconfig.Config // nil for none
	Keep, Only  []*pattern.Pattern
	Set         []Rule
	ListRules   []ListRule // of a layer config, or of convert_to_quant's options
	Kept        KeptDtype  // with --exact-reference in the comfy layout; nil for BF16
	Preset      *preset.Preset
	SkipKeys    bool // SDNQ's list of the preset, in the sdnq layout
	Conv        bool // quantize convolutions too
	Embedding   bool // quantize embeddings too
	MinNumel    *int
	MinChannels *int
	Recognised  string // what told the preset, "" where it was named
	// Addon is what the source is where it is no model, such as "a LoRA", and
	// AddonSign what told it; "" for a model.
	Addon, AddonSign string
	For              *app.App // nil for any
	// Chosen are the dtypes that were measured for weights with a dynamic one,
	// by their names; nil before that.
	Chosen map[string]Choice
	// Stored are the layers that weights come from, by the weights' names, as
	// [Inventory] returns them.
	Stored map[string]*layout.Layer
	// AcceptUnscaled takes 8-bit floats without a scale for plain numbers.
	AcceptUnscaled bool
	Output         Output
	// Component is the folder of a pipeline in which the model is, "" for one model.
	// Patterns are searched in names with it before them too, as reports have them, and
	// one that matches nothing here may match in another component.
	Component string
	// InputScales are scales of activations to be stored, by layer.
	InputScales map[string]float32
	// Header describes the layers in the header too, in the comfy layout.
	Header bool
	// Moments are those by which errors are weighed; nil if all columns count alike.
	Moments *Moments
	// Merges are what adapters change, by the names of tensors.
	Merges map[string]*lora.Patch
}

// Choice is a dtype that was measured: "" where none loses little enough.
type Choice struct {
	Dtype    string
	NoMatmul bool // list it as not using quantized matmul
}

// Output is the shape of what is written.
type Output struct {
	Folder    bool
	Stem      string // file name without .safetensors
	ShardSize int64  // bytes of tensors in a file, 0 for no bound
	Metadata  map[string]string
}

// Action is what becomes of a tensor.
type Action string

// The actions.
const (
	Quantize Action = "quantize"
	Keep     Action = "keep"
	Drop     Action = "drop" // the output does not have it
)

// Step is what becomes of one tensor of the source.
type Step struct {
	Source checkpoint.Tensor
	Layer  string   // its name, without .weight for a weight
	Names  []string // of a weight in the loaded model, where they differ
	Action Action
	Reason string // why it is kept
	Ruled  bool   // a rule says what becomes of it
	Dtype  string // SDNQ's dtype or the format, for a quantized weight
	// Codec stores the tensor; nil where its bytes are copied.
	Codec    codec.Codec
	Format   *codec.Format
	Settings *codec.Settings // of a weight; layers share them, so that nothing may change them
	Options  pyjson.Object   // what the layer's metadata says
	Header   pyjson.Object   // what a header says of it, nil for the same
	NoMatmul bool            // quantized matmul was asked for and does not apply
	Moments  []float32       // by which the search weighs the columns' errors, nil where all count alike
	Inputs   []float32       // moments of the layer's inputs, whatever it is searched by; nil where none are given
	// From is the stored layer that the weight comes from, and Move how its
	// codes become those of Codec; nil for a plain tensor. Source stands for the
	// restored weight then.
	From *layout.Layer
	Move *codec.Move
	// Merge is what adapters change of the values, before all else; nil for nothing.
	Merge *lora.Patch
	// Copies are the tensors of a layer that stays as it is stored.
	Copies []Copy
	Parts  []Part // of the codec's tensors, or the copy
	kept   safetensors.Dtype
	listed bool // among the layers, though its name is no weight's
}

// CodecSource is what a codec needs to know of the weight. 8-bit floats that
// are plain numbers count as the dtype of most kept tensors.
func (s *Step) CodecSource() codec.Source {
	src := codec.Source{Name: s.Layer, Shape: s.Source.Shape, Dtype: s.Source.Dtype, Moments: s.Moments}
	if !codec.Floats(src.Dtype) {
		src.Dtype = first(s.kept)
	}
	return src
}

// Part is a tensor of the output and the file that holds it.
type Part struct {
	safetensors.Tensor
	File int
}

// Literal is a part whose bytes are known already.
type Literal struct {
	Part
	Data []byte
}

// File is a file of the output.
type File struct {
	Name   string // ending in .safetensors
	Header *safetensors.Header
}

// Plan is every decision.
type Plan struct {
	Layout   *layout.Layout
	Preset   string // its name, and what told it
	Steps    []Step // in the order in which the source is read
	Literals []Literal
	Files    []File
	Config   *sdnqconfig.Config // of the sdnq layout
	// ConfigFile says that a folder has the config as a file of its own too.
	ConfigFile bool
	Notes      []string // what a user should know
	// AllowNonfinite takes values that are not finite as they are.
	AllowNonfinite bool
	// Warnings are why the application of the layout would not load the output;
	// they are said last.
	Warnings []string
	// Transcodes says that it is the way of layers to another layout.
	Transcodes bool
	// Unused are the errors of patterns that match nothing, by their texts, of a
	// component.
	Unused map[string]error
	// For is the application that was named, nil for none, and Comfy what ComfyUI takes
	// an output of its layout for.
	For      *app.App
	Comfy    *app.ComfyModel
	Weighed  Weighed
	mixed    bool // layers that could not move stay SDNQ's
	BytesIn  int64
	BytesOut int64
}

// Make plans the conversion of an inventory of plain tensors.
func Make(tensors []checkpoint.Tensor, o Options) (*Plan, error) {
	d, err := newDecider(o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Layout: o.Layout, Preset: o.Preset.Name, AllowNonfinite: d.flagged.AllowNonfinite}
	if o.Recognised != "" {
		p.Preset += ": " + o.Recognised
	}
	p.Steps = make([]Step, len(tensors))
	d.kept, d.total, d.comfy = keptDtype(tensors), checkpoint.BytesOf(tensors), comfyModel(o.Layout, tensors)
	if d.moments, err = o.match(tensors); err != nil {
		return nil, err
	}
	if err := d.steps(p.Steps, tensors, readOrder(tensors)); err != nil {
		return nil, err
	}
	if d.moments != nil {
		p.Weighed = p.weighed()
	}
	if p.Unused, err = d.unused(); err != nil {
		return nil, err
	}
	if o.Layout == layout.SDNQ && (p.quantizes() || len(o.Merges) == 0) {
		p.Config = configOf(p.Steps, d)
	}
	if err := checkFor(p, d.comfy, o); err != nil {
		return nil, err
	}
	p.For, p.Comfy = o.For, d.comfy
	p.warnComfy(d.comfy, o)
	p.Notes = slices.Concat(wrapperNote(tensors), notesOnStored(p.Steps, o), d.notes(), fallbackNotes(p.Steps), searchNotes(p.Steps), notesOnKept(p.Steps), addonNote(p, o), p.Weighed.note(), notesOf(p, o))
	o.Output.Metadata = withoutConfigs(o.Output.Metadata)
	if err := p.describe(&o); err != nil {
		return nil, err
	}
	return p, p.place(o.Output)
}

// quantizes reports whether a layer of the output is quantized. One that has none, but
// adapters in it, is a plain model, which needs no program to load it but its own: a config
// would ask for one. sdnq itself writes its config even where it keeps everything.
func (p *Plan) quantizes() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.quantized() })
}

// readOrder is the places of tensors in the order in which they are read.
func readOrder(tensors []checkpoint.Tensor) []int32 {
	places := make([]int32, len(tensors))
	for i := range places {
		places[i] = int32(i)
	}
	slices.SortFunc(places, func(i, j int32) int {
		a, b := &tensors[i], &tensors[j]
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Offset, b.Offset), strings.Compare(a.Name, b.Name))
	})
	return places
}

func checkFor(p *Plan, m *app.ComfyModel, o Options) error {
	if o.For == nil {
		return nil
	}
	if err := o.For.CheckOutput(o.Layout.Name, o.Output.Folder); err != nil {
		return usage.Wrap(err)
	}
	if note := wrapperNote(sources(p.Steps)); note != nil {
		return usage.Errorf("%s", note[0])
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		if !s.quantized() {
			continue
		}
		err := o.For.CheckLayer(s.Format, s.Dtype)
		if err == nil && p.Config != nil {
			err = o.For.CheckSDNQ(app.SDNQLayer{
				Scheme: s.scheme(), Global: p.Config.WeightsDtype, Listed: p.Config.ListedAs(s.Source.Name),
			})
		}
		if err != nil {
			return usage.Errorf("layer %s: %w", s.Layer, err)
		}
	}
	p.ConfigFile = p.Config != nil && o.For.ConfigFile
	if o.Layout != layout.Comfy {
		return nil
	}
	problems, _ := p.comfyOf(m)
	return refuseComfy(problems, m.Err())
}

// Wrapped says that names are not those that loaders know, and what to do; "" where
// they are.
func Wrapped(tensors []checkpoint.Tensor) string {
	return preset.Wrapped(func(yield func(string) bool) {
		for i := range tensors {
			if !yield(tensors[i].Name) {
				return
			}
		}
	})
}

func wrapperNote(tensors []checkpoint.Tensor) []string {
	if note := Wrapped(tensors); note != "" {
		return []string{note}
	}
	return nil
}

// addonNote says that a source is no model.
func addonNote(p *Plan, o Options) []string {
	if o.Addon == "" {
		return nil
	}
	note := fmt.Sprintf("the source is %s (%s): programs load those as plain tensors alone", o.Addon, o.AddonSign)
	if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Action == Quantize }) {
		return []string{note + ", and would not know what is quantized"}
	}
	return []string{note + ", so that nothing is quantized but what `Rules` or `Only` asks for"}
}

// notesOf says what may surprise: nothing to do, and layers that stock ComfyUI
// does not load.
func notesOf(p *Plan, o Options) []string {
	quantized, restored, merged, foreign := 0, 0, 0, map[string]string{}
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Merge != nil {
			merged++
		}
		if !s.quantized() {
			if s.From != nil {
				restored++
			}
			continue
		}
		if s.Action == Quantize {
			quantized++
		}
		if o.Layout == layout.Comfy && s.Format.ComfyUI == "" {
			foreign[app.Written(s.Format, s.Dtype)] = p.instead(s)
		}
	}
	var notes []string
	switch {
	case quantized == 0 && restored > 0:
		notes = append(notes, "nothing is quantized anew")
	case quantized == 0 && merged > 0:
		notes = append(notes, "nothing is quantized: every tensor is kept, with what adapters change")
	case quantized == 0:
		notes = append(notes, "nothing is quantized: every tensor is kept as it is")
	}
	notes = append(notes, p.unknownNote(o)...)
	for _, name := range slices.Sorted(maps.Keys(foreign)) {
		notes = append(notes, fmt.Sprintf("stock ComfyUI does not load %s layers; for the nearest that it loads, %s", name, foreign[name]))
	}
	return notes
}

// instead says what to type for a layer that stock ComfyUI loads.
func (p *Plan) instead(s *Step) string {
	switch {
	case !p.Transcodes || s.Format != codec.SDNQ():
	case p.mixed:
		return "give `Requantize`"
	default:
		return "leave `Rename` out"
	}
	return app.Instead(s.Format, s.Dtype)
}
