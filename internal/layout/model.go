package layout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Layer is a quantized layer as found in a checkpoint.
type Layer struct {
	Name    string
	Layout  *Layout
	Format  string        // "int8_tensorwise", "sdnq", …
	Dtype   string        // the SDNQ dtype, for other formats the format's name
	Options pyjson.Object // its metadata, or the config's settings for it
	// FromHeader says that the metadata comes from the file's header.
	FromHeader bool
	// Err says why the layer cannot be decoded; then Codec is nil.
	Err   error
	Codec codec.Codec
	// Parts are the stored tensors, in the order of Codec.Tensors.
	Parts []checkpoint.Tensor
	// Tensors are all tensors of the layer, metadata included, ascending by name.
	Tensors []checkpoint.Tensor
	// Unscaled says that Err is about a missing scale.
	Unscaled bool
	// Ambiguous says that Err is about several possible formats. The user can name one.
	Ambiguous bool
	// OrigDtype is the weight's dtype before it was quantized, 0 if it is not known.
	OrigDtype safetensors.Dtype
	// Apart is nil but for a weight that is rows of several layers.
	Apart *Apart

	alike  *opened
	byRows bool // the scales lie by rows, though the format has them in tiles
}

// Apart is of a weight that is rows of layers which are not stored as one, for whoever
// restores it.
type Apart struct {
	Why  error  // they cannot be
	Like *Layer // the one of most bits
}

// Renamed is a layer and the name that the header has for it.
type Renamed struct{ Layer, Entry string }

// Stripped reports whether the header's name lacks just the prefix that checkpoints put
// before a diffusion model. ComfyUI removes that prefix from the layer's name and then
// looks in the header again.
func (r Renamed) Stripped() bool { return r.Layer == "model.diffusion_model."+r.Entry }

// Alike returns a value that is equal for layers with the same description and codec.
func (l *Layer) Alike() any { return l.alike }

// Model is a checkpoint, split into quantized layers and plain tensors.
type Model struct {
	Checkpoint *checkpoint.Checkpoint
	Layout     *Layout // nil if nothing is quantized
	Layers     []*Layer
	Plain      []checkpoint.Tensor // all tensors that belong to no layer and are no markers
	Config     *sdnqconfig.Config  // set in the sdnq layout
	// Markers are tensors that say how the checkpoint is quantized and belong to no
	// layer.
	Markers []checkpoint.Tensor
	// Declared is what a config says about a quantization by another program than SDNQ,
	// nil if no config does.
	Declared *Declaration
	// Unmatched are the layers that the header describes but for which there is no
	// weight.
	Unmatched []string
	// Renamed are the layers that the header describes under another prefix.
	Renamed []Renamed
	// Err says why the whole checkpoint cannot be decoded. Inspection shows it and goes
	// on.
	Err error

	source    *checkpoint.Checkpoint
	restored  map[string][]int // shapes of what it was made from: of the source's own layers, once they were asked
	kinds     kinds
	described *sdnqconfig.Config // SDNQ's, of these weights, whether or not layers are found
	precise   bool               // a marker asks for multiplication in full precision
	rotated   bool               // a layer describes itself as rotated integers
	paired    bool               // a layer describes itself as integers, two to a byte
	byRows    *bool              // the scales of nvfp4 lie by rows, once it was asked
}

// Read finds the layers of a checkpoint. It reads metadata, never weights. It returns
// an error if the checkpoint as a whole cannot be read; errors of one layer are in that
// layer. source may be nil; it is the checkpoint from which c was made, and provides
// shapes that the stored tensors do not show.
func Read(c, source *checkpoint.Checkpoint) (*Model, error) {
	return find(&Model{Checkpoint: c, source: source, kinds: kinds{}})
}

// ReadAs is Read of what was made from a model that has other names than its checkpoint.
func ReadAs(c *checkpoint.Checkpoint, from *Model) (*Model, error) {
	m := &Model{Checkpoint: c, kinds: kinds{}, restored: map[string][]int{}}
	for _, t := range from.Plain {
		if layer, ok := strings.CutSuffix(t.Name, weightSuffix); ok && codec.Numbers(t.Dtype) {
			m.restored[layer] = t.Shape
		}
	}
	for _, l := range from.Layers {
		if l.Err == nil && l.Codec != nil {
			m.restored[l.Name] = l.Shape()
		}
	}
	return find(m)
}

func find(m *Model) (*Model, error) {
	c := m.Checkpoint
	if err := m.readComfy(); err != nil {
		return nil, err
	}
	if m.Layers == nil {
		if err := m.readSDNQ(); err != nil {
			return nil, err
		}
	}
	if m.Config == nil {
		var err error
		if m.Declared, err = declared(c); err != nil {
			return nil, err
		}
	}
	beside := m.Declared != nil && m.Declared.Place != inHeader
	if c.IsDir || c.Index != "" || !beside { // files beside a single file may belong to another one
		m.Err = m.Declared.problem()
	}
	if err := m.readPublished(); err != nil {
		return nil, err
	}
	if err := m.readForeign(); err != nil {
		return nil, err
	}
	m.readUnread()
	slices.SortFunc(m.Layers, func(a, b *Layer) int { return strings.Compare(a.Name, b.Name) })
	m.collectPlain()
	return m, nil
}

