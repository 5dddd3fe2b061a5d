package codec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// Settings are those in effect for a layer: what was said of it and the defaults.
// The fields are those of [storage.Settings], which says what each means.
type Settings struct {
	Dtype          string // a name that [Resolve] knows
	GroupSize      int
	Scale          string // "" for the format's own
	DequantizeFP32 bool
	ExactReference bool
	AllowNonfinite bool
	Search         bool

	ModelDtype           string // "" for the source's
	Hadamard             bool
	HadamardGroupSize    int
	SVDRank              int
	NoRank               bool // SVDRank is 0 since that was said
	SVDSteps             int
	SVDRefit             int
	Codebook             bool
	CodebookSteps        int
	ScaleDtype           string
	ZeroPointDtype       string
	CodebookScale        bool
	QuantizedMatmul      bool
	QuantizedMatmulConv  bool
	QuantizedMatmulDtype string
	StochasticRounding   bool
	Seed                 int
	Dynamic              bool
	DynamicLossThreshold string // "" for SDNQ's own

	BlockSize           int // 0 for the format's own, as those below
	ConvRot             bool
	ConvRotGroupSize    int
	DynamicConvRot      bool
	Bits                int
	FullPrecisionMatmul bool
	InputScale          bool
	ScaleAsInput        bool
	OutputDtype         string // "" for BF16
	Variant             string // "" for the first one
	WholeBlocks         int

	// Kind is the layer's, by name or as told; nobody sets it.
	Kind sdnq.Kind
}

// Default are the settings where nothing is said: SDNQ's.
func Default() Settings {
	return Settings{DequantizeFP32: true, HadamardGroupSize: 256, SVDSteps: lowrank.SVDSteps, CodebookSteps: codebook.CodebookSteps}
}

// Field is a row: a setting, where it lies, its flag, and how it stands in each kind
// of metadata.
type Field struct {
	Flag  string
	About string // of the flag; "" where the command has none
	of    takers
	accessor
	// Key is that of SDNQ's config, and of our own layers of its dtypes; "" where
	// SDNQ has none.
	Key string
	// native is the key in the JSON of ComfyUI's formats, "" where none says it.
	native string
	// stored is what the JSON of a layer of SDNQ's dtypes says of it, by what became
	// of the setting there; nil for nothing.
	stored func(s *sdnq.Scheme) pyjson.Object
	// ofScales is what that JSON has after all else.
	ofScales bool
}

// takers are the formats to which a setting means something.
type takers uint8

const (
	ofAll  takers = iota
	ofSDNQ        // SDNQ's dtypes alone
	ofSome        // those that list it, see [Format]
)

// given are settings as they were said.
type given = storage.Settings

