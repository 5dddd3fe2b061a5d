package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// hybridMXFP8 is mxfp8 with one more scale for the tensor, which does not
// restore codes that were made with one scale per block. It is read by the
// scales of its blocks, and not written.
var hybridMXFP8 = &Format{
	Name: "hybrid_mxfp8", Bits: 8, Storage: safetensors.F8_E4M3, Max: 448, Near: "mxfp8",
	Takes: []string{"full-precision-matmul"}, Open: openHybrid,
	ReadOnly:  "its one scale for the tensor does not restore codes made with one per block; use mxfp8",
	ScaleText: "group 32", Kin: Kin{Dtype: "float8_e4m3fn", Group: 32},
}

type hybrid struct{ *comfy.MXFP8 }

func (h hybrid) Tensors() []tile.Tensor {
	return append(h.MXFP8.Tensors(), tile.Tensor{Role: tile.Scalar, Dtype: safetensors.F32, Shape: []int{}})
}

// Needed takes nothing of the scale for the tensor.
func (h hybrid) Needed(i int, a tile.Area) []tile.Span {
	if i == 2 {
		return nil
	}
	return h.MXFP8.Needed(i, a)
}

func openHybrid(l *Stored) (Codec, error) {
	m, err := openMXFP8(l)
	return opened(hybrid{m}, err, l)
}
