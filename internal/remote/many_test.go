package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/hubtest"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestManyFetchedOnce: for several outputs a source that is far away is fetched once.
func TestManyFetchedOnce(t *testing.T) {
	source := fixture.Save(t, "model.safetensors", nil,
		fixture.Weights{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{4096, 3072}},
		fixture.Weights{Name: "b.weight", Dtype: safetensors.F32, Shape: []int{2048, 1024}},
		fixture.Weights{Name: "c.weight", Dtype: safetensors.BF16, Shape: []int{3000, 2048}},
	)
	size := int64(len(fixture.FileBytes(t, source)))
	h := hubtest.New()
	defer h.Close()
	t.Setenv("HF_ENDPOINT", h.Endpoint())
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	if _, err := h.AddFolder("org/model", filepath.Dir(source)); err != nil {
		t.Fatal(err)
	}
	var outputs []tensorpress.Output
	dir := t.TempDir()
	for i, dtype := range []string{"mxfp8", "sdnq:uint4", "int8_tensorwise", "nvfp4"} { // the last looks twice
		outputs = append(outputs, tensorpress.Output{
			Dest:    files.Dir(filepath.Join(dir, fmt.Sprint(i)+".safetensors")),
			Options: tensorpress.Options{Layout: "comfy", Preset: "none", Layer: tensorpress.Settings{Dtype: dtype}},
		})
	}
	from, _, err := remote.Open("hf://org/model/model.safetensors", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tensorpress.QuantizeMany(t.Context(), from, outputs, tensorpress.ManyOptions{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	var fetched int64
	for _, r := range h.Requests() {
		fetched += r.Bytes
	}
	if most := size + size/50; fetched < size || fetched > most {
		t.Errorf("fetched %d bytes of a source of %d, want at most %d", fetched, size, most)
	}
	for i, one := range outputs {
		path := filepath.Join(dir, fmt.Sprint("alone", i)+".safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(path), one.Options); err != nil {
			t.Fatal(err)
		}
		if fixture.FileHash(t, path) != fixture.FileHash(t, one.Dest.String()) {
			t.Errorf("%s has other bytes", one.Dest)
		}
		os.Remove(path)
	}
}
