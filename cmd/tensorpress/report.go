package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/report"
)

// reportFlag is --report.
type reportFlag struct{ path string }

func (r *reportFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.path, "report", "", "also write the result to `FILE`: JSON, or HTML, by its suffix")
}

// check refuses a path that would fail, or do harm, only after all the work is done.
func (r *reportFlag) check(paths []string) error {
	if r.path == "" {
		return nil
	}
	if !r.isHTML() && !strings.EqualFold(filepath.Ext(r.path), ".json") {
		return fmt.Errorf("--report %s: the name must end in .json or .html", r.path)
	}
	return checkPlace("report", r.path, paths, beginnings)
}

// checkPlace makes sure that a file that a flag names can be written: not in the source or
// in the output, and over nothing but a file of its kind, which begins so.
func checkPlace(flag, path string, paths, beginnings []string) error {
	for _, one := range paths {
		if strings.HasSuffix(one, ".index.json") { // an index names the checkpoint in its folder
			one = filepath.Dir(one)
		}
		if real(path) == real(one) {
			return fmt.Errorf("--%s %s is the source or the destination: name another place", flag, path)
		}
		if within(real(path), real(one)) {
			return fmt.Errorf("--%s %s lies in %s: name another place", flag, path, one)
		}
	}
	if err := checkOld(flag, path, beginnings); err != nil {
		return err
	}
	if strings.Contains(path, "://") {
		return fmt.Errorf("--%s %s: is an address, want a path", flag, path)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("--%s %s: there is no folder %s", flag, path, filepath.Dir(path))
	}
	if err := writable(path); err != nil {
		return &runError{fmt.Errorf("--%s %s: cannot be written: %w", flag, path, cause(err))}
	}
	return nil
}

// beginnings are the texts with which reports begin.
var beginnings = []string{"{\n  \"source\":", "{\n  \"dest\":", "{\n  \"layout\":", "{\n  \"ok\":", "{\n  \"same\":", "{\n  \"sources\":", "<!DOCTYPE html>"}

// checkOld makes sure that a report replaces only a report, not a config or a recipe.
func checkOld(flag, path string, beginnings []string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // nothing is there, or writing will report the error
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("--%s %s is no ordinary file: name another place", flag, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return &runError{err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 20))
	if err != nil {
		return &runError{err}
	}
	isKind := func(beginning string) bool {
		return strings.HasPrefix(string(text), beginning[:min(len(beginning), 20)])
	}
	if len(text) > 0 && !slices.ContainsFunc(beginnings, isKind) {
		return fmt.Errorf("--%s %s exists and is no %s: name another place", flag, path, cmp.Or(kindsOfFiles[flag], flag))
	}
	return nil
}

// kindsOfFiles are what flags write, where they are not called so.
var kindsOfFiles = map[string]string{"out": "measurement", "html": "page", "metrics": "file of metrics"}

func (r *reportFlag) isHTML() bool {
	ext := strings.ToLower(filepath.Ext(r.path))
	return ext == ".html" || ext == ".htm"
}

// real returns a path with links resolved as far as it exists.
func real(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	if folder, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(folder, filepath.Base(path))
	}
	return path
}

func within(path, folder string) bool {
	path, err1 := filepath.Abs(path)
	folder, err2 := filepath.Abs(folder)
	rel, err := filepath.Rel(folder, path)
	return cmp.Or(err1, err2, err) == nil && (rel == "." || filepath.IsLocal(rel))
}

// write writes the report: v as JSON, or the page as HTML.
func (r *reportFlag) write(v any, show func() *page) error {
	if r.path == "" {
		return nil
	}
	if r.isHTML() {
		return writeWhole(r.path, []byte(show().html()))
	}
	var b strings.Builder
	if err := writeJSON(&b, v, "  "); err != nil {
		return err
	}
	return writeWhole(r.path, []byte(b.String()))
}

// printDone prints what a conversion did.
func printDone(w io.Writer, r *report.Report) {
	t := newTable()
	if r.Shards != nil && r.Shards.Parts > 0 {
		t.add("part", partText(r.Shards))
		t.add("in", r.Shards.Folder)
	} else {
		t.add("wrote", r.Dest)
	}
	if idle(r) {
		t.print(w)
		return
	}
	if r.Preset != "" {
		t.add("preset", r.Preset)
	}
	t.add("layers", tally(r.Layers, func(l *report.Layer) string { return done(l.Action) }))
	t.add("dtypes", tally(r.Layers, writtenDtype(r.Layout)))
	t.add("bytes", sizes(r))
	if r.Total != nil {
		t.add("error", fmt.Sprintf("rel_mse %s, %s dB", figure(r.Total.RelMSE, "%.3e"), figure(r.Total.SQNR, "%.1f")))
	}
	if m := r.Merged; m != nil {
		t.add("lora", fmt.Sprintf("%s of the change kept, %s dB above the rounding", figure(m.Kept, "%.3f"), figure(m.SNR, "%.1f")))
	}
	t.add("time", fmt.Sprintf("%.2f s, %.2f GB/s", r.Seconds, r.Speed()/1e9))
	t.print(w)
	printNeeds(w, r.Needs)
	printBudget(w, r.Budget)
}

// dones are actions in the past tense.
var dones = map[report.Action]string{
	report.Quantize: "quantized", report.Requantize: "requantized", report.Dequantize: "dequantized",
	report.Move: "moved", report.Describe: "described", report.Keep: "kept", report.Drop: "dropped",
}

