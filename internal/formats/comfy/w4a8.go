package comfy

import (
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// W4A8 is a weight whose rows are rotated in groups and stored as codes of 4 or
// 6 bits, which decode to 8-bit integers: level(code) × the group's scale,
// rounded; these times the channel's scale are the rotated values. The levels
// are a codebook or, in 6 bits and where there is none, whole numbers.
type W4A8 struct {
	shape          []int
	Group          int // values that share a scale
	Rotation       int // group of the rotation
	Bits           int
	Levels         []float32         // of 4 bits, ascending; nil for whole numbers
	GroupDtype     safetensors.Dtype // of the groups' scales: F8_E4M3, its bits as U8, or F32
	AllowNonfinite bool
	// Search chooses scales of groups that lose least.
	Search bool

	fitted *decodedLevels // of levels that were fitted; nil for others
}

// NewW4A8 resolves the format for a weight of shape [rows, columns]; in 4 bits
// with the codebook for bell-shaped values.
func NewW4A8(shape []int, group, rotation, bits int, allowNonfinite bool) (*W4A8, error) {
	if err := checkRotated(shape, rotation); err != nil {
		return nil, err
	}
	if err := CheckW4A8(group, bits); err != nil {
		return nil, err
	}
	if least := 8 * (bits - 2); shape[1]%group != 0 || shape[1]%least != 0 {
		return nil, fmt.Errorf("%d columns are no multiple of %d and of %d", shape[1], group, least)
	}
	w := &W4A8{shape: shape, Group: group, Rotation: rotation, Bits: bits, GroupDtype: safetensors.F8_E4M3, AllowNonfinite: allowNonfinite}
	if bits == 4 {
		w.Levels = fixedLevels
	}
	return w, nil
}

// CheckW4A8 refuses groups and bits that no weight can have.
func CheckW4A8(group, bits int) error {
	switch {
	case bits != 4 && bits != 6:
		return fmt.Errorf("%d bits: there are 4 and 6", bits)
	case bits == 6 && (group < 16 || group%16 != 0):
		return fmt.Errorf("groups of %d: 6 bits take multiples of 16", group)
	case group < 4 || 16%group != 0 && group%16 != 0:
		return fmt.Errorf("groups of %d: want 4, 8, or multiples of 16", group)
	}
	return nil
}

// Gains reports that Search finds better scales than the plain ones.
func (w *W4A8) Gains() bool { return true }

// Shape is that of the weight.
func (w *W4A8) Shape() []int { return w.shape }

// Tensors returns the codes, the scales of groups and channels, and the
// codebook if there is one.
func (w *W4A8) Tensors() []tile.Tensor {
	rows, columns := w.shape[0], w.shape[1]
	t := []tile.Tensor{
		{Role: tile.Weight, Dtype: safetensors.I8, Shape: []int{rows, columns * w.Bits / 8}},
		{Role: tile.GroupScale, Dtype: w.GroupDtype, Shape: []int{rows, columns / w.Group}},
		{Role: tile.ChannelScale, Dtype: safetensors.F32, Shape: []int{rows}},
	}
	if w.Levels != nil {
		t = append(t, tile.Tensor{Role: tile.Codebook, Dtype: safetensors.F32, Shape: []int{len(w.Levels)}})
	}
	return t
}

// Cut is by groups of scales and rotation; a channel's scale follows from its
// row.
func (w *W4A8) Cut() tile.Cut {
	unit := tile.WholeUnits(tile.WholeUnits(w.Group, w.Rotation, w.shape[1]), 8*(w.Bits-2), w.shape[1])
	return tile.Cut{Rows: w.shape[0], Cols: w.shape[1], UnitRows: 1, UnitCols: unit, GroupRows: 1, GroupCols: w.shape[1], AnyRows: true}
}

// Written returns what encoding an area fills.
func (w *W4A8) Written(i int, a tile.Area) []tile.Span {
	if i == 2 && a.Col > 0 || i == 3 && !a.First() {
		return nil
	}
	return w.Needed(i, a)
}

// Needed returns what decoding an area takes.
func (w *W4A8) Needed(i int, a tile.Area) []tile.Span {
	columns := w.shape[1]
	switch i {
	case 0:
		return w.planes(a)
	case 1:
		in := tile.Area{Row: a.Row, Col: a.Col / w.Group, Rows: a.Rows, Cols: a.Cols / w.Group}
		return tile.SpansOf(in, columns/w.Group, w.GroupDtype.Bits()/8)
	case 2:
		return tile.Run(int64(4*a.Row), int64(4*a.Rows))
	}
	return tile.Run(0, int64(4*len(w.Levels)))
}

// planes are the codes of an area: a row holds the low four bits of all codes
// and then, of six, the high two.
func (w *W4A8) planes(a tile.Area) []tile.Span {
	columns := w.shape[1]
	stride := int64(columns * w.Bits / 8)
	low := tile.Rect(a.Row, a.Rows, stride, int64(a.Col/2), int64(a.Cols/2))
	if w.Bits == 4 {
		return low
	}
	return append(low, tile.Rect(a.Row, a.Rows, stride, int64(columns/2+a.Col/4), int64(a.Cols/4))...)
}

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory,
// once it has looked at the weight for its codebook.
func (w *W4A8) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	e := tile.NewRanged(w.Cut(), tile.WideTile(memory), w.encode, w.measure)
	e.Wants.Survey = func(read tile.Reader) error {
		fitted, err := w.Survey(read)
		if err == nil {
			e.Fill, e.Range = fitted.encode, fitted.measure
		}
		return err
	}
	return e
}

