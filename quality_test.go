package tensorpress_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/quality"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

var updateQuality = flag.Bool("update-quality", false, "measure what every dtype loses anew")

// TestQualityIsMeasured: the errors that formats shows are those of the files that are
// written. With -update-quality all are measured; else one in seven is compared.
func TestQualityIsMeasured(t *testing.T) {
	var lines []string
	for i, f := range tensorpress.Formats() {
		if !*updateQuality && i%7 != 3 {
			continue
		}
		name := f.Name
		if f.Layouts[0] == "sdnq" {
			name = "sdnq:" + name
		}
		r, ok := measured(t, name)
		if was, has := quality.Of(name); !ok {
			if has && !*updateQuality {
				t.Errorf("%s is not written, the table has %+v", name, was)
			}
			continue
		}
		lines = append(lines, fmt.Sprintf("%s\t%.3f\t%.3g\t%.3g\n", name, r.Bits, r.Plain, r.Searched))
		was, ok := quality.Of(name)
		if near := func(a, b float64) bool { return math.Abs(a-b) <= 0.01*max(a, b) }; !*updateQuality &&
			(!ok || !near(r.Bits, was.Bits) || !near(r.Plain, was.Plain) || !near(r.Searched, was.Searched)) {
			t.Errorf("%s: measured %+v, the table has %+v", name, r, was)
		}
	}
	if *updateQuality {
		if err := os.WriteFile("internal/quality/quality.tsv", []byte(strings.Join(lines, "")), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// measured quantizes the small real model with a dtype. It reports false for those that
// are only read.
func measured(t *testing.T, name string) (r quality.Row, written bool) {
	t.Helper()
	dir := t.TempDir()
	source := "testdata/minilm.safetensors"
	quantize := func(search bool) (bits, loss float64) {
		o := tensorpress.Options{Layout: "comfy", Preset: "none", Only: []string{`layer.*\.weight`}, Measure: true, Force: true}
		o.Layer.Dtype = name
		if search {
			o.Layer.Search = new(true)
		}
		out, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(filepath.Join(dir, fmt.Sprint(search, ".safetensors"))), o)
		if err != nil {
			return -1, -1 // no layer fits
		}
		bytes, values, layers := int64(0), 0, 0.0
		for _, l := range out.Layers {
			if l.Figures != nil && l.Action == report.Quantize {
				n := 1
				for _, d := range l.Shape {
					n *= d
				}
				bytes, values, layers, loss = bytes+l.BytesOut, values+n, layers+1, loss+*l.RelMSE
			}
		}
		return 8 * float64(bytes) / float64(values), loss / layers
	}
	if r.Bits, r.Plain = quantize(false); !(r.Bits > 0) { // rotations of 256 columns
		source = narrowed(t)
		r.Bits, r.Plain = quantize(false)
	}
	if !(r.Bits > 0) {
		return r, false
	}
	if _, r.Searched = quantize(true); r.Searched < 0 {
		r.Searched = r.Plain
	}
	return r, true
}

// narrowed returns a copy of the model with the first 256 columns of its layers.
func narrowed(t *testing.T) string {
	t.Helper()
	f, err := safetensors.Open("testdata/minilm.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const columns = 256
	var tensors []safetensors.Tensor
	data := map[string][]byte{}
	for _, one := range f.Header().Tensors {
		if len(one.Shape) != 2 || one.Shape[1] < columns {
			continue
		}
		raw := make([]byte, one.Size)
		if err := f.ReadSection(one, raw, 0); err != nil {
			t.Fatal(err)
		}
		var cut []byte
		for row := range one.Shape[0] {
			cut = append(cut, raw[row*one.Shape[1]*4:][:columns*4]...)
		}
		tensors = append(tensors, safetensors.Tensor{Name: one.Name, Dtype: one.Dtype, Shape: []int{one.Shape[0], columns}})
		data[one.Name] = cut
	}
	path := filepath.Join(t.TempDir(), "narrow.safetensors")
	header, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := safetensors.NewWriter(out, header)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range header.Tensors {
		if err := w.WriteSection(one, data[one.Name], 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return path
}
