package published

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// NewMXFP4Experts describes blocks of codes (U8 [experts, rows, blocks, 16]) and their
// scales (U8 [experts, rows, blocks]), of a weight [experts, columns, rows]: each matrix
// comes out transposed, as the model multiplies by it.
func NewMXFP4Experts(t Tensors) (*Fours, error) {
	codes, err := t.want(tile.Weight, 4, safetensors.U8)
	if err != nil {
		return nil, err
	}
	if codes.Shape[3] != 16 {
		return nil, fmt.Errorf("its codes have shape %v, want blocks of 16 bytes", codes.Shape)
	}
	flat := codes
	flat.Shape = []int{codes.Shape[0], codes.Shape[1], codes.Shape[2] * 16}
	w, err := newFours(Tensors{tile.Weight: flat, tile.Scale: t[tile.Scale]}, 32, safetensors.U8)
	if err != nil {
		return nil, err
	}
	w.tensors[0], w.turned = codes, true
	w.shape = []int{codes.Shape[0], w.cols, codes.Shape[1]}
	return w, nil
}

// Straight is a weight that is stored transposed as it is stored, nil for any other.
func (w *Fours) Straight() *Fours {
	if !w.turned {
		return nil
	}
	s := *w
	s.turned, s.shape = false, []int{w.shape[0], w.bank, w.cols}
	return &s
}
