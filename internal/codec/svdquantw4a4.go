package codec

import (
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// svdquantW4A4 is comfy-kitchen's layout of SVDQuant, for which ComfyUI has no format:
// 4-bit codes in groups of 64, a low-rank part, and factors that inputs are divided by.
var svdquantW4A4 = &Format{
	Name: "svdquant_w4a4", Bits: 4, Storage: safetensors.I8, Max: 7, Near: "convrot_w4a4",
	Takes: []string{"full-precision-matmul"}, Open: openSVDQuant, IgnoresInput: true,
	ReadOnly:  "comfy-kitchen has the layout, and ComfyUI no format of that name to load it by; use convrot_w4a4",
	ScaleText: "group 64", Kin: Kin{Dtype: "int4", Group: comfy.SVDGroup},
}

func openSVDQuant(l *Stored) (Codec, error) {
	if len(l.Tensors[tile.Weight].Shape) == 4 {
		return nil, errors.New("its codes lie in tiles for one kind of processor: only those that lie row by row are read")
	}
	rows, bytes, err := l.codes()
	if err != nil {
		return nil, err
	}
	scale, down := l.Tensors[tile.Scale], l.Tensors[tile.ProjDown]
	if !Floats(scale.Dtype) {
		return nil, fmt.Errorf("scale is %s, want BF16, F16 or F32", scale.Dtype)
	}
	if len(down.Shape) != 2 {
		return nil, fmt.Errorf("%s is %v, want [columns, rank]", tile.ProjDown, down.Shape)
	}
	c, err := comfy.NewSVDQuant([]int{rows, 2 * bytes}, down.Shape[1], scale.Dtype)
	return opened(c, err, l)
}
