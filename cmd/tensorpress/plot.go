package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/report"
)

// The plot, in pixels: errors above, sizes below, a column for every layer.
const (
	plotWidth  = 1100
	plotLeft   = 70 // left edge of the columns
	plotRight  = 1090
	errorTop   = 26
	errorFoot  = 220
	sizeTop    = 260
	sizeFoot   = 380
	plotHeight = 400
)

// hues distinguish dtypes, the most frequent first; all beyond the last share it. They are
// classes of page.css.
var hues = []string{"h0", "h1", "h2", "h3", "h4", "h5", "h6"}

// mostMarks is how many layers have a mark of their own, with a name and a link. Of more,
// as many neighbourhoods have one each for what is greatest there: a browser would take
// seconds for all, in columns thinner than a pixel.
const mostMarks = 1000

func (p *page) writePlot(b *strings.Builder) {
	if len(p.rows) == 0 {
		return
	}
	keys := p.dtypes()
	least, most, measured := p.decades()
	top := sizeTop
	if !measured {
		top = errorTop
	}
	fmt.Fprintf(b, "<h2>Layers in the order of the file</h2>\n<p>%s%s</p>\n", writeKeys(keys), keyOf("in", "size before"))
	if n := len(p.rows); n > mostMarks {
		fmt.Fprintf(b, "<p>Of every %d neighbours the greatest have a name and a link.</p>\n", (n+mostMarks-1)/mostMarks)
	}
	fmt.Fprintf(b, "<div class=\"scroll\" tabindex=\"0\">\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"error and size of every layer\">\n", plotWidth, plotHeight-sizeTop+top)
	if measured {
		p.writeErrors(b, keys, least, most)
	}
	p.writeSizes(b, keys, top)
	b.WriteString("</svg>\n</div>\n")
}

// keyOf explains a class's hue.
func keyOf(class, text string) string {
	return fmt.Sprintf("<span class=\"key\"><span class=\"%s\"></span>%s</span>", class, esc(text))
}

// dtypes returns the dtypes of quantized layers, those of most layers first.
func (p *page) dtypes() []string {
	counts := map[string]int{}
	var names []string
	for _, r := range p.rows {
		if r.action == "keep" {
			continue
		}
		if counts[r.dtype]++; counts[r.dtype] == 1 {
			names = append(names, r.dtype)
		}
	}
	slices.SortStableFunc(names, func(x, y string) int { return counts[y] - counts[x] })
	return names
}

func hue(keys []string, r row) string {
	i := slices.Index(keys, r.dtype)
	if r.action == "keep" || i < 0 {
		i = len(hues) - 1
	}
	return hues[min(i, len(hues)-1)]
}

func writeKeys(keys []string) string {
	var b strings.Builder
	for i, name := range keys[:min(len(keys), len(hues)-1)] {
		b.WriteString(keyOf(hues[i], name))
	}
	others := "kept"
	if len(keys) >= len(hues) {
		others = "other dtypes, kept"
	}
	b.WriteString(keyOf(hues[len(hues)-1], others))
	return b.String()
}

// columns is how many columns the plot has, one for each layer unless there are too many.
func (p *page) columns() int { return min(len(p.rows), mostMarks) }

func (p *page) columnOf(i int) int { return i * p.columns() / len(p.rows) }

// column returns the middle and the width of a layer's column.
func (p *page) column(i int) (x, width float64) {
	width = float64(plotRight-plotLeft) / float64(p.columns())
	return plotLeft + (float64(p.columnOf(i))+0.5)*width, width
}

// greatest returns a layer of each column: that of the greatest measure, which is
// negative for layers that do not count.
func (p *page) greatest(measure func(row) float64) []int {
	var found []int
	column := -1
	for i, r := range p.rows {
		switch at := p.columnOf(i); {
		case measure(r) < 0:
		case at != column:
			column = at
			found = append(found, i)
		case measure(r) > measure(p.rows[found[len(found)-1]]):
			found[len(found)-1] = i
		}
	}
	return found
}

