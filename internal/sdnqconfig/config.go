// Package sdnqconfig reads and writes SDNQ's quantization config and applies its
// rules: which entry of a list matches a name, and which settings a layer has.
package sdnqconfig

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/suggest"
)

// Version is the release of sdnq whose files and config we write.
const Version = "0.2.8"

// Config is an SDNQ config. Names in its lists are those of parameters,
// ending in ".weight".
type Config struct {
	Settings
	NotConvert  []string
	NotMatmul   []string    // modules_to_not_use_matmul
	DtypeLists  []DtypeList // modules_dtype_dict, in order
	Modules     []Module    // modules_quant_config, in order
	MinNumel    int
	MinChannels int
	AddSkipKeys bool
	Shapes      pyjson.Object // weight shapes that the tensors do not tell; our own key
}

// Settings are what a config says of one layer.
type Settings struct {
	WeightsDtype   string
	GroupSize      int
	DequantizeFP32 bool
	// Others are further keys, where they are not SDNQ's defaults.
	Others pyjson.Object
}

// DtypeList is an entry of modules_dtype_dict: a dtype, or a minimum of bits,
// and what it applies to.
type DtypeList struct {
	Key   string
	Names []string
}

// Module is an entry of modules_quant_config: settings for what a pattern matches.
type Module struct {
	Pattern  string
	Settings pyjson.Object
}

// Default is SDNQ's config where nothing is set.
func Default() *Config {
	return &Config{
		Settings: Settings{WeightsDtype: "int8", DequantizeFP32: true},
		MinNumel: 16384, MinChannels: 32, AddSkipKeys: true,
	}
}

// Parse reads a config. Keys it lacks have SDNQ's defaults; keys that SDNQ does
// not know are ignored, as it does.
func Parse(text []byte) (*Config, error) {
	o, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, fmt.Errorf("SDNQ config: %w", err)
	}
	return FromObject(o)
}

// FromObject is Parse for JSON that is read already.
func FromObject(o pyjson.Object) (*Config, error) {
	if m, ok := o.Get("quant_method"); ok && m != "sdnq" {
		return nil, fmt.Errorf("SDNQ config: quant_method is %v, want sdnq", m)
	}
	c := Default()
	for _, m := range o {
		if err := c.set(m); err != nil {
			return nil, fmt.Errorf("SDNQ config: %s: %w", m.Key, err)
		}
	}
	return c, nil
}

func (c *Config) set(m pyjson.Member) (err error) {
	switch m.Key {
	case "modules_to_not_convert":
		c.NotConvert, err = stringList(m.Value)
	case "modules_to_not_use_matmul":
		c.NotMatmul, err = stringList(m.Value)
	case "modules_dtype_dict":
		c.DtypeLists, err = dtypeLists(m.Value)
	case "modules_quant_config":
		c.Modules, err = modules(m.Value)
	case "minimum_allowed_numel":
		c.MinNumel, err = integer(m.Value)
	case "minimum_allowed_channel_size":
		c.MinChannels, err = integer(m.Value)
	case "add_skip_keys":
		c.AddSkipKeys, err = boolean(m.Value)
	case shapesKey:
		c.Shapes, err = object(m.Value)
	default:
		_, err = c.Settings.set(m)
	}
	return err
}

// set takes one key and reports whether it is a setting of layers.
func (s *Settings) set(m pyjson.Member) (known bool, err error) {
	switch m.Key {
	case "weights_dtype":
		s.WeightsDtype, err = dtypeName(m.Value)
	case "group_size":
		s.GroupSize, err = integer(m.Value)
	case "dequantize_fp32":
		s.DequantizeFP32, err = boolean(m.Value)
	default:
		plain, known := defaults.Get(m.Key)
		switch {
		case !known:
			return false, nil
		case m.Value == nil, fmt.Sprint(m.Value) == fmt.Sprint(plain):
			s.Others = s.Others.Delete(m.Key)
		default:
			s.Others = s.Others.Set(m.Key, m.Value)
		}
	}
	return true, err
}

// settingKeys are all that set knows.
func settingKeys() []string {
	names := []string{"weights_dtype", "group_size", "dequantize_fp32"}
	for _, m := range defaults {
		names = append(names, m.Key)
	}
	return names
}

// saved are keys that sdnq writes and that say nothing of how weights are stored.
var saved = []string{"sdnq_version", "is_integer", "is_unsigned", "use_grad_ckpt", "use_static_quantization"}

// CheckKeys refuses an object that a user gives for a config and of which no key is
// SDNQ's, or one is nearly: what was meant by it would not be followed. Other keys
// may be those of another release.
func CheckKeys(o pyjson.Object) error {
	known := append(settingKeys(), "quant_method", "modules_to_not_convert", "modules_to_not_use_matmul", "modules_dtype_dict",
		"modules_quant_config", "minimum_allowed_numel", "minimum_allowed_channel_size", "add_skip_keys", shapesKey)
	known = append(known, saved...)
	foreign := len(o) > 0
	for _, m := range o {
		if slices.Contains(known, m.Key) {
			foreign = false
		} else if near := suggest.Words(m.Key, known); len(near) > 0 {
			return fmt.Errorf("SDNQ config: unknown key %q%s", m.Key, suggest.Ask(near))
		}
	}
	if foreign {
		return fmt.Errorf("SDNQ config: no key is SDNQ's, the first one is %q", o[0].Key)
	}
	return nil
}

