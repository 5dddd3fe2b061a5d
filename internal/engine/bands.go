package engine

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/quant"
)

// bands are runs of rows of a layer whose codes lie by columns. The codes of one are
// read and put by rows once, for all tiles in it: in runs as short as those of one
// tile, reading takes longer than restoring.
type bands struct {
	*Decoding
	straighten func(dst, src []byte, column int)
	width      int // of a code, in bytes
	values     int // of a band: those of whole tiles
}

// bandShare is the part of the memory that a band may take. Three or four are there
// at a time: two of a layer, and the first ones of the next.
const bandShare = 16

// bands returns nil for layers whose codes lie by rows.
func (d *Decoding) bands() *bands {
	_, straighten := codec.ByRows(d.Layer.Codec)
	if straighten == nil {
		return nil
	}
	_, _, tile := d.Shape()
	b := &bands{Decoding: d, straighten: straighten, width: d.Layer.Parts[0].Dtype.Bits() / 8}
	b.values = max(int(limit(d.Resources)/bandShare)/b.width/tile, 1) * tile
	return b
}

// before yields the reading of the bands that tiles need soon, if an area is the
// first in its band: the next while others are at work in this one.
func (b *bands) before(a quant.Area, all int, yield func(stream.Task) bool) bool {
	if b == nil || a.Col%b.values != 0 {
		return true
	}
	first, last := a.Col+b.values, a.Col+b.values
	if a.Col == 0 {
		first = 0
	}
	for start := first; start <= last && start < all; start += b.values {
		if !yield(stream.Task{Do: func(w *stream.Worker) error {
			_, err := b.codes(w, quant.Area{Rows: 1, Col: start, Cols: 1})
			return err
		}}) {
			return false
		}
	}
	return true
}

// has reports whether an area lies in one band.
func (b *bands) has(a quant.Area) bool {
	return b != nil && a.Col/b.values == (a.Col+a.Cols-1)/b.values
}

// codes returns those of an area that lies in a band.
func (b *bands) codes(w *stream.Worker, a quant.Area) ([]byte, error) {
	type band struct {
		codes *checkpoint.Tensor
		start int
	}
	start := a.Col / b.values * b.values
	all, err := stream.Shared(w, band{&b.Layer.Parts[0], start}, func() ([]byte, error) { return b.Read(w, start) })
	if err != nil {
		return nil, err
	}
	from := (a.Col - start) * b.width
	return all[from : from+a.Cols*b.width], nil
}

// Read puts the codes of a band by rows, some columns at a time.
func (b *bands) Read(w *stream.Worker, start int) ([]byte, error) {
	end := min(start+b.values, b.Layer.Codec.Cut().Cols)
	run := b.Layer.Codec.Needed(0, quant.Area{Rows: 1, Col: start, Cols: end - start})[0]
	codes := make([]byte, run.Bytes())
	const near = 256 << 10
	some := max(near/int(run.Size)/8*8, 8)
	for column := 0; column < run.Count; column += some {
		part := quant.Span{Offset: run.Offset + int64(column)*run.Stride, Size: run.Size, Count: min(some, run.Count-column), Stride: run.Stride}
		src := w.Bytes(0, part.Bytes())
		if err := readSpans(b.Source, b.Layer.Parts[0], []quant.Span{part}, src); err != nil {
			return nil, err
		}
		b.straighten(codes, src, column)
	}
	return codes, nil
}

// short reports whether a part lies in runs so short that system calls take longer
// than what they bring.
func short(spans []quant.Span) bool {
	return len(spans) == 1 && spans[0].Count > 1 && spans[0].Size < 512
}

// readShort reads part i of an area by way of that of many tiles.
func (d *Decoding) readShort(w *stream.Worker, c codec.Codec, i int, a quant.Area, span quant.Span, dst []byte) error {
	type key struct {
		part *checkpoint.Tensor
		area quant.Area
	}
	part, many := d.Layer.Parts[i], d.around(a)
	all := c.Needed(i, many)
	if !many.Contains(a) || len(all) != 1 || all[0].Count != span.Count || all[0].Stride != span.Stride {
		return readSpans(d.Source, part, []quant.Span{span}, dst)
	}
	data, err := stream.Shared(w, key{&d.Layer.Parts[i], many}, func() ([]byte, error) {
		data := make([]byte, all[0].Bytes())
		return data, readSpans(d.Source, part, all, data)
	})
	if err != nil {
		return err
	}
	from, size := int(span.Offset-all[0].Offset), int(span.Size)
	for k := range span.Count {
		copy(dst[k*size:(k+1)*size], data[k*int(all[0].Size)+from:])
	}
	return nil
}

// around is the area of the tiles near one, in whole rows.
func (d *Decoding) around(a quant.Area) quant.Area {
	const many = 64
	cut, rows, cols := d.Shape()
	if cut.Rows == 1 {
		cols *= many
		col := a.Col / cols * cols
		return quant.Area{Rows: 1, Col: col, Cols: min(cols, cut.Cols-col)}
	}
	rows *= many
	row := a.Row / rows * rows
	return quant.Area{Row: row, Rows: min(rows, cut.Rows-row), Col: a.Col, Cols: a.Cols}
}
