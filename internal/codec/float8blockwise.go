package codec

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// float8Blockwise is convert_to_quant's own format with one scale per square
// block.
var float8Blockwise = &Format{
	Name: "float8_e4m3fn_blockwise", Bits: 8, Storage: safetensors.F8_E4M3, Max: 448, Near: "float8_e4m3fn",
	Scales: map[string]string{"block": "float8_e4m3fn_blockwise"},
	Takes:  []string{"block-size", "input-scale", "full-precision-matmul", "output-dtype", "scale-as-input", "search"}, Gains: true,
	Refuse: refuseBlocks, make: newFloat8Blocks, Open: openBlocks(comfy.E4M3Group),
	ScaleText: "block", NamesBlock: true, Kin: Kin{Dtype: "float8_e4m3fn"},
}

const blockSide = 128

func refuseBlocks(s Settings) error {
	if s.BlockSize < 0 {
		return fmt.Errorf("block size %d: want 1 or more", s.BlockSize)
	}
	return nil
}

// newFloat8Blocks follows convert_to_quant, where its bytes are asked for, also
// in that rows get a scale each where blocks do not fit, with the same JSON.
func newFloat8Blocks(src Source, s Settings) (Codec, pyjson.Object, error) {
	size := orDefault(s.BlockSize, blockSide)
	c, err := newBlocks(src.Shape, comfy.E4M3Group, size, s)
	if err != nil && s.ExactReference {
		c, err = rowwise(src, s)
	}
	if err != nil {
		return nil, nil, err
	}
	return finish(c, s, s.InputScale), describe("float8_e4m3fn_blockwise", s, size), nil
}

func newBlocks(shape []int, rule *comfy.ScaleRule, size int, s Settings) (Codec, error) {
	c, err := comfy.NewBlocks(shape, rule, size, s.AllowNonfinite)
	if err != nil {
		return nil, err
	}
	if s.Search {
		c.Search()
	}
	return c, nil
}

// openBlocks takes the scale's shape: one per block, per row, or for all.
func openBlocks(rule *comfy.ScaleRule) func(*Stored) (Codec, error) {
	return func(l *Stored) (Codec, error) {
		rows, columns, err := l.codes()
		if err != nil {
			return nil, err
		}
		shape, scale := []int{rows, columns}, l.Tensors[tile.Scale].Shape
		var c Codec
		switch {
		case tile.Numel(scale) == 1:
			c, err = newScaled(Source{Shape: shape}, rule, false, Settings{})
		case len(scale) == 2 && scale[0] > 0:
			c, err = newBlocks(shape, rule, rows/scale[0], Settings{})
		default:
			c, err = rowwise(Source{Shape: shape}, Settings{})
		}
		if err != nil {
			return nil, err
		}
		return c, match(c, l)
	}
}
