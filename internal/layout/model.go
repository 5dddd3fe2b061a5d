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
	Dtype   string        // SDNQ's dtype, else the format
	Options pyjson.Object // its metadata, or what the config says of it
	// FromHeader says that the metadata is the file's header's.
	FromHeader bool
	// Err says why the layer cannot be decoded; then Codec is nil.
	Err   error
	Codec codec.Codec
	// Parts are the stored tensors, in the order of the codec's.
	Parts []checkpoint.Tensor
	// Tensors are all that belong to the layer, metadata included, by name.
	Tensors []checkpoint.Tensor
	// Unscaled says that the error is a scale that is missing.
	Unscaled bool
	// Ambiguous says that the error is one of several readings, of which a
	// format that is named decides.
	Ambiguous bool
	// Dtype of the weight before it was quantized, 0 if nothing says it.
	OrigDtype safetensors.Dtype
	// Apart is nil but for a weight that is rows of several layers.
	Apart *Apart

	alike  *opened
	byRows bool // scales, in a format that has them in tiles
}

// Apart is of a weight that is rows of layers which are not stored as one, for whoever
// restores it.
type Apart struct {
	Why  error  // they cannot be
	Like *Layer // the one of most bits
}

// Renamed is a layer and what the header calls it.
type Renamed struct{ Layer, Entry string }

// Stripped reports whether the header's name is the layer's without the prefix
// that checkpoints put before a diffusion model, which ComfyUI takes off before
// it asks the header once more.
func (r Renamed) Stripped() bool { return r.Layer == "model.diffusion_model."+r.Entry }

// Alike is the same for layers that share description and codec.
func (l *Layer) Alike() any { return l.alike }

// Model is a checkpoint as layers and plain tensors.
type Model struct {
	Checkpoint *checkpoint.Checkpoint
	Layout     *Layout // nil where nothing is quantized
	Layers     []*Layer
	Plain      []checkpoint.Tensor // all that belongs to no layer
	Config     *sdnqconfig.Config  // of the sdnq layout
	// Markers say how the checkpoint is quantized and belong to no layer.
	Markers []checkpoint.Tensor
	// Declared is what a config says of another program's way to quantize, nil
	// where none does.
	Declared *Declaration
	// Unmatched are the names in the header's description of layers for which
	// there is no weight.
	Unmatched []string
	// Renamed are the layers that the header describes under another prefix.
	Renamed []Renamed
	// Err is what is wrong with the checkpoint as a whole; inspection goes on
	// in spite of it.
	Err error

	source  *checkpoint.Checkpoint
	kinds   kinds
	precise bool // as a marker asks
	rotated bool // a layer describes itself as rotated integers
	paired  bool // a layer describes itself as integers of which two share a byte
}

// Read finds the layers of a checkpoint. It reads metadata, never weights. The
// error is that of a checkpoint as a whole; what is wrong with one layer is in
// the layer. source, which may be nil, is what the checkpoint was made from:
// it gives the shapes that stored tensors do not tell.
func Read(c, source *checkpoint.Checkpoint) (*Model, error) {
	m := &Model{Checkpoint: c, source: source, kinds: kinds{}}
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
	if c.IsDir || c.Index != "" || !beside { // what stands beside a single file may be another's
		m.Err = m.Declared.problem()
	}
	if err := m.readForeign(); err != nil {
		return nil, err
	}
	m.readUnread()
	slices.SortFunc(m.Layers, func(a, b *Layer) int { return strings.Compare(a.Name, b.Name) })
	m.collectPlain()
	return m, nil
}

// stored gathers a layer's tensors by the layout's names.
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

// some returns those that belong, without a copy where they lie side by side,
// as those of a layer nearly always do.
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

// role of the tensor whose name ends so.
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

// open gives the layer its codec, or the reason why it has none.
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

// secondScale is an error if a weight has a further scale, by the name of a
// layout that nothing describes: what is made of the layer would be taken for
// such a one, and programs differ in which scale they apply.
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

// taken are the names of all tensors of layers, and of markers.
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

// Failed returns what keeps the checkpoint, or else the first layer, from being
// decoded.
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

// Shape is that of the weight before it was quantized, as far as it is known.
func (l *Layer) Shape() []int {
	if l.Codec == nil {
		return []int{}
	}
	return l.Codec.Shape()
}
