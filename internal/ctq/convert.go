package ctq

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// Conversion is what a command asks of a plan.
type Conversion struct {
	ListRules []plan.ListRule
	Kept      plan.KeptDtype
	// Header tells that the header describes the layers too.
	Header bool
	// InputScales is the path of scales of activations, "" for none.
	InputScales string
}

// translation is a command on its way into our words.
type translation struct {
	*Command
	names  []string // of all tensors
	layers *LayerConfig
}

// Convert translates a command that quantizes. names are those of the source's
// tensors, on which presets depend; layers is its layer config, nil for none.
func (c *Command) Convert(names []string, layers *LayerConfig) (*Conversion, error) {
	t := &translation{c, names, layers}
	if err := t.refuse(); err != nil {
		return nil, err
	}
	kept, err := t.kept()
	if err != nil {
		return nil, err
	}
	if format := t.dedicated(); format != "" {
		rules, err := t.dedicatedRules()
		c := &Conversion{ListRules: rules, Kept: kept, Header: true}
		if format == "nvfp4" {
			c.InputScales = t.Text("input_scales")
		}
		return c, err
	}
	rules, err := t.rules()
	return &Conversion{ListRules: rules, Kept: kept, Header: t.Has("save_quant_metadata")}, err
}

// refuse names our way where there is no file to reproduce.
func (t *translation) refuse() error {
	for _, o := range t.Given() {
		if o.Use == Left {
			return fmt.Errorf("%s is left out on purpose: %s", o.Names[0], o.Ours)
		}
	}
	switch {
	case t.dedicated() != "":
	case t.Has("nvfp4") || t.Has("mxfp8"):
		return fmt.Errorf("convert_to_quant needs a GPU for nvfp4 or mxfp8 beside other types: use tensorpress quantize --dtype nvfp4 --set 'PATTERN=DTYPE'")
	case t.Has("custom_layers") && !t.Has("custom_type"):
		return fmt.Errorf("--custom-layers needs --custom-type")
	}
	return nil
}

// dedicated is the format that has a path of its own, "" where the unified one
// is taken.
func (t *translation) dedicated() string {
	for _, name := range []string{"nvfp4", "mxfp8"} {
		if t.Has(name) && !t.Has("custom_type") && !t.Has("fallback") {
			return name
		}
	}
	return ""
}

var blockOf = map[string]int{"nvfp4": 16, "mxfp8": 32}

// dedicatedRules always keep what [preset.Avoid] lists.
func (t *translation) dedicatedRules() ([]plan.ListRule, error) {
	format := t.dedicated()
	over := storage.Settings{Dtype: format, Variant: "dedicated", OutputDtype: t.outputDtype()}
	if t.Has("heur") {
		over.WholeBlocks = new(blockOf[format])
	}
	all := plan.ListRule{Why: "--" + format, Match: every, Over: over, Must: true, Refuse: t.learned("simple", "--simple")}
	rules := []plan.ListRule{{Why: "convert_to_quant keeps it in " + format, Match: contains(preset.Avoid), Keep: true}}
	for _, list := range t.presets() {
		rules = append(rules, plan.ListRule{Why: list.why, Match: contains(list.parts), Keep: true})
	}
	if t.Has("exclude_layers") {
		match, err := searches(t.Text("exclude_layers"))
		if err != nil {
			return nil, err
		}
		rules = append(rules, plan.ListRule{Why: "--exclude-layers", Match: match, Keep: true})
	}
	return append(rules, all), nil
}

// rules are those of the unified path, in its order.
func (t *translation) rules() ([]plan.ListRule, error) {
	var rules []plan.ListRule
	if t.Has("t5xxl") {
		rules = append(rules, plan.ListRule{Why: "--t5xxl leaves it out", Match: contains(preset.FilterByName("t5xxl").Remove), Drop: true})
	}
	for _, add := range []func() ([]plan.ListRule, error){t.layerRules, t.customRules, t.excludedRules} {
		more, err := add()
		if err != nil {
			return nil, err
		}
		rules = append(rules, more...)
	}
	all := plan.ListRule{Why: "its type is " + t.primary().kind, Match: every, Over: t.over(t.primary()), Must: true, Refuse: t.learned("simple", "--simple")}
	return append(rules, all), nil
}

// choice is a type with its options.
type choice struct {
	kind, mode    string
	block         int
	variant       string // see [codec.Settings]
	rotate        bool
	dynamic       bool
	group         int // of the rotation
	heur          bool
	fullPrecision bool
}

// shared is what all types have in common where they say nothing themselves.
func (t *translation) shared() choice {
	return choice{
		mode: t.Text("scaling_mode"), block: t.blockSize(), variant: "custom",
		rotate: t.Has("convrot") || t.Has("dynamic_convrot"), dynamic: t.Has("dynamic_convrot"), group: t.Int("convrot_group_size"),
		heur: t.Has("heur"), fullPrecision: t.Has("full_precision_matrix_mult"),
	}
}

