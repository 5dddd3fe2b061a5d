package layout

import (
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// mxfp4Experts are the experts of gpt-oss, of a parameter that has no module of its own.
var mxfp4Experts = &publication{
	Layout: &Layout{Name: "mxfp4", suffixes: map[tile.Role]string{tile.Weight: "_blocks", tile.Scale: "_scales"}, parameter: true},
	is:     "MXFP4", dtypes: u8, tells: []tile.Role{tile.Scale}, methods: []string{"MXFP4"},
	open: func(_ *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
		return openFours(nil, func() (*published.Fours, error) { return published.NewMXFP4Experts(t) })
	},
}
