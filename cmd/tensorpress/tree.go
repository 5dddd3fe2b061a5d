package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/report"
)

// treeRow is layers or tensors that are alike in all but the numbers in their names.
type treeRow struct {
	Name    string // with ranges in the place of numbers: blocks.[0-56].attn.to_q
	Layer   bool   // of quantized layers, else of tensors that belong to none
	Stored  string // the dtype, what shares a scale, and further parts
	Count   int
	Shape   []int
	Bytes   int64 // of all
	Problem string
	first   []string // the parts of the first one's name
}

// tree returns what a checkpoint holds in the order of names, numbers as numbers. A layer
// that cannot be read has a row of its own.
func tree(v *report.Inspection) []treeRow {
	f := &folder{alike: map[treeKey]*alike{}}
	for i := range v.Layers {
		l := &v.Layers[i]
		if l.Problem != "" {
			f.rows = append(f.rows, treeRow{
				Name: l.Name, Layer: true, Stored: storedText(v.Layout, l), Count: 1, Shape: l.Shape, Bytes: l.Bytes, Problem: l.Problem, first: strings.Split(l.Name, "."),
			})
			continue
		}
		f.add(l.Name, l.Shape, treeKey{layer: true, stored: storedText(v.Layout, l), options: optionsText(l.Options), bytes: l.Bytes})
	}
	for _, t := range plainTensors(v) {
		f.add(t.Name, t.Shape, treeKey{stored: t.Dtype, bytes: t.Bytes})
	}
	return f.fold()
}

// storedText says in few words how a layer is stored.
func storedText(layout string, l *report.StoredLayer) string {
	words := []string{l.Dtype}
	if l.Format != l.Dtype && l.Format != layout {
		words = []string{l.Format, l.Dtype}
	}
	if scale := scaleText(l.Options); scale != "" {
		words = append(words, scale)
	}
	text := strings.TrimSpace(strings.Join(words, " "))
	if parts := partsText(l.Options); parts != "" {
		text += ", " + parts
	}
	return text
}

// optionsText tells options from others; those that cannot be written are like no others.
func optionsText(o report.Options) string {
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Sprintf("%p", o)
	}
	return string(text)
}

// treeKey is what layers or tensors that share a row have in common.
type treeKey struct {
	layer           bool
	stored, options string
	shape, name     string // name has a mark in the place of every number
	bytes           int64  // of each
}

// alike are the names of those that have a key in common.
type alike struct {
	parts   []string
	shape   []int
	numbers [][]int // of each name, those that it has
}

// folder gathers names and makes rows of them.
type folder struct {
	alike map[treeKey]*alike
	rows  []treeRow
}

func (f *folder) add(name string, shape []int, key treeKey) {
	parts := strings.Split(name, ".")
	marked, numbers := make([]string, len(parts)), []int(nil)
	for i, part := range parts {
		n, ok := ordinal(part)
		switch {
		case ok:
			numbers, marked[i] = append(numbers, n), mark
		case strings.HasPrefix(part, mark): // so that nothing in a name is taken for the mark
			marked[i] = mark + part
		default:
			marked[i] = part
		}
	}
	key.name, key.shape = strings.Join(marked, "."), fmt.Sprint(shape)
	found := f.alike[key]
	if found == nil {
		found = &alike{parts: parts, shape: shape}
		f.alike[key] = found
	}
	found.numbers = append(found.numbers, numbers)
}

// mark stands for a number in the name of a key.
const mark = "\x00"

// ordinal returns the value of a name's part that is a number as it would be written.
func ordinal(part string) (int, bool) {
	n, err := strconv.Atoi(part)
	return n, err == nil && n >= 0 && strconv.Itoa(n) == part
}

