package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/report"
)

// TestPagesInBrowser: what people see of reports. Pages say nothing in the console, are no
// wider than a telephone or a screen, can be read in light and dark, and their lists are
// searched and sorted from the keyboard.
func TestPagesInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: pages are not looked at in a browser")
	}
	c := startChromium(t)
	for _, p := range pagesToLookAt(t) {
		t.Run(p.name, func(t *testing.T) {
			c.t = t
			for _, l := range p.looks() {
				c.said = nil
				c.look(l.width, l.scheme)
				c.visit(p.url)
				c.checkLook(l.width, l.scheme)
				c.pictures(fmt.Sprintf("%s-%d-%s", p.name, l.width, l.scheme))
			}
			if p.word != "" {
				eval[any](c, helpers)
				c.checkSearch(p.word)
				c.checkSort()
				c.checkLink()
			}
			c.checkSilence()
		})
	}
}

// look is a screen.
type look struct {
	width  int
	scheme string
}

// looks are the screens on which a page is looked at, the last one also with keys. Large
// pages take long, and look like others.
func (p *lookedAt) looks() []look {
	if strings.HasPrefix(p.name, "large") {
		return []look{{390, "dark"}, {1280, "light"}}
	}
	return []look{{390, "light"}, {390, "dark"}, {1280, "dark"}, {1280, "light"}}
}

// lookedAt is a page, and a word that is in some rows of its last list and not in all; "" for
// a page without lists.
type lookedAt struct{ name, url, word string }

// pagesToLookAt are pages of all kinds: with a plot of a budget, of errors, of a plan
// alone, with problems, with names that are long or hostile, of ten thousand layers.
func pagesToLookAt(t *testing.T) []lookedAt {
	t.Helper()
	folder := t.TempDir()
	t.Chdir(filepath.Join("..", "..", "testdata")) // so that paths are short as people's are
	out, damaged := filepath.Join(folder, "out.safetensors"), filepath.Join(folder, "damaged.safetensors")
	hostileOut := filepath.Join(folder, "hostile.safetensors")
	runs := []struct {
		name, word string
		status     int
		args       []string
	}{
		{"budget", "attention", 0, []string{"quantize", "minilm.safetensors", out, "--budget", "1500000", "--menu", "nvfp4,int8_tensorwise,mxfp8,keep", "--report"}},
		{"verify", "attention", 0, []string{"verify", out, "--source", "minilm.safetensors", "--report"}},
		{"plan", "embeddings", 0, []string{"plan", "minilm.safetensors", "--layout", "sdnq", "--dtype", "uint4", "--report"}},
		{"hostile", "onload", 0, []string{"quantize", hostileFile(t), hostileOut, "--preset", "none", "--report"}},
		{"inspect", "bias", 0, []string{"inspect", out, "--html"}},
		{"inspect-hostile", "onload", 0, []string{"inspect", hostileOut, "--html"}},
		{"problems", "", 4, []string{"verify", damaged, "--source", "minilm.safetensors", "--report"}},
	}
	var pages []lookedAt
	for _, r := range runs {
		if r.name == "problems" {
			damage(t, out, damaged)
		}
		path := filepath.Join(folder, r.name+".html")
		var stdout, stderr strings.Builder
		if status := run(append(r.args, path), &stdout, &stderr); status != r.status {
			t.Fatalf("%q: status %d: %s", r.args, status, &stderr)
		}
		pages = append(pages, lookedAt{r.name, fileURL(path), r.word})
	}
	return append(pages,
		lookedAt{"large", savedPage(t, folder, "large", largePage(10_000)), "to_q"},
		lookedAt{"large-inspect", savedPage(t, folder, "large-inspect", inspectionPage(largeInspection(10_000))), "99"})
}

func fileURL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

func savedPage(t *testing.T, folder, name string, p *page) string {
	t.Helper()
	path := filepath.Join(folder, name+".html")
	if err := os.WriteFile(path, []byte(p.html()), 0o666); err != nil {
		t.Fatal(err)
	}
	return fileURL(path)
}

