package engine

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// columnWindows reads layers of which a tile needs many runs so short that reading them
// takes longer than decoding, such as codes stored column by column. A window covers
// several tiles, and what all of them need of such tensors is read once. Codes stored
// by columns are transposed once, as the window is read.
type columnWindows struct {
	parts      [maxParts]bool // which of the layer's tensors are read through windows
	rows, cols int            // shape of a window, in whole tiles; 0 without windows
	transpose  func(dst, src []byte, column int)
	// arranged is what transpose is for: [codec.ByRows] or, in strips of unit rows,
	// [codec.InStrips]; nil where codes do not lie by columns.
	arranged  func(codec.Codec) (codec.Codec, func(dst, src []byte, column int))
	unit      int // rows whose codes lie together, column by column
	scaleRows int // rows that share a scale, if scales are transposed too; else 0
}

// windowShare is the fraction of the memory limit that one window may take. Three or
// four exist at a time: two of a layer, and the first ones of the next layer.
const windowShare = 16

// newColumnWindows decides which tensors are read through windows, and how large these
// are.
func (d *Decoding) newColumnWindows() (v columnWindows) {
	if codec.Matrices(d.Layer.Codec) != nil { // whose runs are long, of one matrix after the other
		return columnWindows{}
	}
	v.arrange(d.Layer.Codec, d.out)
	d.columnWindows = v // which shapes tiles
	cut, rows, cols := d.Shape()
	size, first := 0, tile.Area{Rows: min(rows, cut.Rows), Cols: cols}
	v.scaleRows = codec.ScaleRows(d.Layer.Codec)
	for i := range d.Layer.Parts {
		spans := d.Layer.Codec.Needed(i, first)
		if v.parts[i] = v.turned(i) || inShortRuns(spans); v.parts[i] {
			size += tile.SpanBytes(spans)
		}
	}
	if size == 0 {
		return columnWindows{}
	}
	tiles := int(limit(d.Resources)/windowShare) / size
	if cut.Rows == 1 {
		v.rows, v.cols = min(tiles, 1), cols*tiles
	} else { // whole rows, which are contiguous
		v.rows, v.cols = cut.InBank(tiles/cut.Count(cut.Rows, cols)*rows, rows), cut.Cols
	}
	return v
}

// arrange decides how codes that lie by columns are arranged. Those of a single row, of
// which windows are parts, lie by rows as they are.
func (v *columnWindows) arrange(c codec.Codec, out safetensors.Dtype) {
	v.unit = 1
	if c.Cut().Rows == 1 {
		return
	}
	if strips, gather := codec.InStrips(c); strips != nil && out == safetensors.BF16 {
		v.arranged, v.transpose, v.unit = codec.InStrips, gather, strips.Cut().UnitRows
	} else if _, v.transpose = codec.ByRows(c); v.transpose != nil {
		v.arranged = codec.ByRows
		if codec.ScaleRows(c) > 0 {
			v.unit = 2 // a byte is of two rows
		}
	}
}

// taken is the codec that takes codes as they are arranged in windows.
func (v *columnWindows) taken(c codec.Codec) codec.Codec {
	if v.arranged != nil {
		c, _ = v.arranged(c)
	}
	return c
}

// turned reports whether a tensor is transposed as its window is read.
func (v *columnWindows) turned(i int) bool {
	return i == 0 && v.transpose != nil || i == 1 && v.scaleRows > 0
}

// inShortRuns reports whether the bytes lie in runs so short that a system call for
// each takes longer than what it reads is worth.
func inShortRuns(spans []tile.Span) bool {
	return len(spans) == 1 && spans[0].Count > 1 && spans[0].Size < 512
}

// windowAt returns the area of the window in which an area begins, or an empty area
// where there is none.
func (d *Decoding) windowAt(a tile.Area) tile.Area {
	v, cut := &d.columnWindows, d.Layer.Codec.Cut()
	if v.rows == 0 || a.Row >= cut.Rows || a.Col >= cut.Cols {
		return tile.Area{}
	}
	row, col := a.Row/v.rows*v.rows, a.Col/v.cols*v.cols
	return tile.Area{Row: row, Col: col, Rows: min(v.rows, cut.Rows-row), Cols: min(v.cols, cut.Cols-col)}
}

// prefetch yields tasks that read windows, if the area is the first one in its window:
// that window itself at the start of a layer, and the next one, maybe of the next layer,
// so that it is read while other workers decode this one.
func (d *Decoding) prefetch(a tile.Area, yield func(stream.Task) bool) bool {
	this := d.windowAt(a)
	if this.Rows == 0 || a.Row != this.Row || a.Col != this.Col {
		return true
	}
	if this.Row+this.Col == 0 && !d.readAhead(this, yield) {
		return false
	}
	next := tile.Area{Row: this.Row + this.Rows}
	if this.Cols < d.Layer.Codec.Cut().Cols {
		next = tile.Area{Col: this.Col + this.Cols}
	}
	if soon := d.windowAt(next); soon.Rows > 0 {
		return d.readAhead(soon, yield)
	}
	return d.next == nil || d.next.readAhead(d.next.windowAt(tile.Area{}), yield)
}

// readAhead yields a task that reads a window, unless it is empty.
func (d *Decoding) readAhead(window tile.Area, yield func(stream.Task) bool) bool {
	return window.Rows == 0 || yield(stream.Task{Do: func(w *stream.Worker) error {
		_, err := d.readWindow(w, window)
		return err
	}})
}

