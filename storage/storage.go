// Package storage has the settings that say how layers are stored: [Settings], for all
// layers or, in a [Rule], for some.
package storage

import (
	"fmt"
	"reflect"
	"strings"
)

// Settings say how a layer is stored. A setting that is nil or "" is left to a config
// or a broader rule, and without one to the default of the dtype.
//
//	storage.Settings{Dtype: "uint4", GroupSize: new(64), Hadamard: new(true)}
type Settings struct {
	// Dtype is a name or an alias that tensorpress.Formats lists. In the comfy layout,
	// the prefix "sdnq:" selects SDNQ's dtype where ComfyUI has one of the same name.
	Dtype string
	// GroupSize is how many values share a scale. For SDNQ's dtypes, 0 chooses
	// automatically, -1 is one scale a row, -2 one for the tensor. asym_w4a8_int8 and
	// awq_w4a16 take a number of values.
	GroupSize *int
	// Scale is what shares a scale, "tensor", "row" or "block", in those of ComfyUI's
	// formats that come in several.
	Scale string
	// DequantizeFP32 stores SDNQ's scales in F32, whatever the model's dtype; the
	// default is true.
	DequantizeFP32 *bool
	// ExactReference reproduces the reference's bytes even where it has a defect.
	ExactReference *bool
	// AllowNonfinite quantizes NaN and infinity as the reference does, instead of
	// refusing them.
	AllowNonfinite *bool

	// Search chooses scales and zero points that lose least, in place of those between
	// the smallest and the largest value. Names, shapes and sizes stay the same.
	Search *bool

	// ModelDtype is the dtype in which the model will be loaded, "bf16", "f16" or
	// "f32". SDNQ rounds weights to it first. The default is the source's.
	ModelDtype string
	// Hadamard rotates weights first, HadamardGroupSize values at a time (256).
	Hadamard          *bool
	HadamardGroupSize *int
	// SVDRank is the rank of a low-rank part that is stored as two factors, 0 for none, or
	// for svdquant_w4a4, which has one always, for 32.
	// SVDSteps is the number of steps of the search for it: fewer are faster and leave
	// slightly more to quantize.
	// SVDRefit is how often that part is fitted again to what the quantization of the
	// rest leaves, 0 for never.
	SVDRank  *int
	SVDSteps *int
	SVDRefit *int
	// Codebook stores a table of levels for every group, for unsigned integers;
	// CodebookSteps is how many steps refine it.
	Codebook      *bool
	CodebookSteps *int
	// ScaleDtype and ZeroPointDtype are SDNQ dtypes to which scales and zero points are
	// quantized themselves (double quantization); "none" turns it off. If only
	// ScaleDtype is given, it applies to zero points too.
	ScaleDtype     string
	ZeroPointDtype string
	// CodebookScale quantizes scales by a codebook (double quantization).
	CodebookScale *bool
	// QuantizedMatmul stores weights in the form in which SDNQ multiplies them without
	// restoring them; QuantizedMatmulConv does so for convolutions.
	QuantizedMatmul     *bool
	QuantizedMatmulConv *bool
	// QuantizedMatmulDtype is the dtype of that product: "int8", "uint8",
	// "float8_e4m3fn" or "float16".
	QuantizedMatmulDtype string
	// StochasticRounding rounds up or down at random, determined by Seed and the
	// layer's name.
	StochasticRounding *bool
	Seed               *int
	// Dynamic chooses, layer by layer, the first of SDNQ's dtypes, from Dtype on, whose
	// loss is at most DynamicLossThreshold. The threshold is a number such as "0.01",
	// and is copied to the config as it is written here; the default depends on the
	// dtype.
	Dynamic              *bool
	DynamicLossThreshold string

	// BlockSize is the side of the square blocks of values that share a scale in
	// ComfyUI's formats (128).
	BlockSize *int
	// ConvRot rotates weights first in int8_tensorwise, the format that leaves it open.
	ConvRot *bool
	// ConvRotGroupSize is how many consecutive values ComfyUI's formats rotate together
	// (256).
	ConvRotGroupSize *int
	// DynamicConvRot rotates in the largest groups that divide the rows, at least
	// ConvRotGroupSize.
	DynamicConvRot *bool
	// Bits is the number of bits of a code of asym_w4a8_int8, 4 or 6 (4).
	Bits *int
	// FullPrecisionMatmul says in a layer's metadata that it must be multiplied in full
	// precision.
	FullPrecisionMatmul *bool
	// InputScale stores a scale of 1 for activations.
	InputScale *bool
	// ScaleAsInput stores the weight's scale as the scale of activations too.
	ScaleAsInput *bool
	// OutputDtype is the dtype in which a layer is to be restored, "bf16" or "f16", as
	// the metadata of convert_to_quant's formats says ("bf16").
	OutputDtype string
	// Variant selects one of several ways in which convert_to_quant makes a format:
	// "custom" is the way for layers given a type of their own, "dedicated" the way for
	// nvfp4 or mxfp8 as the type of all layers; the default is the main one.
	Variant string
	// WholeBlocks keeps weights whose rows or columns are no multiple of it, 0 for
	// none.
	WholeBlocks *int
}

type Rule struct {
	// Pattern is a regular expression in Python's syntax, searched anywhere in the
	// full name of a tensor.
	Pattern string
	// Keep leaves the weights as they are; Kind and Layer must then be empty.
	Keep bool
	// Kind is the kind of the layers where their names do not tell it: "linear",
	// "embedding", "conv1d", "conv2d", "conv3d", "conv-transpose1d", "conv-transpose2d"
	// or "conv-transpose3d"; "" follows the names.
	Kind string
	// Layer says how the layers are stored.
	Layer Settings
	// Text is what errors call the rule; "" is its pattern.
	Text string
}

// Candidate is an entry of a menu: one way to store layers, among which a budget chooses
// for each.
type Candidate struct {
	// Name is what results call it; "" is its settings in words.
	Name string
	// Keep leaves layers as they are; Layer must then be empty. Otherwise Layer has a
	// dtype.
	Keep  bool
	Layer Settings
}

// String lists the settings that are given: {Dtype: uint4, GroupSize: 64}.
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
