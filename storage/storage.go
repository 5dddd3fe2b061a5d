// Package storage is what can be said of how layers are stored: [Settings], for
// all layers or, in a [Rule], for some.
package storage

import (
	"fmt"
	"reflect"
	"strings"
)

// Settings are what is said of how a layer is stored. What is not said, which is
// nil or "", is what a config or a broader rule says, else the default of the
// dtype.
//
//	storage.Settings{Dtype: "uint4", GroupSize: new(64), Hadamard: new(true)}
type Settings struct {
	// Dtype is a name or an alias that tensorpress.Formats lists. In the comfy
	// layout, "sdnq:" before it asks for SDNQ's where ComfyUI has one of that name.
	Dtype string
	// GroupSize is how many values share a scale. Of SDNQ's dtypes: 0 automatic, -1
	// one scale a row, -2 one a tensor; of asym_w4a8_int8 and awq_w4a16: values.
	GroupSize *int
	// Scale is "tensor", "row" or "block", for those of ComfyUI's formats that leave
	// it open.
	Scale string
	// DequantizeFP32 keeps SDNQ's scales in F32, whatever the model's dtype; the
	// default is true.
	DequantizeFP32 *bool
	// ExactReference makes the reference's bytes also where it is at fault.
	ExactReference *bool
	// AllowNonfinite quantizes NaN and infinity as the reference does, instead of
	// refusing them.
	AllowNonfinite *bool

	// ModelDtype is the dtype that the model is to be loaded in, "bf16", "f16" or
	// "f32", to which SDNQ rounds weights first. The default is the source's.
	ModelDtype string
	// Hadamard rotates weights first, HadamardGroupSize values at a time (256).
	Hadamard          *bool
	HadamardGroupSize *int
	// SVDRank stores a low-rank part as two factors, 0 for none, that is found in
	// SVDSteps: fewer are faster and leave a little more to quantize.
	SVDRank  *int
	SVDSteps *int
	// Codebook stores a table of levels for every group, of unsigned integers, that
	// CodebookSteps refine.
	Codebook      *bool
	CodebookSteps *int
	// ScaleDtype and ZeroPointDtype quantize scales and zero points themselves, to an
	// SDNQ dtype (double quantization); "none" does not. The dtype of scales is that
	// of zero points too where nothing else is said.
	ScaleDtype     string
	ZeroPointDtype string
	// CodebookScale stores scales by a codebook.
	CodebookScale *bool
	// QuantizedMatmul stores weights as they are multiplied without being restored;
	// QuantizedMatmulConv does so with those of convolutions.
	QuantizedMatmul     *bool
	QuantizedMatmulConv *bool
	// QuantizedMatmulDtype is what is multiplied: "int8", "uint8", "float8_e4m3fn" or
	// "float16".
	QuantizedMatmulDtype string
	// StochasticRounding rounds up or down by chance, which follows from Seed and the
	// layer's name.
	StochasticRounding *bool
	Seed               *int
	// Dynamic takes the first of SDNQ's dtypes, from Dtype on, whose loss is at most
	// DynamicLossThreshold, layer by layer. The threshold is a number such as "0.01",
	// and stands in the config as it is written here; the default depends on the dtype.
	Dynamic              *bool
	DynamicLossThreshold string

	// BlockSize is the side of blocks of values that share a scale in ComfyUI's
	// formats (128).
	BlockSize *int
	// ConvRot rotates weights first, where that is a choice: int8_tensorwise.
	ConvRot *bool
	// ConvRotGroupSize is how many values ComfyUI's formats rotate at a time (256).
	ConvRotGroupSize *int
	// DynamicConvRot rotates in the largest groups that fit, not smaller than
	// ConvRotGroupSize.
	DynamicConvRot *bool
	// Bits of a value, 4 or 6, of asym_w4a8_int8 (4).
	Bits *int
	// FullPrecisionMatmul says in a layer's metadata that it is to be multiplied in
	// full precision.
	FullPrecisionMatmul *bool
	// InputScale stores a scale of activations, which is 1.
	InputScale *bool
	// ScaleAsInput stores the weight's scale as that of activations too.
	ScaleAsInput *bool
	// OutputDtype is what a layer's metadata says that it is restored in, "bf16" or
	// "f16", where convert_to_quant's formats say it ("bf16").
	OutputDtype string
	// Variant is the way in which convert_to_quant makes a format, where it has
	// several: "custom" as for layers of a type of their own, "dedicated" as where
	// nvfp4 or mxfp8 is the type of all; the default is the main one.
	Variant string
	// WholeBlocks keeps weights of which it does not divide both sides, 0 for none.
	WholeBlocks *int
}

// Rule says something of the weights whose names a pattern finds.
//
//	storage.Rule{Pattern: `\.mlp\.`, Layer: storage.Settings{Dtype: "uint8"}}
type Rule struct {
	// Pattern is a regular expression in Python's syntax, searched anywhere in the
	// full name of a tensor.
	Pattern string
	// Keep leaves the weights as they are; then nothing else is said.
	Keep bool
	// Kind is what the layers are where their names do not tell: "linear",
	// "embedding", "conv1d", "conv2d", "conv3d", "conv-transpose1d",
	// "conv-transpose2d" or "conv-transpose3d"; "" for what the names tell.
	Kind string
	// Layer is how they are stored.
	Layer Settings
	// Text is what errors call the rule, "" for its pattern.
	Text string
}

// String lists what is said: {Dtype: uint4, GroupSize: 64}.
func (s Settings) String() string {
	var said []string
	all := reflect.ValueOf(s)
	for i := range all.NumField() {
		if v := all.Field(i); !v.IsZero() {
			said = append(said, fmt.Sprint(all.Type().Field(i).Name, ": ", reflect.Indirect(v)))
		}
	}
	return "{" + strings.Join(said, ", ") + "}"
}
