package convert_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
)

// hashesBelow are those of all files of a folder, or of one file, by their paths.
func hashesBelow(t *testing.T, path string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		all[path] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func byPath(files []report.File) map[string]string {
	all := map[string]string{}
	for _, f := range files {
		all[f.Path] = f.SHA256
	}
	return all
}

// TestProvenance: the report has every file that was read, copied or written, under the
// path where it lies, with its hash.
func TestProvenance(t *testing.T) {
	weights := fixture.FileBytes(t, fixture.Path("testdata/minilm.safetensors"))
	dir := t.TempDir()
	model, pipe := filepath.Join(dir, "model"), filepath.Join(dir, "pipe")
	for path, data := range map[string]string{
		"model/model.safetensors": string(weights), "model/config.json": `{"model_type": "bert"}`, "model/tokenizer.json": "{}",
		"pipe/text_encoder/model.safetensors": string(weights), "pipe/text_encoder/config.json": `{"model_type": "bert"}`,
		"pipe/vae/diffusion_pytorch_model.safetensors": string(weights), "pipe/model_index.json": `{"text_encoder": ["transformers", "BertModel"], "vae": ["diffusers", "X"]}`,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, source := range map[string]string{"file.safetensors": filepath.Join(model, "model.safetensors"), "folder": model, "pipeline": pipe} {
		dest := filepath.Join(dir, "out", name)
		if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
			t.Fatal(err)
		}
		o := tensorpress.Options{Hash: true, Layer: tensorpress.Settings{Dtype: "int8"}}
		if name != "file.safetensors" {
			o.ShardSize = 1 << 20
		}
		r, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := byPath(r.Provenance.Sources), hashesBelow(t, source); !maps.Equal(got, want) {
			t.Errorf("%s: sources %q, want %q", name, got, want)
		}
		if got, want := byPath(r.Provenance.Outputs), hashesBelow(t, dest); !maps.Equal(got, want) {
			t.Errorf("%s: outputs %q, want %q", name, got, want)
		}
		back := filepath.Join(dir, "back", name)
		if err := os.MkdirAll(filepath.Dir(back), 0o777); err != nil {
			t.Fatal(err)
		}
		if r, err = tensorpress.Dequantize(t.Context(), files.Dir(dest), files.Dir(back), tensorpress.DequantizeOptions{Hash: true}); err != nil {
			t.Fatal(err)
		}
		if got, want := byPath(r.Provenance.Outputs), hashesBelow(t, back); !maps.Equal(got, want) {
			t.Errorf("%s: restored %q, want %q", name, got, want)
		}
		if r, err = tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.Options{Force: true}); err != nil || r.Provenance != nil {
			t.Errorf("%s: hashes that nobody asked for: %v, %+v", name, err, r)
		}
	}
}
