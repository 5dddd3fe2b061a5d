package tensorpress

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// weights is a tensor with its values.
type weights struct {
	name   string
	dtype  safetensors.Dtype
	shape  []int
	values []float32 // nil for bell-shaped ones
}

func (w weights) filled() []float32 {
	if w.values != nil {
		return w.values
	}
	rng := rand.New(rand.NewPCG(uint64(len(w.shape)), 7))
	n := 1
	for _, d := range w.shape {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64() * 0.02)
	}
	return values
}

// save writes tensors to a file of that name in a new folder.
func save(t testing.TB, name string, metadata map[string]string, all ...weights) string {
	t.Helper()
	var tensors []safetensors.Tensor
	for _, w := range all {
		tensors = append(tensors, safetensors.Tensor{Name: w.name, Dtype: w.dtype, Shape: w.shape})
	}
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, h.FileSize()-h.DataStart)
	for _, w := range all {
		tensor, _ := h.Lookup(w.name)
		codec.Narrow(body[tensor.Offset:tensor.Offset+tensor.Size], w.filled(), w.dtype)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, append(h.Encode(), body...), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// quantized is the path of source, quantized.
func quantized(t testing.TB, source string, o Options) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	if o.Preset == "" {
		o.Preset = "none"
	}
	if o.MinNumel == nil {
		o.MinNumel = ptr(0)
	}
	if _, err := Quantize(t.Context(), files.Dir(source), files.Dir(dest), o); err != nil {
		t.Fatal(err)
	}
	return dest
}

