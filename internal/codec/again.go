package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Kin is the SDNQ dtype nearest to a format of ComfyUI's.
type Kin struct {
	Dtype   string
	Group   int // 0 for as many scales along rows as the layer has
	Rotated bool
}

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

// alongRows is SDNQ's group size for what shares a scale in a row.
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
