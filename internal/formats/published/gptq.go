package published

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/tile"
)

// GPTQ is what a model's config says of GPTQ's layers.
type GPTQ struct {
	Bits  int // 0 where it does not say
	Group int // -1 for all columns, 0 where it does not say
	// ZeroLess says that zero points are stored one less than they are, as in the first
	// version of the format.
	ZeroLess bool
	// Symmetric says that all zero points are in the middle; Ordered, if not nil, whether
	// columns are in groups in an order of their own.
	Symmetric bool
	Ordered   *bool
}

// gptqBits are the widths of codes in the format.
var gptqBits = []int{2, 3, 4, 8}

// inWords returns codes and zero points in words, and the scales between them, of which
// GPTQ and AWQ have matrices.
func (t Tensors) inWords() (codes, scales, zero tile.Tensor, err error) {
	if codes, err = t.want(tile.Weight, 2, words...); err == nil {
		scales, err = t.want(tile.Scale, 2, floats...)
	}
	if err == nil {
		zero, err = t.want(tile.Zeros, 2, words...)
	}
	return codes, scales, zero, err
}

// NewGPTQ describes codes (I32 [columns·bits/32, rows], packed along columns), scales
// ([groups, rows]), zero points (I32 [groups, rows·bits/32]) and, if they are there, the
// groups of columns (I32 [columns]).
func NewGPTQ(t Tensors, o GPTQ) (*Integers, error) {
	codes, scales, zero, err := t.inWords()
	if err != nil {
		return nil, err
	}
	w := &Integers{rows: codes.Shape[1], words: codes.Shape[0], codes: packedColumns, scalesByGroup: true, tensors: []tile.Tensor{codes, scales, zero}}
	groups := scales.Shape[0]
	if err := shaped(scales, groups, w.rows); err != nil {
		return nil, err
	}
	if w.bits, err = o.width(zero, w.rows); err != nil {
		return nil, err
	}
	if w.bits == 3 && w.words%3 != 0 {
		return nil, fmt.Errorf("its codes have shape %v, and 3-bit ones fill three words at a time", codes.Shape)
	}
	if err := shaped(zero, groups, tile.CeilDiv(w.rows*w.bits, 32)); err != nil {
		return nil, err
	}
	w.cols = w.words * 32 / w.bits
	if err := w.ordered(t, &o); err != nil {
		return nil, err
	}
	if err := w.grouped(groups, o.Group); err != nil {
		return nil, err
	}
	w.zeros = zeros{index: 2, lies: zerosByGroup, all: -1}
	if o.ZeroLess {
		w.zeros.constant = 1
	}
	if o.Symmetric {
		w.zeros.all, w.zeros.why = 1<<(w.bits-1), "its config says sym"
	}
	return w, nil
}

// width is the number of bits of codes of that many rows, as zero points and config tell.
func (o *GPTQ) width(zero tile.Tensor, rows int) (int, error) {
	fits := func(bits int) bool { return tile.CeilDiv(rows*bits, 32) == zero.Shape[1] }
	bits := o.Bits
	if bits == 0 {
		if i := slices.IndexFunc(gptqBits, fits); i >= 0 {
			bits = gptqBits[i]
		}
	}
	switch {
	case bits != 0 && !slices.Contains(gptqBits, bits):
		return 0, fmt.Errorf("its config says bits %d, and 2, 3, 4 and 8 are read", bits)
	case bits == 0 || !fits(bits):
		return 0, fmt.Errorf("its config says bits %d, and zero points of shape %v for %d rows are of %d", o.Bits, zero.Shape, rows, zero.Shape[1]*32/max(rows, 1))
	}
	return bits, nil
}

// ordered takes the groups of columns, which tell the columns where the last words are
// not full.
func (w *Integers) ordered(t Tensors, o *GPTQ) error {
	if _, ok := t[tile.GroupOfColumn]; !ok {
		if o.Ordered != nil && *o.Ordered {
			return fmt.Errorf("its config says desc_act, and there is no g_idx")
		}
		return nil
	}
	columns, err := t.want(tile.GroupOfColumn, 1, words...)
	if err != nil {
		return err
	}
	if n := columns.Shape[0]; n > w.cols || n <= w.cols-32 {
		return fmt.Errorf("its g_idx is of %d columns, and its codes are of %d", n, w.cols)
	}
	w.cols, w.unordered = columns.Shape[0], o.Ordered != nil && !*o.Ordered
	w.tensors = append(w.tensors, columns)
	return nil
}

// grouped takes the size of groups from how many there are, and from a config that says
// a size.
func (w *Integers) grouped(groups, said int) error {
	w.group = tile.CeilDiv(w.cols, groups)
	switch {
	case said == -1 && groups != 1:
		return fmt.Errorf("its config says group_size -1, and its scales are of %d groups", groups)
	case said > 0 && tile.CeilDiv(w.cols, said) != groups:
		return fmt.Errorf("its config says group_size %d, and its scales are of %d groups for %d columns", said, groups, w.cols)
	case said > 0:
		w.group = min(said, w.cols)
	case w.cols%groups != 0:
		return fmt.Errorf("its scales are of %d groups for %d columns, and nothing says how large a group is", groups, w.cols)
	}
	return nil
}