func (t *translation) primary() choice {
	c := t.shared()
	c.kind, c.variant = "fp8", ""
	if t.Has("int8") {
		c.kind = "int8"
	}
	return c
}

// blockSize is the one given, else 128 where blocks are asked for.
func (t *translation) blockSize() int {
	if n := t.Int("block_size"); n > 0 {
		return n
	}
	blocks := t.Text("scaling_mode") != "tensor" && t.Has("int8") || strings.HasPrefix(t.Text("scaling_mode"), "block")
	if blocks || t.Text("custom_type") == "int8" || t.Text("fallback") == "int8" {
		return 128
	}
	return 0
}

// heurBlock is the block that --heur goes by.
func (t *translation) heurBlock() int {
	switch {
	case t.blockSize() > 0:
		return t.blockSize()
	case t.Has("int8"):
		return 128
	}
	return 64
}

func (t *translation) customRules() ([]plan.ListRule, error) {
	if !t.Has("custom_layers") {
		return nil, nil
	}
	match, err := searches(t.Text("custom_layers"))
	if err != nil {
		return nil, err
	}
	r := plan.ListRule{Why: "--custom-layers", Match: match, Over: t.over(t.custom()), Must: true, Refuse: t.learned("custom_simple", "--custom-simple")}
	return []plan.ListRule{r}, nil
}

func (t *translation) custom() choice {
	c := t.shared()
	c.kind, c.heur = t.Text("custom_type"), t.Has("custom_heur")
	if t.Has("custom_scaling_mode") {
		c.mode = t.Text("custom_scaling_mode")
	}
	if n := t.Int("custom_block_size"); n > 0 {
		c.block = n
	}
	if t.Has("custom_convrot") {
		c.rotate, c.group = true, t.Int("custom_convrot_group_size")
	}
	c.fullPrecision = c.fullPrecision || t.Has("custom_full_precision_mm")
	return c
}

// excludedRules keep what the pattern and the presets name, or give it the
// fallback type.
func (t *translation) excludedRules() ([]plan.ListRule, error) {
	var rules []plan.ListRule
	if t.Has("exclude_layers") {
		match, err := searches(t.Text("exclude_layers"))
		if err != nil {
			return nil, err
		}
		rules = append(rules, plan.ListRule{Why: "--exclude-layers", Match: match})
	}
	for _, list := range t.presets() {
		rules = append(rules, plan.ListRule{Why: list.why, Match: contains(list.parts)})
	}
	t.fallBack(rules)
	return rules, nil
}

func (t *translation) fallBack(rules []plan.ListRule) {
	c := t.shared()
	c.kind = t.Text("fallback")
	if n := t.Int("fallback_block_size"); n > 0 {
		c.block = n
	}
	for i := range rules {
		r := &rules[i]
		if c.kind == "" {
			r.Keep = true
			continue
		}
		r.Over, r.Must, r.Refuse = t.over(c), true, t.learned("fallback_simple", "--fallback-simple")
	}
}

// over is a choice in our words.
func (t *translation) over(c choice) storage.Settings {
	over := storage.Settings{FullPrecisionMatmul: &c.fullPrecision, ScaleAsInput: new(t.isText()), OutputDtype: t.outputDtype()}
	scale := scales[c.mode]
	switch c.kind {
	case "fp8":
		over.Dtype, over.Scale = "float8_e4m3fn", scale
		over.InputScale = new(t.Has("input_scale") && !t.isText())
	case "int8":
		over.Dtype, over.Scale = "int8_tensorwise", scale
	default:
		over.Dtype = c.kind
	}
	if c.kind == "int8" && scale == "row" && c.rotate {
		over.ConvRot, over.DynamicConvRot, over.ConvRotGroupSize, over.Variant = &c.rotate, &c.dynamic, &c.group, c.variant
	}
	if scale == "block" && blockOf[c.kind] == 0 {
		over.BlockSize = &c.block
	}
	if c.heur {
		over.WholeBlocks = new(t.heurBlock())
	}
	return over
}

// outputDtype is what the model is to run in, "" for BF16.
func (t *translation) outputDtype() string {
	if t.Text("output_dtype") == "float16" {
		return "f16"
	}
	return ""
}

// isText reports whether a preset of text encoders is on.
func (t *translation) isText() bool {
	return slices.ContainsFunc(strings.Fields("t5xxl mistral visual generic_text qwen_vlm qwen35"), t.Has)
}

// learned says what to write where rounding would be learned.
func (t *translation) learned(option, name string) string {
	if t.Has(option) {
		return ""
	}
	return "convert_to_quant would learn its rounding, which is left out on purpose: add " + name
}

// list is what a preset keeps.
type list struct {
	why   string
	parts []string
}

// presets are the presets that were given.
func (t *translation) presets() []list {
	var lists []list
	for _, f := range preset.Filters() {
		if f.Name != "generic_text" && t.Has(f.Name) {
			lists = append(lists, list{"--" + f.Name, preset.FilterByName(f.Name).Patterns(slices.Values(t.names))})
		}
	}
	return lists
}

