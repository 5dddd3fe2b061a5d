package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/safetensors"
)

// convrotW4A4 has rotated rows in 4 bits, one scale each.
var convrotW4A4 = &Format{
	Name: "convrot_w4a4", Bits: 4, Storage: safetensors.I8, Max: 7, ComfyUI: "0.28.0", Banks: bankRelease,
	Takes: []string{"convrot", "convrot-group-size", "full-precision-matmul", "search"}, Gains: true, Weighs: true,
	Refuse: refuseRotation, make: newW4A4, Open: openW4A4, ScaleText: "row", IgnoresInput: true,
	Kin: Kin{Dtype: "int4", Group: -1, Rotated: true}, toSDNQ: w4a4ToSDNQ,
}

func w4a4ToSDNQ(metadata pyjson.Object, _ Codec) (Settings, error) {
	n, err := intOption(metadata, "convrot_groupsize", rotationGroup)
	s := sdnqSettings("int4", -1)
	s.Hadamard, s.HadamardGroupSize = true, n
	return s, err
}

func newW4A4(src Source, s Settings) (Codec, pyjson.Object, error) {
	group := orDefault(s.ConvRotGroupSize, rotationGroup)
	c, err := comfy.NewConvRotW4A4(src.Shape, group, s.AllowNonfinite)
	if err == nil && s.Search {
		c.Search(src.Moments)
	}
	return c, describeNative("convrot_w4a4", s, pyjson.Member{Key: "convrot_groupsize", Value: group}), err
}

func openW4A4(l *Stored) (Codec, error) {
	rows, columns, err := l.codes()
	if err != nil {
		return nil, err
	}
	group, err := intOption(l.Metadata, "convrot_groupsize", rotationGroup)
	if err != nil {
		return nil, err
	}
	c, err := comfy.NewConvRotW4A4([]int{rows, 2 * columns}, group, false)
	return opened(c, err, l)
}
