package codec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Settings are what a user can say of how a layer is stored. [Fields] names
// them.
type Settings struct {
	Dtype          string // a name that [Resolve] knows
	GroupSize      int    // SDNQ's: 0 automatic, -1 one per row, -2 one per tensor; else values
	Scale          string // "tensor", "row", "block", or "" for the format's own
	DequantizeFP32 bool   // SDNQ scales in F32, whatever the model's dtype
	ExactReference bool
	AllowNonfinite bool

	ModelDtype         string // "bf16", "f16", "f32", or "" for the source's
	Hadamard           bool
	HadamardGroupSize  int
	SVDRank            int // 0 for none
	SVDSteps           int // of the search for that part
	Codebook           bool
	CodebookSteps      int
	ScaleDtype         string // double quantization: SDNQ dtypes of scales and zero points,
	ZeroPointDtype     string // "none", or "" for not set
	CodebookScale      bool
	Matmul, MatmulConv bool // storage for quantized matmul
	MatmulDtype        string
	Stochastic         bool
	Seed               int
	Dynamic            bool
	DynamicThreshold   string // a number, or "" for SDNQ's own

	BlockSize        int  // side of a block
	ConvRot          bool // rotate where that is a choice
	ConvRotGroupSize int
	Bits             int // where a format has variants
	FullPrecisionMul bool
	InputScale       bool // store an input scale of 1
	DynamicConvRot   bool // in the largest groups that fit
	// OutputDtype is what a layer's metadata says that it is restored in: "bf16",
	// "f16", or "" for BF16.
	OutputDtype string
	// Variant is the way in which convert_to_quant makes a format, where it has
	// several: "" for its first one, "custom" or "dedicated".
	Variant string
	// ScaleAsInput stores the weight's scale as that of activations too.
	ScaleAsInput bool
	// WholeBlocks keeps weights of which it does not divide both sides.
	WholeBlocks int

	// Kind is the layer's, by name or as told; it is no setting of a config.
	Kind quant.Kind
}

// Default are the settings where nothing is said: SDNQ's.
func Default() Settings {
	return Settings{DequantizeFP32: true, HadamardGroupSize: 256, SVDSteps: quant.SVDSteps, CodebookSteps: quant.CodebookSteps}
}

// Field is one setting: what its flag is called, and its key in an SDNQ config.
type Field struct {
	Flag  string
	Key   string // "" where SDNQ has none
	About string // "" where the flag is described elsewhere
	of    takers
	at    func(*Settings) any // *string, *int or *bool
}

// takers are the formats to which a setting means something.
type takers uint8

const (
	ofAll  takers = iota
	ofSDNQ        // SDNQ's dtypes alone
	ofSome        // those that list it, see [Format]
)