func (w *W4A8) encode(dst [][]byte, v tile.Values, ranges []tile.Range, s *tile.Scratch) error {
	values, err := w.rotated(v, s)
	if err != nil {
		return err
	}
	codes, f := s.Uint16s(len(values)), newFitter(w, v.Cols)
	for i := range v.Rows {
		row := values[i*v.Cols : (i+1)*v.Cols]
		most := f.fit(row)
		if ranges != nil {
			most = ranges[v.Row+i].Hi
		}
		channel := max(most/127, 1e-8)
		if v.Col == 0 {
			floats.PutFloat(dst[2], i, channel, safetensors.F32)
		}
		scales := dst[1][i*len(f.gammas) : (i+1)*len(f.gammas)]
		f.assign(codes[i*v.Cols:(i+1)*v.Cols], scales, row, channel)
	}
	w.pack(dst[0], codes)
	if v.First() && w.Levels != nil {
		kernel.NarrowF32(dst[3], w.Levels)
	}
	return nil
}

// rotated returns the values of an area after their rotation.
func (w *W4A8) rotated(v tile.Values, s *tile.Scratch) ([]float32, error) {
	values, err := floatsOf(v, w.shape[1], w.AllowNonfinite, s)
	if err != nil {
		return nil, err
	}
	rotation.RotateOnce(values, w.Rotation)
	return values, nil
}

// measure returns for every row the greatest magnitude that the scales of its groups
// give.
func (w *W4A8) measure(v tile.Values, s *tile.Scratch) ([]tile.Range, error) {
	values, err := w.rotated(v, s)
	if err != nil {
		return nil, err
	}
	f, ranges := newFitter(w, v.Cols), make([]tile.Range, v.Rows)
	for i := range ranges {
		most := f.fit(values[i*v.Cols : (i+1)*v.Cols])
		ranges[i] = tile.Range{Lo: most, Hi: most}
	}
	return ranges, nil
}

func (w *W4A8) pack(dst []byte, codes []uint16) {
	low := dst[:len(codes)/2]
	if w.Bits == 4 {
		pack.Pack(low, codes, 4)
		return
	}
	packNibbles(low, codes)
	for i := range dst[len(low):] {
		c := codes[4*i : 4*i+4]
		dst[len(low)+i] = byte(c[0]>>4 | c[1]>>4<<2 | c[2]>>4<<4 | c[3]>>4<<6)
	}
}

func (w *W4A8) unpack(codes []byte, src []byte, scratch *buffers) {
	low := src[:len(codes)/2]
	pack.SplitBytes(codes, low, 4)
	if w.Bits == 4 {
		return
	}
	high := tile.Sized(&scratch.high, len(codes))
	pack.SplitBytes(high, src[len(low):], 2)
	for i, c := range high {
		codes[i] |= c << 4
	}
}

// Decode restores an area from the bytes that Needed names: products of levels
// and scales of groups become whole numbers of 8 bits, which the channel scales.
func (w *W4A8) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	own := buffersOf(scratch)
	codes := tile.Sized(&own.bytes, len(dst))
	w.unpack(codes, src[0], own)
	scales := tile.Sized(&own.Scales, len(dst)/w.Group)
	for i := range scales {
		scales[i] = w.groupScale(src[1], i)
	}
	if w.Levels != nil {
		kernel.LookUp(dst, codes, floats.Widen(scratch.Floats(len(w.Levels)), src[3], safetensors.F32))
		for i, scale := range scales {
			kernel.ScaleBy(dst[i*w.Group:(i+1)*w.Group], scale)
		}
	} else {
		kernel.DecodeBytes(dst, codes, scales, nil, w.Group, w.wholeLevels())
	}
	gridAll(dst)
	for i := range a.Rows {
		kernel.ScaleBy(dst[i*a.Cols:(i+1)*a.Cols], floats.GetFloat(src[2], i, safetensors.F32))
	}
	floats.RoundAll(dst, out)
	rotation.RotateOnce(dst, w.Rotation)
}

// wholeLevels are the levels of codes without a table of them.
func (w *W4A8) wholeLevels() *kernel.Values {
	if w.Bits == 4 {
		return awqValues
	}
	return sixValues
}

var sixValues = kernel.IntValues(0, -32)

// gridAll is grid for products, but for the sign of zeros.
func gridAll(products []float32) {
	kernel.Multiply(products, 1, -127, 127)
	toWhole(products)
}

// toWhole rounds small values to whole numbers, but for the sign of zeros.
func toWhole(x []float32) {
	const magic = 0x1.8p23
	kernel.ScaleFrom(x, 1, magic)
	kernel.ScaleFrom(x, 1, -magic)
}

func (w *W4A8) groupScale(src []byte, i int) float32 {
	if w.GroupDtype == safetensors.F32 {
		return floats.GetFloat(src, i, safetensors.F32)
	}
	return kernel.E4M3.Decode(uint16(src[i]))
}

// grid is the 8-bit integer that a level decodes to.
func grid(level, scale float32) float32 {
	return min(max(roundEven(float32(level*scale)), -127), 127)
}

func roundEven(x float32) float32 { return float32(math.RoundToEven(float64(x))) }