// damage copies a file and overwrites its last quarter, with what describes its layers.
func damage(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) * 3 / 4; i < len(data); i++ {
		data[i] = 0xff
	}
	if err := os.WriteFile(to, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// largePage is the page of a conversion of that many layers.
func largePage(n int) *page {
	r := &report.Report{Source: "large.safetensors", Dest: "large-nvfp4.safetensors", Layout: "comfy", Seconds: 1}
	kinds := []string{"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear", "norm_q"}
	for i := range n {
		l := report.Layer{
			Name: fmt.Sprintf("transformer.transformer_blocks.%d.%s", i/len(kinds), kinds[i%len(kinds)]), Action: report.Quantize, Dtype: []string{"nvfp4", "int8_tensorwise"}[i%5/4],
			Options: report.Options{{Key: "format", Value: []string{"nvfp4", "int8_tensorwise"}[i%5/4]}}, Shape: []int{3072, 3072 * (1 + i%4)}, BytesIn: int64(18874368 * (1 + i%4)), BytesOut: int64(5308416*(1+i%4) + i),
		}
		if i%len(kinds) == len(kinds)-1 {
			l.Action, l.Dtype, l.Reason, l.Options = report.Keep, "BF16", "fewer values than --min-numel 16384", nil
		} else {
			rel := 0.008 + float64(i*7919%1000)/2e5
			l.Figures = &report.Figures{Error: report.Error{RelMSE: &rel, SQNR: &rel}, MaxAbs: &rel}
		}
		r.Layers = append(r.Layers, l)
	}
	return reportPage(r)
}

// largeInspection is a checkpoint of that many quantized layers and half as many other
// tensors, all of different shapes so that each has a row.
func largeInspection(n int) *report.Inspection {
	v := &report.Inspection{Path: "large-uint4.safetensors", Layout: "sdnq", Metadata: map[string]string{"format": "pt", "about": strings.Repeat("long ", 10_000)}}
	for i := range n {
		name := fmt.Sprintf("transformer_blocks.%d.attn.%s", i/2, []string{"to_q", "to_k"}[i%2])
		tensors := []report.Tensor{{Name: name + ".weight", Dtype: "U8", Shape: []int{i + 1, 64}, Bytes: int64(64 * (i + 1))}, {Name: name + ".scale", Dtype: "BF16", Shape: []int{i + 1, 1}, Bytes: int64(2 * (i + 1))}}
		v.Layers = append(v.Layers, report.StoredLayer{
			Name: name, Format: "sdnq", Dtype: "uint4", Shape: []int{i + 1, 128}, Options: report.Options{{Key: "group_size", Value: 64}, {Key: "use_svd", Value: true}, {Key: "svd_rank", Value: 32}}, Tensors: tensors, Bytes: int64(66 * (i + 1)),
		})
		v.Tensors = append(v.Tensors, tensors...)
		if i%2 == 0 {
			v.Tensors = append(v.Tensors, report.Tensor{Name: name + ".bias", Dtype: "BF16", Shape: []int{i + 1}, Bytes: int64(2 * (i + 1))})
		}
	}
	return v
}

// checkLook: the page is no wider than the screen, its text can be read before its
// background, and lists stand in it as tables for those who do not see them.
func (c *chromium) checkLook(width int, scheme string) {
	c.t.Helper()
	if got := eval[int](c, "document.documentElement.scrollWidth"); got > width {
		wide := eval[[]string](c, `[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth && !e.closest(".scroll")).map(e => e.outerHTML.slice(0, 100)).slice(0, 5)`)
		c.t.Errorf("%d pixels wide on a screen of %d: %q", got, width, wide)
	}
	if cut := eval[[]string](c, `[...document.querySelectorAll("svg text")].filter(e => { const a = e.getBBox(); const v = e.ownerSVGElement.viewBox.baseVal; return a.x < 0 || a.y < 0 || a.x + a.width > v.width || a.y + a.height > v.height }).map(e => e.textContent)`); len(cut) > 0 {
		c.t.Errorf("at %d pixels labels of a plot are cut off: %q", width, cut)
	}
	if over := eval[[]string](c, `[...document.querySelectorAll("table")].flatMap(table => [...table.rows].slice(0, 20).flatMap(row => [...row.cells])).filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent).slice(0, 5)`); len(over) > 0 {
		c.t.Errorf("at %d pixels texts are wider than their columns: %q", width, over)
	}
	if apart := eval[[]string](c, `[...document.querySelectorAll("table")].flatMap(table => [...table.rows].slice(0, 20)).filter(row => { const tops = [...row.cells].map(cell => cell.getBoundingClientRect().top); return Math.max(...tops) - Math.min(...tops) > 15 }).map(row => row.textContent).slice(0, 5)`); len(apart) > 0 {
		c.t.Errorf("at %d pixels cells of a row do not stand beside each other: %q", width, apart)
	}
	low := eval[[]string](c, `(() => {
		const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
		const light = color => { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
		const back = light(getComputedStyle(document.body).backgroundColor);
		const seen = ["h1", "dt", "dd", "a", "th", "td", ".problem", ".find output", ".find input", "svg text"].flatMap(one => [...document.querySelectorAll(one)].filter(e => !e.closest("svg a")).slice(0, 50));
		return ["background " + (back > .5 ? "light" : "dark"), ...new Set(seen.map(e => { const s = getComputedStyle(e); const x = light(e.closest("svg") ? s.fill : s.color); return [(Math.max(x, back) + .05) / (Math.min(x, back) + .05), e.tagName] }).filter(([ratio]) => ratio < 4.5).map(([ratio, tag]) => tag + " " + ratio.toFixed(1)))] })()`)
	if want := []string{"background " + scheme}; !slices.Equal(low, want) {
		c.t.Errorf("%s: %q, want %q and no contrast below 4.5", scheme, low, want)
	}
	c.checkSilence()
}

func (c *chromium) checkSilence() {
	c.t.Helper()
	if len(c.said) > 0 {
		c.t.Errorf("in the console: %q", c.said)
	}
}

func (c *chromium) pictures(name string) {
	c.picture(name)
	if eval[bool](c, `document.querySelector(".list") !== null`) {
		eval[any](c, `document.querySelector(".list").scrollIntoView()`)
		c.picture(name + "-list")
	}
}

const lastList = `[...document.querySelectorAll(".list")].at(-1)`

// helpers are put into each page: settled are the rows of its last list, once all that it
// shows are in their places.
const helpers = `async function settled() {
	const list = ` + lastList + `;
	while (list.querySelector("[aria-busy]")) await new Promise(done => setTimeout(done, 10));
	return [...list.querySelectorAll("tbody:not(.out) tr")] }`

// names are the first cells of the last list, as they stand.
func (c *chromium) names() []string {
	c.t.Helper()
	return eval[[]string](c, `settled().then(rows => rows.map(row => row.cells[0].textContent))`)
}

// checkSearch types a word into the last list's search, and takes it away again.
func (c *chromium) checkSearch(word string) {
	c.t.Helper()
	all := c.names()
	var want []string
	for i, text := range eval[[]string](c, `settled().then(rows => rows.map(row => [...row.cells].map(cell => cell.textContent).join("\t").toLowerCase()))`) {
		if strings.Contains(text, word) {
			want = append(want, all[i])
		}
	}
	if len(want) == 0 || len(want) == len(all) {
		c.t.Fatalf("%s is in %d of %d rows", word, len(want), len(all))
	}
	eval[any](c, lastList+`.querySelector("input").focus()`)
	slowest := c.timed(strings.Split(word, "")...)
	if got := c.names(); !slices.Equal(got, want) {
		c.t.Errorf("%s finds %d rows, want %d: %.300q", word, len(got), len(want), got)
	}
	if got, want := c.count(), fmt.Sprintf("%d of %d ", len(want), len(all)); !strings.HasPrefix(got, want) {
		c.t.Errorf("the count is %q, want %q", got, want)
	}
	c.picture(c.t.Name() + "-found")
	slowest = max(slowest, c.timed(slices.Repeat([]string{"Backspace"}, len(word))...))
	if got := c.names(); !slices.Equal(got, all) {
		c.t.Errorf("%d rows are there after the search, want %d", len(got), len(all))
	}
	c.t.Logf("%d rows: the slowest key took %v to be seen", len(all), slowest.Round(time.Millisecond))
}

func (c *chromium) count() string {
	c.t.Helper()
	return eval[string](c, lastList+`.querySelector("output").value`)
}

// timed presses keys, and returns the longest time until the screen showed what one did.
func (c *chromium) timed(keys ...string) time.Duration {
	c.t.Helper()
	var slowest time.Duration
	for _, key := range keys {
		start := time.Now()
		c.press(key)
		eval[any](c, `new Promise(seen => requestAnimationFrame(() => setTimeout(seen)))`)
		slowest = max(slowest, time.Since(start))
	}
	return slowest
}

// checkLink follows a link to a layer that was searched away: it is there, and in sight.
func (c *chromium) checkLink() {
	c.t.Helper()
	if !eval[bool](c, `document.querySelector("ol a") !== null`) {
		return
	}
	eval[any](c, lastList+`.querySelector("input").focus()`)
	c.press("-", "-", "-")
	if got := c.names(); len(got) > 0 {
		c.t.Errorf("--- finds %q", got)
	}
	eval[any](c, `document.querySelector("ol li:last-child a").focus()`)
	c.timed("Enter")
	if got := eval[string](c, `(() => {
		const link = document.querySelector("ol li:last-child a"), row = document.querySelector("tr:target"), box = row?.getBoundingClientRect();
		return !row ? "no row is the target" : row.cells[0].textContent !== link.textContent ? row.cells[0].textContent + ", not " + link.textContent : box.bottom < 0 || box.top > innerHeight || box.height === 0 ? "out of sight" : "" })()`); got != "" {
		c.t.Errorf("a link to a layer: %s", got)
	}
}

// checkSort sorts the last list by each of its columns, from the keyboard.
func (c *chromium) checkSort() {
	c.t.Helper()
	all := c.names()
	tried := map[bool]int{} // of texts, of numbers
	eval[any](c, lastList+`.querySelector("input").focus()`)
	c.press("Tab") // to what scrolls
	var slowest time.Duration
	for i, name := range eval[[]string](c, `[...`+lastList+`.querySelectorAll("th")].map(head => head.textContent)`) {
		c.press("Tab")
		if got := eval[string](c, "document.activeElement.textContent"); got != name {
			c.t.Fatalf("Tab leads to %q, want %s", got, name)
		}
		numbers := eval[bool](c, fmt.Sprintf(lastList+`.querySelectorAll("th")[%d].classList.contains("n")`, i))
		if tried[numbers]++; len(all) > 1000 && tried[numbers] > 1 {
			continue // one of each is enough where it takes long
		}
		for _, way := range waysOf(numbers) {
			slowest = max(slowest, c.timed("Enter"))
			c.checkOrder(i, name, way)
		}
		slowest = max(slowest, c.timed("Enter"))
		if got := c.names(); !slices.Equal(got, all) {
			c.t.Errorf("by %s for the third time, rows are not as they were", name)
		}
	}
	c.t.Logf("%d rows: the slowest sort took %v to be seen", len(all), slowest.Round(time.Millisecond))
}

func waysOf(numbers bool) []string {
	if numbers {
		return []string{"descending", "ascending"}
	}
	return []string{"ascending", "descending"}
}

// checkOrder: rows are in the order that the column's head claims, those without a value
// at the end.
func (c *chromium) checkOrder(column int, name, way string) {
	c.t.Helper()
	wrong := eval[string](c, fmt.Sprintf(`(async () => {
		const list = `+lastList+`, column = %d, up = %q === "ascending";
		if (list.querySelectorAll("[aria-sort]").length !== 1 || list.querySelectorAll("th")[column].ariaSort !== %[2]q) return "aria-sort";
		const keys = (await settled()).map(row => { const cell = row.cells[column], data = cell.querySelector("data"); return data ? data.value === "null" ? Infinity : Number(data.value) : cell.textContent });
		const there = keys.filter(key => key !== "");
		if (keys.slice(0, there.length).includes("")) return "empty cells are not at the end";
		const compare = (a, b) => typeof a === "number" ? Math.sign(a - b) : a.localeCompare(b, "en", { numeric: true });
		const at = there.findIndex((key, i) => i && (up ? compare(there[i - 1], key) : compare(key, there[i - 1])) > 0);
		return at < 0 ? "" : there[at - 1] + " before " + there[at] })()`, column, way))
	if wrong != "" {
		c.t.Errorf("sorted by %s, %s: %s", name, way, wrong)
	}
}