// body returns a tensor's bytes.
func body(t testing.TB, path, name string) []byte {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tensor, ok := f.Header().Lookup(name)
	if !ok {
		t.Fatalf("%s: no tensor %s", path, name)
	}
	data := make([]byte, tensor.Size)
	if err := f.ReadSection(tensor, data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBytesFollowFromTheSourceAlone: a file would depend on the machine that
// made it. The wide rows do not fit the tiles of a small memory.
func TestBytesFollowFromTheSourceAlone(t *testing.T) {
	t.Parallel()
	source := save(t, "in.safetensors", nil,
		weights{name: "wide.weight", dtype: safetensors.F32, shape: []int{3, 50_000}},
		weights{name: "tall.weight", dtype: safetensors.BF16, shape: []int{128, 96}},
		weights{name: "tall.bias", dtype: safetensors.F16, shape: []int{700}})
	for _, o := range []Options{
		{}, {Layer: Settings{Scale: "tensor"}}, {Layer: Settings{Dtype: "float8_e4m3fn"}}, {Layer: Settings{Dtype: "uint4", GroupSize: new(-2)}}, {Layer: Settings{Dtype: "int5", GroupSize: new(-1)}},
		{Layer: Settings{Dtype: "float6_e3m2fn"}}, {Layer: Settings{Dtype: "uint3", GroupSize: new(25_000)}}, {Layer: Settings{Dtype: "uint9", GroupSize: new(48)}},
	} {
		want := ""
		for threads := range 9 {
			o.Threads, o.Memory = threads, []int64{0, 64 << 20, 1}[threads%3]
			got := fileHash(t, quantized(t, source, o))
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%s: another file by %d threads, memory %d", cmp.Or(o.Layer.Dtype, "default"), threads, o.Memory)
			}
		}
	}
}

// TestOneScaleAcrossTiles: the scale and zero point of a whole tensor must be
// those of its values at once, the sign of a zero included.
func TestOneScaleAcrossTiles(t *testing.T) {
	const rows, columns = 5, 70_000 // three tiles
	negative := float32(math.Copysign(0, -1))
	for _, zeros := range [][2]float32{{0, negative}, {negative, 0}} {
		values := weights{shape: []int{rows, columns}}.filled()
		for i, v := range values {
			values[i] = float32(math.Abs(float64(v))) + 1e-6
		}
		values[10], values[rows*columns-5] = zeros[0], zeros[1]
		source := save(t, "in.safetensors", nil, weights{"a.weight", safetensors.F32, []int{rows, columns}, values})
		for _, name := range []string{"uint4", "uint8", "int5", "float8_e4m3fn_sdnq"} {
			d, err := dtype.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			want, err := quant.Quantize(values, []int{rows, columns}, quant.Options{Dtype: d, GroupSize: -2, ScaleDtype: safetensors.F32})
			if err != nil {
				t.Fatal(err)
			}
			out := quantized(t, source, Options{Layer: Settings{Dtype: "sdnq:" + name, GroupSize: new(-2)}, Memory: 1, Threads: 3})
			for i, tensor := range []string{"a.weight", "a.weight_scale", "a.weight_zp"}[:len(want.Data)] {
				if !bytes.Equal(body(t, out, tensor), want.Data[i]) {
					t.Errorf("%s, zeros %v: %s differs", name, zeros, tensor)
				}
			}
		}
	}
}

// TestLayoutsRename: from one layout to the other no byte of a tensor changes.
func TestLayoutsRename(t *testing.T) {
	t.Parallel()
	source := save(t, "in.safetensors", nil,
		weights{name: "a.weight", dtype: safetensors.BF16, shape: []int{64, 96}}, weights{name: "a.bias", dtype: safetensors.BF16, shape: []int{64}})
	names := map[string]string{"a.weight": "a.weight", "a.scale": "a.weight_scale", "a.zero_point": "a.weight_zp", "a.bias": "a.bias"}
	for _, name := range []string{"int8", "uint4", "float8_e4m3fn", "float6_e3m2fn", "int5", "uint1", "bfloat16", "uint12"} {
		for _, group := range []int{0, -2, 16} {
			o := Options{Layer: Settings{Dtype: "sdnq:" + name, GroupSize: &group, DequantizeFP32: new(group != 16)}}
			comfy := quantized(t, source, o)
			o.Layout = "sdnq"
			sdnq := quantized(t, source, o)
			f, err := safetensors.Open(sdnq)
			if err != nil {
				t.Fatal(err)
			}
			for _, tensor := range f.Header().Tensors {
				if !bytes.Equal(body(t, sdnq, tensor.Name), body(t, comfy, names[tensor.Name])) {
					t.Errorf("%s, group %d: %s differs", name, group, tensor.Name)
				}
			}
			f.Close()
			for _, path := range []string{comfy, sdnq} {
				if v, err := Verify(t.Context(), files.Dir(path), VerifyOptions{Source: files.Dir(source)}); err != nil || !v.OK {
					t.Errorf("%s, group %d: %+v, %v", name, group, v, err)
				}
			}
		}
	}
}

// left is what stands in a folder, hidden files included.
func left(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// TestNonfinite: NaN in a weight must be found, named by tensor and place, the
// same by any number of threads, and leave nothing behind.
func TestNonfinite(t *testing.T) {
	const rows, columns = 5, 70_000
	w := weights{"b.weight", safetensors.F32, []int{rows, columns}, nil}
	w.values = w.filled()
	w.values[2*columns+7] = float32(math.Inf(-1))
	w.values[4*columns+1] = float32(math.NaN())
	source := save(t, "in.safetensors", nil, w, weights{name: "a.weight", dtype: safetensors.F32, shape: []int{64, 64}},
		weights{"a.bias", safetensors.F32, []int{1}, []float32{float32(math.NaN())}})
	for _, o := range []Options{{}, {Layer: Settings{Scale: "tensor"}}, {Layer: Settings{Dtype: "uint4", GroupSize: new(-2)}}, {Layer: Settings{Dtype: "float8_e5m2"}}} {
		for threads := 1; threads <= 8; threads++ {
			dir := t.TempDir()
			o.Preset, o.Threads, o.Memory = "none", threads, int64(threads%2) // 1 byte: the smallest tiles
			_, err := Quantize(t.Context(), files.Dir(source), files.Dir(filepath.Join(dir, "out.safetensors")), o)
			if !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "tensor b.weight: value [2, 7] is -Inf") {
				t.Errorf("%s, %d threads: %v", cmp.Or(o.Layer.Dtype, "default"), threads, err)
			}
			if got := left(t, dir); got != "" {
				t.Errorf("%s, %d threads: left %s", cmp.Or(o.Layer.Dtype, "default"), threads, got)
			}
		}
		o.Layer.AllowNonfinite = new(true)
		quantized(t, source, o)
		o.Layer.AllowNonfinite, o.Keep = nil, []string{"^b"}
		quantized(t, source, o)
	}
}

// TestFailuresLeaveNothing: an output that is not whole must not be there, nor
// a folder for it, nor what was there before gone.
func TestFailuresLeaveNothing(t *testing.T) {
	source := save(t, "in.safetensors", nil, weights{name: "a.weight", dtype: safetensors.F32, shape: []int{2000, 1000}})
	interrupted, cancel := context.WithCancel(t.Context())
	defer cancel()
	tests := []struct {
		name, dest string
		o          Options
		ctx        context.Context
		kind       error
	}{
		{"a folder that is not there", "missing/out.safetensors", Options{}, t.Context(), fs.ErrNotExist},
		{"a file that is there", "old.safetensors", Options{}, t.Context(), ErrUsage},
		{"a file below a file", "old.safetensors/out.safetensors", Options{}, t.Context(), nil},
		{"interrupted", "out.safetensors", Options{Layout: "sdnq", Progress: func(_, _ int64) { cancel() }}, interrupted, context.Canceled},
		{"interrupted before", "old.safetensors", Options{Force: true}, interrupted, context.Canceled},
		{"an unknown dtype", "out.safetensors", Options{Layer: Settings{Dtype: "int17"}}, t.Context(), ErrUsage},
		{"a layout and dtype that clash", "out.safetensors", Options{Layout: "sdnq", Layer: Settings{Dtype: "int8_tensorwise"}}, t.Context(), ErrUsage},
		{"no such layout", "out.safetensors", Options{Layout: "gguf"}, t.Context(), ErrUsage},
		{"no such preset", "out.safetensors", Options{Preset: "flux9"}, t.Context(), ErrUsage},
		{"no such application", "out.safetensors", Options{For: "gimp"}, t.Context(), ErrUsage},
		{"no such config", "out.safetensors", Options{Config: "none.json"}, t.Context(), fs.ErrNotExist},
		{"a pattern that does not compile", "out.safetensors", Options{Keep: []string{"("}}, t.Context(), ErrUsage},
		{"a rule that matches nothing", "out.safetensors", Options{Rules: rules("x=keep")}, t.Context(), ErrUsage},
		{"shards of one file", "out.safetensors", Options{ShardSize: 5}, t.Context(), ErrUsage},
		{"a folder for a file", "out", Options{}, t.Context(), ErrUsage},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "old.safetensors"), []byte("old"), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := Quantize(tt.ctx, files.Dir(source), files.Dir(filepath.Join(dir, filepath.FromSlash(tt.dest))), tt.o)
		if err == nil || tt.kind != nil && !errors.Is(err, tt.kind) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.kind)
		}
		old, _ := os.ReadFile(filepath.Join(dir, "old.safetensors"))
		if got := left(t, dir); got != "old.safetensors" || string(old) != "old" {
			t.Errorf("%s: left %s, with %q in the old file", tt.name, got, old)
		}
	}
}

