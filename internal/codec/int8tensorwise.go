package codec

import (
	"errors"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// int8Tensorwise has one scale per row or per tensor; rows may be rotated.
var int8Tensorwise = &Format{
	Name: "int8_tensorwise", Bits: 8, Storage: safetensors.I8, Max: 127, ComfyUI: "0.27.0", Banks: bankRelease,
	Scales: map[string]string{"row": "int8_tensorwise", "tensor": "int8_tensorwise", "block": "int8_blockwise"},
	Takes:  []string{"convrot", "convrot-group-size", "full-precision-matmul", "output-dtype", "scale-as-input", "dynamic-convrot", "variant", "search"}, Gains: true, Weighs: true,
	Variant: "custom", Refuse: refuseInt8, make: newInt8, Open: openInt8,
	Embeddings: "0.30.0", IgnoresInput: true,
	Kin: Kin{Dtype: "int8"}, told: toldInt8, toSDNQ: int8ToSDNQ, fromSDNQ: []origin{{"int8", rowsOfInt8}, {"int8", oneInt8}},
}

func refuseInt8(s Settings) error {
	if s.rotates() && s.Scale == "tensor" {
		return errors.New("int8_tensorwise rotates with one scale a row, not a tensor")
	}
	if s.ExactReference { // it rotates in groups that ComfyUI does not load, or not at all
		return nil
	}
	return refuseRotation(s)
}

const rotationGroup = 256

func refuseRotation(s Settings) error {
	return rotation.CheckConvRot(0, orDefault(s.ConvRotGroupSize, rotationGroup))
}

func newInt8(src Source, s Settings) (Codec, pyjson.Object, error) {
	if s.Scale == "tensor" {
		c, err := newScaled(src, comfy.Int8Tensor, false, s)
		return c, describe("int8_tensorwise", s, 0), err
	}
	rows := pyjson.Member{Key: "per_row", Value: true}
	group, rule := int8Rotation(src.Shape[1], s)
	metadata := describe("int8_tensorwise", s, 0, rows)
	if group > 0 && (rotation.Rotates(group) || s.Variant == "custom") {
		metadata = describe("int8_tensorwise", s, 0,
			pyjson.Member{Key: "convrot", Value: true}, pyjson.Member{Key: "convrot_groupsize", Value: group}, rows)
	}
	if group > 0 && rotation.Rotates(group) {
		c, err := comfy.NewRotated(src.Shape, group, rule, s.AllowNonfinite)
		if err == nil && s.Search {
			c.Search(src.Moments)
		}
		return c, metadata, err
	}
	c, err := newScaled(src, comfy.Int8Row, true, s)
	return c, metadata, err
}

func (s Settings) rotates() bool { return s.ConvRot || s.DynamicConvRot }

// int8Rotation is the group that rows are rotated in, 0 for none, and how they
// are rounded then: in the group asked for; where 256 does not fit, 64.
// convert_to_quant rounds rows of its other ways as if they were not rotated,
// and has no second choice there.
func int8Rotation(columns int, s Settings) (group int, rule *comfy.ScaleRule) {
	group, rule = orDefault(s.ConvRotGroupSize, rotationGroup), comfy.Int8Rotated
	if s.Variant == "custom" || s.DynamicConvRot {
		rule = comfy.Int8RotatedRow
	}
	switch {
	case !s.rotates():
		return 0, nil
	case s.DynamicConvRot:
		return largestRotation(columns, group), rule
	case columns%group == 0:
		return group, rule
	case group == rotationGroup && columns%64 == 0 && s.Variant == "":
		return 64, rule
	}
	return 0, nil
}

// largestRotation is the largest power of 4 that divides the columns and is not
// less than least, 0 if there is none.
func largestRotation(columns, least int) (group int) {
	for g := 4; g <= columns; g *= 4 {
		if g >= least && columns%g == 0 {
			group = g
		}
	}
	return group
}

// openInt8 takes the scale's shape, not the metadata, as ComfyUI does.
func openInt8(l *Stored) (Codec, error) {
	if v, _ := option(l.Metadata, "convrot"); v != true {
		return openScaled(l, comfy.Int8Tensor, tile.Numel(l.Tensors[tile.Scale].Shape) > 1)
	}
	group, err := intOption(l.Metadata, "convrot_groupsize", rotationGroup)
	if err != nil {
		return nil, err
	}
	if err := rotation.CheckConvRot(0, group); err != nil {
		return nil, err
	}
	c, err := comfy.NewRotated(l.Tensors[tile.Weight].Shape, group, comfy.Int8Rotated, false)
	return opened(c, err, l)
}

// toldInt8 tells what shares a scale.
func toldInt8(g *storage.Settings, metadata pyjson.Object, c Codec) {
	perRow, _ := option(metadata, "per_row")
	if g.ConvRot != nil || perRow == true || tile.Numel(c.Tensors()[1].Shape) > 1 {
		g.Scale = "row"
	} else {
		g.Scale = "tensor"
	}
}

func int8ToSDNQ(metadata pyjson.Object, c Codec) (Settings, error) {
	s := sdnqSettings("int8", perRow(c))
	if v, _ := option(metadata, "convrot"); v == true {
		n, err := intOption(metadata, "convrot_groupsize", rotationGroup)
		s.Hadamard, s.HadamardGroupSize, s.GroupSize = true, n, -1
		return s, err
	}
	return s, nil
}

func rowsOfInt8(s *sdnq.Scheme) (Settings, bool) {
	given := Settings{Scale: "row", ConvRot: s.Hadamard > 0, ConvRotGroupSize: s.Hadamard}
	fits := s.Hadamard == 0 || s.Kind == sdnq.Linear && rotation.CheckConvRot(s.Shape()[1], s.Hadamard) == nil
	return given, s.GroupSize == -1 && fits
}

func oneInt8(s *sdnq.Scheme) (Settings, bool) {
	return Settings{Scale: "tensor"}, s.GroupSize == -2 && s.Hadamard == 0
}

// opened is a stored layer's codec, if its tensors are what that stores.
func opened(c Codec, err error, l *Stored) (Codec, error) {
	if err != nil {
		return nil, err
	}
	return c, match(c, l)
}

func newScaled(src Source, rule *comfy.ScaleRule, perRow bool, s Settings) (Codec, error) {
	c, err := comfy.NewScaled(src.Shape, rule, perRow, s.AllowNonfinite)
	if err != nil {
		return nil, err
	}
	if s.Search {
		c.Search(rotation.Moments(src.Moments, 0))
	}
	return c, nil
}

func openScaled(l *Stored, rule *comfy.ScaleRule, perRow bool) (Codec, error) {
	c, err := newScaled(Source{Shape: l.Tensors[tile.Weight].Shape}, rule, perRow, Settings{})
	if err != nil {
		return nil, err
	}
	return c, match(c, l)
}
