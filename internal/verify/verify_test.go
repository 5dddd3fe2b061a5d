package verify_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

var verified = []fixture.Weights{
	{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 96}},
	{Name: "a.bias", Dtype: safetensors.F32, Shape: []int{64}},
	{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{3, 96_000}},
	{Name: "norm.weight", Dtype: safetensors.F32, Shape: []int{8, 8}},
}

// TestVerifyFinds: each kind of damage must be found, under its tensor's name,
// and nothing else be reported.
func TestVerifyFinds(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, verified...)
	nan := fixture.Float32Bytes(float32(math.NaN()))
	tests := []struct {
		name   string
		o      tensorpress.Options
		damage func(path string)
		verify tensorpress.VerifyOptions
		want   []string // problems as "tensor: part of the text"
	}{
		{"nothing", tensorpress.Options{}, nil, tensorpress.VerifyOptions{Source: files.Dir(source)}, nil},
		{"nothing in a file with a config", tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4"}}, nil, tensorpress.VerifyOptions{Source: files.Dir(source)}, nil},
		{"kept tensors that were cast", tensorpress.Options{Layer: tensorpress.Settings{ExactReference: new(true)}}, nil, tensorpress.VerifyOptions{Source: files.Dir(source)}, nil},
		{"a scale that is NaN", tensorpress.Options{}, func(path string) { fixture.Patched(t, path, "a.weight_scale", 4*7, nan) }, tensorpress.VerifyOptions{},
			[]string{"a.weight: value [7, 0] decodes to no finite number"}},
		{"a scale that is NaN, and a source", tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}}, func(path string) { fixture.Patched(t, path, "a.weight_zp", 0, nan) },
			tensorpress.VerifyOptions{Source: files.Dir(source)}, []string{"a.weight: value [0, 0] decodes to no finite number"}},
		{"an infinite scale far into a weight", tensorpress.Options{}, func(path string) {
			fixture.Patched(t, path, "b.weight_scale", 8, fixture.Float32Bytes(float32(math.Inf(1))))
		},
			tensorpress.VerifyOptions{}, []string{"b.weight: value [2, 0] decodes to no finite number"}},
		{"a kept tensor that changed", tensorpress.Options{}, func(path string) { fixture.Patched(t, path, "a.bias", 4, []byte{1, 2, 3}) }, tensorpress.VerifyOptions{Source: files.Dir(source)},
			[]string{"a.bias: differs from the source's"}},
		{"a kept tensor that was cast and changed", tensorpress.Options{Layer: tensorpress.Settings{ExactReference: new(true)}}, func(path string) { fixture.Patched(t, path, "norm.weight", 4, []byte{1, 2}) },
			tensorpress.VerifyOptions{Source: files.Dir(source)}, []string{"norm.weight: differs from the source's"}},
		{"a file cut short", tensorpress.Options{}, func(path string) { cut(t, path, 1) }, tensorpress.VerifyOptions{Source: files.Dir(source)}, []string{": truncated"}},
		{"a file cut to its header", tensorpress.Options{}, func(path string) { cut(t, path, 1<<20) }, tensorpress.VerifyOptions{}, []string{": "}},
		{"metadata that is damaged", tensorpress.Options{}, func(path string) { fixture.Patched(t, path, "a.comfy_quant", 0, []byte("]")) }, tensorpress.VerifyOptions{},
			[]string{"a.weight: comfy_quant"}},
		{"an error above the bound", tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint2"}}, nil, tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: fixture.Ptr(1e-3)},
			[]string{"a.weight: above 0.001", "b.weight: above 0.001"}},
		{"another application's layout", tensorpress.Options{}, nil, tensorpress.VerifyOptions{For: "diffusers"}, []string{": diffusers loads the sdnq layout"}},
		{"a dtype that the application does not load", tensorpress.Options{Rules: fixture.Rules("^a=uint4")}, nil, tensorpress.VerifyOptions{For: "comfyui"},
			[]string{"a.weight: stock ComfyUI does not load uint4"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Keep = []string{"norm"}
			out := fixture.Quantized(t, source, tt.o)
			if tt.damage != nil {
				tt.damage(out)
			}
			v, err := tensorpress.Verify(t.Context(), files.Dir(out), tt.verify)
			if err != nil {
				t.Fatal(err)
			}
			checkProblems(t, v, tt.want)
		})
	}
}

