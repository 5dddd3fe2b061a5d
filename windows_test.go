package tensorpress

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestWindows: a layer that lies by columns, or its scales do, comes back the same, and has the same errors,
// with any memory and any number of threads.
func TestWindows(t *testing.T) {
	source := written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{1008, 528}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{64, 4096}},
		{Name: "c.weight", Dtype: safetensors.BF16, Shape: []int{1024, 512}},
	})
	for _, c := range []struct {
		layout, dtype string
		settings      map[string]any
	}{
		{"sdnq", "int8", map[string]any{"quantized-matmul": true}}, {"sdnq", "float8_e4m3fn", map[string]any{"quantized-matmul": true}},
		{"sdnq", "int16", map[string]any{"quantized-matmul": true}}, {"sdnq", "uint8", map[string]any{"quantized-matmul": true, "svd-rank": 8}},
		{"sdnq", "int8", map[string]any{"quantized-matmul": true, "hadamard": true}}, {"comfy", "awq_w4a16", nil}, {"comfy", "asym_w4a8_int8", nil},
	} {
		t.Run(fmt.Sprint(c.layout, c.dtype, c.settings), func(t *testing.T) {
			path := quantized(t, source, Options{Layout: c.layout, Dtype: &c.dtype, Settings: c.settings})
			want, wantErrors := restoredWith(t, path, source, Resources{Threads: 1})
			for _, r := range []Resources{{}, {Memory: 1 << 10, Threads: 1}, {Memory: 2 << 20, Threads: 3}, {Memory: 4 << 20}} {
				got, errors := restoredWith(t, path, source, r)
				if !bytes.Equal(got, want) {
					t.Errorf("with %+v values differ", r)
				}
				if !reflect.DeepEqual(errors, wantErrors) {
					t.Errorf("with %+v errors are %+v, want %+v", r, errors, wantErrors)
				}
			}
		})
	}
}

// restoredWith dequantizes and verifies.
func restoredWith(t *testing.T, path, source string, r Resources) ([]byte, []report.LayerError) {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "plain.safetensors")
	if _, err := Dequantize(t.Context(), path, dest, DequantizeOptions{Resources: r}); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(t.Context(), path, VerifyOptions{Source: source, Resources: r})
	if err != nil || !v.OK {
		t.Fatal(v, err)
	}
	return fileBytes(t, dest), v.Layers
}
