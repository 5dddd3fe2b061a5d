package convert_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestMigrationsKeepValues: what is migrated must restore to the same values as
// before, weights untouched, and be current afterwards.
func TestMigrationsKeepValues(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/golden/foreign/*.safetensors")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	migrated := 0
	for _, source := range paths {
		dest := filepath.Join(t.TempDir(), "new.safetensors")
		_, err := tensorpress.Migrate(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.MigrateOptions{InputScale: true, QuantizationMetadata: true})
		if err != nil {
			if !errors.Is(err, tensorpress.ErrSource) {
				t.Errorf("%s: %v", source, err)
			}
			continue
		}
		migrated++
		if list := fixture.Differences(t, fixture.Plain(t, dest), fixture.Plain(t, source)); len(list) > 0 {
			t.Errorf("%s: other values: %v", source, list)
		}
		if v, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{}); err != nil || !v.OK {
			t.Errorf("%s: %v, %v", source, v, err)
		}
		_, err = tensorpress.Migrate(t.Context(), files.Dir(dest), files.Dir(filepath.Join(t.TempDir(), "again.safetensors")), tensorpress.MigrateOptions{InputScale: true, QuantizationMetadata: true})
		if !errors.Is(err, tensorpress.ErrUsage) {
			t.Errorf("%s is not current once migrated: %v", source, err)
		}
	}
	if migrated < 1 {
		t.Error("none can be migrated")
	}
}

// TestMigrationsMendShapes: a scale a row in one dimension loads as one a
// column, without an error where a weight is square.
func TestMigrationsMendShapes(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.I8, Shape: []int{32, 32}},
		{Name: "a.scale_weight", Dtype: safetensors.F32, Shape: []int{32}},
		{Name: "b.weight", Dtype: safetensors.F8_E4M3, Shape: []int{32, 48}},
		{Name: "b.scale_weight", Dtype: safetensors.F32, Shape: []int{1}},
		{Name: "b.scale_input", Dtype: safetensors.F32, Shape: []int{1}},
		{Name: "scaled_fp8", Dtype: safetensors.F8_E4M3, Shape: []int{0}},
	})
	dest := filepath.Join(t.TempDir(), "new.safetensors")
	if _, err := tensorpress.Migrate(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.MigrateOptions{For: "comfyui"}); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, dims := range map[string]int{"a.weight_scale": 2, "b.weight_scale": 0, "b.input_scale": 0} {
		if one, ok := f.Header().Lookup(name); !ok || len(one.Shape) != dims {
			t.Errorf("%s is %v, want %d dimensions", name, one.Shape, dims)
		}
	}
	if _, ok := f.Header().Lookup("scaled_fp8"); ok {
		t.Error("the marker is left, which makes ComfyUI convert the file again")
	}
}

// TestMigrationsKeepBlocks: three scales cover 300 columns in blocks of 128, of
// which the last ends beyond them, and in whole ones of 100. What means the one is
// not described as the other.
func TestMigrationsKeepBlocks(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.F8_E4M3, Shape: []int{200, 300}},
		{Name: "a.weight_scale_inv", Dtype: safetensors.F32, Shape: []int{2, 3}},
	})
	_, err := tensorpress.Migrate(t.Context(), files.Dir(source), files.Dir(filepath.Join(t.TempDir(), "new.safetensors")), tensorpress.MigrateOptions{})
	if !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), "blocks are of 128×128") {
		t.Errorf("%v", err)
	}
}

// TestMigrationsMendHeaders: a header that leaves out layers, or names one that
// is gone, is no description of the file.
func TestMigrationsMendHeaders(t *testing.T) {
	one := func(metadata map[string]string) string {
		path := filepath.Join(t.TempDir(), "a.safetensors")
		writeWith(t, path, []safetensors.Tensor{
			{Name: "a.weight", Dtype: safetensors.F8_E4M3, Shape: []int{4, 4}}, {Name: "a.weight_scale", Dtype: safetensors.F32, Shape: []int{}},
		}, map[string][]byte{"a.weight": make([]byte, 16), "a.weight_scale": {0, 0, 0x80, 0x3F}}, metadata)
		return path
	}
	how := tensorpress.MigrateOptions{QuantizationMetadata: true}
	first := filepath.Join(t.TempDir(), "first.safetensors")
	if _, err := tensorpress.Migrate(t.Context(), files.Dir(one(nil)), files.Dir(first), how); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	right := f.Header().Metadata["_quantization_metadata"]
	f.Close()
	for _, stale := range []string{`{"layers": {}}`, `{"layers": {"a": {"format": "float8_e4m3fn"}, "gone": {"format": "nvfp4"}}}`} {
		source := one(map[string]string{"_quantization_metadata": stale})
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := tensorpress.Migrate(t.Context(), files.Dir(source), files.Dir(dest), how); err != nil {
			t.Errorf("%s: %v", stale, err)
			continue
		}
		if got := fixture.FileHash(t, dest); got != fixture.FileHash(t, first) {
			t.Errorf("%s stays, where %s is right", stale, right)
		}
	}
}

// TestMigrationsDropIdleInputScales: ComfyUI leaves a scale_input of 1 out, and
// one that is stored would fix the scale of activations.
func TestMigrationsDropIdleInputScales(t *testing.T) {
	for value, kept := range map[byte]bool{0x80: false, 0x00: true} { // 1 and 0.5
		source := filepath.Join(t.TempDir(), "a.safetensors")
		writeWith(t, source, []safetensors.Tensor{
			{Name: "a.weight", Dtype: safetensors.F8_E4M3, Shape: []int{4, 4}}, {Name: "a.scale_weight", Dtype: safetensors.F32, Shape: []int{}},
			{Name: "a.scale_input", Dtype: safetensors.F32, Shape: []int{}},
		}, map[string][]byte{"a.weight": make([]byte, 16), "a.scale_weight": {0, 0, 0x80, 0x3F}, "a.scale_input": {0, 0, value, 0x3F}}, nil)
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := tensorpress.Migrate(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.MigrateOptions{}); err != nil {
			t.Fatal(err)
		}
		f, err := safetensors.Open(dest)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.Header().Lookup("a.input_scale"); ok != kept {
			t.Errorf("input scale %#x: kept %v, want %v", value, ok, kept)
		}
		f.Close()
	}
}