func cut(t *testing.T, path string, n int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, max(info.Size()-n, 600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func checkProblems(t *testing.T, v *report.Verification, want []string) {
	t.Helper()
	if v.OK != (len(want) == 0) || len(v.Problems) != len(want) {
		t.Fatalf("OK is %v, problems are %v, want %q", v.OK, v.Problems, want)
	}
	for i, p := range v.Problems {
		tensor, part, _ := strings.Cut(want[i], ": ")
		if p.Tensor != tensor || !strings.Contains(p.Problem, part) {
			t.Errorf("problem is %+v, want %q", p, want[i])
		}
	}
}

// TestVerifyComparesNames: a tensor that is missing, is too much or has
// another shape than the source's.
func TestVerifyComparesNames(t *testing.T) {
	out := fixture.Quantized(t, fixture.Save(t, "in.safetensors", nil, verified...), tensorpress.Options{Keep: []string{"norm"}})
	for name, tt := range map[string]struct {
		source []fixture.Weights
		want   []string
	}{
		"the source has more": {append(verified[:4:4], fixture.Weights{Name: "c.weight", Dtype: safetensors.F32, Shape: []int{2, 2}}),
			[]string{"c.weight: is missing: the source has it"}},
		"the source has less": {verified[:3], []string{"norm.weight: is not in the source"}},
		"a layer has another shape": {append(verified[1:4:4], fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{96, 64}}),
			[]string{"a.weight: has shape [64 96], the source's has [96 64]"}},
		"a kept tensor has another shape": {append(verified[:3:3], fixture.Weights{Name: "norm.weight", Dtype: safetensors.F32, Shape: []int{64}}),
			[]string{"norm.weight: has shape"}},
	} {
		v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(fixture.Save(t, "other.safetensors", nil, tt.source...))})
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { checkProblems(t, v, tt.want) })
	}
	damaged := fixture.Quantized(t, fixture.Save(t, "in.safetensors", nil, verified...), tensorpress.Options{Keep: []string{"norm"}})
	fixture.Patched(t, damaged, "a.comfy_quant", 0, []byte("["))
	v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(damaged)})
	if err != nil || v.OK || !strings.Contains(v.Problems[0].Problem, "the source's cannot be restored: comfy_quant") {
		t.Errorf("a quantized source that is damaged: %+v, %v", v, err)
	}
}

// TestVerifyCannotLook: what keeps verify from looking is an error, not a
// finding.
func TestVerifyCannotLook(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, verified...)
	out := fixture.Quantized(t, source, tensorpress.Options{})
	broken := filepath.Join(t.TempDir(), "broken.safetensors")
	if err := os.WriteFile(broken, []byte("broken"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path string
		o    tensorpress.VerifyOptions
		kind error
	}{
		"no such file":       {"none.safetensors", tensorpress.VerifyOptions{}, fs.ErrNotExist},
		"no such source":     {out, tensorpress.VerifyOptions{Source: files.Dir("none.safetensors")}, fs.ErrNotExist},
		"broken source":      {out, tensorpress.VerifyOptions{Source: files.Dir(broken)}, tensorpress.ErrSource},
		"no such app":        {out, tensorpress.VerifyOptions{For: "gimp"}, tensorpress.ErrUsage},
		"both broken":        {broken, tensorpress.VerifyOptions{Source: files.Dir(broken)}, tensorpress.ErrSource},
		"broken, and no app": {broken, tensorpress.VerifyOptions{For: "gimp"}, tensorpress.ErrUsage},
	} {
		if v, err := tensorpress.Verify(t.Context(), files.Dir(tt.path), tt.o); !errors.Is(err, tt.kind) {
			t.Errorf("%s: %+v, %v, want %v", name, v, err, tt.kind)
		}
	}
}

// floats returns a plain tensor's values.
func floats(t *testing.T, path, name string) []float32 {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tensor, _ := f.Header().Lookup(name)
	values := make([]float32, tensor.Numel())
	codec.Widen(values, fixture.Body(t, path, name), tensor.Dtype)
	return values
}

