package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Values reads the values of a weight, wherever they come from.
type Values interface {
	// Read returns an area of the weight, seen as a matrix of that many columns, in the
	// worker's float buffer of that number.
	Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error)
}

// PlainValues are the values of a tensor that is not quantized.
type PlainValues struct {
	Source   *checkpoint.Checkpoint
	Tensor   checkpoint.Tensor
	body     []byte    // the whole tensor, if it was read together with its neighbours; else nil
	resident *resident // holds the tensor in memory from its first pass on; nil if it is read from the file each time
}

// Read widens an area to float32 in the worker's float buffer of that number.
func (p *PlainValues) Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	x := w.Floats(buffer, a.Values())
	return x, p.into(w, x, columns, a)
}

// into widens an area into x.
func (p *PlainValues) into(w *stream.Worker, x []float32, columns int, a tile.Area) error {
	const near = 32 << 10 // so many values that their bytes are still in the nearer caches when they are widened
	rows, width := max(near/a.Cols, 1), a.Cols
	if a.Rows == 1 {
		width = near
	}
	rest := x
	for piece := range a.Split(rows, width) {
		raw, err := p.raw(w, columns, piece)
		if err != nil {
			return err
		}
		codec.Widen(rest[:piece.Values()], raw, p.Tensor.Dtype)
		rest = rest[piece.Values():]
	}
	return nil
}

// raw returns an area in the tensor's own dtype.
func (p *PlainValues) raw(w *stream.Worker, columns int, a tile.Area) ([]byte, error) {
	width := p.Tensor.Dtype.Bits() / 8
	spans := tile.SpansOf(a, columns, width)
	switch run := spans[0]; {
	case p.body != nil:
		return p.body[run.Offset : run.Offset+run.Size], nil
	case p.resident != nil:
		return p.resident.section(w, p.Source, p.Tensor, run)
	}
	raw := w.Bytes(RawBuffer, a.Values()*width)
	return raw, readSpans(p.Source, p.Tensor, spans, raw)
}

// storedValues are the values that a quantized layer decodes to, as float32. The layer
// is decoded in pieces that its own cut allows, of at most limit values each.
type storedValues struct {
	Decoding
	limit int
}

// NewStoredValues returns the values of a layer, decoded in pieces of at most limit
// values.
func NewStoredValues(c *checkpoint.Checkpoint, l *layout.Layer, limit int, r Resources) storedValues {
	return storedValues{*NewDecoding(c, l, safetensors.F32, r), min(limit, tile.TileSize)}
}

// pieceBuffer is the number of the worker's float buffer for pieces that reach beyond
// the requested area. Buffers 0 and 1 are for the areas that callers of Read request.
const pieceBuffer = 2

// Read decodes an area to the worker's float buffer of that number.
func (s storedValues) Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	x := w.Floats(buffer, a.Values())
	cut := s.Layer.Codec.Cut()
	if cut.Cols == columns && a.Row+a.Rows <= cut.Rows {
		return x, s.rectangle(w, x, a)
	}
	rows, width := a.Rows, a.Cols
	if a.Cols == columns { // whole rows are consecutive
		rows, width = 1, a.Values()
	}
	for i := range rows {
		if err := s.run(w, x[i*width:(i+1)*width], (a.Row+i)*columns+a.Col); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// run reads consecutive values: the end of a row, then whole rows, then the beginning
// of one.
func (s storedValues) run(w *stream.Worker, x []float32, start int) error {
	columns := s.Layer.Codec.Cut().Cols
	for len(x) > 0 {
		a := tile.Area{Row: start / columns, Col: start % columns, Rows: 1}
		a.Cols = min(columns-a.Col, len(x))
		if a.Cols == columns {
			a.Rows = len(x) / columns
		}
		if err := s.rectangle(w, x[:a.Values()], a); err != nil {
			return err
		}
		x, start = x[a.Values():], start+a.Values()
	}
	return nil
}

// rectangle reads an area that is given in rows and columns of the layer's own cut.
func (s storedValues) rectangle(w *stream.Worker, x []float32, a tile.Area) error {
	cut := s.Layer.Codec.Cut().ForDecoding()
	whole := cut.Cover(a)
	for piece := range whole.Split(cut.Piece(whole, s.limit)) {
		if err := s.piece(w, x, a, piece); err != nil {
			return err
		}
	}
	return nil
}

// piece decodes whole units and copies the part of them that lies in the area a to its
// place in x; it decodes them directly into x if they are consecutive there.
func (s storedValues) piece(w *stream.Worker, x []float32, a, piece tile.Area) error {
	if at := (piece.Row-a.Row)*a.Cols + piece.Col - a.Col; a.Contains(piece) && (piece.Rows == 1 || piece.Cols == a.Cols) {
		_, err := s.restore(w, x[at:at+piece.Values()], piece)
		return err
	}
	decoded := w.Floats(pieceBuffer, piece.Values())
	if _, err := s.restore(w, decoded, piece); err != nil {
		return err
	}
	from, to := max(a.Col, piece.Col), min(a.Col+a.Cols, piece.Col+piece.Cols)
	for row := max(a.Row, piece.Row); row < min(a.Row+a.Rows, piece.Row+piece.Rows); row++ {
		src := decoded[(row-piece.Row)*piece.Cols:]
		copy(x[(row-a.Row)*a.Cols+from-a.Col:], src[from-piece.Col:to-piece.Col])
	}
	return nil
}
