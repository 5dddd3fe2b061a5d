package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/safetensors"
)

// float8Rowwise is convert_to_quant's own format with one scale per row.
var float8Rowwise = &Format{
	Name: "float8_e4m3fn_rowwise", Bits: 8, Storage: safetensors.F8_E4M3, Max: 448, Near: "float8_e4m3fn",
	Scales: map[string]string{"row": "float8_e4m3fn_rowwise"},
	Takes:  []string{"input-scale", "full-precision-matmul", "output-dtype", "scale-as-input", "search"}, Gains: true, Weighs: true,
	make: newRowwise, Open: openRowwise, ScaleText: "row",
	Kin:    Kin{Dtype: "float8_e4m3fn"},
	toSDNQ: func(_ pyjson.Object, c Codec) (Settings, error) { return sdnqSettings("float8_e4m3fn", perRow(c)), nil },
	fromSDNQ: []origin{{"float8_e4m3fn", func(s *sdnq.Scheme) (Settings, bool) {
		return Settings{}, s.GroupSize == -1 && s.Hadamard == 0
	}}},
}

func newRowwise(src Source, s Settings) (Codec, pyjson.Object, error) {
	c, err := rowwise(src, s)
	if err != nil {
		return nil, nil, err
	}
	return finish(c, s, s.InputScale), describe("float8_e4m3fn_rowwise", s, 0), nil
}

// rowwise stores one scale per row in one dimension, a single one in none.
func rowwise(src Source, s Settings) (Codec, error) {
	shape := src.Shape
	scale := []int{}
	if shape[0] != 1 {
		scale = shape[:1]
	}
	return grouped(src, shape[1], scale, s)
}

func grouped(src Source, group int, scale []int, s Settings) (Codec, error) {
	c, err := comfy.NewGrouped(src.Shape, comfy.E4M3Group, group, scale, s.AllowNonfinite)
	if err != nil {
		return nil, err
	}
	if s.Search {
		c.Search(rotation.Moments(src.Moments, 0))
	}
	return c, nil
}

func openRowwise(l *Stored) (Codec, error) {
	rows, columns, err := l.codes()
	if err != nil {
		return nil, err
	}
	c, err := rowwise(Source{Shape: []int{rows, columns}}, Settings{})
	if err != nil {
		return nil, err
	}
	return c, match(c, l)
}
