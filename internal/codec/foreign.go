package codec

import (
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// foreign is a layer as other programs store it, without a description of its
// own. It is read, and not written.
type foreign struct{ *comfy.Foreign }

// Written is nothing: there is no encoder.
func (foreign) Written(int, tile.Area) []tile.Span { return nil }

// NewEncoder returns nil.
func (foreign) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// IsForeign reports whether a codec is of a layer that is read and not written.
func IsForeign(c Codec) bool {
	if _, narrow := c.(narrowScale); narrow {
		return true
	}
	_, ok := c.(foreign)
	return ok || IsPublished(c)
}

// Blocks are what a program's convention, or its config, says of the blocks
// that share a scale, where the shape of the scales leaves it open.
type Blocks struct {
	Rows, Cols int  // 0 for not said
	Divide     bool // equal blocks, where some fit, go before blocks of 128
	Only       bool // a matrix of scales is one of blocks of that size and no other
}

// OpenForeign makes the codec of a layer of 8-bit codes with scales alone, and
// describes it by convert_to_quant's name for what it is nearest to.
func OpenForeign(l *Stored, b Blocks) (Codec, pyjson.Object, error) {
	codes, scale := l.Tensors[tile.Weight], l.Tensors[tile.Scale]
	side, ok := sharing(codes.Shape, scale.Shape, b)
	if !ok {
		return nil, foreignName(codes, "", 0), fmt.Errorf("its scale has shape %v, which does not fit a weight of shape %v%s", scale.Shape, codes.Shape, b.words())
	}
	granularity := "block"
	rows, cols := lastRows(codes.Shape)
	switch {
	case side.rows >= rows && side.cols >= cols:
		granularity = "tensor"
	case side.rows == 1 && side.cols >= cols:
		granularity = "row"
	case side.rows == 1:
		granularity = "group"
	}
	o := foreignName(codes, granularity, side.cols)
	switch {
	case granularity == "group" && scale.Dtype == safetensors.F8_E8M0:
		return nil, o, fmt.Errorf("it has a power of two for every %d columns: MX scales by rows, not in the tiles of ComfyUI's mxfp8: start from the original", side.cols)
	case granularity == "group" && codes.Dtype == safetensors.I8 && !b.Divide && b.Rows == 0:
		return nil, o, fmt.Errorf("it has a scale for every %d columns, and programs differ in how they store integers in groups: start from the original", side.cols)
	}
	f, err := comfy.NewForeign(codes, scale, side.rows, side.cols)
	if err != nil {
		return nil, o, err
	}
	return foreign{f}, o, nil
}

func (b Blocks) words() string {
	if !b.Only {
		return ""
	}
	return fmt.Sprintf(" in blocks of %d×%d", b.Rows, b.Cols)
}

// foreignNames are the formats nearest to codes with scales of a granularity.
var foreignNames = map[safetensors.Dtype]map[string]string{
	safetensors.F8_E4M3: {
		"": "float8_e4m3fn", "tensor": "float8_e4m3fn", "row": "float8_e4m3fn_rowwise",
		"block": "float8_e4m3fn_blockwise", "group": "float8_e4m3fn_block3d",
	},
	safetensors.F8_E5M2: {"": "float8_e5m2", "tensor": "float8_e5m2", "row": "float8_e5m2", "block": "float8_e5m2", "group": "float8_e5m2"},
	safetensors.I8:      {"": "int8_tensorwise", "tensor": "int8_tensorwise", "row": "int8_tensorwise", "block": "int8_blockwise", "group": "int8_blockwise"},
}

func foreignName(codes tile.Tensor, granularity string, size int) pyjson.Object {
	o := pyjson.Object{{Key: "format", Value: foreignNames[codes.Dtype][granularity]}}
	if granularity == "block" || granularity == "group" {
		o = append(o, pyjson.Member{Key: "group_size", Value: size})
	}
	return o
}

// lastRows is a shape taken as rows of the last dimension.
func lastRows(shape []int) (rows, cols int) {
	if len(shape) == 0 {
		return 1, 1
	}
	last := len(shape) - 1
	return tile.Numel(shape[:last]), shape[last]
}

type block struct{ rows, cols int }

// sharing tells the blocks that have a scale each, as rows and columns of the
// weight as a matrix, from the shape of the scales: one for all; one a row, in
// one dimension or more; a matrix of blocks, likewise for each of several
// matrices; groups along rows, as [rows, groups, 1]; else square blocks one
// after the other.
func sharing(weight, scale []int, b Blocks) (block, bool) {
	if len(weight) < 1 || tile.Numel(weight) < 1 || tile.Numel(scale) < 1 {
		return block{}, false
	}
	rows, cols := lastRows(weight)
	perRow := block{1, cols}
	if tile.Numel(scale) == 1 {
		return block{rows, cols}, true
	}
	if b.Only && len(scale) == 2 && len(weight) == 2 {
		if scale[1] == 1 && scale[0] == rows && tile.CeilDiv(rows, max(b.Rows, 1)) != rows {
			return perRow, true
		}
		return b.fit(rows, cols, scale)
	}
	switch {
	case len(weight) > 2 && scale[0] == weight[0] && tile.Numel(scale) == weight[0]:
		return block{rows / weight[0], cols}, true
	case scale[0] == rows && tile.Numel(scale) == rows:
		return perRow, true
	case len(weight) == 3 && len(scale) == 3 && scale[0] == weight[0]:
		return stacked(weight, scale, b)
	case len(weight) != 2:
		return block{}, false
	case len(scale) == 3 && scale[0] == rows && scale[2] == 1 && cols%scale[1] == 0:
		return block{1, cols / scale[1]}, true
	case len(scale) == 2:
		return b.fit(rows, cols, scale)
	case len(scale) == 1:
		return squares(rows, cols, scale[0])
	}
	return block{}, false
}

// stacked are matrices one upon the other, whose blocks must not overlap.
func stacked(weight, scale []int, b Blocks) (block, bool) {
	if scale[1] == weight[1] && scale[2] == 1 {
		return block{1, weight[2]}, true
	}
	one, ok := b.fit(weight[1], weight[2], scale[1:])
	return one, ok && weight[1]%one.rows == 0
}

// fit returns the size of blocks of which a matrix has that many: what the
// config says, else equal squares or 128 by 128 with smaller ones at the edges,
// else equal rectangles.
func (b Blocks) fit(rows, cols int, scale []int) (block, bool) {
	ceil := func(r, c int) (block, bool) {
		return block{r, c}, r > 0 && c > 0 && tile.CeilDiv(rows, r) == scale[0] && tile.CeilDiv(cols, c) == scale[1]
	}
	equal := func(square bool) (block, bool) {
		one := block{rows / scale[0], cols / scale[1]}
		return one, rows%scale[0] == 0 && cols%scale[1] == 0 && (!square || one.rows == one.cols)
	}
	tries := []func() (block, bool){
		func() (block, bool) { return ceil(b.Rows, b.Cols) },
		func() (block, bool) { return ceil(blockSide, blockSide) },
		func() (block, bool) { return equal(false) },
	}
	switch {
	case b.Only:
		tries = tries[:1]
	case b.Divide:
		tries = append([]func() (block, bool){func() (block, bool) { return equal(true) }}, tries...)
	}
	for _, try := range tries {
		if one, ok := try(); ok {
			return one, true
		}
	}
	return block{}, false
}

// squares are equal square blocks of that number.
func squares(rows, cols, n int) (block, bool) {
	side := int(math.Round(math.Sqrt(float64(rows) * float64(cols) / float64(n))))
	ok := side > 0 && rows%side == 0 && cols%side == 0 && rows/side*(cols/side) == n
	return block{side, side}, ok
}
