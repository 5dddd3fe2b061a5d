package convert_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestDynamicIsAtMost: a plan knows no loss, and what it says that an output takes has to be
// enough for every dtype that may be chosen, and for none.
func TestDynamicIsAtMost(t *testing.T) {
	t.Parallel()
	for _, dtype := range []safetensors.Dtype{safetensors.BF16, safetensors.F32} {
		source := fixture.Save(t, "model.safetensors", nil,
			fixture.Weights{Name: "a.weight", Dtype: dtype, Shape: []int{40, 64}}, fixture.Weights{Name: "b.weight", Dtype: dtype, Shape: []int{33, 96}}, fixture.Weights{Name: "c.weight", Dtype: dtype, Shape: []int{33, 96}},
			fixture.Weights{Name: "norm.weight", Dtype: dtype, Shape: []int{96}})
		for _, threshold := range []string{"0", "1e-6", "1"} {
			for _, layer := range []tensorpress.Settings{{Dtype: "int8"}, {Dtype: "uint2", GroupSize: fixture.Ptr(32)}, {Dtype: "int5", SVDRank: fixture.Ptr(8)}} {
				if layer.SVDRank != nil && threshold != "1" {
					continue // each dtype takes a search
				}
				for _, layout := range []string{"sdnq", "comfy"} {
					layer.Dynamic, layer.DynamicLossThreshold = fixture.Ptr(true), threshold
					if layout == "comfy" {
						layer.Dtype = "sdnq:" + layer.Dtype
					}
					o := tensorpress.Options{Layer: layer, Layout: layout, Preset: "none", MinNumel: new(0)}
					name := fmt.Sprint(dtype, " ", threshold, " ", layer.Dtype, " ", layout)
					dest := filepath.Join(t.TempDir(), "out.safetensors")
					planned, err := tensorpress.Plan(t.Context(), files.Dir(source), files.Dir(dest), o)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					made, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), o)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if !planned.AtMost || made.AtMost || planned.BytesOut < made.BytesOut || planned.BytesOut > 2*made.BytesIn+4096 {
						t.Errorf("%s: at most %d (%v), and it takes %d (%v)", name, planned.BytesOut, planned.AtMost, made.BytesOut, made.AtMost)
					}
					for i, l := range planned.Layers {
						if l.BytesOut < made.Layers[i].BytesOut || made.Layers[i].Dtype == "dynamic" {
							t.Errorf("%s: %s takes at most %d, and %d in %s", name, l.Name, l.BytesOut, made.Layers[i].BytesOut, made.Layers[i].Dtype)
						}
					}
				}
			}
		}
	}
}
