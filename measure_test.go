package tensorpress_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// measureShapes are weights that tiles cut in several ways: narrow, wide, of one row, of
// more rows than a band, of sides that groups and blocks do not divide.
var measureShapes = map[string][]int{
	"a.proj.weight": {384, 1024}, "b.proj.weight": {48, 96}, "c.proj.weight": {33, 700}, "d.proj.weight": {1, 512},
	"e.proj.weight": {2100, 128}, "f.proj.weight": {2, 140000}, "g.proj.weight": {257, 1040},
}

func measureSource(t *testing.T, dtype safetensors.Dtype) string {
	var tensors []safetensors.Tensor
	for name, shape := range measureShapes {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: dtype, Shape: shape})
	}
	return fixture.Written(t, tensors)
}

// menuFor has an entry for every format, and for settings that change how weights are
// encoded.
func menuFor(layout string) (menu []tensorpress.Candidate) {
	add := func(s tensorpress.Settings) {
		menu = append(menu, tensorpress.Candidate{Name: s.String(), Layer: s})
	}
	usual := []string{"int8", "uint8", "int4", "uint4", "uint3", "int5", "float8_e4m3fn", "float4_e2m1fn", "uint1", "int16"}
	for _, f := range tensorpress.Formats() {
		native := len(f.Layouts) == 1
		row := codec.Lookup(f.Name)
		written := row == nil || row.ReadOnly == ""
		if native && layout == "comfy" && written || !native && layout == "sdnq" && slices.Contains(usual, f.Name) {
			add(tensorpress.Settings{Dtype: f.Name})
		}
	}
	if layout == "comfy" {
		add(tensorpress.Settings{Dtype: "int8_tensorwise", ConvRot: new(true)})
		add(tensorpress.Settings{Dtype: "int8_tensorwise", Scale: "tensor"})
		add(tensorpress.Settings{Dtype: "nvfp4", ExactReference: new(true)})
		add(tensorpress.Settings{Dtype: "asym_w4a8_int8", Bits: new(6)})
		add(tensorpress.Settings{Dtype: "sdnq:uint4", Hadamard: new(true)})
		return menu
	}
	for _, dtype := range []string{"uint4", "int8", "int5"} {
		for _, s := range []tensorpress.Settings{
			{GroupSize: new(-1)}, {GroupSize: new(-2)}, {GroupSize: new(32)}, {Hadamard: new(true)},
			{ScaleDtype: "uint8"}, {ScaleDtype: "uint6", GroupSize: new(32)}, {ScaleDtype: "uint8", CodebookScale: new(true)},
			{QuantizedMatmul: new(true)}, {QuantizedMatmul: new(true), Hadamard: new(true)}, {DequantizeFP32: new(false)}, {StochasticRounding: new(true)},
		} {
			s.Dtype = dtype
			add(s)
		}
	}
	if !testing.Short() { // which takes long for rows of 140000 values
		add(tensorpress.Settings{Dtype: "uint4", SVDRank: new(4), SVDSteps: new(1)})
	}
	add(tensorpress.Settings{Dtype: "uint3", Codebook: new(true)})
	add(tensorpress.Settings{Dtype: "uint2", Codebook: new(true), GroupSize: new(-2)})
	return menu
}

// someOf is a menu or, where tests are to be short, a part of it.
func someOf(menu []tensorpress.Candidate, seed uint64) []tensorpress.Candidate {
	if !testing.Short() {
		return menu
	}
	rand.New(rand.NewPCG(1, seed)).Shuffle(len(menu), func(i, j int) { menu[i], menu[j] = menu[j], menu[i] })
	return menu[:10]
}

// TestMeasuredIsWritten: what measuring says of a layer must be what quantizing makes of
// it: its error, and its bytes.
func TestMeasuredIsWritten(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"sdnq", "comfy"} {
		for _, dtype := range []safetensors.Dtype{safetensors.BF16, safetensors.F32, safetensors.F16} {
			source := measureSource(t, dtype)
			menu := someOf(menuFor(layout), uint64(dtype))
			o := tensorpress.Options{Layout: layout, Preset: "none", Menu: menu, MinNumel: new(1), MinChannels: new(1)}
			m, err := tensorpress.Measure(t.Context(), files.Dir(source), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range menu {
				t.Run(fmt.Sprint(layout, dtype, entry.Name), func(t *testing.T) {
					compareEntry(t, source, o, entry, m)
				})
			}
		}
	}
}

