package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"
)

// table is rows of cells, printed in columns.
type table struct {
	right  map[int]bool // columns of numbers
	rows   [][]cell
	widths []int // of the columns
}

type cell struct {
	text  string
	width int
}

func newTable(right ...int) *table {
	t := &table{right: map[int]bool{}}
	for _, column := range right {
		t.right[column] = true
	}
	return t
}

func (t *table) add(cells ...string) {
	row := make([]cell, len(cells))
	for i, text := range cells {
		width, plain := plainWidth(text)
		if !plain {
			text = oneLine(text)
			width = utf8.RuneCountInString(text)
		}
		row[i] = cell{text, width}
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], width)
	}
	t.rows = append(t.rows, row)
}

// print writes the rows, two spaces between columns.
func (t *table) print(w io.Writer) {
	var line []byte
	for _, row := range t.rows {
		line = line[:0]
		for i, c := range row {
			pad := t.widths[i] - c.width
			if t.right[i] {
				line = append(appendSpaces(line, pad), c.text...)
			} else {
				line = appendSpaces(append(line, c.text...), pad)
			}
			line = appendSpaces(line, 2)
		}
		_, _ = w.Write(append(bytes.TrimRight(line, " "), '\n')) // a buffer's, whose Flush tells
	}
}

func appendSpaces(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
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