var fields = []Field{
	{"dtype", "weights_dtype", "", ofAll, func(s *Settings) any { return &s.Dtype }},
	{"group-size", "group_size", "", ofSome, func(s *Settings) any { return &s.GroupSize }},
	{"scale", "", "", ofSome, func(s *Settings) any { return &s.Scale }},
	{"dequantize-fp32", "dequantize_fp32", "", ofAll, func(s *Settings) any { return &s.DequantizeFP32 }},
	{"exact-reference", "", "", ofAll, func(s *Settings) any { return &s.ExactReference }},
	{"allow-nonfinite", "", "", ofAll, func(s *Settings) any { return &s.AllowNonfinite }},
	{"model-dtype", "", "SDNQ: the dtype that the model is to be loaded in, bf16, f16 or f32; weights are rounded to it first", ofSDNQ, func(s *Settings) any { return &s.ModelDtype }},
	{"hadamard", "use_hadamard", "SDNQ: rotate weights first", ofSDNQ, func(s *Settings) any { return &s.Hadamard }},
	{"hadamard-group-size", "hadamard_group_size", "SDNQ: rotate N values at a time", ofSDNQ, func(s *Settings) any { return &s.HadamardGroupSize }},
	{"svd-rank", "svd_rank", "SDNQ: store a part of rank N as two factors; 0 is off", ofSDNQ, func(s *Settings) any { return &s.SVDRank }},
	{"svd-steps", "svd_steps", "SDNQ: look for that part in N steps; fewer are faster and leave a little more to quantize", ofSDNQ, func(s *Settings) any { return &s.SVDSteps }},
	{"codebook", "use_codebook", "SDNQ: a table of levels for every group, for unsigned integers", ofSDNQ, func(s *Settings) any { return &s.Codebook }},
	{"codebook-steps", "codebook_steps", "SDNQ: refine a codebook N times", ofSDNQ, func(s *Settings) any { return &s.CodebookSteps }},
	{"scale-dtype", "scale_dtype", "SDNQ: quantize scales themselves, to this dtype (double quantization)", ofSDNQ, func(s *Settings) any { return &s.ScaleDtype }},
	{"zero-point-dtype", "zero_point_dtype", "SDNQ: store zero points in this dtype, where not in that of scales", ofSDNQ, func(s *Settings) any { return &s.ZeroPointDtype }},
	{"codebook-scale", "use_codebook_scale", "SDNQ: store scales by a codebook", ofSDNQ, func(s *Settings) any { return &s.CodebookScale }},
	{"quantized-matmul", "use_quantized_matmul", "SDNQ: store weights as they are multiplied without being restored", ofSDNQ, func(s *Settings) any { return &s.Matmul }},
	{"quantized-matmul-conv", "use_quantized_matmul_conv", "SDNQ: the same for convolutions", ofSDNQ, func(s *Settings) any { return &s.MatmulConv }},
	{"quantized-matmul-dtype", "quantized_matmul_dtype", "SDNQ: multiply in int8, uint8, float8_e4m3fn or float16", ofSDNQ, func(s *Settings) any { return &s.MatmulDtype }},
	{"stochastic-rounding", "use_stochastic_rounding", "SDNQ: round up or down by chance", ofSDNQ, func(s *Settings) any { return &s.Stochastic }},
	{"dynamic", "use_dynamic_quantization", "SDNQ: the first dtype, from `Dtype` on, whose loss is small enough, layer by layer", ofSDNQ, func(s *Settings) any { return &s.Dynamic }},
	{"dynamic-loss-threshold", "dynamic_loss_threshold", "SDNQ: the loss that `Dynamic` accepts", ofSDNQ, func(s *Settings) any { return &s.DynamicThreshold }},
	{"seed", "", "of the chances that `StochasticRounding` takes", ofSDNQ, func(s *Settings) any { return &s.Seed }},
	{"block-size", "", "ComfyUI's formats: blocks of N by N values share a scale; 128 where not given", ofSome, func(s *Settings) any { return &s.BlockSize }},
	{"convrot", "", "int8_tensorwise: rotate weights first", ofSome, func(s *Settings) any { return &s.ConvRot }},
	{"convrot-group-size", "", "ComfyUI's formats: rotate N values at a time; 256 where not given", ofSome, func(s *Settings) any { return &s.ConvRotGroupSize }},
	{"bits", "", "asym_w4a8_int8: 4 or 6 bits a value; 4 where not given", ofSome, func(s *Settings) any { return &s.Bits }},
	{"full-precision-matmul", "", "ComfyUI's formats: say that layers are to be multiplied in full precision", ofSome, func(s *Settings) any { return &s.FullPrecisionMul }},
	{"input-scale", "", "ComfyUI's formats: store scales of activations, which are 1", ofSome, func(s *Settings) any { return &s.InputScale }},
	{"dynamic-convrot", "", "int8_tensorwise: rotate in the largest groups that fit, not smaller than `ConvRotGroupSize`", ofSome, func(s *Settings) any { return &s.DynamicConvRot }},
	{"output-dtype", "", "", ofSome, func(s *Settings) any { return &s.OutputDtype }},
	{"variant", "", "", ofSome, func(s *Settings) any { return &s.Variant }},
	{"scale-as-input", "", "", ofSome, func(s *Settings) any { return &s.ScaleAsInput }},
	{"whole-blocks", "", "keep weights with a side that is no multiple of N; 0 for none", ofAll, func(s *Settings) any { return &s.WholeBlocks }},
}

// Fields returns every setting.
func Fields() []Field { return fields }

// Value returns the setting's value: a string, an int or a bool.
func (f Field) Value(s Settings) any { return f.value(&s) }

// value is Value without a copy of all settings, which would escape.
func (f Field) value(s *Settings) any {
	switch p := f.at(s).(type) {
	case *string:
		return *p
	case *int:
		return *p
	case *bool:
		return *p
	}
	return nil
}

// set takes a value of the field's type.
func (f Field) set(s *Settings, v any) error {
	ok := false
	switch p := f.at(s).(type) {
	case *string:
		*p, ok = v.(string)
	case *int:
		*p, ok = v.(int)
	case *bool:
		*p, ok = v.(bool)
	}
	if !ok {
		return fmt.Errorf("%s: %v is no %T", f.Flag, v, f.Value(*s))
	}
	return nil
}

// Given are settings by the names of their flags: strings, ints and bools.
type Given map[string]any

// Parse adds a setting as a flag's name and its text; a switch alone is true.
func (g Given) Parse(flag, text string, hasText bool) error {
	for _, f := range fields {
		if f.Flag == flag {
			v, err := f.parse(text, hasText)
			g[flag] = v
			return err
		}
	}
	return fmt.Errorf("unknown setting %q%s", flag, suggest.Hint(flag, flagNames()))
}

func flagNames() []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Flag)
	}
	return names
}

