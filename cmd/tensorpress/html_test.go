package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// hostile are names that a page must show and never obey.
var hostile = []string{
	`</title><script>alert(1)</script>.weight`, `a"onload="alert(1).weight`, `b'&amp;<!--.weight`,
	"c\x1b[31m\n]]>.weight", "\u202egnp.weight", `d<img src=http://x.example/>.weight`,
}

func hostileFile(t *testing.T) string {
	t.Helper()
	var tensors []safetensors.Tensor
	patterns := map[string]string{}
	for _, name := range hostile {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: []int{64, 64}})
		patterns[name] = "normal"
	}
	header, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hostile.safetensors")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fillFile(f, header, patterns); err != nil {
		t.Fatal(err)
	}
	return path
}

// tensorpressReport runs a command and returns its report.
func tensorpressReport(t *testing.T, suffix string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report"+suffix)
	var stdout, stderr strings.Builder
	if status := run(append(args, "--report", path), &stdout, &stderr); status != 0 {
		t.Fatalf("%q: status %d: %s", args, status, &stderr)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// document is what a page's parser found.
type document struct {
	heads  []string   // of the table that was read last
	cells  [][]string // of the tables' bodies, the value of a <data> in its place
	points []string   // titles of the plot's marks
}

// at returns a cell of the last table by its column's name, "" where there is no such
// column, because it would be empty.
func (doc *document) at(row int, name string) string {
	if i := slices.Index(doc.heads, name); i >= 0 {
		return doc.cells[row][i]
	}
	return ""
}

// parsePage reads a page as XML, which has no mercy, and refuses what would
// load or run anything but the page's own script.
func parsePage(t *testing.T, text string) document {
	t.Helper()
	var doc document
	var path []string
	text, ok := strings.CutSuffix(text, "<script>"+pageScript+"</script>\n</body>\n</html>\n")
	if !ok || !strings.Contains(text, "script-src '"+hashOf(pageScript)+"'\"") {
		t.Fatal("not its own script, or not allowed by its policy")
	}
	text += "</body>\n</html>\n"
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return doc
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			checkElement(t, e)
			path = append(path, e.Name.Local)
			doc.start(e, path)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			doc.text(string(e), strings.Join(path, " "))
		case xml.Comment:
			t.Errorf("a comment: %s", e)
		}
	}
}

// TestPageOfManyProblems: what is wrong with every layer is told for the first ones, and the
// list has all; a layer of no dtype that can be read is counted as such.
func TestPageOfManyProblems(t *testing.T) {
	v := &report.Inspection{Path: "a.safetensors"}
	for i := range 1000 {
		v.Layers = append(v.Layers, report.StoredLayer{Name: fmt.Sprintf("blocks.%d", i), Problem: "its scale is missing"})
	}
	html := inspectionPage(v).html()
	if got := strings.Count(html, `<li class="problem">`); got != 4 || !strings.Contains(html, "997 more: its scale is missing") {
		t.Errorf("%d problems", got)
	}
	if got := strings.Count(html, ">its scale is missing</td>"); got < 1000 {
		t.Errorf("the lists have %d of 1000", got)
	}
	if !strings.Contains(html, "<dd>1000 unknown</dd>") {
		t.Error("the dtypes do not say that none is known")
	}
}

func checkElement(t *testing.T, e xml.StartElement) {
	t.Helper()
	if slices.Contains(strings.Fields("script img link iframe object embed base form"), e.Name.Local) {
		t.Errorf("an element %s", e.Name.Local)
	}
	for _, a := range e.Attr {
		if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "src" || a.Name.Local == "href" && !strings.HasPrefix(a.Value, "#l") {
			t.Errorf("an attribute %s=%q", a.Name.Local, a.Value)
		}
	}
}

func (doc *document) start(e xml.StartElement, path []string) {
	in := strings.Join(path, " ")
	switch {
	case strings.HasSuffix(in, "thead"):
		doc.heads = nil
	case strings.HasSuffix(in, "tbody tr"):
		doc.cells = append(doc.cells, nil)
	case strings.HasSuffix(in, "tr td") && len(doc.cells) > 0:
		row := &doc.cells[len(doc.cells)-1]
		*row = append(*row, "")
	case strings.HasSuffix(in, "td data"):
		row := doc.cells[len(doc.cells)-1]
		row[len(row)-1] = e.Attr[0].Value
	}
}

