package layout

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// markers are the names, with any prefix, of the tensors that mark a file of
// the layout ScaledFP8.
var markers = []string{"scaled_fp8", "scaled_int8"}

// fullPrecision is how many elements a marker has if layers must be multiplied in full
// precision.
const fullPrecision = 2

// readForeign finds layers that have no description: codes with scales beside them,
// whose format follows from names, dtypes and shapes. 8-bit floats are codes if they
// have a scale of any known name, integers only if the name of the scale is used for
// nothing but codes.
func (m *Model) readForeign() error {
	m.precise = m.readMarkers()
	for _, l := range m.Layers {
		v, _ := l.Options.Get("convrot")
		m.rotated = m.rotated || l.Layout == Comfy && v == true
		m.paired = m.paired || l.Format == "convrot_w4a4"
	}
	if !m.mayBeForeign() {
		return nil
	}
	taken := m.taken()
	var unscaled []checkpoint.Tensor
	for _, t := range m.Checkpoint.Tensors {
		name, ok := strings.CutSuffix(t.Name, weightSuffix)
		if !ok || taken[t.Name] {
			continue
		}
		by, scale := m.foreignLayout(name, t)
		if by == nil {
			if Float8(t.Dtype) && len(t.Shape) > 1 {
				unscaled = append(unscaled, t)
			}
			continue
		}
		idle, err := m.idle(t, scale)
		if err != nil {
			return err
		}
		if idle {
			m.drop(name, by)
			continue
		}
		m.Layers = append(m.Layers, m.foreignLayer(name, by))
		m.Layout = cmp.Or(m.Layout, by)
	}
	m.agreeOnOrder()
	switch by := m.scaledLike(); {
	case by != nil:
		m.missScales(by, unscaled)
	case m.described != nil:
		m.missScales(SDNQ, slices.DeleteFunc(unscaled, m.mayLackScale))
	}
	return nil
}

// foreignLayer opens a layer by the names, dtypes and shapes of its tensors.
func (m *Model) foreignLayer(name string, by *Layout) *Layer {
	l := &Layer{Name: name, OrigDtype: configDtype(m.Checkpoint)}
	if by == Bare {
		m.openBare(l)
	} else {
		m.openForeign(l, by)
	}
	if m.precise {
		l.Options = append(slices.Clip(l.Options), pyjson.Member{Key: "full_precision_matrix_mult", Value: true})
	}
	m.doubt(l)
	return l
}

// Undescribed opens a layer by its tensors alone, for a layer whose own description is
// empty. It returns nil if they do not show a format either.
func (m *Model) Undescribed(name string) *Layer {
	weight, ok := m.Checkpoint.Lookup(name + weightSuffix)
	if !ok {
		return nil
	}
	by, _ := m.foreignLayout(name, weight)
	if by == nil || codec.Floats(weight.Dtype) {
		return nil
	}
	return m.foreignLayer(name, by)
}

// doubt refuses a layer whose tensors show a format that something else contradicts: a
// config that names a method whose codes mean something else, tensors of the layer that
// are not known, or other layers that are rotated or packed, which shapes do not show.
func (m *Model) doubt(l *Layer) {
	if l.Err != nil {
		return
	}
	d := m.Declared
	switch {
	case d != nil && d.known && !d.eightBits:
		l.fail(fmt.Errorf("%s: %s: %s", d.Method, names(l.Tensors), startOver))
	case l.Format == "int8_tensorwise" && m.rotated:
		l.doubtful(fmt.Errorf("it may be rotated as other layers of the file are: `MigrateOptions.AddKeys` with convrot, and convrot_groupsize, or with \"convrot\": false, says so"))
	case m.paired && l.Format == "int8_tensorwise" || d == nil && m.mayBePaired(l):
		l.doubtful(errors.New("it may be convrot_w4a4, two codes to a byte, as that has a scale of this shape or other layers of the file are: `MigrateOptions.AddKeys` '{\"format\": \"convrot_w4a4\"}', or with int8_tensorwise, says so"))
	}
	for _, t := range m.Checkpoint.Under(l.Name + ".weight_") {
		if l.Err == nil && !slices.ContainsFunc(l.Tensors, func(one checkpoint.Tensor) bool { return one.Name == t.Name }) {
			l.fail(fmt.Errorf("has a %s, which is not known: %s", t.Name, startOver))
		}
	}
}

// mayBePaired reports whether 8-bit codes have one scale per row in one dimension, as
// in convrot_w4a4. In other formats such scales have two dimensions.
func (m *Model) mayBePaired(l *Layer) bool {
	scale, ok := m.Checkpoint.Lookup(WeightScale.TensorName(l.Name, tile.Scale))
	return ok && l.Format == "int8_tensorwise" && l.Layout == WeightScale && len(scale.Shape) == 1 && scale.Shape[0] > 1
}

// fail marks a layer as one that cannot be decoded.
func (l *Layer) fail(err error) { l.Err, l.Codec, l.Parts, l.alike = err, nil, nil, nil }