// stored collects a layer's tensors by the names of the layout. extras are suffixes of
// further tensors that belong to the layer.
func (m *Model) stored(l *Layer, layout *Layout, extras ...string) *codec.Stored {
	l.Layout = layout
	s := &codec.Stored{Metadata: l.Options, Tensors: map[tile.Role]tile.Tensor{}}
	l.Tensors = some(m.Checkpoint.Under(l.Name+"."), func(t checkpoint.Tensor) bool {
		suffix := t.Name[len(l.Name):]
		role, ok := layout.role(suffix)
		if ok {
			s.Tensors[role] = tile.Tensor{Role: role, Dtype: t.Dtype, Shape: t.Shape}
		}
		return ok || slices.Contains(extras, suffix)
	})
	return s
}

// some returns the tensors that belong. It does not copy them if they are adjacent, as
// the tensors of a layer nearly always are.
func some(all []checkpoint.Tensor, belongs func(checkpoint.Tensor) bool) []checkpoint.Tensor {
	from := slices.IndexFunc(all, belongs)
	if from < 0 {
		return nil
	}
	to := from + 1
	for to < len(all) && belongs(all[to]) {
		to++
	}
	found := all[from:to:to]
	for _, t := range all[min(to+1, len(all)):] {
		if belongs(t) {
			found = append(found, t)
		}
	}
	return found
}

// role returns the role of tensors with that suffix.
func (l *Layout) role(suffix string) (tile.Role, bool) {
	for role, s := range l.suffixes {
		if s == suffix {
			return role, true
		}
	}
	return "", false
}

// Stored returns the layer's tensors that hold its weight, by role.
func (l *Layer) Stored() map[tile.Role]checkpoint.Tensor {
	stored := map[tile.Role]checkpoint.Tensor{}
	for role, suffix := range l.Layout.suffixes {
		for _, t := range l.Tensors {
			if t.Name == l.Name+suffix {
				stored[role] = t
			}
		}
	}
	return stored
}

// open gives the layer its codec, or the error why it has none.
func (m *Model) open(l *Layer, o *opened) {
	if l.Err = cmp.Or(o.err, m.secondScale(l)); l.Err != nil {
		return
	}
	l.Codec, l.alike = o.codec, o
	tensors := o.codec.Tensors()
	l.Parts = make([]checkpoint.Tensor, len(tensors))
	for i, t := range tensors {
		l.Parts[i], _ = m.Checkpoint.Lookup(l.Layout.TensorName(l.Name, t.Role))
	}
}

// secondScale returns an error if a weight has a second scale, named as in one of the
// foreignLayouts. Programs differ in which of the two they apply.
func (m *Model) secondScale(l *Layer) error {
	own := l.Layout.TensorName(l.Name, tile.Scale)
	for _, by := range foreignLayouts {
		name := by.TensorName(l.Name, tile.Scale)
		if name == own {
			continue
		}
		if _, ok := m.Checkpoint.Lookup(name); ok {
			return fmt.Errorf("has a %s beside its %s: programs differ in which applies", name, own)
		}
	}
	return nil
}

func (m *Model) collectPlain() {
	taken := m.taken()
	if len(taken) == 0 {
		m.Plain = m.Checkpoint.Tensors
		return
	}
	m.Plain = make([]checkpoint.Tensor, 0, len(m.Checkpoint.Tensors)-len(taken))
	for _, t := range m.Checkpoint.Tensors {
		if !taken[t.Name] {
			m.Plain = append(m.Plain, t)
		}
	}
}

// taken returns the names of all markers and of all tensors of layers.
func (m *Model) taken() map[string]bool {
	taken := map[string]bool{}
	for _, l := range m.Layers {
		for _, t := range l.Tensors {
			taken[t.Name] = true
		}
	}
	for _, t := range m.Markers {
		taken[t.Name] = true
	}
	return taken
}

// Failed returns why the checkpoint, or else its first failing layer, cannot be
// decoded, nil if all can.
func (m *Model) Failed() error {
	if m.Err != nil {
		return fmt.Errorf("%s: %w", m.Checkpoint.Path, m.Err)
	}
	for _, l := range m.Layers {
		if l.Err != nil {
			return fmt.Errorf("%s: layer %s: %w", m.Checkpoint.Path, l.Name, l.Err)
		}
	}
	return nil
}

// Shape returns the weight's shape before it was quantized, empty if it is not known.
func (l *Layer) Shape() []int {
	if l.Codec == nil {
		return []int{}
	}
	return l.Codec.Shape()
}
