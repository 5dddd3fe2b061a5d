package codec

import (
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/quant"
)

// InNative returns the settings by which a layer whose codes cannot move is
// quantized again in a format of ComfyUI's: rotated where it was and the format
// can be.
func InNative(f *Format, stored Codec) Settings {
	s := Default()
	s.Dtype = f.Name
	scheme := Scheme(stored)
	s.ConvRot = f == int8Tensorwise && scheme != nil && scheme.Hadamard > 0
	return s
}

// InSDNQ returns those of the SDNQ layer nearest to a stored one of a format of
// ComfyUI's: as many scales along rows, and rotated where it is.
func InSDNQ(f *Format, metadata pyjson.Object, c Codec, kind quant.Kind) Settings {
	s, near := Default(), kin[f]
	s.Dtype, s.GroupSize, s.Kind = near.dtype, near.group, kind
	if near.group == 0 {
		s.GroupSize = alongRows(c, kind)
	}
	if near.rotated {
		told := s.With(f.Told(metadata, c))
		s.Hadamard, s.HadamardGroupSize = true, orDefault(told.ConvRotGroupSize, rotationGroup)
	}
	return s
}

// alongRows is SDNQ's group size for what shares a scale in a row.
func alongRows(c Codec, kind quant.Kind) int {
	cut, m := c.Cut(), matrix(c.Shape())
	switch {
	case cut.GroupCols < m[1]:
		return cut.GroupCols
	case cut.GroupRows*cut.GroupCols >= m[0]*m[1] && m[0] > 1 && kind != quant.Embedding:
		return -2
	}
	return -1
}

// kin are the SDNQ dtypes nearest to formats of ComfyUI's. Groups are those of
// scales along rows where none is named.
var kin = map[*Format]struct {
	dtype   string
	group   int
	rotated bool
}{
	int8Tensorwise:  {"int8", 0, false},
	int8Blockwise:   {"int8", 0, false},
	float8E4M3:      {"float8_e4m3fn", 0, false},
	float8E5M2:      {"float8_e5m2", 0, false},
	float8Rowwise:   {"float8_e4m3fn", 0, false},
	float8Blockwise: {"float8_e4m3fn", 0, false},
	float8Block3D:   {"float8_e4m3fn", 0, false},
	mxfp8:           {"float8_e4m3fn", 32, false},
	hybridMXFP8:     {"float8_e4m3fn", 32, false},
	nvfp4:           {"float4_e2m1fn", 16, false},
	awqW4A16:        {"uint4", 0, false},
	convrotW4A4:     {"int4", -1, true},
	asymW4A8:        {"int8", -1, true}, // its levels are 8-bit integers
}
