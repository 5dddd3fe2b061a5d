// Package comfy has the arithmetic of ComfyUI's formats and of convert_to_quant's, a type
// for each: what is stored of a weight, how it may be cut into tiles, and how a tile is
// encoded and decoded.
package comfy

import (
	"fmt"
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/search"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// values are those of the rule's codes.
func (r *ScaleRule) values() *kernel.Values {
	if r.small != nil {
		return group.SmallValues[r.small]
	}
	return group.Int8Values
}

// ScaleRule is the arithmetic of a format with one 8-bit code per value: how a
// scale follows from the greatest magnitude, and what the codes are. The rules
// are those of convert_to_quant on the CPU and, where it has none, of
// comfy-kitchen in single precision.
type ScaleRule struct {
	Store safetensors.Dtype // of the codes
	max   float32
	small *kernel.Small // nil for integers
	// scale returns what values are multiplied by and what is stored; a
	// factor of 0 stands for a weight without values, all codes zero.
	scale func(amax float32) (factor, scale float32)
	// inverted says that scale is the function of that name, whose results for many
	// rows a kernel computes at once.
	inverted bool
	// divide says that values are divided by the factor, not multiplied by it.
	divide bool
	// inDtype says that decoding rounds both the scale and the product to the requested
	// dtype, as comfy-kitchen does for floats; otherwise only the product.
	inDtype bool
}

// The rules, by what shares a scale.
var (
	Int8Tensor   = &ScaleRule{Store: safetensors.I8, max: 127, scale: int8Tensor}
	Int8Row      = &ScaleRule{Store: safetensors.I8, max: 127, scale: int8Row, inverted: true}
	E4M3Tensor   = &ScaleRule{Store: safetensors.F8_E4M3, max: 448, small: kernel.E4M3, scale: e4m3Tensor, inDtype: true}
	E5M2Tensor   = &ScaleRule{Store: safetensors.F8_E5M2, max: 57344, small: kernel.E5M2, scale: e5m2Tensor, inDtype: true}
	E4M3Group    = &ScaleRule{Store: safetensors.F8_E4M3, max: 448, small: kernel.E4M3, scale: e4m3Group, inverted: true}
	Int8Block    = &ScaleRule{Store: safetensors.I8, max: 127, scale: int8Block, divide: true}
	leastMaximum = float32(1e-12)
)

// int8Tensor: s = max(amax, 1e-12) / 127, q = w · (1/s).
func int8Tensor(amax float32) (factor, scale float32) {
	s := max(amax, leastMaximum) / 127
	return 1 / s, s
}

// int8Row: k = (1/amax) · 127, q = w · k, stored 1/k.
func int8Row(amax float32) (factor, scale float32) {
	k := inverted(amax, 127)
	return k, 1 / k
}

// e4m3Tensor: k = (1/amax) · 448, q = w · k, stored 1/k.
func e4m3Tensor(amax float32) (factor, scale float32) {
	if amax == 0 {
		return 0, 1
	}
	return e4m3Group(amax)
}

// e4m3Group is e4m3Tensor for rows and blocks, whose zeros are not special.
func e4m3Group(amax float32) (factor, scale float32) {
	k := inverted(amax, 448)
	return k, 1 / k
}

func inverted(amax, most float32) float32 { return float32(1/max(amax, leastMaximum)) * most }

// int8Block: s = max(amax / 127, 1e-8), q = w / s.
func int8Block(amax float32) (factor, scale float32) {
	s := max(amax/127, 1e-8)
	return s, s
}

// e5m2Tensor: s = amax / 57344, q = w · (1/s). comfy-kitchen gives NaN codes
// where 1/s overflows; such a weight is stored as zero.
func e5m2Tensor(amax float32) (factor, scale float32) {
	s := amax / 57344
	k := 1 / s
	if math.IsInf(float64(k), 0) {
		return 0, 1
	}
	return k, s
}

// fused encodes groups by the rule.
func (r *ScaleRule) fused(g *group.Grid, allowNonfinite bool) *group.Fused {
	f := &group.Fused{Grid: g, AllowNonfinite: allowNonfinite, Groups: r}
	if r.small == nil {
		f.Ints = &kernel.Ints{Lo: -r.max, Hi: r.max, Multiply: !r.divide}
	} else {
		f.Floats = kernel.SmallFloats(r.small, r.max, !r.divide)
	}
	return f
}

// Scaled is a weight of one 8-bit code per value and one scale for the tensor,
// a row, or some values along one: value = code × scale.
type Scaled struct {
	group.Grid
	ScaleShape     []int
	Rule           *ScaleRule
	AllowNonfinite bool

	shape   []int
	tensors [2]tile.Tensor
	fused   *group.Fused
}

// Search makes the encoder choose scales that lose least, where the rule gains by it and
// groups are not too large to be looked at in one piece. Errors of columns count by the
// moments, nil if all count alike.
func (s *Scaled) Search(moments []float32) {
	if f := s.Rule.search(s.Group, moments); f != nil {
		s.fused.Search = f
	}
}

// Gains reports whether Search finds better scales than the plain ones.
func (s *Scaled) Gains() bool { return s.Rule.search(s.Group, nil) != nil }

// search returns what looks for better scales of groups of that size, nil where nothing
// is gained: one scale for a whole tensor gains less than a hundredth.
func (r *ScaleRule) search(size int, moments []float32) group.Search {
	switch {
	case size > search.Most:
		return nil
	case r == E4M3Group:
		return &search.Floats{Rounding: e4m3Rounding, Ratios: search.Octave, Multiplied: true, Weights: moments}
	case r == Int8Row:
		return factorLines{r.lines(moments)}
	case r == int4Rotated || r == Int8Rotated || r == Int8Block:
		return r.lines(moments)
	}
	return nil
}

// lines searches the scales of integers, which stay positive.
func (r *ScaleRule) lines(moments []float32) *search.Lines {
	return &search.Lines{Lo: -r.max, Hi: r.max, Through: true, Stored: roundedTo(safetensors.F32), Weights: moments}
}

// factorLines is a search for steps whose scales are what values are multiplied by.
type factorLines struct{ *search.Lines }

func (l factorLines) Improve(steps kernel.Steps, v tile.Values, size int, s *tile.Scratch) {
	own := buffersOf(s)
	found := own.one.Sized(len(steps.Scales))
	own.one = found
	for g, factor := range steps.Scales {
		found.Set(g, 0, 1/factor)
	}
	l.Lines.Improve(found, v, size, s)
	for g, scale := range found.Scales {
		if factor := steps.Scales[g]; scale != 1/factor && scale == scale {
			steps.Set(g, 0, 1/scale)
		}
	}
}

var e4m3Rounding = kernel.RoundingOf(3, 7, 448)

// NewScaled resolves a rule for a weight of shape [rows, columns]. The scale
// has shape [] for a tensor, and for a single row, else [rows, 1].
func NewScaled(shape []int, rule *ScaleRule, perRow, allowNonfinite bool) (*Scaled, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if !perRow {
		return NewGrouped(shape, rule, shape[0]*shape[1], []int{}, allowNonfinite)
	}
	return NewGrouped(shape, rule, shape[1], unlessOne(shape[0], 1), allowNonfinite)
}

// NewGrouped resolves a rule for groups of that many consecutive values.
func NewGrouped(shape []int, rule *ScaleRule, size int, scaleShape []int, allowNonfinite bool) (*Scaled, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	s := &Scaled{shape: shape, ScaleShape: scaleShape, Rule: rule, AllowNonfinite: allowNonfinite}
	s.tensors = [...]tile.Tensor{{Role: tile.Weight, Dtype: rule.Store, Shape: shape}, {Role: tile.Scale, Dtype: safetensors.F32, Shape: scaleShape}}
	s.Grid = group.Grid{Values: shape[0] * shape[1], Group: size, Inner: 1, Levels: 1, Bits: 8, Block: 1, ScaleBytes: 4}
	if size < 1 || s.Values%size != 0 {
		return nil, fmt.Errorf("groups of %d do not fit shape %v", size, shape)
	}
	s.fused = rule.fused(&s.Grid, allowNonfinite)
	return s, nil
}

func checkShape(shape []int) error {
	if len(shape) != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > math.MaxInt/shape[1]/8 {
		return fmt.Errorf("shape %v, want two dimensions, neither empty nor too large", shape)
	}
	return nil
}

// unlessOne is the shape of scales as convert_to_quant writes it: a single one
// is a scalar.
func unlessOne(shape ...int) []int {
	for _, d := range shape {
		if d != 1 {
			return shape
		}
	}
	return []int{}
}

// Shape is that of the weight.
func (s *Scaled) Shape() []int { return s.shape }

// Tensors returns the codes and the scale.
func (s *Scaled) Tensors() []tile.Tensor { return s.tensors[:] }

// Written returns what of tensor i encoding a run of values fills.
func (s *Scaled) Written(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return []tile.Span{s.CodesSpan(a.Col, a.Col+a.Cols)}
	}
	return []tile.Span{s.ScalesWritten(a.Col, a.Col+a.Cols)}
}

