package layout

import (
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
)

// ignorable are the names that programs give to scales of activations, see
// [codec.Format.IgnoresInput].
var ignorable = []string{".input_scale", ".scale_input"}

// Ignored returns those of the layer's tensors that its format ignores.
func (l *Layer) Ignored() (list []checkpoint.Tensor) {
	if f := codec.Lookup(l.Format); f == nil || !f.IgnoresInput {
		return nil
	}
	for _, t := range l.Tensors {
		if slices.Contains(ignorable, t.Name[len(l.Name):]) {
			list = append(list, t)
		}
	}
	return list
}
