// Package sdnq has the arithmetic of SDNQ's dtypes. A [Scheme] follows from a weight's shape
// and the options: groups, rounding, double quantization, codebooks, rotations and
// low-rank parts. It encodes and decodes the weight tile by tile.
package sdnq

import (
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Options say how SDNQ stores a weight.
type Options struct {
	Dtype *dtype.Type
	Kind  Kind
	// GroupSize is the number of values that share a scale: 0 for SDNQ's
	// choice by dtype, -1 for all along the axis, -2 for one scale per tensor.
	// Where it does not divide the axis, the next larger size that does is used.
	GroupSize int
	// ScaleDtype is what scales and zero points are rounded to before they
	// are used: F32, or BF16 or F16, the dtype of the model, where SDNQ's
	// dequantize_fp32 is off. Types beyond 16384 keep F32 all the same.
	ScaleDtype safetensors.Dtype
	// Unrounded says that readers do not round what they restore with such scales, nor the
	// product of low-rank factors, as SDNQ's do.
	Unrounded bool
	// Smooth is by what the columns of the weight were multiplied: its low-rank part is
	// stored as that of the weight before, see [lowrank.Storage]. nil is for nothing.
	Smooth []float32
	// Hadamard asks for a rotation of that many consecutive values of a row at
	// a time, see [rotation.HadamardSize]; 0 for none.
	Hadamard int
	// ModelDtype is what values are rounded to before anything else: BF16 or
	// F16, the dtype of the model; any other leaves them.
	ModelDtype safetensors.Dtype
	// SourceDtype is the dtype of the values, 0 if it is not known. If it is
	// ModelDtype, there is nothing to round.
	SourceDtype safetensors.Dtype
	// Stochastic rounds up or down by chances that follow from Seed and place.
	Stochastic bool
	Seed       uint64
	// Rank of the part that is stored as two factors in the model's dtype, see
	// [lowrank.Search]; 0 for none. It is at most that of the weight.
	Rank int
	// RankSteps is the number of steps of the search for that part, see
	// [lowrank.New]; 0 for SDNQ's number, -1 for none.
	RankSteps int
	// Refits is how often the low-rank part is fitted again to what the quantization of
	// the rest leaves; 0 for never.
	Refits int
	// Matmul stores the weight as SDNQ multiplies it without restoring it, in
	// MatmulDtype, nil for SDNQ's choice. Weights of a shape for which it does
	// not are stored as ever.
	Matmul      bool
	MatmulDtype *dtype.Type
	// ExactReference keeps the defects of SDNQ that spoil values: uint9 to
	// uint15, whose greatest values overflow, and the zero band of floats with
	// one exponent bit. Its readers restore both forms.
	ExactReference bool
	// Stored says that the weight exists in this form already: it is read even where
	// writing it is refused for the sake of other readers.
	Stored bool
	// AllowNonfinite quantizes groups with NaN or infinity as SDNQ does
	// instead of refusing them.
	AllowNonfinite bool
	// Search chooses scales and zero points that lose least, where the dtype gains by it.
	Search bool
	// Moments are how much errors count in the search, by the column of a linear
	// weight: the mean square of its input, their mean being 1. nil if all count alike.
	Moments []float32
	// Codebook fits a table of levels to every group, see [codebook.Lloyd], in at most
	// CodebookSteps steps, 0 for SDNQ's number, -1 for none; only for unsigned
	// integers.
	Codebook      bool
	CodebookSteps int
	// ScaleStore and ZeroPointStore are dtypes to which scales and zero points are
	// quantized themselves (double quantization), nil for ScaleDtype; with
	// CodebookScale by a codebook.
	ScaleStore, ZeroPointStore *dtype.Type
	CodebookScale              bool
}

func (o Options) codebookSteps() int {
	if o.CodebookSteps == 0 {
		return codebook.CodebookSteps
	}
	return max(o.CodebookSteps, 0)
}

func (o Options) rankSteps() int {
	if o.RankSteps == 0 {
		return lowrank.SVDSteps
	}
	return max(o.RankSteps, 0)
}

// Scheme is how SDNQ stores one weight: everything that follows from its shape
// and options.
type Scheme struct {
	group.Grid
	Dtype *dtype.Type
	Kind  Kind
	// GroupSize is the one in effect: values per scale, -1 for all along the
	// axis, -2 for one scale per tensor.
	GroupSize      int
	ScaleDtype     safetensors.Dtype
	Hadamard       int  // the size in effect, 0 where it does not rotate
	Codebook       bool // scales are levels
	Rank           int  // of the part that is stored as factors, 0 for none
	Matmul         bool // in effect
	Transposed     bool // codes and scales are stored [in, out]
	Ungrouped      bool // SDNQ would group it, but along the wrong axis
	AllowNonfinite bool

	shape       []int
	geometry    geometry
	flat        bool // a convolution stored as a matrix
	exact       bool
	steps       int // of a codebook
	rankSteps   int
	refits      int
	rest        *Scheme           // of what a low-rank part leaves, where that is fitted again
	rounded     safetensors.Dtype // of values, before anything else
	restored    safetensors.Dtype // of values, before a low-rank part or a rotation
	unrounded   bool              // nothing that is restored is
	smooth      []float32         // by what columns were multiplied, nil for nothing
	chances     *Stochastic
	searched    bool        // scales are
	moments     []float32   // of columns as they are encoded; nil if all count alike
	product     *dtype.Type // of quantized matmul
	zeroStore   *dtype.Type // asked for zero points, of which a signed dtype has none
	factors     int         // where their tensors begin among the parts
	factorDtype safetensors.Dtype
	numbers     numbers
	fused       *group.Fused // nil where codes are made otherwise
	scale       sideData
	zero        sideData
	parts       []part
	tensors     []tile.Tensor // of the parts
}

// NewScheme resolves options for a weight of that shape. The error says why
// this dtype, kind or group cannot hold it.
func NewScheme(shape []int, o Options) (*Scheme, error) {
	if err := check(o); err != nil {
		return nil, err
	}
	g, err := newGeometry(shape, o.Kind)
	if err != nil {
		return nil, err
	}
	s := &Scheme{
		Dtype: o.Dtype, Kind: o.Kind, shape: shape, ScaleDtype: scaleDtype(o), AllowNonfinite: o.AllowNonfinite,
		Codebook: o.Codebook, geometry: g, exact: o.ExactReference, steps: o.codebookSteps(), numbers: newNumbers(o.Dtype, o.ExactReference),
		zeroStore: o.ZeroPointStore, rounded: o.ModelDtype, factorDtype: factorDtype(o.ModelDtype), Rank: max(min(o.Rank, g.rows, g.rest), 0), rankSteps: o.rankSteps(),
	}
	if o.SourceDtype == o.ModelDtype {
		s.rounded = 0
	}
	s.searched = o.Search
	if o.Stochastic && !o.Codebook {
		chances := NewStochastic(o.Seed)
		s.chances = &chances
	}
	if err := s.group(o); err != nil {
		return nil, err
	}
	if s.restored, s.unrounded, s.smooth = s.ScaleDtype, o.Unrounded, o.Smooth; o.Unrounded {
		s.restored = safetensors.F32
	}
	s.Hadamard = s.hadamard(o)
	if s.moments, err = s.columnMoments(o); err != nil {
		return nil, err
	}
	if s.Values%s.Block != 0 {
		return nil, fmt.Errorf("%s packs %d values together, and %d do not divide", o.Dtype, s.Block, s.Values)
	}
	if err := s.storeScales(o); err != nil {
		return nil, err
	}
	if s.rest, err = s.newRest(o); err != nil {
		return nil, err
	}
	s.refits = o.Refits
	s.addFactors()
	s.list()
	s.fuse()
	return s, nil
}

func check(o Options) error {
	switch {
	case o.Dtype == nil:
		return errors.New("no dtype given")
	case !o.Dtype.Storable():
		return fmt.Errorf("%s cannot store a weight: its values do not survive", o.Dtype)
	case o.GroupSize < -2:
		return fmt.Errorf("group size %d: want -2, -1, 0 or more", o.GroupSize)
	case o.Codebook && (o.Dtype.Class != dtype.Integer || !o.Dtype.Unsigned):
		return fmt.Errorf("%s has no codebook: only unsigned integers have", o.Dtype)
	case o.Kind == Embedding && o.GroupSize == -2 && !o.ExactReference && !o.Stored:
		return errors.New("group size -2: SDNQ looks an embedding's scale up by its entry, and would fail")
	}
	return nil
}

// scaleDtype follows SDNQ: only types with values up to 16384 take scales in
// the dtype of the model.
func scaleDtype(o Options) safetensors.Dtype {
	low := o.ScaleDtype == safetensors.BF16 || o.ScaleDtype == safetensors.F16
	if low && o.Dtype.Divisor <= 16384 {
		return o.ScaleDtype
	}
	return safetensors.F32
}

// fitGroup returns the next larger size that divides the axis into two groups
// or more, -1 if there is none.
func fitGroup(channels, size int) int {
	if size < 0 {
		return size
	}
	if size >= channels {
		return -1
	}
	if channels%size == 0 {
		return size
	}
	for groups := channels/size - 1; groups >= 2; groups-- {
		if channels%groups == 0 {
			return channels / groups
		}
	}
	return -1
}

// group decides what shares a scale and what is transposed.
func (s *Scheme) group(o Options) error {
	product := o.MatmulDtype
	if product == nil {
		product = MatmulDtype(o.Dtype)
	}
	s.product = product
	s.Matmul = multiplies(o, s.geometry)
	requantized := requantizes(o, product)
	unpacked := !packedStorage(o.Dtype)
	s.flat = o.Kind == Conv && s.Matmul && !requantized && unpacked
	size := o.GroupSize
	if size == 0 {
		size = autoGroup(o)
		if s.Matmul && !requantized && o.Dtype.Bits >= 6 {
			size = -1
		}
	}
	s.GroupSize = fitGroup(s.geometry.channels, size)
	if err := s.refuseGroup(o); err != nil {
		return err
	}
	s.Transposed = s.Matmul && !requantized && unpacked && s.GroupSize < 0
	if s.Matmul && o.ScaleDtype != safetensors.F32 && product.Class != dtype.Integer && product.Bits == 16 {
		s.ScaleDtype = safetensors.F32
	}
	s.Grid = s.newGrid()
	return nil
}

// hadamard is the size of the rotation; that of a convolution, whose rows are
// flattened for it, follows from its channels alone.
func (s *Scheme) hadamard(o Options) int {
	columns := s.shape[1]
	if s.flat {
		columns = s.geometry.rest
	}
	return rotation.HadamardSize(columns, o.Hadamard)
}

// packedStorage: SDNQ counts all its own floats as packed, those of 8 and 16
// bits as well.
func packedStorage(t *dtype.Type) bool { return t.Bitpacked() || t.Class == dtype.Packed }

// autoGroup is SDNQ's choice, before it is made to fit.
func autoGroup(o Options) int {
	exponent := 1 + o.Dtype.Bits
	if o.Kind == Linear {
		exponent++
	}
	if o.Rank > 0 {
		exponent++
	}
	if o.Codebook {
		exponent += 3
	}
	return 1 << exponent
}

// refuseGroup: SDNQ groups transposed convolutions along the wrong axis, which
// works only where both are equal; here they share one scale along the axis.
// It cannot group a flattened convolution.
func (s *Scheme) refuseGroup(o Options) error {
	if s.GroupSize <= 0 {
		return nil
	}
	if o.Kind == ConvTranspose {
		if o.ExactReference && s.shape[0] != s.shape[1] {
			return fmt.Errorf("group size %d: SDNQ cannot group a transposed convolution of shape %v", s.GroupSize, s.shape)
		}
		if !o.ExactReference {
			s.GroupSize, s.Ungrouped = -1, true
		}
	}
	if s.flat && s.geometry.kernel > 1 {
		return fmt.Errorf("group size %d: SDNQ cannot group a convolution that it multiplies as a matrix", s.GroupSize)
	}
	return nil
}

// newGrid says how many consecutive values hold whole groups, and how many
// groups lie interleaved in them.
func (s *Scheme) newGrid() group.Grid {
	g := s.geometry
	grid := group.Grid{
		Values: g.values(), Inner: 1, Levels: 1, Bits: s.Dtype.Bits, Block: pack.Values(s.Dtype.Bits), ScaleBytes: s.ScaleDtype.Bits() / 8,
	}
	if s.Codebook {
		grid.Levels = codebook.CodebookLevels(s.Dtype)
	}
	switch {
	case s.GroupSize == -2:
		grid.Group = g.values()
	case s.Kind == ConvTranspose && s.GroupSize > 0:
		grid.Group, grid.Inner = g.rest, g.rest/s.GroupSize
	case s.Kind == ConvTranspose:
		grid.Group, grid.Inner = g.values(), g.rest
	case s.flat || s.Kind == Linear || s.Kind == Embedding:
		grid.Group = positive(s.GroupSize, g.rest)
	default:
		grid.Group, grid.Inner = positive(s.GroupSize, g.channels)*g.kernel, g.kernel
	}
	return grid
}

// positive returns n, or other where n stands for all.
func positive(n, other int) int {
	if n > 0 {
		return n
	}
	return other
}

// StoredValues returns how many values codes of that dtype hold in a stored
// tensor of that shape.
func StoredValues(t *dtype.Type, shape []int) int {
	words := 1
	for _, d := range shape {
		words *= d
	}
	if !t.Bitpacked() {
		return words
	}
	return words / pack.Words(t.Bits) * pack.Values(t.Bits)
}

// MatmulFails reports whether SDNQ, though it stores the weight so, could not
// multiply it: packed convolutions, transposed ones with a rotation or a
// low-rank part, and one-bit weights without groups.
func (s *Scheme) MatmulFails() bool {
	switch {
	case !s.Matmul:
		return false
	case s.Kind == Conv:
		return packedStorage(s.Dtype) && s.GroupSize < 0 || s.Transposed && (s.Rank > 0 || s.Hadamard > 0)
	}
	return s.Dtype.Bits == 1 && s.GroupSize == -1
}

// ShapedForMatmul reports whether stored tensors have other shapes for quantized
// matmul than without.
func (s *Scheme) ShapedForMatmul() bool {
	return s.Transposed || s.flat || s.Matmul && s.Rank > 0
}

// MatmulDtype returns the dtype of quantized matmul.
func (s *Scheme) MatmulDtype() string { return s.product.Name }

// DoubleQuant returns the dtypes in which scales and zero points are themselves quantized,
// "" for none, and whether by a codebook.
func (s *Scheme) DoubleQuant() (scale, zero string, codebook bool) {
	for i, f := range []sideData{s.scale, s.zero} {
		if f.store == nil {
			continue
		}
		codebook = codebook || f.store.levels > 0
		if i == 0 {
			scale = f.store.scheme.Dtype.Name
		} else {
			zero = f.store.scheme.Dtype.Name
		}
	}
	return scale, zero, codebook
}

// ZeroAsked returns the dtype that was requested for zero points although the weight
// has none, "" if none was: SDNQ then stores other shapes for quantized matmul.
func (s *Scheme) ZeroAsked() string {
	if s.zeroStore == nil || s.zero.store != nil || !s.Matmul {
		return ""
	}
	return s.zeroStore.Name
}

// FactorDtype returns the dtype of the low-rank factors.
func (s *Scheme) FactorDtype() safetensors.Dtype { return s.factorDtype }