func done(a report.Action) string { return cmp.Or(dones[a], string(a)) }

// sizes returns the bytes before and after as text.
func sizes(r *report.Report) string {
	most := ""
	if r.AtMost {
		most = "at most "
	}
	text := fmt.Sprintf("%s in, %s%s out", report.Size(r.BytesIn), most, report.Size(r.BytesOut))
	if r.BytesIn > 0 {
		text += fmt.Sprintf(", ratio %s%.3f", most, float64(r.BytesOut)/float64(r.BytesIn))
	}
	return text
}

// tally counts layers by their key: first those that change, then those that are kept.
func tally(layers []report.Layer, key func(*report.Layer) string) string {
	changed, kept := map[string]int{}, map[string]int{}
	for i := range layers {
		l, counts := &layers[i], changed
		if l.Action == report.Keep {
			counts = kept
		}
		counts[key(l)]++
	}
	texts := append(mostFirst(changed), mostFirst(kept)...)
	return cmp.Or(strings.Join(texts, ", "), "none")
}

// writtenDtype returns a function for a layer's dtype as text. In the comfy layout it
// marks SDNQ's dtypes, whose names might be mistaken for ComfyUI's.
func writtenDtype(layout string) func(l *report.Layer) string {
	return func(l *report.Layer) string {
		if format, _ := l.Options.Get("format"); layout == "comfy" && format == "sdnq" {
			return "sdnq " + l.Dtype
		}
		return l.Dtype
	}
}

func mostFirst(counts map[string]int) []string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, key := range keys {
		keys[i] = fmt.Sprintf("%d %s", counts[key], key)
	}
	return keys
}

// bound stands before the size of a layer whose dtype is yet to be measured.
func bound(l *report.Layer) string {
	if l.Dtype == "dynamic" {
		return "≤ "
	}
	return ""
}

// printPlan lists what will happen to every weight.
func printPlan(w io.Writer, r *report.Report) {
	if idle(r) {
		t := newTable()
		t.add("part", partText(r.Shards))
		t.print(w)
		return
	}
	t := newTable(6, 7)
	t.grow(1+len(r.Layers), 9)
	t.add("LAYER", "ACTION", "DTYPE", "SCALE", "WITH", "SHAPE", "IN", "OUT", "REASON")
	var made texts
	for i := range r.Layers {
		l := &r.Layers[i]
		t.add(l.Name, string(l.Action), l.Dtype, scaleText(l.Options), partsText(l.Options), made.of(l.Shape), made.size(l.BytesIn), bound(l)+made.size(l.BytesOut), l.Reason)
	}
	t.print(w)
	fmt.Fprintln(w)
	sums := newTable()
	sums.add("layout", r.Layout)
	if r.Preset != "" {
		sums.add("preset", r.Preset)
	}
	sums.add("layers", tally(r.Layers, func(l *report.Layer) string { return "to " + string(l.Action) }))
	sums.add("dtypes", tally(r.Layers, writtenDtype(r.Layout)))
	sums.add("files", fmt.Sprint(len(r.Files)))
	sums.add("bytes", sizes(r))
	switch s := r.Shards; {
	case s == nil:
	case s.Parts > 0:
		sums.add("part", partText(s))
	default:
		sums.add("kept", fmt.Sprintf("%d of %d shards", s.Finished(), s.Count))
	}
	sums.print(w)
	printShards(w, r.Shards)
	printNeeds(w, r.Needs)
	printBudget(w, r.Budget)
}

// partsText describes in few words what else a layer's options say: its rotation,
// low-rank part and codebook.
func partsText(o options) string {
	var texts []string
	for _, part := range partTexts {
		if on, ok := o.Get(part.on); !ok || on == false {
			continue
		}
		text := part.text
		if n, ok := o.Get(part.size); ok {
			text += fmt.Sprintf(" %v", n)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// partTexts are the keys that say that a layer has a part, and how large it is.
var partTexts = []struct{ on, size, text string }{
	{"convrot_groupsize", "convrot_groupsize", "convrot"},
	{"use_hadamard", "hadamard_group_size", "hadamard"},
	{"use_svd", "svd_rank", "rank"},
	{"use_codebook", "", "codebook"},
}

// options are the options of a layer, as reports hold them.
type options interface{ Get(key string) (any, bool) }

// scaleText describes in few words which values of a layer share a scale.
func scaleText(o options) string {
	get := func(key string) string {
		v, ok := o.Get(key)
		switch v := v.(type) {
		case string:
			return v
		case int:
			return strconv.Itoa(v)
		}
		if !ok {
			return ""
		}
		return fmt.Sprint(v)
	}
	format, text := get("format"), ""
	if f := codec.Lookup(format); f != nil {
		text = f.ScaleText
	}
	switch size := get("group_size"); {
	case text == "block" && size != "":
		text += " " + size
	case text != "":
	case size == "-1" || get("per_row") == "true":
		text = "row"
	case size == "-2":
		text = "tensor"
	case size == "0": // a file's config may leave the size to SDNQ's rule
		text = "automatic"
	case size != "":
		text = "group " + size
	case format != "":
		text = "tensor"
	}
	if get("dequantize_fp32") == "false" {
		text += " of low precision"
	}
	return text
}