// Needed returns what of tensor i decoding a run of values takes.
func (s *Scaled) Needed(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return []tile.Span{s.CodesSpan(a.Col, a.Col+a.Cols)}
	}
	return []tile.Span{s.ScalesNeeded(a.Col, a.Col+a.Cols)}
}

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (s *Scaled) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	return tile.NewRanged(s.Cut(), wholeGroups(tile.RawTile(memory), s.fused.Search, s.Group), s.encode, s.fused.RangesOf)
}

// wholeGroups is the limit of tiles, raised for groups that are searched: these are
// looked at in one piece, however little memory there is.
func wholeGroups(limit int, s group.Search, size int) int {
	if s != nil {
		return max(limit, size)
	}
	return limit
}

func (s *Scaled) encode(dst [][]byte, v tile.Values, ranges []tile.Range, scratch *tile.Scratch) error {
	own := buffersOf(scratch)
	if err := s.fused.Encode(dst[0], v, ranges, &own.Companions, scratch); err != nil {
		return err
	}
	floats.PutFloats(dst[1], own.Scales, safetensors.F32)
	return nil
}

func (r *ScaleRule) StepAll(steps kernel.Steps, _, hi []float32) bool {
	all := true
	if !r.inverted {
		for i, a := range hi {
			all = r.StepOf(steps, i, tile.Range{Lo: -a, Hi: a}) && all
		}
		return all
	}
	factors := steps.Scales[:len(hi)]
	for i, a := range hi {
		k := inverted(a, r.max)
		factors[i] = k
		all = all && k > 0 // not for infinity, nor for NaN
	}
	return all
}