// doubtful is fail for an error that a user can resolve by naming the format.
func (l *Layer) doubtful(err error) {
	l.fail(err)
	l.Ambiguous = true
}

// mayBeForeign reports false if no tensor has the name of a scale or a dtype of codes,
// as in most checkpoints.
func (m *Model) mayBeForeign() bool {
	for _, t := range m.Checkpoint.Tensors {
		if Float8(t.Dtype) || t.Dtype == safetensors.I8 {
			return true
		}
		for _, by := range foreignLayouts {
			if strings.HasSuffix(t.Name, by.suffixes[tile.Scale]) {
				return true
			}
		}
	}
	return false
}

// scaledAll are the layouts in which every weight of 8-bit floats has a scale. In
// ScaledFP8 some have none.
var scaledAll = []*Layout{ScaleInv, WeightScale, PlainScale}

// scaledLike returns which of scaledAll the checkpoint is in, or has layers of another
// program's beside whose scales are called so; nil for none.
func (m *Model) scaledLike() *Layout {
	if slices.Contains(scaledAll, m.Layout) {
		return m.Layout
	}
	if !slices.ContainsFunc(publications, func(p *publication) bool { return p.Layout == m.Layout }) {
		return nil
	}
	for _, l := range m.Layers {
		for _, by := range scaledAll {
			if l.Layout.suffixes[tile.Scale] == by.suffixes[tile.Scale] {
				return by
			}
		}
	}
	return nil
}

// mayLackScale reports whether SDNQ's loaders look for no scale of a weight: the config
// keeps it, or it is a convolution, which configs keep without naming it.
func (m *Model) mayLackScale(t checkpoint.Tensor) bool {
	_, kept := m.described.Skips(t.Name)
	return kept || len(t.Shape) != 2
}

// missScales makes layers with an error of the weights without a scale, in a checkpoint
// where all others of their kind have one, or whose config says so.
func (m *Model) missScales(by *Layout, weights []checkpoint.Tensor) {
	for _, t := range weights {
		name := strings.TrimSuffix(t.Name, weightSuffix)
		l := &Layer{Name: name, Format: t.Dtype.String(), Dtype: t.Dtype.String(), Unscaled: true}
		m.stored(l, by)
		l.Err = fmt.Errorf("tensor %s is missing: without it nobody knows what the %s of %s stand for",
			by.TensorName(name, tile.Scale), t.Dtype, t.Name)
		m.Layers = append(m.Layers, l)
	}
}

// AcceptUnscaled treats the weights that lack a scale as plain tensors.
func (m *Model) AcceptUnscaled() {
	if !slices.ContainsFunc(m.Layers, func(l *Layer) bool { return l.Unscaled }) {
		return
	}
	m.Layers = slices.DeleteFunc(m.Layers, func(l *Layer) bool { return l.Unscaled })
	m.Plain = nil
	m.collectPlain()
}

// readMarkers collects the markers and reports whether one asks for full precision.
func (m *Model) readMarkers() (precise bool) {
	for _, t := range m.Checkpoint.Tensors {
		last := t.Name[strings.LastIndexByte(t.Name, '.')+1:]
		if slices.Contains(markers, last) && t.Numel() <= fullPrecision {
			m.Markers = append(m.Markers, t)
			precise = precise || t.Numel() == fullPrecision
		}
	}
	return precise
}

// foreignLayouts are the layouts that only names show. A plain weight can only have a
// scale of the first one; names of the others mean nothing beside it.
var foreignLayouts = []*Layout{ScaledFP8, ScaleInv, WeightScale, PlainScale}

// foreignLayout returns the layout of a weight and its scale, nil if the weight is
// plain.
func (m *Model) foreignLayout(name string, weight checkpoint.Tensor) (*Layout, checkpoint.Tensor) {
	if scale, ok := m.bare(name, weight); ok {
		return Bare, scale
	}
	if _, zeros := m.Checkpoint.Lookup(Comfy.TensorName(name, tile.Zeros)); zeros { // codes with zero points are left to unreads
		return nil, checkpoint.Tensor{}
	}
	layouts := foreignLayouts[:1]
	switch {
	case Float8(weight.Dtype) || weight.Dtype == safetensors.I8:
		layouts = foreignLayouts
	case !codec.Floats(weight.Dtype):
		return nil, checkpoint.Tensor{}
	}
	for _, by := range layouts {
		if scale, ok := m.Checkpoint.Lookup(by.TensorName(name, tile.Scale)); ok {
			return by, scale
		}
	}
	return nil, checkpoint.Tensor{}
}

// Float8 reports whether tensors of that dtype are 8-bit floats, which may be codes
// that need a scale, or plain numbers.
func Float8(d safetensors.Dtype) bool { return d == safetensors.F8_E4M3 || d == safetensors.F8_E5M2 }

// idle reports whether a weight is plain and the scale beside it is 1, so that it
// changes nothing.
func (m *Model) idle(weight, scale checkpoint.Tensor) (bool, error) {
	if !codec.Floats(weight.Dtype) || scale.Dtype != safetensors.F32 || scale.Numel() != 1 {
		return false, nil
	}
	raw, value := make([]byte, 4), make([]float32, 1)
	if err := m.Checkpoint.ReadSection(scale, raw, 0); err != nil {
		return false, err
	}
	codec.Widen(value, raw, safetensors.F32)
	return value[0] == 1, nil
}

