package tensorpress

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// decoding is one stored layer on its way back to values.
type decoding struct {
	source *checkpoint.Checkpoint
	layer  *layout.Layer
	out    safetensors.Dtype
	Resources
}

func newDecoding(c *checkpoint.Checkpoint, l *layout.Layer, out safetensors.Dtype, r Resources) *decoding {
	return &decoding{c, l, out, r}
}

// near is one that reads nearly the same values faster, or nil.
func (d *decoding) near() *decoding {
	c := codec.Near(d.layer.Codec)
	if c == nil {
		return nil
	}
	layer := *d.layer
	layer.Codec = c
	return newDecoding(d.source, &layer, d.out, d.Resources)
}

// shape returns that of its tiles, smaller ones than others: of a value there
// are the code, four bytes, and what becomes of them.
func (d *decoding) shape() (cut quant.Cut, rows, cols int) {
	cut = d.layer.Codec.Cut().ForDecoding()
	rows, cols = cut.DecodeTile(quant.TileSize / 2)
	return cut, rows, cols
}

// tiles yields a task for every area.
func (d *decoding) tiles(yield func(stream.Task) bool, do func(w *stream.Worker, tile int, a quant.Area) error) bool {
	cut, rows, cols := d.shape()
	bands := d.bands()
	for tile, a := range cut.Areas(rows, cols) {
		if !bands.before(a, cut.Cols, yield) {
			return false
		}
		if !yield(stream.Task{Bytes: int64(a.Values()), Do: func(w *stream.Worker) error { return do(w, tile, a) }}) {
			return false
		}
	}
	return true
}

// read restores an area of the layer into the worker's first buffer and counts
// what it read.
func (d *decoding) read(w *stream.Worker, a quant.Area) ([]float32, error) {
	values := w.Floats(0, a.Values())
	n, err := d.restore(w, values, a)
	w.Done(int64(n))
	return values, err
}

// restore fills dst with an area of the layer; n are the bytes read.
func (d *decoding) restore(w *stream.Worker, dst []float32, a quant.Area) (n int, err error) {
	var src [maxParts][]byte
	parts := src[:len(d.layer.Parts)]
	c, n, err := d.codec(w)
	if err != nil {
		return n, err
	}
	bands := d.bands()
	if bands.has(a) {
		c, _ = codec.ByRows(c)
	}
	for i := range parts {
		if i == 0 && bands.has(a) {
			parts[i], err = bands.codes(w, a)
		} else {
			parts[i], err = d.part(w, c, i, a)
		}
		if err != nil {
			return n, err
		}
		n += len(parts[i])
	}
	c.Decode(dst, parts, a, d.out, &w.Scratch)
	return n, nil
}

// part reads what an area takes of tensor i.
func (d *decoding) part(w *stream.Worker, c codec.Codec, i int, a quant.Area) ([]byte, error) {
	spans := c.Needed(i, a)
	dst := w.Bytes(i, quant.SpanBytes(spans))
	if short(spans) {
		return dst, d.readShort(w, c, i, a, spans[0], dst)
	}
	return dst, readSpans(d.source, d.layer.Parts[i], spans, dst)
}

// codec returns the layer's, with what all areas take of it at hand; n are the
// bytes read for that.
func (d *decoding) codec(w *stream.Worker) (c codec.Codec, n int, err error) {
	once, take := codec.Once(d.layer.Codec)
	if once == 0 {
		return d.layer.Codec, 0, nil
	}
	part := d.layer.Parts[once]
	c, err = stream.Shared(w, d.layer, func() (codec.Codec, error) {
		src := make([]byte, part.Size)
		n = len(src)
		if err := d.source.ReadSection(part, src, 0); err != nil {
			return nil, err
		}
		return take(src), nil
	})
	return c, n, err
}
