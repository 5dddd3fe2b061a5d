package main

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/tensorpress/tensorpress/report"
)

// The picture of a budget, in pixels: sizes along, errors up.
const (
	frontierLeft = 70
	frontierTop  = 26
	frontierFoot = 300
	frontierHigh = 350
)

// frontier places sizes and errors in the picture.
type frontier struct {
	*report.Budget
	from, to    int64 // bytes
	least, most int   // decades
	labels      []label
}

// label is where the name of a point stands.
type label struct{ left, right, y float64 }

func newFrontier(b *report.Budget) *frontier {
	f := &frontier{Budget: b, from: math.MaxInt64, least: math.MaxInt, most: math.MinInt}
	add := func(bytes int64, rel float64) {
		f.from, f.to = min(f.from, bytes), max(f.to, bytes)
		if rel > 0 {
			f.least, f.most = min(f.least, int(math.Floor(math.Log10(rel)))), max(f.most, int(math.Ceil(math.Log10(rel))))
		}
	}
	for _, p := range append([]report.Point{b.Chosen}, b.Frontier...) {
		add(p.Bytes, p.RelMSE)
	}
	for _, e := range b.Menu {
		if e.RelMSE != nil {
			add(e.BytesOut, *e.RelMSE)
		}
	}
	if f.least > f.most {
		f.least, f.most = -1, 0
	}
	f.most, f.to = max(f.most, f.least+1), max(f.to, f.from+1)
	return f
}

func (f *frontier) x(bytes int64) float64 {
	return frontierLeft + float64(bytes-f.from)/float64(f.to-f.from)*(plotRight-frontierLeft-20)
}

// y is the height of an error; one of 0 lies at the foot.
func (f *frontier) y(rel float64) float64 {
	at := (math.Log10(rel) - float64(f.least)) / float64(f.most-f.least)
	return frontierFoot - min(max(at, 0), 1)*(frontierFoot-frontierTop)
}

// writeFrontier draws the error over the size: the choices to which none of the same size
// is preferable, the chosen one, and each entry of the menu everywhere.
func (p *page) writeFrontier(b *strings.Builder) {
	if p.budget == nil {
		return
	}
	f := newFrontier(p.budget)
	fmt.Fprintf(b, "<h2>Error over size</h2>\n<p>%s%s%s</p>\n", keyOf("h5", "chosen, of "+report.Size(f.Bytes)), keyOf("h0", "the best of other sizes"), keyOf("h6", "one format everywhere"))
	fmt.Fprintf(b, "<div class=\"scroll\" tabindex=\"0\">\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"error over size\">\n", plotWidth, frontierHigh)
	f.writeGrid(b)
	f.writeLine(b)
	for _, e := range f.Menu {
		if e.RelMSE != nil && e.Layers > 0 {
			p := report.Point{Bytes: e.BytesOut, RelMSE: *e.RelMSE}
			f.writePoint(b, p, "h6", 4, e.Name+" everywhere")
			f.writeLabel(b, p, e.Name)
		}
	}
	f.writePoint(b, f.Chosen, "h5", 6, "chosen")
	b.WriteString("</svg>\n</div>\n")
	f.writeNext(b)
}

func (f *frontier) writeGrid(b *strings.Builder) {
	step := (f.most-f.least)/8 + 1
	for d := f.least; d <= f.most; d += step {
		y := f.y(math.Pow(10, float64(d)))
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>\n", frontierLeft, plotRight, y, y, frontierLeft-8, y+4, d)
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">mean rel_mse</text>\n", frontierLeft, frontierTop-9)
	f.labels = append(f.labels, label{frontierLeft, frontierLeft + 120, frontierTop - 9})
	const marks = 6
	for i := range int64(marks + 1) {
		bytes := f.from + (f.to-f.from)*i/marks
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", f.x(bytes), frontierFoot+22, report.Size(bytes))
	}
	if x := f.x(f.Bytes); f.Bytes >= f.from && f.Bytes <= f.to {
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke-dasharray=\"4 4\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">budget</text>\n", x, x, frontierTop, frontierFoot, x, frontierFoot+40)
	}
}

func (f *frontier) writeLine(b *strings.Builder) {
	var line []string
	for _, p := range f.Frontier {
		line = append(line, fmt.Sprintf("%.1f,%.1f", f.x(p.Bytes), f.y(p.RelMSE)))
	}
	fmt.Fprintf(b, "<polyline class=\"line h0\" points=\"%s\"/>\n", strings.Join(line, " "))
	for _, p := range f.Frontier {
		f.writePoint(b, p, "h0", 3, "the best of its size")
	}
}

func (f *frontier) writePoint(b *strings.Builder, p report.Point, class string, size int, what string) {
	fmt.Fprintf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" class=\"%s\"><title>%s: %s, mean rel_mse %.3e</title></circle>\n",
		f.x(p.Bytes), f.y(p.RelMSE), size, class, esc(what), report.Size(p.Bytes), p.RelMSE)
}

// writeLabel writes the name of a point beside it, unless another's is there.
func (f *frontier) writeLabel(b *strings.Builder, p report.Point, name string) {
	const letter, high = 9.5, 18 // of letters on a narrow screen, where they are larger
	x, y, anchor := f.x(p.Bytes)+8, f.y(p.RelMSE)-8, "start"
	width := letter * float64(utf8.RuneCountInString(name))
	at := label{x, x + width, y}
	if at.right > plotRight {
		x, anchor = x-16, "end"
		at = label{x - width, x, y}
	}
	for _, other := range f.labels {
		if at.left < other.right && other.left < at.right && math.Abs(at.y-other.y) < high {
			return
		}
	}
	f.labels = append(f.labels, at)
	fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, esc(name))
}

// writeNext lists the sizes next to the chosen one, and the entries of the menu.
func (f *frontier) writeNext(b *strings.Builder) {
	b.WriteString("<div class=\"scroll\" tabindex=\"0\">\n<table>\n<thead><tr><th></th><th class=\"n\">bytes</th><th class=\"n\">mean rel_mse</th></tr></thead>\n<tbody>\n")
	row := func(what string, p report.Point) {
		fmt.Fprintf(b, "<tr><td>%s</td><td class=\"n\"><data value=\"%d\">%s</data></td><td class=\"n\">%s</td></tr>\n", esc(what), p.Bytes, report.Size(p.Bytes), value(&p.RelMSE, "%.3e"))
	}
	smaller, larger := beside(f.Budget)
	for _, p := range smaller {
		row("smaller", p)
	}
	row("chosen", f.Chosen)
	for _, p := range larger {
		row("larger", p)
	}
	for _, e := range f.Menu {
		if e.RelMSE != nil && e.Layers > 0 {
			row(e.Name+" everywhere", report.Point{Bytes: e.BytesOut, RelMSE: *e.RelMSE})
		}
	}
	b.WriteString("</tbody>\n</table>\n</div>\n")
}