// drop counts the meaningless scales of a plain weight as markers.
func (m *Model) drop(name string, by *Layout) {
	for _, role := range []tile.Role{tile.Scale, tile.InputScale} {
		if t, ok := m.Checkpoint.Lookup(by.TensorName(name, role)); ok {
			m.Markers = append(m.Markers, t)
		}
	}
}

func (m *Model) openForeign(l *Layer, by *Layout) {
	config := m.configBlocks()
	s := m.stored(l, by, foreignExtras...)
	weight, scale := s.Tensors[tile.Weight], by.TensorName(l.Name, tile.Scale)
	l.Format = weight.Dtype.String()
	l.Dtype = l.Format
	if codec.Floats(weight.Dtype) {
		l.Err = fmt.Errorf("its weight is %s, yet there is a %s: programs differ in whether it applies", l.Format, scale)
		return
	}
	for _, suffix := range zeroPoints {
		if _, ok := m.Checkpoint.Lookup(l.Name + suffix); ok {
			l.Err = fmt.Errorf("has a %s, which is not supported", l.Name+suffix)
		}
	}
	if by == ScaleInv && config.Rows == 0 {
		config.Rows, config.Cols = 128, 128
	}
	config.Divide, config.Only = by == ScaledFP8, by == ScaleInv
	o := m.kinds.described(pyjson.Object{{Key: "layout", Value: by.Name}}).open(s, func() (o opened) {
		o.codec, o.options, o.err = codec.OpenForeign(s, config)
		return o
	})
	name, _ := o.options.Get("format")
	l.Format, _ = name.(string)
	l.Dtype, l.Options = l.Format, o.options
	switch {
	case l.Err != nil:
	case o.err != nil:
		l.Err = fmt.Errorf("tensor %s: %w", scale, o.err)
	case by == PlainScale && sdnqShaped(s.Tensors[tile.Scale].Shape, weight.Shape):
		l.doubtful(fmt.Errorf("tensor %s may be SDNQ's, whose quantization_config is lost, or another program's: put the model's %s beside the weights, or let `MigrateOptions.AddKeys` '{\"format\": %q}' say what it is", scale, ConfigFile, l.Format))
	default:
		m.open(l, o)
	}
}

// sdnqShaped reports whether scales have a shape as in SDNQ: one dimension more than
// the groups, or one scale per column if codes lie by columns.
func sdnqShaped(scale, weight []int) bool {
	last := len(scale) - 1
	return last > 0 && (scale[last] == 1 || scale[0] == 1 && scale[last] == weight[len(weight)-1])
}

// foreignExtras are further tensors that programs store with such layers, for
// activations and shapes; zeroPoints are those that would change the weight's values.
var (
	zeroPoints    = []string{".weight_zero_point", ".weight_zp"}
	inputScales   = []string{".input_scale", ".scale_input", ".activation_scale", ".input_global_scale"}
	foreignExtras = slices.Concat(inputScales, zeroPoints, []string{".input_zero_point", ".weight_shape", PreQuantScale})
)

// ScalesInput reports whether a layer's tensor with that end of a name changes what the
// layer does to its input, and not its weight.
func ScalesInput(suffix string) bool {
	return slices.Contains(inputScales, suffix) || suffix == PreQuantScale || suffix == ".input_zero_point"
}

// InputScaled reports whether the layer has a scale of activations, under any of the
// names that programs use.
func (l *Layer) InputScaled() bool {
	return slices.ContainsFunc(l.Tensors, func(t checkpoint.Tensor) bool {
		return slices.ContainsFunc(inputScales, func(suffix string) bool { return t.Name == l.Name+suffix })
	})
}

// configBlocks returns the block size that a model's config gives, in the form of fp8
// or of compressed-tensors, whose first group counts for all layers.
func (m *Model) configBlocks() codec.Blocks {
	if m.Declared == nil {
		return codec.Blocks{}
	}
	config := m.Declared.config
	size, ok := config.Get("weight_block_size")
	if !ok {
		groups, _ := config.Get("config_groups")
		entries, _ := groups.(pyjson.Object)
		for _, entry := range entries {
			group, _ := entry.Value.(pyjson.Object)
			weights, _ := group.Get("weights")
			of, _ := weights.(pyjson.Object)
			size, _ = of.Get("block_structure")
			break
		}
	}
	sides, _ := size.([]any)
	if len(sides) != 2 {
		return codec.Blocks{}
	}
	rows, cols := positive(sides[0]), positive(sides[1])
	if rows == 0 || cols == 0 {
		return codec.Blocks{}
	}
	return codec.Blocks{Rows: rows, Cols: cols}
}

// positive returns v if it is a whole number above 0, else 0.
func positive(v any) int {
	number, _ := v.(json.Number)
	n, err := number.Int64()
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0
	}
	return int(n)
}
