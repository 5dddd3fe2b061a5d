package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Decoding restores the values of one stored layer.
type Decoding struct {
	Source *checkpoint.Checkpoint
	Layer  *layout.Layer
	out    safetensors.Dtype
	Resources
	columnWindows
	next *Decoding // whose first window is read while this one's last is decoded; nil for none
}

// NewDecoding prepares a layer to be restored in the dtype out.
func NewDecoding(c *checkpoint.Checkpoint, l *layout.Layer, out safetensors.Dtype, r Resources) *Decoding {
	d := &Decoding{Source: c, Layer: l, out: out, Resources: r}
	if l.Codec != nil && l.Apart == nil { // nil for a layer that cannot be decoded
		d.columnWindows = d.newColumnWindows()
	}
	return d
}

// approximate returns a decoding that computes nearly the same values faster, or nil if
// there is none.
func (d *Decoding) approximate() *Decoding {
	c := codec.Approximate(d.Layer.Codec)
	if c == nil {
		return nil
	}
	layer := *d.Layer
	layer.Codec = c
	return NewDecoding(d.Source, &layer, d.out, d.Resources)
}

// Shape returns the cut and the shape of tiles to decode. They are half as large as
// those to encode, since a value takes its code, four bytes, and room in the output.
func (d *Decoding) Shape() (cut tile.Cut, rows, cols int) {
	c := d.Layer.Codec
	if d.unit > 1 {
		c = d.taken(c)
	}
	cut = c.Cut().ForDecoding()
	rows, cols = cut.DecodeTile(tile.TileSize / 2)
	return cut, rows, cols
}

// tiles yields a task for every tile, and before it those that read windows ahead.
func (d *Decoding) tiles(yield func(stream.Task) bool, do func(w *stream.Worker, tile int, a tile.Area) error) bool {
	cut, rows, cols := d.Shape()
	for tile, a := range cut.Areas(rows, cols) {
		if !d.prefetch(a, yield) {
			return false
		}
		if !yield(stream.Task{Bytes: int64(a.Values()), Do: func(w *stream.Worker) error { return do(w, tile, a) }}) {
			return false
		}
	}
	return true
}

// Read restores an area of the layer into the worker's first float buffer, and counts
// the bytes read as done.
func (d *Decoding) Read(w *stream.Worker, a tile.Area) ([]float32, error) {
	values := w.Floats(0, a.Values())
	n, err := d.restore(w, values, a)
	w.Done(int64(n))
	return values, err
}

// restore decodes an area of the layer into dst. n is the number of bytes read.
func (d *Decoding) restore(w *stream.Worker, dst []float32, a tile.Area) (n int, err error) {
	var src [maxParts][]byte
	parts := src[:len(d.Layer.Parts)]
	c, n, err := d.stored(w, a, parts)
	if err == nil {
		c.Decode(dst, parts, a, d.out, &w.Scratch)
	}
	return n, err
}

// stored reads what an area needs of each tensor into parts. It returns the codec that
// decodes them, and the number of bytes read.
func (d *Decoding) stored(w *stream.Worker, a tile.Area, parts [][]byte) (c codec.Codec, n int, err error) {
	if c, n, err = d.codec(w); err != nil {
		return nil, n, err
	}
	if c, err = d.read(w, c, a, parts); err != nil {
		return nil, n, err
	}
	return c, n + bytesOf(parts), nil
}

func bytesOf(parts [][]byte) (n int) {
	for _, part := range parts {
		n += len(part)
	}
	return n
}

// read reads what an area needs of each tensor into parts. It returns the codec that
// decodes them: one for codes in row-major order if they come from a window.
func (d *Decoding) read(w *stream.Worker, c codec.Codec, a tile.Area, parts [][]byte) (codec.Codec, error) {
	from, err := d.window(w, a)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		if i == 0 && from != nil && d.transpose != nil {
			parts[i] = from.codes(w, a)
			continue
		}
		if from != nil && d.turned(i) {
			parts[i] = from.scales(w, a, d.scaleRows)
			continue
		}
		spans := c.Needed(i, a)
		parts[i] = w.Bytes(i, tile.SpanBytes(spans))
		if from != nil && d.parts[i] && from.copyRuns(i, spans[0], c.Needed(i, from.Area)[0], parts[i]) {
			continue
		}
		if err := readSpans(d.Source, d.Layer.Parts[i], spans, parts[i]); err != nil {
			return nil, err
		}
	}
	if from != nil && d.transpose != nil {
		c = d.taken(c)
	}
	return c, nil
}

// codec returns the layer's codec. If every tile needs the whole of one tensor, the
// codec holds it, read once for all tiles; n is the number of bytes read for that.
func (d *Decoding) codec(w *stream.Worker) (c codec.Codec, n int, err error) {
	indices, withShared := codec.SharedTensors(d.Layer.Codec)
	if len(indices) == 0 {
		return d.Layer.Codec, 0, nil
	}
	c, err = stream.Shared(w, d.Layer, func() (codec.Codec, error) {
		src, err := readWhole(d.Source, d.Layer, indices)
		if err != nil {
			return nil, err
		}
		n = bytesOf(src)
		c, err := withShared(src)
		if err != nil {
			return nil, sharedError(d.Source, d.Layer, err)
		}
		return c, nil
	})
	return c, n, err
}

// readWhole reads some of a layer's tensors.
func readWhole(c *checkpoint.Checkpoint, l *layout.Layer, indices []int) (src [][]byte, err error) {
	src = make([][]byte, len(indices))
	for i, part := range indices {
		src[i] = make([]byte, l.Parts[part].Size)
		if err := c.ReadSection(l.Parts[part], src[i], 0); err != nil {
			return nil, err
		}
	}
	return src, nil
}

// unsoundError is of a tensor of which every area takes all, and whose content is wrong.
type unsoundError struct{ error }

func (e unsoundError) Unwrap() error { return e.error }

// sharedError says in which layer it is.
func sharedError(c *checkpoint.Checkpoint, l *layout.Layer, err error) error {
	return usage.SourceErrorf("%s: layer %s cannot be decoded: %w: verify the file, or fetch it again", c.File(l.Parts[0]), l.Name, unsoundError{err})
}

// readSpans reads runs of a tensor into dst, one after another.
func readSpans(c *checkpoint.Checkpoint, t checkpoint.Tensor, spans []tile.Span, dst []byte) error {
	for _, s := range spans {
		if s.Size == s.Stride { // one run
			s = tile.One(s.Offset, s.Size*int64(s.Count))
		}
		for i := range s.Count {
			if err := c.ReadSection(t, dst[:s.Size], s.Offset+int64(i)*s.Stride); err != nil {
				return err
			}
			dst = dst[s.Size:]
		}
	}
	return nil
}
