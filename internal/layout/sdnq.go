package layout

import (
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnq"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

const (
	// ConfigKey is where a file's header, or a model's config.json, holds the
	// SDNQ config.
	ConfigKey = "quantization_config"
	// ConfigFile is the file beside the weights that holds it.
	ConfigFile = "quantization_config.json"
)

// readSDNQ finds the layers that a config describes: a weight with a scale.
func (m *Model) readSDNQ() error {
	text, err := configText(m.Checkpoint)
	if err != nil || text == nil {
		return err
	}
	config, err := sdnq.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Checkpoint.Path, err)
	}
	for _, t := range m.Checkpoint.Tensors {
		name, ok := strings.CutSuffix(t.Name, SDNQ.suffixes[quant.Scale])
		if !ok {
			continue
		}
		weight, found := m.Checkpoint.Lookup(name + weightSuffix)
		if !found {
			continue
		}
		if _, kept := config.Skips(weight.Name); kept && codec.Floats(weight.Dtype) { // a scale of its own
			continue
		}
		l := &Layer{Name: name, Format: codec.SDNQ().Name, OrigDtype: configDtype(m.Checkpoint)}
		m.openSDNQ(l, config)
		m.Layers = append(m.Layers, l)
	}
	if m.Layers != nil {
		m.Layout, m.Config = SDNQ, config
	}
	return nil
}

// configText returns the config that describes a checkpoint, nil if there is
// none: that in the header wins over the file beside, which wins over the
// model's own config.
func configText(c *checkpoint.Checkpoint) ([]byte, error) {
	if text, ok := c.Metadata[ConfigKey]; ok {
		return []byte(text), nil
	}
	if text, err := c.ReadBeside(ConfigFile); text != nil || err != nil {
		return text, err
	}
	return sdnqOnly(c.Config), nil
}

// sdnqOnly returns a model's quantization config if it is SDNQ's.
func sdnqOnly(model pyjson.Object) []byte {
	v, _ := model.Get(ConfigKey)
	config, _ := v.(pyjson.Object)
	if method, _ := config.Get("quant_method"); method != "sdnq" {
		return nil
	}
	return []byte(pyjson.Dump(config))
}

func (m *Model) openSDNQ(l *Layer, config *sdnq.Config) {
	s := m.stored(l, SDNQ)
	settings, err := config.For(l.Name + weightSuffix)
	l.Dtype = settings.WeightsDtype
	if err != nil {
		l.Options, l.Err = layerOptions(settings), err
		return
	}
	s.Hint = m.shapeHint(l.Name, config, settings.GroupSize)
	k := m.kinds.described(layerOptions(settings))
	l.Options = k.options
	m.open(l, k.open(s, func() (o opened) {
		o.codec, o.err = openConfigured(s, settings)
		return o
	}))
}

func openConfigured(s *codec.Stored, settings sdnq.Settings) (codec.Codec, error) {
	if err := settings.Check(); err != nil {
		return nil, err
	}
	all, err := codec.Default().FromConfig(settings.Object())
	if err != nil {
		return nil, err
	}
	return codec.FromConfig(s, all, s.Hint)
}

// shapeHint is for weights whose tensors do not tell their shape: what the
// config recorded, or the model that it was made from has, or at least the
// rows, as many as its bias has values. Where scales are not one per tensor, a
// single one is that of a single row.
func (m *Model) shapeHint(layer string, config *sdnq.Config, group int) []int {
	if config != nil {
		if shape := config.Shape(layer); shape != nil {
			return shape
		}
	}
	if m.source != nil {
		if t, ok := m.source.Lookup(layer + weightSuffix); ok && codec.Numbers(t.Dtype) {
			return t.Shape
		}
	}
	if bias, ok := m.Checkpoint.Lookup(layer + ".bias"); ok && len(bias.Shape) == 1 {
		return bias.Shape
	}
	if group != -2 {
		return []int{1}
	}
	return nil
}

func layerOptions(s sdnq.Settings) pyjson.Object {
	o := pyjson.Object{
		{Key: "weights_dtype", Value: s.WeightsDtype},
		{Key: "group_size", Value: s.GroupSize},
		{Key: "dequantize_fp32", Value: s.DequantizeFP32},
	}
	return append(o, s.Others...)
}

// configDtype is the dtype that config.json names for the model, 0 if none.
func configDtype(c *checkpoint.Checkpoint) safetensors.Dtype {
	for _, key := range []string{"dtype", "torch_dtype"} {
		name, _ := c.Config.Get(key)
		if d, ok := codec.OrigDtype(name); ok {
			return d
		}
	}
	return 0
}
