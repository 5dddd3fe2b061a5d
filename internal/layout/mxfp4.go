package layout

import (
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// mxfp4Experts are the experts of gpt-oss, of a parameter that has no module of its own.
var mxfp4Experts = &publication{
	Layout: &Layout{Name: "mxfp4", suffixes: map[tile.Role]string{tile.Weight: "_blocks", tile.Scale: "_scales"}, parameter: true},
	is:     "MXFP4", dtypes: u8, tells: []tile.Role{tile.Scale}, methods: []string{"MXFP4"},
	open: func(_ *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
		return openFours(nil, func() (*published.Fours, error) { return published.NewMXFP4Experts(t) })
	},
}

// mxfp4Rows are the experts of DeepSeek-V4, each a weight of its own, under either name of
// the scales: two codes to a byte, as the number of scales shows.
var (
	mxfp4Rows    = mxfp4Scaled(".scale")
	mxfp4RowsInv = mxfp4Scaled(".weight_scale_inv")
)

func mxfp4Scaled(scale string) *publication {
	return &publication{
		Layout: &Layout{Name: "mxfp4", suffixes: map[tile.Role]string{tile.Weight: weightSuffix, tile.Scale: scale}},
		is:     "MXFP4", dtypes: []safetensors.Dtype{safetensors.I8, safetensors.U8}, tells: []tile.Role{tile.Scale}, methods: []string{"FP8", "MXFP4"},
		when: func(m *Model, codes checkpoint.Tensor, name string) bool {
			by, _ := m.Checkpoint.Lookup(name + scale)
			return by.Dtype == safetensors.F8_E8M0 && len(codes.Shape) > 1 && slices.Equal(by.Shape, slices.Concat(codes.Shape[:len(codes.Shape)-1], []int{codes.Shape[len(codes.Shape)-1] / 16}))
		},
		open: func(_ *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
			return openFours(nil, func() (*published.Fours, error) { return published.NewMXFP4(t) })
		},
	}
}
