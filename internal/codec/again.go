package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Kin is the SDNQ dtype, with its group size and rotation, that is nearest to one of
// ComfyUI's formats.
type Kin struct {
	Dtype   string
	Group   int // 0 for as many scales along rows as the layer has
	Rotated bool
}

// InNative returns the settings with which a layer whose codes cannot be moved is
// quantized again in one of ComfyUI's formats: rotated if it was rotated and the format
// can be.
func InNative(f *Format, stored Codec) Settings {
	s := Default()
	s.Dtype = f.Name
	scheme := Scheme(stored)
	s.ConvRot = f == int8Tensorwise && scheme != nil && scheme.Hadamard > 0
	return s
}

// InSDNQ returns the settings of the SDNQ layer nearest to a layer in one of ComfyUI's
// formats: with as many scales along rows, and rotated if the layer is.
func InSDNQ(f *Format, metadata pyjson.Object, c Codec, kind sdnq.Kind) Settings {
	s := Default()
	s.Dtype, s.GroupSize, s.Kind = f.Kin.Dtype, f.Kin.Group, kind
	if f.Kin.Group == 0 {
		s.GroupSize = alongRows(c, kind)
	}
	if f.Kin.Rotated {
		told := s.With(f.SettingsFromMetadata(metadata, c))
		s.Hadamard, s.HadamardGroupSize = true, orDefault(told.ConvRotGroupSize, rotationGroup)
	}
	return s
}

// alongRows returns SDNQ's group size for the number of values along a row that share a
// scale.
func alongRows(c Codec, kind sdnq.Kind) int {
	cut, m := c.Cut(), matrix(c.Shape())
	switch {
	case cut.GroupCols < m[1]:
		return cut.GroupCols
	case cut.GroupRows*cut.GroupCols >= m[0]*m[1] && m[0] > 1 && kind != sdnq.Embedding:
		return -2
	}
	return -1
}
