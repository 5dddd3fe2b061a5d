package layout

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

const (
	// ConfigKey is the key of the SDNQ config in a file's header or a model's
	// config.json.
	ConfigKey = "quantization_config"
	// ConfigFile is the file beside the weights that holds the SDNQ config.
	ConfigFile = "quantization_config.json"
)

// readSDNQ finds the layers that an SDNQ config describes: each weight with a scale.
func (m *Model) readSDNQ() error {
	o, shared, err := configObject(m.Checkpoint)
	if err != nil || o == nil {
		return err
	}
	config, err := sdnqconfig.FromObject(o)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Checkpoint.Path, err)
	}
	if !shared {
		m.described = config
	}
	for _, t := range m.Checkpoint.Tensors {
		name, ok := strings.CutSuffix(t.Name, SDNQ.suffixes[tile.Scale])
		if !ok {
			continue
		}
		weight, found := m.Checkpoint.Lookup(name + weightSuffix)
		if !found {
			continue
		}
		_, kept := config.Skips(weight.Name)
		switch plain := codec.Floats(weight.Dtype); {
		case plain && (kept || shared): // an unrelated tensor that happens to be called scale
			continue
		case shared:
			return fmt.Errorf("%s: no header says how %s is quantized, and %s lies beside several files of weights, so that it may be another's: put the two that belong together into a folder of their own",
				m.Checkpoint.Path, weight.Name, ConfigFile)
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

// configObject returns the SDNQ config of a checkpoint, nil if there is none. The
// header's wins over the file beside the weights, which wins over the model's own
// config. shared says that the config is that file, and that it may belong to other
// weights in the folder than the one file that is read.
func configObject(c *checkpoint.Checkpoint) (o pyjson.Object, shared bool, err error) {
	if text, ok := c.Metadata[ConfigKey]; ok {
		if o, err := ownConfig(c, []byte(text)); o != nil || err != nil {
			return o, false, err
		}
	}
	text, err := c.ReadBeside(ConfigFile)
	if err != nil {
		return nil, false, err
	}
	if text != nil {
		if o, err := ownConfig(c, text); o != nil || err != nil {
			return o, sharesFolder(c), err
		}
	}
	v, _ := c.Config.Get(ConfigKey)
	config, _ := v.(pyjson.Object)
	if method, _ := config.Get("quant_method"); method != sdnqMethod {
		return nil, false, nil
	}
	return config, false, nil
}

// sharesFolder reports whether a file that is read alone lies beside other safetensors
// files. It assumes so if the folder cannot be listed.
func sharesFolder(c *checkpoint.Checkpoint) bool {
	if c.IsDir || c.Sharded {
		return false
	}
	others, err := Neighbours(source.Source{Tree: c.Tree, Path: c.Dir}, c.ShardNames[0])
	return err != nil || slices.ContainsFunc(others, func(name string) bool { return strings.EqualFold(filepath.Ext(name), ".safetensors") })
}

// weightEndings are the name endings of files that hold weights.
var weightEndings = []string{".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin"}

var shardNumbers = regexp.MustCompile(`-\d+-of-(\d+)\.safetensors$`)

// Neighbours returns the weight files in a folder other than the named one and the
// shards of its set.
func Neighbours(folder source.Source, name string) (names []string, err error) {
	entries, err := folder.ReadDir(folder.Path)
	set := shardNumbers.ReplaceAllString(name, "-of-$1")
	for _, e := range entries {
		other := e.Name()
		if other == name || e.IsDir() || strings.HasPrefix(other, ".") || shardNumbers.ReplaceAllString(other, "-of-$1") == set {
			continue
		}
		if slices.Contains(weightEndings, strings.ToLower(filepath.Ext(other))) {
			names = append(names, other)
		}
	}
	return names, err
}

// ownConfig reads a config; it returns nil if it names another method than SDNQ.
func ownConfig(c *checkpoint.Checkpoint, text []byte) (pyjson.Object, error) {
	o, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, fmt.Errorf("%s: SDNQ config: %w", c.Path, err)
	}
	if method := methodText("", o); method != "" && method != sdnqMethod {
		return nil, nil
	}
	return append(pyjson.Object{}, o...), nil // not nil, even if it is empty
}

func (m *Model) openSDNQ(l *Layer, config *sdnqconfig.Config) {
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

func openConfigured(s *codec.Stored, settings sdnqconfig.Settings) (codec.Codec, error) {
	if err := settings.Check(); err != nil {
		return nil, err
	}
	all, err := codec.Default().FromConfig(settings.Object())
	if err != nil {
		return nil, err
	}
	return codec.FromConfig(s, all, s.Hint)
}

// shapeHint returns what is known about a weight's shape if its tensors do not show it:
// the shape in the config, or in the model that it was made from, or only the number of
// rows, which is the length of the bias. Otherwise, unless there is one scale per
// tensor, the hint is one row: then a single scale can only be that of a single row.
func (m *Model) shapeHint(layer string, config *sdnqconfig.Config, group int) []int {
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
	if shape := m.restoredShapes()[layer]; shape != nil {
		return shape
	}
	bias, ok := m.Checkpoint.Lookup(layer + ".bias")
	weight, _ := m.Checkpoint.Lookup(layer + weightSuffix)
	if ok && len(bias.Shape) == max(len(weight.Shape)-1, 1) { // [experts, rows] where the weight is the experts of a layer
		return bias.Shape
	}
	if group != -2 {
		return []int{1}
	}
	return nil
}

// restoredShapes are the shapes of the source's layers that are quantized themselves.
func (m *Model) restoredShapes() map[string][]int {
	if m.restored != nil || m.source == nil {
		return m.restored
	}
	m.restored = map[string][]int{}
	from, err := Read(m.source, nil)
	if err != nil { // whoever reads the source says so
		return m.restored
	}
	for _, l := range from.Layers {
		if l.Err == nil && l.Codec != nil {
			m.restored[l.Name] = l.Shape()
		}
	}
	return m.restored
}

func layerOptions(s sdnqconfig.Settings) pyjson.Object {
	o := pyjson.Object{
		{Key: "weights_dtype", Value: s.WeightsDtype},
		{Key: "group_size", Value: s.GroupSize},
		{Key: "dequantize_fp32", Value: s.DequantizeFP32},
	}
	return append(o, s.Others...)
}

// configDtype returns the model's dtype according to config.json, 0 if it names none.
func configDtype(c *checkpoint.Checkpoint) safetensors.Dtype {
	for _, key := range []string{"dtype", "torch_dtype"} {
		name, _ := c.Config.Get(key)
		if d, ok := codec.OrigDtype(name); ok {
			return d
		}
	}
	return 0
}
