package layout

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bareFormats are ComfyUI's formats that names and dtypes show even without a
// description. packed is the codes per stored element, block the columns that
// share a scale.
var bareFormats = []struct {
	format        string
	codes         safetensors.Dtype
	scales        []safetensors.Dtype
	scale2        bool // has a second scale, for the whole tensor
	packed, block int
}{
	{"nvfp4", safetensors.U8, []safetensors.Dtype{safetensors.F8_E4M3, safetensors.U8}, true, 2, 16},
	{"mxfp8", safetensors.F8_E4M3, []safetensors.Dtype{safetensors.F8_E8M0, safetensors.U8}, false, 1, 32},
}

// bareFormat returns the row and the scale of a weight in such a format, row -1 if it
// is in none. Power-of-two scales for larger blocks belong to another program's format.
func (m *Model) bareFormat(name string, weight checkpoint.Tensor) (row int, scale checkpoint.Tensor) {
	scale, ok := m.Checkpoint.Lookup(Bare.TensorName(name, tile.Scale))
	if !ok || len(weight.Shape) != 2 {
		return -1, scale
	}
	_, second := m.Checkpoint.Lookup(Bare.TensorName(name, tile.Scale2))
	for i, f := range bareFormats {
		if weight.Dtype != f.codes || second != f.scale2 || !slices.Contains(f.scales, scale.Dtype) {
			continue
		}
		if f.scale2 || scale.Numel() >= weight.Numel()*f.packed/f.block {
			return i, scale
		}
	}
	return -1, scale
}

func (m *Model) bare(name string, weight checkpoint.Tensor) (checkpoint.Tensor, bool) {
	i, scale := m.bareFormat(name, weight)
	return scale, i >= 0
}

// openBare opens a layer whose scales lie in ComfyUI's order, tiles of 128 rows by 4
// columns. Other programs use the same names but store scales row by row. Their layers
// are refused if a config names the program or if the shape is not padded to tiles.
func (m *Model) openBare(l *Layer) {
	s := m.stored(l, Bare, slices.Concat(inputScales[:1], []string{PreQuantScale})...)
	s.Hint = m.shapeHint(l.Name, nil, -2)
	weight, _ := m.Checkpoint.Lookup(l.Name + weightSuffix)
	i, scale := m.bareFormat(l.Name, weight)
	row := bareFormats[i]
	l.Format, l.Dtype = row.format, row.format
	k := m.kinds.described(pyjson.Object{{Key: "format", Value: row.format}})
	l.Options = k.options
	if d := m.Declared; d != nil && d.known {
		l.fail(byRows(d.Method, l))
		return
	}
	if byRow := []int{weight.Shape[0], weight.Shape[1] * row.packed / row.block}; slices.Equal(scale.Shape, byRow) && !tiled(byRow) {
		l.byRows = true
		l.fail(byRows(row.format, l))
		return
	}
	o := k.open(s, func() (o opened) {
		f, err := codec.ByName(row.format)
		if err == nil {
			o.codec, err = f.Open(s)
		}
		o.err = err
		return o
	})
	if m.open(l, o); l.Err != nil {
		l.Err = fmt.Errorf("%s: %s: %w", row.format, names(l.Tensors), l.Err)
	}
}

func byRows(is string, l *Layer) error {
	return fmt.Errorf("%s: %s: the scales of its blocks lie by rows, not in the tiles of ComfyUI's: %s", is, names(l.Tensors), startOver)
}

// tiled reports whether scales of that shape can lie in tiles.
func tiled(scale []int) bool { return scale[0]%128 == 0 && scale[1]%4 == 0 }

// agreeOnOrder refuses all layers of a format if the shape of one of them shows that
// its scales lie by rows, since the others do then as well.
func (m *Model) agreeOnOrder() {
	told := map[string]bool{}
	for _, l := range m.Layers {
		told[l.Format] = told[l.Format] || l.byRows
	}
	for _, l := range m.Layers {
		if l.Layout == Bare && told[l.Format] && l.Err == nil {
			l.fail(byRows(l.Format, l))
		}
	}
}
