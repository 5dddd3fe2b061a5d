package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// MigrateOptions are what changes beyond what has to.
type MigrateOptions struct {
	Only   *pattern.Pattern // layers that what follows is for, nil for all
	Add    pyjson.Object    // keys for their JSON
	Remove []string
	// DropIgnored leaves out companions that the layers' formats ignore.
	DropIgnored bool
	// InputScale adds a scale of activations, which is 1, to float8 layers
	// without one.
	InputScale bool
	Header     bool // describe the layers in the header too
	Renamed    bool // the model has names that its file does not
}

// Edits reports whether descriptions change beyond what has to.
func (m MigrateOptions) Edits() bool {
	return m.Add != nil || m.Remove != nil || m.DropIgnored || m.InputScale || m.Header
}

// Migrate plans the way of a model of 8-bit codes with scales, or of one in the
// comfy layout, to the comfy layout as ComfyUI loads it today: names, shapes of
// scales and metadata change, weights do not.
func Migrate(m *layout.Model, how MigrateOptions, o Options) (*Plan, error) {
	if m.Layout == layout.SDNQ {
		return nil, usage.Errorf("%s is in the sdnq layout: `TranscodeOptions.Layout` comfy moves it", m.Checkpoint.Path)
	}
	g := &migration{Model: m, MigrateOptions: how, header: pyjson.Object{}}
	for _, t := range m.Plain {
		g.edits = append(g.edits, Kept(t))
	}
	for _, l := range m.Layers {
		if err := g.layer(l); err != nil {
			g.cannot.add(l.Name, fmt.Sprintf("%s: %v", l.Dtype, err))
		}
	}
	o.Output.Metadata = g.metadata(o.Output.Metadata)
	if err := g.check(o.Output.Metadata); err != nil {
		return nil, err
	}
	p, err := Rewrite(g.edits, o.Output)
	if err == nil {
		p.Notes = g.notes
		if g.dropped > 0 {
			p.Notes = append(p.Notes, fmt.Sprintf("left out, since their formats ignore them: %d tensors beside layers", g.dropped))
		}
		err = g.checkFor(p, o)
	}
	known, problems := g.comfyOf()
	switch {
	case err != nil:
	case o.For != nil:
		err = refuseComfy(problems, known.Err())
	default:
		p.warn(problems, known.Err())
	}
	if err == nil {
		p.For, p.Comfy = o.For, known
	}
	return p, err
}

// migration is a model under way.
type migration struct {
	*layout.Model
	MigrateOptions
	edits   []Edit
	changed int // layers
	edited  int // by Add or Remove
	dropped int // tensors, by DropIgnored
	header  pyjson.Object
	notes   []string
	cannot  reasons
	unread  bool // that cannot be described, since nobody knows what they hold
}

// layer makes the edits of one layer.
func (g *migration) layer(l *layout.Layer) error {
	chosen, err := g.chosen(l)
	if err != nil {
		return err
	}
	l = g.read(l)
	if err := g.readable(l, chosen); err != nil {
		return err
	}
	options, stored := g.options(l, chosen), l.Stored()
	if err := g.dropIdle(l, stored, chosen); err != nil {
		return err
	}
	f, c, err := reopen(l, stored, options)
	if err != nil {
		g.unread = g.unread || l.Err != nil
		return cmp.Or(l.Err, err)
	}
	options = describedRows(f, options, c)
	text := layout.MetadataTensor(l.Name, options)
	edits, changed, err := g.tensors(l, stored, c, chosen && g.InputScale)
	if err != nil {
		return err
	}
	if g.DropIgnored && chosen {
		edits = slices.DeleteFunc(edits, func(e Edit) bool {
			return e.Data == nil && slices.ContainsFunc(l.Ignored(), func(t checkpoint.Tensor) bool { return t.Name == e.Source.Name })
		})
		n := len(l.Ignored())
		g.dropped, changed = g.dropped+n, changed || n > 0
	}
	reason := "as it is"
	if changed || !g.holds(text) {
		g.changed++
		reason = "described as " + f.Name
	}
	edits[0].Layer, edits[0].Format, edits[0].Reason, edits[0].Shape = l.Name, f.Name, reason, c.Shape()
	g.edits = append(append(g.edits, edits...), Known(text))
	g.header = append(g.header, pyjson.Member{Key: l.Name, Value: codec.HeaderEntry(options)})
	return nil
}

