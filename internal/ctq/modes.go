package ctq

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Rewriting is an output in which names and metadata change and no weight does.
type Rewriting struct {
	Edits    []plan.Edit
	Metadata map[string]string
}

// job is another task than quantizing.
type job struct {
	option, suffix string // suffix of the output's automatic name
	do             func(*rewriting) error
}

// jobs are in the order in which convert_to_quant looks for them.
var jobs = []job{
	{"convert_fp8_scaled", "_fp8mixed", (*rewriting).convertFP8},
	{"convert_int8_scaled", "_int8_comfy", (*rewriting).convertInt8},
	{"make_hybrid_mxfp8", "_hybrid", (*rewriting).makeHybrid},
	{"legacy_input_add", "_with_input_scale", (*rewriting).addInputs},
	{"cleanup_fp8_scaled", "_cleaned", (*rewriting).cleanUp},
	{"edit_quant", "_edited", (*rewriting).editQuant},
}

// job returns the first that was asked for, nil for none.
func (c *Command) job() *job {
	for i, j := range jobs {
		if c.Has(j.option) && !(j.option == "make_hybrid_mxfp8" && c.Has("nvfp4")) {
			return &jobs[i]
		}
	}
	return nil
}

// Mode returns the option that asks for another job than quantizing, "" if none
// does.
func (c *Command) Mode() string {
	if j := c.job(); j != nil {
		return find(j.option).Names[0]
	}
	return ""
}

// Rewrite does what the command's mode does to a checkpoint; see
// [Command.Mode].
func (c *Command) Rewrite(source *checkpoint.Checkpoint) (*Rewriting, error) {
	r := &rewriting{Command: c, source: source, edits: map[string]plan.Edit{}, metadata: maps.Clone(source.Metadata)}
	for _, t := range source.Tensors {
		r.put(plan.Kept(t))
	}
	if err := c.job().do(r); err != nil {
		return nil, err
	}
	out := &Rewriting{Metadata: r.metadata}
	for _, name := range slices.Sorted(maps.Keys(r.edits)) {
		out.Edits = append(out.Edits, r.edits[name])
	}
	return out, nil
}

// rewriting is an output under way.
type rewriting struct {
	*Command
	source   *checkpoint.Checkpoint
	edits    map[string]plan.Edit // by name
	metadata map[string]string
}

// scalars are the ends of names of tensors that lose their dimensions where
// they have one element.
var scalars = []string{".input_scale", ".weight_scale", ".scale_input", ".scale_weight"}

func (r *rewriting) put(e plan.Edit) {
	named := slices.ContainsFunc(scalars, func(end string) bool { return strings.HasSuffix(e.As.Name, end) })
	if named && e.As.Numel() == 1 && !r.Has("make_hybrid_mxfp8") {
		e.As.Shape = []int{}
	}
	r.edits[e.As.Name] = e
}

// rename gives a tensor another name, if it is there.
func (r *rewriting) rename(from, to string) bool {
	e, ok := r.edits[from]
	if !ok {
		return false
	}
	delete(r.edits, from)
	e.As.Name = to
	r.put(e)
	return true
}

func (r *rewriting) drop(names ...string) {
	for _, name := range names {
		delete(r.edits, name)
	}
}

func (r *rewriting) has(name string) bool {
	_, ok := r.edits[name]
	return ok
}

// one adds a scale of 1.
func (r *rewriting) one(name string) {
	r.put(plan.Edit{As: safetensors.Tensor{Name: name, Dtype: safetensors.F32, Shape: []int{}}, Data: ones[safetensors.F32]})
}

// describe writes a layer's JSON.
func (r *rewriting) describe(layer string, o pyjson.Object) {
	r.put(plan.Known(layout.MetadataTensor(layer, o)))
}

// described reads a layer's JSON, nil where it has none.
func (r *rewriting) described(layer string) (pyjson.Object, error) {
	t, ok := r.source.Lookup(layer + description)
	if !ok {
		return nil, nil
	}
	text := make([]byte, t.Size)
	if err := r.source.ReadSection(t, text, 0); err != nil {
		return nil, err
	}
	o, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	return o, nil
}

const (
	description = ".comfy_quant"
	marker      = "scaled_fp8"
)

// header writes the entry that describes the layers.
func (r *rewriting) header(layers pyjson.Object) {
	if r.metadata == nil {
		r.metadata = map[string]string{}
	}
	r.metadata[layout.HeaderKey] = pyjson.Dump(pyjson.Object{{Key: "format_version", Value: "1.0"}, {Key: "layers", Value: layers}})
}

// bases are the names, sorted, of which there is a tensor with one of the ends.
func (r *rewriting) bases(ends ...string) []string {
	found := map[string]bool{}
	for name := range r.edits {
		for _, end := range ends {
			if base, ok := strings.CutSuffix(name, end); ok {
				found[base] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (r *rewriting) weight(base string) (checkpoint.Tensor, bool) {
	return r.source.Lookup(base + ".weight")
}

// needsMarker refuses files that are not of the older kind.
func (r *rewriting) needsMarker() error {
	if _, ok := r.source.Lookup(marker); !ok {
		return fmt.Errorf("%s has no tensor %s: it is no scaled fp8 file", r.source.Path, marker)
	}
	return nil
}

// ones are the number 1.
var ones = map[safetensors.Dtype][]byte{
	safetensors.F8_E4M3: {0x38}, safetensors.F8_E5M2: {0x3C}, safetensors.BF16: {0x80, 0x3F}, safetensors.F16: {0, 0x3C}, safetensors.F32: {0, 0, 0x80, 0x3F},
}

// addInputs is --legacy_input_add.
func (r *rewriting) addInputs() error {
	if err := r.needsMarker(); err != nil {
		return err
	}
	t, _ := r.source.Lookup(marker)
	data, ok := ones[t.Dtype]
	if !ok {
		return fmt.Errorf("%s: tensor %s is %s, no float", r.source.Path, marker, t.Dtype)
	}
	r.put(plan.Edit{As: safetensors.Tensor{Name: marker, Dtype: t.Dtype, Shape: []int{1}}, Data: data})
	r.addScaleInputs(".scale_weight")
	return nil
}

// addScaleInputs gives float8 layers that have a tensor of that end an input
// scale of 1.
func (r *rewriting) addScaleInputs(end string) {
	for _, base := range r.bases(end) {
		if w, ok := r.weight(base); ok && w.Dtype == safetensors.F8_E4M3 && !r.has(base+".scale_input") {
			r.one(base + ".scale_input")
		}
	}
}

// cleanUp is --cleanup-fp8-scaled.
func (r *rewriting) cleanUp() error {
	if r.has(marker) {
		n := r.Int("scaled_fp8_marker")
		r.put(plan.Edit{As: safetensors.Tensor{Name: marker, Dtype: safetensors.F8_E4M3, Shape: []int{n}}, Data: make([]byte, n)})
	}
	for _, base := range r.bases(".scale_weight", ".scale_input") {
		if w, ok := r.weight(base); !ok || w.Dtype != safetensors.F8_E4M3 {
			r.drop(base+".scale_weight", base+".scale_input")
		}
	}
	if r.Has("input_scale") {
		r.addScaleInputs(".weight")
	}
	return nil
}
