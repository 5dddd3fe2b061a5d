package published

import (
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Compressed is what a config of compressed-tensors says of a layer, and its own
// weight_shape.
type Compressed struct {
	Bits      int    // 0 where nothing says
	Strategy  string // "" where nothing says
	Group     int    // 0 where nothing says
	Symmetric *bool  // nil where nothing says
	Shape     []int  // of the weight; nil where nothing says
	// Spaced says that codes are packed as programs before 0.18 did, in each word as many
	// as are whole in it; nil where nothing says.
	Spaced *bool
}

// NewPacked describes pack-quantized integers: codes (I32, packed along each row of
// columns, in a stream of bits or spaced), scales ([rows, groups], or one), zero points (I32, packed along each group)
// and the groups of columns where there are any.
func NewPacked(t Tensors, o Compressed) (*Integers, error) {
	codes, err := t.want(tile.Weight, 2, words...)
	if err != nil {
		return nil, err
	}
	w := &Integers{rows: codes.Shape[0], words: codes.Shape[1], bits: o.Bits, codes: packedRows, tensors: []tile.Tensor{codes}}
	if len(o.Shape) != 2 || o.Shape[0] != w.rows || o.Shape[1] < 1 {
		return nil, fmt.Errorf("its weight_shape is %v, and its codes have shape %v", o.Shape, codes.Shape)
	}
	w.cols = o.Shape[1]
	if w.bits == 0 {
		w.bits = w.words * 32 / w.cols
	}
	if w.bits < 1 || w.bits > 8 || !w.packedAs(o) {
		return nil, fmt.Errorf("its config says num_bits %d, and its codes have shape %v for a weight of %v", o.Bits, codes.Shape, o.Shape)
	}
	if err := w.compressed(t, o); err != nil {
		return nil, err
	}
	w.zeros.constant = 1 << (w.bits - 1)
	if _, ok := t[tile.Zeros]; ok {
		zero, err := t.want(tile.Zeros, 2, words...)
		if err != nil {
			return nil, err
		}
		if err := shaped(zero, w.wordsFor(w.rows), w.groups()); err != nil {
			return nil, err
		}
		w.zeros = zeros{index: len(w.tensors), lies: zerosByRow, all: -1}
		w.tensors = append(w.tensors, zero)
	}
	return w, w.columnsOf(t)
}

// packedAs finds how codes are packed: as a stream of bits, or spaced. It reports false
// where words are neither. What few columns do not tell the config's version does, and
// else they are a stream.
func (w *Integers) packedAs(o Compressed) bool {
	stream := w.wordsFor(w.cols) == w.words
	if 32%w.bits == 0 {
		return stream
	}
	w.spaced = true
	w.spaced = w.wordsFor(w.cols) == w.words && (!stream || o.Spaced != nil && *o.Spaced)
	return w.spaced || stream
}

// NewBytes describes int-quantized integers: signed codes (I8 [rows, columns]), scales
// ([rows, groups], or one) and zero points of their shape (I8).
func NewBytes(t Tensors, o Compressed) (*Integers, error) {
	codes, err := t.want(tile.Weight, 2, safetensors.I8)
	if err != nil {
		return nil, err
	}
	w := &Integers{rows: codes.Shape[0], cols: codes.Shape[1], bits: 8, codes: bytes, tensors: []tile.Tensor{codes}}
	if err := w.compressed(t, o); err != nil {
		return nil, err
	}
	w.zeros.all = -1
	if zero, ok := t[tile.Zeros]; ok {
		if zero.Dtype != safetensors.I8 || tile.Numel(zero.Shape) != tile.Numel(w.tensors[1].Shape) {
			return nil, fmt.Errorf("its zero points are %s %v beside scales %v", zero.Dtype, zero.Shape, w.tensors[1].Shape)
		}
		w.zeros = zeros{index: len(w.tensors), lies: zerosAsBytes, all: -1}
		w.tensors = append(w.tensors, zero)
	}
	return w, w.columnsOf(t)
}

// compressed takes scales, and finds them as a config says.
func (w *Integers) compressed(t Tensors, o Compressed) error {
	scale, ok := t[tile.Scale]
	n := tile.Numel(scale.Shape)
	switch {
	case !ok:
		return errors.New("its weight_scale is missing")
	case n == 1:
		w.oneScale = true
	case len(scale.Shape) == 1 && n == w.rows:
	case len(scale.Shape) != 2 || scale.Shape[0] != w.rows:
		return fmt.Errorf("its weight_scale has shape %v for a weight of [%d %d]", scale.Shape, w.rows, w.cols)
	}
	if _, err := (Tensors{tile.Scale: scale}).want(tile.Scale, len(scale.Shape), floats...); err != nil {
		return err
	}
	w.tensors = append(w.tensors, scale)
	groups := 1
	if !w.oneScale {
		groups = n / w.rows
	}
	said := o.Group
	switch {
	case o.Strategy == "tensor" && !w.oneScale, o.Strategy == "channel" && groups != 1:
		return fmt.Errorf("its config says strategy %s, and its weight_scale has shape %v", o.Strategy, scale.Shape)
	case o.Strategy == "tensor" || o.Strategy == "channel":
		said = 0
	}
	_, asymmetric := t[tile.Zeros]
	if o.Symmetric != nil && *o.Symmetric == asymmetric {
		return fmt.Errorf("its config says symmetric %v, and its zero points are %s", *o.Symmetric, map[bool]string{true: "there", false: "missing"}[asymmetric])
	}
	return w.grouped(groups, said)
}

// columnsOf takes the groups of columns.
func (w *Integers) columnsOf(t Tensors) error {
	if _, ok := t[tile.GroupOfColumn]; !ok {
		return nil
	}
	columns, err := t.want(tile.GroupOfColumn, 1, words...)
	if err != nil {
		return err
	}
	w.tensors, w.maybeUngrouped = append(w.tensors, columns), true
	return shaped(columns, w.cols)
}