// TestErrorFigures: the figures by which people choose a dtype must be what
// they say: Σ(W-Ŵ)²/ΣW², its decibels, and the greatest difference.
func TestErrorFigures(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, verified...)
	near := func(what string, got *float64, want float64) {
		t.Helper()
		if got == nil || math.Abs(*got-want) > 1e-10*math.Abs(want) { // sums differ in their order
			t.Errorf("%s is %s, want %g", what, verify.Figure(got), want)
		}
	}
	for _, name := range []string{"int8_tensorwise", "float8_e4m3fn", "uint4", "int3"} {
		out := fixture.Quantized(t, source, tensorpress.Options{Layer: tensorpress.Settings{Dtype: name}, Keep: []string{"norm"}})
		restored := filepath.Join(t.TempDir(), "restored.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(out), files.Dir(restored), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatal(err)
		}
		v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(source)})
		if err != nil || len(v.Layers) != 2 {
			t.Fatalf("%s: %+v, %v", name, v, err)
		}
		var allErrors, allSquares float64
		for _, l := range v.Layers {
			var sumErrors, squares, most float64
			got := floats(t, restored, l.Name+".weight")
			for i, w := range floats(t, source, l.Name+".weight") {
				e := float64(w) - float64(got[i])
				sumErrors, squares, most = sumErrors+e*e, squares+float64(w)*float64(w), max(most, math.Abs(e))
			}
			near(name+" rel_mse of "+l.Name, l.RelMSE, sumErrors/squares)
			near(name+" sqnr of "+l.Name, l.SQNR, -10*math.Log10(sumErrors/squares))
			near(name+" max_abs of "+l.Name, l.MaxAbs, most)
			allErrors, allSquares = allErrors+sumErrors, allSquares+squares
		}
		near(name+" total", v.Total.RelMSE, allErrors/allSquares)
		for threads := 1; threads <= 4; threads++ {
			again, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(source), Threads: threads})
			if err != nil || *again.Total.RelMSE != *v.Total.RelMSE {
				t.Errorf("%s: another total by %d threads", name, threads)
			}
		}
	}
}