// defaults are the values of SDNQ's keys for layers beyond dtype and group.
var defaults = pyjson.Object{
	{Key: "codebook_steps", Value: 24},
	{Key: "dynamic_loss_threshold", Value: nil},
	{Key: "hadamard_group_size", Value: 256},
	{Key: "is_training", Value: false},
	{Key: "non_blocking", Value: false},
	{Key: "quant_conv", Value: false},
	{Key: "quant_embedding", Value: false},
	{Key: "quantization_device", Value: nil},
	{Key: "quantized_matmul_dtype", Value: nil},
	{Key: "return_device", Value: nil},
	{Key: "scale_dtype", Value: nil},
	{Key: "svd_rank", Value: 32},
	{Key: "svd_steps", Value: 8},
	{Key: "use_codebook", Value: false},
	{Key: "use_codebook_scale", Value: false},
	{Key: "use_dynamic_quantization", Value: false},
	{Key: "use_hadamard", Value: false},
	{Key: "use_quantized_matmul", Value: false},
	{Key: "use_quantized_matmul_conv", Value: false},
	{Key: "use_stochastic_rounding", Value: false},
	{Key: "use_svd", Value: false},
	{Key: "zero_point_dtype", Value: nil},
}

// unsupported are keys whose default alone is understood.
var unsupported = []string{"is_training"}

// Object returns all keys that a config has for a layer.
func (s Settings) Object() pyjson.Object {
	o := pyjson.Object{
		{Key: "dequantize_fp32", Value: s.DequantizeFP32},
		{Key: "group_size", Value: s.GroupSize},
		{Key: "weights_dtype", Value: s.WeightsDtype},
	}
	for _, d := range defaults {
		if v, ok := s.Others.Get(d.Key); ok {
			d.Value = v
		}
		o = append(o, d)
	}
	return o
}

// With returns the settings with keys of an object in their place.
func (s Settings) With(o pyjson.Object) (Settings, error) { return s.with(o) }

// Check refuses a config that asks for what is not supported.
func (c *Config) Check() error {
	if err := c.Settings.Check(); err != nil {
		return fmt.Errorf("SDNQ config: %w", err)
	}
	for _, m := range c.Modules {
		s, err := c.Settings.with(m.Settings)
		if err == nil {
			err = s.Check()
		}
		if err != nil {
			return fmt.Errorf("SDNQ config: modules_quant_config: %s: %w", m.Pattern, err)
		}
	}
	return nil
}

// Check refuses settings that ask for what is not supported.
func (s Settings) Check() error {
	for _, key := range unsupported {
		if v, ok := s.Others.Get(key); ok {
			return fmt.Errorf("%s: %s is not supported", key, pyjson.Dump(v))
		}
	}
	return nil
}

// with overlays the settings of a module.
func (s Settings) with(o pyjson.Object) (Settings, error) {
	for _, m := range o {
		known, err := s.set(m)
		if err == nil && !known {
			err = fmt.Errorf("unknown setting%s", suggest.Hint(m.Key, settingKeys()))
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", m.Key, err)
		}
	}
	return s, nil
}

// Has reports whether a switch of the whole model is on.
func (c *Config) Has(key string) bool {
	v, _ := c.Others.Get(key)
	return v == true
}

// Turn sets a switch of the whole model.
func (c *Config) Turn(key string, on bool) {
	if c.Others = c.Others.Delete(key); on {
		c.Others = c.Others.Set(key, true)
	}
}

// Skips returns the entry of modules_to_not_convert that matches a parameter.
func (c *Config) Skips(param string) (entry string, ok bool) { return Match(param, c.NotConvert) }

// For returns the settings of a parameter: the first module entry that
// matches, then the first dtype list that does.
func (c *Config) For(param string) (Settings, error) {
	s := c.Settings
	for _, m := range c.Modules {
		if _, ok := Match(param, []string{m.Pattern}); ok {
			var err error
			if s, err = s.with(m.Settings); err != nil {
				return s, err
			}
			break
		}
	}
	s, err := c.applyDtypeLists(s, param)
	if _, ok := Match(param, c.NotMatmul); ok {
		s.Others = s.Others.Delete("use_quantized_matmul").Delete("use_quantized_matmul_conv")
	}
	return s, err
}

func (c *Config) applyDtypeLists(s Settings, param string) (Settings, error) {
	for _, list := range c.DtypeLists {
		if _, ok := Match(param, list.Names); !ok {
			continue
		}
		name, applies, err := list.dtype(s.WeightsDtype)
		if err != nil {
			return s, err
		}
		if applies {
			s.WeightsDtype = name
			break
		}
	}
	return s, nil
}

