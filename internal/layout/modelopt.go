package layout

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// nvfp4ByRows is nvfp4 as ModelOpt and others store it, whose scales lie by rows.
var nvfp4ByRows = &publication{
	Layout: &Layout{Name: "nvfp4", suffixes: map[tile.Role]string{
		tile.Weight: ".weight", tile.Scale: ".weight_scale", tile.Scale2: ".weight_scale_2",
	}},
	is: "nvfp4 by rows", dtypes: u8, tells: []tile.Role{tile.Scale2}, with: inputScales[:1], methods: []string{"NVIDIA ModelOpt", "NVFP4"},
	when: func(m *Model, _ checkpoint.Tensor, _ string) bool {
		return m.Declared != nil && m.Declared.known || m.scalesByRows()
	},
	open: func(_ *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
		return openFours(nil, func() (*published.Fours, error) { return published.NewNVFP4(t, false) })
	},
}

// scalesByRows reports whether the shapes of one layer at least show that the scales of
// nvfp4 lie by rows: those of ComfyUI's lie in tiles, which are whole.
func (m *Model) scalesByRows() bool {
	if m.byRows == nil {
		by := slices.ContainsFunc(m.Checkpoint.Tensors, func(t checkpoint.Tensor) bool {
			name, ok := strings.CutSuffix(t.Name, weightSuffix)
			scale, found := m.Checkpoint.Lookup(Bare.TensorName(name, tile.Scale))
			_, second := m.Checkpoint.Lookup(Bare.TensorName(name, tile.Scale2))
			if !ok || !found || !second || len(t.Shape) != 2 || !slices.Contains(u8, t.Dtype) {
				return false
			}
			rows := []int{t.Shape[0], t.Shape[1] / 8}
			return slices.Equal(scale.Shape, rows) && !tiled(rows)
		})
		m.byRows = &by
	}
	return *m.byRows
}