// TestFiguresOfZero: a weight of zeros is stored without error, which is no
// number of decibels.
func TestFiguresOfZero(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{32, 32}, Values: make([]float32, 1024)})
	v, err := tensorpress.Verify(t.Context(), files.Dir(fixture.Quantized(t, source, tensorpress.Options{})), tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: fixture.Ptr(0.0)})
	if err != nil || !v.OK || v.Total.RelMSE == nil || *v.Total.RelMSE != 0 || v.Total.SQNR != nil {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestVerifyRotatedAgainstItself: values that are decoded nearly would make a file
// differ from what it was itself restored to.
func TestVerifyRotatedAgainstItself(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	w := make([]float32, 64*512)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 512}, Values: w})
	out := fixture.Quantized(t, source, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int8", Hadamard: new(true)}})
	restored := filepath.Join(t.TempDir(), "restored.safetensors")
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(out), files.Dir(restored), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
		t.Fatal(err)
	}
	v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(restored), MaxRelMSE: fixture.Ptr(0.0)})
	if err != nil || !v.OK || len(v.Layers) != 1 || *v.Layers[0].RelMSE != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err = tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(source)}); err != nil || !(*v.Total.RelMSE > 1e-6) {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestLargeValues: a sum that goes to infinity on its way would pass for finite.
func TestLargeValues(t *testing.T) {
	for x, want := range map[float32]bool{0: false, 0x1p96: false, -0x1p97: true, float32(math.Inf(1)): true, float32(math.NaN()): true} {
		if engine.MayOverflow([]float32{1, x, -1}) != want {
			t.Errorf("%v: want %v", x, want)
		}
	}
}

// TestDequantizeDtypes: a weight must come back in the dtype that it had, as
// far as anything tells.
func TestDequantizeDtypes(t *testing.T) {
	f32, f16, bf16 := safetensors.F32, safetensors.F16, safetensors.BF16
	one := func(d, kept safetensors.Dtype) []fixture.Weights {
		all := []fixture.Weights{{Name: "a.weight", Dtype: d, Shape: []int{64, 64}}}
		if kept != 0 {
			all = append(all, fixture.Weights{Name: "a.bias", Dtype: kept, Shape: []int{64}})
		}
		return all
	}
	tests := []struct {
		name   string
		source []fixture.Weights
		o      tensorpress.Options
		config string // config.json beside the output
		asked  string
		want   safetensors.Dtype
	}{
		{"comfy's formats say bfloat16", one(f32, f32), tensorpress.Options{}, "", "", bf16},
		{"no orig_dtype, so as what was kept", one(f16, f32), tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e5m2"}}, "", "", f32},
		{"no orig_dtype, nothing kept", one(f32, 0), tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e5m2"}}, "", "", bf16},
		{"sdnq in comfy says the source's", one(f16, f32), tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}}, "", "", f16},
		{"sdnq layout, as what was kept", one(bf16, f16), tensorpress.Options{Layout: "sdnq"}, "", "", f16},
		{"sdnq layout, as the config says", one(bf16, bf16), tensorpress.Options{Layout: "sdnq"}, `{"torch_dtype": "float16"}`, "", f16},
		{"sdnq layout, config of another dtype", one(f32, f32), tensorpress.Options{Layout: "sdnq"}, `{"dtype": "float64"}`, "", f32},
		{"as asked", one(bf16, bf16), tensorpress.Options{}, "", "f32", f32},
		{"as asked before all", one(f16, f16), tensorpress.Options{Layout: "sdnq"}, `{"dtype": "float16"}`, "bf16", bf16},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source := fixture.Save(t, "in.safetensors", map[string]string{"format": "pt"}, tt.source...)
			out := fixture.Quantized(t, source, tt.o)
			if tt.config != "" {
				if err := os.WriteFile(filepath.Join(filepath.Dir(out), "config.json"), []byte(tt.config), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			dest := filepath.Join(t.TempDir(), "plain.safetensors")
			if _, err := tensorpress.Dequantize(t.Context(), files.Dir(out), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: tt.asked}); err != nil {
				t.Fatal(err)
			}
			if got := fixture.Left(t, filepath.Dir(dest)); got != "plain.safetensors" {
				t.Errorf("wrote %s", got)
			}
			checkPlainFile(t, dest, source, tt.want)
		})
	}
}

// checkPlainFile holds a restored file against its source: weights in that
// dtype, everything else as it was, and no word of quantization.
func checkPlainFile(t *testing.T, path, source string, want safetensors.Dtype) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := fmt.Sprint(f.Header().Metadata); got != "map[format:pt]" {
		t.Errorf("metadata is %s", got)
	}
	s, err := safetensors.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, n := len(f.Header().Tensors), len(s.Header().Tensors); got != n {
		t.Errorf("%d tensors, want %d", got, n)
	}
	for _, was := range s.Header().Tensors {
		is, _ := f.Header().Lookup(was.Name)
		d := was.Dtype
		if strings.HasSuffix(was.Name, ".weight") {
			d = want
		}
		if is.Dtype != d || fmt.Sprint(is.Shape) != fmt.Sprint(was.Shape) {
			t.Errorf("%s is %v %v, want %v %v", was.Name, is.Dtype, is.Shape, d, was.Shape)
		}
		if d == was.Dtype && strings.HasSuffix(was.Name, ".bias") && string(fixture.Body(t, path, was.Name)) != string(fixture.Body(t, source, was.Name)) {
			t.Errorf("%s changed", was.Name)
		}
	}
}

