package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// publication is a format in which other programs publish quantized weights, and that
// is read. How the tensors lie is known to package published.
type publication struct {
	*Layout // its name, and what the tensors of a layer are called
	is      string
	// dtypes are those that its codes may have; tells are tensors of which at least one
	// lies beside them.
	dtypes []safetensors.Dtype
	tells  []tile.Role
	// with are further suffixes of a layer's tensors, which no weight needs.
	with []string
	// methods are those that a config may name, nil for any that is known. A layer whose
	// config names another is left to [unreads].
	methods []string
	// when is a further condition, nil for none.
	when func(m *Model, codes checkpoint.Tensor, name string) bool
	// describe is what is said of this layer and not of all, nil for nothing.
	describe func(m *Model, name string) (pyjson.Object, error)
	// open makes the codec of a layer from its tensors and what describe says of it. dtype
	// is the nearest of SDNQ's, options what a report says of the layer.
	open func(m *Model, t published.Tensors, o pyjson.Object) (w published.Weight, dtype string, options pyjson.Object, err error)
}

// publications are tried in order; the first that fits counts.
var publications = []*publication{gptq, awq, packQuantized, nvfp4Packed, mxfp4Packed, intQuantized, mxfp4Experts, mxfp4Rows, mxfp4RowsInv, nvfp4ByRows, bnbLevels, bnbRows}

// readPublished finds the layers in formats of other programs that are read.
func (m *Model) readPublished() error {
	taken := m.taken()
	for _, t := range m.Checkpoint.Tensors {
		if taken[t.Name] {
			continue
		}
		p, name := m.published(t)
		if p == nil {
			continue
		}
		l := &Layer{Name: name, Layout: p.Layout, Format: p.Name, Dtype: p.Name, OrigDtype: configDtype(m.Checkpoint)}
		if err := m.openPublished(l, p); err != nil {
			return err
		}
		for _, one := range l.Tensors {
			taken[one.Name] = true
		}
		m.Layers = append(m.Layers, l)
		if m.Layout == nil {
			m.Layout = p.Layout
		}
	}
	return nil
}

// published returns the format whose codes a tensor is, and the layer's name; nil for
// none.
func (m *Model) published(t checkpoint.Tensor) (*publication, string) {
	for _, p := range publications {
		name, ok := strings.CutSuffix(t.Name, p.suffixes[tile.Weight])
		if !ok || p.dtypes != nil && !slices.Contains(p.dtypes, t.Dtype) || !p.declaredBy(m.Declared) {
			continue
		}
		beside := slices.ContainsFunc(p.tells, func(role tile.Role) bool {
			_, ok := m.Checkpoint.Lookup(p.TensorName(name, role))
			return ok
		})
		if beside && (p.when == nil || p.when(m, t, name)) {
			return p, name
		}
	}
	return nil, ""
}

// declaredBy reports whether a config names the format's method, or says nothing.
func (p *publication) declaredBy(d *Declaration) bool {
	return d == nil || !d.known || p.methods == nil || slices.Contains(p.methods, d.Method)
}