// read takes a layer whose own description says nothing for what its tensors
// tell, with all else that the description says.
func (g *migration) read(l *layout.Layer) *layout.Layer {
	v, _ := l.Options.Get("format")
	if format, _ := v.(string); l.Layout != layout.Comfy || l.Err == nil || format != "" {
		return l
	}
	told := g.Undescribed(l.Name)
	if told == nil {
		return l
	}
	for _, m := range l.Options {
		if m.Key != "format" {
			told.Options = told.Options.Set(m.Key, m.Value)
		}
	}
	if told.Err != nil && !told.Ambiguous {
		told.Err = fmt.Errorf("%w; its tensors alone tell: %w", l.Err, told.Err)
	}
	told.Tensors = append(slices.Clone(told.Tensors), some(l.Tensors, layout.IsMetadata)...)
	return told
}

// some are the tensors of which a name is true.
func some(tensors []checkpoint.Tensor, is func(name string) bool) (list []checkpoint.Tensor) {
	for _, t := range tensors {
		if is(t.Name) {
			list = append(list, t)
		}
	}
	return list
}

// readable refuses what no description changes: of layers that nothing
// describes, those alone that a format which is named here decides.
func (g *migration) readable(l *layout.Layer, chosen bool) error {
	if l.Err == nil || l.Layout == layout.Comfy {
		return nil
	}
	decides := func(key string) bool { _, ok := g.Add.Get(key); return ok }
	if l.Ambiguous && chosen && (decides("format") || decides("convrot")) {
		g.edited++
		return nil
	}
	g.unread = true
	return l.Err
}

// dropIdle leaves out a scale_input of 1, as ComfyUI does: a scale that is
// stored is another choice of how to multiply than none.
func (g *migration) dropIdle(l *layout.Layer, stored map[tile.Role]checkpoint.Tensor, chosen bool) error {
	t, ok := stored[tile.InputScale]
	if !ok || l.Layout != layout.ScaledFP8 || t.Numel() != 1 || !codec.Floats(t.Dtype) || chosen && g.InputScale {
		return nil
	}
	raw, value := make([]byte, t.Size), make([]float32, 1)
	if err := g.Checkpoint.ReadSection(t, raw, 0); err != nil {
		return err
	}
	if codec.Widen(value, raw, t.Dtype); value[0] == 1 {
		delete(stored, tile.InputScale)
	}
	return nil
}

// describedRows says of int8_tensorwise that it has a scale a row.
func describedRows(f *codec.Format, o pyjson.Object, c codec.Codec) pyjson.Object {
	if f.Name == "int8_tensorwise" && len(c.Tensors()[1].Shape) == 2 {
		return o.Set("per_row", true)
	}
	return o
}

// options is the layer's JSON as it is to be.
func (g *migration) options(l *layout.Layer, chosen bool) pyjson.Object {
	o := l.Options
	if l.Format == "hybrid_mxfp8" {
		o = o.Set("format", "mxfp8")
	}
	if !chosen {
		return o
	}
	before := pyjson.Dump(o)
	for _, key := range g.Remove {
		o = o.Delete(key)
	}
	for _, m := range g.Add {
		o = o.Set(m.Key, m.Value)
	}
	if pyjson.Dump(o) != before {
		g.edited++
	}
	return o
}

// chosen tells the layers that the edits are for.
func (g *migration) chosen(l *layout.Layer) (bool, error) {
	if g.Only == nil {
		return true, nil
	}
	found, err := g.Only.Match(l.Name)
	return found, usage.Wrap(err)
}

// reopen reads the layer as its new JSON describes it: what it stores must be
// what that format stores.
func reopen(l *layout.Layer, stored map[tile.Role]checkpoint.Tensor, options pyjson.Object) (*codec.Format, codec.Codec, error) {
	if codec.IsPublished(l.Codec) {
		return nil, nil, fmt.Errorf("it is stored as another program does, in %s: tensorpress transcode moves what ComfyUI has too", l.Format)
	}
	name, _ := options.Get("format")
	text, _ := name.(string)
	f, err := codec.ByName(text)
	if err != nil {
		return nil, nil, err
	}
	weight, ok := stored[tile.Weight]
	if !ok || len(weight.Shape) == 0 {
		return nil, nil, errors.New("its weight is missing")
	}
	if f.Name == "mxfp8" {
		delete(stored, tile.Scalar) // of hybrid_mxfp8
	}
	s := &codec.Stored{Metadata: options, Tensors: map[tile.Role]tile.Tensor{}}
	if l.Codec != nil {
		s.Hint = l.Codec.Shape()
	}
	for role, t := range stored {
		s.Tensors[role] = tile.Tensor{Role: role, Dtype: scaleDtype(f, role, t.Dtype), Shape: scaleShape(f, role, t, weight.Shape[0], len(weight.Shape) == 3)}
	}
	c, err := f.OpenAs(s)
	if err == nil {
		err = sameBlocks(l.Codec, c)
	}
	return f, c, err
}

