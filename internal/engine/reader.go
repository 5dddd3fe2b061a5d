package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Values are those of a weight, wherever they come from.
type Values interface {
	// read fills one of the worker's buffers with an area of the weight, taken
	// as a matrix of that many columns.
	Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error)
}

// PlainValues are those of a plain tensor.
type PlainValues struct {
	Source *checkpoint.Checkpoint
	Tensor checkpoint.Tensor
	body   []byte    // all of it, if it was read with others; else nil
	kept   *resident // where it stays from its first pass on; else nil
}

// Read widens an area to the worker's buffer of that number.
func (p *PlainValues) Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	const near = 32 << 10 // values whose bytes are in the nearer caches still when they are widened
	x := w.Floats(buffer, a.Values())
	rows, width := max(near/a.Cols, 1), a.Cols
	if a.Rows == 1 {
		width = near
	}
	rest := x
	for piece := range a.Split(rows, width) {
		raw, err := p.raw(w, columns, piece)
		if err != nil {
			return nil, err
		}
		codec.Widen(rest[:piece.Values()], raw, p.Tensor.Dtype)
		rest = rest[piece.Values():]
	}
	return x, nil
}

// raw reads them as they are stored.
func (p *PlainValues) raw(w *stream.Worker, columns int, a tile.Area) ([]byte, error) {
	width := p.Tensor.Dtype.Bits() / 8
	spans := tile.SpansOf(a, columns, width)
	switch run := spans[0]; {
	case p.body != nil:
		return p.body[run.Offset : run.Offset+run.Size], nil
	case p.kept != nil:
		return p.kept.section(w, p.Source, p.Tensor, run)
	}
	raw := w.Bytes(RawBuffer, a.Values()*width)
	return raw, readSpans(p.Source, p.Tensor, spans, raw)
}

// storedValues are what a quantized layer decodes to, in single precision. The
// layer is read in pieces that its own cut allows, of at most so many values.
type storedValues struct {
	Decoding
	limit int
}

// NewStoredValues are those of a layer, decoded in areas of at most limit values.
func NewStoredValues(c *checkpoint.Checkpoint, l *layout.Layer, limit int, r Resources) storedValues {
	return storedValues{*NewDecoding(c, l, safetensors.F32, r), min(limit, tile.TileSize)}
}

// pieceBuffer is the worker's buffer of values for pieces that are larger than
// what was asked for; those before it are for what was.
const pieceBuffer = 2

// Read decodes an area to the worker's buffer of that number.
func (s storedValues) Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	x := w.Floats(buffer, a.Values())
	cut := s.Layer.Codec.Cut()
	if cut.Cols == columns && a.Row+a.Rows <= cut.Rows {
		return x, s.rectangle(w, x, a)
	}
	rows, width := a.Rows, a.Cols
	if a.Cols == columns { // they lie one after the other
		rows, width = 1, a.Values()
	}
	for i := range rows {
		if err := s.run(w, x[i*width:(i+1)*width], (a.Row+i)*columns+a.Col); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// run reads consecutive values: the end of a row, whole rows, the beginning of
// one.
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

// rectangle reads an area as the layer's own cut counts.
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

// piece decodes whole units and takes what the area has of them, into its place
// at once where they lie in one run of it.
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