func (doc *document) text(text, in string) {
	switch {
	case strings.HasSuffix(in, "thead tr th"):
		doc.heads = append(doc.heads, text)
	case strings.HasSuffix(in, "tbody tr td"):
		row := doc.cells[len(doc.cells)-1]
		row[len(row)-1] += text
	case strings.HasSuffix(in, "circle title"):
		doc.points = append(doc.points, text)
	}
}

// TestReportPage: every layer is in the table and in the plot, with the figures
// of the JSON, whatever its name.
func TestReportPage(t *testing.T) {
	hostile := hostileFile(t)
	tests := map[string]struct {
		args   []string
		source string
		points int
	}{
		"comfy": {[]string{"quantize", "../../testdata/minilm.safetensors", "--set", `self\.key=nvfp4`}, "", 6},
		"sdnq":  {[]string{"quantize", "../../testdata/minilm.safetensors", "--layout", "sdnq", "--dtype", "uint3"}, "", 7},
		"names": {[]string{"quantize", hostile, "--preset", "none"}, "", 6},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "out.safetensors")
			args := append([]string{tt.args[0], tt.args[1], dest, "--force", "-q"}, tt.args[2:]...)
			page := parsePage(t, tensorpressReport(t, ".html", args...))
			var r savedReport
			if err := json.Unmarshal([]byte(tensorpressReport(t, ".json", append(args, "--measure")...)), &r); err != nil {
				t.Fatal(err)
			}
			checkRows(t, page, r.Layers)
			if len(page.points) != tt.points {
				t.Errorf("%d points, want %d: %q", len(page.points), tt.points, page.points)
			}
			if r.Total == nil || r.Total.RelMSE == nil {
				t.Error("no total")
			}
			checkVerify(t, dest, tt.args[1], r)
		})
	}
}

// savedReport is what of a JSON report the page has too.
type savedReport struct {
	Layers []savedLayer
	Total  *report.Error
}

type savedLayer struct {
	Name, Action, Dtype string
	Shape               []int
	BytesIn             int64 `json:"bytes_in"`
	BytesOut            int64 `json:"bytes_out"`
	*report.Figures
}

func checkRows(t *testing.T, page document, layers []savedLayer) {
	t.Helper()
	if len(page.cells) != len(layers) {
		t.Fatalf("%d rows, want %d", len(page.cells), len(layers))
	}
	for i, l := range layers {
		want := map[string]string{
			"layer": oneLine(l.Name), "action": l.Action, "dtype": l.Dtype, "shape": shapeText(l.Shape),
			"in": strconv.FormatInt(l.BytesIn, 10), "out": strconv.FormatInt(l.BytesOut, 10), "rel_mse": "", "sqnr_db": "", "max_abs": "",
		}
		if e := l.Figures; e != nil {
			for name, x := range map[string]*float64{"rel_mse": e.RelMSE, "sqnr_db": e.SQNR, "max_abs": e.MaxAbs} {
				want[name] = strconv.FormatFloat(*x, 'g', -1, 64)
			}
		}
		for name, text := range want {
			if got := page.at(i, name); got != text {
				t.Errorf("row %d: %s is %q, want %q", i, name, got, text)
			}
		}
		if (l.Figures != nil) != (l.Action == "quantize") {
			t.Errorf("%s, to %s: error %v", l.Name, l.Action, l.Figures)
		}
	}
}

// checkVerify: verify finds the errors that were measured while writing, and
// its page has them all.
func checkVerify(t *testing.T, dest, source string, r savedReport) {
	t.Helper()
	args := []string{"verify", dest, "--source", source, "-q"}
	page := parsePage(t, tensorpressReport(t, ".html", args...))
	var v report.Verification
	if err := json.Unmarshal([]byte(tensorpressReport(t, ".json", args...)), &v); err != nil {
		t.Fatal(err)
	}
	if len(page.cells) != len(v.Layers) || len(v.Layers) == 0 {
		t.Fatalf("%d rows of %d layers", len(page.cells), len(v.Layers))
	}
	measured := map[string]float64{}
	for _, l := range r.Layers {
		if l.Figures != nil {
			measured[l.Name] = *l.Figures.RelMSE
		}
	}
	for i, l := range v.Layers {
		if got := measured[l.Name]; got != *l.RelMSE {
			t.Errorf("%s: %g was measured, verify finds %g", l.Name, got, *l.RelMSE)
		}
		if want := strconv.FormatFloat(*l.RelMSE, 'g', -1, 64); page.at(i, "layer") != oneLine(l.Name) || page.at(i, "rel_mse") != want {
			t.Errorf("row %d is %q, want %s of %s", i, page.cells[i], want, l.Name)
		}
	}
}

