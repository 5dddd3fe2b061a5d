package convert_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// agains are layers that cannot move, and how they are quantized again.
var agains = []struct {
	layout, dtype string
	settings      tensorpress.Settings
	to            string
	as            tensorpress.Settings // settings of a plain weight to the same end
}{
	{"sdnq", "int5", tensorpress.Settings{}, "int8_tensorwise", tensorpress.Settings{}},
	{"sdnq", "uint4", tensorpress.Settings{SVDRank: new(4), QuantizedMatmul: new(true)}, "int8_tensorwise", tensorpress.Settings{}},
	{"sdnq", "uint4", tensorpress.Settings{Hadamard: new(true)}, "int8_tensorwise", tensorpress.Settings{ConvRot: new(true)}},
	{"sdnq", "uint2", tensorpress.Settings{Codebook: new(true)}, "int8_tensorwise", tensorpress.Settings{}},
	{"sdnq", "float6_e3m2fn", tensorpress.Settings{}, "float8_e4m3fn", tensorpress.Settings{}},
	{"sdnq", "float16", tensorpress.Settings{}, "float8_e4m3fn", tensorpress.Settings{}},
	{"comfy", "nvfp4", tensorpress.Settings{}, "float4_e2m1fn", tensorpress.Settings{GroupSize: new(16)}},
	{"comfy", "mxfp8", tensorpress.Settings{}, "float8_e4m3fn", tensorpress.Settings{GroupSize: new(32)}},
	{"comfy", "int8_blockwise", tensorpress.Settings{BlockSize: new(32)}, "int8", tensorpress.Settings{GroupSize: new(32)}},
	{"comfy", "asym_w4a8_int8", tensorpress.Settings{}, "int8", tensorpress.Settings{Hadamard: new(true), GroupSize: new(-1)}},
}

// TestRequantize: a layer that is quantized again must be what its restored
// values, quantized as a plain weight, are: codes taken for values, or a
// rotation left in, would go unseen.
func TestRequantize(t *testing.T) {
	t.Parallel()
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 512}},
		{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{96, 1024}},
		{Name: "norm.weight", Dtype: safetensors.F32, Shape: []int{512}},
	})
	for i, tt := range agains {
		t.Run(fmt.Sprint(tt.dtype, tt.settings), func(t *testing.T) {
			from, got := filepath.Join(t.TempDir(), "from.safetensors"), filepath.Join(t.TempDir(), "got.safetensors")
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(from), tensorpress.Options{Layout: tt.layout, Layer: fixture.Also(tt.settings, tensorpress.Settings{Dtype: tt.dtype}), Preset: "none"}); err != nil {
				t.Fatal(err)
			}
			other := map[string]string{"sdnq": "comfy", "comfy": "sdnq"}[tt.layout]
			o := tensorpress.TranscodeOptions{Layout: other, Threads: 1 + i%3, Memory: int64(1+i%2) << 26}
			if _, err := tensorpress.Transcode(t.Context(), files.Dir(from), files.Dir(got), o); err == nil || !strings.Contains(err.Error(), "2 of 2 layers") {
				t.Fatalf("moves without being asked: %v", err)
			}
			o.Requantize = true
			r, err := tensorpress.Transcode(t.Context(), files.Dir(from), files.Dir(got), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range r.Layers {
				if l.Action != "keep" && (l.Action != "requantize" || l.Dtype != tt.to || l.Figures == nil || *l.RelMSE > 0.02) {
					t.Errorf("%s: %s to %s, error %v", l.Name, l.Action, l.Dtype, l.Figures)
				}
			}
			want := filepath.Join(t.TempDir(), "want.safetensors")
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(fixture.Plain(t, from)), files.Dir(want), tensorpress.Options{Layout: other, Layer: fixture.Also(tt.as, tensorpress.Settings{Dtype: tt.to}), Preset: "none"}); err != nil {
				t.Fatal(err)
			}
			if list := fixture.Differences(t, got, want); len(list) > 0 {
				t.Errorf("differ: %v", list)
			}
			compareErrors(t, r, got, fixture.Plain(t, from))
		})
	}
}

// compareErrors holds the errors of a report against those that verify finds.
func compareErrors(t *testing.T, r *report.Report, output, source string) {
	t.Helper()
	v, err := tensorpress.Verify(t.Context(), files.Dir(output), tensorpress.VerifyOptions{Source: files.Dir(source)})
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