// fields are in the order of the help.
var fields = []Field{
	{Flag: "dtype", Key: "weights_dtype", About: "`NAME` as in tensorpress formats (default int8, int8_tensorwise in comfy)",
		accessor: text(func(s *Settings) *string { return &s.Dtype }, func(g *given) *string { return &g.Dtype })},
	{Flag: "group-size", of: ofSome, Key: "group_size", native: "group_size", About: "`N` values share a scale; SDNQ: 0 automatic, -1 one a row, -2 one a tensor",
		accessor: value(func(s *Settings) *int { return &s.GroupSize }, func(g *given) **int { return &g.GroupSize })},
	{Flag: "scale", of: ofSome, About: "ComfyUI's formats: one scale a `tensor, row or block`",
		accessor: text(func(s *Settings) *string { return &s.Scale }, func(g *given) *string { return &g.Scale })},
	{Flag: "dequantize-fp32", Key: "dequantize_fp32", ofScales: true, About: "SDNQ: scales in F32",
		accessor: value(func(s *Settings) *bool { return &s.DequantizeFP32 }, func(g *given) **bool { return &g.DequantizeFP32 }),
		stored: func(s *sdnq.Scheme) pyjson.Object {
			return says(s.ScaleDtype != safetensors.F32, "dequantize_fp32", false)
		}},
	{Flag: "exact-reference", About: "the reference's bytes also where it is at fault",
		accessor: value(func(s *Settings) *bool { return &s.ExactReference }, func(g *given) **bool { return &g.ExactReference })},
	{Flag: "allow-nonfinite", About: "quantize NaN and infinity as the reference does",
		accessor: value(func(s *Settings) *bool { return &s.AllowNonfinite }, func(g *given) **bool { return &g.AllowNonfinite })},
	{Flag: "search", of: ofSome, About: "choose scales and zero points that lose least; slower, and the same size",
		accessor: value(func(s *Settings) *bool { return &s.Search }, func(g *given) **bool { return &g.Search })},
	{Flag: "model-dtype", of: ofSDNQ, About: "SDNQ: the dtype that the model is to be loaded in, bf16, f16 or f32; weights are rounded to it first",
		accessor: text(func(s *Settings) *string { return &s.ModelDtype }, func(g *given) *string { return &g.ModelDtype })},
	{Flag: "hadamard", of: ofSDNQ, Key: "use_hadamard", About: "SDNQ: rotate weights first",
		accessor: value(func(s *Settings) *bool { return &s.Hadamard }, func(g *given) **bool { return &g.Hadamard }),
		stored:   func(s *sdnq.Scheme) pyjson.Object { return says(s.Hadamard > 0, "use_hadamard", true) }},
	{Flag: "hadamard-group-size", of: ofSDNQ, Key: "hadamard_group_size", About: "SDNQ: rotate N values at a time",
		accessor: value(func(s *Settings) *int { return &s.HadamardGroupSize }, func(g *given) **int { return &g.HadamardGroupSize }),
		stored:   func(s *sdnq.Scheme) pyjson.Object { return says(s.Hadamard > 0, "hadamard_group_size", s.Hadamard) }},
	{Flag: "svd-rank", of: ofSome, Key: "svd_rank", About: "SDNQ: store a part of rank N as two factors; 0 is off; svdquant_w4a4: at least 1 (default 32)",
		accessor: rankSetting{value(func(s *Settings) *int { return &s.SVDRank }, func(g *given) **int { return &g.SVDRank })},
		stored: func(s *sdnq.Scheme) pyjson.Object {
			return append(says(s.Rank > 0, "use_svd", true), says(s.Rank > 0, "svd_rank", s.Rank)...)
		}},
	{Flag: "svd-steps", of: ofSome, Key: "svd_steps", About: "look for that part in N steps; fewer are faster and leave a little more to quantize",
		accessor: value(func(s *Settings) *int { return &s.SVDSteps }, func(g *given) **int { return &g.SVDSteps })},
	{Flag: "svd-refit", of: ofSome, About: "fit that part again N times, to what the quantization of the rest leaves",
		accessor: value(func(s *Settings) *int { return &s.SVDRefit }, func(g *given) **int { return &g.SVDRefit })},
	{Flag: "codebook", of: ofSDNQ, Key: "use_codebook", About: "SDNQ: a table of levels for every group, for unsigned integers",
		accessor: value(func(s *Settings) *bool { return &s.Codebook }, func(g *given) **bool { return &g.Codebook }),
		stored:   func(s *sdnq.Scheme) pyjson.Object { return says(s.Codebook, "use_codebook", true) }},
	{Flag: "codebook-steps", of: ofSDNQ, Key: "codebook_steps", About: "SDNQ: refine a codebook N times",
		accessor: value(func(s *Settings) *int { return &s.CodebookSteps }, func(g *given) **int { return &g.CodebookSteps })},
	{Flag: "scale-dtype", of: ofSDNQ, Key: "scale_dtype", ofScales: true, About: "SDNQ: quantize scales themselves, to this dtype (double quantization)",
		accessor: text(func(s *Settings) *string { return &s.ScaleDtype }, func(g *given) *string { return &g.ScaleDtype }),
		stored:   func(s *sdnq.Scheme) pyjson.Object { return says(scaleStore(s) != "", "scale_dtype", scaleStore(s)) }},
	{Flag: "zero-point-dtype", of: ofSDNQ, Key: "zero_point_dtype", ofScales: true, About: "SDNQ: store zero points in this dtype, where not in that of scales",
		accessor: text(func(s *Settings) *string { return &s.ZeroPointDtype }, func(g *given) *string { return &g.ZeroPointDtype }),
		stored: func(s *sdnq.Scheme) pyjson.Object {
			return says(zeroPointStore(s) != "", "zero_point_dtype", zeroPointStore(s))
		}},
	{Flag: "codebook-scale", of: ofSDNQ, Key: "use_codebook_scale", ofScales: true, About: "SDNQ: store scales by a codebook",
		accessor: value(func(s *Settings) *bool { return &s.CodebookScale }, func(g *given) **bool { return &g.CodebookScale }),
		stored:   func(s *sdnq.Scheme) pyjson.Object { return says(scalesByCodebook(s), "use_codebook_scale", true) }},
	{Flag: "quantized-matmul", of: ofSDNQ, Key: "use_quantized_matmul", About: "SDNQ: store weights as they are multiplied without being restored",
		accessor: value(func(s *Settings) *bool { return &s.QuantizedMatmul }, func(g *given) **bool { return &g.QuantizedMatmul }),
		stored:   func(s *sdnq.Scheme) pyjson.Object { return says(s.ShapedForMatmul(), "use_quantized_matmul", true) }},
	{Flag: "quantized-matmul-conv", of: ofSDNQ, Key: "use_quantized_matmul_conv", About: "SDNQ: the same for convolutions",
		accessor: value(func(s *Settings) *bool { return &s.QuantizedMatmulConv }, func(g *given) **bool { return &g.QuantizedMatmulConv })},
	{Flag: "quantized-matmul-dtype", of: ofSDNQ, Key: "quantized_matmul_dtype", About: "SDNQ: multiply in int8, uint8, float8_e4m3fn or float16",
		accessor: text(func(s *Settings) *string { return &s.QuantizedMatmulDtype }, func(g *given) *string { return &g.QuantizedMatmulDtype }),
		stored: func(s *sdnq.Scheme) pyjson.Object {
			return says(s.ShapedForMatmul(), "quantized_matmul_dtype", s.MatmulDtype())
		}},
	{Flag: "stochastic-rounding", of: ofSDNQ, Key: "use_stochastic_rounding", About: "SDNQ: round up or down by chance",
		accessor: value(func(s *Settings) *bool { return &s.StochasticRounding }, func(g *given) **bool { return &g.StochasticRounding })},
	{Flag: "dynamic", of: ofSDNQ, Key: "use_dynamic_quantization", About: "SDNQ: the first dtype, from `Dtype` on, whose loss is small enough, layer by layer",
		accessor: value(func(s *Settings) *bool { return &s.Dynamic }, func(g *given) **bool { return &g.Dynamic })},
	{Flag: "dynamic-loss-threshold", of: ofSDNQ, Key: "dynamic_loss_threshold", About: "SDNQ: the loss that `Dynamic` accepts",
		accessor: text(func(s *Settings) *string { return &s.DynamicLossThreshold }, func(g *given) *string { return &g.DynamicLossThreshold })},
	{Flag: "seed", of: ofSDNQ, About: "of the chances that `StochasticRounding` takes",
		accessor: value(func(s *Settings) *int { return &s.Seed }, func(g *given) **int { return &g.Seed })},
	{Flag: "block-size", of: ofSome, native: "group_size", About: "ComfyUI's formats: blocks of N by N values share a scale; 128 where not given",
		accessor: value(func(s *Settings) *int { return &s.BlockSize }, func(g *given) **int { return &g.BlockSize })},
	{Flag: "convrot", of: ofSome, native: "convrot", About: "int8_tensorwise: rotate weights first",
		accessor: value(func(s *Settings) *bool { return &s.ConvRot }, func(g *given) **bool { return &g.ConvRot })},
	{Flag: "convrot-group-size", of: ofSome, native: "convrot_groupsize", About: "ComfyUI's formats: rotate N values at a time; 256 where not given",
		accessor: value(func(s *Settings) *int { return &s.ConvRotGroupSize }, func(g *given) **int { return &g.ConvRotGroupSize })},
	{Flag: "bits", of: ofSome, About: "with `For` and no dtype: the best that the application loads at N bits a value; asym_w4a8_int8: 4 or 6, 4 where not given",
		accessor: value(func(s *Settings) *int { return &s.Bits }, func(g *given) **int { return &g.Bits })},
	{Flag: "full-precision-matmul", of: ofSome, native: "full_precision_matrix_mult", About: "ComfyUI's formats: say that layers are to be multiplied in full precision",
		accessor: value(func(s *Settings) *bool { return &s.FullPrecisionMatmul }, func(g *given) **bool { return &g.FullPrecisionMatmul })},
	{Flag: "input-scale", of: ofSome, About: "ComfyUI's formats: store scales of activations, which are 1",
		accessor: value(func(s *Settings) *bool { return &s.InputScale }, func(g *given) **bool { return &g.InputScale })},
	{Flag: "dynamic-convrot", of: ofSome, About: "int8_tensorwise: rotate in the largest groups that fit, not smaller than `ConvRotGroupSize`",
		accessor: value(func(s *Settings) *bool { return &s.DynamicConvRot }, func(g *given) **bool { return &g.DynamicConvRot })},
	{Flag: "output-dtype", of: ofSome,
		accessor: text(func(s *Settings) *string { return &s.OutputDtype }, func(g *given) *string { return &g.OutputDtype })},
	{Flag: "variant", of: ofSome,
		accessor: text(func(s *Settings) *string { return &s.Variant }, func(g *given) *string { return &g.Variant })},
	{Flag: "scale-as-input", of: ofSome,
		accessor: value(func(s *Settings) *bool { return &s.ScaleAsInput }, func(g *given) **bool { return &g.ScaleAsInput })},
	{Flag: "whole-blocks", About: "keep weights with a side that is no multiple of N; 0 for none",
		accessor: value(func(s *Settings) *int { return &s.WholeBlocks }, func(g *given) **int { return &g.WholeBlocks })},
}

