package layout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// method is what is known about a quantization method that a model's config may name.
type method struct {
	is string // the name that its users know
	// eightBits says that the method's 8-bit codes with scales beside them mean code
	// times scale, as in the layouts that are read.
	eightBits bool
}

// sdnqMethod is the method of SDNQ, whose configs readSDNQ reads.
const sdnqMethod = "sdnq"

// methods are the known values of quant_method, and of the keys that replace it, in
// lower case with dashes.
var methods = map[string]method{
	"fp8":                   {"FP8", true},
	"fbgemm-fp8":            {"FBGEMM FP8", true},
	"compressed-tensors":    {"compressed-tensors", true},
	"modelopt":              {"NVIDIA ModelOpt", true},
	"modelopt-fp8":          {"NVIDIA ModelOpt", true},
	"modelopt-fp4":          {"NVIDIA ModelOpt", true},
	"modelopt-mixed":        {"NVIDIA ModelOpt", true},
	"ptpc-fp8":              {"FP8 by rows", true},
	"w8a8-fp8":              {"FP8 by rows", true},
	"w8a8-int8":             {"INT8 by rows", true},
	"blockwise-int8":        {"INT8 in blocks", true},
	"quark":                 {"AMD Quark", true},
	"nvfp4":                 {"NVFP4", false},
	"mxfp8":                 {"MXFP8", false},
	"petit-nvfp4":           {"NVFP4", false},
	"mxfp4":                 {"MXFP4", false},
	"bitsandbytes":          {"bitsandbytes", false},
	"gptq":                  {"GPTQ", false},
	"gptq-marlin":           {"GPTQ", false},
	"gptq-marlin-24":        {"GPTQ", false},
	"marlin":                {"Marlin", false},
	"awq":                   {"AWQ", false},
	"awq-marlin":            {"AWQ", false},
	"moe-wna16":             {"GPTQ or AWQ", false},
	"auto-round":            {"AutoRound", false},
	"intel/auto-round":      {"AutoRound", false},
	"bitblas":               {"BitBLAS", false},
	"gptq-bitblas":          {"BitBLAS", false},
	"aqlm":                  {"AQLM", false},
	"vptq":                  {"VPTQ", false},
	"quip":                  {"QuIP#", false},
	"quanto":                {"quanto", false},
	"eetq":                  {"EETQ", false},
	"higgs":                 {"HIGGS", false},
	"hqq":                   {"HQQ", false},
	"torchao":               {"torchao", false},
	"gguf":                  {"GGUF", false},
	"bitnet":                {"BitNet", false},
	"spqr":                  {"SpQR", false},
	"fp-quant":              {"FP-Quant", false},
	"fouroversix":           {"Four over Six", false},
	"sinq":                  {"SINQ", false},
	"gemma":                 {"Gemma", false},
	"metal":                 {"Metal", false},
	"mlx":                   {"MLX", false},
	"exl2":                  {"EXL2", false},
	"exl3":                  {"EXL3", false},
	"svdquant":              {"SVDQuant (nunchaku)", false},
	"nunchaku":              {"SVDQuant (nunchaku)", false},
	"deepspeedfp":           {"DeepSpeed FP", false},
	"experts-int8":          {"INT8 experts", false},
	"rtn":                   {"RTN", false},
	"ascend":                {"Ascend", false},
	"optimum-neuron":        {"Neuron", false},
	"compressed-tensors-24": {"compressed-tensors", false},
}

// methodKeys are keys that only one method's configs have. They show the method if a
// config does not name it.
var methodKeys = []struct{ key, method string }{
	{"quant_algo", "modelopt"}, {"producer", "modelopt"},
	{"load_in_4bit", "bitsandbytes"}, {"load_in_8bit", "bitsandbytes"}, {"_load_in_4bit", "bitsandbytes"}, {"_load_in_8bit", "bitsandbytes"},
	{"config_groups", "compressed-tensors"}, {"weight_block_size", "fp8"},
	{"w_bit", "awq"}, {"q_group_size", "awq"}, {"desc_act", "gptq"},
	{"svdq_rank", "svdquant"}, {"nbits_per_codebook", "aqlm"},
	{"weights_dtype", sdnqMethod},
}

// Declaration is what a config of another program than SDNQ says about how the weights
// are quantized.
type Declaration struct {
	Place  string // "config.json", …
	Key    string // the key in it, "" if the whole file is about that
	Method string // the name that its users know, or for an unknown method the config's text
	method
	known  bool
	config pyjson.Object
}

// String names the place of the declaration and its method.
func (d *Declaration) String() string {
	if d.Key == "" {
		return fmt.Sprintf("%s (%s)", d.Place, d.Method)
	}
	return fmt.Sprintf("%s of %s (%s)", d.Key, d.Place, d.Method)
}

// inHeader is the Place of a declaration in the file's own header.
const inHeader = "the header"

// InHeader reports whether the declaration is in the file's own header.
func (d *Declaration) InHeader() bool { return d.Place == inHeader }

// declarations are the keys of a model's config, or of a header, whose values describe
// the quantization.
var declarations = []string{ConfigKey, "compression_config", "quantization"}

// DescriptionFiles are files beside a model's config that may describe the
// quantization, in the order in which they are read.
var DescriptionFiles = []string{
	"hf_quant_config.json", ConfigFile, "quantize_config.json", "quant_config.json", "quant_model_description.json",
}

