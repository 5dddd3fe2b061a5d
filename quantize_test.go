package tensorpress_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// TestBytesFollowFromTheSourceAlone: a file would depend on the machine that
// made it. The wide rows do not fit the tiles of a small memory.
func TestBytesFollowFromTheSourceAlone(t *testing.T) {
	t.Parallel()
	source := fixture.Save(t, "in.safetensors", nil,
		fixture.Weights{Name: "wide.weight", Dtype: safetensors.F32, Shape: []int{3, 50_000}},
		fixture.Weights{Name: "tall.weight", Dtype: safetensors.BF16, Shape: []int{128, 96}},
		fixture.Weights{Name: "tall.bias", Dtype: safetensors.F16, Shape: []int{700}})
	for _, o := range []tensorpress.Options{
		{}, {Layer: tensorpress.Settings{Scale: "tensor"}}, {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}}, {Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(-2)}}, {Layer: tensorpress.Settings{Dtype: "int5", GroupSize: new(-1)}},
		{Layer: tensorpress.Settings{Dtype: "float6_e3m2fn"}}, {Layer: tensorpress.Settings{Dtype: "uint3", GroupSize: new(25_000)}}, {Layer: tensorpress.Settings{Dtype: "uint9", GroupSize: new(48)}},
	} {
		want := ""
		for threads := range 9 {
			o.Threads, o.Memory = threads, []int64{0, 64 << 20, 1}[threads%3]
			got := fixture.FileHash(t, fixture.Quantized(t, source, o))
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
		values := fixture.Weights{Shape: []int{rows, columns}}.Filled()
		for i, v := range values {
			values[i] = float32(math.Abs(float64(v))) + 1e-6
		}
		values[10], values[rows*columns-5] = zeros[0], zeros[1]
		source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{rows, columns}, Values: values})
		for _, name := range []string{"uint4", "uint8", "int5", "float8_e4m3fn_sdnq"} {
			want, err := quant.Quantize(values, []int{rows, columns}, storage.Settings{Dtype: "sdnq:" + name, GroupSize: new(-2)})
			if err != nil {
				t.Fatal(err)
			}
			out := fixture.Quantized(t, source, tensorpress.Options{Layer: tensorpress.Settings{Dtype: "sdnq:" + name, GroupSize: new(-2)}, Memory: 1, Threads: 3})
			for i, tensor := range []string{"a.weight", "a.weight_scale", "a.weight_zp"}[:len(want.Tensors)] {
				if !bytes.Equal(fixture.Body(t, out, tensor), want.Tensors[i].Data) {
					t.Errorf("%s, zeros %v: %s differs", name, zeros, tensor)
				}
			}
		}
	}
}

// TestLayoutsRename: from one layout to the other no byte of a tensor changes.
func TestLayoutsRename(t *testing.T) {
	t.Parallel()
	source := fixture.Save(t, "in.safetensors", nil,
		fixture.Weights{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{64, 96}}, fixture.Weights{Name: "a.bias", Dtype: safetensors.BF16, Shape: []int{64}})
	names := map[string]string{"a.weight": "a.weight", "a.scale": "a.weight_scale", "a.zero_point": "a.weight_zp", "a.bias": "a.bias"}
	for _, name := range []string{"int8", "uint4", "float8_e4m3fn", "float6_e3m2fn", "int5", "uint1", "bfloat16", "uint12"} {
		for _, group := range []int{0, -2, 16} {
			o := tensorpress.Options{Layer: tensorpress.Settings{Dtype: "sdnq:" + name, GroupSize: &group, DequantizeFP32: new(group != 16)}}
			comfy := fixture.Quantized(t, source, o)
			o.Layout = "sdnq"
			sdnq := fixture.Quantized(t, source, o)
			f, err := safetensors.Open(sdnq)
			if err != nil {
				t.Fatal(err)
			}
			for _, tensor := range f.Header().Tensors {
				if !bytes.Equal(fixture.Body(t, sdnq, tensor.Name), fixture.Body(t, comfy, names[tensor.Name])) {
					t.Errorf("%s, group %d: %s differs", name, group, tensor.Name)
				}
			}
			f.Close()
			for _, path := range []string{comfy, sdnq} {
				if v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(source)}); err != nil || !v.OK {
					t.Errorf("%s, group %d: %+v, %v", name, group, v, err)
				}
			}
		}
	}
}