// TestSourceIsNotTouched: whatever is asked for, the source stays.
func TestSourceIsNotTouched(t *testing.T) {
	source := save(t, "in.safetensors", nil, weights{name: "a.weight", dtype: safetensors.F32, shape: []int{64, 64}})
	before := fileHash(t, source)
	for _, dest := range []string{source, filepath.Join(filepath.Dir(source), ".", "in.safetensors"), filepath.Dir(source)} {
		if _, err := Quantize(t.Context(), files.Dir(source), files.Dir(dest), Options{Force: true}); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: %v", dest, err)
		}
	}
	if fileHash(t, source) != before || left(t, filepath.Dir(source)) != "in.safetensors" {
		t.Error("the source changed")
	}
}

// TestPlanIsQuantize: what plan prints must be what quantize does.
func TestPlanIsQuantize(t *testing.T) {
	source := save(t, "in.safetensors", map[string]string{"format": "pt"},
		weights{name: "a.weight", dtype: safetensors.BF16, shape: []int{64, 64}}, weights{name: "a.bias", dtype: safetensors.BF16, shape: []int{64}},
		weights{name: "norm.weight", dtype: safetensors.F32, shape: []int{64}})
	for _, layout := range []string{"comfy", "sdnq"} {
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		o := Options{Layout: layout, Preset: "none", MinNumel: ptr(0), Layer: Settings{Dtype: "uint4"}}
		plan, err := Plan(t.Context(), files.Dir(source), files.Dir(dest), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := left(t, filepath.Dir(dest)); got != "" {
			t.Errorf("plan wrote %s", got)
		}
		report, err := Quantize(t.Context(), files.Dir(source), files.Dir(dest), o)
		if err != nil {
			t.Fatal(err)
		}
		if plan.Seconds != 0 || report.Seconds == 0 || report.Speed() == 0 || plan.Speed() != 0 {
			t.Errorf("seconds are %g and %g", plan.Seconds, report.Seconds)
		}
		report.Seconds = 0
		if a, b := fmt.Sprintf("%+v", plan), fmt.Sprintf("%+v", report); a != b {
			t.Errorf("%s: planned\n%s\ndone\n%s", layout, a, b)
		}
		if info, err := os.Stat(dest); err != nil || info.Size() != plan.BytesOut {
			t.Errorf("%s: planned %d bytes, wrote %v, %v", layout, plan.BytesOut, info.Size(), err)
		}
		if len(plan.Layers) != 2 {
			t.Errorf("%d layers, want the two weights", len(plan.Layers))
		}
	}
}

// TestProgressCountsTheSource: a bar must end at its end.
func TestProgressCountsTheSource(t *testing.T) {
	source := save(t, "in.safetensors", nil, weights{name: "a.weight", dtype: safetensors.F32, shape: []int{3, 96_000}},
		weights{name: "a.bias", dtype: safetensors.F16, shape: []int{700}})
	for _, memory := range []int64{0, 1} {
		var last, of int64
		o := Options{Layer: Settings{Scale: "tensor"}, Memory: memory, Progress: func(done, total int64) {
			if done <= last {
				t.Errorf("went from %d to %d", last, done)
			}
			last, of = done, total
		}}
		quantized(t, source, o)
		if want := int64(4*3*96_000 + 2*700); last != want || of != want {
			t.Errorf("ended at %d of %d, want %d", last, of, want)
		}
	}
}

// patched overwrites part of a tensor of a file.
func patched(t testing.TB, path, name string, off int64, data []byte) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tensor, ok := f.Header().Lookup(name)
	start := f.Header().DataStart
	f.Close()
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(data, start+tensor.Offset+off); err != nil {
		t.Fatal(err)
	}
}

