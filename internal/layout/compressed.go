package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

const compressedName = "compressed-tensors"

// compressedWith are tensors of compressed-tensors' layers that no weight needs.
var compressedWith = []string{".input_global_scale", ".input_scale", ".input_zero_point"}

// The formats of compressed-tensors that codes of 8-bit floats, or of integers with a
// scale a row, are not in: those are of the layout WeightScale.
var (
	packQuantized = &publication{
		Layout: &Layout{Name: "pack-quantized", suffixes: map[tile.Role]string{
			tile.Weight: ".weight_packed", tile.Scale: ".weight_scale", tile.Zeros: ".weight_zero_point", tile.GroupOfColumn: ".weight_g_idx",
		}},
		is: compressedName, dtypes: words, tells: []tile.Role{tile.Scale}, with: slices.Concat([]string{weightShape}, compressedWith),
		methods: []string{compressedName}, describe: describePacked, open: openPacked,
	}
	intQuantized = &publication{
		Layout: &Layout{Name: "int-quantized", suffixes: map[tile.Role]string{
			tile.Weight: ".weight", tile.Scale: ".weight_scale", tile.Zeros: ".weight_zero_point", tile.GroupOfColumn: ".weight_g_idx",
		}},
		is: compressedName, dtypes: i8, tells: []tile.Role{tile.Scale}, with: compressedWith, methods: []string{compressedName},
		when: isIntQuantized, describe: describeCompressed, open: openBytes,
	}
	nvfp4Packed = &publication{
		Layout: &Layout{Name: "nvfp4-pack-quantized", suffixes: map[tile.Role]string{
			tile.Weight: ".weight_packed", tile.Scale: ".weight_scale", tile.Scale2: ".weight_global_scale",
		}},
		is: compressedName, dtypes: u8, tells: []tile.Role{tile.Scale2}, with: compressedWith, methods: []string{compressedName},
		describe: describeCompressed,
		open: func(_ *Model, t published.Tensors, o pyjson.Object) (published.Weight, string, pyjson.Object, error) {
			return openFours(o, func() (*published.Fours, error) { return published.NewNVFP4(t, true) })
		},
	}
	mxfp4Packed = &publication{
		Layout: &Layout{Name: "mxfp4-pack-quantized", suffixes: map[tile.Role]string{tile.Weight: ".weight_packed", tile.Scale: ".weight_scale"}},
		is:     compressedName, dtypes: u8, tells: []tile.Role{tile.Scale}, with: compressedWith, methods: []string{compressedName},
		describe: describeCompressed,
		open: func(_ *Model, t published.Tensors, o pyjson.Object) (published.Weight, string, pyjson.Object, error) {
			return openFours(o, func() (*published.Fours, error) { return published.NewMXFP4(t) })
		},
	}
)

// weightShape ends the name of the tensor that has the shape of a packed weight.
const weightShape = ".weight_shape"

// isIntQuantized leaves codes with one scale, or one a row, and no zero points to
// readForeign, and those of a config that is not known to unreads.
func isIntQuantized(m *Model, codes checkpoint.Tensor, name string) bool {
	if m.Declared == nil || m.Declared.Method != compressedName {
		return false
	}
	scale, _ := m.Checkpoint.Lookup(name + ".weight_scale")
	_, zeros := m.Checkpoint.Lookup(name + ".weight_zero_point")
	return zeros || len(codes.Shape) == 2 && len(scale.Shape) == 2 && scale.Shape[0] == codes.Shape[0] && scale.Shape[1] > 1 && m.scheme(name).says("strategy", "group")
}

// scheme is what a config of compressed-tensors says of the weight of a layer.
type scheme struct {
	weights pyjson.Object
	ignored string // the entry of ignore that has the layer, "" for none
	err     error
}

func (s scheme) says(key, value string) bool {
	v, _ := s.weights.Get(key)
	return v == value
}

// scheme finds the group of a config whose targets have the layer: by its name before
// any by the class of its module, which tensors do not tell.
func (m *Model) scheme(name string) (s scheme) {
	config := m.config()
	ignore, _ := config.Get("ignore")
	if s.ignored, s.err = targeted(name, ignore); s.err != nil {
		return s
	}
	groups, _ := config.Get("config_groups")
	entries, isObject := groups.(pyjson.Object)
	if groups != nil && !isObject {
		s.err = errors.New("its config has config_groups that are no object")
		return s
	}
	var byClass pyjson.Object
	for _, entry := range entries {
		group, _ := entry.Value.(pyjson.Object)
		weights, _ := group.Get("weights")
		of, _ := weights.(pyjson.Object)
		targets, _ := group.Get("targets")
		found, err := targeted(name, targets)
		switch list, _ := targets.([]any); {
		case err != nil:
			s.err = err
			return s
		case found != "":
			s.weights = of
			return s
		case byClass == nil || slices.Contains(list, any("Linear")):
			byClass = of
		}
	}
	s.weights = byClass
	return s
}

// targeted returns the entry of a list that is a layer's name, or a pattern of it.
func targeted(name string, list any) (string, error) {
	entries, isList := list.([]any)
	if list != nil && !isList {
		return "", errors.New("its config has ignore or targets that are no list")
	}
	for _, e := range entries {
		text, _ := e.(string)
		expr, isPattern := strings.CutPrefix(text, "re:")
		if !isPattern {
			if text == name {
				return text, nil
			}
			continue
		}
		p, err := pattern.Compile("^(?:" + expr + ")")
		if err != nil {
			return "", fmt.Errorf("its config has the pattern %q: %w", text, err)
		}
		if ok, err := p.Match(name); err != nil || ok {
			return text, err
		}
	}
	return "", nil
}