// sameBlocks is an error where a format would take scales for those of other
// blocks than they are: the same number of them may cover a weight in whole
// blocks, and in larger ones of which the last end beyond its edges.
func sameBlocks(was, is codec.Codec) error {
	if was == nil || !codec.IsForeign(was) {
		return nil
	}
	a, b := was.Cut(), is.Cut()
	square := a.GroupRows > 1 && (a.GroupRows < a.Rows || a.GroupCols < a.Cols)
	if !square || a.GroupRows == b.GroupRows && a.GroupCols == b.GroupCols {
		return nil
	}
	return fmt.Errorf("its blocks are of %d×%d values, and the format would take them for %d×%d", a.GroupRows, a.GroupCols, b.GroupRows, b.GroupCols)
}

// scaleDtype is F32 for the scales of 8-bit codes, which take any float's values.
func scaleDtype(f *codec.Format, role tile.Role, d safetensors.Dtype) safetensors.Dtype {
	if role == tile.Scale && codec.Floats(d) && f.Bits == 8 {
		return safetensors.F32
	}
	return d
}

// scaleShape is what a format's scales have: one a row is [rows, 1] in integers
// and [rows] in floats, whatever it was before. Those of experts stay as they are.
func scaleShape(f *codec.Format, role tile.Role, stored checkpoint.Tensor, rows int, experts bool) []int {
	n := stored.Numel()
	switch {
	case role != tile.Scale || f.Storage == safetensors.U8 || experts:
		return stored.Shape
	case n == 1:
		return []int{}
	case n == rows && f.Name == "int8_tensorwise":
		return []int{rows, 1}
	case n == rows && f.Name == "float8_e4m3fn_rowwise":
		return []int{rows}
	}
	return stored.Shape
}

// tensors are the layer's, the weight first, by their names in the comfy layout,
// in the shapes of the codec that has read them so.
func (g *migration) tensors(l *layout.Layer, stored map[tile.Role]checkpoint.Tensor, c codec.Codec, oneMore bool) (edits []Edit, changed bool, err error) {
	add := func(role tile.Role, dtype safetensors.Dtype, shape []int) {
		from := stored[role]
		e := Edit{Source: from, As: safetensors.Tensor{Name: layout.Comfy.TensorName(l.Name, role), Dtype: dtype, Shape: shape}}
		if dtype != from.Dtype {
			var failed error
			e.Data, failed = g.widened(from)
			err = cmp.Or(err, failed)
		}
		changed = changed || e.As.Name != from.Name || dtype != from.Dtype || !slices.Equal(shape, from.Shape)
		edits = append(edits, e)
	}
	taken := map[string]bool{}
	for _, t := range c.Tensors() {
		shape := t.Shape
		if stored[t.Role].Numel() != tile.Numel(shape) || t.Role == tile.Weight {
			shape = stored[t.Role].Shape
		}
		dtype := stored[t.Role].Dtype
		if t.Role == tile.Scale && codec.Floats(dtype) {
			dtype = t.Dtype
		}
		add(t.Role, dtype, shape)
		taken[stored[t.Role].Name] = true
	}
	input, hasInput := stored[tile.InputScale]
	switch {
	case hasInput && input.Numel() == 1:
		add(tile.InputScale, input.Dtype, []int{})
	case hasInput:
		add(tile.InputScale, input.Dtype, input.Shape)
	case oneMore && layout.Float8(stored[tile.Weight].Dtype):
		edits, changed = append(edits, inputScale(l.Name)), true
	}
	taken[input.Name] = true
	for _, t := range l.Tensors {
		switch {
		case taken[t.Name] || layout.IsMetadata(t.Name):
		case (l.Layout == layout.Comfy || l.Layout == layout.Bare) && t.Name != layout.Comfy.TensorName(l.Name, tile.Scalar):
			edits = append(edits, Kept(t)) // what only some loaders know
		default:
			changed = true
		}
		taken[t.Name] = true
	}
	return edits, changed, err
}

