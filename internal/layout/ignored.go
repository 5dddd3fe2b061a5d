package layout

import (
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
)

// ignores are the tensors beside layers that no reader of a format reads, though
// programs write them, by format.
var ignores = map[string][]string{
	"int8_tensorwise": {".input_scale", ".scale_input"},
	"convrot_w4a4":    {".input_scale", ".scale_input"},
	"asym_w4a8_int8":  {".input_scale", ".scale_input"},
	"awq_w4a16":       {".input_scale", ".scale_input"},
	"mxfp8":           {".input_scale", ".scale_input"},
}

// Ignored are the layer's tensors that its format ignores.
func (l *Layer) Ignored() (list []checkpoint.Tensor) {
	for _, t := range l.Tensors {
		if slices.Contains(ignores[l.Format], t.Name[len(l.Name):]) {
			list = append(list, t)
		}
	}
	return list
}