// TestDequantizeRefuses: what cannot be restored must not come out as if it
// were.
func TestDequantizeRefuses(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, verified...)
	out := fixture.Quantized(t, source, tensorpress.Options{})
	damaged := fixture.Quantized(t, source, tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}})
	fixture.Patched(t, damaged, "a.comfy_quant", 0, []byte("]"))
	for name, tt := range map[string]struct {
		path string
		o    tensorpress.DequantizeOptions
		kind error
	}{
		"a plain file": {source, tensorpress.DequantizeOptions{}, tensorpress.ErrSource}, "another dtype": {out, tensorpress.DequantizeOptions{Dtype: "int8"}, tensorpress.ErrUsage},
		"shards of one file": {out, tensorpress.DequantizeOptions{ShardSize: 5}, tensorpress.ErrUsage}, "a damaged layer": {damaged, tensorpress.DequantizeOptions{}, tensorpress.ErrSource},
		"no such file": {"none.safetensors", tensorpress.DequantizeOptions{}, fs.ErrNotExist}, "no such source": {out, tensorpress.DequantizeOptions{Source: files.Dir("none.safetensors")}, fs.ErrNotExist},
	} {
		dir := t.TempDir()
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(tt.path), files.Dir(filepath.Join(dir, "plain.safetensors")), tt.o); !errors.Is(err, tt.kind) {
			t.Errorf("%s: %v, want %v", name, err, tt.kind)
		}
		if got := fixture.Left(t, dir); got != "" {
			t.Errorf("%s: left %s", name, got)
		}
	}
}

// FuzzInspect overwrites part of a quantized file: whatever it holds then,
// nothing may panic, nor may what decodes be other than verified.
func FuzzInspect(f *testing.F) {
	source := fixture.Save(f, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F16, Shape: []int{8, 32}},
		fixture.Weights{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{4, 16}}, fixture.Weights{Name: "a.bias", Dtype: safetensors.F32, Shape: []int{8}})
	var all [][]byte
	for _, o := range []tensorpress.Options{{}, {Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(16)}}, {Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int5"}}, {Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(-2)}}} {
		o.MinChannels = fixture.Ptr(0)
		data, err := os.ReadFile(fixture.Quantized(f, source, o))
		if err != nil {
			f.Fatal(err)
		}
		for at := 8; at < len(data); at += 83 {
			f.Add(uint8(len(all)), uint16(at), []byte("9"), uint16(0))
		}
		for _, old := range []string{`"a.weight"`, "F32", "orig_shape", "[8, 32]", `size": 16`, "uint4", "64]", "weight_scale", "per_row"} {
			for _, with := range []string{"null", "-1", "999"} {
				if at := strings.Index(string(data), old); at > 0 {
					f.Add(uint8(len(all)), uint16(at), []byte(with), uint16(0))
				}
			}
		}
		f.Add(uint8(len(all)), uint16(0), []byte{}, uint16(40))
		all = append(all, data)
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint16, with []byte, short uint16) {
		data := append([]byte(nil), all[int(which)%len(all)]...)
		copy(data[min(int(at), len(data)):], with)
		data = data[:len(data)-min(int(short), len(data))]
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		inspection, err := tensorpress.Inspect(t.Context(), files.Dir(path))
		internal(t, err)
		for _, source := range []string{"", source} {
			v, e := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(source)})
			internal(t, e)
			if e == nil && v.OK && err != nil {
				t.Errorf("verified, but inspect says %v", err)
			}
		}
		_, e := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(filepath.Join(t.TempDir(), "y.safetensors")), tensorpress.DequantizeOptions{})
		internal(t, e)
		if err != nil && e == nil {
			t.Errorf("dequantized, but inspect says %v", err)
		}
		if inspection == nil || e != nil {
			return
		}
		for _, l := range inspection.Layers {
			if l.Problem != "" {
				t.Errorf("dequantized, but layer %s has the problem %s", l.Name, l.Problem)
			}
		}
	})
}

// internal fails on a panic that became an error.
func internal(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "internal error") {
		t.Error(err)
	}
}

// TestMeasureEveryValue: a value that the sums leave out, or a NaN that they
// lose, would hide an error.
func TestMeasureEveryValue(t *testing.T) {
	for n := range 40 {
		for at := range n {
			want, got := make([]float32, n), make([]float32, n)
			want[at], got[at] = 3, 5
			var s engine.Sums
			if s.Measure(want, got); s.Squares != 9 || s.Errors != 4 || s.MaxAbs != 2 {
				t.Errorf("%d values, one at %d: got %+v", n, at, s)
			}
			got[at] = float32(math.NaN())
			if s.Measure(want, got); !math.IsNaN(s.Errors) || !math.IsNaN(s.MaxAbs) {
				t.Errorf("%d values, NaN at %d: got %+v", n, at, s)
			}
		}
	}
}