// CheckGiven refuses settings that do not exist, or have another type.
func CheckGiven(g Given) error {
	left := len(g)
	var s Settings
	for _, f := range fields {
		v, ok := g[f.Flag]
		if !ok {
			continue
		}
		left--
		if err := f.set(&s, v); err != nil {
			return err
		}
	}
	if left > 0 {
		return fmt.Errorf("unknown settings among %v", g)
	}
	return nil
}

func (f Field) parse(text string, hasText bool) (any, error) {
	switch f.Value(Settings{}).(type) {
	case bool:
		if !hasText {
			return true, nil
		}
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%s=%s: want true or false", f.Flag, text)
		}
		return b, nil
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%s %q is not a whole number", f.Flag, text)
		}
		return n, nil
	}
	if text == "" {
		return nil, fmt.Errorf("%s wants a value", f.Flag)
	}
	return text, nil
}

// With returns the settings with those that were given in their place.
func (s Settings) With(given Given) Settings {
	for _, f := range fields {
		if v, ok := given[f.Flag]; ok {
			_ = f.set(&s, v) // Parse has seen its type
		}
	}
	return s
}

// Given returns all settings that an SDNQ config can say.
func (s Settings) Given() Given {
	g := Given{}
	for _, f := range fields {
		if f.Key != "" {
			g[f.Flag] = f.Value(s)
		}
	}
	return g
}

// ConfigKeys returns what an SDNQ config says of a layer with these settings.
func (s Settings) ConfigKeys() pyjson.Object {
	var o pyjson.Object
	for _, f := range fields {
		if f.Key == "" {
			continue
		}
		v := f.Value(s)
		if v == "" {
			v = nil
		}
		if f.Key == "dynamic_loss_threshold" && v != nil {
			v = json.Number(s.DynamicThreshold)
		}
		o = append(o, pyjson.Member{Key: f.Key, Value: v})
	}
	if s.SVDRank == 0 { // off, where the config has a rank all the same
		o = o.Set("svd_rank", 32)
	}
	return append(o, pyjson.Member{Key: "use_svd", Value: s.SVDRank > 0})
}

// FromConfig takes over what an SDNQ config says of a layer.
func (s Settings) FromConfig(o pyjson.Object) (Settings, error) {
	for _, f := range fields {
		v, ok := o.Get(f.Key)
		if f.Key == "" || !ok {
			continue
		}
		if n, isNumber := v.(json.Number); isNumber {
			i, err := strconv.Atoi(n.String())
			switch _, isText := f.Value(s).(string); {
			case isText:
				v = n.String()
			case err != nil:
				return s, fmt.Errorf("%s: %s is not a whole number", f.Key, n)
			default:
				v = i
			}
		}
		if v == nil {
			v = f.Value(Settings{})
		}
		if err := f.set(&s, v); err != nil {
			return s, fmt.Errorf("%s: %s, want a %T", f.Key, pyjson.Dump(v), f.Value(s))
		}
	}
	if err := s.checkThreshold(); err != nil {
		return s, err
	}
	if v, ok := o.Get("use_svd"); !ok || v == false {
		s.SVDRank = 0
	}
	return s, nil
}

// modelDtype is what the model is to be loaded in.
func (s Settings) modelDtype(src Source) safetensors.Dtype {
	if d, ok := modelDtypes[s.ModelDtype]; ok {
		return d
	}
	return src.Dtype
}

var modelDtypes = map[string]safetensors.Dtype{
	"bf16": safetensors.BF16, "f16": safetensors.F16, "f32": safetensors.F32,
}

// PlainDtype is SDNQ's canonical name of the dtype.
func (s Settings) PlainDtype() string {
	t, err := dtype.Parse(strings.TrimPrefix(s.Dtype, "sdnq:"))
	if err != nil {
		return s.Dtype
	}
	return t.Name
}

// checkThreshold refuses a text that a config could not hold as a number.
func (s Settings) checkThreshold() error {
	if s.DynamicThreshold == "" {
		return nil
	}
	v, err := pyjson.Parse([]byte(s.DynamicThreshold))
	if _, ok := v.(json.Number); err != nil || !ok {
		return fmt.Errorf("dynamic-loss-threshold %s: want a number", s.DynamicThreshold)
	}
	return nil
}

// Threshold is the loss that the dynamic choice accepts, from a dtype on.
func (s Settings) Threshold(from *dtype.Type) (float64, error) {
	if s.DynamicThreshold == "" {
		return quant.DynamicThreshold(from), nil
	}
	x, err := strconv.ParseFloat(s.DynamicThreshold, 64)
	if err := cmp.Or(s.checkThreshold(), err); err != nil {
		return 0, err
	}
	if x < 0 {
		return quant.DynamicThreshold(from), nil
	}
	return x, nil
}
