package codec

import (
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Encoder is one weight on its way into its stored tensors. Its passes, in
// order, each read the whole weight; then its areas are encoded.
type Encoder interface {
	// Tile is the shape that areas should have; those at the edges are smaller.
	Tile() (rows, cols int)
	Passes() []Pass
	// Encode fills the bytes that Written names. The error is a
	// *[quant.NonfiniteError].
	Encode(dst [][]byte, a quant.Area, values []float32, s *quant.Scratch) error
}

// Pass is a reading of the whole weight for what spans its areas.
type Pass interface {
	// Tile is as that of an encoder.
	Tile() (rows, cols int)
	// Read looks at one area, whose values it may change. Areas may be read at
	// the same time.
	Read(a quant.Area, values []float32, s *quant.Scratch) (found any, err error)
	// Join takes what Read found, in the order of the areas.
	Join(a quant.Area, found any) error
}

// RawEncoder is an encoder that can take values as the checkpoint stores them.
type RawEncoder interface {
	// TakesRaw reports whether it takes values of that dtype.
	TakesRaw(d safetensors.Dtype) bool
	// EncodeRaw is Encode.
	EncodeRaw(dst [][]byte, a quant.Area, raw []byte, d safetensors.Dtype, s *quant.Scratch) error
}

// PieceEncoder is a raw encoder that can take an area some rows at a time, so that
// what was read is in the nearer caches still.
type PieceEncoder interface {
	// PieceRows is how many rows of an area a piece should have; 0 if the area has to
	// be taken at once.
	PieceRows(a quant.Area) int
	// EncodePiece is EncodeRaw for whole rows of an area. Pieces come in order, and
	// fill dst together.
	EncodePiece(dst [][]byte, area, piece quant.Area, raw []byte, d safetensors.Dtype, s *quant.Scratch) error
}

// Pieces returns values of an area as they are stored, until the next call.
type Pieces func(piece quant.Area) ([]byte, error)

// RawPass is a pass that can take them so, at once or piece by piece.
type RawPass interface {
	// TakesRaw is as that of an encoder.
	TakesRaw(d safetensors.Dtype) bool
	// ReadRaw is Read. It fails if read does.
	ReadRaw(a quant.Area, read Pieces, d safetensors.Dtype, s *quant.Scratch) (found any, err error)
}

// TakesRaw reports whether an encoder is a [RawEncoder] of that dtype.
func TakesRaw(e Encoder, d safetensors.Dtype) bool {
	r, ok := e.(RawEncoder)
	return ok && r.TakesRaw(d)
}

// Holder is an encoder that keeps much in memory from its first pass on.
type Holder interface {
	Held() int64 // bytes
}

// Held returns how much an encoder keeps in memory, if it is a [Holder].
func Held(e any) int64 {
	if h, ok := e.(Holder); ok {
		return h.Held()
	}
	return 0
}

// Shelver is an encoder that can keep some of that in a file, which it opens if it
// does. It must be asked before the first pass.
type Shelver interface {
	Shelve(open func() (quant.Shelf, error)) (bool, error)
}

// Shelve asks an encoder to, if it is a [Shelver].
func Shelve(e any, open func() (quant.Shelf, error)) (bool, error) {
	if s, ok := e.(Shelver); ok {
		return s.Shelve(open)
	}
	return false, nil
}

// Surveyor is an encoder that has to look at the weight, or at a sample of it,
// before all else.
type Surveyor interface {
	Survey(read quant.Reader) error
}

// Sheet stores a weight by rows and columns: areas are quantized by themselves
// or from the ranges of groups that they lie in.
type Sheet interface {
	Shape() []int
	Tensors() []quant.Tensor
	Cut() quant.Cut
	Written(i int, a quant.Area) []quant.Span
	Needed(i int, a quant.Area) []quant.Span
	Measure(a quant.Area, values []float32) []quant.Range
	Encode(dst [][]byte, p quant.Patch, s *quant.Scratch) error
	Decode(dst []float32, src [][]byte, a quant.Area, out safetensors.Dtype, s *quant.Scratch)
}

// sheet makes a codec of one.
type sheet struct {
	Sheet
	allowNonfinite bool
}

func (c sheet) NewEncoder(limit int) Encoder { return c.newEncoder(limit) }

func (c sheet) newEncoder(limit int) *sheetEncoder {
	e := &sheetEncoder{sheet: c, cut: c.Cut()}
	e.rows, e.cols, e.measured = e.cut.Tile(min(quant.TileSize, limit), limit)
	return e
}

// sheetEncoder measures groups that do not fit an area first.
type sheetEncoder struct {
	sheet
	cut        quant.Cut
	rows, cols int
	measured   bool
	ranges     []quant.Range
}

func (e *sheetEncoder) Tile() (rows, cols int) { return e.rows, e.cols }

func (e *sheetEncoder) Passes() []Pass {
	if !e.measured {
		return nil
	}
	e.ranges = e.cut.Unmeasured()
	return []Pass{measure{e}}
}

func (e *sheetEncoder) Encode(dst [][]byte, a quant.Area, values []float32, s *quant.Scratch) error {
	return e.Sheet.Encode(dst, quant.Patch{Area: a, Values: values, Ranges: e.ranges}, s)
}

func (e *sheetEncoder) TakesRaw(d safetensors.Dtype) bool {
	r, ok := e.Sheet.(quant.RawSheet)
	return ok && r.TakesRaw(d)
}

func (e *sheetEncoder) EncodeRaw(dst [][]byte, a quant.Area, raw []byte, d safetensors.Dtype, s *quant.Scratch) error {
	return e.EncodePiece(dst, a, a, raw, d, s)
}

// PieceRows: an area that holds all of a group that is higher than a row has to be
// taken at once.
func (e *sheetEncoder) PieceRows(a quant.Area) int {
	p, ok := e.Sheet.(quant.PieceSheet)
	if !ok || e.ranges == nil && e.cut.GroupRows > 1 {
		return 0
	}
	return p.PieceRows(a.Cols)
}

func (e *sheetEncoder) EncodePiece(dst [][]byte, area, piece quant.Area, raw []byte, d safetensors.Dtype, s *quant.Scratch) error {
	return e.Sheet.Encode(dst, quant.RawPiece(area, piece, raw, d, e.ranges), s)
}

// measure is the pass that takes the range of every group.
type measure struct{ e *sheetEncoder }

// Tile is the encoder's, or, where all values are one group, any rows of them: no
// more than stay in the nearer caches.
func (m measure) Tile() (rows, cols int) {
	if c := m.e.cut; c.GroupRows >= c.Rows && c.GroupCols >= c.Cols {
		return c.ForDecoding().DecodeTile(min(quant.TileSize, m.e.rows*m.e.cols))
	}
	return m.e.Tile()
}

func (m measure) Read(a quant.Area, values []float32, _ *quant.Scratch) (any, error) {
	if !m.e.allowNonfinite {
		if err := quant.CheckArea(a, values, m.e.cut.Cols); err != nil {
			return nil, err
		}
	}
	return m.e.Measure(a, values), nil
}

func (m measure) TakesRaw(d safetensors.Dtype) bool { return m.e.TakesRaw(d) }

func (m measure) ReadRaw(a quant.Area, read Pieces, d safetensors.Dtype, s *quant.Scratch) (any, error) {
	raw, err := read(a)
	if err != nil {
		return nil, err
	}
	return m.e.Sheet.(quant.RawSheet).MeasureRaw(quant.RawPatch(a, raw, d, nil), s)
}

func (m measure) Join(a quant.Area, found any) error {
	m.e.cut.Join(m.e.ranges, a, found.([]quant.Range))
	return nil
}
