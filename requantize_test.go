package tensorpress

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// agains are layers that cannot move, and how they are quantized again.
var agains = []struct {
	layout, dtype string
	settings      Settings
	to            string
	as            Settings // settings of a plain weight to the same end
}{
	{"sdnq", "int5", Settings{}, "int8_tensorwise", Settings{}},
	{"sdnq", "uint4", Settings{SVDRank: new(4), QuantizedMatmul: new(true)}, "int8_tensorwise", Settings{}},
	{"sdnq", "uint4", Settings{Hadamard: new(true)}, "int8_tensorwise", Settings{ConvRot: new(true)}},
	{"sdnq", "uint2", Settings{Codebook: new(true)}, "int8_tensorwise", Settings{}},
	{"sdnq", "float6_e3m2fn", Settings{}, "float8_e4m3fn", Settings{}},
	{"sdnq", "float16", Settings{}, "float8_e4m3fn", Settings{}},
	{"comfy", "nvfp4", Settings{}, "float4_e2m1fn", Settings{GroupSize: new(16)}},
	{"comfy", "mxfp8", Settings{}, "float8_e4m3fn", Settings{GroupSize: new(32)}},
	{"comfy", "int8_blockwise", Settings{BlockSize: new(32)}, "int8", Settings{GroupSize: new(32)}},
	{"comfy", "asym_w4a8_int8", Settings{}, "int8", Settings{Hadamard: new(true), GroupSize: new(-1)}},
}

// TestRequantize: a layer that is quantized again must be what its restored
// values, quantized as a plain weight, are: codes taken for values, or a
// rotation left in, would go unseen.
func TestRequantize(t *testing.T) {
	t.Parallel()
	source := written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 512}},
		{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{96, 1024}},
		{Name: "norm.weight", Dtype: safetensors.F32, Shape: []int{512}},
	})
	for i, tt := range agains {
		t.Run(fmt.Sprint(tt.dtype, tt.settings), func(t *testing.T) {
			from, got := filepath.Join(t.TempDir(), "from.safetensors"), filepath.Join(t.TempDir(), "got.safetensors")
			if _, err := Quantize(t.Context(), files.Dir(source), files.Dir(from), Options{Layout: tt.layout, Layer: also(tt.settings, Settings{Dtype: tt.dtype}), Preset: "none"}); err != nil {
				t.Fatal(err)
			}
			other := map[string]string{"sdnq": "comfy", "comfy": "sdnq"}[tt.layout]
			o := TranscodeOptions{Layout: other, Threads: 1 + i%3, Memory: int64(1+i%2) << 26}
			if _, err := Transcode(t.Context(), files.Dir(from), files.Dir(got), o); err == nil || !strings.Contains(err.Error(), "2 of 2 layers") {
				t.Fatalf("moves without being asked: %v", err)
			}
			o.Requantize = true
			r, err := Transcode(t.Context(), files.Dir(from), files.Dir(got), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range r.Layers {
				if l.Action != "keep" && (l.Action != "requantize" || l.Dtype != tt.to || l.Figures == nil || *l.RelMSE > 0.02) {
					t.Errorf("%s: %s to %s, error %v", l.Name, l.Action, l.Dtype, l.Figures)
				}
			}
			want := filepath.Join(t.TempDir(), "want.safetensors")
			if _, err := Quantize(t.Context(), files.Dir(plain(t, from)), files.Dir(want), Options{Layout: other, Layer: also(tt.as, Settings{Dtype: tt.to}), Preset: "none"}); err != nil {
				t.Fatal(err)
			}
			if list := differences(t, got, want); len(list) > 0 {
				t.Errorf("differ: %v", list)
			}
			compareErrors(t, r, got, plain(t, from))
		})
	}
}

// compareErrors holds the errors of a report against those that verify finds.
func compareErrors(t *testing.T, r *report.Report, output, source string) {
	t.Helper()
	v, err := Verify(t.Context(), files.Dir(output), VerifyOptions{Source: files.Dir(source)})
	if err != nil || !v.OK {
		t.Fatal(v, err)
	}
	for _, e := range v.Layers {
		for _, l := range r.Layers {
			if l.Name == e.Name && *l.RelMSE != *e.RelMSE {
				t.Errorf("%s: error %v, verify says %v", l.Name, *l.RelMSE, *e.RelMSE)
			}
		}
	}
}