// TestInspectionPage: every layer, tensor and key of the metadata is in the page, whatever
// its name; the page takes the place of a page alone.
func TestInspectionPage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.safetensors")
	var stdout, stderr strings.Builder
	if status := run([]string{"quantize", hostileFile(t), out, "--preset", "none", "-q"}, &stdout, &stderr); status != 0 {
		t.Fatal(&stderr)
	}
	path := filepath.Join(t.TempDir(), "page.html")
	stdout.Reset()
	if status := run([]string{"inspect", out, "--json", "--html", path}, &stdout, &stderr); status != 0 {
		t.Fatal(&stderr)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v report.Inspection
	if err := json.Unmarshal([]byte(stdout.String()), &v); err != nil {
		t.Fatal(err)
	}
	doc := parsePage(t, string(text))
	rows := len(tree(&v))
	if len(v.Layers) != len(hostile) || len(doc.cells) != rows+len(v.Layers) {
		t.Fatalf("%d rows, %d layers, %d of the tree", len(doc.cells), len(v.Layers), rows)
	}
	for i, l := range v.Layers {
		i += rows
		if doc.at(i, "layer") != oneLine(l.Name) || doc.at(i, "dtype") != l.Dtype || doc.at(i, "shape") != "64×64" || doc.at(i, "bytes") != strconv.FormatInt(l.Bytes, 10) || !strings.Contains(doc.at(i, "options"), "format=") {
			t.Errorf("row %q of %+v", doc.cells[i], l)
		}
	}
	for key := range v.Metadata {
		if !strings.Contains(string(text), "<dt>"+esc(key)+"</dt>") {
			t.Errorf("no %s", key)
		}
	}
	if status := run([]string{"inspect", out, "--html", out}, &stdout, &stderr); status != 2 {
		t.Errorf("status %d when the page would replace the checkpoint", status)
	}
}

// TestPlanPage: a plan has sizes and no errors.
func TestPlanPage(t *testing.T) {
	page := parsePage(t, tensorpressReport(t, ".html", "plan", "../../testdata/minilm.safetensors", "-q"))
	if len(page.cells) != 13 || len(page.points) != 0 {
		t.Errorf("%d rows, %d points", len(page.cells), len(page.points))
	}
}

// TestBudgetPicture: the page of a budget has the frontier, what was chosen, and each
// entry of the menu, with the figures of the JSON.
func TestBudgetPicture(t *testing.T) {
	args := []string{"plan", "../../testdata/minilm.safetensors", "--budget", "1500000", "--menu", "nvfp4,int8_tensorwise,mxfp8,keep", "-q"}
	page := parsePage(t, tensorpressReport(t, ".html", args...))
	var r report.Report
	if err := json.Unmarshal([]byte(tensorpressReport(t, ".json", args...)), &r); err != nil {
		t.Fatal(err)
	}
	quantized := 0
	for _, l := range r.Layers {
		if l.Figures != nil {
			quantized++
		}
	}
	if want := len(r.Budget.Frontier) + len(r.Budget.Menu) + 1 + quantized; len(page.points) != want || len(r.Budget.Frontier) < 5 {
		t.Errorf("%d points, want %d: %q", len(page.points), want, page.points)
	}
	if len(page.cells) < 6 || page.cells[2][0] != "chosen" || page.cells[2][1] != strconv.FormatInt(r.Budget.Chosen.Bytes, 10) {
		t.Errorf("rows %q, chosen: %+v", page.cells, r.Budget.Chosen)
	}
}

// TestPageOfOddFigures: an exact layer and one that decodes to no number have
// their places too.
func TestPageOfOddFigures(t *testing.T) {
	zero := 0.0
	rows := []row{
		{name: "exact", error: &report.Figures{Error: report.Error{RelMSE: &zero}}},
		{name: "infinite", error: &report.Figures{}},
		{name: "kept", action: "keep"},
	}
	p := &page{rows: rows, lists: []*list{listOfRows(rows)}}
	doc := parsePage(t, p.html())
	if len(doc.points) != 2 || doc.at(1, "rel_mse") != "null" {
		t.Errorf("%q, %q", doc.points, doc.cells)
	}
	if text, _, _ := strings.Cut(p.html(), "<script>"); strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Error("a place that is no number")
	}
}