// TestNonfinite: NaN in a weight must be found, named by tensor and place, the
// same by any number of threads, and leave nothing behind.
func TestNonfinite(t *testing.T) {
	const rows, columns = 5, 70_000
	w := fixture.Weights{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{rows, columns}, Values: nil}
	w.Values = w.Filled()
	w.Values[2*columns+7] = float32(math.Inf(-1))
	w.Values[4*columns+1] = float32(math.NaN())
	source := fixture.Save(t, "in.safetensors", nil, w, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 64}},
		fixture.Weights{Name: "a.bias", Dtype: safetensors.F32, Shape: []int{1}, Values: []float32{float32(math.NaN())}})
	for _, o := range []tensorpress.Options{{}, {Layer: tensorpress.Settings{Scale: "tensor"}}, {Layer: tensorpress.Settings{Dtype: "uint4", GroupSize: new(-2)}}, {Layer: tensorpress.Settings{Dtype: "float8_e5m2"}}} {
		for threads := 1; threads <= 8; threads++ {
			dir := t.TempDir()
			o.Preset, o.Threads, o.Memory = "none", threads, int64(threads%2) // 1 byte: the smallest tiles
			_, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(filepath.Join(dir, "out.safetensors")), o)
			if !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), "tensor b.weight: value [2, 7] is -Inf") {
				t.Errorf("%s, %d threads: %v", cmp.Or(o.Layer.Dtype, "default"), threads, err)
			}
			if got := fixture.Left(t, dir); got != "" {
				t.Errorf("%s, %d threads: left %s", cmp.Or(o.Layer.Dtype, "default"), threads, got)
			}
		}
		o.Layer.AllowNonfinite = new(true)
		fixture.Quantized(t, source, o)
		o.Layer.AllowNonfinite, o.Keep = nil, []string{"^b"}
		fixture.Quantized(t, source, o)
	}
}

// TestFailuresLeaveNothing: an output that is not whole must not be there, nor
// a folder for it, nor what was there before gone.
func TestFailuresLeaveNothing(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{2000, 1000}})
	interrupted, cancel := context.WithCancel(t.Context())
	defer cancel()
	tests := []struct {
		name, dest string
		o          tensorpress.Options
		ctx        context.Context
		kind       error
	}{
		{"a folder that is not there", "missing/out.safetensors", tensorpress.Options{}, t.Context(), fs.ErrNotExist},
		{"a file that is there", "old.safetensors", tensorpress.Options{}, t.Context(), tensorpress.ErrUsage},
		{"a file below a file", "old.safetensors/out.safetensors", tensorpress.Options{}, t.Context(), nil},
		{"interrupted", "out.safetensors", tensorpress.Options{Layout: "sdnq", Progress: func(_, _ int64) { cancel() }}, interrupted, context.Canceled},
		{"interrupted before", "old.safetensors", tensorpress.Options{Force: true}, interrupted, context.Canceled},
		{"an unknown dtype", "out.safetensors", tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int17"}}, t.Context(), tensorpress.ErrUsage},
		{"a layout and dtype that clash", "out.safetensors", tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int8_tensorwise"}}, t.Context(), tensorpress.ErrUsage},
		{"no such layout", "out.safetensors", tensorpress.Options{Layout: "gguf"}, t.Context(), tensorpress.ErrUsage},
		{"no such preset", "out.safetensors", tensorpress.Options{Preset: "flux9"}, t.Context(), tensorpress.ErrUsage},
		{"no such application", "out.safetensors", tensorpress.Options{For: "gimp"}, t.Context(), tensorpress.ErrUsage},
		{"no such config", "out.safetensors", tensorpress.Options{Config: "none.json"}, t.Context(), fs.ErrNotExist},
		{"a pattern that does not compile", "out.safetensors", tensorpress.Options{Keep: []string{"("}}, t.Context(), tensorpress.ErrUsage},
		{"a rule that matches nothing", "out.safetensors", tensorpress.Options{Rules: fixture.Rules("x=keep")}, t.Context(), tensorpress.ErrUsage},
		{"shards of one file", "out.safetensors", tensorpress.Options{ShardSize: 5}, t.Context(), tensorpress.ErrUsage},
		{"a folder for a file", "out", tensorpress.Options{}, t.Context(), tensorpress.ErrUsage},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "old.safetensors"), []byte("old"), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := tensorpress.Quantize(tt.ctx, files.Dir(source), files.Dir(filepath.Join(dir, filepath.FromSlash(tt.dest))), tt.o)
		if err == nil || tt.kind != nil && !errors.Is(err, tt.kind) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.kind)
		}
		old, _ := os.ReadFile(filepath.Join(dir, "old.safetensors"))
		if got := fixture.Left(t, dir); got != "old.safetensors" || string(old) != "old" {
			t.Errorf("%s: left %s, with %q in the old file", tt.name, got, old)
		}
	}
}