func (f *folder) fold() []treeRow {
	for key, found := range f.alike {
		for _, one := range foldNumbers(found.numbers) {
			row := treeRow{Layer: key.layer, Stored: key.stored, Count: one.count, Shape: found.shape, Bytes: key.bytes * int64(one.count)}
			row.Name, row.first = one.named(found.parts)
			f.rows = append(f.rows, row)
		}
	}
	slices.SortFunc(f.rows, func(a, b treeRow) int {
		return cmp.Or(slices.CompareFunc(a.first, b.first, compareParts), compareBool(b.Layer, a.Layer), strings.Compare(a.Stored, b.Stored),
			slices.Compare(a.Shape, b.Shape), strings.Compare(a.Name, b.Name), cmp.Compare(a.Bytes, b.Bytes))
	})
	return f.rows
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// compareParts compares parts of names, numbers by their values and before all else.
func compareParts(a, b string) int {
	m, isM := ordinal(a)
	n, isN := ordinal(b)
	if isM && isN {
		return cmp.Compare(m, n)
	}
	return cmp.Or(compareBool(isN, isM), strings.Compare(a, b))
}

// box is the numbers of names that have each of the first ones with each of the second
// ones, and so on.
type box struct {
	ranges []string
	first  []int
	count  int
}

// named returns a name with its numbers replaced by ranges, and the parts of the first
// name.
func (b box) named(parts []string) (string, []string) {
	name, first, i := slices.Clone(parts), slices.Clone(parts), 0
	for at, part := range parts {
		if _, ok := ordinal(part); ok {
			name[at], first[at] = b.ranges[i], strconv.Itoa(b.first[i])
			i++
		}
	}
	return strings.Join(name, "."), first
}

// foldNumbers returns boxes that together hold every tuple once. All tuples have the same
// length and no two are the same. The last numbers are joined first: blocks have the same
// experts far more often than experts the same blocks.
func foldNumbers(tuples [][]int) []box {
	last := len(tuples[0]) - 1
	if last < 0 {
		return []box{{count: 1}}
	}
	slices.SortFunc(tuples, slices.Compare)
	type group struct {
		before       [][]int // the numbers before the last ones, which are the same
		ranges       string
		first, count int // of the last ones
	}
	var groups []*group
	byRanges := map[string]*group{}
	for from := 0; from < len(tuples); {
		to := from + 1
		for to < len(tuples) && slices.Equal(tuples[to][:last], tuples[from][:last]) {
			to++
		}
		text := rangesText(tuples[from:to], last)
		g := byRanges[text]
		if g == nil {
			g = &group{ranges: text, first: tuples[from][last], count: to - from}
			groups, byRanges[text] = append(groups, g), g
		}
		g.before = append(g.before, tuples[from][:last])
		from = to
	}
	var boxes []box
	for _, g := range groups {
		for _, b := range foldNumbers(g.before) {
			boxes = append(boxes, box{append(b.ranges, g.ranges), append(b.first, g.first), b.count * g.count})
		}
	}
	return boxes
}

// rangesText writes the numbers that ascending tuples have at a place: 4, [0-56], [0-3,5-56].
func rangesText(tuples [][]int, at int) string {
	if len(tuples) == 1 {
		return strconv.Itoa(tuples[0][at])
	}
	text := []byte{'['}
	for from := 0; from < len(tuples); {
		to := from
		for to+1 < len(tuples) && tuples[to+1][at] == tuples[to][at]+1 {
			to++
		}
		if from > 0 {
			text = append(text, ',')
		}
		if text = strconv.AppendInt(text, int64(tuples[from][at]), 10); to > from {
			text = strconv.AppendInt(append(text, '-'), int64(tuples[to][at]), 10)
		}
		from = to + 1
	}
	return string(append(text, ']'))
}

// printTree prints the rows of a tree.
func printTree(w io.Writer, rows []treeRow) {
	t := newTable(2, 4)
	t.grow(1+len(rows), 6)
	t.add("NAME", "STORED", "COUNT", "SHAPE", "BYTES", "PROBLEM")
	var made texts
	for i := range rows {
		r := &rows[i]
		shape, count := "unknown", ""
		if r.Problem == "" {
			shape = made.of(r.Shape)
		}
		if r.Count > 1 {
			count = "×" + strconv.Itoa(r.Count)
		}
		t.add(r.Name, r.Stored, count, shape, made.size(r.Bytes), r.Problem)
	}
	t.print(w)
}