func compareEntry(t *testing.T, source string, o tensorpress.Options, entry tensorpress.Candidate, m *tensorpress.Measurement) {
	o.Layer, o.Menu = entry.Layer, nil
	path := fixture.Quantized(t, source, o)
	v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(source)})
	if err != nil || !v.OK {
		t.Fatal(v, err)
	}
	for _, e := range m.Menu {
		if size := int64(len(fixture.FileBytes(t, path))); e.Name == entry.Name && e.BytesOut != size {
			t.Errorf("the file has %d bytes, measured: %d", size, e.BytesOut)
		}
	}
	n := 0
	for _, l := range m.Layers {
		i := slices.IndexFunc(l.Choices, func(c report.MeasuredChoice) bool { return c.Entry == entry.Name })
		k := slices.IndexFunc(v.Layers, func(e report.LayerError) bool { return e.Name == l.Name })
		if (i < 0) != (k < 0) {
			t.Errorf("%s: measured %v, written %v", l.Name, i >= 0, k >= 0)
		}
		if i < 0 || k < 0 {
			continue
		}
		n++
		got, want := l.Choices[i], v.Layers[k]
		if got.RelMSE == nil || want.RelMSE == nil || math.Abs(*got.RelMSE-*want.RelMSE) > 1e-7*(*want.RelMSE) {
			t.Errorf("%s: error %v, written %v", l.Name, figure(got.RelMSE), figure(want.RelMSE))
		}
		if entries := got.Bytes - want.Bytes; entries < 100 || entries > 2000 {
			t.Errorf("%s: %d bytes, written %d", l.Name, got.Bytes, want.Bytes)
		}
	}
	if n != len(v.Layers) {
		t.Errorf("%d of %d layers are compared", n, len(v.Layers))
	}
}

func figure(x *float64) any {
	if x == nil {
		return nil
	}
	return *x
}

// TestMeasuredAnywhere: a measurement decides which bytes are written, so that it must be
// the same to the last digit with any threads and memory.
func TestMeasuredAnywhere(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"sdnq", "comfy"} {
		source := measureSource(t, safetensors.BF16)
		var want *tensorpress.Measurement
		for _, r := range []fixture.Resources{{Threads: 1}, {Threads: 3, Memory: 64 << 20}, {Threads: 2, Memory: 1 << 20}} {
			o := tensorpress.Options{Layout: layout, Preset: "none", Menu: someOf(menuFor(layout), 5), Threads: r.Threads, Memory: r.Memory}
			got, err := tensorpress.Measure(t.Context(), files.Dir(source), o)
			if err != nil {
				t.Fatal(err)
			}
			got.Seconds = 0
			if want == nil {
				want = got
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: with %d threads and %d bytes another measurement", layout, r.Threads, r.Memory)
			}
		}
	}
}

// TestBudgetIsBestUniform: of the very size that one entry takes everywhere, what is
// chosen loses no more, whichever the entry; and it is what was said.
func TestBudgetIsBestUniform(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"sdnq", "comfy"} {
		source := measureSource(t, safetensors.BF16)
		o := tensorpress.Options{Layout: layout, Preset: "none"}
		m, err := tensorpress.Measure(t.Context(), files.Dir(source), o)
		if err != nil {
			t.Fatal(err)
		}
		o.Measured = m
		for _, e := range m.Menu {
			if e.Layers == 0 {
				continue
			}
			o.Budget = e.BytesOut
			path := filepath.Join(t.TempDir(), "out.safetensors")
			r, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(path), o)
			if err != nil {
				t.Fatal(e.Name, err)
			}
			size := int64(len(fixture.FileBytes(t, path)))
			if b := r.Budget; size > o.Budget || size != b.Chosen.Bytes || b.Chosen.RelMSE > *e.RelMSE*(1+1e-12) {
				t.Errorf("%s: %s takes %d bytes and loses %g; chosen: %d, said %d, and %g", layout, e.Name, e.BytesOut, *e.RelMSE, size, b.Chosen.Bytes, b.Chosen.RelMSE)
			}
			checkSaid(t, source, path, r)
		}
	}
}

// checkSaid: the errors in the report of a choice are those of what was written.
func checkSaid(t *testing.T, source, path string, r *tensorpress.Report) {
	t.Helper()
	v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(source)})
	if err != nil || !v.OK {
		t.Fatal(v, err)
	}
	for _, c := range r.Budget.Layers {
		k := slices.IndexFunc(v.Layers, func(e report.LayerError) bool { return e.Name == c.Name })
		if (k < 0) != (c.Entry == "keep") {
			t.Errorf("%s is said to be %s", c.Name, c.Entry)
		}
		if k >= 0 && math.Abs(*v.Layers[k].RelMSE-*c.RelMSE) > 1e-7*(*c.RelMSE) {
			t.Errorf("%s as %s loses %g, said: %g", c.Name, c.Entry, *v.Layers[k].RelMSE, *c.RelMSE)
		}
	}
}

