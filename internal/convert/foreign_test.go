package convert_test

import (
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
)

// TestForeignValues: what other programs left in eight bits must come back with
// the values that the references restore.
func TestForeignValues(t *testing.T) {
	layers := map[string]int{}
	for _, row := range fixture.Tsv(t, "../../testdata/golden/foreign/foreign.tsv") {
		path := "../../testdata/golden/foreign/" + row[0] + ".safetensors"
		f := fixture.Dequantized(t, path, "f32")
		if got := fixture.TensorHash(t, f, row[1]+".weight"); got != row[2] {
			t.Errorf("%s: layer %s: %s, want %s", row[0], row[1], got, row[2])
		}
		layers[row[0]]++
	}
	for name, n := range layers {
		path := "../../testdata/golden/foreign/" + name + ".safetensors"
		v, err := tensorpress.Inspect(t.Context(), files.Dir(path))
		if err != nil || len(v.Layers) != n || v.Layout != name {
			t.Errorf("%s: %d layers in layout %s, want %d, %v", name, len(v.Layers), v.Layout, n, err)
		}
		if found, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{}); err != nil || !found.OK {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}
