package published

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/tile"
)

// AWQ is what a model's config says of AWQ's layers.
type AWQ struct {
	Bits  int // 0 where it does not say
	Group int // -1 for all columns, 0 where it does not say
}

// NewAWQ describes 4-bit codes of AWQ's gemm version (I32 [columns, rows/8], the even
// rows of eight first), zero points alike (I32 [groups, rows/8]) and scales ([groups,
// rows]).
func NewAWQ(t Tensors, o AWQ) (*Integers, error) {
	codes, scales, zero, err := t.inWords()
	if err != nil {
		return nil, err
	}
	if o.Bits != 0 && o.Bits != 4 {
		return nil, fmt.Errorf("its config says bits %d, and 4 are read", o.Bits)
	}
	w := &Integers{rows: codes.Shape[1] * 8, cols: codes.Shape[0], bits: 4, codes: interleaved, scalesByGroup: true, tensors: []tile.Tensor{codes, scales, zero}}
	w.words = w.cols / 8
	if w.cols%8 > 0 {
		return nil, fmt.Errorf("its codes are of %d columns, want a multiple of 8", w.cols)
	}
	groups := scales.Shape[0]
	if err := shaped(scales, groups, w.rows); err != nil {
		return nil, err
	}
	if err := shaped(zero, groups, w.rows/8); err != nil {
		return nil, err
	}
	w.zeros = zeros{index: 2, lies: zerosInterleaved, all: -1}
	return w, w.grouped(groups, o.Group)
}
