package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/tensorpress/tensorpress"
)

// table is rows of cells, printed in columns.
type table struct {
	right  map[int]bool // columns of numbers
	cells  []string
	rows   []int // where they end among the cells
	widths []int // of the columns
}

func newTable(right ...int) *table {
	t := &table{right: map[int]bool{}}
	for _, column := range right {
		t.right[column] = true
	}
	return t
}

// grow makes room for rows of so many cells.
func (t *table) grow(rows, cells int) {
	t.rows, t.cells = slices.Grow(t.rows, rows), slices.Grow(t.cells, rows*cells)
}

func (t *table) add(cells ...string) {
	for i, text := range cells {
		width, plain := plainWidth(text)
		if !plain {
			text = oneLine(text)
			width = utf8.RuneCountInString(text)
		}
		t.cells = append(t.cells, text)
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], width)
	}
	t.rows = append(t.rows, len(t.cells))
}

// print writes the rows, two spaces between columns.
func (t *table) print(w io.Writer) {
	var line []byte
	from := 0
	for _, end := range t.rows {
		line = line[:0]
		for i, text := range t.cells[from:end] {
			pad := t.widths[i] - utf8.RuneCountInString(text)
			if t.right[i] {
				line = append(appendSpaces(line, pad), text...)
			} else {
				line = appendSpaces(append(line, text...), pad)
			}
			line = appendSpaces(line, 2)
		}
		from = end
		_, _ = w.Write(append(bytes.TrimRight(line, " "), '\n')) // a buffer's, whose Flush tells
	}
}

func appendSpaces(b []byte, n int) []byte {
	const spaces = "                                "
	for ; n > len(spaces); n -= len(spaces) {
		b = append(b, spaces...)
	}
	return append(b, spaces[:n]...)
}

// texts makes those of shapes and sizes, which rows repeat.
type texts struct {
	sizes map[int64]string
	shape []int
	last  string // text of that shape
}

func (t *texts) size(n int64) string {
	text, known := t.sizes[n]
	if !known {
		if t.sizes == nil {
			t.sizes = map[int64]string{}
		}
		text = tensorpress.Size(n)
		t.sizes[n] = text
	}
	return text
}

func (t *texts) of(shape []int) string {
	if t.last == "" || !slices.Equal(shape, t.shape) {
		t.shape, t.last = shape, shapeText(shape)
	}
	return t.last
}

// output writes a result: as JSON, or as show prints it. Its error is that of
// the writer.
func output(w io.Writer, asJSON bool, v any, show func(w io.Writer)) error {
	b := bufio.NewWriterSize(w, 64<<10)
	if asJSON {
		if err := writeJSON(b, v, ""); err != nil {
			return err
		}
	} else {
		show(b)
	}
	return b.Flush()
}

// writeJSON writes v and leaves <, > and & as they are.
func writeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// shapeText is a shape as people write it: 384×1536.
func shapeText(shape []int) string {
	if len(shape) == 0 {
		return "scalar"
	}
	var b []byte
	for i, n := range shape {
		if i > 0 {
			b = append(b, "×"...)
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(b)
}