// TestBudgetRefuses: what cannot be is said in a line that names what to change.
func TestBudgetRefuses(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{256, 256}}})
	menu := func(text string) []tensorpress.Candidate {
		m, err := tensorpress.ParseMenu(text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, c := range map[string]struct {
		o    tensorpress.Options
		want string
	}{
		"too small":    {tensorpress.Options{Budget: 1000}, "are too few: the least that the menu makes"},
		"two sizes":    {tensorpress.Options{Budget: 1000, TargetBPW: 4}, "both name a size"},
		"negative":     {tensorpress.Options{Budget: -1}, "greater than 0"},
		"NaN":          {tensorpress.Options{TargetBPW: math.NaN()}, "greater than 0"},
		"a dtype":      {tensorpress.Options{Budget: 1 << 20, Layer: tensorpress.Settings{Dtype: "int8"}}, "`Dtype` is one way"},
		"dynamic":      {tensorpress.Options{Budget: 1 << 20, Layer: tensorpress.Settings{Dynamic: new(true)}}, "`Dynamic` chooses"},
		"an entry":     {tensorpress.Options{Budget: 1 << 20, Menu: menu("int8:dynamic")}, "`Dynamic` chooses"},
		"twice":        {tensorpress.Options{Budget: 1 << 20, Menu: menu("int8,int8")}, "int8 twice"},
		"nothing":      {tensorpress.Options{Budget: 1 << 20, Menu: menu("keep")}, "has no dtype"},
		"another's":    {tensorpress.Options{Budget: 1 << 20, Layout: "sdnq", Menu: menu("int8,nvfp4")}, "nvfp4"},
		"not loaded":   {tensorpress.Options{Budget: 1 << 20, For: "comfyui", Menu: menu("int8_tensorwise,uint4")}, "`Menu` uint4: layer a: stock ComfyUI does not load"},
		"a config too": {tensorpress.Options{Budget: 1 << 20, Config: "x.json"}, "`Config` both say"},
		"fingerprint":  {tensorpress.Options{Fingerprint: "sha256:0"}, "is not the source for which"},
	} {
		c.o.Preset, c.o.MinNumel = "none", new(1)
		_, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestMenusLoad: what is chosen by itself for an application must be what it loads, each
// entry and any mix of them.
func TestMenusLoad(t *testing.T) {
	var known, unknown []safetensors.Tensor // by their names, to ComfyUI
	for i := range 6 {
		one := safetensors.Tensor{Dtype: safetensors.BF16, Shape: []int{256, 512}}
		one.Name = fmt.Sprintf("transformer_blocks.%d.attn.to_q.weight", i)
		known = append(known, one)
		one.Name = fmt.Sprintf("blocks.%d.proj.weight", i)
		unknown = append(unknown, one)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(`{"_class_name": "FluxTransformer2DModel"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "diffusion_pytorch_model.safetensors"), fixture.FileBytes(t, fixture.Written(t, known)), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"comfyui", "sdnext", "diffusers", "transformers", "invokeai"} {
		from, end := files.Dir(folder), ""
		if name == "comfyui" {
			from, end = files.Dir(fixture.Written(t, unknown)), ".safetensors"
		}
		o := tensorpress.Options{For: name, Preset: "none"}
		m, err := tensorpress.Measure(t.Context(), from, o)
		if err != nil {
			t.Fatal(name, err)
		}
		o.Measured = m
		for _, share := range []float64{0.28, 0.3, 0.4, 0.6, 0.9} {
			o.BudgetShare = share
			dest := files.Dir(filepath.Join(t.TempDir(), "out"+end))
			r, err := tensorpress.Quantize(t.Context(), from, dest, o)
			if err != nil || r.Budget.Chosen.Bytes > r.Budget.Bytes {
				t.Fatalf("%s, %g: %v", name, share, err)
			}
			v, err := tensorpress.Verify(t.Context(), files.Dir(string(dest)), tensorpress.VerifyOptions{For: name})
			if err != nil || !v.OK {
				t.Errorf("%s, %g: %v, %v", name, share, v, err)
			}
		}
	}
}
