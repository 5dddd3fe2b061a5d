package codec

import (
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// svdquantW4A4 is comfy-kitchen's layout of SVDQuant, for which ComfyUI has no format:
// 4-bit codes in groups of 64, a low-rank part, and factors that inputs are divided by.
// The reference loads it and cannot make it: the codes are SDNQ's int4.
var svdquantW4A4 = &Format{
	Name: "svdquant_w4a4", Bits: 4, Storage: safetensors.I8, Max: 7, Near: "convrot_w4a4",
	Takes: []string{"svd-rank", "svd-steps", "svd-refit", "full-precision-matmul", "search"}, Gains: true, Weighs: true, Smooths: true,
	Refuse: refuseSVDQuant, make: newSVDQuant, Open: openSVDQuant, told: tellRank, IgnoresInput: true,
	ScaleText: "group 64", Kin: Kin{Dtype: "int4", Group: comfy.SVDGroup},
}

// svdRank is the rank of the part where none is given: that of published SVDQuant models.
const svdRank = 32

func refuseSVDQuant(s Settings) error {
	if s.SVDRank < 0 || s.NoRank {
		return fmt.Errorf("svdquant_w4a4 has a low-rank part of rank 1 or more, not %d", s.SVDRank)
	}
	return s.refuseRankSearch()
}

// tellRank says the rank that a stored layer has.
func tellRank(g *storage.Settings, _ pyjson.Object, c Codec) {
	if t := c.Tensors(); len(t) > 2 && t[2].Role == tile.ProjDown {
		rank := t[2].Shape[1]
		g.SVDRank = &rank
	}
}

// newSVDQuant has scales and factors in BF16, which comfy-kitchen's kernels take.
func newSVDQuant(src Source, s Settings) (Codec, pyjson.Object, error) {
	smooth := smoothing(src.Moments)
	s.Dtype, s.GroupSize, s.SVDRank, s.Kind = "int4", comfy.SVDGroup, orDefault(s.SVDRank, svdRank), sdnq.Linear
	o, err := s.options(src)
	if err != nil {
		return nil, nil, err
	}
	o.ScaleDtype, o.Unrounded = safetensors.BF16, true
	o.Smooth, o.Moments = smooth, smoothedMoments(src.Moments, smooth)
	o.ModelDtype, o.SourceDtype = safetensors.BF16, safetensors.BF16 // of the factors: values stay as they are
	if _, err := comfy.NewSVDQuant(src.Shape, s.SVDRank, safetensors.BF16); err != nil {
		return nil, nil, err // a shape that SDNQ would group otherwise
	}
	scheme, err := sdnq.NewScheme(src.Shape, o)
	if err != nil {
		return nil, nil, err
	}
	c, err := comfy.NewSVDQuant(src.Shape, scheme.Rank, safetensors.BF16)
	if err != nil {
		return nil, nil, err
	}
	return &svdquant{c, scheme, smooth}, describeNative("svdquant_w4a4", s), nil
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
