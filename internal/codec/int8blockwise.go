package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/safetensors"
)

// int8Blockwise is convert_to_quant's own format with one scale per square
// block, and always an input scale.
var int8Blockwise = &Format{
	Name: "int8_blockwise", Bits: 8, Storage: safetensors.I8, Max: 127, Near: "int8_tensorwise",
	Scales: map[string]string{"block": "int8_blockwise"},
	Takes:  []string{"block-size", "input-scale", "full-precision-matmul", "output-dtype", "scale-as-input", "search"}, Gains: true,
	Refuse: refuseBlocks, make: newInt8Blocks, Open: openBlocks(comfy.Int8Block),
	ScaleText: "block", NamesBlock: true, Kin: Kin{Dtype: "int8"},
}

func newInt8Blocks(src Source, s Settings) (Codec, pyjson.Object, error) {
	size := orDefault(s.BlockSize, blockSide)
	c, err := newBlocks(src.Shape, comfy.Int8Block, size, s)
	if err != nil {
		return nil, nil, err
	}
	return finish(c, s, true), describe("int8_blockwise", s, size), nil
}
