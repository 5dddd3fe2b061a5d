package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// nvfp4 has blocks of 16 values, a scale each, and one for the tensor.
var nvfp4 = &Format{
	Name: "nvfp4", Bits: 4, Storage: safetensors.U8, Max: 6, ComfyUI: "0.8.0", Banks: bankRelease,
	Takes: []string{"full-precision-matmul", "output-dtype", "scale-as-input", "search", "variant"}, Gains: true, Weighs: true, Variant: "dedicated", make: newNVFP4, Open: openNVFP4,
	ScaleText: "group 16", HeaderGroup: 16, Kin: Kin{Dtype: "float4_e2m1fn", Group: 16},
}

func newNVFP4(src Source, s Settings) (Codec, pyjson.Object, error) {
	c, err := comfy.NewNVFP4(src.Shape, blockOptions(src, s))
	if s.Variant == "dedicated" {
		return c, describeDedicated("nvfp4", s, 16, src.Shape), err
	}
	return c, describe("nvfp4", s, 0), err
}

func openNVFP4(l *Stored) (Codec, error) {
	rows, columns, err := l.codes()
	if err != nil {
		return nil, err
	}
	takenFor(l, tile.Scale, safetensors.U8, safetensors.F8_E4M3)
	c, err := comfy.NewNVFP4(unpadded(l, rows, 2*columns, 16), comfy.BlockOptions{})
	return opened(c, err, l)
}
