package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// mxfp8 has blocks of 32 values and powers of two as scales.
var mxfp8 = &Format{
	Name: "mxfp8", Bits: 8, Storage: safetensors.F8_E4M3, Max: 448, ComfyUI: "0.18.0", Banks: bankRelease,
	Takes: []string{"full-precision-matmul", "output-dtype", "scale-as-input", "variant", "search"}, Variant: "dedicated", make: newMXFP8,
	ScaleText: "group 32", IgnoresInput: true, HeaderGroup: 32, Kin: Kin{Dtype: "float8_e4m3fn", Group: 32},
	Open: func(l *Stored) (Codec, error) {
		c, err := openMXFP8(l)
		return opened(c, err, l)
	},
}

func blockOptions(src Source, s Settings) comfy.BlockOptions {
	return comfy.BlockOptions{
		ExactReference: s.ExactReference, AllowNonfinite: s.AllowNonfinite, RoundBF16: s.Variant == "dedicated",
		Search: s.Search, Moments: rotation.Moments(src.Moments, 0),
	}
}

func newMXFP8(src Source, s Settings) (Codec, pyjson.Object, error) {
	c, err := comfy.NewMXFP8(src.Shape, blockOptions(src, s))
	if s.Variant == "dedicated" {
		return c, describeDedicated("mxfp8", s, 32, src.Shape), err
	}
	return c, describe("mxfp8", s, 0), err
}

func openMXFP8(l *Stored) (*comfy.MXFP8, error) {
	rows, columns, err := l.codes()
	if err != nil {
		return nil, err
	}
	takenFor(l, tile.Scale, safetensors.F8_E8M0, safetensors.U8)
	return comfy.NewMXFP8(unpadded(l, rows, columns, 32), comfy.BlockOptions{})
}
