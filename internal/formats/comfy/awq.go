package comfy

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/search"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// AWQ is a weight of 4-bit codes in groups along rows, each with a scale and
// the value of its code 8: value = (code - 8) × scale + zero. The codes are
// those of SDNQ's uint4; scales are stored group by group, not row by row.
type AWQ struct {
	shape          []int
	Group          int
	ScaleDtype     safetensors.Dtype
	AllowNonfinite bool

	lines *search.Lines // nil for the plain scales
}

// Search makes the encoder choose scales and zeros that lose least, where groups are not
// too large to be looked at in one piece. Errors of columns count by the moments, nil if
// all count alike.
func (w *AWQ) Search(moments []float32) {
	if w.Group <= search.Most {
		w.lines = &search.Lines{Lo: -8, Hi: 7, Stored: roundedTo(w.ScaleDtype), Weights: moments}
	}
}

// NewAWQ resolves the format for a weight of shape [rows, columns].
func NewAWQ(shape []int, group int, scales safetensors.Dtype, allowNonfinite bool) (*AWQ, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if group < 2 || group%2 != 0 || shape[1]%group != 0 {
		return nil, fmt.Errorf("groups of %d do not divide %d columns into whole bytes", group, shape[1])
	}
	return &AWQ{shape: shape, Group: group, ScaleDtype: scales, AllowNonfinite: allowNonfinite}, nil
}

// Gains reports whether Search finds better scales than the plain ones.
func (w *AWQ) Gains() bool { return w.Group <= search.Most }

// Shape is that of the weight.
func (w *AWQ) Shape() []int { return w.shape }

// Tensors returns the codes, the scales and the zeros.
func (w *AWQ) Tensors() []tile.Tensor {
	scale := []int{w.shape[1] / w.Group, w.shape[0]}
	return []tile.Tensor{
		{Role: tile.Weight, Dtype: safetensors.I8, Shape: []int{w.shape[0], w.shape[1] / 2}},
		{Role: tile.Scale, Dtype: w.ScaleDtype, Shape: scale},
		{Role: tile.Zeros, Dtype: w.ScaleDtype, Shape: scale},
	}
}

// Cut is by groups of many rows, since their scales lie together.
func (w *AWQ) Cut() tile.Cut {
	return tile.Cut{Rows: w.shape[0], Cols: w.shape[1], UnitRows: 128, UnitCols: w.Group, GroupRows: 1, GroupCols: w.Group, AnyRows: true}
}

// Written returns what encoding an area fills.
func (w *AWQ) Written(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return tile.Rect(a.Row, a.Rows, int64(w.shape[1]/2), int64(a.Col/2), int64(a.Cols/2))
	}
	return tile.SpansOf(w.transposed(a), w.shape[0], w.ScaleDtype.Bits()/8)
}

// Needed returns what decoding an area takes.
func (w *AWQ) Needed(i int, a tile.Area) []tile.Span { return w.Written(i, a) }

// transposed is where the scales of an area lie.
func (w *AWQ) transposed(a tile.Area) tile.Area {
	return tile.Area{Row: a.Col / w.Group, Col: a.Row, Rows: a.Cols / w.Group, Cols: a.Rows}
}

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (w *AWQ) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	return tile.NewRanged(w.Cut(), tile.WideTile(memory), w.encode, nil)
}

func (w *AWQ) encode(dst [][]byte, v tile.Values, _ []tile.Range, s *tile.Scratch) error {
	for band := range v.Bands {
		values, err := floatsOf(band, w.shape[1], w.AllowNonfinite, s)
		if err != nil {
			return err
		}
		better := w.steps(band, buffersOf(s))
		for i := range band.Rows {
			n := v.Cols / w.Group
			w.scaleRow(dst, values[i*v.Cols:(i+1)*v.Cols], better.Part(i*n, (i+1)*n), band.Row-v.Row+i, v.Rows)
		}
		codes := s.Uint16s(len(values))
		kernel.RoundInts(codes, values, 0, 0)
		packNibbles(dst[0][(band.Row-v.Row)*v.Cols/2:][:len(codes)/2], codes)
	}
	return nil
}