// columnWindow is the area of a window, and the bytes of those tensors that are read
// through it.
type columnWindow struct {
	tile.Area
	unit  int // rows whose codes lie together, column by column
	parts [maxParts][]byte
}

// windowRooms are buffers for codes of windows that are not used any more: memory that
// comes new from the system takes longer than what it is filled with.
var windowRooms sync.Pool

// windowRoom returns n bytes of arbitrary content.
func windowRoom(n int) []byte {
	if room, ok := windowRooms.Get().(*[]byte); ok && cap(*room) >= n && cap(*room)/2 <= n {
		return (*room)[:n]
	}
	return make([]byte, n)
}

// Free lets other windows use the memory of the window's codes, see [stream.Freer].
func (v *columnWindow) Free() {
	if codes := v.parts[0]; codes != nil {
		v.parts[0] = nil
		windowRooms.Put(&codes)
	}
}

// window returns the window that contains an area, or nil if none does.
func (d *Decoding) window(w *stream.Worker, a tile.Area) (*columnWindow, error) {
	if around := d.windowAt(a); around.Contains(a) {
		return d.readWindow(w, around)
	}
	return nil, nil
}

// readWindow returns a window, which the first of all tasks that ask for it reads.
func (d *Decoding) readWindow(w *stream.Worker, a tile.Area) (*columnWindow, error) {
	type key struct {
		codes *checkpoint.Tensor
		area  tile.Area
	}
	return stream.Shared(w, key{&d.Layer.Parts[0], a}, func() (*columnWindow, error) {
		all := &columnWindow{Area: a, unit: d.unit}
		for i, part := range d.Layer.Parts {
			if !d.parts[i] {
				continue
			}
			spans := d.Layer.Codec.Needed(i, a)
			if n := tile.SpanBytes(spans); i == 0 {
				all.parts[i] = windowRoom(n)
			} else {
				all.parts[i] = make([]byte, n)
			}
			err := error(nil)
			if d.turned(i) {
				err = d.readByRows(w, part, spans[0], all.parts[i])
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

// readByRows reads codes, or scales, that are stored column by column into row-major order, a few
// columns at a time.
func (d *Decoding) readByRows(w *stream.Worker, part checkpoint.Tensor, all tile.Span, dst []byte) error {
	const near = 256 << 10
	some := max(near/int(all.Stride)/8*8, 8)
	for column := 0; column < all.Count; column += some {
		src, err := d.readColumns(w, part, tile.Span{Offset: all.Offset + int64(column)*all.Stride, Size: all.Size, Count: min(some, all.Count-column), Stride: all.Stride})
		if err != nil {
			return err
		}
		d.transpose(dst, src, column)
	}
	return nil
}

// readColumns reads one run for each column. It reads what lies between the
// runs as well, and drops it, if that is faster than a system call for each.
func (d *Decoding) readColumns(w *stream.Worker, part checkpoint.Tensor, s tile.Span) ([]byte, error) {
	if s.Stride-s.Size > 4096 {
		src := w.Bytes(0, s.Bytes())
		return src, readSpans(d.Source, part, []tile.Span{s}, src)
	}
	size, stride := int(s.Size), int(s.Stride)
	src := w.Bytes(0, (s.Count-1)*stride+size)
	err := d.Source.ReadSection(part, src, s.Offset)
	for k := 1; k < s.Count && stride > size; k++ {
		copy(src[k*size:(k+1)*size], src[k*stride:])
	}
	return src[:s.Bytes()], err
}

// codes returns the codes of an area of the window, as they are arranged there: those of
// the window itself where they are consecutive.
func (v *columnWindow) codes(w *stream.Worker, a tile.Area) []byte {
	bytes := func(values int) int { return values * len(v.parts[0]) / v.Values() }
	from := func(row int) []byte { return v.parts[0][bytes((row-v.Row)*v.Cols+(a.Col-v.Col)*v.unit):] }
	if a.Cols == v.Cols || a.Rows == v.unit {
		return from(a.Row)[:bytes(a.Values())]
	}
	dst := w.Bytes(0, bytes(a.Values()))
	for r := 0; r < a.Rows; r += v.unit {
		copy(dst[bytes(r*a.Cols):][:bytes(v.unit*a.Cols)], from(a.Row+r))
	}
	return dst
}

// scales returns the scales of an area of the window, a byte for each of so many rows:
// those of the window itself where the area has whole rows.
func (v *columnWindow) scales(w *stream.Worker, a tile.Area, rows int) []byte {
	from, first := v.Row/rows, a.Row/rows
	n := tile.CeilDiv(a.Row+a.Rows, rows) - first
	all := v.parts[1][(first-from)*v.Cols : (first-from+n)*v.Cols]
	if a.Cols == v.Cols {
		return all
	}
	dst := w.Bytes(1, n*a.Cols)
	for i := range n {
		copy(dst[i*a.Cols:(i+1)*a.Cols], all[i*v.Cols+a.Col-v.Col:])
	}
	return dst
}

// copyRuns copies a span of part i from the window, which holds the span all of it. It
// reports false if the runs are not arranged in the window as they are in the tensor.
func (v *columnWindow) copyRuns(i int, span, all tile.Span, dst []byte) bool {
	stride, size := all.Size, int(span.Size)
	at := span.Offset - all.Offset
	switch {
	case all.Count == 1:
		stride = span.Stride
	case all.Stride != span.Stride && span.Count > 1:
		return false
	default:
		at = at/all.Stride*all.Size + at%all.Stride
	}
	for ; len(dst) > 0; dst, at = dst[size:], at+stride {
		copy(dst[:size], v.parts[i][at:])
	}
	return true
}