// mostScales bounds the scales that are widened, which are few.
const mostScales = 64 << 20

// widened reads scales as F32.
func (g *migration) widened(t checkpoint.Tensor) ([]byte, error) {
	if t.Size > mostScales {
		return nil, fmt.Errorf("%s has %d bytes of scales, more than %d", t.Name, t.Size, mostScales)
	}
	raw, values := make([]byte, t.Size), make([]float32, t.Numel())
	if err := g.Checkpoint.ReadSection(t, raw, 0); err != nil {
		return nil, err
	}
	codec.Widen(values, raw, t.Dtype)
	out := make([]byte, 4*len(values))
	floats.Narrow(out, values, safetensors.F32)
	return out, nil
}

// inputScale is 1.
func inputScale(layer string) Edit {
	t := safetensors.Tensor{Name: layout.Comfy.TensorName(layer, tile.InputScale), Dtype: safetensors.F32, Shape: []int{}}
	return Edit{As: t, Data: []byte{0, 0, 0x80, 0x3F}}
}

// holds reports whether the source describes a layer in these very bytes.
func (g *migration) holds(l layout.Literal) bool {
	t, ok := g.Checkpoint.Lookup(l.Name)
	if !ok || t.Dtype != l.Dtype || t.Size != int64(len(l.Data)) {
		return false
	}
	text := make([]byte, t.Size)
	return g.Checkpoint.ReadSection(t, text, 0) == nil && string(text) == string(l.Data)
}

// check refuses what cannot be done, and to do nothing.
func (g *migration) check(metadata map[string]string) error {
	path := g.Checkpoint.Path
	for _, l := range g.Layers {
		if l.Layout == layout.Other { // no quantizing makes anything of them
			return usage.SourceErrorf("%s: layer %s: %w", path, l.Name, l.Err)
		}
	}
	sameHeader := g.Checkpoint.Metadata[layout.HeaderKey] == metadata[layout.HeaderKey]
	switch {
	case g.unread:
		return usage.SourceErrorf("%d of %d layers of %s cannot be described: %s", g.cannot.layers(), len(g.Layers), path, g.cannot)
	case len(g.cannot) > 0:
		return usage.SourceErrorf("%d of %d layers of %s cannot be described without changing their weights: %s. tensorpress quantize makes them anew, from their values",
			g.cannot.layers(), len(g.Layers), path, g.cannot)
	case len(g.Layers) == 0:
		return usage.SourceErrorf("%s holds no quantized layer", path)
	case (len(g.Add) > 0 || len(g.Remove) > 0) && g.edited == 0:
		return usage.Errorf("no layer of %s is changed by `AddKeys` or `RemoveKeys`", path)
	case g.changed == 0 && len(g.Markers) == 0 && sameHeader && !g.MigrateOptions.Renamed:
		return usage.Errorf("%s is current: there is nothing to migrate", path)
	}
	return nil
}

// metadata is the header's: an entry that describes layers is made anew or left
// out, since ComfyUI takes its word before that of the layers' own tensors.
func (g *migration) metadata(m map[string]string) map[string]string {
	m = withoutConfigs(m)
	if !g.Header {
		return m
	}
	if m == nil {
		m = map[string]string{}
	}
	m[layout.HeaderKey] = pyjson.Dump(pyjson.Object{{Key: "format_version", Value: "1.0"}, {Key: "layers", Value: g.header}})
	return m
}

// written are the tensors of the output, under their new names.
func (g *migration) written() []checkpoint.Tensor {
	tensors := make([]checkpoint.Tensor, len(g.edits))
	for i := range g.edits {
		tensors[i].Name = g.edits[i].As.Name
	}
	return tensors
}

func (g *migration) checkFor(p *Plan, o Options) error {
	if o.For == nil {
		return nil
	}
	if err := o.For.CheckOutput(layout.Comfy.Name, o.Output.Folder); err != nil {
		return usage.Wrap(err)
	}
	if note := wrapperNote(g.written()); note != nil {
		return usage.Errorf("%s", note[0])
	}
	for _, s := range p.Steps {
		f, err := codec.ByName(s.Dtype)
		if err == nil {
			err = o.For.CheckLayer(f, s.Dtype)
		}
		if err != nil && s.Dtype != "" {
			return usage.Errorf("layer %s: %w", s.Layer, err)
		}
	}
	return nil
}