// kept is the dtype of weights that are not quantized.
func (t *translation) kept() (plan.KeptDtype, error) {
	to := safetensors.BF16
	if t.Text("output_dtype") == "float16" {
		to = safetensors.F16
	}
	preserved := func(checkpoint.Tensor) (bool, error) { return false, nil }
	if t.Has("preserve_layers") {
		var err error
		if preserved, err = searches(t.Text("preserve_layers")); err != nil {
			return nil, err
		}
	}
	maps, err := t.dtypeMaps()
	if err != nil {
		return nil, err
	}
	return func(one checkpoint.Tensor) safetensors.Dtype {
		if found, _ := preserved(one); found {
			return one.Dtype
		}
		for _, m := range maps {
			if dtype, ok := m(one); ok {
				return dtype
			}
		}
		return to
	}, nil
}

// krea2 keeps these in F32 where they are.
const krea2F32 = `(^|\.)(first|last\.linear|tmlp\.0|tmlp\.2|tproj\.1|txtfusion\.projector|txtmlp\.1|txtmlp\.3)\.weight$`

// dtypeMaps are the presets that give what they keep a dtype of their own.
func (t *translation) dtypeMaps() (maps []func(checkpoint.Tensor) (safetensors.Dtype, bool), err error) {
	if t.Has("krea2") {
		parts := contains(preset.FilterByName("krea2").Patterns(slices.Values(t.names)))
		re, err := pattern.Compile(krea2F32)
		if err != nil {
			return nil, err
		}
		maps = append(maps, func(one checkpoint.Tensor) (safetensors.Dtype, bool) {
			kept, _ := parts(one)
			found, _ := re.Match(one.Name)
			return one.Dtype, kept && found // no wider than F32, and never widened
		})
	}
	if t.Has("qwen_vlm") || t.Has("qwen35") {
		parts := contains(preset.FilterByName("qwen_vlm").Patterns(slices.Values(t.names)))
		maps = append(maps, func(one checkpoint.Tensor) (safetensors.Dtype, bool) {
			kept, _ := parts(one)
			return safetensors.BF16, kept
		})
	}
	return maps, nil
}

// layerRules are those of the layer config, as convert_to_quant follows it: the
// scaling mode decides what the layer is, the format what it is called.
func (t *translation) layerRules() ([]plan.ListRule, error) {
	if t.layers == nil {
		return nil, nil
	}
	var rules []plan.ListRule
	for i := range t.layers.entries {
		e := &t.layers.entries[i]
		r := e.rule()
		if !e.skip {
			c := t.configured(e)
			r.Over, r.Must, r.Label = t.over(c), true, e.label(c)
			if !e.simple {
				r.Refuse = t.learned("simple", "--simple")
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func (t *translation) configured(e *entry) choice {
	c := t.shared()
	c.kind = "fp8"
	if strings.HasPrefix(e.format, "int8") {
		c.kind = "int8"
	}
	if e.scalingMode != "" {
		c.mode = e.scalingMode
	}
	if e.blockSize != nil && *e.blockSize > 0 {
		c.block = *e.blockSize
	}
	if e.fullPrecision != nil {
		c.fullPrecision = *e.fullPrecision
	}
	return c
}

// ExactRules are what convert_to_quant makes of the file with settings like
// those.
func (c *LayerConfig) ExactRules(given storage.Settings) ([]plan.ListRule, error) {
	like := &Command{map[string]string{"simple": ""}}
	for option, on := range map[string]*bool{
		"full_precision_matrix_mult": given.FullPrecisionMatmul, "input_scale": given.InputScale, "convrot": given.ConvRot, "dynamic_convrot": given.DynamicConvRot,
	} {
		if on != nil && *on {
			like.values[option] = ""
		}
	}
	for option, n := range map[string]*int{"block_size": given.BlockSize, "convrot_group_size": given.ConvRotGroupSize} {
		if n != nil {
			like.values[option] = strconv.Itoa(*n)
		}
	}
	if given.Scale != "" {
		like.values["scaling_mode"] = given.Scale
	}
	t := &translation{like, nil, c}
	return t.layerRules()
}

// label is what the layer is called; int8 is called what it is.
func (e *entry) label(c choice) *codec.Label {
	if c.kind == "int8" {
		return nil
	}
	if e.blockSize != nil {
		c.block = *e.blockSize
	}
	return &codec.Label{Format: e.format, BlockSize: c.block}
}

func every(checkpoint.Tensor) (bool, error) { return true, nil }

// contains matches names that hold one of the parts.
func contains(parts []string) func(checkpoint.Tensor) (bool, error) {
	return func(t checkpoint.Tensor) (bool, error) {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(t.Name, part) }), nil
	}
}

// searches matches names that a pattern finds.
func searches(text string) (func(checkpoint.Tensor) (bool, error), error) {
	p, err := pattern.Compile(text)
	if err != nil {
		return nil, err
	}
	return func(t checkpoint.Tensor) (bool, error) { return p.Match(t.Name) }, nil
}