// decades returns the range of the errors' decimal logarithms in whole numbers, and
// whether errors were measured.
func (p *page) decades() (least, most int, measured bool) {
	least, most = math.MaxInt, math.MinInt
	for _, r := range p.rows {
		if r.error == nil {
			continue
		}
		measured = true
		if x := r.error.RelMSE; x != nil && *x > 0 {
			least = min(least, int(math.Floor(math.Log10(*x))))
			most = max(most, int(math.Ceil(math.Log10(*x))))
		}
	}
	if least > most {
		least, most = -1, 0
	}
	return least, max(most, least+1), measured
}

// writeErrors plots rel_mse on a logarithmic scale. Exact layers are drawn at the
// bottom, layers whose error is not finite at the top.
func (p *page) writeErrors(b *strings.Builder, keys []string, least, most int) {
	height := func(log float64) float64 {
		at := (log - float64(least)) / float64(most-least)
		return errorFoot - min(max(at, 0), 1)*(errorFoot-errorTop)
	}
	step := (most-least)/8 + 1
	for d := least; d <= most; d += step {
		y := height(float64(d))
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>\n", plotLeft, plotRight, y, y, plotLeft-8, y+4, d)
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">rel_mse</text>\n", plotLeft, errorTop-9)
	marked := p.greatest(func(r row) float64 {
		if r.error == nil {
			return -1
		}
		return orInfinity(r.error.RelMSE)
	})
	p.writeDots(b, keys, marked, func(r row) float64 { return height(math.Log10(orInfinity(r.error.RelMSE))) })
	for _, i := range marked {
		r := p.rows[i]
		x, _ := p.column(i)
		y := height(math.Log10(orInfinity(r.error.RelMSE)))
		fmt.Fprintf(b, "<a href=\"#l%d\"><circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" class=\"%s\"><title>%s: %s, rel_mse %s</title></circle></a>\n",
			i, x, y, hue(keys, r), esc(r.name), esc(r.dtype), figure(r.error.RelMSE, "%.3e"))
	}
}

// writeDots draws the errors that have no mark, all of a hue as one path.
func (p *page) writeDots(b *strings.Builder, keys []string, marked []int, height func(row) float64) {
	paths := map[string]*strings.Builder{}
	for i, r := range p.rows {
		if len(marked) > 0 && i == marked[0] {
			marked = marked[1:]
			continue
		}
		if r.error == nil {
			continue
		}
		class := hue(keys, r)
		if paths[class] == nil {
			paths[class] = &strings.Builder{}
		}
		x, _ := p.column(i)
		fmt.Fprintf(paths[class], "M%.1f %.1fh0", x, height(r))
	}
	for _, class := range slices.Sorted(maps.Keys(paths)) {
		fmt.Fprintf(b, "<path class=\"dots %s\" d=\"%s\"/>\n", class, paths[class])
	}
}

func orInfinity(x *float64) float64 {
	if x == nil {
		return math.Inf(1)
	}
	return *x
}

// writeSizes plots the bytes before and after.
func (p *page) writeSizes(b *strings.Builder, keys []string, top int) {
	foot := float64(top + sizeFoot - sizeTop)
	var most int64 = 1
	for _, r := range p.rows {
		most = max(most, r.in, r.out)
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">bytes</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text><text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">0</text>\n",
		plotLeft, top-8, plotLeft-8, top+4, report.Size(most), plotLeft-8, foot+4)
	fmt.Fprintf(b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", plotLeft, plotRight, foot, foot)
	for _, i := range p.greatest(func(r row) float64 { return float64(max(r.in, r.out)) }) {
		r := p.rows[i]
		x, width := p.column(i)
		wide := min(width*0.8, 40)
		if len(p.rows) > mostMarks {
			wide = width
		}
		bar := func(n int64, class string) {
			h := float64(n) / float64(most) * float64(sizeFoot-sizeTop)
			fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" class=\"%s\"/>", x-wide/2, foot-h, wide, h, class)
		}
		fmt.Fprintf(b, "<a href=\"#l%d\"><g><title>%s: %s to %s</title>", i, esc(r.name), report.Size(r.in), report.Size(r.out))
		bar(r.in, "in")
		bar(r.out, hue(keys, r))
		b.WriteString("</g></a>\n")
	}
}
