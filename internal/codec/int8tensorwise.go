package codec

import (
	"errors"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// int8Tensorwise has one scale per row or per tensor; rows may be rotated.
var int8Tensorwise = &Format{
	Name: "int8_tensorwise", Bits: 8, Storage: safetensors.I8, Max: 127, ComfyUI: "0.27.0",
	Scales: map[string]string{"row": "int8_tensorwise", "tensor": "int8_tensorwise", "block": "int8_blockwise"},
	Takes:  []string{"convrot", "convrot-group-size", "full-precision-matmul"},
	Refuse: refuseInt8, make: newInt8, Open: openInt8,
}

func refuseInt8(s Settings) error {
	if s.ConvRot && s.Scale == "tensor" {
		return errors.New("int8_tensorwise rotates with one scale a row, not a tensor")
	}
	return refuseRotation(s)
}

const rotationGroup = 256

func refuseRotation(s Settings) error {
	return quant.CheckConvRot(0, orDefault(s.ConvRotGroupSize, rotationGroup))
}

func newInt8(src Source, s Settings) (Codec, pyjson.Object, error) {
	if s.Scale == "tensor" {
		c, err := newScaled(src.Shape, quant.Int8Tensor, false, s)
		return c, describe("int8_tensorwise", s, 0), err
	}
	rows := pyjson.Member{Key: "per_row", Value: true}
	if group := int8Rotation(src.Shape[1], s); group > 0 {
		c, err := quant.NewRotated(src.Shape, group, quant.Int8Rotated, s.AllowNonfinite)
		return sheet{c, s.AllowNonfinite}, describe("int8_tensorwise", s, 0,
			pyjson.Member{Key: "convrot", Value: true}, pyjson.Member{Key: "convrot_groupsize", Value: group}, rows), err
	}
	c, err := newScaled(src.Shape, quant.Int8Row, true, s)
	return c, describe("int8_tensorwise", s, 0, rows), err
}

// int8Rotation is the group that rows are rotated in: the one asked for; where
// 256 does not fit, 64; else 0 for none.
func int8Rotation(columns int, s Settings) int {
	group := orDefault(s.ConvRotGroupSize, rotationGroup)
	switch {
	case !s.ConvRot:
		return 0
	case columns%group == 0:
		return group
	case group == rotationGroup && columns%64 == 0:
		return 64
	}
	return 0
}

// openInt8 takes the scale's shape, not the metadata, as ComfyUI does.
func openInt8(l *Stored) (Codec, error) {
	if v, _ := option(l.Metadata, "convrot"); v != true {
		return openScaled(l, quant.Int8Tensor, numel(l.Tensors[quant.Scale].Shape) > 1)
	}
	group, err := intOption(l.Metadata, "convrot_groupsize", rotationGroup)
	if err != nil {
		return nil, err
	}
	c, err := quant.NewRotated(l.Tensors[quant.Weight].Shape, group, quant.Int8Rotated, false)
	return opened(c, err, l)
}

// opened is a stored layer's codec, if its tensors are what that stores.
func opened(c Sheet, err error, l *Stored) (Codec, error) {
	if err != nil {
		return nil, err
	}
	return sheet{c, false}, match(sheet{c, false}, l)
}

func newScaled(shape []int, rule *quant.Rule, perRow bool, s Settings) (Codec, error) {
	c, err := quant.NewScaled(shape, rule, perRow, s.AllowNonfinite)
	if err != nil {
		return nil, err
	}
	return flat{c, c.Shape}, nil
}

func openScaled(l *Stored, rule *quant.Rule, perRow bool) (Codec, error) {
	c, err := newScaled(l.Tensors[quant.Weight].Shape, rule, perRow, Settings{})
	if err != nil {
		return nil, err
	}
	return c, match(c, l)
}
