package codec

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// svdquant is the codec of a layer that is written. SDNQ's int4 with a low-rank part has
// the arithmetic: of the weight whose columns are multiplied by the factors that inputs
// are divided by. What it stores is put in comfy-kitchen's order.
type svdquant struct {
	*comfy.SVDQuant
	scheme *sdnq.Scheme
	smooth []float32 // values of BF16; nil where all are 1
}

// Gains reports whether a search finds better scales than the plain ones.
func (c *svdquant) Gains() bool { return c.scheme.Gains() }

// columns is how many values a row has.
func (c *svdquant) columns() int { return c.Shape()[1] }

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (c *svdquant) NewEncoder(from safetensors.Dtype, memory int) tile.Encoder {
	return &svdquantEncoder{c, c.scheme.NewEncoder(from, memory)}
}

// flat is an area of whole rows as the scheme counts, for which a weight is a single one.
func (c *svdquant) flat(a tile.Area) tile.Area {
	return tile.Line(a.Row*a.Cols, (a.Row+a.Rows)*a.Cols)
}

// smoothed are the values of whole rows as they are quantized.
func (c *svdquant) smoothed(v tile.Values, s *tile.Scratch) tile.Values {
	if c.smooth == nil {
		return tile.Values{Area: c.flat(v.Area), Dtype: v.Dtype, Bytes: v.Bytes}
	}
	w := v.Widen(&tile.PartOf[smoothBuffers](s).values)
	for at := 0; at < len(w); at += v.Cols {
		row := w[at : at+v.Cols]
		for i, by := range c.smooth {
			row[i] *= by
		}
	}
	return tile.ValuesOf(c.flat(v.Area), w)
}

// smoothBuffers are those of one goroutine.
type smoothBuffers struct {
	values []float32
	parts  [][]byte
}

// svdquantEncoder runs the passes of the scheme over what is quantized.
type svdquantEncoder struct {
	*svdquant
	scheme tile.Encoder
}

func (e *svdquantEncoder) Needs() tile.Needs {
	n := e.scheme.Needs()
	n.Rows, n.Cols = e.rows(n.Cols)
	n.UnitRows, n.UnitCols = e.rows(n.UnitCols)
	n.Passes = slices.Clone(n.Passes)
	for i, p := range n.Passes {
		n.Passes[i] = smoothedPass{p, e}
	}
	return n
}

// rows are the tile of that many values, which the scheme has in whole rows.
func (e *svdquantEncoder) rows(values int) (rows, cols int) {
	return values / e.columns(), e.columns()
}

// smoothedPass is a pass of the scheme.
type smoothedPass struct {
	tile.Pass
	encoder *svdquantEncoder
}

func (p smoothedPass) Tile() (rows, cols int) {
	_, values := p.Pass.Tile()
	return p.encoder.rows(values)
}

func (p smoothedPass) Read(v tile.Values, s *tile.Scratch) (any, error) {
	return p.Pass.Read(p.encoder.smoothed(v, s), s)
}

func (p smoothedPass) Join(a tile.Area, found any) error {
	return p.Pass.Join(p.encoder.flat(a), found)
}

// Encode has the scheme encode some rows and puts what it stores in the format's order.
func (e *svdquantEncoder) Encode(dst [][]byte, v tile.Values, s *tile.Scratch) error {
	own, a := tile.PartOf[smoothBuffers](s), e.flat(v.Area)
	src := tile.Sized(&own.parts, len(e.svdquant.scheme.Tensors()))
	for i := range src {
		src[i] = tile.Sized(&src[i], tile.SpanBytes(e.svdquant.scheme.Written(i, a)))
	}
	if err := e.scheme.Encode(src, e.smoothed(v, s), s); err != nil {
		return err
	}
	for i, t := range e.svdquant.scheme.Tensors() {
		switch t.Role {
		case tile.Weight:
			fromNibbles(dst[0], src[i:], v.Area, s) // the same the other way
		case tile.Scale:
			transposeHalves(dst[1], src[i], v.Rows)
		case tile.SVDDown:
			transposeHalves(dst[2], src[i], e.Rank)
		case tile.SVDUp:
			copy(dst[3], src[i])
		}
	}
	if len(dst[4]) > 0 {
		e.putSmooth(dst[4])
	}
	return nil
}

func (e *svdquantEncoder) putSmooth(dst []byte) {
	for i := range e.columns() {
		by := float32(1)
		if e.smooth != nil {
			by = e.smooth[i]
		}
		floats.PutFloat(dst, i, by, e.Dtype)
	}
}

// transposeHalves stores values of two bytes, of that many rows, column by column.
func transposeHalves(dst, src []byte, rows int) {
	columns := len(dst) / 2 / max(rows, 1)
	for i := range rows {
		for j := range columns {
			binary.LittleEndian.PutUint16(dst[2*(j*rows+i):], binary.LittleEndian.Uint16(src[2*(i*columns+j):]))
		}
	}
}

// smoothing returns what inputs are divided by before they are rounded to 4 bits, and the
// columns of a weight multiplied by, from the mean squares m of the inputs: m^(3/8), as
// values of BF16; nil is for none. Inputs keep a quarter of the difference between columns,
// and the weight, whose largest part is not in the codes, takes the rest. On
// all-MiniLM-L6-v2 with its own inputs, layers restored and with inputs in 4 bits too, the
// output's relative error was 0.0058 and 0.0169 without, 0.0042 and 0.0093 with m^(1/4),
// 0.0041 and 0.0088 with this, 0.0044 and 0.0091 with m^(1/2). Powers of 2 instead, which
// would round nothing, cost a fifth of that.
func smoothing(moments []float32) []float32 {
	if len(moments) == 0 {
		return nil
	}
	factors := make([]float32, len(moments))
	for i, m := range moments {
		root := math.Sqrt(math.Sqrt(math.Sqrt(float64(m)))) // the same bits on every machine
		factors[i] = floats.RoundTo(float32(float64(root*root)*root), safetensors.BF16)
		if factors[i] == 0 {
			factors[i] = 1 // no input at all
		}
	}
	if slices.Min(factors) == slices.Max(factors) {
		return nil
	}
	return factors
}

// smoothedMoments are how much errors of smoothed columns count.
func smoothedMoments(moments, smooth []float32) []float32 {
	if smooth == nil {
		return moments
	}
	counts := make([]float32, len(moments))
	for i, m := range moments {
		counts[i] = m / float32(smooth[i]*smooth[i])
	}
	return counts
}
