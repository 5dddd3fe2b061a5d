package codec

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// float8Block3D has one scale for a group of values along a row.
// convert_to_quant makes it from older files alone, and reads it by the shape
// of its scale.
var float8Block3D = &Format{
	Name: "float8_e4m3fn_block3d", Bits: 8, Storage: safetensors.F8_E4M3, Max: 448, Near: "float8_e4m3fn",
	Takes: []string{"block-size", "input-scale", "full-precision-matmul", "output-dtype", "scale-as-input", "search"}, Gains: true, Weighs: true,
	Refuse: refuseBlocks, make: newBlock3D, Open: openBlock3D,
	ScaleText: "block", Kin: Kin{Dtype: "float8_e4m3fn"}, told: toldBlock3D,
}

// toldBlock3D counts blocks, whose size no metadata tell.
func toldBlock3D(g *storage.Settings, _ pyjson.Object, c Codec) {
	if blocks := tile.Numel(c.Tensors()[1].Shape) / max(c.Shape()[0], 1); blocks > 0 {
		g.BlockSize = new(c.Shape()[1] / blocks)
	}
}

func newBlock3D(src Source, s Settings) (Codec, pyjson.Object, error) {
	c, err := block3D(src, orDefault(s.BlockSize, blockSide), s)
	if err != nil {
		return nil, nil, err
	}
	if s.InputScale {
		c = withInputScale{c, 1}
	}
	return c, describe("float8_e4m3fn_block3d", s, 0), nil
}

func block3D(src Source, size int, s Settings) (Codec, error) {
	shape := src.Shape
	if size < 1 || shape[1]%size != 0 {
		return nil, fmt.Errorf("blocks of %d do not divide %d columns", size, shape[1])
	}
	return grouped(src, size, []int{shape[0], shape[1] / size, 1}, s)
}

func openBlock3D(l *Stored) (Codec, error) {
	rows, columns, err := l.codes()
	if err != nil {
		return nil, err
	}
	scale := l.Tensors[tile.Scale].Shape
	blocks := 1
	if len(scale) == 3 && scale[1] > 0 {
		blocks = scale[1]
	}
	c, err := block3D(Source{Shape: []int{rows, columns}}, columns/blocks, Settings{})
	if err != nil {
		return nil, err
	}
	return c, match(c, l)
}
