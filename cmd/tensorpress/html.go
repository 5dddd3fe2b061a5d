package main

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/report"
)

// page is the content of an HTML page about a conversion, a verification or a checkpoint.
type page struct {
	title    string
	facts    [][2]string
	total    *report.Error
	problems []report.Problem
	notes    []string
	budget   *report.Budget // nil where no size was named
	rows     []row          // those of the plot
	lists    []*list
	metadata map[string]string
}

// row is one layer of the page.
type row struct {
	name, action, dtype, scale, with, shape, reason string

	in, out int64
	error   *report.Figures
}

// reportPage returns the page for a plan or a finished conversion.
func reportPage(r *report.Report) *page {
	p := &page{title: cmp.Or(r.Dest, r.Source), total: r.Total, notes: r.Notes, budget: r.Budget}
	p.fact("source", r.Source)
	if s := r.Shards; s != nil && s.Parts > 0 {
		p.fact("part", partText(s))
		p.fact("of", r.Dest)
		p.fact("kept in", s.Folder)
	} else {
		p.fact("written", r.Dest)
	}
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
	p.provenanceFacts(r.Provenance)
	for i := range r.Layers {
		l := &r.Layers[i]
		p.rows = append(p.rows, row{
			l.Name, string(l.Action), l.Dtype, scaleText(l.Options), partsText(l.Options), shapeText(l.Shape), l.Reason, l.BytesIn, l.BytesOut, l.Figures,
		})
	}
	p.lists = append(p.lists, listOfRows(p.rows))
	return p
}

// verificationPage returns the page for the result of verify.
func verificationPage(path, source string, v *report.Verification) *page {
	p := &page{title: path, problems: v.Problems, notes: slices.Clone(v.Notes)}
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
	p.lists = append(p.lists, listOfRows(p.rows))
	return p
}

// listOfRows is the list to which the plot links.
func listOfRows(rows []row) *list {
	l := newList("layers", "Layers", "layers", "layer", "action", "dtype", "scale", "with", "shape", "in#", "out#", "rel_mse#", "sqnr_db#", "max_abs#", "kept#", "change_db#", "reason")
	l.anchor = "l"
	for _, r := range rows {
		cells := []listCell{{text: r.name}, {text: r.action}, {text: r.dtype}, {text: r.scale}, {text: r.with}, {text: r.shape}, sizeCell(r.in), sizeCell(r.out)}
		if r.error == nil {
			cells = append(cells, listCell{}, listCell{}, listCell{})
		} else {
			cells = append(cells, figureCell(r.error.RelMSE, "%.3e"), figureCell(r.error.SQNR, "%.1f"), figureCell(r.error.MaxAbs, "%.3g"))
		}
		if r.error == nil || r.error.Merged == nil { // of all rows, then nothing shows of the columns
			cells = append(cells, listCell{}, listCell{})
		} else {
			cells = append(cells, figureCell(r.error.Merged.Kept, "%.3f"), figureCell(r.error.Merged.SNR, "%.1f"))
		}
		l.add(append(cells, listCell{text: r.reason})...)
	}
	return l
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

var (
	//go:embed page/page.css
	embeddedStyle string
	//go:embed page/page.js
	embeddedScript string
)

// The style of the page, and the script that searches and sorts. Their hashes are those of
// lines as a browser sees them, however git checked the files out.
var (
	pageStyle  = strings.ReplaceAll(embeddedStyle, "\r\n", "\n")
	pageScript = strings.ReplaceAll(embeddedScript, "\r\n", "\n")
)

// The page may use its own style and script, and nothing else, whatever a name contrives.
const pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; style-src '%s'; script-src '%s'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>%s</title>
<style>%s</style>
</head>
<body>
<h1>%s</h1>
`

// hashOf is how a policy names a text that it allows.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// html returns the whole page as one file that loads nothing else.
func (p *page) html() string {
	var b strings.Builder
	style := pageStyle
	for _, l := range p.lists {
		style += l.style()
	}
	fmt.Fprintf(&b, pageHead, hashOf(style), hashOf(pageScript), esc("tensorpress: "+p.title), style, esc(p.title))
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
	for _, l := range p.lists {
		l.write(&b)
	}
	p.writeMetadata(&b)
	fmt.Fprintf(&b, "<script>%s</script>\n</body>\n</html>\n", pageScript)
	return b.String()
}

func (p *page) writeProblems(b *strings.Builder) {
	if len(p.problems)+len(p.notes) == 0 {
		return
	}
	b.WriteString("<ul>\n")
	for _, text := range problemTexts(p.problems) {
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

// value shows a figure with few digits; the cell also carries the exact value as in
// JSON.
func value(x *float64, format string) string { return figureCell(x, format).html() }

func figureCell(x *float64, format string) listCell {
	if x == nil {
		return listCell{"-", "null"}
	}
	return listCell{fmt.Sprintf(format, *x), strconv.FormatFloat(*x, 'g', -1, 64)}
}

func sizeCell(n int64) listCell { return listCell{report.Size(n), strconv.FormatInt(n, 10)} }