// ListedAs returns the key of modules_dtype_dict under which a parameter stands
// by its whole name, "" if under none.
func (c *Config) ListedAs(param string) string {
	key := ""
	for _, l := range c.DtypeLists {
		if slices.Contains(l.Names, param) {
			key = l.Key // the last counts, as in a dictionary turned over
		}
	}
	return key
}

// IsMinimum reports whether the key is a minimum of bits, not a dtype.
func (l DtypeList) IsMinimum() bool {
	key := strings.ToLower(l.Key)
	return strings.HasPrefix(key, "minimum") || strings.HasSuffix(key, "bit") || strings.HasSuffix(key, "bits")
}

// dtype returns the dtype that the entry gives a layer of dtype current.
func (l DtypeList) dtype(current string) (name string, applies bool, err error) {
	key := strings.ToLower(l.Key)
	if !l.IsMinimum() {
		t, err := dtype.Parse(key)
		if err != nil {
			return "", false, err
		}
		return t.Name, true, nil
	}
	t, err := dtype.Parse(current)
	if err != nil {
		return "", false, err
	}
	unsigned, bits, err := minimum(key)
	if err != nil || t.Bits >= bits {
		return "", false, err
	}
	if unsigned || bits <= 4 {
		return fmt.Sprintf("uint%d", bits), true, nil
	}
	return fmt.Sprintf("int%d", bits), true, nil
}

// minimum reads minimum_6bit, 6bit, minimum-uint4 and the like.
func minimum(key string) (unsigned bool, bits int, err error) {
	rest := strings.TrimPrefix(key, "minimum")
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "-"), "_")
	rest = strings.TrimSuffix(strings.TrimSuffix(rest, "bits"), "bit")
	rest = strings.TrimSuffix(strings.TrimSuffix(rest, "-"), "_")
	if u, ok := strings.CutPrefix(rest, "uint"); ok {
		unsigned, rest = true, u
	} else {
		rest = strings.TrimPrefix(rest, "int")
	}
	bits, err = strconv.Atoi(rest)
	if err != nil || bits < 1 || bits > 16 {
		return false, 0, fmt.Errorf("modules_dtype_dict: %q is neither a dtype nor a minimum of 1 to 16 bits", key)
	}
	return unsigned, bits, nil
}

// Shape returns the recorded shape of a layer's weight, nil if there is none.
func (c *Config) Shape(layer string) []int {
	v, _ := c.Shapes.Get(layer)
	items, _ := v.([]any)
	var shape []int
	for _, item := range items {
		n, err := integer(item)
		if err != nil || n < 1 {
			return nil
		}
		shape = append(shape, n)
	}
	if len(shape) < 2 || len(shape) > 5 {
		return nil
	}
	return shape
}

func dtypeName(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s is not a dtype", pyjson.Dump(v))
	}
	t, err := dtype.Parse(s)
	if err != nil {
		return "", err
	}
	if !t.Storable() {
		return "", fmt.Errorf("%s cannot store a weight", s)
	}
	return s, nil
}

func integer(v any) (int, error) {
	switch n := v.(type) {
	case int:
		return n, nil
	case json.Number:
		return strconv.Atoi(n.String())
	}
	return 0, fmt.Errorf("%s is not a whole number", pyjson.Dump(v))
}

func boolean(v any) (bool, error) {
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s is neither true nor false", pyjson.Dump(v))
	}
	return b, nil
}

func object(v any) (pyjson.Object, error) {
	if v == nil {
		return nil, nil
	}
	o, ok := v.(pyjson.Object)
	if !ok {
		return nil, fmt.Errorf("%s is not an object", pyjson.Dump(v))
	}
	return o, nil
}

// stringList takes a list, or one string in its place, as SDNQ does.
func stringList(v any) ([]string, error) {
	if s, ok := v.(string); ok {
		return []string{s}, nil
	}
	items, ok := v.([]any)
	if !ok && v != nil {
		return nil, fmt.Errorf("%s is not a list of names", pyjson.Dump(v))
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("%s is not a name", pyjson.Dump(item))
		}
		list = append(list, s)
	}
	return list, nil
}

func dtypeLists(v any) ([]DtypeList, error) {
	o, err := object(v)
	if err != nil {
		return nil, err
	}
	var lists []DtypeList
	for _, m := range o {
		names, err := stringList(m.Value)
		if err != nil {
			return nil, err
		}
		list := DtypeList{m.Key, names}
		if _, _, err := list.dtype("int8"); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, nil
}

func modules(v any) ([]Module, error) {
	o, err := object(v)
	if err != nil {
		return nil, err
	}
	var list []Module
	for _, m := range o {
		settings, err := object(m.Value)
		if err != nil {
			return nil, err
		}
		list = append(list, Module{m.Key, settings})
	}
	return list, nil
}
