package sdnqconfig

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// shapesKey holds [rows, columns] of weights whose stored tensors do not tell
// them: packed ones with a single scale. SDNQ ignores it.
const shapesKey = "tensorpress_shapes"

// Encode returns the config with every key that sdnq saves. Lists are written
// as they are; readers match names against them in order.
func (c *Config) Encode() pyjson.Object {
	t := dtype.Lookup(c.WeightsDtype)
	o := append(c.Settings.Object(), pyjson.Object{
		{Key: "add_skip_keys", Value: c.AddSkipKeys},
		{Key: "is_integer", Value: t.Class == dtype.Integer},
		{Key: "is_unsigned", Value: t.Unsigned},
		{Key: "minimum_allowed_channel_size", Value: c.MinChannels},
		{Key: "minimum_allowed_numel", Value: c.MinNumel},
		{Key: "modules_dtype_dict", Value: c.dtypeDict()},
		{Key: "modules_quant_config", Value: c.moduleDict()},
		{Key: "modules_to_not_convert", Value: c.NotConvert},
		{Key: "modules_to_not_use_matmul", Value: list(c.NotMatmul)},
		{Key: "quant_method", Value: "sdnq"},
		{Key: "sdnq_version", Value: Version},
		{Key: "use_grad_ckpt", Value: true},
		{Key: "use_static_quantization", Value: true},
	}...)
	slices.SortFunc(o, func(a, b pyjson.Member) int { return strings.Compare(a.Key, b.Key) })
	if len(c.Shapes) > 0 {
		o = append(o, pyjson.Member{Key: shapesKey, Value: c.Shapes})
	}
	return o
}

func (c *Config) dtypeDict() pyjson.Object {
	o := pyjson.Object{}
	for _, l := range c.DtypeLists {
		o = append(o, pyjson.Member{Key: l.Key, Value: l.Names})
	}
	return o
}

func (c *Config) moduleDict() pyjson.Object {
	o := pyjson.Object{}
	for _, m := range c.Modules {
		o = append(o, pyjson.Member{Key: m.Pattern, Value: m.Settings})
	}
	return o
}

// list is never nil, which JSON would write as null.
func list(s []string) []string { return append([]string{}, s...) }