func float32Bytes(x float32) []byte {
	return binary.LittleEndian.AppendUint32(nil, math.Float32bits(x))
}

// TestDefaults: the layout follows from the source, and the lists from layout
// and preset.
func TestDefaults(t *testing.T) {
	file := save(t, "model.safetensors", nil, weights{name: "proj_out.weight", dtype: safetensors.BF16, shape: []int{256, 256}})
	folder := filepath.Dir(file)
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(`{}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		source               string
		o                    Options
		layout, dtype, files string
	}{
		{file, Options{}, "comfy", "BF16", "output.safetensors"},
		{folder, Options{}, "sdnq", "BF16", "model.safetensors"},
		{folder, Options{Layout: "comfy", Preset: "none"}, "comfy", "int8_tensorwise", "model.safetensors"},
		{folder, Options{Preset: "none"}, "sdnq", "int8", "model.safetensors"},
		{folder, Options{SkipKeys: ptr(false)}, "sdnq", "int8", "model.safetensors"},
		{folder, Options{ShardSize: 10}, "sdnq", "BF16", "model.safetensors"},
	} {
		r, err := Plan(t.Context(), files.Dir(tt.source), nil, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Files, " "); r.Layout != tt.layout || r.Layers[0].Dtype != tt.dtype || got != tt.files {
			t.Errorf("%+v: %s %s %s, want %+v", tt.o, r.Layout, r.Layers[0].Dtype, got, tt)
		}
	}
	if _, err := Plan(t.Context(), files.Dir(file), nil, Options{SkipKeys: ptr(true)}); !errors.Is(err, ErrUsage) {
		t.Errorf("skip keys in the comfy layout: %v", err)
	}
}
