package engine_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestWindows: a layer that lies by columns, or its scales do, comes back the same, and has the same errors,
// with any memory and any number of threads.
func TestWindows(t *testing.T) {
	t.Parallel()
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{1008, 528}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{64, 4096}},
		{Name: "c.weight", Dtype: safetensors.BF16, Shape: []int{1024, 512}},
	})
	for _, c := range []struct {
		layout, dtype string
		settings      tensorpress.Settings
	}{
		{"sdnq", "int8", tensorpress.Settings{QuantizedMatmul: new(true)}}, {"sdnq", "float8_e4m3fn", tensorpress.Settings{QuantizedMatmul: new(true)}},
		{"sdnq", "int16", tensorpress.Settings{QuantizedMatmul: new(true)}}, {"sdnq", "uint8", tensorpress.Settings{QuantizedMatmul: new(true), SVDRank: new(8)}},
		{"sdnq", "int8", tensorpress.Settings{QuantizedMatmul: new(true), Hadamard: new(true)}}, {"comfy", "awq_w4a16", tensorpress.Settings{}}, {"comfy", "asym_w4a8_int8", tensorpress.Settings{}},
	} {
		t.Run(fmt.Sprint(c.layout, c.dtype, c.settings), func(t *testing.T) {
			path := fixture.Quantized(t, source, tensorpress.Options{Layout: c.layout, Layer: fixture.Also(c.settings, tensorpress.Settings{Dtype: c.dtype})})
			want, wantErrors := restoredWith(t, path, source, fixture.Resources{Threads: 1})
			all := []fixture.Resources{{Memory: 1 << 10, Threads: 1}, {Memory: 2 << 20, Threads: 3}, {}, {Memory: 4 << 20}}
			if testing.Short() {
				all = all[:2]
			}
			for _, r := range all {
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
func restoredWith(t *testing.T, path, source string, r fixture.Resources) ([]byte, []report.LayerError) {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "plain.safetensors")
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.DequantizeOptions{Threads: r.Threads, Memory: r.Memory, Progress: r.Progress}); err != nil {
		t.Fatal(err)
	}
	v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(source), Threads: r.Threads, Memory: r.Memory, Progress: r.Progress})
	if err != nil || !v.OK {
		t.Fatal(v, err)
	}
	return fixture.FileBytes(t, dest), v.Layers
}