// openPublished gives a layer its tensors and its codec. The error is that of a small
// tensor that cannot be read.
func (m *Model) openPublished(l *Layer, p *publication) error {
	s := &codec.Stored{Tensors: map[tile.Role]tile.Tensor{}}
	for role, suffix := range p.suffixes {
		if t, ok := m.Checkpoint.Lookup(l.Name + suffix); ok {
			s.Tensors[role] = tile.Tensor{Role: role, Dtype: t.Dtype, Shape: t.Shape}
			l.Tensors = append(l.Tensors, t)
		}
	}
	for _, suffix := range append([]string{PreQuantScale}, p.with...) {
		if t, ok := m.Checkpoint.Lookup(l.Name + suffix); ok {
			l.Tensors = append(l.Tensors, t)
		}
	}
	slices.SortFunc(l.Tensors, func(a, b checkpoint.Tensor) int { return strings.Compare(a.Name, b.Name) })
	var said pyjson.Object
	if p.describe != nil {
		var err error
		if said, err = p.describe(m, l.Name); err != nil {
			if system := (*fs.PathError)(nil); errors.As(err, &system) { // the file could not be read: no fault of the layer
				return err
			}
			l.Err = p.explain(l, err)
			return nil
		}
	}
	o := m.kinds.described(append(pyjson.Object{{Key: "published", Value: p.Name}}, said...)).open(s, func() (o opened) {
		w, dtype, options, err := p.open(m, s.Tensors, said)
		if o.dtype, o.options, o.err = dtype, options, err; err == nil {
			o.codec = codec.Published(w)
		}
		return o
	})
	l.Options = o.options
	if o.err == nil {
		o.err = m.alone(l)
	}
	if o.err != nil {
		l.Err = p.explain(l, o.err)
		return nil
	}
	l.Dtype = o.dtype
	if name, _ := o.options.Get("dtype"); name != nil { // of the weight, as it was
		if d, ok := codec.OrigDtype(name); ok {
			l.OrigDtype = d
		}
	}
	m.open(l, o)
	return nil
}

// alone returns an error if the weight that a layer restores to is there as well.
func (m *Model) alone(l *Layer) error {
	t, ok := m.Checkpoint.Lookup(l.WeightName())
	if !ok || slices.ContainsFunc(l.Tensors, func(one checkpoint.Tensor) bool { return one.Name == t.Name }) {
		return nil
	}
	return fmt.Errorf("%s, %s %v, is there too, and nothing says which of them counts", t.Name, t.Dtype, t.Shape)
}

// explain says which format and tensors an error is about, and what to do.
func (p *publication) explain(l *Layer, err error) error {
	return fmt.Errorf("%s: %s: %w: %s", p.is, names(l.Tensors), err, startOver)
}

// number returns a whole number of a config, 0 where it has none.
func number(o pyjson.Object, keys ...string) int {
	for _, key := range keys {
		if n, ok := whole(o, key); ok && n != 0 {
			return n
		}
	}
	return 0
}

// whole returns a whole number of a config, as a number or a text, 0 where it has none.
// It reports false for anything else.
func whole(o pyjson.Object, key string) (n int, ok bool) {
	v, _ := o.Get(key)
	if v == nil {
		return 0, true
	}
	text, isText := v.(string)
	if number, isNumber := v.(json.Number); isNumber {
		text = string(number)
	} else if !isText {
		return 0, false
	}
	i, err := strconv.ParseInt(text, 10, 64)
	return int(i), err == nil && i >= -1 && i < 1<<31
}

// wholeOnes returns an error for the first of some keys whose value is no number of anything.
func wholeOnes(whose string, o pyjson.Object, keys ...string) error {
	for _, key := range keys {
		if _, ok := whole(o, key); !ok {
			v, _ := o.Get(key)
			return fmt.Errorf("%s says %s %.40s, want a whole number", whose, key, fmt.Sprint(v))
		}
	}
	return nil
}

// flag returns what a config says of a key, nil where it says nothing.
func flag(o pyjson.Object, key string) *bool {
	v, _ := o.Get(key)
	if b, ok := v.(bool); ok {
		return &b
	}
	return nil
}

// config is what the declaration says, nil where there is none.
func (m *Model) config() pyjson.Object {
	if m.Declared == nil {
		return nil
	}
	return m.Declared.config
}

// wholeNumbers returns the SDNQ dtype of unsigned codes of that many bits, and what a
// report says of them.
func wholeNumbers(w *published.Integers) (dtype string, options pyjson.Object) {
	return fmt.Sprintf("uint%d", w.Bits()), pyjson.Object{{Key: "bits", Value: w.Bits()}, {Key: "group_size", Value: w.GroupSize()}}
}
