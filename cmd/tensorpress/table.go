package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/tensorpress/tensorpress/report"
)

// table is rows of cells, printed in columns.
type table struct {
	right  map[int]bool // columns that are aligned to the right, for numbers
	cells  []cell
	rows   []int // the end of each row among the cells
	widths []int // of the columns
}

// widest is what a cell may widen its column to. One that is wider pushes the rest of its
// own row aside: ranges of thousands of numbers would fill every row with as many spaces.
const widest = 120

type cell struct {
	text  string
	width int // in characters
}

func newTable(right ...int) *table {
	t := &table{right: map[int]bool{}}
	for _, column := range right {
		t.right[column] = true
	}
	return t
}

// grow makes room for that many rows of that many cells.
func (t *table) grow(rows, cells int) {
	t.rows, t.cells = slices.Grow(t.rows, rows), slices.Grow(t.cells, rows*cells)
}

func (t *table) add(texts ...string) {
	above := t.cells[t.start(len(t.rows)-1):]
	for i, text := range texts {
		c := cellOf(text, above, i)
		t.cells = append(t.cells, c)
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		if c.width <= widest {
			t.widths[i] = max(t.widths[i], c.width)
		}
	}
	t.rows = append(t.rows, len(t.cells))
}

// cellOf makes a cell. It reuses the one above if the text is the same, as it often is.
func cellOf(text string, above []cell, column int) cell {
	if column < len(above) && above[column].text == text {
		return above[column]
	}
	width, plain := plainWidth(text)
	if !plain {
		text = oneLine(text)
		width = utf8.RuneCountInString(text)
	}
	return cell{text, width}
}

// print writes the rows with two spaces between columns. It formats parts of a long
// table in parallel.
func (t *table) print(w io.Writer) {
	const worthwhile = 1000
	parts := make([][]byte, max(1, min(runtime.GOMAXPROCS(0), len(t.rows)/worthwhile)))
	var all sync.WaitGroup
	for i := range parts {
		all.Go(func() {
			parts[i] = t.lines(len(t.rows)*i/len(parts), len(t.rows)*(i+1)/len(parts))
		})
	}
	all.Wait()
	for _, part := range parts {
		_, _ = w.Write(part) // w is a buffer, whose Flush returns the error
	}
}

// start returns the index of a row's first cell.
func (t *table) start(row int) int {
	if row <= 0 {
		return 0
	}
	return t.rows[row-1]
}

// lines returns the text of some rows.
func (t *table) lines(row, end int) []byte {
	width := 1
	for _, n := range t.widths {
		width += n + 2
	}
	lines, from := make([]byte, 0, (end-row)*width), t.start(row)
	for ; row < end; row++ {
		for i, c := range t.cells[from:t.rows[row]] {
			pad := max(0, t.widths[i]-c.width)
			if t.right[i] {
				lines = append(appendSpaces(lines, pad), c.text...)
			} else {
				lines = appendSpaces(append(lines, c.text...), pad)
			}
			lines = appendSpaces(lines, 2)
		}
		from = t.rows[row]
		lines = append(bytes.TrimRight(lines, " "), '\n')
	}
	return lines
}

func appendSpaces(b []byte, n int) []byte {
	const spaces = "                                "
	for ; n > len(spaces); n -= len(spaces) {
		b = append(b, spaces...)
	}
	return append(b, spaces[:n]...)
}

// texts makes the texts of shapes and sizes, and reuses those that rows repeat.
type texts struct {
	sizes map[int64]string
	shape []int
	last  string // text of the last shape
}

func (t *texts) size(n int64) string {
	text, known := t.sizes[n]
	if !known {
		if t.sizes == nil {
			t.sizes = map[int64]string{}
		}
		text = report.Size(n)
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

// output writes a result, as JSON or through show. Errors are those of the writer; that
// the reader has closed its end, as head does, is none.
func output(w io.Writer, asJSON bool, v any, show func(w io.Writer)) error {
	b := bufio.NewWriterSize(w, 64<<10)
	var err error
	if asJSON {
		err = writeJSON(b, v, "")
	} else {
		show(b)
	}
	if err == nil {
		err = b.Flush()
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// writeJSON writes v and leaves <, > and & as they are.
func writeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// shapeText returns a shape as text for people: 384×1536.
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
