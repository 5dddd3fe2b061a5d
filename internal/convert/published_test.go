package convert_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

const publishedDir = "../../testdata/golden/published/"

// TestPublishedValues: weights that other programs publish quantized must come back with
// the values that these programs restore, with any memory and any number of threads.
func TestPublishedValues(t *testing.T) {
	want := map[string]map[string]string{}
	for _, row := range fixture.Tsv(t, publishedDir+"published.tsv") {
		if want[row[0]] == nil {
			want[row[0]] = map[string]string{}
		}
		want[row[0]][row[1]] = row[2]
	}
	for name, tensors := range want {
		t.Run(name, func(t *testing.T) {
			for _, r := range []fixture.Resources{{}, {Memory: 1 << 10, Threads: 1}, {Memory: 2 << 20, Threads: 3}} {
				dest := t.TempDir()
				if _, err := tensorpress.Dequantize(t.Context(), files.Dir(publishedDir+name), files.Dir(dest), tensorpress.DequantizeOptions{
					Dtype: "f32", Threads: r.Threads, Memory: r.Memory, Force: true,
				}); err != nil {
					t.Fatal(err)
				}
				f, err := safetensors.Open(filepath.Join(dest, "model.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for tensor, want := range tensors {
					one, _ := f.Header().Lookup(tensor)
					if got := fmt.Sprintf("%s:%s:%s", one.Dtype, strings.Join(strings.Fields(strings.Trim(fmt.Sprint(one.Shape), "[]")), ","), fixture.TensorHash(t, f, tensor)); got != want {
						t.Errorf("%s: %s, want %s", tensor, got, want)
					}
				}
				if config := string(fixture.FileBytes(t, filepath.Join(dest, "config.json"))); strings.Contains(config, "quant") {
					t.Errorf("the config still says how it was quantized: %s", config)
				}
			}
			v, err := tensorpress.Inspect(t.Context(), files.Dir(publishedDir+name))
			if err != nil || len(v.Layers) != len(tensors) {
				t.Errorf("%d layers, want %d, %v", len(v.Layers), len(tensors), err)
			}
			if found, err := tensorpress.Verify(t.Context(), files.Dir(publishedDir+name), tensorpress.VerifyOptions{}); err != nil || !found.OK {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
}
