package codec

import (
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Flat stores a weight as a run of values, wherever its rows end: offsets and
// sizes are bytes within a stored tensor, starts and ends are values.
type Flat interface {
	Tensors() []quant.Tensor
	// Cut has one row: columns are the values.
	Cut() quant.Cut
	// Written is what of tensor i encoding [start, end) fills.
	Written(i, start, end int) quant.Span
	// Needed is what of tensor i decoding [start, end) takes.
	Needed(i, start, end int) quant.Span
	// NewEncoder prepares one conversion in tiles of at most limit values.
	NewEncoder(limit int) quant.Encoder
	Decode(dst []float32, src [][]byte, start int, out safetensors.Dtype, s *quant.Scratch)
}

// flat makes a codec of one: the weight is a single row of all its values.
type flat struct {
	Flat
	shape []int
}

func (f flat) Shape() []int { return f.shape }

func (f flat) Written(i int, a quant.Area) []quant.Span {
	return []quant.Span{f.Flat.Written(i, a.Col, a.Col+a.Cols)}
}

func (f flat) Needed(i int, a quant.Area) []quant.Span {
	return []quant.Span{f.Flat.Needed(i, a.Col, a.Col+a.Cols)}
}

func (f flat) NewEncoder(limit int) Encoder { return flatEncoder{f.Flat.NewEncoder(limit)} }

// Near returns a codec that decodes to nearly the same values in a fraction of the
// time, or nil if there is none.
func Near(c Codec) Codec {
	if s := Scheme(c); s != nil && s.Hadamard > 0 {
		return flat{quant.Decoder{Scheme: s, Near: true}, c.Shape()}
	}
	return nil
}

// Once returns the number of the stored tensor that every area takes all of, 0 for
// none, and what makes a codec of its content that needs it no more.
func Once(c Codec) (tensor int, take func(src []byte) Codec) {
	d, ok := decoder(c)
	if !ok {
		return 0, nil
	}
	return d.Once(), func(src []byte) Codec { return flat{d.Take(src), c.Shape()} }
}

// ByRows returns a codec that takes codes by rows, and what puts them so, see
// [quant.Scheme.Straighten], where they lie by columns; else nil.
func ByRows(c Codec) (byRows Codec, straighten func(dst, src []byte, column int)) {
	d, ok := decoder(c)
	if !ok || !d.Transposed {
		return nil, nil
	}
	d.Straight = true
	return flat{d, c.Shape()}, d.Straighten
}

// decoder returns what restores a layer of SDNQ's; ok is false for others.
func decoder(c Codec) (d quant.Decoder, ok bool) {
	if s := Scheme(c); s != nil {
		return s.Decoder(), true
	}
	f, _ := c.(flat)
	d, ok = f.Flat.(quant.Decoder)
	return d, ok
}

type flatEncoder struct{ quant.Encoder }

func (e flatEncoder) Tile() (rows, cols int) { return 1, e.Encoder.Tile() }

func (e flatEncoder) Passes() (passes []Pass) {
	for _, p := range e.Encoder.Passes() {
		var pass Pass = flatPass{p}
		if _, ok := p.(quant.RawPass); ok {
			pass = rawFlatPass{flatPass{p}}
		}
		passes = append(passes, pass)
	}
	return passes
}

func (e flatEncoder) Encode(dst [][]byte, a quant.Area, values []float32, s *quant.Scratch) error {
	return e.Encoder.Encode(dst, a.Col, values, s)
}

func (e flatEncoder) Held() int64 { return Held(e.Encoder) }

func (e flatEncoder) Shelve(open func() (quant.Shelf, error)) (bool, error) {
	return Shelve(e.Encoder, open)
}

func (e flatEncoder) TakesRaw(d safetensors.Dtype) bool {
	r, ok := e.Encoder.(quant.RawEncoder)
	return ok && r.TakesRaw(d)
}

func (e flatEncoder) EncodeRaw(dst [][]byte, a quant.Area, raw []byte, d safetensors.Dtype, s *quant.Scratch) error {
	return e.Encoder.(quant.RawEncoder).EncodeRaw(dst, a.Col, raw, d, s)
}

type flatPass struct{ quant.Pass }

// rawFlatPass is one that takes raw values.
type rawFlatPass struct{ flatPass }

func (p rawFlatPass) TakesRaw(d safetensors.Dtype) bool { return p.Pass.(quant.RawPass).TakesRaw(d) }

func (p rawFlatPass) ReadRaw(a quant.Area, read Pieces, d safetensors.Dtype, s *quant.Scratch) (any, error) {
	some := func(from, n int) ([]byte, error) {
		piece := a
		piece.Col, piece.Cols = a.Col+from, n
		return read(piece)
	}
	return p.Pass.(quant.RawPass).ReadRaw(a.Col, a.Cols, some, d, s)
}

func (p flatPass) Tile() (rows, cols int) { return 1, p.Pass.Tile() }

func (p flatPass) Read(a quant.Area, values []float32, s *quant.Scratch) (any, error) {
	return p.Pass.Read(a.Col, values, s)
}

func (p flatPass) Join(_ quant.Area, found any) error { return p.Pass.Join(found) }

func (f flat) Decode(dst []float32, src [][]byte, a quant.Area, out safetensors.Dtype, s *quant.Scratch) {
	f.Flat.Decode(dst, src, a.Col, out, s)
}

// Scheme returns how SDNQ stores the weight, nil if it does not.
func Scheme(c Codec) *quant.Scheme {
	f, _ := c.(flat)
	s, _ := f.Flat.(*quant.Scheme)
	return s
}