// scaleRow brings the groups of row i of an area to their codes, and stores what
// they are restored with. A step whose scale is not 0 is better than the plain one.
func (w *AWQ) scaleRow(dst [][]byte, row []float32, better kernel.Steps, i, rows int) {
	for g, scale := range better.Scales {
		values := row[g*w.Group : (g+1)*w.Group]
		zero := better.Zeros[g]
		if scale != 0 {
			kernel.Divide(values, zero, scale, -8, 7)
			kernel.ScaleFrom(values, 1, 8)
		} else {
			var lo float32
			lo, scale, zero = awqStep(kernel.MinMax(values))
			kernel.Divide(values, lo, scale, 0, 15)
		}
		floats.PutFloat(dst[1], g*rows+i, scale, w.ScaleDtype)
		floats.PutFloat(dst[2], g*rows+i, zero, w.ScaleDtype)
	}
}

// awqStep returns the value of code 0, the scale and the value of code 8 that stand for
// a range.
func awqStep(lo, hi float32) (first, scale, zero float32) {
	scale = float32(hi-lo) / 15
	return lo, scale, lo + float32(8*scale)
}

// steps returns a step for each group of some rows that loses less than the plain one,
// of which the scale is 0 where there is none.
func (w *AWQ) steps(v tile.Values, s *buffers) kernel.Steps {
	n := v.Len() / w.Group
	s.steps, s.one = s.steps.Sized(n), s.one.Sized(n)
	clear(s.steps.Scales)
	if w.lines == nil {
		return s.steps
	}
	data, raw := v.Raw(s.Scratch)
	s.lo, s.hi = tile.Sized(&s.lo, n), tile.Sized(&s.hi, n)
	kernel.Ranges(s.lo, s.hi, data, raw, w.Group)
	for i, lo := range s.lo {
		_, scale, zero := awqStep(lo, s.hi[i])
		s.one.Set(i, zero, scale)
		s.steps.Set(i, zero, scale)
	}
	w.improve(s.steps, v, s)
	for i, scale := range s.one.Scales {
		if s.steps.Scales[i] == scale && s.steps.Zeros[i] == s.one.Zeros[i] || scale != scale {
			s.steps.Scales[i] = 0
		}
	}
	return s.steps
}

// improve searches the rows of an area together or, where their columns count otherwise,
// one by one.
func (w *AWQ) improve(steps kernel.Steps, v tile.Values, s *buffers) {
	if w.lines.Weights == nil {
		w.lines.Improve(steps, v, w.Group, s.Scratch)
		return
	}
	n := v.Cols / w.Group
	for i := range v.Rows {
		row := v.Band(i, i+1)
		row.Row = 0 // so that places are columns
		w.lines.Improve(steps.Part(i*n, (i+1)*n), row, w.Group, s.Scratch)
	}
}

// roundedTo says that scales and zero points are stored in a float dtype.
type roundedTo safetensors.Dtype

func (r roundedTo) Scales(dst, src []float32, _ *tile.Scratch) {
	copy(dst, src)
	floats.RoundAll(dst, safetensors.Dtype(r))
}

func (r roundedTo) Zeros(dst, src []float32, s *tile.Scratch) { r.Scales(dst, src, s) }

// Signed reports that scales stay positive, as every reader has seen them.
func (r roundedTo) Signed() bool { return false }

func (r roundedTo) Step() float32 { return 0 }

// Decode restores an area from the bytes that Needed names. It computes in the
// dtype out where the scales have it too, else in single precision.
func (w *AWQ) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	own := buffersOf(scratch)
	codes := tile.Sized(&own.bytes, len(dst))
	pack.SplitBytes(codes, src[0], 4)
	in := safetensors.F32
	if out == w.ScaleDtype {
		in = out
	}
	scales, zeros := w.rowwise(&own.Scales, src[1], a), w.rowwise(&own.Zeros, src[2], a)
	kernel.DecodeBytes(dst, codes, scales, nil, w.Group, awqValues)
	floats.RoundAll(dst, in)
	for i, zero := range zeros {
		kernel.ScaleFrom(dst[i*w.Group:(i+1)*w.Group], 1, zero)
	}
	floats.RoundAll(dst, in)
}

var awqValues = kernel.IntValues(0, -8)

// rowwise returns an area's scales row by row.
func (w *AWQ) rowwise(buffer *[]float32, src []byte, a tile.Area) []float32 {
	groups := a.Cols / w.Group
	x := tile.Sized(buffer, a.Rows*groups)
	for g := range groups {
		for i := range a.Rows {
			x[i*groups+g] = floats.GetFloat(src, g*a.Rows+i, w.ScaleDtype)
		}
	}
	return x
}