// described are the keys of a scheme that the values of a weight follow from.
var schemeKeys = []string{"num_bits", "type", "strategy", "group_size", "symmetric"}

// describeCompressed is what a config says of a layer.
func describeCompressed(m *Model, name string) (o pyjson.Object, err error) {
	if m.Declared == nil || m.Declared.Method != compressedName {
		return nil, nil
	}
	s := m.scheme(name)
	switch {
	case s.err != nil:
		return nil, s.err
	case s.ignored != "":
		return nil, fmt.Errorf("its config ignores it by %q, and it is quantized", s.ignored)
	}
	for _, key := range schemeKeys {
		if v, _ := s.weights.Get(key); v != nil {
			o = append(o, pyjson.Member{Key: key, Value: v})
		}
	}
	return o, nil
}

// describePacked adds the shape that the layer has beside its codes.
func describePacked(m *Model, name string) (pyjson.Object, error) {
	o, err := describeCompressed(m, name)
	if err != nil {
		return nil, err
	}
	t, ok := m.Checkpoint.Lookup(name + weightShape)
	width := t.Dtype.Bits() / 8
	if !ok {
		return nil, errors.New("its weight_shape is missing")
	}
	if t.Dtype != safetensors.I64 && t.Dtype != safetensors.I32 || len(t.Shape) != 1 || t.Shape[0] != 2 {
		return nil, fmt.Errorf("its weight_shape is %s %v, want two I64", t.Dtype, t.Shape)
	}
	raw := make([]byte, t.Size)
	if err := m.Checkpoint.ReadSection(t, raw, 0); err != nil {
		return nil, err
	}
	shape := make([]int, 2)
	for i := range shape {
		n := int64(int32(binary.LittleEndian.Uint32(raw[i*width:])))
		if width == 8 {
			n = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		}
		if n < 1 || n > 1<<31 {
			return nil, fmt.Errorf("its weight_shape has %d", n)
		}
		shape[i] = int(n)
	}
	version, _ := m.config().Get("version")
	return append(o, pyjson.Member{Key: "shape", Value: shape}, pyjson.Member{Key: "version", Value: version}), nil
}

// streamsFrom is the version of compressed-tensors, major and minor, from which on codes go
// over the ends of words.
var streamsFrom = [2]int{0, 18}

// spaced reports whether a version packs as those before streamsFrom, nil where it does not
// tell.
func spaced(version any) *bool {
	text, _ := version.(string)
	var v [2]int
	if n, _ := fmt.Sscanf(text, "%d.%d", &v[0], &v[1]); n < len(v) {
		return nil
	}
	older := slices.Compare(v[:], streamsFrom[:]) < 0
	return &older
}

// compressedOf are the words of a description.
func compressedOf(o pyjson.Object) (c published.Compressed, err error) {
	if v, _ := o.Get("type"); v != nil && v != "int" {
		return c, fmt.Errorf("its config says type %v, and its codes are of integers", v)
	}
	if err := wholeOnes("its config", o, "num_bits", "group_size"); err != nil {
		return c, err
	}
	c.Bits, c.Group, c.Symmetric = number(o, "num_bits"), number(o, "group_size"), flag(o, "symmetric")
	strategy, _ := o.Get("strategy")
	c.Strategy, _ = strategy.(string)
	shape, _ := o.Get("shape")
	c.Shape, _ = shape.([]int)
	version, _ := o.Get("version")
	c.Spaced = spaced(version)
	return c, nil
}

func openPacked(_ *Model, t published.Tensors, o pyjson.Object) (published.Weight, string, pyjson.Object, error) {
	c, err := compressedOf(o)
	if err != nil {
		return nil, "", nil, err
	}
	w, err := published.NewPacked(t, c)
	if err != nil {
		return nil, "", nil, err
	}
	dtype, options := wholeNumbers(w)
	return w, dtype, options, nil
}

func openBytes(_ *Model, t published.Tensors, o pyjson.Object) (published.Weight, string, pyjson.Object, error) {
	c, err := compressedOf(o)
	if err != nil {
		return nil, "", nil, err
	}
	w, err := published.NewBytes(t, c)
	if err != nil {
		return nil, "", nil, err
	}
	_, options := wholeNumbers(w)
	return w, "uint8", options, nil
}

// openFours opens E2M1 codes, of which a scheme says nothing that tensors do not.
func openFours(o pyjson.Object, open func() (*published.Fours, error)) (published.Weight, string, pyjson.Object, error) {
	w, err := open()
	if err != nil {
		return nil, "", nil, err
	}
	if v, _ := o.Get("type"); v != nil && v != "float" {
		return nil, "", nil, fmt.Errorf("its config says type %v, and its codes are of floats", v)
	}
	if bits := number(o, "num_bits"); bits != 0 && bits != 4 {
		return nil, "", nil, fmt.Errorf("its config says num_bits %d, and its codes have 4", bits)
	}
	block := w.Block()
	if group := number(o, "group_size"); group != 0 && group != block {
		return nil, "", nil, fmt.Errorf("its config says group_size %d, and its scales are of %d", group, block)
	}
	return w, "float4_e2m1fn", pyjson.Object{{Key: "group_size", Value: block}}, nil
}
