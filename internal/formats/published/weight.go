// Package published reads weights as other programs publish them quantized: a small
// file for each of their formats, which knows how codes, scales and zero points lie and
// what they stand for. Nothing is written in these formats.
package published

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Weight is a weight that can be restored area by area.
type Weight interface {
	// Shape is that of the restored weight.
	Shape() []int
	// Tensors are what is stored; the codes come first.
	Tensors() []tile.Tensor
	Cut() tile.Cut
	// Needed returns the bytes of stored tensor i that decoding an area takes.
	Needed(i int, a tile.Area) []tile.Span
	// Decode fills dst with the values of an area in single precision, from the bytes
	// that Needed names.
	Decode(dst []float32, src [][]byte, a tile.Area, s *tile.Scratch)
}

// Sharing is a weight of which every area takes all of some stored tensors.
type Sharing interface {
	Weight
	// Shared returns the indices of these tensors.
	Shared() []int
	// WithShared returns a weight that holds their contents, so that no area needs them.
	// The error says what is wrong with these.
	WithShared(src [][]byte) (Weight, error)
}

// ByColumns is a weight whose codes may be stored column by column.
type ByColumns interface {
	Weight
	// ByRows returns a weight that takes its codes in row-major order, and the function
	// that writes a few stored columns of some rows, the first of them column, into all
	// columns of these rows; nil where codes lie by rows.
	ByRows() (w Weight, transpose func(dst, src []byte, column int))
}

// ScalesByColumns is a weight of which [ByColumns.ByRows] takes the scales turned around as
// the codes are: a byte for each of some rows.
type ScalesByColumns interface {
	ByColumns
	// ScaleRows is how many rows share a scale.
	ScaleRows() int
}

// Direct is a weight that may be decoded to BF16 at once.
type Direct interface {
	Weight
	// DecodeBF16 fills dst with the values of an area rounded to BF16. It reports false, and
	// dst is anything, unless all of them are finite.
	DecodeBF16(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch) bool
}

// InStrips is a weight whose codes lie by columns, and which decodes to BF16 at once from
// strips of a few rows.
type InStrips interface {
	Weight
	// InStrips returns a weight that takes its codes in strips, and the function that writes
	// a few stored columns of some rows, the first of them column, into the strips of these
	// rows; nil where there is none. Areas are of whole strips.
	InStrips() (w Weight, gather func(dst, src []byte, column int))
}

// Tensors are the stored tensors of a weight, by role.
type Tensors map[tile.Role]tile.Tensor

// want returns the tensor of a role if it has one of the dtypes and that many
// dimensions.
func (t Tensors) want(role tile.Role, dimensions int, dtypes ...safetensors.Dtype) (tile.Tensor, error) {
	one, ok := t[role]
	switch {
	case !ok:
		return one, fmt.Errorf("its %s are missing", plural[role])
	case !slices.Contains(dtypes, one.Dtype):
		return one, fmt.Errorf("its %s are %s, want %s", plural[role], one.Dtype, oneOf(dtypes))
	case tile.Numel(one.Shape) == 0:
		return one, fmt.Errorf("its %s have shape %v, which holds nothing", plural[role], one.Shape)
	case len(one.Shape) != dimensions:
		return one, fmt.Errorf("its %s have shape %v, want %d dimensions", plural[role], one.Shape, dimensions)
	}
	return one, nil
}

// shaped returns an error unless a tensor has that shape.
func shaped(t tile.Tensor, shape ...int) error {
	if !slices.Equal(t.Shape, shape) {
		return fmt.Errorf("its %s have shape %v, want %v", plural[t.Role], t.Shape, shape)
	}
	return nil
}

// plural is what a message calls the tensors of a role.
var plural = map[tile.Role]string{
	tile.Weight: "codes", tile.Scale: "scales", tile.Zeros: "zero points", tile.GroupOfColumn: "groups of columns",
	tile.Scale2: "second scales", tile.Codebook: "levels", tile.NestedCodebook: "levels of scales",
}

func oneOf(dtypes []safetensors.Dtype) (text string) {
	for i, d := range dtypes {
		switch {
		case i > 0 && i == len(dtypes)-1:
			text += " or "
		case i > 0:
			text += ", "
		}
		text += d.String()
	}
	return text
}

var (
	words  = []safetensors.Dtype{safetensors.I32, safetensors.U32}
	floats = []safetensors.Dtype{safetensors.F16, safetensors.BF16, safetensors.F32}
)
