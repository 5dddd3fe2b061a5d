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
	settings      map[string]any
	to            string
	as            map[string]any // settings of a plain weight to the same end
}{
	{"sdnq", "int5", nil, "int8_tensorwise", nil},
	{"sdnq", "uint4", map[string]any{"svd-rank": 4, "quantized-matmul": true}, "int8_tensorwise", nil},
	{"sdnq", "uint4", map[string]any{"hadamard": true}, "int8_tensorwise", map[string]any{"convrot": true}},
	{"sdnq", "uint2", map[string]any{"codebook": true}, "int8_tensorwise", nil},
	{"sdnq", "float6_e3m2fn", nil, "float8_e4m3fn", nil},
	{"sdnq", "float16", nil, "float8_e4m3fn", nil},
	{"comfy", "nvfp4", nil, "float4_e2m1fn", map[string]any{"group-size": 16}},
	{"comfy", "mxfp8", nil, "float8_e4m3fn", map[string]any{"group-size": 32}},
	{"comfy", "int8_blockwise", map[string]any{"block-size": 32}, "int8", map[string]any{"group-size": 32}},
	{"comfy", "asym_w4a8_int8", nil, "int8", map[string]any{"hadamard": true, "group-size": -1}},
}

// TestRequantize: a layer that is quantized again must be what its restored
// values, quantized as a plain weight, are: codes taken for values, or a
// rotation left in, would go unseen.
func TestRequantize(t *testing.T) {
	source := written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 512}},
		{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{96, 1024}},
		{Name: "norm.weight", Dtype: safetensors.F32, Shape: []int{512}},
	})
	for i, tt := range agains {
		t.Run(fmt.Sprint(tt.dtype, tt.settings), func(t *testing.T) {
			from, got := filepath.Join(t.TempDir(), "from.safetensors"), filepath.Join(t.TempDir(), "got.safetensors")
			if _, err := Quantize(t.Context(), files.Dir(source), files.Dir(from), Options{Layout: tt.layout, Dtype: &tt.dtype, Settings: tt.settings, Preset: "none"}); err != nil {
				t.Fatal(err)
			}
			other := map[string]string{"sdnq": "comfy", "comfy": "sdnq"}[tt.layout]
			o := TranscodeOptions{Layout: other, Resources: Resources{Threads: 1 + i%3, Memory: int64(1+i%2) << 26}}
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
			if _, err := Quantize(t.Context(), files.Dir(plain(t, from)), files.Dir(want), Options{Layout: other, Dtype: &tt.to, Settings: tt.as, Preset: "none"}); err != nil {
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
