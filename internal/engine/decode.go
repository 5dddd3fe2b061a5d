package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Decoding is one stored layer on its way back to values.
type Decoding struct {
	Source *checkpoint.Checkpoint
	Layer  *layout.Layer
	out    safetensors.Dtype
	Resources
	windows
}

// NewDecoding prepares a layer to be restored in the dtype out.
func NewDecoding(c *checkpoint.Checkpoint, l *layout.Layer, out safetensors.Dtype, r Resources) *Decoding {
	d := &Decoding{Source: c, Layer: l, out: out, Resources: r}
	if l.Codec != nil && l.Apart == nil { // else the layer is not read, or several are
		d.windows = d.newWindows()
	}
	return d
}

// near is one that reads nearly the same values faster, or nil.
func (d *Decoding) near() *Decoding {
	c := codec.Near(d.Layer.Codec)
	if c == nil {
		return nil
	}
	layer := *d.Layer
	layer.Codec = c
	return NewDecoding(d.Source, &layer, d.out, d.Resources)
}

// Shape returns that of its tiles, smaller ones than others: of a value there
// are the code, four bytes, and what becomes of them.
func (d *Decoding) Shape() (cut tile.Cut, rows, cols int) {
	cut = d.Layer.Codec.Cut().ForDecoding()
	rows, cols = cut.DecodeTile(tile.TileSize / 2)
	return cut, rows, cols
}

// tiles yields a task for every area.
func (d *Decoding) tiles(yield func(stream.Task) bool, do func(w *stream.Worker, tile int, a tile.Area) error) bool {
	cut, rows, cols := d.Shape()
	for tile, a := range cut.Areas(rows, cols) {
		if !d.ahead(a, yield) {
			return false
		}
		if !yield(stream.Task{Bytes: int64(a.Values()), Do: func(w *stream.Worker) error { return do(w, tile, a) }}) {
			return false
		}
	}
	return true
}

// Read restores an area of the layer into the worker's first buffer and counts
// what it read.
func (d *Decoding) Read(w *stream.Worker, a tile.Area) ([]float32, error) {
	values := w.Floats(0, a.Values())
	n, err := d.restore(w, values, a)
	w.Done(int64(n))
	return values, err
}

// restore fills dst with an area of the layer; n are the bytes read.
func (d *Decoding) restore(w *stream.Worker, dst []float32, a tile.Area) (n int, err error) {
	c, n, err := d.codec(w)
	if err != nil {
		return n, err
	}
	var src [maxParts][]byte
	parts := src[:len(d.Layer.Parts)]
	if c, err = d.read(w, c, a, parts); err != nil {
		return n, err
	}
	c.Decode(dst, parts, a, d.out, &w.Scratch)
	return n + bytesOf(parts), nil
}

func bytesOf(parts [][]byte) (n int) {
	for _, part := range parts {
		n += len(part)
	}
	return n
}

// read reads what an area takes of each tensor, and returns the codec that decodes it:
// one that takes codes by rows where a window has them so.
func (d *Decoding) read(w *stream.Worker, c codec.Codec, a tile.Area, parts [][]byte) (codec.Codec, error) {
	from, err := d.window(w, a)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		if i == 0 && from != nil && d.straighten != nil {
			parts[i] = from.codes(a)
			continue
		}
		spans := c.Needed(i, a)
		parts[i] = w.Bytes(i, tile.SpanBytes(spans))
		if from != nil && d.parts[i] && from.take(i, spans[0], c.Needed(i, from.Area)[0], parts[i]) {
			continue
		}
		if err := readSpans(d.Source, d.Layer.Parts[i], spans, parts[i]); err != nil {
			return nil, err
		}
	}
	if from != nil && d.straighten != nil {
		c, _ = codec.ByRows(c)
	}
	return c, nil
}

// codec returns the layer's, with what all areas take of it at hand; n are the
// bytes read for that.
func (d *Decoding) codec(w *stream.Worker) (c codec.Codec, n int, err error) {
	once, take := codec.Once(d.Layer.Codec)
	if len(once) == 0 {
		return d.Layer.Codec, 0, nil
	}
	c, err = stream.Shared(w, d.Layer, func() (codec.Codec, error) {
		src := make([][]byte, len(once))
		for i, part := range once {
			src[i] = make([]byte, d.Layer.Parts[part].Size)
			n += len(src[i])
			if err := d.Source.ReadSection(d.Layer.Parts[part], src[i], 0); err != nil {
				return nil, err
			}
		}
		return take(src), nil
	})
	return c, n, err
}

// readSpans fills dst with runs of a tensor, one after the other.
func readSpans(c *checkpoint.Checkpoint, t checkpoint.Tensor, spans []tile.Span, dst []byte) error {
	for _, s := range spans {
		for i := range s.Count {
			if err := c.ReadSection(t, dst[:s.Size], s.Offset+int64(i)*s.Stride); err != nil {
				return err
			}
			dst = dst[s.Size:]
		}
	}
	return nil
}
