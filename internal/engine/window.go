package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// windows are for layers with tensors of which a tile takes runs so short that reading
// them takes longer than restoring. What several tiles take of those is read once, and
// codes that lie by columns are put by rows at once.
type windows struct {
	parts      [maxParts]bool // that are read so
	rows, cols int            // of a window, in whole tiles; 0 where there are none
	straighten func(dst, src []byte, column int)
}

// windowShare is the part of the memory that a window may take. Three or four are
// there at a time: two of a layer, and the first ones of the next.
const windowShare = 16

// newWindows looks at what a tile takes of each part.
func (d *Decoding) newWindows() (v windows) {
	cut, rows, cols := d.Shape()
	size, first := 0, tile.Area{Rows: min(rows, cut.Rows), Cols: cols}
	_, v.straighten = codec.ByRows(d.Layer.Codec)
	for i := range d.Layer.Parts {
		spans := d.Layer.Codec.Needed(i, first)
		if v.parts[i] = i == 0 && v.straighten != nil || short(spans); v.parts[i] {
			size += tile.SpanBytes(spans)
		}
	}
	if size == 0 {
		return windows{}
	}
	tiles := int(limit(d.Resources)/windowShare) / size
	if cut.Rows == 1 {
		v.rows, v.cols = min(tiles, 1), cols*tiles
	} else { // in whole rows, which lie together
		v.rows, v.cols = tiles/cut.Count(cut.Rows, cols)*rows, cut.Cols
	}
	return v
}

// short reports whether a part lies in runs so short that system calls take longer
// than what they bring.
func short(spans []tile.Span) bool {
	return len(spans) == 1 && spans[0].Count > 1 && spans[0].Size < 512
}

// around is the window in which an area begins, or an empty area.
func (d *Decoding) around(a tile.Area) tile.Area {
	v, cut := &d.windows, d.Layer.Codec.Cut()
	if v.rows == 0 || a.Row >= cut.Rows || a.Col >= cut.Cols {
		return tile.Area{}
	}
	row, col := a.Row/v.rows*v.rows, a.Col/v.cols*v.cols
	return tile.Area{Row: row, Col: col, Rows: min(v.rows, cut.Rows-row), Cols: min(v.cols, cut.Cols-col)}
}

// ahead yields the reading of the windows that tiles need soon, if an area is the
// first in its own: the next one while others are at work in this.
func (d *Decoding) ahead(a tile.Area, yield func(stream.Task) bool) bool {
	this := d.around(a)
	if this.Rows == 0 || a.Row != this.Row || a.Col != this.Col {
		return true
	}
	next := tile.Area{Row: this.Row + this.Rows}
	if this.Cols < d.Layer.Codec.Cut().Cols {
		next = tile.Area{Col: this.Col + this.Cols}
	}
	for _, soon := range []tile.Area{a, next} {
		if soon = d.around(soon); soon.Rows == 0 || soon == this && soon.Row+soon.Col > 0 {
			continue
		}
		if !yield(stream.Task{Do: func(w *stream.Worker) error {
			_, err := d.open(w, soon)
			return err
		}}) {
			return false
		}
	}
	return true
}

// window is an area and, of the parts that are read so, the bytes.
type window struct {
	tile.Area
	parts [maxParts][]byte
}

// window returns the one that holds an area, or nil if none does.
func (d *Decoding) window(w *stream.Worker, a tile.Area) (*window, error) {
	if around := d.around(a); around.Contains(a) {
		return d.open(w, around)
	}
	return nil, nil
}

// open reads a window, for all tasks that ask for it.
func (d *Decoding) open(w *stream.Worker, a tile.Area) (*window, error) {
	type key struct {
		codes *checkpoint.Tensor
		area  tile.Area
	}
	return stream.Shared(w, key{&d.Layer.Parts[0], a}, func() (*window, error) {
		all := &window{Area: a}
		for i, part := range d.Layer.Parts {
			if !d.parts[i] {
				continue
			}
			spans := d.Layer.Codec.Needed(i, a)
			all.parts[i] = make([]byte, tile.SpanBytes(spans))
			err := error(nil)
			if i == 0 && d.straighten != nil {
				err = d.readByRows(w, spans[0], all.parts[i])
			} else {
				err = readSpans(d.Source, part, spans, all.parts[i])
			}
			if err != nil {
				return nil, err
			}
		}
		return all, nil
	})
}

// readByRows puts codes that lie by columns by rows, some columns at a time.
func (d *Decoding) readByRows(w *stream.Worker, all tile.Span, dst []byte) error {
	const near = 256 << 10
	some := max(near/int(all.Stride)/8*8, 8)
	for column := 0; column < all.Count; column += some {
		src, err := d.readColumns(w, tile.Span{Offset: all.Offset + int64(column)*all.Stride, Size: all.Size, Count: min(some, all.Count-column), Stride: all.Stride})
		if err != nil {
			return err
		}
		d.straighten(dst, src, column)
	}
	return nil
}

// readColumns reads runs of codes, together with what is between them where that takes
// less time than calls of the system.
func (d *Decoding) readColumns(w *stream.Worker, s tile.Span) ([]byte, error) {
	if s.Stride-s.Size > 4096 {
		src := w.Bytes(0, s.Bytes())
		return src, readSpans(d.Source, d.Layer.Parts[0], []tile.Span{s}, src)
	}
	size, stride := int(s.Size), int(s.Stride)
	src := w.Bytes(0, (s.Count-1)*stride+size)
	err := d.Source.ReadSection(d.Layer.Parts[0], src, s.Offset)
	for k := range s.Count {
		copy(src[k*size:(k+1)*size], src[k*stride:])
	}
	return src[:s.Bytes()], err
}

// codes are those of an area in the window, by rows.
func (v *window) codes(a tile.Area) []byte {
	width := len(v.parts[0]) / v.Values()
	return v.parts[0][(a.Col-v.Col)*width:][:a.Cols*width]
}

// take copies runs of a part that the window has. It reports false where they do not
// lie in it as in the tensor.
func (v *window) take(i int, span, all tile.Span, dst []byte) bool {
	stride, size := all.Size, int(span.Size)
	if all.Count == 1 {
		stride = span.Stride
	} else if all.Count != span.Count || all.Stride != span.Stride {
		return false
	}
	at := span.Offset - all.Offset
	for ; len(dst) > 0; dst, at = dst[size:], at+stride {
		copy(dst[:size], v.parts[i][at:])
	}
	return true
}
