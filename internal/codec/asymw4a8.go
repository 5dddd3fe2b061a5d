package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// asymW4A8 has rotated rows in 4 or 6 bits, which decode to 8-bit integers.
var asymW4A8 = &Format{
	Name: "asym_w4a8_int8", Bits: 4, Storage: safetensors.I8, Max: 127, ComfyUI: "0.31.0",
	Takes: []string{"convrot", "convrot-group-size", "group-size", "bits", "full-precision-matmul", "search"}, Gains: true,
	Refuse: refuseW4A8, make: newW4A8, Open: openW4A8, IgnoresInput: true, told: toldW4A8,
	Kin: Kin{Dtype: "int8", Group: -1, Rotated: true}, // its levels are 8-bit integers
}

// toldW4A8 counts bits, which no metadata tell.
func toldW4A8(g *storage.Settings, _ pyjson.Object, c Codec) {
	g.Bits = new(tile.Numel(c.Tensors()[0].Shape) * 8 / max(tile.Numel(c.Shape()), 1))
}

const (
	w4a8Group = 16
	w4a8Bits  = 4
)

func refuseW4A8(s Settings) error {
	if err := refuseRotation(s); err != nil {
		return err
	}
	return comfy.CheckW4A8(orDefault(s.GroupSize, w4a8Group), orDefault(s.Bits, w4a8Bits))
}

func newW4A8(src Source, s Settings) (Codec, pyjson.Object, error) {
	group, rotation := orDefault(s.GroupSize, w4a8Group), orDefault(s.ConvRotGroupSize, rotationGroup)
	c, err := comfy.NewW4A8(src.Shape, group, rotation, orDefault(s.Bits, w4a8Bits), s.AllowNonfinite)
	if err == nil {
		c.Search = s.Search
	}
	return c, describeNative("asym_w4a8_int8", s,
		pyjson.Member{Key: "group_size", Value: group}, pyjson.Member{Key: "convrot_groupsize", Value: rotation}), err
}

// openW4A8 takes the bits from the width of the rows.
func openW4A8(l *Stored) (Codec, error) {
	rows, bytes, err := l.codes()
	if err != nil {
		return nil, err
	}
	group, err := intOption(l.Metadata, "group_size", w4a8Group)
	if err != nil {
		return nil, err
	}
	rotation, err := intOption(l.Metadata, "convrot_groupsize", rotationGroup)
	if err != nil {
		return nil, err
	}
	scale := l.Tensors[tile.GroupScale]
	bits, columns := w4a8Bits, 2*bytes
	if len(scale.Shape) == 2 && scale.Shape[1]*group*6 == bytes*8 {
		bits, columns = 6, scale.Shape[1]*group
	}
	c, err := comfy.NewW4A8([]int{rows, columns}, group, rotation, bits, false)
	if err != nil {
		return nil, err
	}
	if _, ok := l.Tensors[tile.Codebook]; !ok {
		c.Levels = nil
	}
	if scale.Dtype == safetensors.U8 || scale.Dtype == safetensors.F32 {
		c.GroupDtype = scale.Dtype
	}
	return opened(c, nil, l)
}
