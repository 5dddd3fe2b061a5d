package quant

import (
	"fmt"
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Rule is the arithmetic of a format with one 8-bit code per value: how a
// scale follows from the greatest magnitude, and what the codes are. The rules
// are those of convert_to_quant on the CPU and, where it has none, of
// comfy-kitchen in single precision.
type Rule struct {
	Store safetensors.Dtype // of the codes
	max   float32
	small *kernel.Small // nil for integers
	// scale returns what values are multiplied by and what is stored; a
	// factor of 0 stands for a weight without values, all codes zero.
	scale func(amax float32) (factor, scale float32)
	// inverted: scale is that of [inverted], which finds those of many rows.
	inverted bool
	// divide: values are divided by the factor, not multiplied.
	divide bool
	// inDtype: decoding rounds the scale, and the product, to the dtype asked
	// for, as comfy-kitchen does for floats; else the product alone.
	inDtype bool
}

// The rules, by what shares a scale.
var (
	Int8Tensor   = &Rule{Store: safetensors.I8, max: 127, scale: int8Tensor}
	Int8Row      = &Rule{Store: safetensors.I8, max: 127, scale: int8Row, inverted: true}
	E4M3Tensor   = &Rule{Store: safetensors.F8_E4M3, max: 448, small: kernel.E4M3, scale: e4m3Tensor, inDtype: true}
	E5M2Tensor   = &Rule{Store: safetensors.F8_E5M2, max: 57344, small: kernel.E5M2, scale: e5m2Tensor, inDtype: true}
	E4M3Group    = &Rule{Store: safetensors.F8_E4M3, max: 448, small: kernel.E4M3, scale: e4m3Group, inverted: true}
	Int8Block    = &Rule{Store: safetensors.I8, max: 127, scale: int8Block, divide: true}
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

// Scaled is a weight of one 8-bit code per value and one scale for the tensor,
// a row, or some values along one: value = code × scale.
type Scaled struct {
	Grid
	Shape          []int
	ScaleShape     []int
	tensors        [2]Tensor
	Rule           *Rule
	AllowNonfinite bool

	fused *fused
}

// NewScaled resolves a rule for a weight of shape [rows, columns]. The scale
// has shape [] for a tensor, and for a single row, else [rows, 1].
func NewScaled(shape []int, rule *Rule, perRow, allowNonfinite bool) (*Scaled, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if !perRow {
		return NewGrouped(shape, rule, shape[0]*shape[1], []int{}, allowNonfinite)
	}
	return NewGrouped(shape, rule, shape[1], unlessOne(shape[0], 1), allowNonfinite)
}

// NewGrouped resolves a rule for groups of that many consecutive values.
func NewGrouped(shape []int, rule *Rule, group int, scaleShape []int, allowNonfinite bool) (*Scaled, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	s := &Scaled{Shape: shape, ScaleShape: scaleShape, Rule: rule, AllowNonfinite: allowNonfinite}
	s.tensors = [...]Tensor{{Weight, rule.Store, shape}, {Scale, safetensors.F32, scaleShape}}
	s.Grid = Grid{Values: shape[0] * shape[1], Group: group, Inner: 1, Levels: 1, Bits: 8, Block: 1, ScaleBytes: 4}
	if group < 1 || s.Values%group != 0 {
		return nil, fmt.Errorf("groups of %d do not fit shape %v", group, shape)
	}
	s.fused = &fused{grid: &s.Grid, allowNonfinite: allowNonfinite, groups: rule}
	if rule.small == nil {
		s.fused.ints = &kernel.Ints{Lo: -rule.max, Hi: rule.max, Multiply: !rule.divide}
	} else {
		s.fused.floats = kernel.SmallFloats(rule.small, rule.max, !rule.divide)
	}
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

// Tensors returns the codes and the scale.
func (s *Scaled) Tensors() []Tensor { return s.tensors[:] }

// Written returns the bytes of tensor i that encoding values [start, end)
// fills.
func (s *Scaled) Written(i, start, end int) Span {
	if i == 0 {
		return s.codesSpan(start, end)
	}
	return s.scalesWritten(start, end)
}

// Needed returns the bytes of tensor i that decoding values [start, end) takes.
func (s *Scaled) Needed(i, start, end int) Span {
	if i == 0 {
		return s.codesSpan(start, end)
	}
	return s.scalesNeeded(start, end)
}

// NewEncoder prepares to encode in tiles of at most limit values.
func (s *Scaled) NewEncoder(limit int) Encoder {
	e := &scaledEncoder{Scaled: s, tile: s.TileValues(min(TileSize, limit), limit, s.Group)}
	if e.tile == 0 {
		e.tile = TileSize
		e.pass = []Pass{&scaledMeasure{encoder: e}}
	}
	return e
}

// scaledEncoder measures rows and tensors that are larger than tiles first.
type scaledEncoder struct {
	*Scaled
	tile   int
	pass   []Pass
	ranges []Range
}

func (e *scaledEncoder) Tile() int      { return e.tile }
func (e *scaledEncoder) Passes() []Pass { return e.pass }

func (e *scaledEncoder) Encode(dst [][]byte, start int, values []float32, s *Scratch) error {
	return e.Scaled.Encode(dst, Tile{Start: start, Values: values, Ranges: e.ranges}, s)
}

func (e *scaledEncoder) TakesRaw(d safetensors.Dtype) bool { return readable(d) }

func (e *scaledEncoder) EncodeRaw(dst [][]byte, start int, raw []byte, d safetensors.Dtype, s *Scratch) error {
	return e.encodePlain(dst, start, plain{data: raw, dtype: d}, e.ranges, s)
}

type scaledMeasure struct {
	encoder *scaledEncoder
	start   int // of the next tile to join
}

func (m *scaledMeasure) Tile() int { return m.encoder.tile }

func (m *scaledMeasure) Read(start int, values []float32, s *Scratch) (any, error) {
	return m.encoder.fused.measureTile(start, widened(values), s)
}

func (m *scaledMeasure) TakesRaw(d safetensors.Dtype) bool { return m.encoder.TakesRaw(d) }

func (m *scaledMeasure) ReadRaw(start, n int, read Pieces, d safetensors.Dtype, s *Scratch) (any, error) {
	raw, err := read(0, n)
	if err != nil {
		return nil, err
	}
	return m.encoder.fused.measureTile(start, plain{data: raw, dtype: d}, s)
}

func (m *scaledMeasure) Join(found any) error {
	m.encoder.ranges = m.encoder.join(m.encoder.ranges, m.start, found.([]Range))
	m.start += m.encoder.tile
	return nil
}

// Encode quantizes a tile into the bytes that Written names.
func (s *Scaled) Encode(dst [][]byte, t Tile, scratch *Scratch) error {
	return s.encodePlain(dst, t.Start, widened(t.Values), t.Ranges, scratch)
}

func (s *Scaled) encodePlain(dst [][]byte, start int, src plain, measured []Range, scratch *Scratch) error {
	if err := s.fused.encode(dst[0], start, src, measured, scratch); err != nil {
		return err
	}
	putFloats(dst[1], scratch.scales, safetensors.F32)
	return nil
}

func (r *Rule) stepAll(steps kernel.Steps, _, hi []float32) bool {
	all := true
	if !r.inverted {
		for i, a := range hi {
			all = r.stepOf(steps, i, Range{-a, a}) && all
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

func (r *Rule) stepOf(steps kernel.Steps, i int, rng Range) bool {
	factor, _ := r.scaleOf(rng)
	divides := steps.Set(i, 0, factor)
	if r.divide {
		return divides && rng.finite()
	}
	return factor != 0 && finite(factor) && rng.finite()
}

func (r *Rule) begun(side *sides, steps kernel.Steps, hi []float32) {
	side.scales = slices.Grow(side.scales, len(hi))
	for i, a := range hi {
		scale := a // a NaN
		switch {
		case a != a:
		case r.inverted:
			scale = 1 / steps.Scales[i]
		default:
			_, scale = r.scale(a)
		}
		side.scales = append(side.scales, scale)
	}
}

func (r *Rule) slowly(codes []byte, values []float32, rng Range, scratch *Scratch) {
	factor, _ := r.scaleOf(rng)
	r.normalize(values, factor)
	r.encodeBytes(codes, values, scratch)
}

func (r *Rule) scaleOf(rng Range) (factor, scale float32) {
	if rng.Lo != rng.Lo {
		return rng.Lo, rng.Lo
	}
	return r.scale(rng.absMax())
}

func (r *Rule) normalize(values []float32, factor float32) {
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

func (r *Rule) encode(codes []uint16, x []float32) {
	if r.small != nil {
		kernel.EncodeSmall(codes, x, r.small)
		return
	}
	kernel.RoundInts(codes, x, 0, 0)
}

func (r *Rule) encodeBytes(dst []byte, x []float32, scratch *Scratch) {
	codes := scratch.uint16s(len(x))
	r.encode(codes, x)
	for i, c := range codes {
		dst[i] = byte(c)
	}
}

// Decode restores values [start, start+len(dst)) in the dtype out (F32, BF16
// or F16) from the bytes that Needed names.
func (s *Scaled) Decode(dst []float32, src [][]byte, start int, out safetensors.Dtype, scratch *Scratch) {
	first, last := s.groupsIn(start, start+len(dst))
	scales := Widen(sized(&scratch.sides.scales, last-first), src[1], safetensors.F32)
	if s.Rule.inDtype {
		for i, scale := range scales {
			scales[i] = RoundTo(scale, out)
		}
	}
	s.decodeBytes(dst, src[0], start, scales, nil, s.Rule.values())
}

// RoundTo returns x rounded to a float dtype: BF16, F16, or F32, which leaves it.
func RoundTo(x float32, out safetensors.Dtype) float32 {
	switch out {
	case safetensors.BF16:
		return kernel.BF16.Round(x)
	case safetensors.F16:
		return kernel.F16.Round(x)
	}
	return x
}