// Fields returns every setting.
func Fields() []Field { return fields }

// Saying returns what was said of the setting, a string, an int or a bool; nil for nothing.
func (f Field) Saying(g storage.Settings) any { return f.said(&g) }

// Default is the setting's value where nothing is said: a string, an int or a bool.
func (f Field) Default() any { return f.get(&defaults) }

// Parse says a setting by its flag's name and a text; a switch alone is true.
func Parse(g *storage.Settings, flag, text string, hasText bool) error {
	for _, f := range fields {
		if f.Flag == flag {
			return f.parse(g, flag, text, hasText)
		}
	}
	return fmt.Errorf("unknown setting %q%s", flag, suggest.Hint(flag, flagNames()))
}

// IsSetting reports whether a setting has a flag of that name.
func IsSetting(flag string) bool { return slices.Contains(flagNames(), flag) }

func flagNames() []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Flag)
	}
	return names
}

// With returns the settings with those that were said in their place.
func (s Settings) With(g storage.Settings) Settings {
	for i := range fields {
		fields[i].take(&s, &g)
	}
	return s
}

// Given says all settings that an SDNQ config can say.
func (s Settings) Given() storage.Settings {
	var g storage.Settings
	for i := range fields {
		if f := &fields[i]; f.Key != "" {
			f.tell(&g, &s)
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
		v := f.get(&s)
		if v == "" {
			v = nil
		}
		if f.Key == "dynamic_loss_threshold" && v != nil {
			v = json.Number(s.DynamicLossThreshold)
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
			switch _, isText := f.get(&s).(string); {
			case isText:
				v = n.String()
			case err != nil:
				return s, fmt.Errorf("%s: %s is not a whole number", f.Key, n)
			default:
				v = i
			}
		}
		if v == nil {
			v = f.get(&Settings{})
		}
		if !f.set(&s, v) {
			return s, fmt.Errorf("%s: %s, want a %T", f.Key, pyjson.Dump(v), f.get(&s))
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

// Asks reports whether the moments of a layer's inputs make a difference in the format
// where there are any: what is neither searched nor smoothed is rounded whatever they are.
func (f *Format) Asks(s Settings) bool { return s.Search || f.Smooths }

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
	if s.DynamicLossThreshold == "" {
		return nil
	}
	v, err := pyjson.Parse([]byte(s.DynamicLossThreshold))
	if _, ok := v.(json.Number); err != nil || !ok {
		return fmt.Errorf("dynamic-loss-threshold %s: want a number", s.DynamicLossThreshold)
	}
	return nil
}

// Threshold is the loss that the dynamic choice accepts, from a dtype on.
func (s Settings) Threshold(from *dtype.Type) (float64, error) {
	if s.DynamicLossThreshold == "" {
		return sdnq.DynamicThreshold(from), nil
	}
	x, err := strconv.ParseFloat(s.DynamicLossThreshold, 64)
	if err := cmp.Or(s.checkThreshold(), err); err != nil {
		return 0, err
	}
	if x < 0 {
		return sdnq.DynamicThreshold(from), nil
	}
	return x, nil
}