// TestSourceIsNotTouched: whatever is asked for, the source stays.
func TestSourceIsNotTouched(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 64}})
	before := fixture.FileHash(t, source)
	for _, dest := range []string{source, filepath.Join(filepath.Dir(source), ".", "in.safetensors"), filepath.Dir(source)} {
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.Options{Force: true}); !errors.Is(err, tensorpress.ErrUsage) {
			t.Errorf("%s: %v", dest, err)
		}
	}
	if fixture.FileHash(t, source) != before || fixture.Left(t, filepath.Dir(source)) != "in.safetensors" {
		t.Error("the source changed")
	}
}

// TestPlanIsQuantize: what plan prints must be what quantize does.
func TestPlanIsQuantize(t *testing.T) {
	source := fixture.Save(t, "in.safetensors", map[string]string{"format": "pt"},
		fixture.Weights{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{64, 64}}, fixture.Weights{Name: "a.bias", Dtype: safetensors.BF16, Shape: []int{64}},
		fixture.Weights{Name: "norm.weight", Dtype: safetensors.F32, Shape: []int{64}})
	for _, layout := range []string{"comfy", "sdnq"} {
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		o := tensorpress.Options{Layout: layout, Preset: "none", MinNumel: fixture.Ptr(0), Layer: tensorpress.Settings{Dtype: "uint4"}}
		plan, err := tensorpress.Plan(t.Context(), files.Dir(source), files.Dir(dest), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := fixture.Left(t, filepath.Dir(dest)); got != "" {
			t.Errorf("plan wrote %s", got)
		}
		report, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), o)
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
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{3, 96_000}},
		fixture.Weights{Name: "a.bias", Dtype: safetensors.F16, Shape: []int{700}})
	for _, memory := range []int64{0, 1} {
		var last, of int64
		o := tensorpress.Options{Layer: tensorpress.Settings{Scale: "tensor"}, Memory: memory, Progress: func(done, total int64) {
			if done <= last {
				t.Errorf("went from %d to %d", last, done)
			}
			last, of = done, total
		}}
		fixture.Quantized(t, source, o)
		if want := int64(4*3*96_000 + 2*700); last != want || of != want {
			t.Errorf("ended at %d of %d, want %d", last, of, want)
		}
	}
}

// TestDefaults: the layout follows from the source, and the lists from layout
// and preset.
func TestDefaults(t *testing.T) {
	file := fixture.Save(t, "model.safetensors", nil, fixture.Weights{Name: "proj_out.weight", Dtype: safetensors.BF16, Shape: []int{256, 256}})
	folder := filepath.Dir(file)
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(`{}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		source               string
		o                    tensorpress.Options
		layout, dtype, files string
	}{
		{file, tensorpress.Options{}, "comfy", "BF16", "output.safetensors"},
		{folder, tensorpress.Options{}, "sdnq", "BF16", "model.safetensors"},
		{folder, tensorpress.Options{Layout: "comfy", Preset: "none"}, "comfy", "int8_tensorwise", "model.safetensors"},
		{folder, tensorpress.Options{Preset: "none"}, "sdnq", "int8", "model.safetensors"},
		{folder, tensorpress.Options{SkipKeys: fixture.Ptr(false)}, "sdnq", "int8", "model.safetensors"},
		{folder, tensorpress.Options{ShardSize: 10}, "sdnq", "BF16", "model.safetensors"},
	} {
		r, err := tensorpress.Plan(t.Context(), files.Dir(tt.source), nil, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Files, " "); r.Layout != tt.layout || r.Layers[0].Dtype != tt.dtype || got != tt.files {
			t.Errorf("%+v: %s %s %s, want %+v", tt.o, r.Layout, r.Layers[0].Dtype, got, tt)
		}
	}
	if _, err := tensorpress.Plan(t.Context(), files.Dir(file), nil, tensorpress.Options{SkipKeys: fixture.Ptr(true)}); !errors.Is(err, tensorpress.ErrUsage) {
		t.Errorf("skip keys in the comfy layout: %v", err)
	}
}