// declared returns what the header, config.json or a file beside the weights says about
// the quantization, nil if none says anything or if the method is SDNQ.
func declared(c *checkpoint.Checkpoint) (*Declaration, error) {
	for _, key := range declarations[:2] {
		if o, err := pyjson.ParseObject([]byte(c.Metadata[key])); err == nil && len(o) > 0 {
			if d := newDeclaration(inHeader, key, o); d != nil {
				return d, nil
			}
		}
	}
	if d := inConfig(c.Config); d != nil {
		return d, nil
	}
	for _, name := range DescriptionFiles {
		text, err := c.ReadBeside(name)
		if err != nil {
			return nil, err
		}
		if text == nil {
			continue
		}
		o, err := pyjson.ParseObject(text)
		if err != nil {
			continue // readSDNQ reports the error if the file matters
		}
		if d := newDeclaration(name, "", o); d != nil {
			return d, nil
		}
	}
	return nil, nil
}

// inConfig looks for a declaration in a model's config and in the configs of its parts.
func inConfig(model pyjson.Object) *Declaration {
	for _, key := range declarations {
		v, _ := model.Get(key)
		o, _ := v.(pyjson.Object)
		if len(o) > 0 && (key == ConfigKey || methodText(key, o) != "") {
			return newDeclaration("config.json", key, o)
		}
	}
	if key, o := inPart(model); o != nil {
		return newDeclaration("config.json", key, o)
	}
	return nil
}

// inPart returns the declaration in the config of a part, or of a part of one, and where it
// stands; nil where there is none.
func inPart(model pyjson.Object) (key string, o pyjson.Object) {
	for _, m := range model {
		part, isObject := m.Value.(pyjson.Object)
		if !isObject || slices.Contains(declarations, m.Key) {
			continue
		}
		for _, name := range declarations[:2] {
			v, _ := part.Get(name)
			if o, ok := v.(pyjson.Object); ok && len(o) > 0 {
				return m.Key + "." + name, o
			}
		}
		if key, o := inPart(part); o != nil {
			return m.Key + "." + key, o
		}
	}
	return "", nil
}

// newDeclaration returns the declaration that an object holds, nil for SDNQ's.
func newDeclaration(place, key string, o pyjson.Object) *Declaration {
	text := methodText(key, o)
	if text == sdnqMethod {
		return nil
	}
	d := &Declaration{Place: place, Key: key, Method: text, config: o}
	d.method, d.known = methods[strings.ReplaceAll(strings.ToLower(text), "_", "-")]
	if d.known {
		d.Method = d.is
	}
	return d
}

// methodText returns a config's own name for its method, "" if nothing shows the
// method.
func methodText(key string, o pyjson.Object) string {
	for _, name := range []string{"quant_method", "quant_library", "method"} {
		if v, _ := o.Get(name); v != nil {
			return fmt.Sprint(v)
		}
	}
	for _, k := range methodKeys {
		if _, ok := o.Get(k.key); ok {
			return k.method
		}
	}
	if v, _ := o.Get("quantization"); key == "" && v != nil {
		return "modelopt"
	}
	_, bits := o.Get("bits")
	if _, group := o.Get("group_size"); bits && (group || key == "quantization") && key != "" {
		return "mlx"
	}
	return ""
}

// problem returns why weights with this declaration cannot be decoded, nil if their
// tensors may still show how.
func (d *Declaration) problem() error {
	switch {
	case d == nil:
		return nil
	case !d.known && d.Key == "": // a file beside the weights, which may be about anything
		return nil
	case d.Method == "":
		return fmt.Errorf("%s of %s names no quantization method that is known, so that nobody can tell what the weights stand for: start from the original, or take it out if all weights are plain numbers", d.Key, d.Place)
	case !d.known:
		return fmt.Errorf("%s of %s names the quantization method %q, which is not known, so that nobody can tell what the weights stand for: start from the original, or take it out if all weights are plain numbers", d.Key, d.Place, d.Method)
	}
	if v, _ := d.config.Get("transform_config"); d.Method == "compressed-tensors" && transforms(v) {
		return fmt.Errorf("%s of %s has a transform_config: its weights are rotated: start from the original", d.Key, d.Place)
	}
	return nil
}

// transforms reports whether a transform_config rotates anything.
func transforms(v any) bool {
	o, _ := v.(pyjson.Object)
	groups, _ := o.Get("config_groups")
	list, _ := groups.(pyjson.Object)
	return len(list) > 0
}

// WithoutDeclarations returns a model's config without its declarations of a
// quantization.
func WithoutDeclarations(model pyjson.Object) pyjson.Object {
	if d := inConfig(model); d != nil {
		model = model.Delete(d.Key)
	}
	return withoutParts(model.Delete(ConfigKey))
}

// withoutParts takes the declarations out of the configs of parts.
func withoutParts(model pyjson.Object) pyjson.Object {
	for _, m := range model {
		part, ok := m.Value.(pyjson.Object)
		if !ok || slices.Contains(declarations, m.Key) {
			continue
		}
		model = model.Set(m.Key, withoutParts(part.Delete(declarations[0]).Delete(declarations[1])))
	}
	return model
}