func (r *ScaleRule) StepOf(steps kernel.Steps, i int, rng tile.Range) bool {
	factor, _ := r.scaleOf(rng)
	divides := steps.Set(i, 0, factor)
	if r.divide {
		return divides && rng.Finite()
	}
	return factor != 0 && floats.Finite(factor) && rng.Finite()
}

func (r *ScaleRule) Collect(side *group.Companions, steps kernel.Steps, hi []float32) {
	side.Scales = slices.Grow(side.Scales, len(hi))
	for i, a := range hi {
		scale := a // a NaN
		switch {
		case a != a:
		case r.inverted:
			scale = 1 / steps.Scales[i]
		case r.divide:
			scale = steps.Scales[i]
		default:
			_, scale = r.scale(a)
		}
		side.Scales = append(side.Scales, scale)
	}
}

func (r *ScaleRule) Slowly(codes []byte, values []float32, rng tile.Range, scratch *tile.Scratch) {
	factor, _ := r.scaleOf(rng)
	r.normalize(values, factor)
	r.encodeBytes(codes, values, scratch)
}

func (r *ScaleRule) scaleOf(rng tile.Range) (factor, scale float32) {
	if rng.Lo != rng.Lo {
		return rng.Lo, rng.Lo
	}
	return r.scale(rng.AbsMax())
}

func (r *ScaleRule) normalize(values []float32, factor float32) {
	if factor == 0 && r.small != nil {
		clear(values)
		return
	}
	if r.divide {
		kernel.Divide(values, 0, factor, -r.max, r.max)
		return
	}
	kernel.Multiply(values, factor, -r.max, r.max)
}

func (r *ScaleRule) encode(codes []uint16, x []float32) {
	if r.small != nil {
		kernel.EncodeSmall(codes, x, r.small)
		return
	}
	kernel.RoundInts(codes, x, 0, 0)
}

func (r *ScaleRule) encodeBytes(dst []byte, x []float32, scratch *tile.Scratch) {
	codes := scratch.Uint16s(len(x))
	r.encode(codes, x)
	for i, c := range codes {
		dst[i] = byte(c)
	}
}

// Decode restores a run of values in the dtype out (F32, BF16 or F16) from the bytes
// that Needed names.
func (s *Scaled) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	first, last := s.GroupsIn(a.Col, a.Col+a.Cols)
	scales := floats.Widen(tile.Sized(&buffersOf(scratch).Scales, last-first), src[1], safetensors.F32)
	if s.Rule.inDtype {
		for i, scale := range scales {
			scales[i] = floats.RoundTo(scale, out)
		}
	}
	s.DecodeBytes(dst, src[0], a.Col, scales, nil, s.Rule.values())
}
