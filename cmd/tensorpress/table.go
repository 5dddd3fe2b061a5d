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
	right map[int]bool // columns of numbers
	rows  [][]string
}

func newTable(right ...int) *table {
	t := &table{right: map[int]bool{}}
	for _, column := range right {
		t.right[column] = true
	}
	return t
}

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = oneLine(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// print writes the rows, two spaces between columns.
func (t *table) print(w io.Writer) {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var line []byte
	for _, row := range t.rows {
		line = line[:0]
		for i, cell := range row {
			pad := widths[i] - utf8.RuneCountInString(cell)
			if t.right[i] {
				line = append(appendSpaces(line, pad), cell...)
			} else {
				line = appendSpaces(append(line, cell...), pad)
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
	b := bufio.NewWriter(w)
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
