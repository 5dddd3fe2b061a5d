package tile

import (
	"github.com/tensorpress/tensorpress/safetensors"
)

// The factors of a low-rank part: the weight is up·down plus the value of its codes.
const (
	SVDUp   Role = "svd_up"   // [rows, rank]
	SVDDown Role = "svd_down" // [rank, columns]
)

// Role says what a stored tensor means to its weight. The names are SDNQ's.
type Role string

// The tensors of a quantized weight.
const (
	Weight    Role = "weight"     // the codes
	Scale     Role = "scale"      // value = code × scale + zero point
	ZeroPoint Role = "zero_point" // a float, in units of the weight
)

// Further tensors of ComfyUI's formats.
const (
	GroupScale   Role = "group_scale"   // in units of the channel's scale
	ChannelScale Role = "channel_scale" // of a row
	Codebook     Role = "codebook"      // the values of the codes
	Zeros        Role = "zeros"         // the value of the code 8
	Scalar       Role = "scalar"        // of hybrid_mxfp8, which decoding ignores
	InputScale   Role = "input_scale"   // of activations, not of the weight
	ProjDown     Role = "proj_down"     // [columns, rank], of a low-rank part
	ProjUp       Role = "proj_up"       // [rows, rank]
	SmoothFactor Role = "smooth_factor" // what inputs, and so columns, are divided by
)

// Further tensors of formats that are read and not written.
const (
	GroupOfColumn  Role = "group_of_column" // the group of each column
	NestedCodebook Role = "nested_codebook" // the values of scales that are codes
)

// Tensor describes one stored tensor.
type Tensor struct {
	Role  Role
	Dtype safetensors.Dtype
	Shape []int
}

// Roles of scales and zero points that are quantized themselves (double quantization).
const (
	Scale2         Role = "scale_2"          // scale = code × scale_2 + scale_zero_point, or levels; also nvfp4's
	ScaleZeroPoint Role = "scale_zero_point" // only with unsigned dtypes
	ZeroPointScale Role = "zero_point_scale" // zero point = code × it + zero_point_2, or levels
	ZeroPoint2     Role = "zero_point_2"     // only with unsigned dtypes
)
