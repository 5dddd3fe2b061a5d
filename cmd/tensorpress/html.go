package main

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/report"
)

// page is the content of an HTML report about a conversion or a verification.
type page struct {
	title    string
	facts    [][2]string
	total    *report.Error
	problems []report.Problem
	notes    []string
	budget   *report.Budget // nil where no size was named
	rows     []row
}

// row is one layer of the page.
type row struct {
	name, action, dtype, scale, shape, reason string
	in, out                                   int64
	error                                     *report.Figures
}

// reportPage returns the page for a plan or a finished conversion.
func reportPage(r *report.Report) *page {
	p := &page{title: cmp.Or(r.Dest, r.Source), total: r.Total, notes: r.Notes, budget: r.Budget}
	p.fact("source", r.Source)
	p.fact("written", r.Dest)
	p.fact("layout", r.Layout)
	p.fact("preset", r.Preset)
	p.fact("layers", tally(r.Layers, func(l *report.Layer) string {
		if r.Seconds > 0 {
			return done(l.Action)
		}
		return "to " + string(l.Action)
	}))
	p.fact("dtypes", tally(r.Layers, func(l *report.Layer) string { return l.Dtype }))
	p.fact("files", strings.Join(r.Files, ", "))
	p.fact("bytes", sizes(r))
	if r.Seconds > 0 {
		p.fact("time", fmt.Sprintf("%.2f s, %.2f GB/s", r.Seconds, r.Speed()/1e9))
	}
	for _, l := range r.Layers {
		p.rows = append(p.rows, row{
			l.Name, string(l.Action), l.Dtype, scaleText(l.Options), shapeText(l.Shape), l.Reason, l.BytesIn, l.BytesOut, l.Figures,
		})
	}
	return p
}

// verificationPage returns the page for the result of verify.
func verificationPage(path, source string, v *report.Verification) *page {
	p := &page{title: path, problems: v.Problems}
	p.fact("verified", path)
	p.fact("source", source)
	if p.fact("result", "ok"); !v.OK {
		p.facts[len(p.facts)-1][1] = count(len(v.Problems), "problem")
	}
	for _, n := range v.Needs {
		p.notes = append(p.notes, fmt.Sprintf("needs %s: %s of %s", n.Release, count(n.Layers, "layer"), n.Format))
	}
	if len(v.Layers) > 0 {
		p.total = &v.Total
	}
	for i := range v.Layers {
		l := &v.Layers[i]
		p.rows = append(p.rows, row{
			name: l.Name, dtype: l.Dtype, shape: shapeText(l.Shape), in: l.BytesSource, out: l.Bytes, error: &l.Figures,
		})
	}
	return p
}

func (p *page) fact(name, value string) {
	if value != "" {
		p.facts = append(p.facts, [2]string{name, value})
	}
}

// esc escapes text of any bytes for the page. Names come from files that may be
// hostile.
func esc(text string) string {
	return html.EscapeString(oneLine(strings.ToValidUTF8(text, "\uFFFD")))
}

const pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>%s</title>
<style>
:root { color-scheme: light dark; --ink: #1c1c1a; --soft: #6b6a63; --line: #dcdbd3; --back: #fdfdfb; --faint: #d5d4cc }
@media (prefers-color-scheme: dark) { :root { --ink: #ecebe4; --soft: #a09f97; --line: #3c3b37; --back: #191917; --faint: #4a4944 } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 2em auto; max-width: 1200px; padding: 0 1em }
h1 { font-size: 1.4em; overflow-wrap: anywhere } h2 { font-size: 1.1em; margin-top: 2em }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2em 1.2em } dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { text-align: left; padding: .2em .7em; border-bottom: 1px solid var(--line); white-space: nowrap } th { color: var(--soft); font-weight: 600 }
.n { text-align: right } tr:target { background: var(--line) } .problem { color: #c4342d }
svg { width: 100%%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) } .grid { stroke: var(--line) } .in { fill: var(--faint) }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 50%%; margin: 0 .4em 0 1em }
</style>
</head>
<body>
<h1>%s</h1>
`

// html returns the whole page as one file without scripts that loads nothing else.
func (p *page) html() string {
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, esc("tensorpress: "+p.title), esc(p.title))
	b.WriteString("<dl>\n")
	for _, f := range p.facts {
		fmt.Fprintf(&b, "<dt>%s</dt><dd>%s</dd>\n", esc(f[0]), esc(f[1]))
	}
	if p.total != nil {
		fmt.Fprintf(&b, "<dt>rel_mse</dt><dd>%s, %s dB, over all quantized weights</dd>\n", value(p.total.RelMSE, "%.3e"), value(p.total.SQNR, "%.1f"))
	}
	b.WriteString("</dl>\n")
	p.writeProblems(&b)
	p.writeFrontier(&b)
	p.writePlot(&b)
	p.writeWorst(&b)
	p.writeTable(&b)
	b.WriteString("</body>\n</html>\n")
	return b.String()
}

func (p *page) writeProblems(b *strings.Builder) {
	if len(p.problems)+len(p.notes) == 0 {
		return
	}
	b.WriteString("<ul>\n")
	for _, one := range p.problems {
		text := one.Problem
		if one.Tensor != "" {
			text = one.Tensor + ": " + text
		}
		fmt.Fprintf(b, "<li class=\"problem\">%s</li>\n", esc(text))
	}
	for _, note := range p.notes {
		fmt.Fprintf(b, "<li>%s</li>\n", esc(note))
	}
	b.WriteString("</ul>\n")
}

// writeWorst lists the layers with the greatest errors.
func (p *page) writeWorst(b *strings.Builder) {
	const most = 10
	var measured []int
	for i, r := range p.rows {
		if r.error != nil && (r.error.RelMSE == nil || *r.error.RelMSE > 0) {
			measured = append(measured, i)
		}
	}
	if len(measured) < 2 {
		return
	}
	slices.SortStableFunc(measured, func(i, j int) int {
		return cmp.Compare(orInfinity(p.rows[j].error.RelMSE), orInfinity(p.rows[i].error.RelMSE))
	})
	b.WriteString("<h2>Greatest errors</h2>\n<ol>\n")
	for _, i := range measured[:min(most, len(measured))] {
		r := p.rows[i]
		fmt.Fprintf(b, "<li><a href=\"#l%d\">%s</a> %s, %s</li>\n", i, esc(r.name), esc(r.dtype), value(r.error.RelMSE, "%.3e"))
	}
	b.WriteString("</ol>\n")
}

func (p *page) writeTable(b *strings.Builder) {
	if len(p.rows) == 0 {
		return
	}
	heads := ""
	if p.adapted() {
		heads = adaptedHeads
	}
	b.WriteString("<h2>Layers</h2>\n<table>\n<thead><tr><th>layer</th><th>action</th><th>dtype</th><th>scale</th><th>shape</th>" +
		"<th class=\"n\">in</th><th class=\"n\">out</th><th class=\"n\">rel_mse</th><th class=\"n\">sqnr_db</th><th class=\"n\">max_abs</th>" + heads + "<th>reason</th></tr></thead>\n<tbody>\n")
	for i, r := range p.rows {
		fmt.Fprintf(b, "<tr id=\"l%d\">", i)
		for _, text := range []string{r.name, r.action, r.dtype, r.scale, r.shape} {
			fmt.Fprintf(b, "<td>%s</td>", esc(text))
		}
		for _, n := range []int64{r.in, r.out} {
			fmt.Fprintf(b, "<td class=\"n\"><data value=\"%d\">%s</data></td>", n, report.Size(n))
		}
		for _, x := range r.figures() {
			fmt.Fprintf(b, "<td class=\"n\">%s</td>", x)
		}
		if heads != "" {
			b.WriteString(r.adaptedCells())
		}
		fmt.Fprintf(b, "<td>%s</td></tr>\n", esc(r.reason))
	}
	b.WriteString("</tbody>\n</table>\n")
}

func (r row) figures() [3]string {
	if r.error == nil {
		return [3]string{}
	}
	return [3]string{value(r.error.RelMSE, "%.3e"), value(r.error.SQNR, "%.1f"), value(r.error.MaxAbs, "%.3g")}
}

// value shows a figure with few digits; the cell also carries the exact value as in
// JSON.
func value(x *float64, format string) string {
	if x == nil {
		return "<data value=\"null\">-</data>"
	}
	return fmt.Sprintf("<data value=\"%s\">"+format+"</data>", strconv.FormatFloat(*x, 'g', -1, 64), *x)
}
